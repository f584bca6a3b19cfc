"""The end of a graph in order: who commands ends before what carries the commands out.

Ctrl-C reaches all processes of a launch at once. A controller still has to put the servos' settings
back then, and needs the driver for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection

import psutil
from rclpy.node import Node

from node_common.running_nodes import find_processes

END_TIMEOUT_S = 3.0
"""Shorter than what a launch waits before it terminates a process: 5 s."""


def serve_until_gone(node: Node, users: Collection[str], serve: Callable[[], None]) -> None:
    """Serve on until none of the nodes that use this one is left, for `END_TIMEOUT_S` at most.

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
