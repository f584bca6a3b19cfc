"""The event loop that visits launch descriptions and handles events."""

from __future__ import annotations

import asyncio
import logging as standard_logging
import signal
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from . import logging
from .event import Event
from .event_handler import EventHandler
from .events import IncludeLaunchDescription, Shutdown
from .launch_context import LaunchContext
from .launch_description import LaunchDescription
from .launch_description_entity import LaunchDescriptionEntity
from .utilities import normalize_to_list_of_entities


class LaunchService:
    """Runs included launch descriptions until nothing is left to do or a shutdown is asked for.

    `run` returns 0, or 1 when an exception was raised by an entity, an event handler or an
    action's work, or when the service itself was told to terminate (SIGTERM, SIGQUIT). The exit
    status of a process alone does not change the result. Beyond ROS 2's own launch, an exception
    may name another status as its attribute `exit_status`.
    """

    def __init__(
        self,
        *,
        argv: Iterable[str] | None = None,
        noninteractive: bool = False,
        debug: bool = False,
    ) -> None:
        logging.launch_config.level = standard_logging.DEBUG if debug else standard_logging.INFO
        self._logger = logging.get_logger("launch")
        self.context = LaunchContext(argv=argv, noninteractive=noninteractive)
        self._futures: list[asyncio.Future[Any]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._return_code = 0
        from .actions import OpaqueFunction

        self.context.register_event_handler(
            EventHandler(
                matcher=lambda event: isinstance(event, IncludeLaunchDescription),
                entities=[OpaqueFunction(function=lambda c: [c.locals.event.launch_description])],
            )
        )

    @property
    def event_loop(self) -> asyncio.AbstractEventLoop | None:
        """The running event loop, or None."""
        return self._loop

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The running task, or None."""
        return self._task

    def include_launch_description(self, launch_description: LaunchDescription) -> None:
        """Have the description visited; callable from any thread."""
        self.emit_event(IncludeLaunchDescription(launch_description))

    def emit_event(self, event: Event) -> None:
        """Queue an event; callable from any thread, also before `run`."""
        if self._loop is None:
            self.context.emit_event_sync(event)
        else:
            self._loop.call_soon_threadsafe(self.context.emit_event_sync, event)

    def shutdown(self, force_sync: bool = False) -> Any:
        """Ask the running service to shut down; callable from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._shut_down, "LaunchService.shutdown() called")
        return asyncio.sleep(0) if self._on_loop_thread() and not force_sync else None

    def _on_loop_thread(self) -> bool:
        try:
            return self._loop is not None and asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def run(self, *, shutdown_when_idle: bool = True) -> int:
        """Run until done and return the exit status; only in the main thread."""
        loop = asyncio.new_event_loop()
        try:
            asyncio.set_event_loop(loop)
            return loop.run_until_complete(self.run_async(shutdown_when_idle=shutdown_when_idle))
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            asyncio.set_event_loop(None)
            loop.close()

    async def run_async(self, *, shutdown_when_idle: bool = True) -> int:
        """Run until done and return the exit status; RuntimeError outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("LaunchService can only be run in the main thread.")
        if self._loop is not None:
            raise RuntimeError("LaunchService cannot be run multiple times concurrently.")
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self.context._loop = self._loop
        self.context._is_shutdown = False
        self._return_code = 0
        logging.log_launch_config(logger=self._logger)
        self._loop.set_exception_handler(self._on_loop_exception)
        signal_handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGINT: self._on_sigint,
            signal.SIGTERM: lambda: self._on_terminate(signal.SIGTERM),
            signal.SIGQUIT: lambda: self._on_terminate(signal.SIGQUIT),
        }
        previous = {number: signal.getsignal(number) for number in signal_handlers}
        for number, handler in signal_handlers.items():
            self._loop.add_signal_handler(number, handler)
        try:
            await self._run_until_idle(shutdown_when_idle)
        finally:
            for number in signal_handlers:
                self._loop.remove_signal_handler(number)
                signal.signal(number, previous[number])
            self.context._loop = self._loop = self._task = None
        return self._return_code

    async def _run_until_idle(self, shutdown_when_idle: bool) -> None:
        context = self.context
        while True:
            try:
                while context._events:
                    self._handle(context._events.popleft())
                pending = self._pending_futures()
                if not pending and not context._events:
                    if context.is_shutdown:
                        return
                    if shutdown_when_idle:
                        self._shut_down("idle")
                        continue
                context._wake_up.clear()
                wake_up = asyncio.ensure_future(context._wake_up.wait())
                if context._events:
                    wake_up.cancel()
                    continue
                try:
                    await asyncio.wait([*pending, wake_up], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    wake_up.cancel()
            except asyncio.CancelledError:
                self._logger.error("run task was canceled")
                self._return_code = 1
                return
            except Exception as error:
                # The launch fails, but keeps running until all its processes have ended.
                self._logger.debug(traceback.format_exc())
                message = f"Caught exception in launch (see debug for traceback): {error}"
                self._logger.error(message)
                self._return_code = getattr(error, "exit_status", 1)
                self._shut_down(message)

    def _pending_futures(self) -> list[asyncio.Future[Any]]:
        """Forget the futures that are done, raising the first of their exceptions."""
        self._futures += self.context._completion_futures
        self.context._completion_futures.clear()
        done = [future for future in self._futures if future.done()]
        self._futures = [future for future in self._futures if not future.done()]
        errors = [e for e in (f.exception() for f in done if not f.cancelled()) if e is not None]
        for error in errors[1:]:
            self._logger.error(str(error))
        if errors:
            raise errors[0]
        return self._futures

    def _handle(self, event: Event) -> None:
        if isinstance(event, Shutdown):
            self.context._is_shutdown = True
        for handler in tuple(self.context._event_handlers):
            if handler.matches(event):
                self.context._push_locals()
                try:
                    entities = handler.handle(event, self.context)
                    for entity in normalize_to_list_of_entities(entities):
                        self._visit(entity)
                finally:
                    self.context._pop_locals()

    def _visit(self, entity: LaunchDescriptionEntity) -> None:
        if not isinstance(entity, LaunchDescriptionEntity):
            raise RuntimeError(f"expected a LaunchDescriptionEntity, got '{entity}'")
        sub_entities = entity.visit(self.context)
        future = entity.get_asyncio_future()
        if future is not None:
            self._futures.append(future)
        for sub_entity in normalize_to_list_of_entities(sub_entities):
            self._visit(sub_entity)

    def _shut_down(self, reason: str, *, due_to_sigint: bool = False) -> None:
        if not self.context.is_shutdown:
            self.context._is_shutdown = True
            self.context.emit_event_sync(Shutdown(reason=reason, due_to_sigint=due_to_sigint))

    def _on_sigint(self) -> None:
        message = "user interrupted with ctrl-c (SIGINT)"
        if self.context.is_shutdown:
            self._logger.warning(f"{message} again, ignoring...")
        else:
            self._logger.warning(message)
            self._shut_down("ctrl-c (SIGINT)", due_to_sigint=True)

    def _on_terminate(self, number: signal.Signals) -> None:
        self._logger.error(f"user interrupted with ctrl-\\ ({number.name}), terminating...")
        self._return_code = 1
        self._shut_down(f"ctrl-\\ ({number.name})")

    def _on_loop_exception(self, loop: asyncio.AbstractEventLoop, details: dict[str, Any]) -> None:
        self._return_code = 1
        loop.default_exception_handler(details)
