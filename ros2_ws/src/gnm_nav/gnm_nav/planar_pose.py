"""Poses in the plane, and how a robot's pose changed over time."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

Pose = tuple[float, float, float]
"""x [m], y [m], yaw [rad]."""
StampedPose = tuple[float, float, float, float]
"""Stamp [s], and a pose."""
_CLOCK_SET_BACK_S = 1.0
_INTERPOLATION_S = 1.05
"""Largest time between two poses that are interpolated: no pose is further than half of it away
from one that was measured. Odometry at 1 Hz is the slowest that serves."""
_JUMP_M, _JUMP_M_S = 0.3, 3.0
_JUMP_RAD, _JUMP_RAD_S = 0.5, 4.0
"""A base that moves further than both allow was not driven: its odometry was reset or corrected."""


def wrap_angle(angle_rad: float) -> float:
    """The same angle in [-π, π)."""
    return (angle_rad + math.pi) % (2.0 * math.pi) - math.pi


def yaw_of(rotation: Any) -> float:
    """The yaw of a rotation about the vertical axis, a geometry_msgs/Quaternion [rad]."""
    return math.atan2(
        2.0 * (rotation.w * rotation.z + rotation.x * rotation.y),
        1.0 - 2.0 * (rotation.y**2 + rotation.z**2),
    )


def odometry_pose(message: Any) -> StampedPose:
    """What a nav_msgs/Odometry says, live or out of a bag.

    The yaw is NaN where the orientation is none: a quaternion of zeros, as who does not fill it in
    sends it, or one that is not of length 1, as of a driver that leaves w out.
    """
    stamp, pose, turn = message.header.stamp, message.pose.pose, message.pose.pose.orientation
    has_turn = 0.8 < turn.x**2 + turn.y**2 + turn.z**2 + turn.w**2 < 1.2
    return (
        stamp.sec + 1e-9 * stamp.nanosec,
        pose.position.x,
        pose.position.y,
        yaw_of(turn) if has_turn else math.nan,
    )


def compose(start: Pose, motion: Pose) -> Pose:
    """The pose after a motion that is given in the frame of `start`."""
    x, y, yaw = start
    c, s = math.cos(yaw), math.sin(yaw)
    return (
        x + c * motion[0] - s * motion[1],
        y + s * motion[0] + c * motion[1],
        wrap_angle(yaw + motion[2]),
    )


def relative_pose(start: Pose, end: Pose) -> Pose:
    """The pose `end` seen from the pose `start`."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    c, s = math.cos(start[2]), math.sin(start[2])
    return c * dx + s * dy, -s * dx + c * dy, wrap_angle(end[2] - start[2])


def inverse(pose: Pose) -> Pose:
    """The frame's own pose, seen from a pose in it."""
    return relative_pose(pose, (0.0, 0.0, 0.0))


def is_jump(before: Pose, after: Pose, elapsed_s: float, max_speed_m_s: float = _JUMP_M_S) -> bool:
    """Whether a base cannot have driven from one pose to the other in this time."""
    moved_m = math.hypot(after[0] - before[0], after[1] - before[1])
    turned_rad = abs(wrap_angle(after[2] - before[2]))
    elapsed_s = abs(elapsed_s)
    return (
        moved_m > _JUMP_M + max_speed_m_s * elapsed_s
        or turned_rad > _JUMP_RAD + _JUMP_RAD_S * elapsed_s
    )


def pose_at(poses: Sequence[StampedPose], stamp_s: float) -> Pose | None:
    """Interpolate between poses; between two that no base can drive from one to the other, the
    nearer one.

    Args:
        poses: (stamp [s], x [m], y [m], yaw [rad]), stamps rising.
        stamp_s: when.

    Returns:
        x, y, yaw; None before the first pose, and between two more than a second apart. After the
        last one, the last one.
    """
    if not poses or stamp_s < poses[0][0]:
        return None
    after = bisect.bisect_right(poses, stamp_s, key=lambda pose: pose[0])
    if after == len(poses):
        return poses[-1][1:]
    t0, x0, y0, yaw0 = poses[after - 1]
    t1, x1, y1, yaw1 = poses[after]
    if t1 - t0 > _INTERPOLATION_S:
        return (x0, y0, yaw0) if stamp_s == t0 else None
    part = (stamp_s - t0) / (t1 - t0)
    if is_jump((x0, y0, yaw0), (x1, y1, yaw1), t1 - t0):
        return (x0, y0, yaw0) if part < 0.5 else (x1, y1, yaw1)
    turn = wrap_angle(yaw1 - yaw0)
    return x0 + part * (x1 - x0), y0 + part * (y1 - y0), wrap_angle(yaw0 + part * turn)


class OdometryHistory:
    """The newest poses of a robot in any frame that stands still."""

    def __init__(self, max_age_s: float, length: int = 400) -> None:
        """Hold none.

        Args:
            max_age_s: how long the newest pose answers for a later time.
            length: poses that are kept.
        """
        self._poses: deque[StampedPose] = deque(maxlen=length)
        self._max_age_s = max_age_s

    def clear(self) -> None:
        """Forget all."""
        self._poses.clear()

    def add(self, stamp_s: float, x_m: float, y_m: float, yaw_rad: float) -> None:
        """Take a pose; one that is not a number, or older than the newest, is dropped."""
        if not all(map(math.isfinite, (stamp_s, x_m, y_m, yaw_rad))):
            return
        if self._poses and stamp_s <= self._poses[-1][0]:
            if stamp_s > self._poses[-1][0] - _CLOCK_SET_BACK_S:
                return
            # The clock was set back: a simulation began anew.
            self._poses.clear()
        self._poses.append((stamp_s, x_m, y_m, yaw_rad))

    def newest(self, now_s: float) -> Pose | None:
        """The newest pose, None where it is older than `max_age_s`."""
        if not self._poses or now_s - self._poses[-1][0] > self._max_age_s:
            return None
        return self._poses[-1][1:]

    def at(self, stamp_s: float) -> Pose | None:
        """The pose at a time, None before the first one or too long after the last one."""
        if self.newest(stamp_s) is None:
            return None
        return pose_at(self._poses, stamp_s)
