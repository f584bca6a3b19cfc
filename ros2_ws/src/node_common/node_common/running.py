"""Running a node as a process that starts with a reason or not at all, and ends in good order."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import TypeVar

import psutil
import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from node_common.realtime import SWITCH_INTERVAL_S, prefer_process, request_realtime
from node_common.running_nodes import find_processes

AnyNode = TypeVar("AnyNode", bound=Node)
CANNOT_START = 2
"""Exit status of a node that was given wrong parameters or files."""
FAILED = 1
END_TIMEOUT_S = 3.0
"""Shorter than what a launch waits before it terminates a process: 5 s."""
_LAST_MESSAGES_S = 0.2
"""How long an interrupted node still serves, so that its last messages are sent."""


class StartError(ValueError):
    """A node cannot start; says what was found and what was expected."""


class Ending:
    """Asks the process of a node to end; may be used from any thread.

    Attributes:
        event: set when the node shall end.
        failure: why the node cannot go on; empty: it was interrupted.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.failure = ""

    def fail(self, reason: str) -> None:
        """End the process with exit status 1 and this message."""
        self.failure = self.failure or reason
        self.event.set()


def run_node(
    name: str,
    create: Callable[[Ending], AnyNode],
    *,
    arguments: list[str] | None = None,
    on_end: Callable[[AnyNode], object] | None = None,
    users: Collection[str] = (),
    main_loop: Callable[[AnyNode], Callable[[], None] | None] = lambda _: None,
    switches_quickly: bool = False,
    goes_first: bool = False,
    realtime_priority: int = 0,
) -> int:
    """Run a node until SIGINT or SIGTERM, or until it fails.

    Args:
        name: of the program, for messages.
        create: makes the node; a ValueError or an OSError of it is told, and ends the process.
        arguments: of the command line, None: those of the process.
        on_end: brings to rest whatever moves, while messages can still be sent; also called after
            an exception.
        users: names of nodes in its namespace that it serves until they have ended, too.
        main_loop: what the main thread does for this node, such as showing a window, while another
            one serves the node; it returns when the node shall end. None: it serves the node.
        switches_quickly: for a node with a tick of its own, which must not wait 5 ms for a callback
            that holds the interpreter; it costs those that compute in several threads.
        goes_first: its threads go before ordinary work, if that is allowed: a watchdog must not
            wait for a network that trains.
        realtime_priority: first-in-first-out scheduling of all its threads, where the system allows
            it; only for a node that does next to nothing. 0: none.

    Returns:
        0 after an interruption, `FAILED`, or `CANNOT_START`.
    """
    if switches_quickly:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
    # Before there are other threads: they inherit both.
    if goes_first:
        prefer_process()
    request_realtime(realtime_priority)
    # The default handlers shut the context down first, and nothing could be brought to rest.
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    ending = Ending()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ending.event.set())
    try:
        node = create(ending)
    except (ValueError, OSError, ParameterException) as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        rclpy.try_shutdown()
        return CANNOT_START
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def serve() -> None:
        while not ending.event.is_set():
            executor.spin_once(timeout_sec=0.1)

    try:
        loop = main_loop(node)
        if loop is None:
            serve()
        else:
            server = threading.Thread(target=serve, daemon=True)
            server.start()
            loop()
            ending.event.set()
            server.join(timeout=1.0)
        if not ending.failure:
            serve_until_gone(node, users, lambda: executor.spin_once(timeout_sec=0.05))
    finally:
        ending.event.set()
        try:
            if on_end is not None:
                on_end(node)
                deadline_s = time.monotonic() + _LAST_MESSAGES_S
                while time.monotonic() < deadline_s:
                    executor.spin_once(timeout_sec=_LAST_MESSAGES_S / 10.0)
        finally:
            executor.shutdown()
            node.destroy_node()
            rclpy.try_shutdown()
            # A launch passes on the interruption that the terminal has sent already.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    if ending.failure:
        print(f"{name}: {ending.failure}", file=sys.stderr, flush=True)
        return FAILED
    return 0


def serve_until_gone(node: Node, users: Collection[str], serve: Callable[[], None]) -> None:
    """Serve on until none of the nodes that use this one is left, for `END_TIMEOUT_S` at most.

    Ctrl-C reaches all processes of a launch at once. A controller still has to put the servos'
    settings back then, and needs the driver for it.

    Args:
        node: this one.
        users: names of nodes in its namespace.
        serve: does a short piece of this node's work, such as `executor.spin_once`.
    """
    deadline_s = time.monotonic() + END_TIMEOUT_S
    namespace = node.get_namespace()
    wanted = {(name, namespace) for name in users}
    if not wanted & set(node.get_node_names_and_namespaces()):
        return
    # A node leaves the graph some time before its process has ended.
    names = {f"{namespace.rstrip('/')}/{name}" for name in users}
    domain_id = int(os.environ.get("ROS_DOMAIN_ID") or 0)
    pids = [process.pid for process in find_processes(names, domain_id)]
    while time.monotonic() < deadline_s and (
        wanted & set(node.get_node_names_and_namespaces()) or any(map(psutil.pid_exists, pids))
    ):
        serve()
