"""Raw register values and SI units."""

from __future__ import annotations

import math

from widowx_control.xs_driver.control_table import (
    CENTRE_TICKS,
    MA_PER_UNIT,
    RAD_PER_S_PER_UNIT,
    RAD_PER_TICK,
    Register,
)


def ticks_from_rad(position_rad: float) -> int:
    """Return the position register for an angle, to the nearest tick.

    Interbotix truncates, which puts every goal half a tick low on average.
    """
    return CENTRE_TICKS + math.floor(position_rad / RAD_PER_TICK + 0.5)


def rad_from_ticks(ticks: int) -> float:
    """Return the angle of a position register, 0 rad at 2048 ticks."""
    return (ticks - CENTRE_TICKS) * RAD_PER_TICK


def velocity_units(velocity_rad_s: float) -> int:
    """Return the velocity register for a speed, to the nearest 0.229 rev/min."""
    return math.floor(velocity_rad_s / RAD_PER_S_PER_UNIT + 0.5)


def rad_s_from_units(units: int) -> float:
    """Return the speed of a velocity register."""
    return units * RAD_PER_S_PER_UNIT


def current_units(current_ma: float) -> int:
    """Return the current register for a current, to the nearest 2.69 mA."""
    return math.floor(current_ma / MA_PER_UNIT + 0.5)


def encode(register: Register, value: int) -> bytes:
    """Return a register's bytes.

    Raises:
        ValueError: the value is outside the register's range.
    """
    if not register.minimum <= value <= register.maximum:
        raise ValueError(
            f"{register.name} is {value}; expected {register.minimum}..{register.maximum}"
        )
    return value.to_bytes(register.size, "little", signed=value < 0)


def decode(register: Register, data: bytes, start_address: int) -> int:
    """Return a register's value out of bytes that were read from `start_address` on."""
    offset = register.address - start_address
    raw = data[offset : offset + register.size]
    return int.from_bytes(raw, "little", signed=register.signed)
