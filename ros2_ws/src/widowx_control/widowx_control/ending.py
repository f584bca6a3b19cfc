"""The end of a graph in order: who commands ends before what carries the commands out.

Ctrl-C reaches all processes of a launch at once. A controller still has to put the servos' settings
back then, and needs the driver for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from rclpy.node import Node

END_TIMEOUT_S = 2.0
"""Shorter than what a launch waits before it terminates a process: 5 s."""


def serve_until_gone(node: Node, users: Collection[str], serve: Callable[[], None]) -> None:
    """Serve on until none of the nodes that use this one is left, for `END_TIMEOUT_S` at most.

    Args:
        node: this one.
        users: names of nodes in its namespace.
        serve: does a short piece of this node's work, such as `executor.spin_once`.
    """
    deadline_s = time.monotonic() + END_TIMEOUT_S
    wanted = {(name, node.get_namespace()) for name in users}
    while time.monotonic() < deadline_s and wanted & set(node.get_node_names_and_namespaces()):
        serve()
