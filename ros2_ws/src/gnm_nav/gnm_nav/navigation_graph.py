"""The nodes of navigation, as the launch files start them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from base_drivers.robot_config import RobotConfig
from base_drivers.velocity import STREAM_TIMEOUT_S
from graph_launch.launch_arguments import LaunchArgument
from launch import Action
from launch.actions import LogInfo
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
from policy_server.bundle import find_bundle, model_search_path

SCAN_POSE = (
    ("scan_x_m", "scanner before base_link", 10.0),
    ("scan_y_m", "scanner to the left of base_link", 10.0),
    ("scan_yaw_rad", "direction of the scanner's x axis", 3.1416),
    ("scan_roll_rad", "scanner upside down: 3.1416", 3.1416),
    ("scan_pitch_rad", "scanner that looks down: positive", 3.1416),
)
NAVIGATION_ARGUMENTS = (
    LaunchArgument("robot", "locobot", "robot of config/robots, or the path of a YAML file"),
    LaunchArgument("bundle", "gnm_sim", "navigation model: a directory, or a name in models/"),
    LaunchArgument("provider", "fastest", "computes the model: fastest, cpu, cuda, …"),
    LaunchArgument("camera_topic", "/camera/image_raw", "images to drive by"),
    LaunchArgument(
        "image_transport",
        "raw",
        "raw: images on camera_topic; compressed: on camera_topic/compressed, of a real camera",
        "choice",
        choices=("raw", "compressed"),
    ),
    LaunchArgument(
        "scan",
        "false",
        "the guard stops before what a laser scanner on `scan` sees",
        "boolean",
    ),
    *(
        LaunchArgument(
            name, "0", f"{what}; all of scan_* 0: as /tf_static says", "number", -limit, limit
        )
        for name, what, limit in SCAN_POSE
    ),
    LaunchArgument(
        "use_rviz", "false", "open RViz with map, belief and path, where it is installed", "boolean"
    ),
)
"""Arguments that each launch file of navigation has."""

NAVIGATOR = "navigator"


def text(value: str) -> ParameterValue:
    """A parameter that is a text also when it looks like a number."""
    return ParameterValue(value, value_type=str)


def bundle_directory(name: str, launch_file: str) -> Path:
    """The bundle's directory, wherever the launch was started.

    Raises:
        node_common.strict_yaml.BundleError: there is none.
    """
    # A symlinked build leaves the launch file in the source tree, an ordinary one does not; the
    # installation prefix is inside the workspace with both.
    start_points = [
        Path.cwd(),
        Path(get_package_prefix("gnm_nav")),
        Path(launch_file).resolve(),
    ]
    return find_bundle(name, model_search_path(os.environ, start_points)).parent


def clock_parameters(rtf: float) -> dict[str, Any]:
    """Parameters of every node beside a simulation: its clock, unless that is the system's."""
    return {"use_sim_time": True} if rtf != 1.0 else {}


def navigator_node(
    values: Mapping[str, Any],
    bundle: Path,
    map_path: str,
    clock: Mapping[str, Any],
    **parameters: Any,
) -> LifecycleNode:
    """The navigator.

    Args:
        values: checked values of `NAVIGATION_ARGUMENTS`.
        bundle: directory of the model.
        map_path: directory of the map, empty: none yet.
        clock: see `clock_parameters`.
        parameters: others of the node.
    """
    return LifecycleNode(
        package="gnm_nav",
        executable="navigator_node",
        name=NAVIGATOR,
        namespace="",
        parameters=[
            {
                "bundle": text(str(bundle)),
                "map": text(map_path),
                "robot": text(values["robot"]),
                "provider": text(values["provider"]),
                "image_transport": text(values["image_transport"]),
                **parameters,
                **clock,
            }
        ],
        remappings=[
            ("camera/image_raw", values["camera_topic"]),
            ("camera/image_raw/compressed", f"{values['camera_topic']}/compressed"),
        ],
    )


def path_follower_node(
    values: Mapping[str, Any], robot: RobotConfig, clock: Mapping[str, Any]
) -> LifecycleNode:
    """The path follower."""
    return LifecycleNode(
        package="gnm_nav",
        executable="path_follower_node",
        name="path_follower",
        namespace="",
        parameters=[{"robot": text(values["robot"]), **clock}],
        remappings=_without_bumper(robot),
    )


def guard_node(
    values: Mapping[str, Any], robot: RobotConfig, clock: Mapping[str, Any]
) -> LifecycleNode:
    """The guard between the path follower and the base."""
    length, width, _ = robot.body_size_m
    return LifecycleNode(
        package="base_drivers",
        executable="cmd_vel_guard",
        name="cmd_vel_guard",
        namespace="",
        parameters=[
            {
                "command_timeout_s": STREAM_TIMEOUT_S,
                "stamped_input": robot.stamped,
                "stamped_output": robot.stamped,
                "max_linear_m_s": robot.max_linear_m_s,
                "max_lateral_m_s": robot.max_lateral_m_s,
                "max_angular_rad_s": robot.max_angular_rad_s,
                # Looser than the path follower's: two equal limits in a row cost time twice.
                "max_linear_acceleration_m_s2": 1.5 * robot.max_linear_acceleration_m_s2,
                "max_angular_acceleration_rad_s2": 1.5 * robot.max_angular_acceleration_rad_s2,
                "min_turning_radius_m": robot.min_turning_radius_m,
                "scan_required": values["scan"],
                **{name: values[name] for name, *_ in SCAN_POSE},
                "contacts_required": robot.bumper,
                "footprint_front_m": length / 2.0,
                "footprint_rear_m": length / 2.0,
                "footprint_width_m": width,
                **clock,
            }
        ],
        remappings=_without_bumper(robot),
    )


def _without_bumper(robot: RobotConfig) -> list[tuple[str, str]]:
    """What a robot without a bumper does not feel, nobody must hear of."""
    return [] if robot.bumper else [("contacts", "no_contacts")]


def rviz_actions(values: Mapping[str, Any], clock: Mapping[str, Any]) -> Iterable[Action]:
    """Open RViz; where it is not installed, say so."""
    if not values["use_rviz"]:
        return []
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        message = (
            "use_rviz: found no package rviz2, so no window is opened; markers, paths and the "
            "annotated image are published. RViz comes with a full ROS 2 installation"
        )
        return [LogInfo(msg=message)]
    file = Path(get_package_share_directory("gnm_nav")) / "rviz" / "navigation.rviz"
    # Not supervised: who closes the window does not end the run.
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            name="rviz2",
            arguments=["-d", str(file)],
            parameters=[dict(clock)],
            remappings=[("/camera/image_raw", values["camera_topic"])],
        )
    ]
