"""Drive a robot over a topological map, by camera alone."""

from pathlib import Path

from base_drivers.robot_config import load_robot
from gnm_nav.base_graph import BASE_ARGUMENTS, base_problems, start_base
from gnm_nav.navigation_graph import (
    NAVIGATION_ARGUMENTS,
    bundle_directory,
    guard_node,
    navigator_node,
    path_follower_node,
    rviz_actions,
    text,
)
from graph_launch.launch_arguments import ArgumentError, LaunchArgument, check_arguments
from graph_launch.supervision import (
    bring_up,
    deactivate_and_end,
    declare,
    run_to_end,
    unless_running,
    when_all,
)
from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch_ros.actions import Node

ARGUMENTS = (
    *NAVIGATION_ARGUMENTS,
    *BASE_ARGUMENTS,
    LaunchArgument("map", "", "directory of the map"),
    LaunchArgument(
        "goal",
        "",
        'node, name, "last", or the path of a picture; empty: wait for goals of others',
        optional=True,
    ),
    LaunchArgument("timeout_s", "0", "time limit of the goal; 0: none", "number", 0.0, 1e6),
    LaunchArgument(
        "visualnav_topics",
        "false",
        "publish /waypoint and /topoplan/reached_goal for what listened to visualnav-transformer",
        "boolean",
    ),
    LaunchArgument(
        "camera_timeout_s", "0.2", "largest age of an image that is driven by", "number", 0.05, 5.0
    ),
)


def start_graph(context: LaunchContext) -> list:
    values = check_arguments(ARGUMENTS, context.launch_configurations)
    problems = base_problems(values)
    if not Path(values["map"]).expanduser().is_dir():
        problems.append(f"map is '{values['map']}'; expected the directory of a map")
    if problems:
        raise ArgumentError("\n".join(problems))
    robot = load_robot(values["robot"])
    bundle = bundle_directory(values["bundle"], __file__)
    navigator = navigator_node(
        values,
        bundle,
        str(Path(values["map"]).expanduser().absolute()),
        {},
        camera_timeout_s=values["camera_timeout_s"],
        visualnav_topics=values["visualnav_topics"],
    )
    when_active, later = [], []
    if values["goal"]:
        goal = Node(
            package="gnm_nav",
            executable="send_goal",
            name="send_goal",
            output="screen",
            parameters=[{"goal": text(values["goal"]), "timeout_s": values["timeout_s"]}],
        )
        all_done = deactivate_and_end(navigator, "the goal is reached")
        when_active, later = run_to_end(goal, "send_goal", all_done), [goal]
    is_active = when_all(["navigator", "path_follower", "guard"], when_active)
    actions = [
        *start_base(values, robot),
        *bring_up(guard_node(values, robot, {}), "cmd_vel_guard", when_active=is_active("guard")),
        *bring_up(
            path_follower_node(values, robot, {}),
            "path_follower",
            when_active=is_active("path_follower"),
        ),
        *bring_up(navigator, "navigator", when_active=is_active("navigator")),
        *rviz_actions(values, {}),
    ]
    return unless_running(context, actions, later)


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*declare(ARGUMENTS), OpaqueFunction(function=start_graph)])
