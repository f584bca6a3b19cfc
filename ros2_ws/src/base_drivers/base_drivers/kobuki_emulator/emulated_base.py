"""A Kobuki: wheels, sensors, and the protocol from the base's side."""

from __future__ import annotations

import math
import random
import struct
from dataclasses import dataclass, field
from typing import Final

from emulators.line_noise import NoisyLine

from base_drivers.kobuki import commands, feedback
from base_drivers.kobuki.framing import FrameParser, SubPayload, frame
from base_drivers.kobuki.odometry import M_PER_TICK, wrap_angle
from base_drivers.velocity import REST, Velocity

FEEDBACK_PERIOD_S: Final = 0.02
_PHYSICS_S: Final = 0.005
_LAG_S: Final = 0.06
_MAX_WHEEL_M_S: Final = 0.7
_MAX_ACCELERATION_M_S2: Final = 2.0
_GYRO_NOISE_RAD: Final = 1e-4
_GYRO_DIGITS_PER_RAD_S: Final = 1.0 / math.radians(0.00875)
_FLOOR_ADC: Final = 1800
_NO_FLOOR_ADC: Final = 300


@dataclass
class Sensors:
    """What the base feels, set from outside.

    Attributes:
        bumper, cliff: bits 0 right, 1 centre, 2 left.
        wheel_drop, overcurrent: bits as in the protocol.
        battery_v: voltage.
        charger: state number of the protocol.
    """

    bumper: int = 0
    cliff: int = 0
    wheel_drop: int = 0
    overcurrent: int = 0
    battery_v: float = 16.2
    charger: int = 0


@dataclass
class Body:
    """True motion: pose [m, rad] and speeds of the wheels' rims [m/s]."""

    x_m: float = 0.0
    y_m: float = 0.0
    yaw_rad: float = 0.0
    left_m_s: float = 0.0
    right_m_s: float = 0.0
    left_m: float = 0.0
    right_m: float = 0.0
    travelled_m: float = field(default=0.0)

    def advance(self, target: Velocity, duration_s: float) -> None:
        """Move for a short time towards a velocity: a lag of first order, bounded acceleration."""
        half_m = commands.WHEEL_BASE_M / 2.0
        self.left_m_s = _approach(self.left_m_s, target.x - half_m * target.yaw, duration_s)
        self.right_m_s = _approach(self.right_m_s, target.x + half_m * target.yaw, duration_s)
        left, right = self.left_m_s * duration_s, self.right_m_s * duration_s
        turn = (right - left) / commands.WHEEL_BASE_M
        middle = self.yaw_rad + 0.5 * turn
        way = 0.5 * (left + right)
        self.x_m += way * math.cos(middle)
        self.y_m += way * math.sin(middle)
        self.yaw_rad += turn
        self.left_m += left
        self.right_m += right
        self.travelled_m += abs(way)

    @property
    def velocity(self) -> Velocity:
        """Velocity of the centre."""
        turn = (self.right_m_s - self.left_m_s) / commands.WHEEL_BASE_M
        return Velocity(0.5 * (self.left_m_s + self.right_m_s), 0.0, turn)


def _approach(speed: float, target: float, duration_s: float) -> float:
    target = max(-_MAX_WHEEL_M_S, min(_MAX_WHEEL_M_S, target))
    change = (target - speed) * min(1.0, duration_s / _LAG_S)
    bound = _MAX_ACCELERATION_M_S2 * duration_s
    return speed + max(-bound, min(bound, change))


class EmulatedKobuki:
    """Takes bytes from the driver and makes bytes for it. Times are in seconds from the start.

    Velocity commands never time out: the firmware documents no limit, and none is the worst for the
    driver.

    Args:
        seed: of gyro noise and line noise.
        firmware: version that it tells.
        first_ticks: of both encoders; near 65535 they wrap soon.
        first_time_ms: of its clock.
    """

    def __init__(
        self,
        seed: int = 0,
        firmware: tuple[int, int, int] = (1, 2, 0),
        first_ticks: int = 65500,
        first_time_ms: int = 60000,
    ) -> None:
        self.sensors = Sensors()
        self.body = Body()
        self.to_base = NoisyLine(seed)
        self.to_host = NoisyLine(seed + 1)
        self.muted = False
        self.target = REST
        self.now_s = 0.0
        self._firmware = firmware
        self._first_ticks = first_ticks
        self._first_time_ms = first_time_ms
        self._started_s = 0.0
        self._random = random.Random(seed + 2)
        self._parser = FrameParser(commands.LENGTHS)
        self._extra = 0
        self._gains_asked = False
        self._next_feedback_s = 0.0
        self._gyro_frame = 0

    def receive(self, data: bytes) -> list[Velocity]:
        """Take bytes from the line; returns the velocities that they command."""
        commanded = []
        arrived, _ = self.to_base.pass_through(data)
        for parts in self._parser.feed(arrived):
            for part in parts:
                if part.identifier == commands.BASE_CONTROL:
                    self.target = commands.velocity_from_base_control(part.data)
                    commanded.append(self.target)
                elif part.identifier == commands.REQUEST_EXTRA:
                    self._extra |= int.from_bytes(part.data, "little")
                elif part.identifier == commands.GET_CONTROLLER_GAIN:
                    self._gains_asked = True
        return commanded

    def advance(self, now_s: float) -> bytes:
        """Move to a time and return the bytes that the base has sent by then."""
        sent = bytearray()
        while self.now_s + _PHYSICS_S <= now_s:
            self.now_s += _PHYSICS_S
            self.body.advance(self.target, _PHYSICS_S)
            if self.now_s >= self._next_feedback_s:
                self._next_feedback_s += FEEDBACK_PERIOD_S
                if not self.muted:
                    sent += self.to_host.pass_through(self.feedback())[0]
        return bytes(sent)

    def power_cycle(self) -> None:
        """Switch off and on: wheels at rest, counters and clock anew."""
        self.target = REST
        self.body.left_m_s = self.body.right_m_s = 0.0
        self.body.left_m = self.body.right_m = 0.0
        self._started_s = self.now_s
        self._first_ticks = self._first_time_ms = 0
        self._parser.clear()

    def feedback(self) -> bytes:
        """One frame as the base sends it every 20 ms, with what was asked for."""
        sensors, body = self.sensors, self.body
        time_ms = round(1e3 * (self.now_s - self._started_s)) + self._first_time_ms
        left = math.floor(body.left_m / M_PER_TICK) + self._first_ticks
        right = math.floor(body.right_m / M_PER_TICK) + self._first_ticks
        basic = struct.pack(
            "<HBBBHHbbBBBB",
            time_ms % 0x10000,
            sensors.bumper,
            sensors.wheel_drop,
            sensors.cliff,
            left % 0x10000,
            right % 0x10000,
            _pwm(body.left_m_s),
            _pwm(body.right_m_s),
            0,
            sensors.charger,
            round(10 * sensors.battery_v),
            sensors.overcurrent,
        )
        heading = wrap_angle(body.yaw_rad + self._random.gauss(0.0, _GYRO_NOISE_RAD))
        rate = body.velocity.yaw
        inertial = struct.pack(
            "<hh3x",
            _short(heading / feedback.RAD_PER_CENTIDEGREE),
            _short(rate / feedback.RAD_PER_CENTIDEGREE),
        )
        cliffs = [_NO_FLOOR_ADC if sensors.cliff >> bit & 1 else _FLOOR_ADC for bit in range(3)]
        gyro = struct.pack("<hhh", 0, 0, _short(rate * _GYRO_DIGITS_PER_RAD_S))
        self._gyro_frame = (self._gyro_frame + 2) % 256
        parts = [
            SubPayload(feedback.BASIC_SENSOR, basic),
            SubPayload(feedback.DOCKING_IR, bytes(3)),
            SubPayload(feedback.INERTIAL, inertial),
            SubPayload(feedback.CLIFF, struct.pack("<3H", *cliffs)),
            SubPayload(feedback.CURRENT, bytes((8, 8))),
            SubPayload(feedback.GYRO, bytes((self._gyro_frame, 6)) + gyro + gyro),
            SubPayload(feedback.GENERAL_PURPOSE_INPUT, bytes(16)),
        ]
        if self._extra & commands.EXTRA_HARDWARE_VERSION:
            parts.append(SubPayload(feedback.HARDWARE_VERSION, bytes((4, 0, 1, 0))))
        if self._extra & commands.EXTRA_FIRMWARE_VERSION:
            version = bytes((*reversed(self._firmware), 0))
            parts.append(SubPayload(feedback.FIRMWARE_VERSION, version))
        if self._extra & commands.EXTRA_UNIQUE_ID:
            identity = struct.pack("<3I", 1_000_001, 1_000_002, 1_000_003)
            parts.append(SubPayload(feedback.UNIQUE_ID, identity))
        if self._gains_asked:
            gains = struct.pack("<B3I", 0, 100_000, 100, 2_000)
            parts.append(SubPayload(feedback.CONTROLLER_INFO, gains))
        self._extra, self._gains_asked = 0, False
        return frame(*parts)


def _pwm(speed_m_s: float) -> int:
    return round(127 * max(-1.0, min(1.0, speed_m_s / _MAX_WHEEL_M_S)))


def _short(value: float) -> int:
    return max(-32768, min(32767, round(value)))
