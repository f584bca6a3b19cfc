"""The arm alone, ready for commands: its controller and, simulated, the arm and the camera."""

from launch.actions import LogInfo, OpaqueFunction
from widowx_bringup.arm import ARM_ARGUMENTS, arm_actions
from widowx_bringup.launch_arguments import check_arguments
from widowx_bringup.supervision import declare

from launch import LaunchContext, LaunchDescription


def start_graph(context: LaunchContext) -> list:
    values = check_arguments(ARM_ARGUMENTS, context.launch_configurations)
    return arm_actions(values, when_active=[LogInfo(msg="the arm takes commands")])


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*declare(ARM_ARGUMENTS), OpaqueFunction(function=start_graph)])
