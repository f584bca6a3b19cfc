"""Nodes that run already under a name are found in the process table."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("launch")
from graph_launch.supervision import GraphError, unless_running
from launch import LaunchContext
from node_common.running_nodes import find_processes, node_name

DOMAIN = 97
_SLEEP = "import time; time.sleep(60)"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("-r __node:=arm_controller -r __ns:=/wx250s", "/wx250s/arm_controller"),
        ("-r __node:=policy_node", "/policy_node"),
        ("-r __ns:=/ -r __name:=policy_node", "/policy_node"),
        ("--remap driver:__node:=camera -r __ns:=/a/b", "/a/b/camera"),
        ("-r chatter:=/policy_node", None),
        ("-r __ns:=/left", None),
    ],
)
def test_the_name_that_a_command_line_gives(rules, expected):
    assert node_name(["node", "--ros-args", *rules.split()]) == expected


@pytest.fixture
def start():
    started = []

    def start_process(name, namespace, domain=DOMAIN, launcher=()):
        node = [
            *(sys.executable, "-c", _SLEEP, "--ros-args"),
            *("-r", f"__node:={name}", "-r", f"__ns:={namespace}"),
        ]
        process = subprocess.Popen(
            [*launcher, *node],
            env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_process
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("namespace", ["/left", "/"])
def test_a_node_of_the_same_domain_is_found_with_its_process(start, namespace):
    process = start("arm", namespace)
    name = f"{namespace.rstrip('/')}/arm"
    (found,) = find_processes({name, "/other"}, DOMAIN)
    assert (found.node, found.pid, found.domain_id) == (name, process.pid, DOMAIN)


def test_other_domains_and_other_names_are_no_concern(start):
    start("arm", "/left", domain=DOMAIN - 1)
    start("arm", "/right")
    start("arms", "/left")
    assert find_processes({"/left/arm"}, DOMAIN) == []


def find_left_arm():
    """The one process; a shell prints its child's number before the child has become Python."""
    deadline_s = time.monotonic() + 20.0
    while not (found := find_processes({"/left/arm"}, DOMAIN)):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    (one,) = found
    return one


def test_what_started_it_is_named(start, tmp_path):
    ros2 = tmp_path / "ros2"
    ros2.write_text(
        f"#!{sys.executable}\n"
        "import subprocess, sys\n"
        "child = subprocess.Popen(sys.argv[3:])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    launch = start("arm", "/left", launcher=[sys.executable, ros2, "launch", "my.launch.py"])
    pid = int(launch.stdout.readline())
    try:
        found = find_left_arm()
        assert found.pid == pid
        assert found.launch.startswith("ros2 launch my.launch.py ")
    finally:
        os.kill(pid, signal.SIGKILL)


def test_an_orphan_is_left_over_and_says_how_to_end_it(start):
    command = f"{sys.executable} -c '{_SLEEP}' -r __node:=arm -r __ns:=/left & echo $!"
    shell = start("shell", "/", launcher=["sh", "-c", command])
    pid = int(shell.stdout.readline())
    shell.wait()
    try:
        found = find_left_arm()
        assert (found.pid, found.launch) == (pid, "")
        assert "left over" in found.describe() and f"kill {pid}" in found.describe()
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("domain", ["lab", "-1", "233"])
def test_a_domain_that_is_none_is_refused(monkeypatch, domain):
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    with pytest.raises(GraphError, match=f"ROS_DOMAIN_ID is '{domain}'; expected a whole number"):
        unless_running(LaunchContext(), [])
