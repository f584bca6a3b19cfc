"""Actions that run a program as a child process."""

from __future__ import annotations

import asyncio
import logging as standard_logging
import os
import signal
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .. import logging
from ..action import Action
from ..child_process import ChildProcess, LineSplitter
from ..conditions import evaluate_condition_expression
from ..descriptions import Executable
from ..event_handler import BaseEventHandler, EventHandler
from ..event_handlers import OnProcessExit, OnShutdown
from ..events import Shutdown as ShutdownEvent
from ..events.process import (
    ProcessExited,
    ProcessStarted,
    ProcessStderr,
    ProcessStdin,
    ProcessStdout,
    ProcessTargetedEvent,
    ShutdownProcess,
    SignalProcess,
)
from ..launch_description_entity import LaunchDescriptionEntity
from ..some_substitutions_type import SomeSubstitutionsType
from ..substitutions import LaunchConfiguration
from ..utilities import (
    normalize_to_list_of_entities,
    normalize_to_list_of_substitutions,
    perform_substitutions,
)
from ..utilities.type_utils import normalize_typed_substitution, perform_typed_substitution

if TYPE_CHECKING:
    from ..launch_context import LaunchContext

_OUTPUT_EVENTS = {1: ProcessStdout, 2: ProcessStderr}


class ExecuteLocal(Action):
    """Runs an Executable as a child process.

    On shutdown the process gets SIGINT, `sigterm_timeout` seconds later SIGTERM, and
    `sigkill_timeout` seconds after that SIGKILL. `output` is described in
    launch.logging.get_output_loggers, `output_format` takes `line` and `this`. With `respawn`
    the process is started again whenever it ends, `respawn_delay` seconds later, at most
    `respawn_max_retries` times (-1: without limit).
    """

    def __init__(
        self,
        *,
        process_description: Executable,
        shell: bool = False,
        sigterm_timeout: SomeSubstitutionsType | None = None,
        sigkill_timeout: SomeSubstitutionsType | None = None,
        emulate_tty: bool = False,
        output: Any = "log",
        output_format: str = "[{this.process_description.final_name}] {line}",
        cached_output: bool = False,
        log_cmd: bool = False,
        on_exit: Any = None,
        respawn: bool | SomeSubstitutionsType = False,
        respawn_delay: float | None = None,
        respawn_max_retries: int = -1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.process_description = process_description
        self.shell = shell
        self.emulate_tty = emulate_tty
        self.sigterm_timeout = normalize_to_list_of_substitutions(
            sigterm_timeout or LaunchConfiguration("sigterm_timeout", default=5)
        )
        self.sigkill_timeout = normalize_to_list_of_substitutions(
            sigkill_timeout or LaunchConfiguration("sigkill_timeout", default=5)
        )
        output = os.environ.get("OVERRIDE_LAUNCH_PROCESS_OUTPUT", output)
        self.output = (
            output if isinstance(output, dict) else normalize_to_list_of_substitutions(output)
        )
        self._output_format = output_format
        self._log_cmd = log_cmd
        self._cached: dict[int, bytearray] | None = (
            {1: bytearray(), 2: bytearray()} if cached_output else None
        )
        self._on_exit = on_exit
        self._respawn = normalize_typed_substitution(respawn, bool)
        self._respawn_delay_s = respawn_delay or 0.0
        self._respawns_left = respawn_max_retries
        self._process: ChildProcess | None = None
        self._details: dict[str, Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._shutting_down = asyncio.Event()
        self._send_sigint = True

    @property
    def process_details(self) -> dict[str, Any] | None:
        """The process's action, name, cmd, cwd, env and (once started) pid; None before."""
        return self._details

    @property
    def return_code(self) -> int | None:
        """The exit status, negative for a signal; None while the process has not ended."""
        return None if self._process is None else self._process.returncode

    def get_stdout(self) -> str:
        """Return the output so far; RuntimeError without `cached_output`."""
        return self._get_cached(1)

    def get_stderr(self) -> str:
        """Return the error output so far; RuntimeError without `cached_output`."""
        return self._get_cached(2)

    def _get_cached(self, descriptor: int) -> str:
        if self._cached is None:
            raise RuntimeError("cached output must be true to be able to get a process's output")
        return self._cached[descriptor].decode(errors="replace")

    def get_sub_entities(self) -> list[LaunchDescriptionEntity]:
        """Return the entities of `on_exit`."""
        if isinstance(self._on_exit, (LaunchDescriptionEntity, list)):
            return normalize_to_list_of_entities(self._on_exit)
        return []

    def get_asyncio_future(self) -> asyncio.Task[None] | None:
        """Return the task that runs until the process has ended for good."""
        return self._task

    def prepare(self, context: LaunchContext) -> None:
        """Perform the substitutions of the command."""
        self.process_description.prepare(context, self)

    def execute(self, context: LaunchContext) -> list[LaunchDescriptionEntity] | None:
        """Start the process; RuntimeError when this action was executed before."""
        if self._task is not None:
            raise RuntimeError(f"ExecuteLocal action executed more than once: {self.describe()}")
        self.prepare(context)
        if context.is_shutdown:
            return None
        description = self.process_description
        assert description.final_name is not None and description.final_cmd is not None
        self._details = {
            "action": self,
            "name": description.final_name,
            "cmd": description.final_cmd,
            "cwd": description.final_cwd,
            "env": description.final_env,
        }
        self._logger = logging.get_logger(description.final_name)
        output = (
            self.output
            if isinstance(self.output, dict)
            else perform_substitutions(context, self.output)
        )
        stdout, stderr = logging.get_output_loggers(description.final_name, output)
        self._output_loggers: dict[int, standard_logging.Logger] = {1: stdout, 2: stderr}
        self._sigterm_timeout_s = float(perform_substitutions(context, self.sigterm_timeout))
        self._sigkill_timeout_s = float(perform_substitutions(context, self.sigkill_timeout))
        respawn = perform_typed_substitution(context, self._respawn, bool)
        for handler in self._event_handlers():
            context.register_event_handler(handler)
        self._task = context.asyncio_loop.create_task(self._run(context, respawn))
        return None

    def _event_handlers(self) -> list[BaseEventHandler]:
        def is_for_this(event: Any, event_type: type[ProcessTargetedEvent]) -> bool:
            return isinstance(event, event_type) and event.process_matcher(self)

        from .control import OpaqueFunction

        handlers: list[BaseEventHandler] = [
            EventHandler(
                matcher=lambda e: is_for_this(e, ShutdownProcess),
                entities=[OpaqueFunction(function=lambda c: self._shut_down(send_sigint=True))],
            ),
            EventHandler(
                matcher=lambda e: is_for_this(e, SignalProcess),
                entities=[OpaqueFunction(function=lambda c: self._on_signal(c.locals.event))],
            ),
            EventHandler(
                matcher=lambda e: isinstance(e, ProcessStdin) and e.action is self,
                entities=[OpaqueFunction(function=lambda c: self._on_stdin(c.locals.event))],
            ),
            OnShutdown(on_shutdown=self._on_launch_shutdown),
        ]
        if self._on_exit is not None:
            handlers.append(OnProcessExit(target_action=self, on_exit=self._on_exit))
        return handlers

    def _on_signal(self, event: SignalProcess) -> None:
        number = signal.Signals[event.signal] if isinstance(event.signal, str) else event.signal
        self._send(number)

    def _on_stdin(self, event: ProcessStdin) -> None:
        if self._process is not None:
            self._process.write(event.text)

    def _on_launch_shutdown(self, event: ShutdownEvent, context: LaunchContext) -> None:
        # Ctrl-C in a terminal reaches the whole foreground process group, children included.
        self._shut_down(send_sigint=not event.due_to_sigint or context.noninteractive)

    def _shut_down(self, *, send_sigint: bool) -> None:
        if not self._shutting_down.is_set():
            self._send_sigint = send_sigint
            self._shutting_down.set()

    def _send(self, number: signal.Signals) -> None:
        assert self._details is not None
        if self._process is None or self._process.returncode is not None:
            return
        self._logger.info(f"sending signal '{number.name}' to process[{self._details['name']}]")
        self._process.send_signal(number)

    async def _run(self, context: LaunchContext, respawn: bool) -> None:
        while await self._run_once(context):
            if not respawn or context.is_shutdown or self._shutting_down.is_set():
                return
            if self._respawns_left == 0:
                return
            self._respawns_left -= 1
            if self._respawn_delay_s > 0.0:
                await asyncio.wait(
                    [asyncio.ensure_future(self._shutting_down.wait())],
                    timeout=self._respawn_delay_s,
                )
                if self._shutting_down.is_set():
                    return

    async def _run_once(self, context: LaunchContext) -> bool:
        """Run the process to its end; return False when it could not be started."""
        details = self._details
        assert details is not None
        cmd = details["cmd"]
        command_line = " ".join(part for part in cmd if part.strip())
        if self._log_cmd:
            self._logger.info(
                f"process details: cmd='{command_line}', cwd='{details['cwd']}', "
                f"custom_env?={details['env'] is not None}"
            )
        splitters = {fd: LineSplitter() for fd in _OUTPUT_EVENTS}

        def on_started(process: ChildProcess) -> None:
            self._process = process
            details["pid"] = process.pid
            self._logger.info(f"process started with pid [{process.pid}]")
            context.emit_event_sync(ProcessStarted(**details))

        def on_output(descriptor: int, data: bytes) -> None:
            if self._cached is not None:
                self._cached[descriptor] += data
            self._log_lines(descriptor, splitters[descriptor].feed(data))
            event = _OUTPUT_EVENTS[descriptor](text=data, **details)
            if context.would_handle_event(event):
                context.emit_event_sync(event)

        try:
            process = await ChildProcess.start(
                cmd,
                cwd=details["cwd"],
                env=details["env"],
                shell=self.shell,
                emulate_tty=self._wants_tty(context),
                on_started=on_started,
                on_output=on_output,
            )
        except (OSError, ValueError) as error:
            self._logger.error(f"exception occurred while executing process:\n{error}")
            return False
        shutdown = asyncio.ensure_future(self._shut_down_when_asked(process))
        returncode = await process.wait()
        shutdown.cancel()
        for descriptor, splitter in splitters.items():
            self._log_lines(descriptor, splitter.flush())
        if returncode == 0:
            self._logger.info(f"process has finished cleanly [pid {process.pid}]")
        else:
            self._logger.error(
                f"process has died [pid {process.pid}, exit code {returncode}, "
                f"cmd '{command_line}']."
            )
        context.emit_event_sync(ProcessExited(returncode=returncode, **details))
        return True

    def _wants_tty(self, context: LaunchContext) -> bool:
        override = context.launch_configurations.get("emulate_tty")
        if override is None:
            return self.emulate_tty
        return evaluate_condition_expression(context, normalize_to_list_of_substitutions(override))

    def _log_lines(self, descriptor: int, lines: Iterable[str]) -> None:
        for line in lines:
            self._output_loggers[descriptor].info(self._output_format.format(line=line, this=self))

    async def _shut_down_when_asked(self, process: ChildProcess) -> None:
        assert self._details is not None
        await self._shutting_down.wait()
        if self._send_sigint:
            self._send(signal.SIGINT)
        waited_s = 0.0
        steps = (
            (self._sigterm_timeout_s, signal.SIGINT, signal.SIGTERM),
            (self._sigkill_timeout_s, signal.SIGTERM, signal.SIGKILL),
        )
        for timeout_s, last, following in steps:
            await asyncio.sleep(timeout_s)
            waited_s += timeout_s
            self._logger.error(
                f"process[{self._details['name']}] failed to terminate '{waited_s}' seconds "
                f"after receiving '{last.name}', escalating to '{following.name}'"
            )
            self._send(following)


class ExecuteProcess(ExecuteLocal):
    """Runs a command as a child process; see Executable and ExecuteLocal for the arguments."""

    def __init__(
        self,
        *,
        cmd: Iterable[SomeSubstitutionsType],
        prefix: SomeSubstitutionsType | None = None,
        name: SomeSubstitutionsType | None = None,
        cwd: SomeSubstitutionsType | None = None,
        env: dict[Any, SomeSubstitutionsType] | None = None,
        additional_env: dict[Any, SomeSubstitutionsType] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            process_description=Executable(
                cmd=cmd, prefix=prefix, name=name, cwd=cwd, env=env, additional_env=additional_env
            ),
            **kwargs,
        )

    @property
    def name(self) -> Any:
        """The final name once executed, else the given one."""
        return self.process_description.final_name or self.process_description.name

    @property
    def cmd(self) -> Any:
        """The final command once executed, else the given one."""
        return self.process_description.final_cmd or self.process_description.cmd

    @property
    def cwd(self) -> Any:
        """The final working directory once executed, else the given one."""
        return self.process_description.final_cwd or self.process_description.cwd

    @property
    def env(self) -> Any:
        """The final environment once executed, else the given one."""
        return self.process_description.final_env or self.process_description.env

    @property
    def additional_env(self) -> Any:
        """The given additional environment."""
        return self.process_description.additional_env
