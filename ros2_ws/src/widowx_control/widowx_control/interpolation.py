"""Joint-space interpolation that can be re-planned at any time without a jump."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Interpolator:
    """Cubic Hermite segments from the present position and velocity to rest at a target.

    `advance` limits the joint speed by slowing all joints in proportion; a segment that was
    slowed ends later. Positions stay within the bounds, which widen to a start outside them.
    """

    def __init__(self, position: Array, lower: Array, upper: Array) -> None:
        """Rest at a position; all arrays have shape (n,), rad."""
        self._lower = np.minimum(lower, position)
        self._upper = np.maximum(upper, position)
        self._start = position.copy()
        self._start_velocity = np.zeros_like(position)
        self._duration_s = 0.0
        self._elapsed_s = 0.0
        self.position = position.copy()
        self.velocity = np.zeros_like(position)
        self.target = position.copy()

    @property
    def done(self) -> bool:
        """Whether the position rests at the target."""
        return self._elapsed_s >= self._duration_s and np.array_equal(self.position, self.target)

    @property
    def progress(self) -> float:
        """Elapsed part of the segment, 0 .. 1."""
        return 1.0 if self._duration_s <= 0 else min(1.0, self._elapsed_s / self._duration_s)

    def go(self, target: Array, duration_s: float) -> None:
        """Start a segment to a target, shape (n,), from the present position and velocity."""
        self._start = self.position.copy()
        self._start_velocity = self.velocity.copy()
        self._duration_s = duration_s
        self._elapsed_s = 0.0
        self.target = target.copy()

    def stop(self, duration_s: float) -> None:
        """Come to rest within a duration, without turning back."""
        # T v / 3 is the longest way on which the cubic decelerates from v to rest monotonically.
        way = self.velocity * duration_s / 3
        self.go(np.clip(self.position + way, self._lower, self._upper), duration_s)

    def advance(self, dt_s: float, max_speed_rad_s: float) -> bool:
        """Move by one period; return whether the speed limit acted."""
        if dt_s <= 0:
            return False
        self._elapsed_s += dt_s
        wanted = self._sample()
        step = wanted - self.position
        largest = float(np.abs(step).max())
        limited = largest > max_speed_rad_s * dt_s * (1 + 1e-9)
        if limited:
            step *= max_speed_rad_s * dt_s / largest
            wanted = self.position + step
        self.velocity = step / dt_s
        self.position = wanted
        return limited

    def wait(self) -> None:
        """Stay where it is for a period."""
        self.velocity = np.zeros_like(self.position)

    def _sample(self) -> Array:
        if self._elapsed_s >= self._duration_s:
            return self.target.copy()
        s = self._elapsed_s / self._duration_s
        blend = s * s * (3 - 2 * s)
        carry = s * (1 - s) ** 2 * self._duration_s
        sample = self._start + blend * (self.target - self._start) + carry * self._start_velocity
        return np.clip(sample, self._lower, self._upper)
