"""The arm: its controller, its guard and what they speak to, a simulation or a driver of servos."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import widowx_description
from ament_index_python.packages import get_package_share_directory
from graph_launch.devices import camera_problem, serial_port_problem
from graph_launch.launch_arguments import LaunchArgument
from graph_launch.supervision import bring_up, run
from launch import Action
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
from widowx_control.xs_driver.configuration import load_configuration
from widowx_control.xs_driver.package_files import default_modes, default_motors

ARM_ARGUMENTS = (
    LaunchArgument(
        "arm",
        "sim",
        "sim: simulated arm and camera; emulated: the same behind an emulated servo bus and the "
        "driver of a real arm; serial: a real arm on a serial port; xs_sdk: a running driver",
        "choice",
        choices=("sim", "emulated", "serial", "xs_sdk"),
    ),
    LaunchArgument(
        "port",
        "",
        "serial port of arm:=serial, empty: /dev/ttyDXL; or the link to make for arm:=emulated",
        optional=True,
    ),
    LaunchArgument(
        "camera",
        "",
        "camera of a real arm: device, stream URL, video file or image folder; empty: none is "
        "started",
        optional=True,
    ),
    LaunchArgument(
        "viewer",
        "none",
        "how to watch: window (of the simulation), web (page on this machine) or none",
        "choice",
        choices=("none", "window", "web"),
    ),
    LaunchArgument(
        "use_rviz",
        "false",
        "publish frames and markers for RViz, and open it where it is installed",
        "boolean",
    ),
    LaunchArgument(
        "rtf", "1.0", "real-time factor of the simulation, at most", "number", low=0.1, high=20.0
    ),
    LaunchArgument(
        "camera_rate_hz",
        "0",
        "images per second of the simulated camera, drawn by the CPU; 0: 30, with arm:=emulated "
        "15, as that has to keep real time",
        "number",
        low=0.0,
        high=60.0,
    ),
    LaunchArgument("namespace", "wx250s", "namespace of the arm, as given to its driver"),
    LaunchArgument(
        "guard",
        "auto",
        "commands reach the driver through arm_guard: limits, collisions, emergency stop; auto: "
        "with a real arm",
        "choice",
        choices=("auto", "true", "false"),
    ),
)
"""Arguments that each launch file with an arm has."""

_GUARDED = [
    ("commands/joint_group", "guarded/joint_group"),
    ("commands/joint_single", "guarded/joint_single"),
]
"""Remappings that put the guard between a controller and the driver."""


def is_simulated(values: Mapping[str, Any]) -> bool:
    """Whether arm and camera are simulated; `values` are checked values of `ARM_ARGUMENTS`."""
    return values["arm"] in ("sim", "emulated")


def has_simulated_clock(values: Mapping[str, Any]) -> bool:
    """Whether the simulation has a clock of its own, which waits when the computer is slow."""
    return values["arm"] == "sim" and (values["rtf"] != 1.0 or not values.get("real_time", True))


def camera_rate_hz(values: Mapping[str, Any]) -> float:
    """Images per second of the simulated camera."""
    if values["camera_rate_hz"] > 0.0:
        return float(values["camera_rate_hz"])
    return 15.0 if values["arm"] == "emulated" else 30.0


def is_guarded(values: Mapping[str, Any]) -> bool:
    """Whether arm_guard stands between the controller and the driver."""
    if values["guard"] == "auto":
        return not is_simulated(values)
    return bool(values["guard"] == "true")


def has_own_driver(values: Mapping[str, Any]) -> bool:
    """Whether the launch starts the driver of the arm's servos."""
    return values["arm"] in ("emulated", "serial")


def arm_problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with arguments that are right one by one, a line each."""
    arm = values["arm"]
    problems: list[str | None] = []
    if not re.fullmatch(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", values["namespace"]):
        problems.append(f"namespace is '{values['namespace']}'; expected a ROS name like wx250s")
    if not is_simulated(values) and values["viewer"] == "window":
        problems.append(f"viewer:=window shows the simulation; use viewer:=web with arm:={arm}")
    if arm != "sim" and values["rtf"] != 1.0:
        problems.append(f"rtf is for arm:=sim; arm:={arm} keeps real time")
    if values["camera_rate_hz"] and not is_simulated(values):
        problems.append(f"camera_rate_hz is for a simulated camera; arm:={arm} has a real one")
    if 0.0 < values["camera_rate_hz"] < 1.0:
        problems.append(f"camera_rate_hz is {values['camera_rate_hz']:g}; expected 1 to 60, or 0")
    if values["port"] and not has_own_driver(values):
        problems.append(f"port is for arm:=serial and arm:=emulated; arm:={arm} opens no port")
    if values["camera"] and is_simulated(values):
        problems.append(f"camera is for a real arm; arm:={arm} comes with a simulated camera")
    if arm == "serial":
        port = values["port"] or load_configuration(default_motors(), default_modes()).port
        rule = "README.md, Use a real arm, Once per computer"
        problems.append(serial_port_problem("port", port, rule))
    if values["camera"]:
        problems.append(camera_problem("camera", values["camera"]))
    return [problem for problem in problems if problem]


def config_file(name: str) -> str:
    """Path of an installed configuration file."""
    return str(Path(get_package_share_directory("widowx_bringup")) / "config" / name)


def text(value: str) -> ParameterValue:
    """A string parameter; without this launch_ros reads texts as YAML: `5` would be a number."""
    return ParameterValue(value, value_type=str)


def arm_namespace(values: Mapping[str, Any]) -> str:
    """The arm's namespace with one leading slash."""
    return "/" + str(values["namespace"]).strip("/")


def clock_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that put a node on simulated time, when that is not the system's."""
    return {"use_sim_time": has_simulated_clock(values)}


def arm_controller(values: Mapping[str, Any]) -> LifecycleNode:
    """The arm's controller, not started yet; `values` as for `arm_actions`."""
    return LifecycleNode(
        package="widowx_control",
        executable="arm_controller",
        name="arm_controller",
        namespace=arm_namespace(values),
        parameters=[
            config_file("arm_controller.yaml"),
            # Real servos give way under the arm's weight, and so do the emulated ones.
            {"sag_compensation": values["arm"] != "sim", **clock_parameters(values)},
        ],
        remappings=_GUARDED if is_guarded(values) else [],
    )


def state_publisher(values: Mapping[str, Any]) -> list[Action]:
    """Publish the arm's description and its frames."""
    urdf = widowx_description.urdf_text(meshes=widowx_description.mesh_uri())
    frames = Node(
        package="robot_state_publisher",
        executable="robot_state_publisher",
        name="robot_state_publisher",
        namespace=arm_namespace(values),
        parameters=[{"robot_description": text(urdf), **clock_parameters(values)}],
    )
    return run(frames, "robot_state_publisher")


def arm_actions(
    values: Mapping[str, Any], controller: LifecycleNode, when_active: list[Action]
) -> list[Action]:
    """Bring up the arm controller, its guard and what `arm:=` names: simulation, driver, camera.

    Args:
        values: checked values of `ARM_ARGUMENTS`.
        controller: from `arm_controller`.
        when_active: actions for when the controller takes commands.
    """
    actions: list[Action] = []
    port = values["port"]
    if values["arm"] == "emulated" and not port:
        name = f"{arm_namespace(values).strip('/').replace('/', '_')}_{os.getpid()}.ttyDXL"
        port = str(Path(tempfile.gettempdir()) / name)
    if is_simulated(values):
        actions += _simulation(values, port)
    if has_own_driver(values):
        actions += [*_driver(values, port), *state_publisher(values)]
    if values["camera"]:
        actions += _camera(values)
    if is_guarded(values):
        actions += _guard(values)
    return actions + bring_up(controller, "arm_controller", when_active)


def _guard(values: Mapping[str, Any]) -> list[Action]:
    guard = Node(
        package="widowx_control",
        executable="arm_guard",
        name="arm_guard",
        namespace=arm_namespace(values),
        output="screen",
        parameters=[config_file("arm_guard.yaml"), clock_parameters(values)],
    )
    return run(guard, "arm_guard")


def _simulation(values: Mapping[str, Any], port: str | None) -> list[Action]:
    bus = {}
    if values["arm"] == "emulated":
        bus = {"servo_bus": text(str(port)), "servo_bus_control": text(f"{port}.control")}
    simulation = Node(
        package="robot_sim",
        executable="robot_sim",
        name="robot_sim",
        namespace=arm_namespace(values),
        parameters=[
            {
                "rtf": values["rtf"],
                "camera_rate_hz": camera_rate_hz(values),
                "simulated_clock": has_simulated_clock(values),
                "viewer": "window" if values["viewer"] == "window" else "none",
                **bus,
            },
        ],
    )
    return run(simulation, "robot_sim")


def _driver(values: Mapping[str, Any], port: str | None) -> list[Action]:
    driver = Node(
        package="widowx_control",
        executable="xs_driver",
        name="xs_driver",
        namespace=arm_namespace(values),
        output="screen",
        parameters=[{"port": text(port or "")}],
    )
    return run(driver, "xs_driver")


def _camera(values: Mapping[str, Any]) -> list[Action]:
    camera = LifecycleNode(
        package="camera_drivers",
        executable="camera_driver",
        name="camera_driver",
        namespace="/camera",
        output="screen",
        parameters=[{"source": text(values["camera"])}],
    )
    return bring_up(camera, "camera_driver", when_active=[])
