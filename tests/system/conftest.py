"""One isolated ROS domain per test, and a watcher of the arm's command topics."""

import itertools
import sys
import threading
import time
from pathlib import Path

import pytest
import rclpy
from interbotix_xs_msgs.msg import JointGroupCommand
from policy_interfaces.msg import EndEffectorDelta, TaskStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

sys.path.insert(0, str(Path(__file__).parent))

from launched import Launched


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "system":
            item.add_marker(pytest.mark.system)


class Watcher(Node):
    """Notes when the arm is commanded, and what."""

    def __init__(self, context):
        super().__init__("watcher", context=context)
        self.goals = []  # (receive time [s], tuple of joint positions [rad])
        self.deltas = []  # receive times [s]
        self.task_status = None
        self.create_subscription(
            JointGroupCommand, "/wx250s/commands/joint_group", self._on_goal, 100
        )
        self.create_subscription(
            EndEffectorDelta, "/wx250s/end_effector_delta", self._on_delta, 100
        )
        self.create_subscription(TaskStatus, "/robot_sim/task_status", self._on_task_status, 10)

    def _on_goal(self, message):
        self.goals.append((time.monotonic(), tuple(message.cmd)))

    def _on_delta(self, _message):
        self.deltas.append(time.monotonic())

    def _on_task_status(self, message):
        self.task_status = message

    @property
    def last_motion_s(self):
        """When the commanded joint positions changed for the last time [s]."""
        changes = [
            time_s
            for (_, before), (time_s, after) in itertools.pairwise(self.goals)
            if max(abs(a - b) for a, b in zip(before, after, strict=True)) > 1e-4
        ]
        return changes[-1] if changes else None


@pytest.fixture
def watcher(free_domain, monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = Context()
    rclpy.init(context=context, domain_id=free_domain)
    node = Watcher(context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    yield node
    executor.shutdown()
    rclpy.try_shutdown(context=context)
    thread.join()


@pytest.fixture
def start(free_domain):
    """Start a `ros2` command; everything started is stopped at the end of the test."""
    started = []

    def start_command(*command):
        launched = Launched(
            ["ros2", *map(str, command)],
            {
                "ROS_DOMAIN_ID": str(free_domain),
                "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
                "PYTHONUNBUFFERED": "1",
            },
        )
        started.append(launched)
        return launched

    yield start_command
    for launched in started:
        launched.stop()
