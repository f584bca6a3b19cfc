"""Events about processes, events for processes, and matchers of processes."""

from __future__ import annotations

import signal as signal_module
from collections.abc import Callable
from typing import Any

from ..event import Event

__all__ = [
    "ProcessExited",
    "ProcessIO",
    "ProcessStarted",
    "ProcessStderr",
    "ProcessStdin",
    "ProcessStdout",
    "ProcessTargetedEvent",
    "RunningProcessEvent",
    "ShutdownProcess",
    "SignalProcess",
    "matches_executable",
    "matches_name",
    "matches_pid",
]

ProcessMatcher = Callable[[Any], bool]


class RunningProcessEvent(Event):
    """An event of a started process."""

    name = "launch.events.process.RunningProcessEvent"

    def __init__(
        self,
        *,
        action: Any,
        name: str,
        cmd: list[str],
        cwd: str | None,
        env: dict[str, str] | None,
        pid: int,
    ) -> None:
        self.action = action
        self.process_name = name
        self.cmd = cmd
        self.cwd = cwd
        self.env = env
        self.pid = pid

    @property
    def execute_process_action(self) -> Any:
        """The action that started the process."""
        return self.action


class ProcessStarted(RunningProcessEvent):
    """A process started."""

    name = "launch.events.process.ProcessStarted"


class ProcessExited(RunningProcessEvent):
    """A process ended; `returncode` is negative when a signal ended it."""

    name = "launch.events.process.ProcessExited"

    def __init__(self, *, returncode: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.returncode = returncode


class ProcessIO(RunningProcessEvent):
    """A process wrote or is to read `text` (bytes) on file descriptor `fd`."""

    name = "launch.events.process.ProcessIO"

    def __init__(self, *, text: bytes, fd: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.text = text
        self.fd = fd

    @property
    def from_stdin(self) -> bool:
        """Whether this is about standard input."""
        return self.fd == 0

    @property
    def from_stdout(self) -> bool:
        """Whether this is about standard output."""
        return self.fd == 1

    @property
    def from_stderr(self) -> bool:
        """Whether this is about standard error."""
        return self.fd == 2


class ProcessStdin(ProcessIO):
    """Text for a process's standard input."""

    name = "launch.events.process.ProcessStdin"

    def __init__(self, *, text: bytes, **kwargs: Any) -> None:
        super().__init__(text=text, fd=0, **kwargs)


class ProcessStdout(ProcessIO):
    """Text from a process's standard output."""

    name = "launch.events.process.ProcessStdout"

    def __init__(self, *, text: bytes, **kwargs: Any) -> None:
        super().__init__(text=text, fd=1, **kwargs)


class ProcessStderr(ProcessIO):
    """Text from a process's standard error."""

    name = "launch.events.process.ProcessStderr"

    def __init__(self, *, text: bytes, **kwargs: Any) -> None:
        super().__init__(text=text, fd=2, **kwargs)


class ProcessTargetedEvent(Event):
    """An event for the processes that the matcher accepts."""

    name = "launch.events.process.ProcessTargetedEvent"

    def __init__(self, *, process_matcher: ProcessMatcher) -> None:
        self.process_matcher = process_matcher


class ShutdownProcess(ProcessTargetedEvent):
    """Asks a process to end: SIGINT, then SIGTERM, then SIGKILL."""

    name = "launch.events.process.ShutdownProcess"


class SignalProcess(ProcessTargetedEvent):
    """Sends a signal to a process; 'SIGKILL' may be given as text."""

    name = "launch.events.process.SignalProcess"

    def __init__(
        self, *, signal_number: str | signal_module.Signals, process_matcher: ProcessMatcher
    ) -> None:
        super().__init__(process_matcher=process_matcher)
        if not isinstance(signal_number, (str, signal_module.Signals)):
            raise TypeError(f"signal_number must be a signal.Signals, got {signal_number!r}")
        self.signal = signal_number

    @property
    def signal_name(self) -> str:
        """The signal's name, e.g. 'SIGINT'."""
        return self.signal if isinstance(self.signal, str) else self.signal.name


def matches_pid(pid: int) -> ProcessMatcher:
    """Return a matcher of the process with this id."""
    return lambda action: (action.process_details or {}).get("pid") == pid


def matches_name(name: str) -> ProcessMatcher:
    """Return a matcher of the process with this final name, e.g. 'talker-1'."""
    return lambda action: (action.process_details or {}).get("name") == name


def matches_executable(executable: str) -> ProcessMatcher:
    """Return a matcher of processes whose program path ends so."""

    def matcher(action: Any) -> bool:
        details = action.process_details
        return details is not None and details["cmd"][0].endswith(executable)

    return matcher
