"""Limits on the gripper's PWM: its size, and how long it may push against still fingers."""

from __future__ import annotations

import math
from typing import Final

from widowx_control.guard.checks import Code, Finding, GuardConfig

_STILL_M: Final = 0.0005


class GripperWatch:
    """Remembers the wanted PWM and whether the fingers follow it."""

    def __init__(self, config: GuardConfig) -> None:
        """Start without PWM."""
        self._config = config
        self._still_at_m = math.inf
        self._still_since_s = math.inf
        self._stall: Finding | None = None
        self.wanted_pwm = 0.0
        """What the last command asked for."""

    def command(self, pwm: float) -> tuple[float, Finding | None]:
        """Take a finite PWM; return what of it may be sent, and why not all."""
        c = self._config
        self.wanted_pwm = pwm
        finding = self._stall
        limit = min(c.gripper_stall_pwm, c.max_gripper_pwm) if finding else c.max_gripper_pwm
        if abs(pwm) <= limit:
            return pwm, None
        if finding is None:
            text = f"the gripper is commanded with PWM {pwm:.0f}, limit {limit:g}"
            finding = Finding(Code.GRIPPER_PWM, text, abs(pwm), limit)
        return math.copysign(limit, pwm), finding

    def stalled(self, finger_m: float, motion_s: float) -> Finding | None:
        """Return a finding while the fingers are still although they are pushed hard.

        Args:
            finger_m: measured distance of the left finger from the centre line.
            motion_s: clock on which the fingers move.
        """
        c = self._config
        hard = abs(self.wanted_pwm) > c.gripper_stall_pwm
        if not hard or abs(finger_m - self._still_at_m) > _STILL_M:
            self._still_at_m, self._still_since_s = finger_m, motion_s
        still_s = motion_s - self._still_since_s
        self._stall = None
        if hard and still_s > c.gripper_stall_s:
            text = (
                f"the gripper pushes with PWM {self.wanted_pwm:.0f} for {still_s:.1f} s and does "
                f"not move; eased to {c.gripper_stall_pwm:g}"
            )
            self._stall = Finding(Code.GRIPPER_STALL, text, still_s, c.gripper_stall_s)
        return self._stall
