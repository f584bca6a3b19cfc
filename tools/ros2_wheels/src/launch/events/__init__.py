"""Events of the launch package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..event import Event
from . import process

__all__ = [
    "ExecutionComplete",
    "IncludeLaunchDescription",
    "Shutdown",
    "TimerEvent",
    "matches_action",
    "process",
]


class Shutdown(Event):
    """The launched system is to end."""

    name = "launch.events.Shutdown"

    def __init__(self, *, reason: str = "reason not given", due_to_sigint: bool = False) -> None:
        self.reason = reason
        self.due_to_sigint = due_to_sigint


class IncludeLaunchDescription(Event):
    """A launch description is to be visited."""

    name = "launch.events.IncludeLaunchDescription"

    def __init__(self, launch_description: Any) -> None:
        self.launch_description = launch_description


class ExecutionComplete(Event):
    """An action has done its work."""

    name = "launch.events.ExecutionComplete"

    def __init__(self, *, action: Any) -> None:
        self.action = action


class TimerEvent(Event):
    """A timer's period has passed."""

    name = "launch.events.TimerEvent"

    def __init__(self, *, timer_action: Any) -> None:
        self.timer_action = timer_action


def matches_action(target_action: Any) -> Callable[[Any], bool]:
    """Return a matcher of exactly this action."""
    return lambda action: action is target_action
