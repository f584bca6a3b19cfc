"""Speed and acceleration limits on a stream of joint positions: how much of a step may be taken."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BURST_S: Final = 0.1
"""Time over which speed is averaged. Messages of a 50 Hz stream come at uneven intervals; a limit
on each interval would cut steps of a stream whose speed is right."""
_WINDOW_S: Final = 0.018
"""Speeds are means over at least this time. Senders that were delayed send two steps at once."""
_NOMINAL_S: Final = 0.02


@dataclass(frozen=True)
class StepScales:
    """Parts of a step, 0 .. 1, that each limit allows; and what the step asked for."""

    speed: float
    acceleration: float
    speed_rad_s: float
    acceleration_rad_s2: float


class StepLimiter:
    """Remembers the stream and judges its next step.

    Speed is a budget: it grows with the guard's clock by the limit, up to `BURST_S` of it, and each
    step uses it up. Acceleration compares the mean speed up to the wanted pose with the mean speed
    up to the last one, by the times of their sending where those are known. A joint may brake as
    hard as it likes, and a joint that turns round is at rest in between.
    """

    def __init__(self) -> None:
        """Start at rest."""
        self.restart()

    def restart(self) -> None:
        """Forget the stream: the next step starts from rest, with the full budget."""
        self._at_s = -math.inf
        self._budget_s = BURST_S
        self._now_s = math.nan
        self._past: deque[tuple[float, Array]] = deque(maxlen=64)
        self._speed: Array | None = None

    def judge(
        self,
        start_rad: Array,
        goal_rad: Array,
        at_s: float,
        sent_s: float,
        max_speed_rad_s: float,
        max_acceleration_rad_s2: float,
    ) -> StepScales:
        """Return how much of a step is allowed; call `take` with the pose that is taken.

        Args:
            start_rad: (n,) pose that was commanded last.
            goal_rad: (n,) pose that is wanted now.
            at_s: the guard's clock.
            sent_s: the sender's clock at the same pace; NaN: not known.
            max_speed_rad_s: limit for every joint.
            max_acceleration_rad_s2: limit for every joint.
        """
        self._budget_s = min(self._budget_s + max(at_s - self._at_s, 0.0), BURST_S)
        self._at_s = at_s
        self._now_s = sent_s if math.isfinite(sent_s) else at_s
        if self._past and self._now_s < self._past[-1][0] - BURST_S:
            # The sender's clock was set back; the speed goes on.
            self._past.clear()
        step = goal_rad - start_rad
        largest = float(np.abs(step).max())
        if largest <= 0.0:
            return StepScales(1.0, 1.0, 0.0, 0.0)
        window_s, before = self._window(start_rad)
        wanted = (goal_rad - before) / window_s
        carried = np.zeros_like(wanted)
        if self._speed is not None:
            carried = np.where(wanted * self._speed > 0, np.abs(self._speed), 0.0)
        spacing_s = _NOMINAL_S
        if self._past:
            spacing_s = min(max(self._now_s - self._past[-1][0], _NOMINAL_S), BURST_S)
        allowed = carried + max_acceleration_rad_s2 * spacing_s
        over = np.abs(wanted) > allowed
        acceleration = 1.0
        if over.any():
            way = allowed[over] * window_s - ((start_rad - before) * np.sign(wanted))[over]
            towards = (step * np.sign(wanted))[over]
            parts = np.where(towards > 0, way / np.maximum(towards, 1e-12), 1.0)
            acceleration = float(np.clip(parts, 0.0, 1.0).min())
        return StepScales(
            min(1.0, max_speed_rad_s * self._budget_s / largest),
            acceleration,
            largest / max(self._budget_s, 1e-9),
            float((np.abs(wanted) - carried).max()) / spacing_s,
        )

    def take(self, start_rad: Array, pose_rad: Array, max_speed_rad_s: float) -> None:
        """Record the pose that was taken, (n,), after `judge` for the same command."""
        window_s, before = self._window(start_rad)
        self._speed = (pose_rad - before) / window_s
        self._past.append((self._now_s, pose_rad))
        used_s = float(np.abs(pose_rad - start_rad).max()) / max_speed_rad_s
        self._budget_s = max(self._budget_s - used_s, 0.0)

    def rest(self) -> None:
        """Note that the arm holds: the next step starts from rest."""
        self._past.clear()
        self._speed = None

    def _window(self, start_rad: Array) -> tuple[float, Array]:
        """Return how long ago, and from which pose, the mean speed is taken."""
        for then_s, pose in reversed(self._past):
            since_s = self._now_s - then_s
            if since_s >= _WINDOW_S:
                return min(since_s, BURST_S), pose
        if self._past:
            return _NOMINAL_S, self._past[0][1]
        return _NOMINAL_S, start_rad
