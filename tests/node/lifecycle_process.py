"""Runs nodes as processes in an isolated domain, and watches their topics from a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.qos import QoSProfile, ReliabilityPolicy
from spun_nodes import SpunNodes

START_S = 60.0
BEST_EFFORT = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)


def wait_until(condition: Callable[[], Any], timeout_s: float = 10.0, what: str = "") -> Any:
    """Wait for a condition and return its value."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"did not come true in {timeout_s:g} s: {what}"
        time.sleep(0.005)
    return value


class Watched:
    """Messages of one topic with their times of arrival on the steady clock."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, Any]] = []
        self.subscription: Any = None

    def add(self, message: Any) -> None:
        """Keep a message."""
        self.messages.append((time.monotonic(), message))

    @property
    def last(self) -> Any:
        """The newest message, None before the first."""
        return self.messages[-1][1] if self.messages else None

    def since(self, time_s: float) -> list[tuple[float, Any]]:
        """Messages that arrived after a time."""
        return [item for item in self.messages if item[0] > time_s]


class Graph:
    """A test's own node, and processes beside it."""

    def __init__(self, nodes: SpunNodes, domain: int) -> None:
        self._nodes = nodes
        self.node = nodes.add(rclpy.create_node("tester", context=nodes.context))
        self.environment = os.environ | {
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "PYTHONUNBUFFERED": "1",
        }
        self.processes: list[subprocess.Popen[str]] = []
        self._others: list[SpunNodes] = []

    def beside(self, name: str) -> Any:
        """Make another node of the test, as of another process: of another DDS participant."""
        nodes = SpunNodes(int(self.environment["ROS_DOMAIN_ID"]))
        self._others.append(nodes)
        return nodes.add(rclpy.create_node(name, context=nodes.context))

    def start(self, module: str, *arguments: str, **parameters: Any) -> subprocess.Popen[str]:
        """Start `python -m module` with parameters."""
        command = [sys.executable, "-m", module, *arguments]
        if parameters:
            command.append("--ros-args")
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name}:={text}"]
        process = subprocess.Popen(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def bring_up(self, module: str, name: str, **parameters: Any) -> subprocess.Popen[str]:
        """Start a lifecycle node, configure and activate it."""
        process = self.start(module, **parameters)
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            assert self.change(name, transition), f"{name} refused transition {transition}"
        return process

    def change(self, name: str, transition: int) -> bool:
        """Ask a lifecycle node for a transition."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, f"/{name}/change_state", request).success)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service."""
        return self._nodes.call(kind, name, request, START_S)

    def watch(self, kind: Any, topic: str, qos: Any = BEST_EFFORT) -> Watched:
        """Keep the messages of a topic."""
        watched = Watched()
        watched.subscription = self.node.create_subscription(kind, topic, watched.add, qos)
        return watched

    @contextmanager
    def repeating(self, publisher: Any, make: Callable[[], Any], rate_hz: float) -> Iterator[None]:
        """Publish at a rate from a thread of its own."""
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(1.0 / rate_hz):
                publisher.publish(make())

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def end(self) -> None:
        """End everything that was started."""
        for nodes in self._others:
            nodes.close()
        for process in self.processes:
            if process.poll() is None:
                # One that a test has stopped would not hear the interruption.
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGINT)
        for process in self.processes:
            try:
                process.communicate(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


@contextmanager
def isolated_graph(domain: int) -> Iterator[Graph]:
    """A node in a domain of its own, spun in a thread."""
    nodes = SpunNodes(domain)
    graph = Graph(nodes, domain)
    try:
        yield graph
    finally:
        graph.end()
        nodes.close()
