"""What a Kobuki is told, as sub-payloads. Source: Kobuki documentation, "Serial Protocol"."""

from __future__ import annotations

import math
import struct
from typing import Final

from base_drivers.kobuki.framing import LengthRule, SubPayload
from base_drivers.velocity import Velocity

BASE_CONTROL: Final = 1
SOUND: Final = 3
SOUND_SEQUENCE: Final = 4
REQUEST_EXTRA: Final = 9
GENERAL_PURPOSE_OUTPUT: Final = 12
SET_CONTROLLER_GAIN: Final = 13
GET_CONTROLLER_GAIN: Final = 14

EXTRA_HARDWARE_VERSION: Final = 0x01
EXTRA_FIRMWARE_VERSION: Final = 0x02
EXTRA_UNIQUE_ID: Final = 0x08

LENGTHS: Final[dict[int, LengthRule]] = {
    BASE_CONTROL: lambda size: size == 4,
    SOUND: lambda size: size == 3,
    SOUND_SEQUENCE: lambda size: size == 1,
    REQUEST_EXTRA: lambda size: size == 2,
    GENERAL_PURPOSE_OUTPUT: lambda size: size == 2,
    SET_CONTROLLER_GAIN: lambda size: size == 13,
    GET_CONTROLLER_GAIN: lambda size: size == 1,
}

WHEEL_BASE_M: Final = 0.23
_TURN_ON_THE_SPOT: Final = 1
_MAX_SHORT: Final = 32767
_STRAIGHT_RAD_S: Final = 1e-4


def base_control(velocity: Velocity) -> SubPayload:
    """Command a velocity.

    The base takes the speed of its outer wheel [mm/s] and the radius of its centre's path [mm,
    positive: to the left]; radius 0 is straight, radius 1 a turn on the spot.

    Args:
        velocity: finite; `y` is ignored, the base cannot move sideways.
    """
    half_mm = 1e3 * WHEEL_BASE_M / 2.0
    if abs(velocity.yaw) < _STRAIGHT_RAD_S:
        return _control(1e3 * velocity.x, 0)
    radius_mm = 1e3 * velocity.x / velocity.yaw
    if abs(radius_mm) <= 1.5:
        return _control(half_mm * velocity.yaw, _TURN_ON_THE_SPOT)
    if abs(radius_mm) >= _MAX_SHORT:
        radius_mm = math.copysign(_MAX_SHORT, radius_mm)
    radius = round(radius_mm)
    outer = 1.0 + half_mm / abs(radius)
    return _control(1e3 * velocity.x * outer, radius)


def velocity_from_base_control(data: bytes) -> Velocity:
    """What a base control command means: the inverse of `base_control`."""
    speed, radius = struct.unpack("<hh", data)
    half_mm = 1e3 * WHEEL_BASE_M / 2.0
    if radius == 0:
        return Velocity(1e-3 * speed)
    if radius == _TURN_ON_THE_SPOT:
        return Velocity(yaw=speed / half_mm)
    x_mm_s = speed / (1.0 + half_mm / abs(radius))
    return Velocity(1e-3 * x_mm_s, 0.0, x_mm_s / radius)


def request_extra() -> SubPayload:
    """Ask for the versions of hardware and firmware and for the unique device id."""
    flags = EXTRA_HARDWARE_VERSION | EXTRA_FIRMWARE_VERSION | EXTRA_UNIQUE_ID
    return SubPayload(REQUEST_EXTRA, struct.pack("<H", flags))


def _control(speed_mm_s: float, radius_mm: int) -> SubPayload:
    speed = max(-_MAX_SHORT, min(_MAX_SHORT, round(speed_mm_s)))
    return SubPayload(BASE_CONTROL, struct.pack("<hh", speed, radius_mm))
