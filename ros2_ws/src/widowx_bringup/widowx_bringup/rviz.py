"""The arm in RViz: its frames and, where it is installed, RViz itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch import Action
from launch.actions import LogInfo
from launch_ros.actions import Node

from widowx_bringup.arm import arm_namespace, clock_parameters, state_publisher


def rviz_actions(
    values: Mapping[str, Any], config: str, remappings: Iterable[tuple[str, str]] = ()
) -> list[Action]:
    """Publish the simulated arm's frames and open RViz; without RViz, say so.

    Every driver comes with the publisher of its arm's frames.

    Args:
        values: checked values of `ARM_ARGUMENTS`.
        config: name of a file in `rviz/`.
        remappings: topics in the file and what they are called here, besides the arm's own.
    """
    arm, clock = arm_namespace(values), clock_parameters(values)
    actions: list[Action] = []
    if values["arm"] == "sim":
        actions += state_publisher(values)
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        message = (
            "use_rviz: found no package rviz2, so no window is opened; frames and markers are "
            "published. RViz comes with a full ROS 2 installation; viewer:=web needs none"
        )
        return [*actions, LogInfo(msg=message)]
    file = Path(get_package_share_directory("widowx_bringup")) / "rviz" / config
    window = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz2",
        arguments=["-d", str(file)],
        parameters=[clock],
        remappings=[("/wx250s/robot_description", f"{arm}/robot_description"), *remappings],
    )
    # Not supervised: who closes the window does not end the run.
    return [*actions, window]
