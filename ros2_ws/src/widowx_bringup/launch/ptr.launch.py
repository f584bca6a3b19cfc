"""Run a PTR policy on a WidowX 250 6DOF, simulated or real, and report how well it does."""

import os
import re
import shlex
import sys
from pathlib import Path

from ament_index_python.packages import get_package_prefix
from graph_launch.devices import tcp_port_problem
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
from launch.actions import ExecuteProcess, OpaqueFunction
from launch_ros.actions import LifecycleNode, Node
from policy_server.bundle import find_bundle, model_search_path
from widowx_bringup.arm import (
    ARM_ARGUMENTS,
    arm_actions,
    arm_controller,
    arm_namespace,
    arm_problems,
    clock_parameters,
    config_file,
    is_simulated,
    text,
)
from widowx_bringup.rviz import rviz_actions

ARGUMENTS = (
    *ARM_ARGUMENTS,
    LaunchArgument("task", "all", "task names separated by commas, or all"),
    LaunchArgument(
        "episodes", "5", "episodes in all, dealt to the tasks in turn", "integer", 1, 1_000_000
    ),
    LaunchArgument("model", "ptr_widowx_sim", "bundle: a directory, or a name in models/"),
    LaunchArgument(
        "policy",
        "ptr",
        "what drives the arm: ptr, or random actions as a baseline",
        "choice",
        choices=("ptr", "random"),
    ),
    LaunchArgument(
        "rate_hz", "", "policy rate [Hz]; empty: the bundle's", "number", 0.1, 50.0, optional=True
    ),
    LaunchArgument(
        "max_steps", "0", "policy steps per episode; 0: the bundle's", "integer", 0, 100_000
    ),
    LaunchArgument("seed", "0", "evaluation seed; decides every scene", "integer", 0, 999),
    LaunchArgument(
        "provider", "", "ONNX Runtime provider, e.g. cpu, cuda; empty: auto", optional=True
    ),
    LaunchArgument("camera_topic", "/camera/image_raw", "images for the policy"),
    LaunchArgument(
        "ask_operator",
        "false",
        "real arm: wait for a call of /episode_runner/judge_episode after each episode",
        "boolean",
    ),
    LaunchArgument("record", "", "bag to record into; empty: none", optional=True),
    LaunchArgument("report", "", "JSON report; empty: none", optional=True),
    LaunchArgument("viewer_port", "8642", "TCP port of viewer:=web", "integer", 1024, 65535),
)

POLICY_NODE = "/policy_node"


def check_combination(values: dict) -> None:
    """Refuse arguments that are right one by one but not together."""
    problems = arm_problems(values)
    if not re.fullmatch(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", values["camera_topic"]):
        problems.append(f"camera_topic is '{values['camera_topic']}'; expected a topic name")
    if is_simulated(values) and values["ask_operator"]:
        problems.append("ask_operator is for a real arm: the simulation judges its episodes itself")
    if values["viewer"] == "web":
        problems += filter(None, [tcp_port_problem("viewer_port", values["viewer_port"])])
    if values["record"] and Path(values["record"]).expanduser().exists():
        problems.append(f"record is '{values['record']}', which exists already; name a new bag")
    if problems:
        raise ArgumentError("\n".join(problems))


def start_graph(context: LaunchContext) -> list:
    values = check_arguments(ARGUMENTS, context.launch_configurations)
    check_combination(values)
    # A symlinked build leaves this file in the source tree, an ordinary one does not; the
    # installation prefix is inside the workspace with both.
    start_points = [
        Path.cwd(),
        Path(get_package_prefix("widowx_bringup")),
        Path(__file__).resolve(),
    ]
    bundle = find_bundle(values["model"], model_search_path(os.environ, start_points)).parent
    arm = arm_namespace(values)
    clock = clock_parameters(values)

    policy_parameters = {"model": text(str(bundle)), **clock}
    if values["policy"] != "ptr":
        policy_parameters["policy"] = text(values["policy"])
    if values["rate_hz"] is not None:
        policy_parameters["rate_hz"] = values["rate_hz"]
    if values["provider"] is not None:
        policy_parameters["provider"] = text(values["provider"])
    policy = LifecycleNode(
        package="policy_server",
        executable="policy_node",
        name=POLICY_NODE.strip("/"),
        namespace="",
        parameters=[config_file("policy_node.yaml"), policy_parameters],
        remappings=[
            ("camera/image_raw", values["camera_topic"]),
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
                "camera_topic": text(values["camera_topic"]),
                "report": text(values["report"] or ""),
                "model": text(str(bundle)),
                "policy": text(values["policy"]),
                "rtf": values["rtf"],
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
    return unless_running(context, actions, later=[runner])


def record_actions(values: dict, arm: str) -> list:
    topics = [
        values["camera_topic"],
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
        if values["rtf"] != 1.0:
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
        parameters=[{"port": values["viewer_port"]}],
        remappings=[
            ("camera/image_raw", values["camera_topic"]),
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
