"""The emulated bus: servos on a half-duplex line, a plant behind them, and the time both take."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from emulators.line_noise import NoisyLine

from servo_bus_emulator import protocol
from servo_bus_emulator.plant import Drive, JointMotion, Plant
from servo_bus_emulator.protocol import Instruction, PacketParser
from servo_bus_emulator.servo import Servo

_LINE_PAUSE_S: Final = 0.005
"""An unfinished packet is forgotten after a pause this long."""
_TRACE_LENGTH: Final = 100_000
_WRITES: Final = frozenset({protocol.WRITE, protocol.SYNC_WRITE, protocol.BULK_WRITE})
_MAX_CATCH_UP_S: Final = 0.2
"""After a longer stall of the host, the physics continues from now instead of racing to catch up;
the bus watchdogs still count the whole time."""


@dataclass(frozen=True)
class BusTiming:
    """How long bytes take. A start and a stop bit make 10 bits per byte."""

    baud_rate: int = 1_000_000
    usb_latency_s: float = 0.001
    """Time by which an adapter holds received bytes back (FTDI's latency timer)."""

    @property
    def byte_s(self) -> float:
        """Time of one byte on the wire."""
        return 10.0 / self.baud_rate


@dataclass(frozen=True)
class Reply:
    """Bytes that reach the host at `at_s` on the bus's clock."""

    at_s: float
    data: bytes


class EmulatedBus:
    """Servos, line and plant. Not thread-safe: one thread drives it with the time it chooses.

    Args:
        servos: the servos, each with its own ID.
        plant: what they turn; it must know every servo's joint.
        timing: wire timing; None makes every reply immediate.
        seed: of the line noise.
    """

    def __init__(
        self,
        servos: Sequence[Servo],
        plant: Plant,
        *,
        timing: BusTiming | None = None,
        seed: int = 0,
    ) -> None:
        """Power everything up at time 0."""
        self.servos = list(servos)
        self.plant = plant
        self.timing = timing
        self.to_servos = NoisyLine(seed)
        self.to_host = NoisyLine(seed + 1)
        self.instructions = 0
        self.crc_errors = 0
        self.writes: deque[tuple[float, Instruction]] = deque(maxlen=_TRACE_LENGTH)
        """Latest write instructions, with the time at which their last byte was on the wire."""
        self.now_s = 0.0
        self._parser = PacketParser()
        self._line_free_s = 0.0
        self._last_byte_s = 0.0
        self._motion: Mapping[str, JointMotion] = plant.advance(0.0, {})
        for servo in self.servos:
            servo.start_at(self._motion[servo.joint])

    def servo(self, servo_id: int) -> Servo:
        """Return the servo with that ID.

        Raises:
            KeyError: there is none.
        """
        for servo in self.servos:
            if servo.servo_id == servo_id:
                return servo
        raise KeyError(f"no servo has ID {servo_id}; there are {[s.servo_id for s in self.servos]}")

    def joint_motion(self) -> Mapping[str, JointMotion]:
        """Return the true motion of every joint."""
        return self._motion

    def set_supply_voltage(self, volts: float) -> None:
        """Change the supply of every servo."""
        for servo in self.servos:
            servo.supply_voltage = volts

    def power_cycle(self) -> None:
        """Switch every servo off and on again."""
        for servo in self.servos:
            servo.reboot(self.now_s)

    def advance(self, to_s: float) -> None:
        """Let servos and plant run until `to_s`."""
        if to_s - self.now_s > _MAX_CATCH_UP_S:
            self.now_s = to_s - _MAX_CATCH_UP_S
        while self.now_s < to_s:
            step = min(self.plant.max_step_s, to_s - self.now_s)
            if step < 1e-6:
                break
            drives: dict[str, Drive] = {}
            for servo in self.servos:
                drive = servo.drive(self.now_s, self._motion[servo.joint], step)
                other = drives.get(servo.joint)
                if other is not None:
                    drive = Drive(
                        drive.torque_nm + other.torque_nm,
                        drive.damping_nm_s_per_rad + other.damping_nm_s_per_rad,
                    )
                drives[servo.joint] = drive
            self._motion = self.plant.advance(step, drives)
            self.now_s += step

    def receive(self, data: bytes, at_s: float) -> list[Reply]:
        """Take bytes that the host sent at `at_s` and return what will come back, in order."""
        arrived, delay = self.to_servos.pass_through(data)
        if at_s - self._last_byte_s > _LINE_PAUSE_S:
            self._parser.clear()
        self._last_byte_s = at_s
        byte_s = self.timing.byte_s if self.timing else 0.0
        end = max(at_s, self._line_free_s) + delay + len(data) * byte_s
        self._line_free_s = end
        replies: list[Reply] = []
        for instruction in self._parser.feed(arrived):
            self.instructions += 1
            if instruction.crc_ok and instruction.code in _WRITES:
                self.writes.append((end, instruction))
            self.advance(max(end, self.now_s))
            replies += self._reply(self._dispatch(instruction))
        return replies

    # --- replies -------------------------------------------------------------------------------

    def _reply(self, packets: list[tuple[Servo, bytes]]) -> list[Reply]:
        replies = []
        for servo, raw in packets:
            if self.timing is None:
                at = self.now_s
            else:
                delay_s = servo.table.get("Return_Delay_Time") * 2e-6
                self._line_free_s += delay_s + len(raw) * self.timing.byte_s
                at = self._line_free_s
            arrived, extra = self.to_host.pass_through(raw)
            self._line_free_s += extra
            replies.append((at + extra, arrived))
        if self.timing is None:
            return [Reply(at, data) for at, data in replies if data]
        # The adapter hands over what it has when its timer ends; a whole answer is one chunk.
        last = max((at for at, _ in replies), default=0.0) + self.timing.usb_latency_s
        joined = b"".join(data for _, data in replies)
        return [Reply(last, joined)] if joined else []

    def _status(self, servo: Servo, error: int, parameters: bytes = b"") -> bytes:
        return protocol.status_packet(servo.servo_id, error | servo.alert, parameters)

    def _dispatch(self, packet: Instruction) -> list[tuple[Servo, bytes]]:
        present = [s for s in self.servos if s.answers(self.now_s)]
        if not packet.crc_ok:
            self.crc_errors += 1
            return [
                (s, self._status(s, protocol.CRC_ERROR))
                for s in present
                if s.servo_id == packet.servo_id and s.table.get("Status_Return_Level") == 2
            ]
        if packet.servo_id == protocol.BROADCAST_ID:
            return self._broadcast(packet, present)
        answers: list[tuple[Servo, bytes]] = []
        for servo in present:
            if servo.servo_id == packet.servo_id:
                servo.heard(self.now_s)
                reply = self._unicast(servo, packet)
                if reply is not None:
                    answers.append((servo, reply))
            elif servo.listens_to(packet.servo_id):
                servo.heard(self.now_s)
                self._obey_silently(servo, packet)
        return answers

    def _unicast(self, servo: Servo, packet: Instruction) -> bytes | None:
        level = servo.table.get("Status_Return_Level")
        code, parameters = packet.code, packet.parameters
        if code == protocol.PING:
            model = servo.table.get("Model_Number").to_bytes(2, "little")
            firmware = servo.table.get("Firmware_Version").to_bytes(1, "little")
            return self._status(servo, 0, model + firmware)
        if code == protocol.READ:
            if level < 1:
                return None
            if len(parameters) != 4:
                return self._status(servo, protocol.DATA_LENGTH_ERROR)
            address, length = _words(parameters)
            error, data = servo.read(address, length)
            return self._status(servo, error, data)
        if code in (protocol.WRITE, protocol.REG_WRITE):
            if len(parameters) < 3:
                error = protocol.DATA_LENGTH_ERROR
            else:
                address = int.from_bytes(parameters[:2], "little")
                act = servo.write if code == protocol.WRITE else servo.register_write
                error = act(address, parameters[2:])
        elif code == protocol.ACTION:
            servo.action()
            error = 0
        elif code == protocol.REBOOT:
            reply = self._status(servo, 0)
            servo.reboot(self.now_s)
            return reply if level == 2 else None
        elif code == protocol.FACTORY_RESET:
            # It would change the ID and the baud rate; no driver of an arm has a use for it.
            error = protocol.RESULT_FAIL
        else:
            error = protocol.INSTRUCTION_ERROR
        return self._status(servo, error) if level == 2 else None

    def _obey_silently(self, servo: Servo, packet: Instruction) -> None:
        if packet.code == protocol.WRITE and len(packet.parameters) >= 3:
            address = int.from_bytes(packet.parameters[:2], "little")
            servo.write(address, packet.parameters[2:], ram_only=True)
        elif packet.code == protocol.REG_WRITE and len(packet.parameters) >= 3:
            address = int.from_bytes(packet.parameters[:2], "little")
            servo.register_write(address, packet.parameters[2:])
        elif packet.code == protocol.ACTION:
            servo.action()

    def _broadcast(self, packet: Instruction, present: list[Servo]) -> list[tuple[Servo, bytes]]:
        code, parameters = packet.code, packet.parameters
        by_id = {s.servo_id: s for s in present}
        if code == protocol.PING:
            ordered = sorted(present, key=lambda s: s.servo_id)
            return [(s, self._ping_status(s)) for s in ordered]
        if code in (protocol.SYNC_READ, protocol.FAST_SYNC_READ) and len(parameters) > 4:
            address, length = _words(parameters[:4])
            requests = [(servo_id, address, length) for servo_id in parameters[4:]]
            return self._group_read(requests, by_id, fast=code == protocol.FAST_SYNC_READ)
        if code in (protocol.BULK_READ, protocol.FAST_BULK_READ):
            requests = [
                (parameters[i], *_words(parameters[i + 1 : i + 5]))
                for i in range(0, len(parameters) - 4, 5)
            ]
            return self._group_read(requests, by_id, fast=code == protocol.FAST_BULK_READ)
        if code == protocol.SYNC_WRITE and len(parameters) > 4:
            address, length = _words(parameters[:4])
            step = 1 + length
            for i in range(4, len(parameters) - length, step):
                self._group_write(present, parameters[i], address, parameters[i + 1 : i + step])
        elif code == protocol.BULK_WRITE:
            i = 0
            while i + 5 <= len(parameters):
                address, length = _words(parameters[i + 1 : i + 5])
                data = parameters[i + 5 : i + 5 + length]
                if len(data) == length:
                    self._group_write(present, parameters[i], address, data)
                i += 5 + length
        elif code in (protocol.WRITE, protocol.REG_WRITE, protocol.ACTION, protocol.REBOOT):
            for servo in present:
                servo.heard(self.now_s)
                self._unicast(servo, packet)
        return []

    def _ping_status(self, servo: Servo) -> bytes:
        reply = self._unicast(servo, Instruction(servo.servo_id, protocol.PING, b"", True, 10))
        assert reply is not None
        return reply

    def _group_write(self, present: list[Servo], target: int, address: int, data: bytes) -> None:
        for servo in present:
            if servo.servo_id == target:
                servo.heard(self.now_s)
                servo.write(address, data)
            elif servo.listens_to(target):
                servo.heard(self.now_s)
                servo.write(address, data, ram_only=True)

    def _group_read(
        self, requests: Sequence[tuple[int, int, int]], by_id: Mapping[int, Servo], *, fast: bool
    ) -> list[tuple[Servo, bytes]]:
        """Answer a sync or bulk read.

        Each servo waits for the status packet of the one before it, so a servo that is missing
        silences all that follow it.
        """
        answers: list[tuple[Servo, int, bytes]] = []
        for servo_id, address, length in requests:
            servo = by_id.get(servo_id)
            if servo is None or servo.table.get("Status_Return_Level") < 1:
                break
            error, data = servo.read(address, length)
            answers.append((servo, error, data))
        for servo in (by_id[i] for i, _, _ in requests if i in by_id):
            servo.heard(self.now_s)
        if not fast:
            return [(s, self._status(s, error, data)) for s, error, data in answers]
        if len(answers) < len(requests):
            return []
        return [(answers[-1][0], _fast_status(answers))]


def _words(raw: bytes) -> tuple[int, int]:
    return int.from_bytes(raw[:2], "little"), int.from_bytes(raw[2:4], "little")


def _fast_status(answers: Sequence[tuple[Servo, int, bytes]]) -> bytes:
    """Return the one status packet of a fast read: per servo error, ID, data and a running CRC."""
    length = 1 + sum(4 + len(data) for _, _, data in answers)
    head = protocol.HEADER + bytes((protocol.BROADCAST_ID,)) + length.to_bytes(2, "little")
    raw = head + bytes((protocol.STATUS,))
    for servo, error, data in answers:
        raw += bytes((error | servo.alert, servo.servo_id)) + data
        raw += protocol.crc16(raw).to_bytes(2, "little")
    return raw
