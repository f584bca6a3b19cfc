"""Serves an emulated bus on a pseudo-terminal, in its own thread, in real time."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from emulators.pseudo_terminal import PseudoTerminal
from node_common.realtime import request_realtime

from servo_bus_emulator.bus import EmulatedBus, Reply

STALL_S: Final = 0.005
"""The serving thread was held up when it is later than this."""
_STALLS_KEPT: Final = 10_000
_TICK_S: Final = 0.008
"""Physics runs at least this often while nothing is said on the bus."""

Result = TypeVar("Result")


class BusServer:
    """An emulated bus behind a serial port.

    Use as a context manager, or `start` and `stop`. Everything that touches the bus from another
    thread goes through `call`.

    Args:
        bus: the bus; this object's thread owns it from `start` on.
        link: a symbolic link to the pseudo-terminal, as udev makes for a real adapter; a
            relative or absolute path, replaced if it is a link. None makes no link.
        realtime_priority: of the serving thread, where the system allows it; 0 for none. Real
            servos do not wait for a busy computer.
    """

    def __init__(
        self, bus: EmulatedBus, link: Path | None = None, realtime_priority: int = 0
    ) -> None:
        """Prepare; nothing is opened yet."""
        self._realtime_priority = realtime_priority
        self._bus = bus
        self._terminal = PseudoTerminal(link)
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._calls: deque[Callable[[], None]] = deque()
        self._replies: deque[Reply] = deque()
        self._stalls: deque[float] = deque(maxlen=_STALLS_KEPT)
        self._wake_read, self._wake_write = os.pipe()
        self._start_s = time.monotonic()

    def __enter__(self) -> BusServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def port(self) -> str:
        """Path to open: the link, or the pseudo-terminal itself.

        Raises:
            RuntimeError: the bus is not plugged in and there is no link.
        """
        return self._terminal.path

    def start(self) -> None:
        """Open the pseudo-terminal and serve it.

        Raises:
            FileExistsError: something that is not a link is at `link`.
        """
        self._terminal.plug()
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="servo_bus_emulator", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and remove the link."""
        if self._thread is not None:
            self._stop.set()
            self._wake()
            self._thread.join()
            self._thread = None
        self._close()

    def unplug(self) -> None:
        """Pull the USB plug: the port vanishes, its link too; the servos stay powered."""
        self.call(lambda _: self._close())

    def plug(self) -> None:
        """Plug the adapter in again: a new port at the same link."""
        self.call(lambda _: self._terminal.plug())

    @property
    def running(self) -> bool:
        """Whether the serving thread lives."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def plugged(self) -> bool:
        """Whether there is a port."""
        return self._terminal.plugged

    def steady_time(self, bus_time_s: float) -> float:
        """Return the time on the system's steady clock for one on the bus's clock."""
        return self._start_s + bus_time_s

    def take_stalls(self) -> list[float]:
        """Return by how much the computer held up the serving thread, s, since last asked.

        Real servos would have answered meanwhile.
        """
        stalls = list(self._stalls)
        self._stalls.clear()
        return stalls

    def call(self, function: Callable[[EmulatedBus], Result]) -> Result:
        """Run a function on the bus in the serving thread and return its result.

        Raises:
            RuntimeError: the server is not running.
        """
        if not self.running:
            raise RuntimeError("the emulator is not running; call start() first")
        done = threading.Event()
        results: list[Result] = []
        errors: list[Exception] = []

        def work() -> None:
            try:
                results.append(function(self._bus))
            except Exception as error:
                errors.append(error)
            done.set()

        self._calls.append(work)
        self._wake()
        done.wait()
        if errors:
            raise errors[0]
        return results[0]

    # --- serving thread ------------------------------------------------------------------------

    def _now(self) -> float:
        return time.monotonic() - self._start_s

    def _wake(self) -> None:
        os.write(self._wake_write, b"x")

    def _run(self) -> None:
        request_realtime(self._realtime_priority)
        planned = self._now()
        while not self._stop.is_set():
            now = self._now()
            if now - planned > STALL_S:
                self._stalls.append(now - planned)
            wait = _TICK_S
            if self._replies:
                wait = min(wait, max(0.0, self._replies[0].at_s - now))
            planned = now + wait
            watched = [self._wake_read] + ([self._terminal] if self.plugged else [])
            ready, _, _ = select.select(watched, [], [], wait)
            now = self._now()
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
                while self._calls:
                    self._calls.popleft()()
            if self._terminal in ready:
                self._replies.extend(self._bus.receive(self._terminal.read(), now))
            while self._replies and self._replies[0].at_s <= self._now():
                self._terminal.write(self._replies.popleft().data)
            if not self._replies:
                self._bus.advance(now)

    def _close(self) -> None:
        self._terminal.unplug()
        self._replies.clear()
