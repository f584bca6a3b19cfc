"""Run a base and the guard before it: `ros2 launch base_drivers base.launch.py base:=kobuki`."""

import tempfile
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from base_drivers.kobuki import DEFAULT_PORT, UDEV_RULE
from base_drivers.robot_config import load_robot
from graph_launch.devices import serial_port_problem
from graph_launch.launch_arguments import ArgumentError
from graph_launch.supervision import bring_up, run, unless_running
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import LifecycleNode, Node

BASES = ("kobuki", "kobuki_emulated", "go2", "go2_emulated")


def guard_limits(robot: str) -> dict:
    """Parameters of the guard from a robot of config/robots."""
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


def start_base(context: LaunchContext) -> list:
    given = context.launch_configurations
    base = given["base"]
    kind = base.removesuffix("_emulated")
    default = Path(get_package_share_directory("base_drivers")) / "config" / f"{kind}.yaml"
    file = Path(given["params_file"]).expanduser() if given["params_file"] else default
    if not file.is_file():
        raise FileNotFoundError(f"params_file is '{file}', which is not a file")
    if given["port"] and base != "kobuki":
        raise ValueError(f"port is for base:=kobuki; found base:={base}")

    if base == "kobuki" and (given["port"] or not given["params_file"]):
        problem = serial_port_problem("port", given["port"] or DEFAULT_PORT, UDEV_RULE)
        if problem:
            raise ArgumentError(problem)

    def process(executable: str, **options: object) -> Node:
        return Node(
            package="base_drivers",
            executable=executable,
            name=executable,
            output="screen",
            **options,
        )

    def lifecycle_node(name: str, parameters: dict) -> list:
        node = LifecycleNode(
            package="base_drivers",
            executable=name,
            name=name,
            namespace="",
            parameters=[str(file), parameters],
            output="screen",
        )
        return bring_up(node, name, when_active=[])

    actions: list = []
    port = {"port": given["port"]} if given["port"] else {}
    if base == "kobuki_emulated":
        folder = Path(tempfile.mkdtemp(prefix="kobuki-"))
        port = {"port": str(folder / "kobuki")}
        emulator = Node(
            package="base_drivers",
            executable="kobuki_emulator",
            arguments=["--link", port["port"], "--control", str(folder / "control.sock")],
            output="screen",
        )
        actions += run(emulator, "kobuki_emulator")
    if base == "go2_emulated":
        actions += run(process("go2_emulator", parameters=[{"mode": 1}]), "go2_emulator")
    if kind == "go2":
        actions += run(process("go2_stop_keeper", parameters=[str(file)]), "go2_stop_keeper")
    limits = guard_limits(given["robot"]) if given["robot"] else {}
    actions += lifecycle_node(f"{kind}_driver", port)
    actions += lifecycle_node("cmd_vel_guard", limits)
    return unless_running(context, actions)


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("base", choices=list(BASES), description="base to run"),
            DeclareLaunchArgument(
                "params_file",
                default_value="",
                description="YAML with parameters of all nodes; empty: that of the base",
            ),
            DeclareLaunchArgument(
                "robot",
                default_value="",
                description="robot of gnm_nav whose limits and body the guard takes; empty: none",
            ),
            DeclareLaunchArgument(
                "port", default_value="", description="serial port of a Kobuki; empty: /dev/kobuki"
            ),
            OpaqueFunction(function=start_base),
        ]
    )
