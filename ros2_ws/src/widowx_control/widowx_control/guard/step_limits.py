"""Speed and acceleration limits on a stream of joint positions: how much of a step may be taken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BURST_S: Final = 0.1
"""Time over which speed is averaged. Messages of a 50 Hz stream come at uneven intervals; a limit
on each interval would cut steps of a stream whose speed is right."""
_SHORTEST_S: Final = 0.005
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
    step uses it up. Acceleration compares the speeds of two steps, by the time between their
    sending where that is known. A joint may brake as hard as it likes, and a joint that turns
    round is at rest in between.
    """

    def __init__(self) -> None:
        """Start at rest."""
        self.restart()

    def restart(self) -> None:
        """Forget the stream: the next step starts from rest, with the full budget."""
        self._at_s = -math.inf
        self._sent_s = math.nan
        self._budget_s = BURST_S
        self._spacing_s = _NOMINAL_S
        self._speed: Array = np.zeros(1)

    def judge(
        self,
        step_rad: Array,
        at_s: float,
        sent_s: float,
        max_speed_rad_s: float,
        max_acceleration_rad_s2: float,
    ) -> StepScales:
        """Return how much of a step is allowed; call `take` with what is taken of it.

        Args:
            step_rad: (n,) wanted change of the joint positions.
            at_s: the guard's clock.
            sent_s: the sender's clock at the same pace; NaN: not known.
            max_speed_rad_s: limit for every joint.
            max_acceleration_rad_s2: limit for every joint.
        """
        elapsed_s = max(at_s - self._at_s, 0.0)
        self._budget_s = min(self._budget_s + elapsed_s, BURST_S)
        spacing_s = sent_s - self._sent_s
        if math.isfinite(spacing_s):
            spacing_s = max(spacing_s, _SHORTEST_S)
        else:
            spacing_s = max(elapsed_s, _NOMINAL_S) if math.isfinite(elapsed_s) else _NOMINAL_S
        self._spacing_s = min(spacing_s, BURST_S)
        self._at_s, self._sent_s = at_s, sent_s
        largest = float(np.abs(step_rad).max())
        if largest <= 0.0:
            return StepScales(1.0, 1.0, 0.0, 0.0)
        reachable = max_speed_rad_s * self._budget_s
        speed_scale = min(1.0, reachable / largest)
        wanted = step_rad / self._spacing_s
        carried = np.where(wanted * self._speed > 0, np.abs(self._speed), 0.0)
        rise = np.abs(wanted) - carried
        allowed = carried + max_acceleration_rad_s2 * self._spacing_s
        over = np.abs(wanted) > allowed
        acceleration_scale = (
            float((allowed[over] / np.abs(wanted[over])).min()) if over.any() else 1
        )
        return StepScales(
            speed_scale,
            acceleration_scale,
            largest / max(self._budget_s, 1e-9),
            float(rise.max()) / self._spacing_s,
        )

    def rest(self) -> None:
        """Note that the arm holds: the next step starts from rest."""
        self._speed = np.zeros_like(self._speed)

    def take(self, step_rad: Array, max_speed_rad_s: float) -> None:
        """Record the step that was taken, (n,)."""
        self._speed = step_rad / self._spacing_s
        used_s = float(np.abs(step_rad).max()) / max_speed_rad_s
        self._budget_s = max(self._budget_s - used_s, 0.0)
