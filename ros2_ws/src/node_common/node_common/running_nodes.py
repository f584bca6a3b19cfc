"""Finds nodes that run already under the names that a launch is about to give.

Two nodes of one name in one domain both obey what is meant for one: lifecycle requests, parameters
and commands. Processes of this machine are read from the process table, which is quick and knows
also those that do not answer; the ROS graph shows the others (other computers, containers, users).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import rclpy

DISCOVERY_S = 0.8
"""How long the graph is watched: some times what discovery takes between two idle processes."""

_RULE = re.compile(r"^(?:[^:]+:)?__(node|name|ns):=(.+)$")


@dataclass(frozen=True)
class NodeProcess:
    """A process that was started as a node.

    Attributes:
        node: full name.
        pid: of the process.
        launch: command line of the launch that it belongs to, empty: that has ended.
        domain_id: ROS domain, None: of another user, who does not show it.
    """

    node: str
    pid: int
    launch: str
    domain_id: int | None

    def describe(self) -> str:
        """The node, its process and what to do about it."""
        if self.launch:
            return f"{self.node} (pid {self.pid}, started by `{self.launch}`)"
        return (
            f"{self.node} (pid {self.pid}, left over from a run that was killed: "
            f"end it with `kill {self.pid}`)"
        )


def node_name(arguments: Iterable[str]) -> str | None:
    """Full name that a command line gives to its node, None: it gives none."""
    given = {}
    for argument in arguments:
        rule = _RULE.match(argument)
        if rule is not None:
            given[rule.group(1)] = rule.group(2)
    name = given.get("node") or given.get("name")
    return None if name is None else f"{given.get('ns', '').rstrip('/')}/{name}"


def find_processes(names: Collection[str], domain_id: int) -> list[NodeProcess]:
    """Processes of this machine and network that were started under one of these full names.

    Args:
        names: full names of nodes.
        domain_id: ROS domain; processes that hide theirs are in the result, too.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # processes come and go
            arguments = process.cmdline()
            name = node_name(arguments)
            # `ros2 run` carries the arguments of the node that it runs.
            if name is None or name not in names or _ros2_command(arguments):
                continue
            if not _shares_network(process.pid):
                continue
            try:
                process_domain_id = int(process.environ().get("ROS_DOMAIN_ID") or 0)
            except (psutil.AccessDenied, ValueError):
                process_domain_id = None
            if process_domain_id in (domain_id, None):
                found.append(NodeProcess(name, process.pid, _launch_of(process), process_domain_id))
    return found


def _shares_network(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
    except PermissionError:
        return True


def _ros2_command(arguments: Sequence[str]) -> str:
    """A command line from `ros2` on, empty: it is another program's."""
    for index, argument in enumerate(arguments):
        if Path(argument).name == "ros2":
            return " ".join(["ros2", *arguments[index + 1 :]])
    return ""


def _launch_of(process: psutil.Process) -> str:
    """Command line that started a process and looks after it, empty: it has ended."""
    parent = process.parent()
    # Orphans are adopted by the first process or by the collector of their session.
    if parent is None:
        return ""
    arguments = parent.cmdline()
    orphaned = parent.pid == 1 or parent.name() in ("systemd", "init")
    return _ros2_command(arguments) or ("" if orphaned else " ".join(arguments))


def find_running(names: Collection[str], domain_id: int) -> list[str]:
    """Nodes that run under one of these full names, each described in words.

    Args:
        names: full names of nodes.
        domain_id: ROS domain that this process is in.
    """
    processes = find_processes(names, domain_id)
    if any(process.domain_id is not None for process in processes):
        return [process.describe() for process in processes if process.domain_id is not None]
    present = _find_in_graph(names)
    known = [process for process in processes if process.node in present]
    elsewhere = present - {process.node for process in known}
    return [
        *(process.describe() for process in known),
        *(f"{name} (in the graph; no launched process of this computer)" for name in elsewhere),
    ]


def _find_in_graph(names: Collection[str]) -> set[str]:
    """Those of the names that are in the ROS graph. Nodes that were killed never show up here:
    who joins the graph hears of living participants only."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node(
        f"_running_nodes_{os.getpid()}",  # hidden, as the nodes of the tools are
        context=context,
        enable_rosout=False,
        start_parameter_services=False,
    )
    try:
        deadline_s = time.monotonic() + DISCOVERY_S
        while True:
            present = {
                f"{namespace.rstrip('/')}/{name}"
                for name, namespace in node.get_node_names_and_namespaces()
            } & set(names)
            if present or time.monotonic() > deadline_s:
                return present
            time.sleep(0.05)
    finally:
        node.destroy_node()
        context.try_shutdown()
