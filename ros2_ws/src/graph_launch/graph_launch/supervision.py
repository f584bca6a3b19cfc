"""Launch actions that bring nodes up, watch them, and end the launch with the right exit status.

`ros2 launch` ends with a non-zero status only when an action raised an exception, whatever the
processes did. So every fault here raises one, which also shuts all processes down.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from launch import Action, Event, EventHandler, LaunchContext
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit, OnProcessStart, OnShutdown
from launch.events import Shutdown as ShutdownEvent
from launch.events import matches_action
from launch.events.process import ProcessExited
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition
from node_common.running_nodes import find_running

from graph_launch.launch_arguments import LaunchArgument

_DEACTIVATION_TIMEOUT_S = 5.0
_START_LOCK_TIMEOUT_S = 5.0
_START_S = 1.0
"""How long the processes of a launch may take until they are in the process table."""
_HIGHEST_DOMAIN_ID = 232
_MAY_REPEAT = ("rviz2",)
"""Executables that command nothing: several may run."""


class GraphError(RuntimeError):
    """A node failed; raised inside the launch to end it with a non-zero exit status."""


class GraphInterrupted(GraphError):
    """The user ended the launch before its work was done.

    Attributes:
        exit_status: of the launch, where it looks for one, as of a program that SIGINT ended; ROS
            2's own launch ends with 1.
    """

    exit_status = 128 + signal.SIGINT


class _Interruption(Event):
    """SIGINT came before the work was done."""

    name = "graph_launch.Interruption"


def declare(arguments: Iterable[LaunchArgument]) -> list[Action]:
    """Declare launch arguments, for `--show-args` and for including launch files."""
    actions: list[Action] = []
    for argument in arguments:
        limits = {"choices": list(argument.allowed_texts)} if argument.allowed_texts else {}
        actions.append(
            DeclareLaunchArgument(
                argument.name,
                default_value=argument.default,
                description=argument.description,
                **limits,
            )
        )
    return actions


def fail(message: str) -> OpaqueFunction:
    """Action that ends the launch with a non-zero exit status, unless it is ending already."""

    def raise_error(context: LaunchContext) -> None:
        if not context.is_shutdown:
            raise GraphError(message)

    return OpaqueFunction(function=raise_error)


def unless_running(
    context: LaunchContext, actions: list[Action], later: Iterable[Node] = ()
) -> list[Action]:
    """Do `actions`, unless a node that they start runs already in this ROS domain.

    Args:
        context: of the launch.
        actions: what starts the nodes.
        later: nodes that are started later, by events.

    Raises:
        GraphError: there are such nodes; the message names them.
    """
    names = _node_names(context, [*actions, *later])
    domain_id = _domain_id()
    lock = _start_lock(domain_id)
    running = find_running(names, domain_id)
    if running:
        listed = "\n".join(f"  {node}" for node in running)
        raise GraphError(
            f"already running in ROS domain {domain_id}:\n{listed}\n"
            "End that run first, or keep this one apart from it: set ROS_DOMAIN_ID, e.g. "
            f"ROS_DOMAIN_ID={domain_id % 100 + 1}"
        )
    if lock is None:
        return actions
    # Another launch that looks now would not find the processes yet.
    release = OpaqueFunction(function=lambda _context: lock.close())
    return [*actions, TimerAction(period=_START_S, actions=[release])]


def _domain_id() -> int:
    text = os.environ.get("ROS_DOMAIN_ID") or "0"
    if not text.isdecimal() or int(text) > _HIGHEST_DOMAIN_ID:
        raise GraphError(
            f"ROS_DOMAIN_ID is '{text}'; expected a whole number in 0 .. {_HIGHEST_DOMAIN_ID}"
        )
    return int(text)


def _node_names(context: LaunchContext, actions: Iterable[Action]) -> set[str]:
    names = set()
    for action in actions:
        if isinstance(action, Node) and action.node_executable not in _MAY_REPEAT:
            action._perform_substitutions(context)  # which the node does once, now or later
            namespace, _, name = action.node_name.rpartition("/")
            if name != Node.UNSPECIFIED_NODE_NAME:
                if namespace.strip("/") == Node.UNSPECIFIED_NODE_NAMESPACE:
                    namespace = ""
                names.add(f"{namespace}/{name}")
    return names


def _start_lock(domain_id: int) -> IO[str] | None:
    """Let launches of one domain start one after the other, as far as the system allows it."""
    path = Path(tempfile.gettempdir()) / f"coxswain_start_{os.getuid()}_{domain_id}.lock"
    deadline_s = time.monotonic() + _START_LOCK_TIMEOUT_S
    with contextlib.suppress(OSError):
        file = path.open("a")
        while time.monotonic() < deadline_s:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except BlockingIOError:
                time.sleep(0.05)
        file.close()
    return None


def _change_state(node: LifecycleNode, transition: int) -> EmitEvent:
    return EmitEvent(
        event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
    )


def _on_transition(
    node: LifecycleNode, start: str, goal: str, actions: list[Action]
) -> RegisterEventHandler:
    return RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node, start_state=start, goal_state=goal, entities=actions
        )
    )


def bring_up(node: LifecycleNode, name: str, when_active: list[Action]) -> list[Action]:
    """Start a lifecycle node, configure and activate it, then do `when_active`.

    A refused transition or the death of the node ends the launch with a non-zero exit status.
    """

    def refused(transition: str) -> list[Action]:
        return [fail(f"{name} refused to {transition}; its own message above says why")]

    return [
        _on_transition(
            node, "configuring", "inactive", [_change_state(node, Transition.TRANSITION_ACTIVATE)]
        ),
        _on_transition(node, "configuring", "unconfigured", refused("configure")),
        _on_transition(node, "configuring", "errorprocessing", refused("configure")),
        _on_transition(node, "activating", "active", when_active),
        _on_transition(node, "activating", "inactive", refused("activate")),
        _on_transition(node, "activating", "errorprocessing", refused("activate")),
        RegisterEventHandler(
            OnProcessStart(
                target_action=node,
                on_start=[_change_state(node, Transition.TRANSITION_CONFIGURE)],
            )
        ),
        *run(node, name),
    ]


def run(process: Action, name: str) -> list[Action]:
    """Start a process that must not end by itself."""

    def on_exit(event: ProcessExited, _context: LaunchContext) -> list[Action]:
        return [fail(f"{name} died (exit code {event.returncode})")]

    return [RegisterEventHandler(OnProcessExit(target_action=process, on_exit=on_exit)), process]


def run_to_end(process: Action, name: str, when_done: list[Action]) -> list[Action]:
    """Start the process whose success is that of the launch; after it do `when_done`."""

    def on_exit(event: ProcessExited, context: LaunchContext) -> list[Action]:
        if event.returncode == 0:
            return when_done
        if event.returncode == GraphInterrupted.exit_status and not context.is_shutdown:
            raise GraphInterrupted(f"{name} was interrupted")
        return [fail(f"{name} failed (exit code {event.returncode}); its message above says why")]

    return [RegisterEventHandler(OnProcessExit(target_action=process, on_exit=on_exit)), process]


def interruptible(actions: list[Action]) -> list[Action]:
    """Have SIGINT end the launch with a non-zero exit status; a work that is done ends it before.

    Not for a launch that only SIGINT ends.
    """

    def on_shutdown(event: ShutdownEvent, _context: LaunchContext) -> list[Action]:
        # Not raised at once: an exception would keep the processes from being told to end.
        return [EmitEvent(event=_Interruption())] if event.due_to_sigint else []

    def interrupt(_context: LaunchContext) -> None:
        raise GraphInterrupted("interrupted before all was done")

    return [
        RegisterEventHandler(OnShutdown(on_shutdown=on_shutdown)),
        RegisterEventHandler(
            EventHandler(
                matcher=lambda event: isinstance(event, _Interruption),
                entities=[OpaqueFunction(function=interrupt)],
            )
        ),
        *actions,
    ]


def deactivate_and_end(node: LifecycleNode, reason: str) -> list[Action]:
    """Deactivate a node while the others still serve it, then end the launch."""
    end = Shutdown(reason=reason)
    return [
        _on_transition(node, "deactivating", "inactive", [end]),
        _change_state(node, Transition.TRANSITION_DEACTIVATE),
        TimerAction(period=_DEACTIVATION_TIMEOUT_S, actions=[end]),
    ]


def when_all(names: Iterable[str], actions: list[Action]) -> Callable[[str], list[Action]]:
    """Do `actions` once every one of `names` has happened.

    Returns:
        a function that gives, for one of the names, the actions to be done when it happens.
    """
    missing = set(names)

    def happened(name: str) -> list[Action]:
        def note(_context: LaunchContext) -> list[Action] | None:
            if name not in missing:
                return None
            missing.remove(name)
            return None if missing else actions

        return [OpaqueFunction(function=note)]

    return happened
