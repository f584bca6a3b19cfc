"""Run a PTR policy on a WidowX 250 6DOF, simulated or real, and report how well it does."""

import json
import shlex
import sys
from pathlib import Path

from graph_launch.launch_arguments import check_arguments
from graph_launch.supervision import (
    bring_up,
    deactivate_and_end,
    declare,
    interruptible,
    run,
    run_to_end,
    unless_running,
    when_all,
)
from launch import LaunchContext, LaunchDescription
from launch.actions import ExecuteProcess, OpaqueFunction
from launch_ros.actions import LifecycleNode, Node
from widowx_bringup.arm import (
    arm_actions,
    arm_controller,
    arm_namespace,
    clock_parameters,
    config_file,
    has_simulated_clock,
    is_simulated,
    text,
)
from widowx_bringup.episode_arguments import (
    check_combination,
    deciding_arguments,
    episode_arguments,
    image_topic,
    model_path,
)
from widowx_bringup.rviz import rviz_actions

ARGUMENTS = episode_arguments(__file__)

POLICY_NODE = "/policy_node"


def start_graph(context: LaunchContext) -> list:
    values = check_arguments(ARGUMENTS, context.launch_configurations)
    bundle, kind = check_combination(values, model_path(__file__))
    arm = arm_namespace(values)
    clock = clock_parameters(values)

    policy_parameters = {
        "model": text(str(bundle)),
        "image_transport": text(values["image_transport"]),
        **clock,
    }
    for name in ("policy", "policy_parameters", "inference", "provider"):
        if values[name] is not None:
            policy_parameters[name] = text(values[name])
    for name in ("execute_steps", "rate_hz"):
        if values[name] is not None:
            policy_parameters[name] = values[name]
    policy = LifecycleNode(
        package="policy_server",
        executable="policy_node",
        name=POLICY_NODE.strip("/"),
        namespace="",
        parameters=[config_file("policy_node.yaml"), policy_parameters],
        remappings=[
            ("camera/image_raw", values["camera_topic"]),
            ("camera/image_raw/compressed", f"{values['camera_topic']}/compressed"),
            ("joint_states", f"{arm}/joint_states"),
            ("end_effector_state", f"{arm}/end_effector_state"),
            ("end_effector_delta", f"{arm}/end_effector_delta"),
        ],
    )
    runner = Node(
        package="episode_tools",
        executable="episode_runner",
        name="episode_runner",
        output="screen",
        parameters=[
            {
                "tasks": text(values["task"]),
                "episodes": values["episodes"],
                "seed": values["seed"],
                "max_steps": values["max_steps"],
                "simulated": is_simulated(values),
                "ask_operator": values["ask_operator"],
                "arm_namespace": text(arm),
                "policy_node": POLICY_NODE,
                "camera_topic": text(image_topic(values)),
                "max_repeats": values["max_repeats"],
                "report": text(values["report"] or ""),
                "model": text(str(bundle)),
                "policy": text(kind),
                "rtf": values["rtf"],
                "launch_arguments": text(json.dumps(deciding_arguments(values))),
                "command_line": text(shlex.join(["ros2", *sys.argv[1:]])),
                **clock,
            }
        ],
    )
    controller = arm_controller(values)
    all_done = deactivate_and_end(controller, "all episodes are done")
    is_active = when_all(["arm", "policy"], run_to_end(runner, "episode_runner", all_done))
    actions = [
        *(record_actions(values, arm) if values["record"] else []),
        *(monitor_actions(values, arm) if values["viewer"] == "web" else []),
        *(policy_rviz_actions(values, arm) if values["use_rviz"] else []),
        *arm_actions(values, controller, when_active=is_active("arm")),
        *bring_up(policy, "policy_node", when_active=is_active("policy")),
    ]
    return interruptible(unless_running(context, actions, later=[runner]))


def record_actions(values: dict, arm: str) -> list:
    topics = [
        image_topic(values),
        "/camera/camera_info",
        f"{arm}/joint_states",
        f"{arm}/end_effector_state",
        f"{arm}/end_effector_delta",
        f"{arm}/commands/joint_group",
        f"{arm}/commands/joint_single",
        f"{POLICY_NODE}/status",
        "/diagnostics",
    ]
    clock = []
    if is_simulated(values):
        topics.append("/robot_sim/task_status")
        if has_simulated_clock(values):
            topics.append("/clock")
            clock = ["--use-sim-time"]
    path = str(Path(values["record"]).expanduser())
    command = ["ros2", "bag", "record", "-s", "mcap", "-o", path, *clock, *topics]
    return run(ExecuteProcess(cmd=command, name="bag_record"), "ros2 bag record")


def monitor_actions(values: dict, arm: str) -> list:
    monitor = Node(
        package="episode_tools",
        executable="monitor",
        name="monitor",
        output="screen",
        parameters=[
            {"port": values["viewer_port"], "image_transport": text(values["image_transport"])}
        ],
        remappings=[
            ("camera/image_raw", values["camera_topic"]),
            ("camera/image_raw/compressed", f"{values['camera_topic']}/compressed"),
            ("end_effector_delta", f"{arm}/end_effector_delta"),
        ],
    )
    return run(monitor, "monitor")


def policy_rviz_actions(values: dict, arm: str) -> list:
    markers = Node(
        package="episode_tools",
        executable="policy_markers",
        name="policy_markers",
        parameters=[{"arm_controller": text(f"{arm}/arm_controller")}],
        remappings=[
            ("end_effector_state", f"{arm}/end_effector_state"),
            ("end_effector_delta", f"{arm}/end_effector_delta"),
            ("policy_node/status", f"{POLICY_NODE}/status"),
        ],
    )
    camera = ("/camera/image_raw", values["camera_topic"])
    return [
        *run(markers, "policy_markers"),
        *rviz_actions(values, "policy.rviz", remappings=[camera]),
    ]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*declare(ARGUMENTS), OpaqueFunction(function=start_graph)])
