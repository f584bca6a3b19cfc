"""The arm: its controller and, when it is simulated, the simulation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch import Action
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue

from widowx_bringup.launch_arguments import LaunchArgument
from widowx_bringup.supervision import bring_up, run

ARM_ARGUMENTS = (
    LaunchArgument(
        "sim", "true", "true: simulated arm and camera; false: a running arm driver", "boolean"
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
        "rtf", "1.0", "real-time factor of the simulation", "number", low=0.1, high=20.0
    ),
    LaunchArgument("namespace", "wx250s", "namespace of the arm, as given to its driver"),
)
"""Arguments that each launch file with an arm has."""


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
    """Parameters that put a node on simulated time, when that is not the wall's."""
    return {"use_sim_time": bool(values["sim"]) and values["rtf"] != 1.0}


def arm_controller(values: Mapping[str, Any]) -> LifecycleNode:
    """The arm's controller, not started yet; `values` as for `arm_actions`."""
    return LifecycleNode(
        package="widowx_control",
        executable="arm_controller",
        name="arm_controller",
        namespace=arm_namespace(values),
        parameters=[config_file("arm_controller.yaml"), clock_parameters(values)],
    )


def arm_actions(
    values: Mapping[str, Any], controller: LifecycleNode, when_active: list[Action]
) -> list[Action]:
    """Bring up the arm controller and, for `sim:=true`, the simulated arm and camera.

    Args:
        values: checked values of `ARM_ARGUMENTS`.
        controller: from `arm_controller`.
        when_active: actions for when the controller takes commands.
    """
    actions: list[Action] = []
    if values["sim"]:
        simulation = Node(
            package="robot_sim",
            executable="robot_sim",
            name="robot_sim",
            namespace=arm_namespace(values),
            parameters=[
                config_file("robot_sim.yaml"),
                {
                    "rtf": values["rtf"],
                    "viewer": "window" if values["viewer"] == "window" else "none",
                },
            ],
        )
        actions += run(simulation, "robot_sim")
    return actions + bring_up(controller, "arm_controller", when_active)
