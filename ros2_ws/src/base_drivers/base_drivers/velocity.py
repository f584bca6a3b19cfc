"""Velocity of a base, and the limits of it that keep the shape of the path."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Below this a velocity is rest: rounding must not count as motion.
REST_M_S = 1e-6


@dataclass(frozen=True)
class Velocity:
    """Velocity in the frame of the base.

    Attributes:
        x: forward [m/s].
        y: to the left [m/s].
        yaw: turning to the left [rad/s].
    """

    x: float = 0.0
    y: float = 0.0
    yaw: float = 0.0

    def is_finite(self) -> bool:
        """Whether no component is NaN or infinite."""
        return all(map(math.isfinite, (self.x, self.y, self.yaw)))

    def is_rest(self) -> bool:
        """Whether nothing moves."""
        return max(abs(self.x), abs(self.y), abs(self.yaw)) < REST_M_S

    def scaled(self, factor: float) -> Velocity:
        """The same path at another pace."""
        return Velocity(self.x * factor, self.y * factor, self.yaw * factor)


REST = Velocity()
STREAM_TIMEOUT_S = 0.08
"""Time-out of commands that are sent at 50 Hz. Two that did not come slow the base down, so that
one which brakes within 0.2 s stands 0.3 s after its controller died."""


def strength(silence_s: float, timeout_s: float) -> float:
    """The share of a command that is still in force: whole for half its time, then fading to none.

    A base that begins to brake only when the time is over stands late by all its braking; one that
    rests at once for every command that comes a little late jerks.

    Args:
        silence_s: since the command arrived.
        timeout_s: its time.

    Returns:
        0 … 1.
    """
    return min(1.0, max(0.0, 2.0 * (1.0 - silence_s / timeout_s)))


@dataclass(frozen=True)
class VelocityLimits:
    """What a base may do.

    Attributes:
        max_linear_m_s: forward and backward speed.
        max_lateral_m_s: sideways speed; 0: cannot move sideways.
        max_angular_rad_s: yaw rate.
        max_linear_acceleration_m_s2: how fast forward and sideways speed may grow.
        max_angular_acceleration_rad_s2: how fast the yaw rate may grow.
        min_turning_radius_m: of a base that steers (Ackermann); 0: turns on the spot.
    """

    max_linear_m_s: float
    max_lateral_m_s: float
    max_angular_rad_s: float
    max_linear_acceleration_m_s2: float
    max_angular_acceleration_rad_s2: float
    min_turning_radius_m: float = 0.0


@dataclass(frozen=True)
class Limited:
    """A velocity after a limit.

    Attributes:
        velocity: what is allowed.
        found: the quantity that exceeded its limit; NaN when nothing did.
        limit: what it was compared with.
        unit: of both.
    """

    velocity: Velocity
    found: float = math.nan
    limit: float = math.nan
    unit: str = ""

    @property
    def changed(self) -> bool:
        """Whether the limit took effect."""
        return bool(self.unit)


def limit_speed(wanted: Velocity, limits: VelocityLimits) -> Limited:
    """Keep a velocity within the speed limits.

    All components are scaled by one factor, so that the base stays on the arc that was asked for.
    Only what the base cannot do at all is taken away: sideways motion, and turning tighter than
    the smallest radius.

    Args:
        wanted: finite velocity.
        limits: what the base may do.
    """
    velocity = wanted
    result = Limited(velocity)
    if limits.max_lateral_m_s == 0.0 and velocity.y:
        velocity = Velocity(velocity.x, 0.0, velocity.yaw)
        refused = abs(wanted.y) > REST_M_S
        result = Limited(velocity, abs(wanted.y), 0.0, "m/s") if refused else Limited(velocity)
    if limits.min_turning_radius_m > 0.0:
        tightest = abs(velocity.x) / limits.min_turning_radius_m
        if abs(velocity.yaw) > tightest + REST_M_S:
            found = abs(velocity.yaw)
            velocity = Velocity(velocity.x, velocity.y, math.copysign(tightest, velocity.yaw))
            result = Limited(velocity, found, tightest, "rad/s")
    factor = 1.0
    for found, limit, unit in (
        (abs(velocity.x), limits.max_linear_m_s, "m/s"),
        (abs(velocity.y), limits.max_lateral_m_s, "m/s"),
        (abs(velocity.yaw), limits.max_angular_rad_s, "rad/s"),
    ):
        # A hair above the limit is rounding of the sender's own limiter.
        if found > limit * (1.0 + 1e-6) + REST_M_S and limit / found < factor:
            factor = limit / found
            result = Limited(velocity.scaled(factor), found, limit, unit)
    return result


def limit_acceleration(
    wanted: Velocity, before: Velocity, limits: VelocityLimits, duration_s: float
) -> Limited:
    """Let the speed grow only as fast as allowed; slowing down is never delayed.

    A change of direction goes to rest at once and grows from there.

    Args:
        wanted: finite velocity.
        before: the velocity commanded last.
        limits: what the base may do.
        duration_s: time since `before` was commanded.
    """
    result = Limited(wanted)
    components = []
    for target, start, growth, unit in (
        (wanted.x, before.x, limits.max_linear_acceleration_m_s2, "m/s²"),
        (wanted.y, before.y, limits.max_linear_acceleration_m_s2, "m/s²"),
        (wanted.yaw, before.yaw, limits.max_angular_acceleration_rad_s2, "rad/s²"),
    ):
        base = start if start * target > 0.0 else 0.0
        reach = abs(base) + growth * duration_s
        if abs(target) > reach + REST_M_S:
            allowed = math.copysign(reach, target)
            found = (abs(target) - abs(base)) / duration_s if duration_s > 0.0 else math.inf
            result = Limited(wanted, found, growth, unit)
        else:
            allowed = target
        components.append(allowed)
    return Limited(Velocity(*components), result.found, result.limit, result.unit)
