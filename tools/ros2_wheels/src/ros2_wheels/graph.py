"""A short-lived node for the command line: discovery, names, service calls, spinning."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import rclpy
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from .main import CommandError

# There is no daemon that knows the graph already: the graph counts as known when it has not
# changed for this long, and a topic or node that a user names is waited for this long.
_QUIET_S = 0.5
_LEAST_DISCOVERY_S = 0.5
_MOST_DISCOVERY_S = 4.0
_NAMED_THING_TIMEOUT_S = 6.0
# Nodes that were started this recently on this computer are waited for.
_STARTING_S = 20.0
_STARTING_TIMEOUT_S = 10.0
_POLL_PERIOD_S = 0.1

NamesAndTypes = Sequence[tuple[str, Sequence[str]]]


def add_graph_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of all verbs that look at the ROS graph."""
    parser.add_argument(
        "--spin-time",
        type=positive_float,
        help="Spin time in seconds to wait for discovery (default: until the graph is quiet)",
    )
    parser.add_argument(
        "-s", "--use-sim-time", action="store_true", help="Enable ROS simulation time"
    )
    parser.add_argument(
        "--no-daemon", action="store_true", help="Do not spawn nor use an already running daemon"
    )


def positive_float(text: str) -> float:
    """Return the text as a number above zero, for argparse."""
    value = float(text)
    if not value > 0.0:
        raise argparse.ArgumentTypeError(f"{text} must be greater than zero")
    return value


def non_negative_int(text: str) -> int:
    """Return the text as a whole number of at least zero, for argparse."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} must be zero or positive")
    return value


@contextmanager
def command_node(arguments: argparse.Namespace, name: str | None = None) -> Iterator[CommandNode]:
    """Create a node for the duration of a command."""
    # rclpy's handlers would shut the context down, with which a goal could still be cancelled.
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(
        name or f"_ros2cli_{os.getpid()}",
        parameter_overrides=[
            Parameter("use_sim_time", value=bool(getattr(arguments, "use_sim_time", False)))
        ],
        start_parameter_services=False,
    )
    result = CommandNode(node, getattr(arguments, "spin_time", None))
    previous = signal.signal(signal.SIGINT, result.interrupt)
    try:
        yield result
    finally:
        signal.signal(signal.SIGINT, previous)
        node.destroy_node()
        rclpy.try_shutdown()


def _starting_nodes() -> set[str]:
    """Return the names that a launch has given to processes just started in this ROS domain."""
    domain = os.environ.get("ROS_DOMAIN_ID") or "0"
    names = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # processes come and go
            if time.time() - process.create_time() < _STARTING_S:
                given = [a for a in process.cmdline() if a.startswith("__node:=")]
                if given and (process.environ().get("ROS_DOMAIN_ID") or "0") == domain:
                    names.add(given[-1].removeprefix("__node:="))
    return names


class CommandNode:
    """A node with an executor that spins in the caller's thread."""

    def __init__(self, node: Node, spin_time_s: float | None) -> None:
        self.node = node
        self._spin_time_s = spin_time_s
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._interrupted = False

    def interrupt(self, *_: Any) -> None:
        """Signal handler that makes the next check for it raise KeyboardInterrupt.

        Raised at any moment, it could arise in the middle of rclpy's native code, which turns it
        into other errors.
        """
        self._interrupted = True

    def spin_once(self, timeout_s: float = _POLL_PERIOD_S) -> None:
        """Execute one callback, or none within the timeout; KeyboardInterrupt after Ctrl-C."""
        self._executor.spin_once(timeout_sec=timeout_s)
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt

    def spin_for(self, duration_s: float) -> None:
        """Execute callbacks for some time."""
        self.spin_until(lambda: False, duration_s)

    def spin_unless_interrupted(self, duration_s: float) -> bool:
        """Execute callbacks for some time; False after Ctrl-C, by which a watch ends well."""
        try:
            self.spin_for(duration_s)
        except KeyboardInterrupt:
            return False
        return True

    def spin_until_time(self, end: float) -> None:
        """Execute callbacks until a time of time.monotonic(), at least those that wait already."""
        self.spin_once(0.0)
        self.spin_for(end - time.monotonic())

    def spin_until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Execute callbacks until the condition holds; return whether it does."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while not condition():
            if end is not None and time.monotonic() >= end:
                return False
            left_s = _POLL_PERIOD_S if end is None else end - time.monotonic()
            self.spin_once(max(0.0, min(_POLL_PERIOD_S, left_s)))
        return True

    def discover(self) -> None:
        """Wait until the graph is known: for --spin-time, else until it no longer changes."""
        if self._spin_time_s is not None:
            self.spin_for(self._spin_time_s)
            return
        starting = _starting_nodes()
        self.spin_until(
            lambda: starting <= {name for name, _ in self.node.get_node_names_and_namespaces()},
            _STARTING_TIMEOUT_S if starting else 0.0,
        )
        start = last_change = time.monotonic()
        last_graph = None
        while time.monotonic() - start < _MOST_DISCOVERY_S:
            self.spin_once(0.05)
            graph = (
                sorted(self.node.get_node_names_and_namespaces()),
                sorted(map(str, self.node.get_topic_names_and_types())),
                sorted(map(str, self.node.get_service_names_and_types())),
            )
            now = time.monotonic()
            if graph != last_graph:
                last_change, last_graph = now, graph
            # Another process may take seconds to answer: an empty graph is not believed early.
            alone = len(graph[0]) <= 1
            if not alone and now - start > _LEAST_DISCOVERY_S and now - last_change > _QUIET_S:
                return

    def absolute(self, name: str) -> str:
        """Return a topic's or service's name with a leading slash."""
        return name if name.startswith("/") else f"/{name}"

    def node_names(self, include_hidden: bool = False) -> list[str]:
        """Return the full names of the known nodes, sorted."""
        names = [
            f"{namespace.rstrip('/')}/{name}"
            for name, namespace in self.node.get_node_names_and_namespaces()
            if include_hidden or (name and not name.startswith("_"))
        ]
        return sorted(names)

    def names_and_types(self, query: Callable[[], NamesAndTypes], name: str) -> list[str]:
        """Wait for an absolute name to appear in a query; return its types, empty if it does not.

        The wait lasts for --spin-time, else as long as for anything that the user names.
        """
        self.spin_until(lambda: name in dict(query()), self._spin_time_s or _NAMED_THING_TIMEOUT_S)
        return list(dict(query()).get(name, []))

    def require_node(self, name: str, timeout_s: float = _NAMED_THING_TIMEOUT_S) -> str:
        """Wait for a node and return its full name; CommandError when it does not appear."""
        full_name = self.absolute(name)
        if not self.spin_until(lambda: full_name in self.node_names(True), timeout_s):
            known = ", ".join(self.node_names()) or "none"
            raise CommandError(f"Node not found: '{full_name}', known nodes: {known}")
        return full_name

    def topic_types(self, topic: str) -> list[str]:
        """Wait for a topic and return its types; empty when it does not appear."""
        return self.names_and_types(self.node.get_topic_names_and_types, self.absolute(topic))

    def call(
        self, service_type: Any, name: str, request: Any, timeout_s: float = _NAMED_THING_TIMEOUT_S
    ) -> Any:
        """Call a service and return the response; CommandError when it is not there in time."""
        client: Client[Any, Any] = self.node.create_client(service_type, name)
        try:
            if not self.spin_until(client.service_is_ready, timeout_s):
                raise CommandError(f"Wait for service timed out: '{name}' is not available")
            future = client.call_async(request)
            return self.result(future, f"service '{name}'", timeout_s)
        finally:
            self.node.destroy_client(client)

    def result(self, future: Future[Any], what: str, timeout_s: float | None = None) -> Any:
        """Wait for a future; CommandError when it fails or takes longer than the timeout."""
        if not self.spin_until(future.done, timeout_s):
            raise CommandError(f"No answer from {what} within {timeout_s} s")
        error = future.exception()
        if error is not None:
            raise CommandError(f"Exception while calling {what}: {error!r}")
        return future.result()


def visible(names_and_types: NamesAndTypes, include_hidden: bool = False) -> NamesAndTypes:
    """Return (name, types) pairs, sorted, without hidden names (a part starts with '_')."""
    return [
        (name, types)
        for name, types in sorted(names_and_types)
        if include_hidden or not any(part.startswith("_") for part in name.split("/"))
    ]


def print_names(names_and_types: NamesAndTypes, show_types: bool, count: bool) -> None:
    """Print names, with types if wanted, or only their number."""
    if count:
        print(len(names_and_types))
        return
    for name, types in names_and_types:
        print(f"{name} [{', '.join(types)}]" if show_types else name)


def read_standard_input() -> str:
    """Return all text from standard input."""
    return sys.stdin.read()


def one_type(types: Iterable[str], what: str) -> str:
    """Return the only type; CommandError when there is none or more than one."""
    found = sorted(set(types))
    if not found:
        raise CommandError(f"Could not determine the type of {what}: it does not appear to exist")
    if len(found) > 1:
        raise CommandError(f"{what} has more than one type: {', '.join(found)}; name one of them")
    return found[0]
