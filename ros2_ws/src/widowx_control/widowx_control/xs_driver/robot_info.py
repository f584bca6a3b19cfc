"""Answers to get_robot_info, as Interbotix's driver gives them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field

from widowx_control.gripper import finger_distance_m
from widowx_control.xs_driver.configuration import ArmConfiguration, Mode
from widowx_control.xs_driver.units import rad_from_ticks


@dataclass(frozen=True)
class JointLimits:
    """Limits of a joint, rad or m and their rates."""

    lower: float
    upper: float
    velocity: float


@dataclass
class RobotInfo:
    """Fields of interbotix_xs_msgs/srv/RobotInfo; lists are per joint, in the group's order."""

    mode: str
    profile_type: str
    joint_names: list[str] = field(default_factory=list)
    joint_ids: list[int] = field(default_factory=list)
    joint_lower_limits: list[float] = field(default_factory=list)
    joint_upper_limits: list[float] = field(default_factory=list)
    joint_velocity_limits: list[float] = field(default_factory=list)
    joint_sleep_positions: list[float] = field(default_factory=list)
    joint_state_indices: list[int] = field(default_factory=list)
    name: list[str] = field(default_factory=list)


def limits_from_urdf(text: str) -> dict[str, JointLimits]:
    """Return the limits of every joint of a URDF that has some.

    Raises:
        ValueError: the text is not XML, or a limit is not a number.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"robot_description is not XML: {error}") from error
    limits = {}
    for joint in root.findall("joint"):
        limit = joint.find("limit")
        if limit is None or "lower" not in limit.attrib:
            continue
        limits[joint.attrib["name"]] = JointLimits(
            float(limit.attrib["lower"]),
            float(limit.attrib["upper"]),
            float(limit.attrib.get("velocity", "0")),
        )
    return limits


def robot_info(
    configuration: ArmConfiguration,
    urdf_limits: Mapping[str, JointLimits],
    cmd_type: str,
    name: str,
    mode: Mode,
) -> RobotInfo:
    """Describe a group or a motor. Grippers appear as their left finger, in m.

    A joint that the URDF lacks, such as a shadow, gets the position limits of its servo.

    Raises:
        KeyError: unknown cmd_type or name.
    """
    order = configuration.joint_names()
    info = RobotInfo(mode.operating_mode, mode.profile_type)
    for motor in configuration.motors_of(cmd_type, name):
        gripper = configuration.grippers.get(motor)
        joint = gripper.left_finger if gripper else motor
        entry = configuration.motors[motor]
        limits = urdf_limits.get(joint)
        if limits is None:
            low = entry.eeprom.get("Min_Position_Limit", 0)
            high = entry.eeprom.get("Max_Position_Limit", 4095)
            limits = JointLimits(rad_from_ticks(low), rad_from_ticks(high), 0.0)
        info.joint_names.append(joint)
        info.joint_ids.append(entry.servo_id)
        info.joint_lower_limits.append(limits.lower)
        info.joint_upper_limits.append(limits.upper)
        info.joint_velocity_limits.append(limits.velocity)
        sleep = configuration.sleep_positions_rad.get(motor, 0.0)
        info.joint_sleep_positions.append(finger_distance_m(0.0) if gripper else sleep)
        info.joint_state_indices.append(order.index(joint) if joint in order else -1)
    if cmd_type == "group" and name == "all":
        info.name = ["all", *(group for group in configuration.groups if group != "all")]
    else:
        info.name = [name]
    return info
