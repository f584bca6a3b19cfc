"""Gripper linkage and PWM law."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from widowx_control.gripper import (
    GripperController,
    finger_distance_m,
    opening_from_finger,
    servo_angle_rad,
)


@pytest.mark.parametrize(
    ("angle_rad", "finger_m"),
    [(-1.5708, 0.010), (-0.3780, 0.015), (0.0, 0.01949), (1.0397, 0.035), (1.2684, 0.037)],
)
def test_linkage_of_the_real_gripper(angle_rad, finger_m):
    assert finger_distance_m(angle_rad) == pytest.approx(finger_m, abs=1e-5)


@given(angle_rad=st.floats(-1.5, 1.5))
def test_linkage_inverts(angle_rad):
    assert servo_angle_rad(2 * finger_distance_m(angle_rad)) == pytest.approx(angle_rad, abs=1e-6)


@pytest.mark.parametrize("gap_m", [0.019, 0.077, math.nan])
def test_a_gap_outside_the_linkage_is_refused(gap_m):
    with pytest.raises(ValueError, match="gap"):
        servo_angle_rad(gap_m)


def test_opening_scale():
    assert opening_from_finger(0.015) == pytest.approx(0.2)
    assert opening_from_finger(0.037) == pytest.approx(1.08)


@given(target=st.floats(-5, 5), finger_m=st.floats(0.0, 0.05))
def test_pwm_drives_towards_the_target_within_bounds(target, finger_m):
    gripper = GripperController()
    gripper.target = target
    pwm = gripper.pwm(finger_m, 0.02)
    assert abs(pwm) <= 350
    assert pwm == int(pwm)
    assert pwm * (gripper.target - opening_from_finger(finger_m)) >= 0


def test_a_blocked_gripper_gets_less_pwm_until_it_moves_or_has_a_new_target():
    gripper = GripperController()
    gripper.target = 0.0
    sent = [gripper.pwm(0.018, 0.02) for _ in range(60)]
    assert sent[0] == -350
    assert sent[-1] == -250
    assert gripper.pwm(0.016, 0.02) == -350
    for _ in range(60):
        gripper.pwm(0.016, 0.02)
    gripper.target = 1.0
    assert gripper.pwm(0.016, 0.02) == 350


def test_a_lost_measurement_gets_no_pwm():
    assert GripperController().pwm(math.nan, 0.02) == 0
