"""Launch files with real nodes: parameters, namespaces, remappings, lifecycle transitions."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ros2_wheels")

LAUNCH = [sys.executable, "-m", "ros2_wheels.main", "launch"]
ROBOT = Path(__file__).with_name("ros2_cli_robot.py")

LAUNCH_FILE = """
from launch import LaunchDescription
from launch.actions import *
from launch.substitutions import *
from launch_ros.actions import *
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events import matches_node_name
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from lifecycle_msgs.msg import Transition

def request(transition):
    return EmitEvent(event=ChangeState(
        lifecycle_node_matcher=matches_node_name("/lab/left/arm"), transition_id=transition))

def generate_launch_description():
    arm = LifecycleNode(
        package="demo_robot", executable="robot", name="arm", namespace="left", output="screen",
        parameters=[
            PathJoinSubstitution([ThisLaunchFileDir(), "robot.yaml"]),
            ParameterFile([ThisLaunchFileDir(), "/substituted.yaml"], allow_substs=True),
            {"arm": {"limits": [1, 2.5]},
             "speed_m_s": ParameterValue(LaunchConfiguration("speed"), value_type=float)},
            {"name": ParameterValue(LaunchConfiguration("name"), value_type=str)},
        ],
        remappings=[("joint_states", ["/all/", "joints"])])
    return LaunchDescription([
        DeclareLaunchArgument("speed", default_value="1"),
        DeclareLaunchArgument("name", default_value="y"),
        RegisterEventHandler(OnStateTransition(
            target_lifecycle_node=arm, start_state="configuring", goal_state="inactive",
            entities=[LogInfo(msg="configured"), request(Transition.TRANSITION_ACTIVATE)])),
        RegisterEventHandler(OnStateTransition(
            target_lifecycle_node=arm, start_state="activating", goal_state="inactive",
            entities=[Shutdown(reason="activation was refused")])),
        GroupAction([
            PushROSNamespace("lab"),
            SetParameter("use_sim_time", True),
            SetParametersFromFile([ThisLaunchFileDir(), "/scope.yaml"]),
            arm,
        ]),
        request(Transition.TRANSITION_CONFIGURE),
    ])
"""


@pytest.fixture
def launch(tmp_path, free_domain):
    """Function that runs the launch file in an installed package and returns status and output."""
    prefix = tmp_path / "install"
    share = prefix / "share" / "demo_robot"
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    executable = prefix / "lib" / "demo_robot" / "robot"
    for directory in (share, index, executable.parent):
        directory.mkdir(parents=True)
    (index / "demo_robot").touch()
    executable.write_text(f"#!{sys.executable}\n" + ROBOT.read_text())
    executable.chmod(0o755)
    (share / "demo.launch.py").write_text(LAUNCH_FILE)
    (share / "robot.yaml").write_text(
        "/**:\n  ros__parameters: {from_file: 1, speed_m_s: 0.1, name: wildcard}\n"
        "/lab/left/arm:\n  ros__parameters: {from_file: 2}\n"
        "/lab/right/arm:\n  ros__parameters: {from_file: 3}\n"
    )
    (share / "scope.yaml").write_text('/**:\n  ros__parameters: {"arm.joints": [from_scope]}\n')
    (share / "substituted.yaml").write_text("/**:\n  ros__parameters: {name: $(var name)}\n")

    def run(*arguments):
        prefixes = f"{prefix}{os.pathsep}{os.environ.get('AMENT_PREFIX_PATH', '')}"
        result = subprocess.run(
            [*LAUNCH, "demo_robot", "demo.launch.py", *arguments],
            env={
                **os.environ,
                "AMENT_PREFIX_PATH": prefixes,
                "ROS_DOMAIN_ID": str(free_domain),
                "ROS_LOG_DIR": str(tmp_path / "log"),
                "TMPDIR": str(tmp_path),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60.0,
            check=False,
        )
        return result.returncode, result.stdout + result.stderr

    yield run
    shutil.rmtree(prefix)


def test_node_gets_parameters_by_precedence_and_names(launch, tmp_path):
    status, output = launch("speed:=2", "name:=n")
    assert status == 0, output
    printed = dict(re.findall(r"\[robot-1\] (\S+) = (.*)", output))
    assert printed == {
        "speed_m_s": "2.0",
        "arm.joints": "['from_scope']",
        "arm.limits": "[1.0, 2.5]",
        # rcl would read an unquoted n as false.
        "name": "'n'",
        "from_file": "2",
        "use_sim_time": "True",
    }
    assert "[robot-1] topic /all/joints" in output
    assert "[launch.user]: configured" in output
    assert not list(tmp_path.glob("launch_params_*"))


def test_a_value_of_the_wrong_type_ends_the_launch(launch):
    status, output = launch("speed:=fast")
    assert status == 1
    assert "could not convert string to float: 'fast'" in output
    assert "process started" not in output
