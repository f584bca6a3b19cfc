"""Drive a simulated robot over a map of a simulated world, and report how well it does."""

import shlex
import sys
from pathlib import Path

from base_drivers.robot_config import load_robot
from gnm_nav.navigation_graph import (
    NAVIGATION_ARGUMENTS,
    bundle_directory,
    clock_parameters,
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
    run,
    run_to_end,
    unless_running,
    when_all,
)
from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch_ros.actions import Node

ARGUMENTS = (
    *NAVIGATION_ARGUMENTS,
    LaunchArgument(
        "goal", "", 'node, name or "last"; empty: the end of the mapped way', optional=True
    ),
    LaunchArgument(
        "map",
        "",
        "map that an earlier run kept with keep_map; empty: a drive of the expert makes one",
        optional=True,
    ),
    LaunchArgument("keep_map", "", "directory to keep the maps in; empty: nowhere", optional=True),
    LaunchArgument(
        "task",
        "reach",
        "reach; kidnapped: the driving robot is put elsewhere; blocked: the shorter of two ways "
        "is closed",
        "choice",
        choices=("reach", "kidnapped", "blocked"),
    ),
    LaunchArgument(
        "world", "indoor", "kind of worlds", "choice", choices=("indoor", "outdoor", "both")
    ),
    LaunchArgument(
        "seed",
        "10000",
        "of the first world; from 10000 on unseen in training",
        "integer",
        10_000,
        2_000_000_000,
    ),
    LaunchArgument("worlds", "1", "number of worlds", "integer", 1, 1000),
    LaunchArgument("trials", "1", "trials per world", "integer", 1, 1000),
    LaunchArgument(
        "required_success",
        "",
        "rate below which the launch fails; empty: 1 for a single trial, else 0",
        "number",
        0.0,
        1.0,
        optional=True,
    ),
    LaunchArgument("report", "", "JSON report; empty: none", optional=True),
    LaunchArgument("rtf", "1.0", "real-time factor of the simulation", "number", 1.0, 20.0),
    LaunchArgument(
        "camera_timeout_s",
        "0.2",
        "largest age of an image that is driven by; a busy machine needs more",
        "number",
        0.05,
        5.0,
    ),
)


def start_graph(context: LaunchContext) -> list:
    values = check_arguments(ARGUMENTS, context.launch_configurations)
    single = values["worlds"] == 1 and values["trials"] == 1
    if values["map"] and values["worlds"] > 1:
        raise ArgumentError("map is of one world; found worlds above 1")
    if values["map"] and not Path(values["map"]).expanduser().is_dir():
        raise ArgumentError(f"map is '{values['map']}'; expected a directory that keep_map wrote")
    robot = load_robot(values["robot"])
    bundle = bundle_directory(values["bundle"], __file__)
    clock = clock_parameters(values["rtf"])
    simulation = Node(
        package="robot_sim",
        executable="navigation_sim_node",
        name="navigation_sim",
        parameters=[
            {
                "world": "outdoor" if values["world"] == "outdoor" else "indoor",
                "seed": values["seed"],
                "robot": text(values["robot"]),
                "rtf": values["rtf"],
                "stamped": robot.stamped,
                "scan": values["scan"],
            }
        ],
    )
    navigator = navigator_node(
        values, bundle, "", clock, camera_timeout_s=values["camera_timeout_s"]
    )
    follower = path_follower_node(values, robot, clock)
    guard = guard_node(values, robot, clock)
    required = values["required_success"]
    trials = Node(
        package="navigation_trials",
        executable="navigation_trials",
        name="navigation_trials",
        output="screen",
        parameters=[
            {
                **{name: text(values[name] or "") for name in ("goal", "map", "keep_map")},
                **{name: text(values[name]) for name in ("robot", "task", "world")},
                **{name: values[name] for name in ("seed", "worlds", "trials", "rtf")},
                "bundle": text(str(bundle)),
                "report": text(values["report"] or ""),
                "required_success": float(single) if required is None else required,
                "command_line": text(shlex.join(["ros2", *sys.argv[1:]])),
                **clock,
            }
        ],
    )
    all_done = deactivate_and_end(navigator, "all trials are done")
    is_active = when_all(
        ["navigator", "path_follower", "guard"],
        run_to_end(trials, "navigation_trials", all_done),
    )
    actions = [
        *run(simulation, "navigation_sim"),
        *bring_up(guard, "cmd_vel_guard", when_active=is_active("guard")),
        *bring_up(follower, "path_follower", when_active=is_active("path_follower")),
        *bring_up(navigator, "navigator", when_active=is_active("navigator")),
        *rviz_actions(values, clock),
    ]
    return unless_running(context, actions, later=[trials])


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*declare(ARGUMENTS), OpaqueFunction(function=start_graph)])
