"""Plays Interbotix's trajectories: point k is sent when point k - 1 is due.

Point 0 is where the arm is and is never sent; a point is sent one period early because the servo's
time profile then takes it to the point in time. Times are full durations from the start.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TrajectoryPoint:
    """One point: time from the trajectory's start and one value per joint in the mode's unit."""

    time_from_start_s: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Trajectory:
    """A checked trajectory for some motors of one command target."""

    cmd_type: str
    name: str
    motors: tuple[str, ...]
    points: tuple[TrajectoryPoint, ...]

    def send_times_s(self) -> tuple[float, ...]:
        """Return when, from the start, each point from the second on is sent."""
        return tuple(p.time_from_start_s for p in self.points[:-1])


def trajectory_problem(points: Sequence[TrajectoryPoint], width: int) -> str | None:
    """Return what is wrong with the points for that many joints, or None."""
    if len(points) < 2:
        return f"it has {len(points)} points; at least 2 are needed, the first being the start"
    for index, point in enumerate(points):
        if len(point.values) != width:
            return f"point {index} has {len(point.values)} values; expected {width}"
        if not all(map(math.isfinite, point.values)):
            return f"point {index} has a value that is not finite: {point.values}"
        if point.time_from_start_s < 0.0:
            return f"point {index} is at {point.time_from_start_s} s; expected 0 or later"
    for index, (a, b) in enumerate(itertools.pairwise(points), start=1):
        if b.time_from_start_s <= a.time_from_start_s:
            return (
                f"point {index} is at {b.time_from_start_s} s, not after the {a.time_from_start_s} "
                "s of the point before it"
            )
    return None


class TrajectoryPlayer:
    """The trajectory that runs, if any. Times are on the caller's clock, in s."""

    def __init__(self) -> None:
        """Start idle."""
        self._trajectory: Trajectory | None = None
        self._start_s = 0.0
        self._next = 1

    @property
    def running(self) -> Trajectory | None:
        """The trajectory whose last point is not reached yet."""
        return self._trajectory

    def start(self, trajectory: Trajectory, now_s: float) -> None:
        """Start a trajectory, in place of the one that runs."""
        self._trajectory = trajectory
        self._start_s = now_s
        self._next = 1

    def cancel(self) -> None:
        """Send no more points. The servos finish the last one sent."""
        self._trajectory = None

    def due(self, now_s: float) -> TrajectoryPoint | None:
        """Return the latest point that is to be sent now, or None. Points missed are skipped."""
        trajectory = self._trajectory
        if trajectory is None:
            return None
        elapsed = now_s - self._start_s
        point = None
        while (
            self._next < len(trajectory.points)
            and trajectory.points[self._next - 1].time_from_start_s <= elapsed
        ):
            point = trajectory.points[self._next]
            self._next += 1
        if point is None and elapsed >= trajectory.points[-1].time_from_start_s:
            self._trajectory = None
        return point
