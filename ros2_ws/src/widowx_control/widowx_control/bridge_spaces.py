"""The BridgeData action and state spaces of the WidowX (Walke et al., "BridgeData V2", 2023).

Action: ``[dx, dy, dz, droll, dpitch, dyaw, gripper]``, deltas along the axes of base_link, m and
rad per control period; gripper absolute, 0 closed .. 1 open.
State: ``[x, y, z, roll, pitch, yaw, gripper]`` of ee_gripper_link in base_link, where roll = pitch
= yaw = 0 is the gripper pointing straight down.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
from policy_server.robots import load_robot

Array = npt.NDArray[np.float64]

ROBOT: Final = load_robot("wx250s")
ACTION_SPACE: Final = ROBOT.action_spaces["end_effector_delta"]
ACTION_NAMES: Final = ACTION_SPACE.names
ACTION_UNITS: Final = ACTION_SPACE.units
ACTION_LOW: Final = np.array(ACTION_SPACE.low)
ACTION_HIGH: Final = np.array(ACTION_SPACE.high)
STATE_NAMES: Final = tuple(ROBOT.states["end_effector_state"])
STATE_UNITS: Final = tuple(ROBOT.states["end_effector_state"].values())
CONTROL_PERIOD_S: Final = 0.2
DEFAULT_ROTATION: Final = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""Rotation of ee_gripper_link in base_link when the gripper points straight down: Ry(+90 deg)."""

for _constant in (ACTION_LOW, ACTION_HIGH, DEFAULT_ROTATION):
    _constant.setflags(write=False)


def rotation_from_rpy(roll: float, pitch: float, yaw: float) -> Array:
    """Return R = Rz(yaw) Ry(pitch) Rx(roll), shape (3, 3); angles in rad."""
    cr, sr = math.cos(roll), math.sin(roll)
    cp, sp = math.cos(pitch), math.sin(pitch)
    cy, sy = math.cos(yaw), math.sin(yaw)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def rpy_from_rotation(rotation: npt.ArrayLike) -> tuple[float, float, float]:
    """Return (roll, pitch, yaw) in rad with ``rotation = Rz(yaw) Ry(pitch) Rx(roll)``.

    pitch is in [-pi/2, pi/2]; at its ends, where only yaw - roll or yaw + roll is defined, roll
    is 0.
    """
    r = np.asarray(rotation, dtype=np.float64)
    horizontal = math.hypot(r[0, 0], r[1, 0])
    pitch = math.atan2(-r[2, 0], horizontal)
    if horizontal < 1e-9:
        return 0.0, pitch, math.atan2(-r[0, 1], r[1, 1])
    return math.atan2(r[2, 1], r[2, 2]), pitch, math.atan2(r[1, 0], r[0, 0])


def state_from_pose(pose_base_ee: npt.ArrayLike, gripper_opening: float) -> Array:
    """Return the 7-D Bridge state.

    Args:
        pose_base_ee: (4, 4) homogeneous transform of ee_gripper_link in base_link, m.
        gripper_opening: 0 closed .. 1 open; a measured value may leave that range slightly.
    """
    pose = np.asarray(pose_base_ee, dtype=np.float64)
    roll, pitch, yaw = rpy_from_rotation(pose[:3, :3] @ DEFAULT_ROTATION.T)
    return np.array([pose[0, 3], pose[1, 3], pose[2, 3], roll, pitch, yaw, gripper_opening])


def pose_from_state(state: npt.ArrayLike) -> Array:
    """Return the (4, 4) pose of ee_gripper_link in base_link for a state (at least 6 values)."""
    s = np.asarray(state, dtype=np.float64)
    pose = np.eye(4)
    pose[:3, :3] = rotation_from_rpy(s[3], s[4], s[5]) @ DEFAULT_ROTATION
    pose[:3, 3] = s[:3]
    return pose


def compose_delta(
    previous_commanded: npt.ArrayLike, measured_position_m: npt.ArrayLike, delta: npt.ArrayLike
) -> Array:
    """Apply a Bridge action to the pose that was commanded before.

    T_next = Trans(p) [R_a | d] Trans(-p) T_prev with p the measured end-effector position and
    R_a = Rz(dyaw) Ry(dpitch) Rx(droll): the delta is along base axes, and the rotation turns the
    commanded pose about the point where the end effector is.

    Args:
        previous_commanded: (4, 4) commanded pose before this action, m.
        measured_position_m: (3,) measured position of ee_gripper_link in base_link.
        delta: (6,) ``[dx, dy, dz, droll, dpitch, dyaw]``, m and rad.

    Returns:
        (4, 4) commanded pose after this action.
    """
    previous = np.asarray(previous_commanded, dtype=np.float64)
    p = np.asarray(measured_position_m, dtype=np.float64)
    d = np.asarray(delta, dtype=np.float64)
    turn = rotation_from_rpy(d[3], d[4], d[5])
    pose = np.eye(4)
    pose[:3, :3] = turn @ previous[:3, :3]
    pose[:3, 3] = p + turn @ (previous[:3, 3] - p) + d[:3]
    return pose
