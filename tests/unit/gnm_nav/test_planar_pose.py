"""Poses in the plane and the history of odometry."""

import math

import numpy as np
import pytest
from gnm_nav.planar_pose import (
    OdometryHistory,
    compose,
    inverse,
    odometry_pose,
    pose_at,
    relative_pose,
    wrap_angle,
)
from nav_msgs.msg import Odometry


def close(a, b):
    assert a[:2] == pytest.approx(b[:2], abs=1e-9)
    assert wrap_angle(a[2] - b[2]) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_motions_and_poses_belong_together(seed):
    rng = np.random.default_rng(seed)
    start, motion = (tuple(rng.uniform(-3.0, 3.0, 3).tolist()) for _ in range(2))
    end = compose(start, motion)
    close(relative_pose(start, end), motion)
    close(compose(end, inverse(motion)), start)
    close(compose(start, inverse(start)), (0.0, 0.0, 0.0))


def test_forward_is_along_the_heading():
    close(compose((1.0, 2.0, math.pi / 2), (3.0, 1.0, 0.5)), (0.0, 5.0, math.pi / 2 + 0.5))


def test_poses_between_two_are_interpolated_the_short_way_round():
    poses = [(0.0, 0.0, 0.0, 3.0), (1.0, 2.0, -2.0, -3.0)]
    close(pose_at(poses, 0.5), (1.0, -1.0, math.pi))
    assert pose_at(poses, -0.1) is None
    close(pose_at(poses, 7.0), (2.0, -2.0, -3.0))


def test_odometry_is_kept_in_order_and_begins_anew_when_the_clock_is_set_back():
    history = OdometryHistory(max_age_s=0.3)
    assert history.newest(0.0) is None
    for stamp_s in (10.0, 10.1, 10.05):
        history.add(stamp_s, stamp_s, 0.0, 0.0)
    history.add(10.2, math.nan, 0.0, 0.0)
    assert history.newest(10.3) == (10.1, 0.0, 0.0)
    assert history.newest(10.5) is None and history.at(10.5) is None
    assert history.at(10.05) == pytest.approx((10.05, 0.0, 0.0))
    history.add(2.0, 5.0, 0.0, 0.0)
    assert history.at(10.1) is None and history.newest(2.0) == (5.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("quaternion", "yaw"),
    [
        ((0.0, 0.0, math.sin(0.4), math.cos(0.4)), 0.8),
        ((0.0, 0.0, 0.0, 0.0), math.nan),
        # Without w, and not scaled from a sensor's integers.
        ((0.0, 0.0, 0.38, 0.0), math.nan),
        ((535.0, -275.0, 4725.0, -15676.0), math.nan),
        ((0.0, 0.0, math.nan, 1.0), math.nan),
    ],
)
def test_an_orientation_that_is_no_rotation_gives_no_heading(quaternion, yaw):
    message = Odometry()
    message.header.stamp.sec = 5
    turn = message.pose.pose.orientation
    turn.x, turn.y, turn.z, turn.w = quaternion
    assert odometry_pose(message) == pytest.approx((5.0, 0.0, 0.0, yaw), nan_ok=True)
