"""A launch does not start beside nodes of the same names, and leaves them as they are."""

import math
import os
import signal
import subprocess
import sys
import time

import pytest
from rclpy.node import Node
from spun_nodes import SpunNodes

REFUSED_S = 20.0
START_S = 60.0


@pytest.mark.parametrize(
    ("command", "node"),
    [
        ("widowx_bringup ptr.launch.py episodes:=1", "/policy_node"),
        ("widowx_bringup ptr.launch.py namespace:=left", "/left/arm_controller"),
        ("widowx_bringup ptr.launch.py", "/episode_runner"),
        ("widowx_bringup ptr.launch.py viewer:=web", "/monitor"),
        ("widowx_bringup arm.launch.py arm:=emulated guard:=true", "/wx250s/arm_guard"),
        ("gnm_nav sim.launch.py", "/navigation_sim"),
        ("gnm_nav sim.launch.py", "/navigation_trials"),
        ("gnm_nav navigate.launch.py map:=/tmp goal:=last", "/send_goal"),
        ("gnm_nav navigate.launch.py map:=/tmp", "/navigator"),
        ("gnm_nav explore.launch.py camera:=rtsp://127.0.0.1:1/x", "/camera/camera_driver"),
        ("gnm_nav map.launch.py map:=/no/such/map", "/map_builder"),
        ("base_drivers base.launch.py base:=kobuki_emulated", "/cmd_vel_guard"),
        ("camera_drivers camera.launch.py camera_name:=front", "/front/camera_driver"),
    ],
)
def test_a_process_of_the_same_node_is_named(start, free_domain, command, node):
    namespace, _, name = node.rpartition("/")
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", "--ros-args",
         "-r", f"__node:={name}", "-r", f"__ns:={namespace or '/'}"],
        env={**os.environ, "ROS_DOMAIN_ID": str(free_domain)},
    )  # fmt: skip
    try:
        launch = start("launch", *command.split())
        assert launch.wait(REFUSED_S) != 0
    finally:
        sleeper.kill()
        sleeper.wait()
    assert f"already running in ROS domain {free_domain}" in launch.output
    assert f"{node} (pid {sleeper.pid}" in launch.output and "ROS_DOMAIN_ID=" in launch.output
    assert "process started" not in launch.output


def test_a_node_of_another_program_is_found_in_the_graph(start, free_domain):
    nodes = SpunNodes(free_domain)
    try:
        nodes.add(Node("arm_controller", namespace="/wx250s", context=nodes.context))
        launch = start("launch", "widowx_bringup", "arm.launch.py")
        assert launch.wait(REFUSED_S) != 0
    finally:
        nodes.close()
    assert "/wx250s/arm_controller (in the graph" in launch.output
    assert "process started" not in launch.output


def test_a_second_arm_is_refused_and_the_first_runs_on(start, watcher):
    first = start("launch", "widowx_bringup", "arm.launch.py")
    first.wait_for_line("the arm takes commands", START_S)
    controller = first.node_process("arm_controller")
    second = start("launch", "widowx_bringup", "arm.launch.py")
    assert second.wait(REFUSED_S) != 0
    assert f"/wx250s/arm_controller (pid {controller.pid}, started by `ros2 launch" in second.output
    assert "process started" not in second.output
    # Neither its lifecycle nor its motion was touched.
    state = start("lifecycle", "get", "/wx250s/arm_controller")
    assert state.wait(START_S) == 0 and "active" in state.output, state.output
    assert first.process.poll() is None
    # On a busy computer joint_states may be late: then the measured pose is held, a little lower.
    _, held = watcher.goals[0]
    assert all(math.dist(held, goal) < 0.01 for _, goal in watcher.goals)
    # What is killed leaves nothing that a new run would have to wait for.
    first.process.send_signal(signal.SIGKILL)
    first.wait(START_S)
    third = start("launch", "widowx_bringup", "arm.launch.py")
    third.wait_for_line("the arm takes commands", START_S)


def test_of_two_at_the_same_time_one_starts(start):
    both = [start("launch", "widowx_bringup", "arm.launch.py") for _ in range(2)]
    deadline_s = time.monotonic() + START_S
    while all(launch.process.poll() is None for launch in both) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    (refused,) = [launch for launch in both if launch.process.poll() is not None]
    refused.wait(REFUSED_S)
    assert "already running" in refused.output
    (other,) = [launch for launch in both if launch is not refused]
    other.wait_for_line("the arm takes commands", START_S)
