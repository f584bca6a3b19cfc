"""Base classes of event handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .event import Event
from .some_entities_type import SomeEntitiesType
from .utilities import normalize_to_list_of_entities

if TYPE_CHECKING:
    from .launch_context import LaunchContext


class BaseEventHandler:
    """Handles the events that its matcher accepts."""

    def __init__(self, *, matcher: Callable[[Any], bool], handle_once: bool = False) -> None:
        self._matcher = matcher
        self.handle_once = handle_once

    def matches(self, event: Event) -> bool:
        """Return whether the event is for this handler."""
        return self._matcher(event)

    def describe(self) -> tuple[str, list[Any]]:
        """Return a description and the entities that handling yields, as far as known."""
        return f"{type(self).__name__}(handle_once={self.handle_once})", []

    def handle(self, event: Event, context: LaunchContext) -> SomeEntitiesType | None:
        """Make the event available as `context.locals.event` and return entities to visit."""
        context.extend_locals({"event": event})
        if self.handle_once:
            context.unregister_event_handler(self)
        return None


class EventHandler(BaseEventHandler):
    """Yields given entities, or the result of a callable, for the events that it matches."""

    def __init__(
        self,
        *,
        matcher: Callable[[Any], bool],
        entities: SomeEntitiesType | None = None,
        handle_once: bool = False,
    ) -> None:
        super().__init__(matcher=matcher, handle_once=handle_once)
        self.entities = entities

    def describe(self) -> tuple[str, list[Any]]:
        """Return a description and the entities."""
        return super().describe()[0], normalize_to_list_of_entities(self.entities)

    def handle(self, event: Event, context: LaunchContext) -> SomeEntitiesType | None:
        """Return the entities."""
        super().handle(event, context)
        return self.entities
