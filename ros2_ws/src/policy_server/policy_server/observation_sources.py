"""The topics that states are observed on, and how their messages become the numbers of a policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import Twist
from numpy.typing import NDArray
from policy_interfaces.msg import EndEffectorState
from sensor_msgs.msg import Imu, JointState

from policy_server.deployment import StateObservation
from policy_server.observation_buffer import END_EFFECTOR_STATE

Reader = Callable[[Any], NDArray[np.float32]]
"""Returns the values (D,) of one observation out of a message; ValueError: it lacks one."""


_END_EFFECTOR_STATE = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
"""Entries of policy_interfaces/EndEffectorState."""


@dataclass(frozen=True)
class StateSource:
    """Where observations of a kind come from."""

    message_type: type
    topic: str
    make_reader: Callable[[StateObservation], Reader]


def _end_effector_reader(observation: StateObservation) -> Reader:
    indices = [_END_EFFECTOR_STATE.index(name) for name in observation.names]

    def read(message: EndEffectorState) -> NDArray[np.float32]:
        return np.asarray(message.state, np.float32)[indices]

    return read


def _joint_reader(observation: StateObservation) -> Reader:
    wanted = observation.names

    def read(message: JointState) -> NDArray[np.float32]:
        place = {name: index for index, name in enumerate(message.name)}
        numbers = getattr(message, observation.quantity)
        missing = [name for name in wanted if place.get(name, len(numbers)) >= len(numbers)]
        if missing:
            raise ValueError(f"found no {observation.quantity} of {', '.join(missing)}")
        return np.array([numbers[place[name]] for name in wanted], np.float32)

    return read


def _imu_reader(observation: StateObservation) -> Reader:
    groups = {
        "orientation": {"roll", "pitch", "yaw", "gravity_x", "gravity_y", "gravity_z"},
        "angular_velocity": {f"angular_velocity_{axis}" for axis in "xyz"},
        "linear_acceleration": {f"linear_acceleration_{axis}" for axis in "xyz"},
    }
    needed = [group for group, names in groups.items() if names & set(observation.names)]

    def read(message: Imu) -> NDArray[np.float32]:
        for group in needed:
            # So sensor_msgs says that a driver does not measure something.
            if getattr(message, f"{group}_covariance")[0] == -1.0:
                raise ValueError(f"found an IMU without {group.replace('_', ' ')}")
        numbers = _attitude(message.orientation) if "orientation" in needed else {}
        for group in ("angular_velocity", "linear_acceleration"):
            vector = getattr(message, group)
            numbers |= {f"{group}_{axis}": getattr(vector, axis) for axis in "xyz"}
        return np.array([numbers[name] for name in observation.names], np.float32)

    return read


def _attitude(quaternion: Any) -> dict[str, float]:
    """Roll, pitch and yaw [rad] of a body, and the direction of gravity in its frame."""
    x, y, z, w = quaternion.x, quaternion.y, quaternion.z, quaternion.w
    size = x * x + y * y + z * z + w * w
    if not 0.98 < size < 1.02:
        raise ValueError(
            f"found an orientation of length {math.sqrt(max(size, 0.0)):.3f}, expected 1"
        )
    # The last row of the rotation matrix from body to world is the world's up in the body's frame.
    up = 2 * (x * z - y * w) / size, 2 * (y * z + x * w) / size, 1 - 2 * (x * x + y * y) / size
    return {
        "gravity_x": -up[0],
        "gravity_y": -up[1],
        "gravity_z": -up[2],
        "roll": math.atan2(up[1], up[2]),
        "pitch": math.asin(min(max(-up[0], -1.0), 1.0)),
        "yaw": math.atan2(2 * (x * y + z * w), size - 2 * (y * y + z * z)),
    }


def _velocity_reader(observation: StateObservation) -> Reader:
    def read(message: Twist) -> NDArray[np.float32]:
        numbers = {"vx": message.linear.x, "vy": message.linear.y, "wz": message.angular.z}
        return np.array([numbers[name] for name in observation.names], np.float32)

    return read


STATE_SOURCES: Mapping[str, StateSource] = {
    END_EFFECTOR_STATE: StateSource(EndEffectorState, "end_effector_state", _end_effector_reader),
    "joint_state": StateSource(JointState, "joint_states", _joint_reader),
    "imu": StateSource(Imu, "imu/data", _imu_reader),
    "commanded_velocity": StateSource(Twist, "cmd_vel", _velocity_reader),
}
"""Kind of observation → where it comes from. A message without a header counts from its arrival."""
