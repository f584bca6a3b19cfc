"""Serves an emulated Kobuki on a pseudo-terminal in real time."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import tty
from collections import deque
from pathlib import Path
from typing import Final

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
        self.link = link
        self.lock = threading.RLock()
        self.log: deque[tuple[float, Velocity]] = deque(maxlen=_LOG_LENGTH)
        """Base control commands with the steady time of their arrival [s]."""
        self._master = self._slave = -1
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
            if self._master >= 0:
                return
            self._master, self._slave = os.openpty()
            os.set_blocking(self._master, False)
            tty.setraw(self._slave)
            if self.link.is_symlink():
                self.link.unlink()
            self.link.symlink_to(os.ttyname(self._slave))

    def unplug(self) -> None:
        """Pull the cable: the port and its link vanish; the base stays switched on."""
        with self.lock:
            if self._master < 0:
                return
            if self.link.is_symlink():
                self.link.unlink()
            os.close(self._slave)
            os.close(self._master)
            self._master = self._slave = -1

    def _run(self) -> None:
        while not self._stop.is_set():
            master = self._master
            with contextlib.suppress(OSError, ValueError):
                select.select([master] if master >= 0 else [], [], [], _TICK_S)
            with self.lock:
                self._exchange()

    def _exchange(self) -> None:
        if self._master >= 0:
            with contextlib.suppress(OSError):
                commanded = self.base.receive(os.read(self._master, 4096))
                now_s = time.monotonic()
                self.log.extend((now_s, velocity) for velocity in commanded)
        behind_s = time.monotonic() - self._start_s - self.base.now_s
        if behind_s > _MAX_CATCH_UP_S:
            # On a machine that is too slow the base is slow, too, instead of never catching up.
            self._start_s += behind_s - _MAX_CATCH_UP_S
        sent = self.base.advance(time.monotonic() - self._start_s)
        if self._master >= 0 and sent:
            # A host that does not read loses bytes, as on a real adapter.
            with contextlib.suppress(OSError):
                os.write(self._master, sent)
