"""Runs one lifecycle node as a process that ends in good order."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Collection
from typing import Any

import rclpy
from node_common.ending import serve_until_gone
from node_common.realtime import prefer_process, request_realtime
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions


def run_node(
    name: str,
    make_node: Callable[[], Node],
    realtime_priority: int = 0,
    users: Collection[str] = (),
) -> int:
    """Run a node until it is interrupted.

    Its threads go before ordinary work, if that is allowed: a watchdog must not wait for a network
    that trains.

    Args:
        name: of the program, for messages.
        make_node: makes the node; `destroy_node` must bring the hardware to rest.
        realtime_priority: first-in-first-out scheduling of all its threads, where the system allows
            it; only for a node that does next to nothing. 0: none.
        users: names of nodes that it serves until they have ended, too.

    Returns:
        0 after an interruption, 2 when the node was given bad parameters.
    """
    # Before there are other threads: they inherit both.
    prefer_process()
    request_realtime(realtime_priority)
    # The default handlers shut the context down first, and nothing could be brought to rest.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()

    def on_signal(*_: Any) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        node = make_node()
    except ValueError as error:
        print(f"{name}: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)
        serve_until_gone(node, users, lambda: executor.spin_once(timeout_sec=0.05))
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
        # A launch passes on the interruption that the terminal has sent already.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return 0
