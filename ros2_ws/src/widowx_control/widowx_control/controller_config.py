"""Parameters of the arm controller: names, defaults, ranges, and the frozen configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from node_common.parameters import NodeParameter, ParameterError

from widowx_control.arm_control import ArmControlConfig
from widowx_control.bridge_spaces import ROBOT
from widowx_control.gripper import GripperConfig
from widowx_control.kinematics import (
    JOINT_LOWER_RAD,
    JOINT_NAMES,
    JOINT_UPPER_RAD,
    JOINT_VELOCITY_RAD_S,
    NAMED_POSES,
)

NAMED_POSE_PREFIX: Final = "named_poses."


_CONTROL = ArmControlConfig()
_GRIPPER = GripperConfig()

PARAMETERS: Final = (
    NodeParameter("base_frame", "base_link", "Frame of commands and of the published state"),
    NodeParameter("rate_hz", 50.0, "Rate of commands/joint_group", 50.0, 200.0),
    NodeParameter(
        "interpolation_fraction",
        _CONTROL.interpolation_fraction,
        "Part of a command's period within which the target moves to the new pose",
        0.1,
        1.0,
    ),
    NodeParameter(
        "command_timeout_periods",
        _CONTROL.command_timeout_periods,
        "The arm holds when no command came for this many periods",
        1.0,
        2.0,
    ),
    NodeParameter(
        "command_max_age_s",
        0.4,
        "Oldest observation of a command that does not say its own limit",
        0.02,
        ROBOT.max_observation_age_s,
    ),
    NodeParameter(
        "command_max_lateness_s",
        0.25,
        "How long after its time (execute_at) a command may still be executed",
        0.02,
        2.0,
    ),
    NodeParameter("future_tolerance_s", 0.1, "How far a stamp may be ahead of the clock", 0.0, 0.5),
    NodeParameter(
        "joint_states_timeout_s",
        0.25,
        "Fault when no usable joint_states came for this long",
        0.03,
        2.0,
    ),
    NodeParameter(
        "workspace_low_m",
        list(_CONTROL.workspace_low_m),
        "Lower corner x y z for ee_gripper_link in base_link",
    ),
    NodeParameter(
        "workspace_high_m",
        list(_CONTROL.workspace_high_m),
        "Upper corner x y z for ee_gripper_link in base_link",
    ),
    NodeParameter(
        "max_position_error_m",
        _CONTROL.max_position_error_m,
        "Bound on commanded minus measured position",
        0.005,
        0.3,
    ),
    NodeParameter(
        "max_rotation_error_rad",
        _CONTROL.max_rotation_error_rad,
        "Bound on commanded minus measured rotation",
        0.02,
        1.5,
    ),
    NodeParameter(
        "max_joint_step_rad",
        _CONTROL.max_joint_step_rad,
        "Furthest that one command moves a joint",
        0.05,
        1.5,
    ),
    NodeParameter(
        "joint_limit_margin_rad",
        _CONTROL.joint_limit_margin_rad,
        "Distance kept from the joint limits",
        0.0,
        0.3,
    ),
    NodeParameter(
        "max_joint_speed_rad_s",
        _CONTROL.max_joint_speed_rad_s,
        "Speed limit of the streamed joint positions",
        0.05,
        float(JOINT_VELOCITY_RAD_S.min()),
    ),
    NodeParameter(
        "max_joint_error_rad",
        _CONTROL.max_joint_error_rad,
        "A named-pose motion waits while a joint lags more than this",
        0.05,
        1.5,
    ),
    NodeParameter("gripper_max_pwm", _GRIPPER.max_pwm, "Largest gripper PWM, of 885", 0.0, 885.0),
    NodeParameter(
        "gripper_holding_pwm",
        _GRIPPER.holding_pwm,
        "Largest gripper PWM while the fingers are blocked",
        0.0,
        885.0,
    ),
    NodeParameter(
        "gripper_inactive_pwm",
        120.0,
        "PWM that keeps a closed gripper closed after deactivation; 0 lets go",
        0.0,
        350.0,
    ),
    NodeParameter(
        "move_duration_s", 1.5, "Duration of a named-pose motion whose goal says 0", 0.2, 20.0
    ),
    NodeParameter(
        "arrival_tolerance_rad",
        0.1,
        "A named pose is reached when every joint is within this",
        0.01,
        0.5,
    ),
    NodeParameter(
        "arrival_timeout_s",
        2.0,
        "Time for arriving after the planned end of a named-pose motion",
        0.1,
        20.0,
    ),
    NodeParameter(
        "profile_velocity",
        0,
        "Servo register Profile_Velocity while active; 0: follow the stream directly",
        0,
        32767,
    ),
    NodeParameter(
        "profile_acceleration", 0, "Servo register Profile_Acceleration while active", 0, 32767
    ),
    NodeParameter(
        "sag_compensation",
        False,
        "Goals make up for what the servos' P gain gives way under the arm's weight and trails "
        "while they move, within max_servo_load; not for servos with an I gain or for the "
        "simulated arm",
    ),
    NodeParameter(
        "max_servo_load",
        _CONTROL.max_servo_load,
        "With sag_compensation: part of a servo's stall torque that a goal may ask for",
        0.2,
        1.0,
    ),
    NodeParameter(
        "driver_timeout_s",
        5.0,
        "Time for the driver's services and its first joint_states",
        0.1,
        120.0,
    ),
    NodeParameter(
        "discovery_s",
        1.0,
        "Time given to DDS discovery before looking for other controllers",
        0.0,
        30.0,
    ),
)


@dataclass(frozen=True)
class ControllerConfig:
    """Checked configuration of the arm controller node. Units are in the names."""

    control: ArmControlConfig
    named_poses: Mapping[str, tuple[float, ...]]
    base_frame: str
    rate_hz: float
    command_max_age_s: float
    command_max_lateness_s: float
    future_tolerance_s: float
    joint_states_timeout_s: float
    gripper_inactive_pwm: float
    move_duration_s: float
    arrival_tolerance_rad: float
    arrival_timeout_s: float
    profile_velocity: int
    profile_acceleration: int
    sag_compensation: bool
    driver_timeout_s: float
    discovery_s: float


def named_pose_parameters(extra: Iterable[str] = ()) -> tuple[NodeParameter, ...]:
    """Return the parameters `named_poses.<name>`: the robot's own, and those in `extra`."""
    poses: dict[str, Any] = {name: list(joints) for name, joints in NAMED_POSES.items()}
    for name in extra:
        poses.setdefault(name.removeprefix(NAMED_POSE_PREFIX), [0.0] * len(JOINT_NAMES))
    description = f"Joint angles rad: {' '.join(JOINT_NAMES)}"
    return tuple(
        NodeParameter(NAMED_POSE_PREFIX + name, joints, description)
        for name, joints in poses.items()
    )


def config_from_values(values: Mapping[str, Any]) -> ControllerConfig:
    """Check parameter values and freeze them.

    Args:
        values: a value for every name of `PARAMETERS`, and `named_poses.<name>`.

    Raises:
        ParameterError: they do not fit together; the message names the parameter.
    """
    try:
        control = ArmControlConfig(
            interpolation_fraction=values["interpolation_fraction"],
            command_timeout_periods=values["command_timeout_periods"],
            workspace_low_m=tuple(values["workspace_low_m"]),
            workspace_high_m=tuple(values["workspace_high_m"]),
            max_position_error_m=values["max_position_error_m"],
            max_rotation_error_rad=values["max_rotation_error_rad"],
            max_joint_step_rad=values["max_joint_step_rad"],
            joint_limit_margin_rad=values["joint_limit_margin_rad"],
            max_joint_speed_rad_s=values["max_joint_speed_rad_s"],
            max_joint_error_rad=values["max_joint_error_rad"],
            max_servo_load=values["max_servo_load"],
            gripper=GripperConfig(
                max_pwm=values["gripper_max_pwm"], holding_pwm=values["gripper_holding_pwm"]
            ),
        )
    except ValueError as error:
        raise ParameterError(f"parameter {error}") from error
    poses = {
        name.removeprefix(NAMED_POSE_PREFIX): _named_pose(name, joints)
        for name, joints in values.items()
        if name.startswith(NAMED_POSE_PREFIX)
    }
    plain = {
        name: values[name]
        for name in ControllerConfig.__dataclass_fields__
        if name not in ("control", "named_poses")
    }
    return ControllerConfig(control=control, named_poses=poses, **plain)


def _named_pose(name: str, joints: Any) -> tuple[float, ...]:
    q = np.asarray(joints, dtype=np.float64)
    if q.shape != (len(JOINT_NAMES),) or not np.isfinite(q).all():
        raise ParameterError(
            f"parameter {name}: found {list(joints)}, expected {len(JOINT_NAMES)} finite angles"
        )
    outside = (q < JOINT_LOWER_RAD) | (q > JOINT_UPPER_RAD)
    if outside.any():
        i = int(np.flatnonzero(outside)[0])
        raise ParameterError(
            f"parameter {name}: found {JOINT_NAMES[i]} = {q[i]} rad, expected "
            f"{JOINT_LOWER_RAD[i]} to {JOINT_UPPER_RAD[i]}"
        )
    return tuple(float(v) for v in q)
