"""The servo's motion profile: from the present trajectory state to a new goal.

Source: ROBOTIS e-manual of XM430-W350, "Profile Acceleration" and "Profile Velocity". A new goal
starts a new profile from the present trajectory position and velocity (velocity override).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_INSTANT: Final = 1e-9


@dataclass(frozen=True)
class Profile:
    """Piecewise constant acceleration. Positions in ticks, times in s from the profile's start."""

    start_ticks: float
    start_velocity: float
    goal_ticks: float
    segments: tuple[tuple[float, float], ...]
    """(duration in s, acceleration in ticks/s^2), in order."""

    @property
    def duration_s(self) -> float:
        """Time until the goal is reached."""
        return sum(duration for duration, _ in self.segments)

    def at(self, time_s: float) -> tuple[float, float]:
        """Return trajectory position in ticks and velocity in ticks/s."""
        if time_s >= self.duration_s:
            return self.goal_ticks, 0.0
        position, velocity, left = self.start_ticks, self.start_velocity, time_s
        for duration, acceleration in self.segments:
            t = min(duration, left)
            if duration <= _INSTANT:
                velocity += acceleration * duration
                continue
            position += velocity * t + 0.5 * acceleration * t * t
            velocity += acceleration * t
            left -= t
            if left <= 0.0:
                break
        return position, velocity


def step_profile(goal_ticks: float) -> Profile:
    """Return the profile without a limit: the trajectory is at the goal at once."""
    return Profile(goal_ticks, 0.0, goal_ticks, ())


def time_profile(
    start_ticks: float, start_velocity: float, goal_ticks: float, total_s: float, ramp_s: float
) -> Profile:
    """Return the time-based profile: total time `total_s`, ramps of `ramp_s` at either end.

    The ramp is at most half of the total. From rest the peak speed is distance / (total - ramp).
    """
    if total_s <= 0.0:
        return step_profile(goal_ticks)
    ramp = max(min(ramp_s, total_s / 2), _INSTANT)
    distance = goal_ticks - start_ticks
    cruise = (distance - start_velocity * ramp / 2) / (total_s - ramp)
    segments = (
        (ramp, (cruise - start_velocity) / ramp),
        (total_s - 2 * ramp, 0.0),
        (ramp, -cruise / ramp),
    )
    return Profile(start_ticks, start_velocity, goal_ticks, segments)


def velocity_profile(
    start_ticks: float,
    start_velocity: float,
    goal_ticks: float,
    max_velocity: float,
    acceleration: float,
) -> Profile:
    """Return the velocity-based trapezoid with limits in ticks/s and ticks/s^2; 0 means none."""
    if max_velocity <= 0.0:
        return step_profile(goal_ticks)
    distance = goal_ticks - start_ticks
    if acceleration <= 0.0:
        duration = abs(distance) / max_velocity
        return Profile(
            start_ticks, math.copysign(max_velocity, distance), goal_ticks, ((duration, 0.0),)
        )
    stopping = start_velocity * abs(start_velocity) / (2 * acceleration)
    sign = math.copysign(1.0, distance - stopping)
    v0 = start_velocity * sign
    peak = min(max_velocity, math.sqrt(max(0.0, acceleration * distance * sign + v0 * v0 / 2)))
    ramp_up = abs(peak - v0) / acceleration
    ramp_down = peak / acceleration
    covered = (v0 + peak) / 2 * ramp_up + peak / 2 * ramp_down
    cruise = max(0.0, (distance * sign - covered) / peak) if peak > 0.0 else 0.0
    segments = (
        (ramp_up, math.copysign(acceleration, peak - v0) * sign),
        (cruise, 0.0),
        (ramp_down, -acceleration * sign),
    )
    return Profile(start_ticks, start_velocity, goal_ticks, segments)
