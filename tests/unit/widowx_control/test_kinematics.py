"""Kinematics against the product of exponentials of the wx250s (Interbotix's constants)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from widowx_control.bridge_spaces import DEFAULT_ROTATION
from widowx_control.kinematics import (
    JOINT_LOWER_RAD,
    JOINT_NAMES,
    JOINT_UPPER_RAD,
    NAMED_POSES,
    ArmKinematics,
)

SCREWS = np.array(
    [
        [0, 0, 1, 0, 0, 0],
        [0, 1, 0, -0.11065, 0, 0],
        [0, 1, 0, -0.36065, 0, 0.04975],
        [1, 0, 0, 0, 0.36065, 0],
        [0, 1, 0, -0.36065, 0, 0.29975],
        [1, 0, 0, 0, 0.36065, 0],
    ]
)
HOME_M = np.array([0.458325, 0, 0.36065])

joints = st.tuples(
    *(
        st.floats(float(low), float(high))
        for low, high in zip(JOINT_LOWER_RAD, JOINT_UPPER_RAD, strict=True)
    )
).map(np.array)


@pytest.fixture(scope="module")
def arm():
    return ArmKinematics()


def screw_motion(screw, angle):
    """exp of a unit screw [w, v] (Lynch and Park, "Modern Robotics", eq. 3.88)."""
    w, v = screw[:3], screw[3:]
    k = np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])
    motion = np.eye(4)
    motion[:3, :3] += np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    g = np.eye(3) * angle + (1 - np.cos(angle)) * k + (angle - np.sin(angle)) * k @ k
    motion[:3, 3] = g @ v
    return motion


def product_of_exponentials(q):
    pose = np.eye(4)
    for screw, angle in zip(SCREWS, q, strict=True):
        pose = pose @ screw_motion(screw, angle)
    home = np.eye(4)
    home[:3, 3] = HOME_M
    return pose @ home


@given(q=joints)
def test_forward_is_the_product_of_exponentials(arm, q):
    np.testing.assert_allclose(arm.forward(q), product_of_exponentials(q), atol=1e-12)


def test_jacobian_is_the_derivative_of_forward(arm):
    rng = np.random.default_rng(3)
    for _ in range(20):
        q = rng.uniform(JOINT_LOWER_RAD, JOINT_UPPER_RAD)
        jacobian, pose, h = arm.jacobian(q), arm.forward(q), 1e-6
        for i in range(6):
            moved = arm.forward(q + h * np.eye(6)[i])
            turn = (moved[:3, :3] - pose[:3, :3]) @ pose[:3, :3].T / h
            np.testing.assert_allclose((moved[:3, 3] - pose[:3, 3]) / h, jacobian[:3, i], atol=1e-5)
            angular = [turn[2, 1], turn[0, 2], turn[1, 0]]
            np.testing.assert_allclose(angular, jacobian[3:, i], atol=1e-5)


@settings(deadline=None)
@given(q=joints, step=st.lists(st.floats(-0.25, 0.25), min_size=6, max_size=6))
def test_inverse_finds_a_pose_one_step_away(arm, q, step):
    seed = np.clip(q + step, JOINT_LOWER_RAD, JOINT_UPPER_RAD)
    result = arm.inverse(arm.forward(q), seed)
    assert result.converged
    reached = arm.forward(result.joint_positions_rad)
    np.testing.assert_allclose(reached, arm.forward(q), atol=1.1e-3)
    assert (result.joint_positions_rad >= JOINT_LOWER_RAD).all()
    assert (result.joint_positions_rad <= JOINT_UPPER_RAD).all()


def test_inverse_covers_the_workspace_with_the_gripper_down(arm):
    """Bridge's default box is within reach except its far corners."""
    missed = []
    for x in np.linspace(0.15, 0.40, 6):
        for y in np.linspace(-0.15, 0.2, 5):
            for z in np.linspace(0.0, 0.16, 4):
                pose = np.eye(4)
                pose[:3, :3] = DEFAULT_ROTATION
                pose[:3, 3] = x, y, z
                if not arm.inverse(pose, NAMED_POSES["start"]).converged:
                    missed.append((x, y, z))
    assert not missed


@pytest.mark.parametrize("seed", range(5))
def test_out_of_reach_gives_the_nearest_pose_within_limits(arm, seed):
    rng = np.random.default_rng(seed)
    for _ in range(40):
        q = rng.uniform(JOINT_LOWER_RAD + 0.1, JOINT_UPPER_RAD - 0.1)
        pose = arm.forward(q)
        direction = pose[:3, 3] - [0, 0, 0.11065]
        pose[:3, 3] += direction / np.linalg.norm(direction)
        result = arm.inverse(pose, q, max_joint_step_rad=0.5, limit_margin_rad=0.05)
        found = result.joint_positions_rad
        assert not result.converged
        assert np.abs(found - q).max() <= 0.5 + 1e-9
        assert (found >= JOINT_LOWER_RAD + 0.05 - 1e-9).all()
        assert (found <= JOINT_UPPER_RAD - 0.05 + 1e-9).all()
        away = pose[:3, 3] - arm.forward(found)[:3, 3]
        assert np.isclose(np.linalg.norm(away), result.position_error_m, atol=1e-9)
        # Never worse than staying where it was.
        assert result.position_error_m <= 1.0 + 1e-9


def test_at_a_singularity_joints_do_not_leap(arm):
    """At home forearm_roll and wrist_rotate are in line: the exact answer turns them 1.2 rad."""
    pose = arm.forward(np.zeros(6))
    pose[:3, 3] += [-0.01, 0.01, 0.005]
    assert np.abs(arm.inverse(pose, np.zeros(6)).joint_positions_rad).max() > 1.0
    result = arm.inverse(pose, np.zeros(6), max_joint_step_rad=0.3)
    assert np.abs(result.joint_positions_rad).max() <= 0.3 + 1e-9
    assert result.position_error_m < 0.004
    assert result.rotation_error_rad < 0.02


def test_a_foreign_urdf_is_refused():
    with pytest.raises(ValueError, match="waist"):
        ArmKinematics('<robot name="other"><link name="base_link"/></robot>')


def test_joint_order():
    assert JOINT_NAMES == (
        "waist",
        "shoulder",
        "elbow",
        "forearm_roll",
        "wrist_angle",
        "wrist_rotate",
    )
