"""Drive a robot without a map and without a goal, by camera alone; needs a NoMaD model."""

from base_drivers.robot_config import load_robot
from gnm_nav.base_graph import BASE_ARGUMENTS, base_problems, start_base
from gnm_nav.navigation_graph import (
    NAVIGATION_ARGUMENTS,
    bundle_directory,
    guard_node,
    navigator_node,
    path_follower_node,
    rviz_actions,
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
    LaunchArgument("duration_s", "60", "how long; 0: until interrupted", "number", 0.0, 1e6),
    LaunchArgument("seed", "0", "of the model's noise", "integer", 0, 2_000_000_000),
    LaunchArgument(
        "camera_timeout_s", "0.2", "largest age of an image that is driven by", "number", 0.05, 5.0
    ),
)


def start_graph(context: LaunchContext) -> list:
    values = check_arguments(ARGUMENTS, context.launch_configurations)
    problems = base_problems(values)
    if problems:
        raise ArgumentError("\n".join(problems))
    robot = load_robot(values["robot"])
    bundle = bundle_directory(values["bundle"], __file__)
    navigator = navigator_node(values, bundle, "", {}, camera_timeout_s=values["camera_timeout_s"])
    sender = Node(
        package="gnm_nav",
        executable="send_goal",
        name="send_goal",
        output="screen",
        parameters=[{"goal": "", "timeout_s": values["duration_s"], "seed": values["seed"]}],
    )
    all_done = deactivate_and_end(navigator, "the time is over")
    is_active = when_all(
        ["navigator", "path_follower", "guard"], run_to_end(sender, "send_goal", all_done)
    )
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
    return unless_running(context, actions, later=[sender])


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*declare(ARGUMENTS), OpaqueFunction(function=start_graph)])
