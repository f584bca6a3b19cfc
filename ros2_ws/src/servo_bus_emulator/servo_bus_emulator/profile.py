"""The servo's motion profile: from the present trajectory state to a new goal.

Source: ROBOTIS e-manual of XM430-W350, "Profile Acceleration" and "Profile Velocity". A new goal
starts a new profile from the present trajectory position and velocity (velocity override). Lengths
are in any unit, times in s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """A change from the start velocity to the cruise velocity, cruise, and a ramp to rest.

    Attributes:
        start, start_velocity: the state that it begins in.
        goal: where it ends, at rest.
        cruise_velocity: signed.
        durations_s: of the three phases; one of 0 changes the velocity at once.
    """

    start: float
    start_velocity: float
    goal: float
    cruise_velocity: float = 0.0
    durations_s: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def duration_s(self) -> float:
        """Time until the goal is reached."""
        return sum(self.durations_s)

    def at(self, time_s: float) -> tuple[float, float]:
        """Return trajectory position and velocity."""
        change_s, cruise_s, ramp_s = self.durations_s
        if time_s >= change_s + cruise_s + ramp_s:
            return self.goal, 0.0
        v0, cruise = self.start_velocity, self.cruise_velocity
        if time_s < change_s:
            velocity = v0 + (cruise - v0) * time_s / change_s
            return self.start + (v0 + velocity) / 2 * time_s, velocity
        position = self.start + (v0 + cruise) / 2 * change_s
        time_s -= change_s
        if time_s < cruise_s:
            return position + cruise * time_s, cruise
        time_s -= cruise_s
        velocity = cruise * (1.0 - time_s / ramp_s)
        return position + cruise * cruise_s + (cruise + velocity) / 2 * time_s, velocity


def step_profile(goal: float) -> Profile:
    """Return the profile without a limit: the trajectory is at the goal at once."""
    return Profile(goal, 0.0, goal)


def time_profile(
    start: float, start_velocity: float, goal: float, total_s: float, ramp_s: float
) -> Profile:
    """Return the time-based profile: total time `total_s`, ramps of `ramp_s` at either end.

    The ramp is at most half of the total. From rest the peak speed is distance / (total - ramp).
    """
    if total_s <= 0.0:
        return step_profile(goal)
    ramp_s = min(ramp_s, total_s / 2)
    cruise = (goal - start - start_velocity * ramp_s / 2) / (total_s - ramp_s)
    return Profile(start, start_velocity, goal, cruise, (ramp_s, total_s - 2 * ramp_s, ramp_s))


def velocity_profile(
    start: float, start_velocity: float, goal: float, max_velocity: float, acceleration: float
) -> Profile:
    """Return the velocity-based profile.

    Without a velocity (0) the servo uses none, whatever the acceleration is: a step. Without an
    acceleration (0) it is a rectangle, else a trapezoid or a triangle.
    """
    if max_velocity <= 0.0:
        return step_profile(goal)
    distance = goal - start
    if acceleration <= 0.0:
        cruise = math.copysign(max_velocity, distance)
        return Profile(start, cruise, goal, cruise, (0.0, abs(distance) / max_velocity, 0.0))
    stopping = start_velocity * abs(start_velocity) / (2 * acceleration)
    sign = math.copysign(1.0, distance - stopping)
    v0 = start_velocity * sign
    peak = min(max_velocity, math.sqrt(max(0.0, acceleration * distance * sign + v0 * v0 / 2)))
    change_s, ramp_s = abs(peak - v0) / acceleration, peak / acceleration
    covered = (v0 + peak) / 2 * change_s + peak / 2 * ramp_s
    cruise_s = max(0.0, (distance * sign - covered) / peak) if peak > 0.0 else 0.0
    return Profile(start, start_velocity, goal, sign * peak, (change_s, cruise_s, ramp_s))
