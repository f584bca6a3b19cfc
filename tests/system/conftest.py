"""One isolated ROS domain per test, and a watcher of the arm's command topics."""

import itertools
import time

import pytest
from interbotix_xs_msgs.msg import JointGroupCommand
from launched import Launched
from policy_interfaces.msg import EndEffectorDelta, TaskStatus
from rclpy.node import Node
from spun_nodes import SpunNodes


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
    nodes = SpunNodes(free_domain)
    yield nodes.add(Watcher(nodes.context))
    nodes.close()


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
