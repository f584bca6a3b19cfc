"""The WidowX gripper: swing-arm linkage between servo and fingers, and the PWM law that drives it.

The gripper servo (XL430) runs in PWM mode, as the Interbotix driver starts it; positive opens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from widowx_description import load_numbers

_GRIPPER: Final = load_numbers()["gripper"]
HORN_RADIUS_M: Final[float] = _GRIPPER["horn_radius"]
ARM_LENGTH_M: Final[float] = _GRIPPER["arm_length"]
FINGER_CLOSED_M: Final[float] = _GRIPPER["lower"]
FINGER_OPEN_M: Final[float] = _GRIPPER["upper"]

BRIDGE_FINGER_LOW_M: Final = 0.010
"""Finger position that BridgeData calls 0. The fingers touch at 0.015, so closed reads 0.2."""
BRIDGE_FINGER_HIGH_M: Final = 0.035
"""Finger position that BridgeData calls 1. Fully open, 0.037, reads 1.08."""


def finger_distance_m(servo_angle_rad: float) -> float:
    """Return the distance of one finger from the centre line for an angle of the gripper servo.

    Slider-crank: d = r sin(theta) + sqrt(a^2 - r^2 cos^2(theta)); rises over [-pi/2, pi/2] from
    0.010 to 0.038 m.
    """
    r, a = HORN_RADIUS_M, ARM_LENGTH_M
    return r * math.sin(servo_angle_rad) + math.sqrt(a * a - (r * math.cos(servo_angle_rad)) ** 2)


def servo_angle_rad(gap_m: float) -> float:
    """Return the angle of the gripper servo for the full distance between the fingers.

    theta = pi/2 - acos((r^2 + (L/2)^2 - a^2) / (2 r L/2)).

    Raises:
        ValueError: the linkage cannot reach that gap; it spans 2 (a - r) .. 2 (a + r).
    """
    r, a = HORN_RADIUS_M, ARM_LENGTH_M
    low, high = 2 * (a - r), 2 * (a + r)
    if not low <= gap_m <= high:
        raise ValueError(f"finger gap is {gap_m} m; the linkage spans {low:.3f} .. {high:.3f} m")
    d = gap_m / 2
    cosine = (r * r + d * d - a * a) / (2 * r * d)
    return math.pi / 2 - math.acos(max(-1.0, min(1.0, cosine)))


def opening_from_finger(finger_m: float) -> float:
    """Return BridgeData's normalised gripper opening for one finger's distance from the centre."""
    return (finger_m - BRIDGE_FINGER_LOW_M) / (BRIDGE_FINGER_HIGH_M - BRIDGE_FINGER_LOW_M)


@dataclass(frozen=True)
class GripperConfig:
    """Gains of the PWM law, which is BridgeData's, and the limit on a stalled gripper.

    BridgeData keeps the full PWM on a closed gripper for ever. Here, once the fingers have not
    moved for `stall_time_s` although the full PWM was on, it falls to `holding_pwm`.
    """

    max_pwm: float = 350.0
    """Of 885, which is 100 %."""
    gain_per_m: float = 300.0
    """The PWM saturates at an error of 1 / gain_per_m."""
    holding_pwm: float = 250.0
    """Interbotix's grasp at its default pressure."""
    stall_time_s: float = 0.6
    stall_distance_m: float = 0.0005


class GripperController:
    """Drives the fingers to an opening by PWM. Call `pwm` at a steady rate, 50 Hz in BridgeData."""

    def __init__(self, config: GripperConfig | None = None) -> None:
        """Start with the target 1 (open); nothing moves until `pwm` is used."""
        self._config = config or GripperConfig()
        self._target = 1.0
        self._still_s = 0.0
        self._still_at_m = math.inf

    @property
    def target(self) -> float:
        """Wanted opening, 0 closed .. 1 open."""
        return self._target

    @target.setter
    def target(self, opening: float) -> None:
        opening = min(max(float(opening), 0.0), 1.0)
        if opening != self._target:
            self._still_s = 0.0
        self._target = opening

    def pwm(self, finger_m: float, dt_s: float) -> float:
        """Return the PWM for this period, whole units within ±max_pwm; 0 for a non-finite input.

        Args:
            finger_m: measured distance of the left finger from the centre line.
            dt_s: time since the last call.
        """
        c = self._config
        if not math.isfinite(finger_m):
            return 0.0
        span = BRIDGE_FINGER_HIGH_M - BRIDGE_FINGER_LOW_M
        error_m = BRIDGE_FINGER_LOW_M + self._target * span - finger_m
        drive = min(max(c.gain_per_m * error_m, -1.0), 1.0)
        if abs(finger_m - self._still_at_m) > c.stall_distance_m:
            self._still_at_m = finger_m
            self._still_s = 0.0
        else:
            self._still_s += dt_s
        limit = c.holding_pwm if self._still_s >= c.stall_time_s else c.max_pwm
        return float(int(min(max(c.max_pwm * drive, -limit), limit)))
