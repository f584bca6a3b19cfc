"""State of charge of the Kobuki's lithium-ion pack from its voltage."""

from __future__ import annotations

from typing import Final

FULL_V: Final = 16.5
LOW_V: Final = 14.0
DANGEROUS_V: Final = 13.2
_DANGEROUS_PART: Final = 0.05


def charge(voltage_v: float) -> float:
    """Return the part of the charge that is left, 0..1.

    The manufacturer's rule of thumb: linear in the voltage from 5 % where the pack is in danger to
    full. Voltages under load read low, so this is an estimate.
    """
    slope = (1.0 - _DANGEROUS_PART) / (FULL_V - DANGEROUS_V)
    return min(1.0, max(0.0, _DANGEROUS_PART + slope * (voltage_v - DANGEROUS_V)))
