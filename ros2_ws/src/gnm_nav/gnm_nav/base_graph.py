"""The base and the camera of a real robot, as the launch files start them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from base_drivers.kobuki import DEFAULT_PORT, UDEV_RULE
from base_drivers.robot_config import RobotConfig
from graph_launch.devices import camera_problem, serial_port_problem
from graph_launch.launch_arguments import LaunchArgument
from graph_launch.supervision import bring_up
from launch import Action
from launch_ros.actions import LifecycleNode

from gnm_nav.navigation_graph import text

BASE_ARGUMENTS = (
    LaunchArgument(
        "base",
        "none",
        "driver to start: kobuki, go2; none: one that listens to cmd_vel runs already",
        "choice",
        choices=("none", "kobuki", "go2"),
    ),
    LaunchArgument("port", "", "serial port of base:=kobuki; empty: /dev/kobuki", optional=True),
    LaunchArgument(
        "camera",
        "",
        "camera to start: device, stream URL, video file or image folder; empty: none",
        optional=True,
    ),
)


def base_problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with arguments that are right one by one, a line each."""
    problems: list[str | None] = []
    if values["port"] and values["base"] != "kobuki":
        problems.append(f"port is for base:=kobuki; found base:={values['base']}")
    if values["camera"] and values["camera_topic"] != "/camera/image_raw":
        problems.append("camera starts one on /camera/image_raw; found another camera_topic, too")
    if values["base"] == "kobuki":
        problems.append(serial_port_problem("port", values["port"] or DEFAULT_PORT, UDEV_RULE))
    if values["camera"]:
        problems.append(camera_problem("camera", values["camera"]))
    return [problem for problem in problems if problem]


def start_base(values: Mapping[str, Any], robot: RobotConfig) -> list[Action]:
    """Actions that start the driver and the camera that were asked for."""
    actions: list[Action] = []
    if values["base"] != "none":
        limits = {
            "max_linear_m_s": robot.max_linear_m_s,
            "max_angular_rad_s": robot.max_angular_rad_s,
        }
        own: dict[str, Any] = {}
        if values["base"] == "go2":
            own["max_lateral_m_s"] = robot.max_lateral_m_s
        elif values["port"]:
            own["port"] = text(values["port"])
        name = f"{values['base']}_driver"
        driver = LifecycleNode(
            package="base_drivers",
            executable=name,
            name=name,
            namespace="",
            output="screen",
            parameters=[{"stamped": robot.stamped, **limits, **own}],
        )
        actions += bring_up(driver, name, when_active=[])
    if values["camera"]:
        camera = LifecycleNode(
            package="camera_drivers",
            executable="camera_driver",
            name="camera_driver",
            namespace="/camera",
            output="screen",
            parameters=[{"source": text(values["camera"])}],
        )
        actions += bring_up(camera, "camera_driver", when_active=[])
    return actions
