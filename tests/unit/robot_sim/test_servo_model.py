import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robot_sim.servo_model import GripperDrive, ProfileGenerator
from servo_bus_emulator.profile import time_profile, velocity_profile
from widowx_control.gripper import finger_distance_m, servo_angle_rad
from widowx_control.xs_driver.control_table import RAD_PER_S2_PER_UNIT, RAD_PER_S_PER_UNIT

DT_S = 0.005
ONE = np.array([0])


def generator(time_based=True, velocity=2000, acceleration=300, start=0.0):
    profiles = ProfileGenerator([start])
    profiles.time_based[:] = time_based
    profiles.profile_velocity[:] = velocity
    profiles.profile_acceleration[:] = acceleration
    return profiles


def test_time_profile_is_a_trapezoid_of_the_stated_duration():
    profiles = generator()
    profiles.set_goal(ONE, [1.0])
    path = profiles.advance(400, DT_S)[:, 0]
    speed = np.diff(path) / DT_S
    assert path[-1] == 1.0
    assert path[398] < 1.0
    assert speed.max() == pytest.approx(1.0 / (2.0 - 0.3), rel=1e-6)
    ramp = np.arange(1.5, 51.5) * DT_S / 0.3 * speed.max()
    assert speed[:50] == pytest.approx(ramp, abs=1e-6)
    assert path[199] == pytest.approx(0.5, abs=1e-9)


def test_velocity_profile_obeys_speed_and_acceleration():
    profiles = generator(time_based=False, velocity=131, acceleration=15)
    profiles.set_goal(ONE, [2.0])
    path = profiles.advance(600, DT_S)[:, 0]
    speed = np.diff(path) / DT_S
    assert speed.max() == pytest.approx(3.1415, rel=0.01)
    assert np.abs(np.diff(speed) / DT_S).max() <= 5.62 * 1.01
    assert path[-1] == 2.0


@pytest.mark.parametrize("time_based", [True, False])
@pytest.mark.parametrize("acceleration", [0, 40, 300])
def test_a_profile_velocity_of_zero_steps_to_the_goal(time_based, acceleration):
    """Whatever the acceleration is (e-manual of the X series, "Profile Velocity")."""
    profiles = generator(time_based, velocity=0, acceleration=acceleration)
    profiles.set_goal(ONE, [1.0])
    assert not profiles.moving
    assert profiles.advance(1, DT_S)[0, 0] == 1.0


@pytest.mark.parametrize("seed", range(8))
def test_the_simulated_servo_follows_the_emulated_one_s_profile(seed):
    random = np.random.default_rng(seed)
    time_based = bool(seed % 2)
    velocity, acceleration = int(random.integers(20, 600)), int(random.integers(0, 400))
    profiles = generator(time_based, velocity, acceleration)
    start, speed = 0.0, 0.0
    for _ in range(4):
        goal = float(random.uniform(-1.5, 1.5))
        profiles.set_goal(ONE, [goal])
        if time_based:
            profile = time_profile(start, speed, goal, 1e-3 * velocity, 1e-3 * acceleration)
        else:
            limits = velocity * RAD_PER_S_PER_UNIT, acceleration * RAD_PER_S2_PER_UNIT
            profile = velocity_profile(start, speed, goal, *limits)
        steps = int(random.integers(1, 60))
        expected = [profile.at(DT_S * (k + 1))[0] for k in range(steps)]
        np.testing.assert_allclose(profiles.advance(steps, DT_S)[:, 0], expected, atol=1e-9)
        start, speed = profile.at(DT_S * steps)
        assert profiles.reference()[1][0] == pytest.approx(speed, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    time_based=st.booleans(),
    velocity=st.integers(20, 600),
    acceleration=st.integers(10, 400),
    goals=st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=5),
    gap_steps=st.integers(1, 60),
)
def test_a_new_goal_in_motion_never_jumps_and_arrives(
    time_based, velocity, acceleration, goals, gap_steps
):
    profiles = generator(time_based, velocity, acceleration)
    path = [np.zeros((1, 1))]
    for goal in goals:
        _, speed_before = profiles.reference()
        profiles.set_goal(ONE, [goal])
        position, speed = profiles.reference()
        assert position[0] == pytest.approx(path[-1][-1, 0], abs=1e-9)
        assert speed[0] == pytest.approx(speed_before[0], abs=1e-9)
        path.append(profiles.advance(gap_steps, DT_S))
    path.append(profiles.advance(4000, DT_S))
    whole = np.concatenate(path)[:, 0]
    assert whole[-1] == goals[-1]
    longest = np.abs(np.diff(whole)).max()
    # 1.5 rad and the way back, at the peak of a triangle of the stated time.
    limit = velocity * 0.02398 if not time_based else 2 * 4.5 / (velocity / 1000) + 10
    assert longest <= limit * DT_S * 1.3 + 1e-6


def test_gripper_force_follows_the_linkage():
    """The work of the torque over an angle equals the work of the force over the fingers' way."""
    drive = GripperDrive()
    for angle in np.linspace(-0.3, 1.2, 7):
        step = 1e-5
        way = (finger_distance_m(angle + step) - finger_distance_m(angle - step)) / (2 * step)
        torque = 1.5 * 350 / 885
        assert drive.force_n(350, angle) * way == pytest.approx(torque, rel=1e-5)
    assert drive.force_n(-350, 0.0) == -drive.force_n(350, 0.0)
    assert math.isclose(servo_angle_rad(2 * 0.0195), 0.0, abs_tol=1e-3)
