"""The arm alone, ready for commands: its controller and what `arm:=` names."""

from graph_launch.launch_arguments import ArgumentError, check_arguments
from graph_launch.supervision import declare, unless_running
from launch import LaunchContext, LaunchDescription
from launch.actions import LogInfo, OpaqueFunction
from widowx_bringup.arm import ARM_ARGUMENTS, arm_actions, arm_controller, arm_problems
from widowx_bringup.rviz import rviz_actions


def start_graph(context: LaunchContext) -> list:
    values = check_arguments(ARM_ARGUMENTS, context.launch_configurations)
    problems = arm_problems(values)
    if problems:
        raise ArgumentError("\n".join(problems))
    ready = LogInfo(msg="the arm takes commands")
    actions = [
        *(rviz_actions(values, "arm.rviz") if values["use_rviz"] else []),
        *arm_actions(values, arm_controller(values), when_active=[ready]),
    ]
    return unless_running(context, actions)


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*declare(ARM_ARGUMENTS), OpaqueFunction(function=start_graph)])
