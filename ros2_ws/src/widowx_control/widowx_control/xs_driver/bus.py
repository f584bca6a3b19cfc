"""Transactions on the servo bus with `dynamixel_sdk`, each with a checked answer or an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dynamixel_sdk.protocol2_packet_handler import (
    PKT_ERROR,
    PKT_ID,
    PKT_LENGTH_H,
    PKT_LENGTH_L,
    PKT_PARAMETER0,
)
from dynamixel_sdk.robotis_def import COMM_RX_CORRUPT, COMM_SUCCESS, INST_READ, INST_WRITE

from widowx_control.xs_driver.packet_handler import PacketHandler
from widowx_control.xs_driver.serial_port import SerialPort

_ALERT: Final = 0x80
_CRC_ERROR: Final = 3
_STATUS_OVERHEAD: Final = 11
_ERRORS: Final = {
    1: "the servo could not do it",
    2: "instruction error",
    3: "CRC error",
    4: "value out of range, or goals locked by the bus watchdog",
    5: "data length error",
    6: "value beyond a limit in EEPROM",
    7: "access error: read-only, locked by torque, or shut down",
}


class NoReply(Exception):
    """A servo did not answer, or its answer was damaged, after all attempts."""


class Refused(Exception):
    """A servo answered with an error."""

    def __init__(self, servo_id: int, action: str, code: int) -> None:
        """Keep the servo's error number.

        Args:
            servo_id: who refused.
            action: what was asked.
            code: error number of the status packet, without the alert bit.
        """
        super().__init__(f"servo {servo_id} refused to {action}: {_ERRORS.get(code, code)}")
        self.code = code


@dataclass
class BusCounters:
    """What happened on the bus since it was created."""

    transactions: int = 0
    timeouts: int = 0
    corrupt: int = 0
    retries: int = 0
    errors: int = 0


@dataclass
class SyncReadResult:
    """Answers of a sync read: data by servo id, and who flags a hardware error."""

    data: dict[int, bytes] = field(default_factory=dict)
    alerts: set[int] = field(default_factory=set)


class ServoBus:
    """One bus. Not thread-safe: only the thread that drives it may call.

    Args:
        port: an open `SerialPort`.
        attempts: how often an acknowledged transaction is tried.
    """

    def __init__(self, port: SerialPort, attempts: int = 5) -> None:
        """Use the port; nothing is sent yet."""
        self.port = port
        self.counters = BusCounters()
        self._handler: Any = PacketHandler()
        self._attempts = attempts

    def ping(self, servo_id: int, attempts: int | None = None) -> int:
        """Return the model number.

        Raises:
            NoReply: no answer.
            PortLost: the port is gone.
        """
        for _ in self._tries(attempts):
            model, result, _ = self._guard(self._handler.ping, self.port, servo_id)
            if self._succeeded(result):
                return int(model)
        raise NoReply(f"servo {servo_id} does not answer to ping")

    def read(
        self, servo_id: int, address: int, length: int, attempts: int | None = None
    ) -> tuple[bytes, bool]:
        """Return (bytes, alert) of `length` bytes of the control table at `address`.

        Raises:
            NoReply: no undamaged answer.
            Refused: the servo answered with an error.
            PortLost: the port is gone.
        """
        parameters = address.to_bytes(2, "little") + length.to_bytes(2, "little")
        return self._ask(
            servo_id, INST_READ, parameters, length, f"read {length} bytes at {address}", attempts
        )

    def write(self, servo_id: int, address: int, data: bytes) -> None:
        """Write bytes and wait for the acknowledgement. Repeated writes must be harmless.

        Raises:
            NoReply: no undamaged acknowledgement; the write may have been done.
            Refused: the servo answered with an error.
            PortLost: the port is gone.
        """
        parameters = address.to_bytes(2, "little") + data
        action = f"write {data.hex(' ')} at {address}"
        self._ask(servo_id, INST_WRITE, parameters, 0, action, None)

    def sync_write(self, address: int, values: Mapping[int, bytes]) -> None:
        """Write values of equal length to many servos in one packet. Nothing acknowledges it.

        Raises:
            PortLost: the port is gone.
        """
        length = len(next(iter(values.values())))
        parameters = [byte for servo_id, data in values.items() for byte in (servo_id, *data)]
        self.counters.transactions += 1
        self._guard(
            self._handler.syncWriteTxOnly, self.port, address, length, parameters, len(parameters)
        )

    def sync_read(self, ids: Sequence[int], address: int, length: int) -> SyncReadResult:
        """Read the same bytes of many servos with one packet; servos that failed are left out.

        Raises:
            PortLost: the port is gone.
        """
        answers = SyncReadResult()
        self.counters.transactions += 1
        self._guard(
            self._handler.syncReadTx, self.port, address, length, list(ids), len(ids), False
        )
        self.port.setPacketTimeout((_STATUS_OVERHEAD + length) * len(ids) + 14 + len(ids))
        pending = set(ids)
        while pending:
            packet, result = self._guard(self._handler.rxPacket, self.port, False)
            if result == COMM_RX_CORRUPT and packet:
                self.counters.corrupt += 1
                # A lost byte makes the SDK take the head of the next packet along.
                self.port.put_back(bytes(packet[1:]))
                if self.port.isPacketTimeout():
                    break
                continue
            if result != COMM_SUCCESS:
                self.counters.timeouts += 1
                break
            servo_id, error = packet[PKT_ID], packet[PKT_ERROR]
            data = _data(packet)
            if servo_id not in pending or error & ~_ALERT or len(data) != length:
                self.counters.errors += 1
                continue
            pending.discard(servo_id)
            answers.data[servo_id] = data
            if error & _ALERT:
                answers.alerts.add(servo_id)
        return answers

    def reboot(self, servo_id: int) -> None:
        """Tell a servo to restart. Whether it did, a later ping tells.

        Raises:
            PortLost: the port is gone.
        """
        self.counters.transactions += 1
        self._guard(self._handler.reboot, self.port, servo_id)

    def _ask(
        self,
        servo_id: int,
        instruction: int,
        parameters: bytes,
        answer_length: int,
        action: str,
        attempts: int | None,
    ) -> tuple[bytes, bool]:
        """Send an instruction and return (data of the answer, alert).

        Not with the SDK's readTxRx and writeTxRx: they take any packet of the servo for the answer,
        such as a late one to an earlier question, and cut the wanted length out of it.
        """
        for attempt in self._tries(attempts):
            head = [0, 0, 0, 0, servo_id, len(parameters) + 3, 0, instruction]
            packet, result, error = self._guard(
                self._handler.txRxPacket, self.port, [*head, *parameters, 0, 0]
            )
            if not self._succeeded(result):
                continue
            data = _data(packet)
            code = error & ~_ALERT
            if code == _CRC_ERROR or (not code and len(data) != answer_length):
                self.counters.corrupt += 1
                continue
            if attempt:
                # The answer to the first attempt may only be late; it must not answer the next
                # question.
                self.port.drain()
            if code:
                self.counters.errors += 1
                raise Refused(servo_id, action, code)
            return data, bool(error & _ALERT)
        raise NoReply(f"servo {servo_id} does not answer to: {action}")

    # --- SDK -----------------------------------------------------------------------------------

    def _tries(self, attempts: int | None) -> Iterable[int]:
        for attempt in range(attempts or self._attempts):
            self.counters.transactions += 1
            self.counters.retries += attempt > 0
            yield attempt

    def _guard(self, function: Any, *arguments: Any) -> Any:
        """Call the SDK, which indexes into damaged packets and forgets to free its port."""
        self.port.is_using = False
        try:
            return function(*arguments)
        except IndexError:
            return _damaged(function.__name__)
        finally:
            self.port.is_using = False

    def _succeeded(self, result: int) -> bool:
        if result == COMM_SUCCESS:
            return True
        if result == COMM_RX_CORRUPT:
            self.counters.corrupt += 1
        else:
            self.counters.timeouts += 1
        return False


def _data(packet: list[int]) -> bytes:
    """Return the data of a status packet; the SDK leaves rubbish behind one that it unstuffed."""
    end = PKT_LENGTH_H + packet[PKT_LENGTH_L] + (packet[PKT_LENGTH_H] << 8) - 1
    return bytes(packet[PKT_PARAMETER0 + 1 : end])


def _damaged(function: str) -> tuple[object, ...]:
    """Return what that SDK function returns for a damaged packet."""
    if function == "rxPacket":
        return [], COMM_RX_CORRUPT
    if function == "reboot":
        return COMM_RX_CORRUPT, 0
    return [], COMM_RX_CORRUPT, 0
