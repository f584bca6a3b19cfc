"""Running one node to its end: the same for every node of this package."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import cv2
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.signals import SignalHandlerOptions

AnyNode = TypeVar("AnyNode", bound=LifecycleNode)
FAREWELL_S = 0.2
"""How long an interrupted node still serves, so that its last words are sent."""


def run_node(
    name: str,
    create: Callable[[], AnyNode],
    say_farewell: Callable[[AnyNode], None],
    arguments: list[str] | None,
) -> int:
    """Run a node until SIGINT or SIGTERM; return the exit status.

    Args:
        name: for messages.
        create: makes the node; its ValueError is told and gives the exit status 1.
        say_farewell: stops whatever moves, while messages can still be sent.
        arguments: of the command line, None: those of the process.
    """
    # An image callback must not hold the interpreter for 5 ms when a command is due.
    sys.setswitchinterval(0.0005)
    cv2.setNumThreads(1)
    # The default handlers shut the context down first, and no stop could be sent any more.
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        node = create()
    except ValueError as error:
        print(f"{name}: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)
        say_farewell(node)
        deadline_s = time.monotonic() + FAREWELL_S
        while time.monotonic() < deadline_s:
            executor.spin_once(timeout_sec=FAREWELL_S / 10.0)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        # A launch passes on the interruption that the terminal has sent already.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return 0
