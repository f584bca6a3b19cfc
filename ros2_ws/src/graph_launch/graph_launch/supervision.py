"""Launch actions that bring nodes up, watch them, and end the launch with the right exit status.

`ros2 launch` ends with a non-zero status only when an action raised an exception, whatever the
processes did. So every fault here raises one, which also shuts all processes down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from launch import Action, LaunchContext
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit, OnProcessStart
from launch.events import matches_action
from launch.events.process import ProcessExited
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from graph_launch.launch_arguments import LaunchArgument

_DEACTIVATION_TIMEOUT_S = 5.0


class GraphError(RuntimeError):
    """A node failed; raised inside the launch to end it with a non-zero exit status."""


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

    def on_exit(event: ProcessExited, _context: LaunchContext) -> list[Action]:
        if event.returncode == 0:
            return when_done
        return [fail(f"{name} failed (exit code {event.returncode}); its message above says why")]

    return [RegisterEventHandler(OnProcessExit(target_action=process, on_exit=on_exit)), process]


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
