"""Where a robot should be by how it has moved."""

import math

import numpy as np
import pytest
from gnm_nav.dead_reckoning import DeadReckoning
from gnm_nav.planar_pose import compose, inverse

STEP = (0.1, 0.0, 0.05)
HERE = (0.0, 0.0, 0.0)


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (64, 85, 3), np.uint8)


def started(pose=(2.0, 1.0, 0.5)):
    """A reckoning that knows a pose and has seen a picture at the time 0."""
    reckoning = DeadReckoning()
    reckoning.advance(picture(), 0.0, HERE)
    reckoning.sight(pose, HERE)
    return reckoning


def where(reckoning):
    expected = reckoning.expected
    return expected.x_m, expected.y_m, expected.yaw_rad


@pytest.mark.parametrize("measured", [True, False], ids=["odometry", "as told"])
def test_motion_adds_up(measured):
    reckoning = started()
    pose = odometry = (2.0, 1.0, 0.5)
    for tick in range(1, 20):
        # Where odometry is there, what was told does not count.
        told = (0.3, 0.1, 0.4) if measured else STEP
        before, odometry = odometry, compose(odometry, STEP)
        if measured:
            reckoning.add_odometry(0.25 * (tick - 1), *before)
            reckoning.add_odometry(0.25 * tick, *odometry)
        motion = reckoning.advance(picture(), 0.25 * tick, told if tick > 1 else STEP)
        pose = compose(pose, STEP)
        assert motion == pytest.approx(STEP, abs=1e-9)
    assert where(reckoning) == pytest.approx(pose, abs=1e-6)
    assert reckoning.expected.sigma_m > started().expected.sigma_m


def test_odometry_that_was_reset_is_not_a_motion():
    reckoning = started()
    reckoning.add_odometry(0.25, 7.0, 3.0, 1.0)
    reckoning.advance(picture(), 0.25, STEP)
    reckoning.add_odometry(0.5, 0.0, 0.0, 0.0)
    assert reckoning.advance(picture(), 0.5, STEP) == STEP


def test_a_robot_that_sees_something_else_at_once_was_carried_away():
    reckoning = started()
    reckoning.advance(picture(), 0.25, STEP)
    assert reckoning.expected is not None
    reckoning.advance(picture(1), 0.5, STEP)
    assert reckoning.expected is None


def test_a_robot_that_turns_sees_something_else():
    reckoning = started()
    reckoning.advance(picture(1), 0.25, (0.0, 0.0, 0.2))
    assert reckoning.expected is not None


def test_sightings_of_nodes_ahead_take_the_drift_away():
    reckoning = started((0.0, 0.0, 0.0))
    true = (0.4, -0.3, 0.2)
    ahead = (0.5, 0.1, 0.3)
    for _ in range(60):
        reckoning.sight(compose(true, ahead), ahead)
    assert where(reckoning) == pytest.approx(true, abs=0.01)


def test_one_sighting_elsewhere_changes_nothing_and_many_are_right():
    reckoning = started((0.0, 0.0, 0.0))
    elsewhere = (8.0, 3.0, 2.0)
    reckoning.sight(elsewhere, HERE)
    assert where(reckoning) == (0.0, 0.0, 0.0)
    for _ in range(10):
        reckoning.sight(elsewhere, HERE)
    assert where(reckoning) == pytest.approx(elsewhere)


def test_nodes_that_are_far_or_face_another_way_do_not_fit_up_to_a_limit():
    expected = started((1.0, 1.0, math.pi)).expected
    poses = [
        (1.3, 1.2, -math.pi + 0.2),
        (2.5, 1.0, math.pi),
        (1.0, 1.0, 0.0),
        (40.0, 1.0, math.pi),
        (40.0, 1.0, 0.0),
    ]
    near, apart, turned, far, both = expected.misfit(np.array(poses))
    assert near == 0.0
    assert 0.5 < apart <= far == turned
    assert both == far + turned


def test_the_inverse_of_what_lies_ahead_is_where_the_robot_is():
    reckoning = DeadReckoning()
    robot, ahead = (1.0, -2.0, 0.7), (0.6, 0.2, -0.3)
    reckoning.sight(compose(robot, ahead), ahead)
    assert where(reckoning) == pytest.approx(robot)
    assert compose(compose(robot, ahead), inverse(ahead)) == pytest.approx(robot)
