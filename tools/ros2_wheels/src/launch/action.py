"""Base class of actions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .condition import Condition
from .launch_description_entity import LaunchDescriptionEntity

if TYPE_CHECKING:
    from .launch_context import LaunchContext


class Action(LaunchDescriptionEntity):
    """An intention that is executed when visited, unless its condition is false."""

    def __init__(self, *, condition: Condition | None = None) -> None:
        self._condition = condition

    @property
    def condition(self) -> Condition | None:
        """The condition, or None."""
        return self._condition

    def get_sub_entities(self) -> list[Any]:
        """Return the entities that executing yields, as far as known beforehand."""
        return []

    def describe_sub_entities(self) -> list[LaunchDescriptionEntity]:
        """Return the sub-entities of an unconditional action."""
        return self.get_sub_entities() if self._condition is None else []

    def describe_conditional_sub_entities(
        self,
    ) -> list[tuple[str, Iterable[LaunchDescriptionEntity]]]:
        """Return the sub-entities of a conditional action."""
        if self._condition is None:
            return []
        return [(f"Conditionally included by {self.describe()}", self.get_sub_entities())]

    def visit(self, context: LaunchContext) -> Iterable[LaunchDescriptionEntity] | None:
        """Execute if the condition holds; ExecutionComplete follows when the work is done."""
        from .events import ExecutionComplete

        if self._condition is not None and not self._condition.evaluate(context):
            return None
        result = self.execute(context)
        event = ExecutionComplete(action=self)
        if context.would_handle_event(event):
            future = self.get_asyncio_future()
            if future is None:
                context.emit_event_sync(event)
            else:
                future.add_done_callback(lambda _: context.emit_event_sync(event))
        return result

    def execute(self, context: LaunchContext) -> Iterable[LaunchDescriptionEntity] | None:
        """Do the work of the action and return further entities to visit, or None."""
        return None
