"""Launch actions that bring nodes up, watch them, and end the launch with the right exit status.

`ros2 launch` ends with a non-zero status only when an action raised an exception, whatever the
processes did. So every fault here raises one, which also shuts all processes down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessExit, OnProcessStart
from launch.events import matches_action
from launch.events.process import ProcessExited
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from launch import Action, LaunchContext
from widowx_bringup.launch_arguments import LaunchArgument


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


def bring_up(node: LifecycleNode, name: str, when_active: list[Action]) -> list[Action]:
    """Start a lifecycle node, configure and activate it, then do `when_active`.

    A refused transition or the death of the node ends the launch with a non-zero exit status.
    """

    def change_state(transition: int) -> EmitEvent:
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
        )

    def on_transition(start: str, goal: str, actions: list[Action]) -> RegisterEventHandler:
        return RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node, start_state=start, goal_state=goal, entities=actions
            )
        )

    def refused(transition: str) -> list[Action]:
        return [fail(f"{name} refused to {transition}; its own message above says why")]

    return [
        on_transition("configuring", "inactive", [change_state(Transition.TRANSITION_ACTIVATE)]),
        on_transition("configuring", "unconfigured", refused("configure")),
        on_transition("configuring", "errorprocessing", refused("configure")),
        on_transition("activating", "active", when_active),
        on_transition("activating", "inactive", refused("activate")),
        on_transition("activating", "errorprocessing", refused("activate")),
        RegisterEventHandler(
            OnProcessStart(
                target_action=node,
                on_start=[change_state(Transition.TRANSITION_CONFIGURE)],
            )
        ),
        *run(node, name),
    ]


def run(process: Action, name: str) -> list[Action]:
    """Start a process that must not end by itself."""

    def on_exit(event: ProcessExited, _context: LaunchContext) -> list[Action]:
        return [fail(f"{name} died (exit code {event.returncode})")]

    return [RegisterEventHandler(OnProcessExit(target_action=process, on_exit=on_exit)), process]


def run_to_end(process: Action, name: str) -> list[Action]:
    """Start the process whose end is the end of the launch, and whose success is its success."""

    def on_exit(event: ProcessExited, _context: LaunchContext) -> list[Action]:
        if event.returncode == 0:
            return [Shutdown(reason=f"{name} is done")]
        return [fail(f"{name} failed (exit code {event.returncode}); its message above says why")]

    return [RegisterEventHandler(OnProcessExit(target_action=process, on_exit=on_exit)), process]


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
