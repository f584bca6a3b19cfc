"""Events of lifecycle nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from launch import Event
from lifecycle_msgs.msg import State, Transition, TransitionEvent

from .matchers import matches_node_name

__all__ = ["ChangeState", "StateTransition", "matches_node_name"]


def _constants(message_type: Any, prefixes: tuple[str, ...]) -> dict[int, str]:
    names = [name for name in dir(message_type) if name.startswith(prefixes)]
    return {getattr(message_type, name): name for name in names}


class ChangeState(Event):
    """Asks the lifecycle nodes that the matcher accepts to make a transition."""

    name = "launch_ros.events.lifecycle.ChangeState"
    valid_transitions: ClassVar[dict[int, str]] = {
        number: name
        for number, name in _constants(Transition, ("TRANSITION_",)).items()
        if number <= Transition.TRANSITION_DESTROY
    }
    valid_states: ClassVar[dict[int, str]] = _constants(
        State, ("PRIMARY_STATE_", "TRANSITION_STATE_")
    )

    def __init__(
        self, *, lifecycle_node_matcher: Callable[[Any], bool], transition_id: int
    ) -> None:
        """Raise ValueError for an unknown transition (see lifecycle_msgs.msg.Transition)."""
        if transition_id not in self.valid_transitions:
            known = ", ".join(f"{name}: {n}" for n, name in sorted(self.valid_transitions.items()))
            raise ValueError(
                f"given transition_id of '{transition_id}', expected one of {{{known}}}"
            )
        self.lifecycle_node_matcher = lifecycle_node_matcher
        self.transition_id = transition_id


class StateTransition(Event):
    """A lifecycle node has changed its state."""

    name = "launch_ros.events.lifecycle.StateTransition"

    def __init__(self, *, action: Any, msg: TransitionEvent) -> None:
        self.action = action
        self.msg = msg
        self.timestamp = msg.timestamp
        self.transition = msg.transition.label
        self.start_state = msg.start_state.label
        self.goal_state = msg.goal_state.label
