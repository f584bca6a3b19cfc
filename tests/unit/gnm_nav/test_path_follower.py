"""The path follower: control laws, limits, odometry, and what makes it stop."""

import itertools
import math

import numpy as np
import pytest
from base_drivers.robot_config import load_robot, robot_names
from base_drivers.velocity import REST
from gnm_nav.path_follower import (
    FollowerSettings,
    FollowerState,
    PathError,
    PathFollower,
    leads_back,
    lookahead_point,
    pd_velocity,
    pure_pursuit_velocity,
    straight_back,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

ORIGINAL = {
    "linear_time_s": 0.25,
    "angular_time_s": 0.25,
    "tolerance_m": 1e-8,
    "max_linear_m_s": 0.2,
    "max_angular_rad_s": 0.4,
}


def original(x, y, cos=1.0, sin=0.0, **changes):
    velocity = pd_velocity(x, y, math.atan2(sin, cos), **{**ORIGINAL, **changes})
    return velocity.x, velocity.yaw


@pytest.mark.parametrize(
    ("waypoint", "expected"),
    [
        ((0.15, 0.0, 1.0, 0.0), (0.2, 0.0)),
        ((0.03, 0.0, 1.0, 0.0), (0.12, 0.0)),
        ((0.03, 0.002, 1.0, 0.0), (0.12, 0.266273)),
        ((0.03, 0.004, 1.0, 0.0), (0.12, 0.4)),
        ((0.05, 0.05, 0.0, 1.0), (0.2, 0.4)),
        ((0.15, -0.05, 1.0, 0.0), (0.2, -0.4)),
        ((0.0, 0.05, 1.0, 0.0), (0.0, 0.4)),
        ((0.0, 0.0, 0.9998, 0.02), (0.0, 0.080005)),
        ((0.0, 0.0, 0.0, 1.0), (0.0, 0.4)),
        ((0.0, 0.0, -1.0, 0.0), (0.0, -0.4)),
        ((0.1, 0.01), (0.2, 0.398675)),
        ((0.0, 0.0), (0.0, 0.0)),
    ],
)
def test_equals_the_published_controller_where_that_is_right(waypoint, expected):
    assert original(*waypoint) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("y", "side"), [(0.02, 1.0), (-0.02, -1.0)])
def test_turns_towards_a_target_behind(y, side):
    # The published controller turns the other way: it takes arctan(y / x).
    assert original(-0.05, y, 0.0, 1.0) == (0.0, pytest.approx(0.4 * side))


def test_a_waypoint_without_distance_is_a_heading():
    # The published controller has this case for 1e-8 m, which no network ever predicts.
    linear, angular = original(0.003, -0.002, math.cos(0.05), math.sin(0.05), tolerance_m=0.005)
    assert (linear, angular) == (0.0, pytest.approx(0.2))


@given(
    bearing=st.floats(-1.5, 1.5),
    distance=st.floats(0.05, 3.0),
    speed=st.floats(0.05, 1.0),
)
def test_pure_pursuit_drives_through_its_point(bearing, distance, speed):
    x, y = distance * math.cos(bearing), distance * math.sin(bearing)
    velocity = pure_pursuit_velocity(x, y, speed, max_angular_rad_s=2.0)
    assert abs(velocity.yaw) <= 2.0 + 1e-9
    if abs(velocity.yaw) < 1e-6:
        assert abs(y) < 1e-3
        return
    radius = velocity.x / velocity.yaw
    assert math.hypot(x, y - radius) == pytest.approx(abs(radius), rel=1e-6)


def test_lookahead_lies_between_two_waypoints():
    points = np.array([[0.1, 0.0], [0.2, 0.0], [0.2, 0.4]])
    assert lookahead_point(points, 0.15) == pytest.approx((0.15, 0.0))
    assert math.hypot(*lookahead_point(points, 0.3)) == pytest.approx(0.3)
    assert lookahead_point(points, 9.0) == pytest.approx((0.2, 0.4))


def follower(robot="locobot", **changes):
    config = load_robot(robot)
    values = {"controller": config.drive.controller, "waypoint_index": 2, **changes}
    return PathFollower(config, FollowerSettings(**values))


def straight(spacing=0.1, count=5, bearing=0.0):
    distance = spacing * np.arange(1, count + 1)
    x, y = distance * math.cos(bearing), distance * math.sin(bearing)
    return np.stack([x, y, np.full(count, bearing)], axis=1)


def drive(core, path, duration_s, *, start_s=100.0, period_s=0.05, motion=None):
    """Feed a path again and again, as a navigator does, and integrate an ideal robot."""
    pose = np.zeros(3)
    outputs = []
    for index in range(round(duration_s / period_s)):
        now = start_s + index * period_s
        core.add_odometry(now, *pose)
        core.set_path(path(pose, now), now, now, now)
        output = core.update(now, now, period_s)
        outputs.append(output)
        velocity = output.velocity
        yaw = pose[2]
        pose += period_s * np.array(
            [
                velocity.x * math.cos(yaw) - velocity.y * math.sin(yaw),
                velocity.x * math.sin(yaw) + velocity.y * math.cos(yaw),
                velocity.yaw,
            ]
        )
    return pose, outputs


@pytest.mark.parametrize("robot", robot_names())
@pytest.mark.parametrize("controller", ["pd", "pure_pursuit"])
def test_every_robot_reaches_a_line_beside_it(robot, controller):
    core = follower(robot, controller=controller)
    spacing = core.robot.waypoint_spacing_m
    offset = 4.0 * spacing

    def path(pose, _now):
        # An expert that returns to the line y = offset and follows it.
        x = pose[0] + spacing * np.arange(1, 6)
        y = pose[1] + (offset - pose[1]) * (np.arange(1, 6) / 6.0)
        c, s = math.cos(pose[2]), math.sin(pose[2])
        dx, dy = x - pose[0], y - pose[1]
        return np.stack([c * dx + s * dy, -s * dx + c * dy, np.zeros(5)], axis=1)

    pose, outputs = drive(core, path, 15.0)
    assert pose[1] == pytest.approx(offset, abs=0.3 * spacing)
    assert abs(pose[2]) < 0.1
    speed = np.mean([o.velocity.x for o in outputs[-40:]])
    assert speed == pytest.approx(core.robot.nominal_speed_m_s, rel=0.1)


@pytest.mark.parametrize("robot", robot_names())
@settings(max_examples=40, deadline=None)
@given(
    paths=st.lists(
        st.lists(
            st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(-10, 10)),
            min_size=1,
            max_size=8,
        ),
        min_size=1,
        max_size=8,
    ),
    controller=st.sampled_from(["pd", "pure_pursuit"]),
    index=st.integers(0, 7),
)
def test_limits_hold_whatever_the_path(robot, paths, controller, index):
    assume(not any(leads_back(np.array(waypoints)) for waypoints in paths))
    core = follower(robot, controller=controller, waypoint_index=index)
    config, last = core.robot, REST
    now = 5.0
    for waypoints in paths:
        core.set_path(np.array(waypoints), now, now, now)
        for _ in range(3):
            velocity = core.update(now, now, 0.02).velocity
            assert 0.0 <= velocity.x <= config.max_linear_m_s
            assert abs(velocity.y) <= config.max_lateral_m_s
            assert abs(velocity.yaw) <= config.max_angular_rad_s
            change = abs(velocity.x - last.x)
            assert change <= config.max_linear_acceleration_m_s2 * 0.02 + 1e-9
            if config.min_turning_radius_m:
                radius = config.min_turning_radius_m
                assert abs(velocity.yaw) * radius <= velocity.x + 1e-9
            else:
                turn = abs(velocity.yaw - last.yaw)
                assert turn <= config.max_angular_acceleration_rad_s2 * 0.02 + 1e-9
            last = velocity
            now += 0.02


def test_odometry_moves_the_path_to_where_the_robot_is_now():
    still, moved = follower(), follower()
    path = straight(bearing=0.3)
    for core in (still, moved):
        core.add_odometry(10.0, 1.0, 2.0, 1.0)
        core.set_path(path, 10.0, 10.0, 10.0)
    # The robot has turned to the path meanwhile: nothing is left to turn.
    moved.add_odometry(10.04, 1.0, 2.0, 1.3)
    now = 10.04
    assert still.update(now, now, 0.05).velocity.yaw > 0.1
    output = moved.update(now, now, 0.05)
    assert output.compensated
    assert output.velocity.yaw == pytest.approx(0.0, abs=1e-9)


def test_old_odometry_is_not_used():
    core = follower()
    core.add_odometry(10.0, 0.0, 0.0, 0.0)
    core.set_path(straight(), 10.2, 10.4, 10.4)
    assert not core.update(10.4, 10.4, 0.05).compensated


def test_a_passed_waypoint_does_not_turn_the_robot_round():
    core = follower()
    core.add_odometry(10.0, 0.0, 0.0, 0.0)
    core.set_path(straight(spacing=0.02), 10.0, 10.0, 10.0)
    core.add_odometry(10.1, 0.3, 0.01, 0.0)
    assert core.update(10.1, 10.1, 0.05).velocity == REST


def test_headings_alone_turn_at_their_own_rate():
    core = follower()
    turn_rate = 0.5
    outputs = drive(
        core,
        lambda _pose, _now: np.array([[0.0, 0.0, turn_rate * 0.25 * k] for k in range(1, 6)]),
        1.0,
    )[1]
    assert outputs[-1].velocity.x == 0.0
    assert outputs[-1].velocity.yaw == pytest.approx(turn_rate, rel=0.02)


@pytest.mark.parametrize("robot", robot_names())
def test_stops_within_0_3_s_of_silence_and_then_goes_quiet(robot):
    core = follower(robot)
    spacing = core.robot.waypoint_spacing_m
    drive(core, lambda _pose, _now: straight(spacing), 2.0, start_s=100.0)
    last = 100.0 + 2.0 - 0.05
    zero_at = None
    for index in range(1, 60):
        now = last + 0.05 * index
        output = core.update(now, now, 0.05)
        if zero_at is None and output.velocity == REST:
            zero_at = now - last
            assert "no path for" in output.reason
        elif zero_at is not None:
            assert output.velocity is None or output.velocity == REST
    assert zero_at <= 0.301
    assert output.state is FollowerState.QUIET
    assert output.velocity is None


def test_a_sender_that_repeats_an_old_path_is_not_followed():
    core = follower()
    core.set_path(straight(), 10.0, 10.0, 10.0)
    states = []
    for index in range(30):
        now = 10.0 + 0.05 * index
        try:
            core.set_path(straight(), 10.0, now, now)
        except PathError as error:
            assert error.code == "stale"
        states.append(core.update(now, now, 0.05).state)
    assert states[10] is FollowerState.FOLLOWING
    assert states[-1] is FollowerState.STOPPING


def test_an_empty_path_stops_at_once_however_old():
    core = follower()
    drive(core, lambda _pose, _now: straight(), 2.0)
    core.set_path(np.zeros((0, 3)), 0.0, 102.0, 102.0)
    velocities = [core.update(now, now, 0.05).velocity for now in (102.05, 102.1, 102.15)]
    assert velocities[0].x < 0.1
    assert velocities[-1] == REST


@pytest.mark.parametrize(
    ("path", "stamp_s", "code"),
    [
        (np.zeros((4, 2)), 10.0, "shape"),
        (np.array([[np.nan, 0.0, 0.0]]), 10.0, "not_finite"),
        (np.array([[0.1, np.inf, 0.0]]), 10.0, "not_finite"),
        (straight(), 8.0, "stale"),
        (straight(), 10.5, "future"),
    ],
)
def test_a_bad_path_is_refused_and_the_good_one_stays(path, stamp_s, code):
    core = follower()
    core.set_path(straight(), 10.0, 10.0, 10.0)
    before = core.update(10.02, 10.02, 0.02).velocity
    with pytest.raises(PathError) as caught:
        core.set_path(path, stamp_s, 10.04, 10.04)
    assert caught.value.code == code
    assert core.update(10.04, 10.04, 0.02).velocity.x > before.x


def test_a_clock_set_back_stops_the_robot():
    core = follower()
    core.set_path(straight(), 50.0, 50.0, 50.0)
    core.update(50.05, 50.05, 0.05)
    assert core.update(3.0, 50.1, 0.05).state is FollowerState.STOPPING


@pytest.mark.parametrize("robot", robot_names())
def test_a_path_that_leads_straight_back_is_driven_backwards_slowly(robot):
    core = follower(robot)
    spacing_m = core.robot.waypoint_spacing_m
    _, outputs = drive(core, lambda _pose, _now: straight_back(0.4 * spacing_m, 5), 3.0)
    velocities = [output.velocity for output in outputs]
    assert all(v.x <= 0.0 and v.y == v.yaw == 0.0 for v in velocities)
    assert velocities[-1].x == pytest.approx(-0.4 * core.robot.nominal_speed_m_s)
    limit = core.robot.max_linear_acceleration_m_s2 * 0.05 + 1e-9
    assert all(a.x - b.x <= limit for a, b in itertools.pairwise(velocities))
    core.set_path(straight_back(10.0 * spacing_m, 5), 200.0, 200.0, 200.0)
    fastest = [core.update(200.0, 200.0, 0.05).velocity.x for _ in range(200)]
    assert min(fastest) == pytest.approx(-0.5 * core.robot.nominal_speed_m_s)
    assert core.update(200.2, 200.2, 0.05).velocity == REST


def test_backs_off_from_what_it_touches_by_a_bounded_distance():
    core = follower(back_off_m=0.1)
    drive(core, lambda _pose, _now: straight(), 2.0)
    way = 0.0
    for index in range(30):
        now = 102.0 + 0.05 * index
        core.set_path(straight(), now, now, now)
        core.touch(index < 25, now)
        output = core.update(now, now, 0.05)
        way -= min(0.0, output.velocity.x) * 0.05
    assert 0.05 < way <= 0.1 + 0.4 * 0.4 * 0.05
    # Without a path nothing is driven back from, and silence ends the way back, too.
    core.update(110.0, 110.0, 0.05)
    core.touch(True, 110.2)
    assert core.update(110.2, 110.2, 0.05).velocity == REST
    core.set_path(straight(), 111.0, 111.0, 111.0)
    core.touch(True, 111.0)
    assert core.update(111.0, 111.0, 0.05).state is FollowerState.BACKING
    assert core.update(111.2, 111.2, 0.05).velocity == REST
