"""Serves an emulated Kobuki on a pseudo-terminal in real time."""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final

from emulators.pseudo_terminal import PseudoTerminal

from base_drivers.kobuki_emulator.emulated_base import EmulatedKobuki
from base_drivers.velocity import Velocity

_TICK_S: Final = 0.005
_MAX_CATCH_UP_S: Final = 0.3
_LOG_LENGTH: Final = 20_000


class KobukiServer:
    """An emulated base behind a serial port. Use as a context manager.

    Args:
        base: the base; hold `lock` to touch it.
        link: symbolic link to the pseudo-terminal, as udev makes for a real base.
    """

    def __init__(self, base: EmulatedKobuki, link: Path) -> None:
        self.base = base
        self._terminal = PseudoTerminal(link)
        self.lock = threading.RLock()
        self.log: deque[tuple[float, Velocity]] = deque(maxlen=_LOG_LENGTH)
        """Base control commands with the steady time of their arrival [s]."""
        self._start_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kobuki_emulator", daemon=True)

    def __enter__(self) -> KobukiServer:
        self.plug()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.unplug()

    def plug(self) -> None:
        """Plug the cable in: a new port at the same link.

        Raises:
            FileExistsError: something that is not a link is there.
        """
        with self.lock:
            self._terminal.plug()

    def unplug(self) -> None:
        """Pull the cable: the port and its link vanish; the base stays switched on."""
        with self.lock:
            self._terminal.unplug()

    def _run(self) -> None:
        while not self._stop.is_set():
            watched = [self._terminal] if self._terminal.plugged else []
            # Another thread may pull the cable meanwhile.
            with contextlib.suppress(OSError, ValueError):
                select.select(watched, [], [], _TICK_S)
            with self.lock:
                self._exchange()

    def _exchange(self) -> None:
        if received := self._terminal.read():
            now_s = time.monotonic()
            self.log.extend((now_s, velocity) for velocity in self.base.receive(received))
        behind_s = time.monotonic() - self._start_s - self.base.now_s
        if behind_s > _MAX_CATCH_UP_S:
            # On a machine that is too slow the base is slow, too, instead of never catching up.
            self._start_s += behind_s - _MAX_CATCH_UP_S
        self._terminal.write(self.base.advance(time.monotonic() - self._start_s))
