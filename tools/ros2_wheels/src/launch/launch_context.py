"""The state that entities share while they are visited."""

from __future__ import annotations

import asyncio
import collections
import os
from collections.abc import Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from .event import Event
from .substitution import Substitution

if TYPE_CHECKING:
    from .event_handler import BaseEventHandler


class _Locals:
    """Read-only attribute access to the context's local variables."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__["_values"] = values

    def __getattr__(self, key: str) -> Any:
        try:
            return self.__dict__["_values"][key]
        except KeyError:
            known = ", ".join(self.__dict__["_values"])
            raise AttributeError(
                f"context.locals does not contain attribute '{key}', it contains: [{known}]"
            ) from None

    def __setattr__(self, key: str, value: Any) -> None:
        raise AttributeError(f"can't set attribute '{key}', locals are read-only")


class LaunchContext:
    """Launch configurations, environment, local variables, event handlers and queued events."""

    def __init__(self, *, argv: Iterable[str] | None = None, noninteractive: bool = False) -> None:
        self.argv = list(argv or [])
        self.noninteractive = noninteractive
        self.launch_configurations: dict[str, Any] = {}
        self._configuration_stack: list[dict[str, Any]] = []
        self._environment_stack: list[dict[str, str]] = []
        self._initial_environment = dict(os.environ)
        self._globals: dict[str, Any] = {}
        self._locals: dict[str, Any] = {}
        self._locals_stack: list[dict[str, Any]] = []
        # Newest first: a handler registered later sees an event earlier.
        self._event_handlers: collections.deque[BaseEventHandler] = collections.deque()
        self._events: collections.deque[Event] = collections.deque()
        self._completion_futures: list[asyncio.Future[Any]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake_up = asyncio.Event()
        self._is_shutdown = False

    @property
    def is_shutdown(self) -> bool:
        """Whether the launched system is shutting down."""
        return self._is_shutdown

    @property
    def asyncio_loop(self) -> asyncio.AbstractEventLoop:
        """The running event loop; RuntimeError when the launch service does not run."""
        if self._loop is None:
            raise RuntimeError("the launch service is not running")
        return self._loop

    @property
    def environment(self) -> MutableMapping[str, str]:
        """The environment variables, which are this process's own."""
        return os.environ

    @property
    def locals(self) -> Any:
        """The local variables as read-only attributes, e.g. `context.locals.event`."""
        return _Locals(self.get_locals_as_dict())

    def get_locals_as_dict(self) -> dict[str, Any]:
        """Return the local variables over the global ones."""
        return {**self._globals, **self._locals}

    def extend_globals(self, extensions: dict[str, Any]) -> None:
        """Set variables for the rest of the run."""
        self._globals.update(extensions)

    def extend_locals(self, extensions: dict[str, Any]) -> None:
        """Set variables until the event being handled is done."""
        self._locals.update(extensions)

    def _push_locals(self) -> None:
        self._locals_stack.append(dict(self._locals))

    def _pop_locals(self) -> None:
        self._locals = self._locals_stack.pop()

    def _push_launch_configurations(self) -> None:
        self._configuration_stack.append(dict(self.launch_configurations))

    def _pop_launch_configurations(self) -> None:
        self.launch_configurations = self._configuration_stack.pop()

    def _push_environment(self) -> None:
        self._environment_stack.append(dict(os.environ))

    def _pop_environment(self) -> None:
        self._set_environment(self._environment_stack.pop())

    def _reset_environment(self) -> None:
        self._set_environment(self._initial_environment)

    @staticmethod
    def _set_environment(values: dict[str, str]) -> None:
        os.environ.clear()
        os.environ.update(values)

    def add_completion_future(self, completion_future: asyncio.Future[Any]) -> None:
        """Keep the launch running until the future is done; its exception fails the launch."""
        self._completion_futures.append(completion_future)
        self._wake_up.set()

    def would_handle_event(self, event: Event) -> bool:
        """Return whether a registered handler matches the event."""
        return any(handler.matches(event) for handler in self._event_handlers)

    def register_event_handler(self, event_handler: BaseEventHandler, append: bool = False) -> None:
        """Add a handler before the existing ones, or after them with `append`."""
        if append:
            self._event_handlers.append(event_handler)
        else:
            self._event_handlers.appendleft(event_handler)

    def unregister_event_handler(self, event_handler: BaseEventHandler) -> None:
        """Remove a handler; ValueError when it is not registered."""
        self._event_handlers.remove(event_handler)

    def emit_event_sync(self, event: Event) -> None:
        """Queue an event (from the event loop's thread)."""
        self._events.append(event)
        self._wake_up.set()

    async def emit_event(self, event: Event) -> None:
        """Queue an event."""
        self.emit_event_sync(event)

    def perform_substitution(self, substitution: Substitution) -> str:
        """Return the text of a substitution."""
        return substitution.perform(self)
