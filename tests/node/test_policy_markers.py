"""The markers of a policy at work, as RViz gets them."""

import itertools
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rclpy
from policy_interfaces.msg import EndEffectorDelta, EndEffectorState, PolicyStatus
from spun_nodes import SpunNodes
from visualization_msgs.msg import Marker, MarkerArray

LOW_M, HIGH_M = [0.1, -0.25, 0.0], [0.45, 0.25, 0.33]
NAMES = ["dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"]


class Graph:
    """Stands in for arm controller and policy, and keeps the latest marker of each kind."""

    def __init__(self, node):
        self.node = node
        self.markers: dict[str, Marker] = {}
        self.state = node.create_publisher(EndEffectorState, "end_effector_state", 10)
        self.delta = node.create_publisher(EndEffectorDelta, "end_effector_delta", 1)
        self.status = node.create_publisher(PolicyStatus, "policy_node/status", 10)
        node.create_subscription(MarkerArray, "policy_markers", self._on_markers, 10)

    def _on_markers(self, message):
        self.markers = {marker.ns: marker for marker in message.markers}

    def publish_state(self, position, quaternion=(0.0, 0.0, 0.0, 1.0)):
        message = EndEffectorState()
        message.header.frame_id = "base_link"
        pose = message.commanded_pose
        pose.position.x, pose.position.y, pose.position.z = position
        orientation = pose.orientation
        orientation.x, orientation.y, orientation.z, orientation.w = quaternion
        self.state.publish(message)

    def wait_for(self, condition, while_doing=lambda: None, timeout_s=20.0):
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, f"markers: {self.markers}"
            while_doing()
            time.sleep(0.02)


@pytest.fixture
def graph(free_domain, monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    nodes = SpunNodes(free_domain)
    controller = rclpy.create_node("arm_controller", context=nodes.context)
    controller.declare_parameter("base_frame", "wx250s/base_link")
    controller.declare_parameter("workspace_low_m", LOW_M)
    controller.declare_parameter("workspace_high_m", HIGH_M)
    graph = Graph(nodes.add(controller))
    command = [sys.executable, "-m", "episode_tools.policy_markers", "--ros-args"]
    command += ["-p", "rate_hz:=30.0", "-p", "arrow_scale:=2.0"]
    process = subprocess.Popen(command, env=os.environ | {"ROS_DOMAIN_ID": str(free_domain)})
    yield graph
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=15) == 0
    nodes.close()


def points(marker):
    return np.array([[p.x, p.y, p.z] for p in marker.points])


def test_workspace_is_the_controllers_own(graph):
    graph.wait_for(lambda: "workspace" in graph.markers)
    marker = graph.markers["workspace"]
    assert marker.header.frame_id == "wx250s/base_link"
    corners = points(marker)
    assert len(corners) == 24
    np.testing.assert_allclose(corners.min(0), LOW_M)
    np.testing.assert_allclose(corners.max(0), HIGH_M)
    edges = corners[1::2] - corners[::2]
    assert (np.count_nonzero(edges, axis=1) == 1).all(), "edges run along the axes"
    assert len(np.unique(corners.round(6), axis=0)) == 8


def test_target_and_action_are_shown_and_vanish_when_nothing_comes(graph):
    rng = np.random.default_rng(11)
    position = rng.uniform(LOW_M, HIGH_M)
    quaternion = rng.normal(size=4)
    quaternion /= np.linalg.norm(quaternion)
    values = [0.03, -0.02, 0.01, 0.0, 0.0, 0.1, 0.0]
    order = rng.permutation(7)
    action = EndEffectorDelta(
        names=[NAMES[i] for i in order], values=[values[i] for i in order], step_s=0.2
    )

    def work():
        graph.publish_state(position, quaternion)
        graph.delta.publish(action)

    graph.wait_for(lambda: {"action", "commanded_pose"} <= set(graph.markers), work)
    arrow = points(graph.markers["action"])
    np.testing.assert_allclose(arrow[0], position)
    np.testing.assert_allclose(arrow[1] - arrow[0], 2.0 * np.array(values[:3]), atol=1e-12)
    color = graph.markers["action"].color
    assert color.r > color.g, "a closed gripper is red"

    x, y, z, w = quaternion
    axes = points(graph.markers["commanded_pose"])
    directions = (axes[1::2] - axes[::2]) / 0.06
    np.testing.assert_allclose(directions @ directions.T, np.eye(3), atol=1e-9)
    # The quaternion's vector part is the axis of the rotation, which the rotation leaves alone.
    np.testing.assert_allclose(directions.T @ [x, y, z], [x, y, z], atol=1e-9)
    assert np.trace(directions) == pytest.approx(4 * w * w - 1)

    for marker in graph.markers.values():
        lifetime_s = marker.lifetime.sec + marker.lifetime.nanosec * 1e-9
        assert 0.0 < lifetime_s < 1.0, "RViz forgets the markers of a dead node"
    graph.wait_for(lambda: not {"action", "commanded_pose"} & set(graph.markers))


def test_action_that_makes_no_sense_is_not_drawn_and_harms_nothing(graph):
    bad = [
        EndEffectorDelta(names=NAMES, values=[math.nan] * 7),
        EndEffectorDelta(names=NAMES, values=[0.01] * 3),
        EndEffectorDelta(names=["x", "y"], values=[0.0, 0.0]),
    ]

    def work():
        graph.publish_state([0.2, 0.0, 0.1], (0.0, 0.0, 0.0, 0.0))
        graph.delta.publish(next(messages))

    messages = itertools.cycle(bad)
    seen = set()
    graph.wait_for(
        lambda: (
            "status" in graph.markers
            and graph.state.get_subscription_count()
            and graph.delta.get_subscription_count()
        )
    )
    deadline_s = time.monotonic() + 1.0
    while time.monotonic() < deadline_s:
        work()
        time.sleep(0.02)
        seen |= set(graph.markers)
    assert seen <= {"status", "workspace"}
    good = EndEffectorDelta(names=NAMES, values=[0.01] * 7)
    graph.wait_for(lambda: "action" in graph.markers, lambda: graph.delta.publish(good))


def test_status_says_what_the_policy_does(graph):
    graph.wait_for(lambda: "status" in graph.markers)
    assert graph.markers["status"].text == "no policy"
    running = PolicyStatus(
        state=PolicyStatus.STATE_RUNNING,
        policy="ptr_widowx",
        task="open_drawer",
        rate_hz=4.98,
        inference_p95_ms=12.4,
        observation_age_ms=math.nan,
    )
    graph.wait_for(
        lambda: "running" in graph.markers["status"].text, lambda: graph.status.publish(running)
    )
    assert graph.markers["status"].text == "ptr_widowx open_drawer\nrunning, 5.0 Hz, p95 12 ms"
    fault = PolicyStatus(
        state=PolicyStatus.STATE_FAULT, policy="ptr_widowx", reason="no image for 0.5 s"
    )
    graph.wait_for(
        lambda: "FAULT" in graph.markers["status"].text, lambda: graph.status.publish(fault)
    )
    assert graph.markers["status"].text.endswith("no image for 0.5 s")
    assert graph.markers["status"].color.r > graph.markers["status"].color.g
    graph.wait_for(lambda: graph.markers["status"].text == "no policy")
