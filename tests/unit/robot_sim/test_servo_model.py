import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robot_sim.servo_model import GripperDrive, ProfileGenerator
from widowx_control.gripper import finger_distance_m, servo_angle_rad

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


def test_profile_registers_of_zero_step_to_the_goal():
    profiles = generator(velocity=0, acceleration=0)
    profiles.set_goal(ONE, [0.7])
    assert profiles.advance(1, DT_S)[0, 0] == 0.7


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
