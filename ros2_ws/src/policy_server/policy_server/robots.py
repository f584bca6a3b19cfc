"""The robots that a policy node can be connected to, and whether a policy fits one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node_common.strict_yaml import BundleError, did_you_mean

from policy_server.deployment import Deployment


@dataclass(frozen=True)
class RobotSpec:
    """What a robot's controller accepts and reports.

    Attributes:
        action_space: name of the action space its controller takes.
        frame: frame of the action.
        action_names, action_units, action_low, action_high: entries of a command, with bounds.
        state_names, state_units: entries of the reported end-effector state.
        joint_names: of its `joint_states`.
        step_range_s: shortest and longest period of commands that its controller executes.
        max_observation_age_s: how old the observation behind a command may at most be [s].
        start_state: the state at its named pose `start`, gripper open.
    """

    name: str
    action_space: str
    frame: str
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    state_names: tuple[str, ...]
    state_units: tuple[str, ...]
    joint_names: tuple[str, ...]
    step_range_s: tuple[float, float]
    max_observation_age_s: float
    start_state: tuple[float, ...]

    def executes(self, step_s: float) -> bool:
        """Whether the controller takes commands with this period; never for NaN."""
        shortest_s, longest_s = self.step_range_s
        # A rate that went through a file or float32 is still the same rate.
        return shortest_s * (1 - 1e-6) <= step_s <= longest_s * (1 + 1e-6)


ROBOTS = {
    "wx250s": RobotSpec(
        name="wx250s",
        action_space="end_effector_delta",
        frame="base_link",
        action_names=("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"),
        action_units=("m", "m", "m", "rad", "rad", "rad", "opening"),
        action_low=(-0.05, -0.05, -0.05, -0.25, -0.25, -0.25, 0.0),
        action_high=(0.05, 0.05, 0.05, 0.25, 0.25, 0.25, 1.0),
        state_names=("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
        state_units=("m", "m", "m", "rad", "rad", "rad", "opening"),
        joint_names=(
            "waist",
            "shoulder",
            "elbow",
            "forearm_roll",
            "wrist_angle",
            "wrist_rotate",
            "gripper",
            "left_finger",
            "right_finger",
        ),
        step_range_s=(0.02, 2.0),
        max_observation_age_s=2.0,
        start_state=(0.299997, 0.0, 0.150004, 0.0, 3.67e-6, 0.0, 1.0),
    )
}


def check_robot(file: Path, deployment: Deployment, robot: str) -> RobotSpec:
    """Make sure that a policy's commands and inputs are ones the connected robot has.

    Args:
        file: the bundle's YAML, for messages.
        deployment: the bundle's deployment section.
        robot: name of the connected robot.

    Returns:
        The robot's specification.

    Raises:
        BundleError: the robot is unknown or differs from the bundle's, or an action or state
            entry, unit, frame or bound does not fit.
    """
    if robot not in ROBOTS:
        raise BundleError(
            "robot", "", repr(robot), f"one of {sorted(ROBOTS)}{did_you_mean(robot, ROBOTS)}"
        )
    spec = ROBOTS[robot]
    action = deployment.action

    def require(field: str, found: object, expected: object) -> None:
        if found != expected:
            raise BundleError(
                file, f"deployment.{field}", found, f"{expected}, which the robot {robot} has"
            )

    require("robot", deployment.robot, spec.name)
    require("action.space", action.space, spec.action_space)
    require("action.frame", action.frame, spec.frame)
    require("action.names", sorted(action.names), sorted(spec.action_names))
    for index, name in enumerate(action.names):
        own = spec.action_names.index(name)
        require(f"action.units of {name}", action.units[index], spec.action_units[own])
        low, high = spec.action_low[own], spec.action_high[own]
        # Bounds may come through float32.
        margin = 1e-6 * (high - low)
        if not (low - margin <= action.low[index] and action.high[index] <= high + margin):
            raise BundleError(
                file,
                f"deployment.action bounds of {name}",
                f"[{action.low[index]:g}, {action.high[index]:g}]",
                f"within [{low:g}, {high:g}], which the robot {robot} accepts",
            )
    if not action.max_observation_age_s <= spec.max_observation_age_s * (1 + 1e-6):
        raise BundleError(
            file,
            "deployment.action.max_observation_age_s",
            f"{action.max_observation_age_s:g}",
            f"at most {spec.max_observation_age_s:g}, which the robot {robot} accepts: execute "
            "fewer steps of a chunk",
        )
    if "gripper" in spec.action_names:
        require("action.gripper", (action.gripper_closed, action.gripper_open), (0.0, 1.0))
    units_of: dict[str, Mapping[str, str | None]] = {
        "end_effector_state": dict(zip(spec.state_names, spec.state_units, strict=True)),
        "joint_state": dict.fromkeys(spec.joint_names),
        "last_action": dict(zip(action.names, action.units, strict=True)),
    }
    for state in deployment.states:
        known = units_of.get(state.kind)
        if known is None:
            raise BundleError(
                file,
                f"deployment.observations {state.name}.kind",
                state.kind,
                f"one of {list(units_of)}, which the robot {robot} has",
            )
        for name, unit in zip(state.names, state.units, strict=True):
            if name not in known:
                raise BundleError(
                    file,
                    f"deployment.observations {state.name}.names",
                    name,
                    f"names out of {list(known)}, which the robot {robot} reports",
                )
            if known[name] is not None:
                require(f"observations {state.name}.units of {name}", unit, known[name])
    return spec
