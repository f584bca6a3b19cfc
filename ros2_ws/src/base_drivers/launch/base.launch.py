"""Run a base and the guard before it: `ros2 launch base_drivers base.launch.py base:=kobuki`."""

import tempfile
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessExit, OnProcessStart
from launch.events import matches_action
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

BASES = ("kobuki", "kobuki_emulated", "go2", "go2_emulated")


def guard_limits(robot: str) -> dict:
    """Parameters of the guard from a robot of gnm_nav."""
    from gnm_nav.robot_config import load_robot

    found = load_robot(robot)
    length_m, width_m, _ = found.body_size_m
    return {
        "stamped_input": found.stamped,
        "max_linear_m_s": found.max_linear_m_s,
        "max_lateral_m_s": found.max_lateral_m_s,
        "max_angular_rad_s": found.max_angular_rad_s,
        "max_linear_acceleration_m_s2": found.max_linear_acceleration_m_s2,
        "max_angular_acceleration_rad_s2": found.max_angular_acceleration_rad_s2,
        "min_turning_radius_m": found.min_turning_radius_m,
        "footprint_front_m": length_m / 2.0,
        "footprint_rear_m": length_m / 2.0,
        "footprint_width_m": width_m,
    }


def brought_up(node: LifecycleNode, name: str) -> list:
    """Actions that start a lifecycle node, configure it and activate it."""

    def change_state(transition: int) -> EmitEvent:
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
        )

    def refuse(context: LaunchContext) -> None:
        # Only an exception makes `ros2 launch` end with a non-zero status.
        raise RuntimeError(f"{name} refused its parameters; its own message above says why")

    def on_transition(goal: str, action: EmitEvent | OpaqueFunction) -> RegisterEventHandler:
        return RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state=goal,
                entities=[action],
            )
        )

    return [
        on_transition("inactive", change_state(Transition.TRANSITION_ACTIVATE)),
        on_transition("unconfigured", OpaqueFunction(function=refuse)),
        RegisterEventHandler(
            OnProcessStart(
                target_action=node, on_start=[change_state(Transition.TRANSITION_CONFIGURE)]
            )
        ),
        node,
    ]


def start_base(context: LaunchContext) -> list:
    given = context.launch_configurations
    base = given["base"]
    if base not in BASES:
        raise ValueError(f"base is '{base}'; expected one of {list(BASES)}")
    kind = base.removesuffix("_emulated")
    default = Path(get_package_share_directory("base_drivers")) / "config" / f"{kind}.yaml"
    file = Path(given["params_file"]).expanduser() if given["params_file"] else default
    if not file.is_file():
        raise FileNotFoundError(f"params_file is '{file}', which is not a file")
    limits = guard_limits(given["robot"]) if given["robot"] else {}
    driver_parameters: list = [str(file)]
    actions: list = []
    if base == "kobuki_emulated":
        folder = Path(tempfile.mkdtemp(prefix="kobuki-"))
        driver_parameters.append({"port": str(folder / "kobuki")})
        emulator = Node(
            package="base_drivers",
            executable="kobuki_emulator",
            arguments=["--link", str(folder / "kobuki"), "--control", str(folder / "control.sock")],
            output="screen",
        )
        actions.append(emulator)
    elif given["port"]:
        driver_parameters.append({"port": given["port"]})
    if base == "go2_emulated":
        actions.append(
            Node(
                package="base_drivers",
                executable="go2_emulator",
                name="go2_emulator",
                output="screen",
            )
        )
    if kind == "go2":
        actions.append(
            Node(
                package="base_drivers",
                executable="go2_stop_keeper",
                name="go2_stop_keeper",
                parameters=[str(file)],
                output="screen",
            )
        )
    for executable, parameters in (
        (f"{kind}_driver", driver_parameters),
        ("cmd_vel_guard", [str(file), limits]),
    ):
        node = LifecycleNode(
            package="base_drivers",
            executable=executable,
            name=executable,
            namespace="",
            parameters=parameters,
            output="screen",
        )
        actions += brought_up(node, executable)
        actions.append(
            RegisterEventHandler(
                OnProcessExit(
                    target_action=node, on_exit=[Shutdown(reason=f"{executable} has ended")]
                )
            )
        )
    return actions


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("base", description=f"one of {', '.join(BASES)}"),
            DeclareLaunchArgument(
                "params_file",
                default_value="",
                description="YAML of all nodes; default: the base's",
            ),
            DeclareLaunchArgument(
                "robot",
                default_value="",
                description="robot of gnm_nav whose limits and body the guard takes",
            ),
            DeclareLaunchArgument("port", default_value="", description="serial port of a Kobuki"),
            OpaqueFunction(function=start_base),
        ]
    )
