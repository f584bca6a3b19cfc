"""Event handlers for processes, completed actions and shutdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .event import Event
from .event_handler import BaseEventHandler
from .events import ExecutionComplete, Shutdown
from .events.process import ProcessExited, ProcessIO, ProcessStarted
from .launch_description_entity import LaunchDescriptionEntity
from .some_entities_type import SomeEntitiesType
from .utilities import normalize_to_list_of_entities

if TYPE_CHECKING:
    from .launch_context import LaunchContext

__all__ = [
    "OnExecutionComplete",
    "OnProcessExit",
    "OnProcessIO",
    "OnProcessStart",
    "OnShutdown",
]

Reaction = SomeEntitiesType | Callable[[Any, Any], SomeEntitiesType | None]


class _ReactionHandler(BaseEventHandler):
    """Yields fixed entities, or what a callable (event, context) returns."""

    def __init__(self, *, reaction: Reaction, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._function: Callable[[Any, Any], SomeEntitiesType | None] | None = None
        self._entities: list[LaunchDescriptionEntity] = []
        if isinstance(reaction, (LaunchDescriptionEntity, Iterable)):
            self._entities = normalize_to_list_of_entities(reaction)
            for entity in self._entities:
                if not isinstance(entity, LaunchDescriptionEntity):
                    raise TypeError(f"expected launch description entities, got {entity!r}")
        elif callable(reaction):
            self._function = reaction
        else:
            raise TypeError(f"expected entities or a callable, got {reaction!r}")

    def describe(self) -> tuple[str, list[Any]]:
        """Return a description and the fixed entities."""
        return super().describe()[0], list(self._entities)

    def handle(self, event: Event, context: LaunchContext) -> SomeEntitiesType | None:
        """Return the entities for this event."""
        super().handle(event, context)
        return self._entities if self._function is None else self._function(event, context)


class _ActionEventHandler(_ReactionHandler):
    """Handles one kind of event of one action, of those a callable accepts, or of all."""

    def __init__(
        self, *, event_type: type[Any], target_action: Any, reaction: Reaction, **kwargs: Any
    ) -> None:
        from .action import Action

        if not (
            target_action is None or isinstance(target_action, Action) or callable(target_action)
        ):
            raise TypeError(f"target_action must be an action or a callable, got {target_action!r}")

        def matcher(event: Any) -> bool:
            if not isinstance(event, event_type):
                return False
            if target_action is None or event.action is target_action:
                return True
            return not isinstance(target_action, Action) and target_action(event.action)

        super().__init__(matcher=matcher, reaction=reaction, **kwargs)


class OnProcessStart(_ActionEventHandler):
    """Reacts to the start of a process."""

    def __init__(self, *, target_action: Any = None, on_start: Reaction, **kwargs: Any) -> None:
        super().__init__(
            event_type=ProcessStarted, target_action=target_action, reaction=on_start, **kwargs
        )


class OnProcessExit(_ActionEventHandler):
    """Reacts to the end of a process."""

    def __init__(self, *, target_action: Any = None, on_exit: Reaction, **kwargs: Any) -> None:
        super().__init__(
            event_type=ProcessExited, target_action=target_action, reaction=on_exit, **kwargs
        )


class OnProcessIO(_ActionEventHandler):
    """Reacts to output of a process; the callables take the event only."""

    def __init__(
        self,
        *,
        target_action: Any = None,
        on_stdin: Callable[[Any], SomeEntitiesType | None] | None = None,
        on_stdout: Callable[[Any], SomeEntitiesType | None] | None = None,
        on_stderr: Callable[[Any], SomeEntitiesType | None] | None = None,
        **kwargs: Any,
    ) -> None:
        by_descriptor = {0: on_stdin, 1: on_stdout, 2: on_stderr}

        def react(event: Any, _: Any) -> SomeEntitiesType | None:
            function = by_descriptor[event.fd]
            return None if function is None else function(event)

        super().__init__(
            event_type=ProcessIO, target_action=target_action, reaction=react, **kwargs
        )


class OnExecutionComplete(_ActionEventHandler):
    """Reacts to an action having done its work."""

    def __init__(
        self, *, target_action: Any = None, on_completion: Reaction, **kwargs: Any
    ) -> None:
        super().__init__(
            event_type=ExecutionComplete,
            target_action=target_action,
            reaction=on_completion,
            **kwargs,
        )


class OnShutdown(_ReactionHandler):
    """Reacts to the launched system's shutdown."""

    def __init__(self, *, on_shutdown: Reaction, **kwargs: Any) -> None:
        super().__init__(
            matcher=lambda event: isinstance(event, Shutdown), reaction=on_shutdown, **kwargs
        )
