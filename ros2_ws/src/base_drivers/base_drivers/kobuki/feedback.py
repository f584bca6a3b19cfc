"""What a Kobuki says, decoded. Source: Kobuki documentation, "Serial Protocol".

Each decoder refuses values that the documentation does not allow: with a checksum of one byte, that
is a good part of the protection against a damaged line.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from base_drivers.contact_rules import Contacts
from base_drivers.kobuki.framing import LengthRule, SubPayload

BASIC_SENSOR: Final = 1
DOCKING_IR: Final = 3
INERTIAL: Final = 4
CLIFF: Final = 5
CURRENT: Final = 6
HARDWARE_VERSION: Final = 10
FIRMWARE_VERSION: Final = 11
GYRO: Final = 13
GENERAL_PURPOSE_INPUT: Final = 16
UNIQUE_ID: Final = 19
CONTROLLER_INFO: Final = 21

LENGTHS: Final[dict[int, LengthRule]] = {
    BASIC_SENSOR: lambda size: size == 15,
    DOCKING_IR: lambda size: size == 3,
    INERTIAL: lambda size: size == 7,
    CLIFF: lambda size: size == 6,
    CURRENT: lambda size: size == 2,
    # Two bytes up to firmware 1.1.1, four since.
    HARDWARE_VERSION: lambda size: size in (2, 4),
    FIRMWARE_VERSION: lambda size: size in (2, 4),
    GYRO: lambda size: size >= 2 and (size - 2) % 6 == 0,
    GENERAL_PURPOSE_INPUT: lambda size: size == 16,
    UNIQUE_ID: lambda size: size == 12,
    CONTROLLER_INFO: lambda size: size == 13,
}

_BASIC: Final = struct.Struct("<HBBBHHbbBBBB")
_INERTIAL: Final = struct.Struct("<hh3x")
_CHARGERS: Final = {
    0: "discharging",
    2: "docking_charged",
    6: "docking_charging",
    18: "adapter_charged",
    22: "adapter_charging",
}
_MAX_ADC: Final = 4095
_HALF_TURN_CENTIDEGREES: Final = 18000
RAD_PER_CENTIDEGREE: Final = math.pi / 18000.0
_GYRO_RAD_S_PER_DIGIT: Final = math.radians(0.00875)


class FeedbackError(ValueError):
    """A sub-payload says what the base cannot say."""


@dataclass(frozen=True)
class BasicSensor:
    """The core of each feedback.

    Attributes:
        time_ms: clock of the base, 0..65535, wraps.
        left_ticks, right_ticks: encoders, 0..65535, wrap; forward counts up.
        left_pwm, right_pwm: signed.
        buttons: bits 0..2.
        charger: `discharging`, `docking_charged`, `docking_charging`, `adapter_charged` or
            `adapter_charging`.
        battery_v: voltage.
        overcurrent_left, overcurrent_right: motor current above 3 A.
    """

    time_ms: int
    contacts: Contacts
    left_ticks: int
    right_ticks: int
    left_pwm: int
    right_pwm: int
    buttons: int
    charger: str
    battery_v: float
    overcurrent_left: bool
    overcurrent_right: bool


@dataclass(frozen=True)
class Inertial:
    """Heading [rad, -π..π, to the left] and yaw rate [rad/s] of the calibrated gyro."""

    heading_rad: float
    rate_rad_s: float


@dataclass(frozen=True)
class Feedback:
    """Everything that one frame says; None: not in this frame."""

    basic: BasicSensor | None = None
    inertial: Inertial | None = None
    docking_ir: tuple[int, int, int] | None = None
    """Signals seen by the right, central and left receiver, bits 0..5."""
    cliff_adc: tuple[int, int, int] | None = None
    """Right, central and left sensor, 0..4095; less is farther."""
    motor_current_a: tuple[float, float] | None = None
    """Left and right."""
    gyro_rad_s: tuple[tuple[float, float, float], ...] | None = None
    """Raw x, y, z rates in the base's axes, oldest first."""
    digital_inputs: int | None = None
    analog_inputs: tuple[int, int, int, int] | None = None
    hardware_version: tuple[int, int, int] | None = None
    firmware_version: tuple[int, int, int] | None = None
    unique_id: str | None = None
    controller_gains: tuple[float, float, float] | None = None
    """P, I and D of the wheels' velocity controller."""


def decode(parts: Sequence[SubPayload]) -> Feedback:
    """Decode the parts of one frame; unknown identifiers are left out.

    Raises:
        FeedbackError: a value is out of its documented range, or a part occurs twice.
    """
    values: dict[str, object] = {}
    seen = set()
    for part in parts:
        if part.identifier in seen:
            raise FeedbackError(f"identifier {part.identifier} twice in one frame")
        seen.add(part.identifier)
        decoder = _DECODERS.get(part.identifier)
        if decoder is not None:
            values |= decoder(part.data)
    return Feedback(**values)  # type: ignore[arg-type]


def _flags(value: int, allowed: int, what: str) -> int:
    if value & ~allowed:
        raise FeedbackError(f"{what} flags 0x{value:02x}; expected only 0x{allowed:02x}")
    return value


def _basic(data: bytes) -> dict[str, object]:
    (
        time_ms,
        bumper,
        wheel_drop,
        cliff,
        left_ticks,
        right_ticks,
        left_pwm,
        right_pwm,
        buttons,
        charger,
        battery,
        overcurrent,
    ) = _BASIC.unpack(data)
    _flags(bumper, 0x07, "bumper")
    _flags(wheel_drop, 0x03, "wheel drop")
    _flags(cliff, 0x07, "cliff")
    _flags(overcurrent, 0x03, "overcurrent")
    if charger not in _CHARGERS:
        raise FeedbackError(f"charger state {charger}; expected one of {sorted(_CHARGERS)}")
    contacts = Contacts(
        bumper_left=bool(bumper & 4),
        bumper_center=bool(bumper & 2),
        bumper_right=bool(bumper & 1),
        cliff_left=bool(cliff & 4),
        cliff_center=bool(cliff & 2),
        cliff_right=bool(cliff & 1),
        wheel_drop_left=bool(wheel_drop & 2),
        wheel_drop_right=bool(wheel_drop & 1),
    )
    return {
        "basic": BasicSensor(
            time_ms=time_ms,
            contacts=contacts,
            left_ticks=left_ticks,
            right_ticks=right_ticks,
            left_pwm=left_pwm,
            right_pwm=right_pwm,
            buttons=_flags(buttons, 0x07, "button"),
            charger=_CHARGERS[charger],
            battery_v=0.1 * battery,
            overcurrent_left=bool(overcurrent & 1),
            overcurrent_right=bool(overcurrent & 2),
        )
    }


def _docking_ir(data: bytes) -> dict[str, object]:
    return {"docking_ir": tuple(_flags(byte, 0x3F, "docking") for byte in data)}


def _inertial(data: bytes) -> dict[str, object]:
    angle, rate = _INERTIAL.unpack(data)
    if abs(angle) > _HALF_TURN_CENTIDEGREES:
        raise FeedbackError(f"heading {angle / 100:g}°; expected -180..180")
    return {"inertial": Inertial(angle * RAD_PER_CENTIDEGREE, rate * RAD_PER_CENTIDEGREE)}


def _cliff(data: bytes) -> dict[str, object]:
    values = struct.unpack("<3H", data)
    if max(values) > _MAX_ADC:
        raise FeedbackError(f"cliff sensors {values}; expected 0..{_MAX_ADC}")
    return {"cliff_adc": values}


def _current(data: bytes) -> dict[str, object]:
    return {"motor_current_a": (0.01 * data[0], 0.01 * data[1])}


def _gyro(data: bytes) -> dict[str, object]:
    count = (len(data) - 2) // 2
    if data[1] != count:
        raise FeedbackError(f"gyro says {data[1]} values and has {count}")
    raw = struct.unpack(f"<{count}h", data[2:])
    # The sensor is mounted a quarter of a turn to the left of the base's axes.
    return {
        "gyro_rad_s": tuple(
            (
                -_GYRO_RAD_S_PER_DIGIT * raw[i + 1],
                _GYRO_RAD_S_PER_DIGIT * raw[i],
                _GYRO_RAD_S_PER_DIGIT * raw[i + 2],
            )
            for i in range(0, count, 3)
        )
    }


def _general_purpose_input(data: bytes) -> dict[str, object]:
    digital, *analog = struct.unpack("<5H6x", data)
    if max(analog) > _MAX_ADC:
        raise FeedbackError(f"analog inputs {analog}; expected 0..{_MAX_ADC}")
    return {"digital_inputs": digital, "analog_inputs": tuple(analog)}


def _version(data: bytes, old: dict[int, tuple[int, int, int]]) -> tuple[int, int, int]:
    if len(data) == 4:
        patch, minor, major, zero = data
        if zero:
            raise FeedbackError(f"a version that ends in {zero}; expected 0")
        return major, minor, patch
    number = int.from_bytes(data, "little")
    if number not in old:
        raise FeedbackError(f"version number {number}; expected one of {sorted(old)}")
    return old[number]


# Versions before 1.1.2 are one number, which was not always formed by the same rule.
_OLD_FIRMWARE: Final = {
    123: (1, 0, 0),
    110: (1, 1, 0),
    10100: (1, 1, 0),
    111: (1, 1, 1),
    10101: (1, 1, 1),
}
_OLD_HARDWARE: Final = {104: (1, 0, 4)}


def _unique_id(data: bytes) -> dict[str, object]:
    return {"unique_id": "-".join(map(str, struct.unpack("<3I", data)))}


def _controller_info(data: bytes) -> dict[str, object]:
    _, p, i, d = struct.unpack("<B3I", data)
    return {"controller_gains": (p / 1e3, i / 1e3, d / 1e3)}


_DECODERS: Final[dict[int, Callable[[bytes], dict[str, object]]]] = {
    BASIC_SENSOR: _basic,
    DOCKING_IR: _docking_ir,
    INERTIAL: _inertial,
    CLIFF: _cliff,
    CURRENT: _current,
    HARDWARE_VERSION: lambda data: {"hardware_version": _version(data, _OLD_HARDWARE)},
    FIRMWARE_VERSION: lambda data: {"firmware_version": _version(data, _OLD_FIRMWARE)},
    GYRO: _gyro,
    GENERAL_PURPOSE_INPUT: _general_purpose_input,
    UNIQUE_ID: _unique_id,
    CONTROLLER_INFO: _controller_info,
}
