"""Actions that order other actions: groups, includes, timers, event handlers, shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import events, logging
from ..action import Action
from ..event import Event
from ..event_handler import BaseEventHandler, EventHandler
from ..event_handlers import OnShutdown
from ..events.process import ProcessExited
from ..launch_description_entity import LaunchDescriptionEntity
from ..launch_description_source import LaunchDescriptionSource
from ..launch_description_sources import AnyLaunchDescriptionSource
from ..some_substitutions_type import SomeSubstitutionsType
from ..utilities import normalize_to_list_of_substitutions, perform_substitutions
from ..utilities.type_utils import normalize_typed_substitution, perform_typed_substitution
from .configuration import (
    PopEnvironment,
    PopLaunchConfigurations,
    PushEnvironment,
    PushLaunchConfigurations,
    ResetEnvironment,
    ResetLaunchConfigurations,
    SetLaunchConfiguration,
)

if TYPE_CHECKING:
    from ..launch_context import LaunchContext


class OpaqueFunction(Action):
    """Calls function(context, *args, **kwargs), which may return entities."""

    def __init__(
        self,
        *,
        function: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **left_over_kwargs: Any,
    ) -> None:
        super().__init__(**left_over_kwargs)
        if not callable(function):
            raise TypeError(f"OpaqueFunction expected a callable, got {function!r}")
        self._function = function
        self._args = list(args or [])
        self._kwargs = dict(kwargs or {})

    def execute(self, context: LaunchContext) -> Any:
        """Call the function and return its entities."""
        return self._function(context, *self._args, **self._kwargs)


class LogInfo(Action):
    """Logs a message."""

    def __init__(self, *, msg: SomeSubstitutionsType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.msg = normalize_to_list_of_substitutions(msg)

    def execute(self, context: LaunchContext) -> None:
        """Log it."""
        logging.get_logger("launch.user").info(perform_substitutions(context, self.msg))


class EmitEvent(Action):
    """Emits an event."""

    def __init__(self, *, event: Event, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(event, Event):
            raise RuntimeError(f"EmitEvent() expected an event instance, got '{event}'.")
        self.event = event

    def execute(self, context: LaunchContext) -> None:
        """Emit it."""
        context.emit_event_sync(self.event)


class Shutdown(EmitEvent):
    """Ends the launched system; the exit status stays 0."""

    def __init__(self, *, reason: str = "reason not given", **kwargs: Any) -> None:
        super().__init__(event=events.Shutdown(reason=reason), **kwargs)

    def execute(self, context: LaunchContext) -> None:
        """Emit the shutdown event; say so when a process's exit caused it."""
        cause = context.get_locals_as_dict().get("event")
        if isinstance(cause, ProcessExited):
            logging.get_logger("launch").info(
                f"process[{cause.process_name}] was required: shutting down launched system"
            )
        super().execute(context)


class RegisterEventHandler(Action):
    """Adds an event handler."""

    def __init__(self, event_handler: BaseEventHandler, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.event_handler = event_handler

    def describe_conditional_sub_entities(
        self,
    ) -> list[tuple[str, Iterable[LaunchDescriptionEntity]]]:
        """Return what the handler may yield."""
        description, entities = self.event_handler.describe()
        return [(description, entities)] if entities else []

    def execute(self, context: LaunchContext) -> None:
        """Add it."""
        context.register_event_handler(self.event_handler)


class UnregisterEventHandler(Action):
    """Removes an event handler."""

    def __init__(self, event_handler: BaseEventHandler, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.event_handler = event_handler

    def execute(self, context: LaunchContext) -> None:
        """Remove it."""
        context.unregister_event_handler(self.event_handler)


class GroupAction(Action):
    """Actions with a common condition and, when scoped, their own configurations and environment.

    With `forwarding=False` the scope starts without launch configurations, except those in
    `launch_configurations`.
    """

    def __init__(
        self,
        actions: Iterable[Any],
        *,
        scoped: bool = True,
        forwarding: bool = True,
        launch_configurations: Mapping[Any, SomeSubstitutionsType] | None = None,
        **left_over_kwargs: Any,
    ) -> None:
        super().__init__(**left_over_kwargs)
        configurations = dict(launch_configurations or {})
        if scoped and not forwarding:
            prepare: list[Any] = [ResetEnvironment(), ResetLaunchConfigurations(configurations)]
        else:
            prepare = [SetLaunchConfiguration(k, v) for k, v in configurations.items()]
        self._sub_entities = [*prepare, *actions]
        if scoped:
            self._sub_entities = [
                PushLaunchConfigurations(),
                PushEnvironment(),
                *self._sub_entities,
                PopEnvironment(),
                PopLaunchConfigurations(),
            ]

    def get_sub_entities(self) -> list[Any]:
        """Return the actions, with those that make the scope."""
        return self._sub_entities

    def execute(self, context: LaunchContext) -> list[Any]:
        """Return the actions."""
        return self._sub_entities


class IncludeLaunchDescription(Action):
    """Includes another launch description, usually a file, with launch arguments.

    The arguments stay set after the include; wrap it in a GroupAction to prevent that.
    """

    def __init__(
        self,
        launch_description_source: LaunchDescriptionSource | SomeSubstitutionsType,
        *,
        launch_arguments: Iterable[tuple[SomeSubstitutionsType, SomeSubstitutionsType]]
        | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(launch_description_source, LaunchDescriptionSource):
            launch_description_source = AnyLaunchDescriptionSource(launch_description_source)
        self.launch_description_source = launch_description_source
        self.launch_arguments = tuple(launch_arguments or ())

    def get_sub_entities(self) -> list[Any]:
        """Return the included description if it can be loaded before launching."""
        description = self.launch_description_source.try_get_launch_description_without_context()
        return [] if description is None else [description]

    def execute(self, context: LaunchContext) -> list[Any]:
        """Load the description, check its required arguments and return what to visit.

        Raises RuntimeError when a required argument of the description is not given.
        """
        source = self.launch_description_source
        description = source.get_launch_description(context)
        outer = {
            key: context.get_locals_as_dict().get(key)
            for key in ("current_launch_file_path", "current_launch_file_directory")
        }
        path = Path(source.location).absolute()  # not resolved: it may be a link to the sources
        context.extend_locals(
            {
                "current_launch_file_path": str(path),
                "current_launch_file_directory": (
                    str(path.parent) if path.exists() else source.location
                ),
            }
        )
        self._check_required_arguments(description, context)
        restore = [] if outer["current_launch_file_path"] is None else [_restore_locals(outer)]
        return [
            *(SetLaunchConfiguration(name, value) for name, value in self.launch_arguments),
            description,
            *restore,
        ]

    def _argument_names(self, context: LaunchContext) -> list[str]:
        return [
            perform_substitutions(context, normalize_to_list_of_substitutions(name))
            for name, _ in self.launch_arguments
        ]

    def _check_required_arguments(self, description: Any, context: LaunchContext) -> None:
        given = self._argument_names(context)
        pairs = description.get_launch_arguments_with_include_launch_description_actions()
        for argument, includes in pairs:
            if argument._conditionally_included or argument.default_value is not None:
                continue
            known = [*given, *(n for i in includes or [] for n in i._argument_names(context))]
            if argument.name not in known and argument.name not in context.launch_configurations:
                raise RuntimeError(
                    f"Included launch description missing required argument '{argument.name}' "
                    f"(description: '{argument.description}'), given: [{', '.join(known)}]"
                )


def _restore_locals(values: dict[str, Any]) -> OpaqueFunction:
    return OpaqueFunction(function=lambda context: context.extend_locals(values))


class TimerAction(Action):
    """Yields actions after a period in seconds, once, unless cancelled."""

    def __init__(
        self,
        *,
        period: float | SomeSubstitutionsType,
        actions: Iterable[LaunchDescriptionEntity],
        cancel_on_shutdown: bool | SomeSubstitutionsType = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        literal = isinstance(period, (int, str))
        self.period = (
            float(period)  # type: ignore[arg-type]
            if literal
            else normalize_typed_substitution(period, float)
        )
        self.actions = list(actions)
        self._cancel_on_shutdown = normalize_typed_substitution(cancel_on_shutdown, bool)
        self._cancelled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def describe_conditional_sub_entities(
        self,
    ) -> list[tuple[str, Iterable[LaunchDescriptionEntity]]]:
        """Return the actions."""
        return [(f"{self.period} seconds pass without being canceled", self.actions)]

    def cancel(self) -> None:
        """Prevent the actions, if they were not yielded yet."""
        self._cancelled.set()

    def get_asyncio_future(self) -> asyncio.Task[None] | None:
        """Return the waiting task."""
        return self._task

    def execute(self, context: LaunchContext) -> None:
        """Start to wait."""
        if self._cancelled.is_set():
            return
        period_s = perform_typed_substitution(context, self.period, float)
        context_locals = context.get_locals_as_dict()

        def fire(event_context: LaunchContext) -> list[LaunchDescriptionEntity]:
            event_context.extend_locals(context_locals)
            return self.actions

        on_timer = EventHandler(
            matcher=lambda e: isinstance(e, events.TimerEvent) and e.timer_action is self,
            entities=[OpaqueFunction(function=fire)],
            handle_once=True,
        )
        context.register_event_handler(on_timer)
        if perform_typed_substitution(context, self._cancel_on_shutdown, bool):
            context.register_event_handler(OnShutdown(on_shutdown=lambda e, c: self.cancel()))

        async def wait() -> None:
            try:
                await asyncio.wait_for(self._cancelled.wait(), timeout=period_s)
            except TimeoutError:
                context.emit_event_sync(events.TimerEvent(timer_action=self))

        self._task = context.asyncio_loop.create_task(wait())
