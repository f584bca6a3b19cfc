"""A child process on the event loop, which never outlives this process."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import ctypes
import errno
import functools
import os
import pty
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

StartCallback = Callable[["ChildProcess"], None]
OutputCallback = Callable[[int, bytes], None]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None, use_errno=True).prctl

# A grandchild may keep the output pipes open after the child's end: wait for the last lines only
# this long.
_LAST_OUTPUT_TIMEOUT_S = 0.5


def die_with_parent(parent_pid: int) -> None:
    """In a new child: have the kernel kill it when its parent dies in any way."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # the parent died before the call
        os._exit(1)


def adopt_orphans() -> None:
    """Make descendants whose parents end children of this process (see `kill_descendants`)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_descendants() -> None:
    """Kill all remaining descendants of this process, whatever process group they are in."""
    while True:
        children = _children(os.getpid())
        if not children:
            return
        for pid in children:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _children(pid: int) -> list[int]:
    children = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # processes come and go
            # The second field, the program's name, may contain blanks and parentheses.
            stat = (directory / "stat").read_text(encoding="utf-8", errors="replace")
            state, parent = stat.rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                children.append(int(directory.name))
    return children


class LineSplitter:
    """Splits a byte stream into decoded lines."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that `data` completes."""
        *lines, self._rest = (self._rest + self._decoder.decode(data)).split("\n")
        return [line.removesuffix("\r") for line in lines]

    def flush(self) -> list[str]:
        """Return the unfinished last line, if there is one."""
        rest, self._rest = self._rest + self._decoder.decode(b"", final=True), ""
        return [rest] if rest else []


class _Protocol(asyncio.SubprocessProtocol):
    def __init__(self, on_started: StartCallback, on_output: OutputCallback) -> None:
        self.on_started = on_started
        self.on_output = on_output
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.open_outputs: dict[int, asyncio.Future[None]] = {}

    def add_output(self, descriptor: int) -> None:
        self.open_outputs[descriptor] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self.process = ChildProcess(transport, self)
        self.on_started(self.process)

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        self.on_output(fd, data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        future = self.open_outputs.get(fd)
        if future is not None and not future.done():
            future.set_result(None)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)


class _TerminalProtocol(asyncio.Protocol):
    """Passes what a child writes to a pseudo-terminal on to the process's protocol."""

    def __init__(self, process: _Protocol, descriptor: int) -> None:
        self.process = process
        self.descriptor = descriptor

    def data_received(self, data: bytes) -> None:
        self.process.pipe_data_received(self.descriptor, data)

    def connection_lost(self, exc: Exception | None) -> None:
        # Linux reports the end of a pseudo-terminal as EIO.
        assert exc is None or (isinstance(exc, OSError) and exc.errno == errno.EIO), exc
        self.process.pipe_connection_lost(self.descriptor, None)


class ChildProcess:
    """A running child process; create with `start`."""

    def __init__(self, transport: asyncio.SubprocessTransport, protocol: _Protocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self._terminals: list[asyncio.BaseTransport] = []
        self.pid = transport.get_pid()

    @staticmethod
    async def start(
        cmd: Sequence[str],
        *,
        cwd: str | None,
        env: Mapping[str, str] | None,
        shell: bool,
        emulate_tty: bool,
        on_started: StartCallback,
        on_output: OutputCallback,
    ) -> ChildProcess:
        """Start `cmd`; call `on_started(process)`, then `on_output(1 or 2, data)` with its output.

        Raises OSError when the program or the directory does not exist or may not be used.
        """
        loop = asyncio.get_running_loop()
        protocol = _Protocol(on_started, on_output)
        parent_pid = os.getpid()
        options: dict[str, Any] = {
            "cwd": cwd,
            "env": env,
            "preexec_fn": lambda: die_with_parent(parent_pid),
        }
        terminals: list[tuple[int, int]] = []
        if emulate_tty:
            terminals = [pty.openpty(), pty.openpty()]
            options["stdout"], options["stderr"] = (slave for _, slave in terminals)
        for descriptor in (1, 2):
            protocol.add_output(descriptor)
        try:
            if shell:
                started = loop.subprocess_shell(lambda: protocol, " ".join(cmd), **options)
            else:
                started = loop.subprocess_exec(lambda: protocol, *cmd, **options)
            await started
        except BaseException:
            for master, _ in terminals:
                os.close(master)
            raise
        finally:
            for _, slave in terminals:
                os.close(slave)
        process = protocol.process
        for descriptor, (master, _) in zip((1, 2), terminals, strict=False):
            terminal, _ = await loop.connect_read_pipe(
                functools.partial(_TerminalProtocol, protocol, descriptor),
                os.fdopen(master, "rb", buffering=0),
            )
            process._terminals.append(terminal)
        return process

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while running."""
        return self._transport.get_returncode()

    async def wait(self) -> int:
        """Wait for the end and the last output; return the exit status."""
        await self._protocol.exited
        await asyncio.wait(
            list(self._protocol.open_outputs.values()), timeout=_LAST_OUTPUT_TIMEOUT_S
        )
        returncode = self._transport.get_returncode()
        assert returncode is not None
        self._transport.close()
        for terminal in self._terminals:
            terminal.close()
        return returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._transport.send_signal(number)

    def write(self, data: bytes) -> None:
        """Write to the process's standard input."""
        stdin = self._transport.get_pipe_transport(0)
        if isinstance(stdin, asyncio.WriteTransport):
            stdin.write(data)
