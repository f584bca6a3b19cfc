"""Pose from the wheel encoders and the gyro of a Kobuki."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from base_drivers.kobuki.feedback import BasicSensor, Inertial

# Kobuki documentation, "Conversions": 52 ticks per turn of the motor, gear 6545/132, radius 35 mm.
M_PER_TICK: Final = 2.0 * math.pi * 0.035 / (52.0 * 6545.0 / 132.0)

_MAX_WHEEL_ACCELERATION_M_S2: Final = 6.0
_MAX_WHEEL_M_S: Final = 1.0
_TICK_MARGIN: Final = 4
_MAX_RATE_RAD_S: Final = 4.4
_HEADING_MARGIN_RAD: Final = 0.02
_MAX_RATE_CHANGE_RAD_S2: Final = 60.0
# The clock of the base wraps after 65.536 s.
_LONGEST_GAP_S: Final = 30.0
# Readings arrive late, at any time; earlier than they were made they do not.
_EARLY_S: Final = 0.03
_CLOCK_DRIFT: Final = 0.001
_CONFIRMATIONS: Final = 5


@dataclass(frozen=True)
class Pose:
    """Pose and velocity in the frame where the odometry began: x, y [m], yaw [rad, -π..π]."""

    x_m: float = 0.0
    y_m: float = 0.0
    yaw_rad: float = 0.0
    speed_m_s: float = 0.0
    rate_rad_s: float = 0.0


@dataclass(frozen=True)
class _Reading:
    time_ms: int
    left_ticks: int
    right_ticks: int
    heading_rad: float
    host_s: float


@dataclass(frozen=True)
class _Step:
    duration_s: float
    late_s: float
    left_m: float
    right_m: float
    turn_rad: float


def wrap_angle(angle_rad: float) -> float:
    """Return the angle within -π..π."""
    return math.remainder(angle_rad, math.tau)


def tick_difference(now: int, before: int) -> int:
    """Signed difference of two 16-bit counters that wrap."""
    return (now - before + 0x8000) % 0x10000 - 0x8000


@dataclass(frozen=True)
class _Motion:
    """The reading used last, and what was known with it.

    Attributes:
        reading: the one used last; None: none yet.
        pose: after it.
        left_m_s, right_m_s: speeds of the wheels.
        delay_s: how much later than the promptest reading it came.
    """

    reading: _Reading | None = None
    pose: Pose = Pose()
    left_m_s: float = 0.0
    right_m_s: float = 0.0
    delay_s: float = 0.0


class KobukiOdometry:
    """Adds up readings that can follow each other; the others are left out.

    Encoders and heading are totals, so a reading left out costs nothing. A damaged reading that
    passed the checksum is found by what wheels and body cannot do: drive, turn or speed up that
    fast. One that was used although it was damaged, a little, shows by the readings after it: they
    fit each other and the one before it, and it is undone. When readings stay impossible but fit
    each other, the base was switched off and on: the pose goes on from where it was.

    Attributes:
        rejected: readings left out.
        undone: readings that were used and taken back.
        restarts: how often the counters began anew.
    """

    def __init__(self) -> None:
        self.rejected = 0
        self.undone = 0
        self.restarts = 0
        self._now = _Motion()
        self._before = _Motion()
        self._candidate: _Reading | None = None
        self._confirmations = 0

    @property
    def pose(self) -> Pose:
        """The pose after the reading used last."""
        return self._now.pose

    def reset(self) -> None:
        """Begin at the origin."""
        self._now = self._before = replace(self._now, pose=Pose())

    def forget_counters(self) -> None:
        """The next reading begins anew at the present pose, as after a lost connection."""
        pose = Pose(self.pose.x_m, self.pose.y_m, self.pose.yaw_rad)
        self._now = self._before = _Motion(pose=pose)
        self._candidate = None
        self._confirmations = 0

    def update(self, basic: BasicSensor, inertial: Inertial, host_s: float) -> bool:
        """Take a reading.

        Args:
            basic, inertial: of the same frame.
            host_s: steady time of its arrival.

        Returns:
            Whether the reading was used; False: it cannot follow the one before.
        """
        reading = _Reading(
            basic.time_ms, basic.left_ticks, basic.right_ticks, inertial.heading_rad, host_s
        )
        candidate, self._candidate = self._candidate, reading
        fits_candidate = candidate is not None and _is_possible_anew(candidate, reading)
        if self._now.reading is None:
            # A damaged first reading would be the origin of everything after it.
            if fits_candidate:
                self._now = replace(self._now, reading=reading)
            return fits_candidate
        after = _follow(self._now, reading)
        if after is not None:
            self._before, self._now = self._now, after
            self._candidate = None
            self._confirmations = 0
            return True
        self.rejected += 1
        self._confirmations = self._confirmations + 1 if fits_candidate else 0
        if self._confirmations == 0:
            return False
        after = _follow(self._before, reading)
        if after is not None:
            self.undone += 1
            self._now, self._candidate, self._confirmations = after, None, 0
            return True
        if self._confirmations >= _CONFIRMATIONS:
            self.restarts += 1
            self.forget_counters()
            self._now = replace(self._now, reading=reading)
        return False


def _follow(motion: _Motion, reading: _Reading) -> _Motion | None:
    """The motion after one more reading; None: it cannot follow."""
    step = None if motion.reading is None else _step(motion.reading, reading)
    if step is None or motion.delay_s + step.late_s < -_EARLY_S:
        return None
    for way_m, before_m_s in (
        (step.left_m, motion.left_m_s),
        (step.right_m, motion.right_m_s),
    ):
        fastest = abs(before_m_s) + _MAX_WHEEL_ACCELERATION_M_S2 * step.duration_s
        if abs(way_m) > min(_MAX_WHEEL_M_S, fastest) * step.duration_s + _TICK_MARGIN * M_PER_TICK:
            return None
    rate_before = abs(motion.pose.rate_rad_s)
    fastest = min(_MAX_RATE_RAD_S, rate_before + _MAX_RATE_CHANGE_RAD_S2 * step.duration_s)
    if abs(step.turn_rad) > fastest * step.duration_s + _HEADING_MARGIN_RAD:
        return None
    way_m = 0.5 * (step.left_m + step.right_m)
    middle_rad = motion.pose.yaw_rad + 0.5 * step.turn_rad
    return _Motion(
        reading=reading,
        pose=Pose(
            x_m=motion.pose.x_m + way_m * math.cos(middle_rad),
            y_m=motion.pose.y_m + way_m * math.sin(middle_rad),
            yaw_rad=wrap_angle(motion.pose.yaw_rad + step.turn_rad),
            speed_m_s=way_m / step.duration_s,
            rate_rad_s=step.turn_rad / step.duration_s,
        ),
        left_m_s=step.left_m / step.duration_s,
        right_m_s=step.right_m / step.duration_s,
        # The promptest reading is slowly forgotten: the clocks drift against each other.
        delay_s=max(0.0, motion.delay_s + step.late_s - _CLOCK_DRIFT * step.duration_s),
    )


def _is_possible_anew(before: _Reading, now: _Reading) -> bool:
    """Whether two readings fit each other when nothing is known of the motion before."""
    step = _step(before, now)
    return (
        step is not None
        and step.late_s > -_EARLY_S
        and max(abs(step.left_m), abs(step.right_m))
        <= _MAX_WHEEL_M_S * step.duration_s + _TICK_MARGIN * M_PER_TICK
        and abs(step.turn_rad) <= _MAX_RATE_RAD_S * step.duration_s + _HEADING_MARGIN_RAD
    )


def _step(before: _Reading, now: _Reading) -> _Step | None:
    """The motion between two readings; None: their times tell nothing."""
    host_s = now.host_s - before.host_s
    duration_s = 1e-3 * ((now.time_ms - before.time_ms) % 0x10000)
    if host_s > _LONGEST_GAP_S or not 0.0 < duration_s < _LONGEST_GAP_S:
        return None
    return _Step(
        duration_s,
        host_s - duration_s,
        M_PER_TICK * tick_difference(now.left_ticks, before.left_ticks),
        M_PER_TICK * tick_difference(now.right_ticks, before.right_ticks),
        wrap_angle(now.heading_rad - before.heading_rad),
    )
