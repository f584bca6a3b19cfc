"""The Bridge action and state spaces against their definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from widowx_control.bridge_spaces import compose_delta, pose_from_state, state_from_pose
from widowx_control.kinematics import NAMED_POSES, ArmKinematics

angle = st.floats(-1.5, 1.5)
states = st.tuples(*[st.floats(-0.5, 0.5)] * 3, angle, angle, angle, st.floats(0, 1)).map(np.array)
deltas = st.tuples(*[st.floats(-0.05, 0.05)] * 3, *[st.floats(-0.25, 0.25)] * 3).map(np.array)


def about(axis, angle_rad):
    """Rodrigues' formula."""
    k = np.cross(np.eye(3), np.eye(3)[axis])
    return np.eye(3) + np.sin(angle_rad) * k + (1 - np.cos(angle_rad)) * k @ k


@given(state=states)
def test_state_and_pose_are_inverse(state):
    pose = pose_from_state(state)
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(state_from_pose(pose, state[6]), state, atol=1e-9)


def test_gripper_straight_down_has_zero_angles():
    pose = ArmKinematics().forward(NAMED_POSES["start"])
    np.testing.assert_allclose(state_from_pose(pose, 0.5), [0.3, 0, 0.15, 0, 0, 0, 0.5], atol=2e-4)
    # The end effector's x axis, along which the fingers point, is base -z.
    np.testing.assert_allclose(pose[:3, 0], [0, 0, -1], atol=1e-3)


@given(state=states, delta=deltas, measured=st.tuples(*[st.floats(-0.5, 0.5)] * 3).map(np.array))
def test_composition_is_the_transform_product(state, delta, measured):
    """T_next = Trans(p) [R_a | d] Trans(-p) T_prev, R_a = Rz Ry Rx."""
    turn = about(2, delta[5]) @ about(1, delta[4]) @ about(0, delta[3])
    there, step, back = np.eye(4), np.eye(4), np.eye(4)
    there[:3, 3], back[:3, 3] = measured, -measured
    step[:3, :3], step[:3, 3] = turn, delta[:3]
    expected = there @ step @ back @ pose_from_state(state)
    np.testing.assert_allclose(
        compose_delta(pose_from_state(state), measured, delta), expected, atol=1e-12
    )


@pytest.mark.parametrize("roll_sign", [1, -1])
def test_euler_angles_at_the_singularity_still_give_the_rotation(roll_sign):
    state = np.array([0.1, 0.2, 0.3, 0.4, roll_sign * np.pi / 2, -0.3, 0.0])
    pose = pose_from_state(state)
    np.testing.assert_allclose(pose_from_state(state_from_pose(pose, 0.0)), pose, atol=1e-6)
