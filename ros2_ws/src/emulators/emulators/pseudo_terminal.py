"""A serial port that can be pulled and put back, made of a pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import tty
from pathlib import Path


class PseudoTerminal:
    """The emulator's end of a serial port; not safe for several threads.

    Args:
        link: symbolic link to the port, as udev makes for a real adapter, replaced if it is a link;
            None: none.
    """

    def __init__(self, link: Path | None = None) -> None:
        """Nothing is opened yet."""
        self._link = link
        self._master = self._slave = -1

    @property
    def plugged(self) -> bool:
        """Whether there is a port."""
        return self._master >= 0

    @property
    def path(self) -> str:
        """Path to open: the link, or the pseudo-terminal itself.

        Raises:
            RuntimeError: it is unplugged, and there is no link.
        """
        if self._link is not None:
            return str(self._link)
        if not self.plugged:
            raise RuntimeError("the port is unplugged; call plug() first")
        return os.ttyname(self._slave)

    def fileno(self) -> int:
        """For `select`; -1 while unplugged."""
        return self._master

    def plug(self) -> None:
        """Make the port; there is a new one at the same link each time.

        Raises:
            FileExistsError: something that is not a link is at `link`.
        """
        if self.plugged:
            return
        self._master, self._slave = os.openpty()
        os.set_blocking(self._master, False)
        tty.setraw(self._slave)
        if self._link is not None:
            if self._link.is_symlink():
                self._link.unlink()
            self._link.symlink_to(os.ttyname(self._slave))

    def unplug(self) -> None:
        """Let port and link vanish."""
        if not self.plugged:
            return
        if self._link is not None and self._link.is_symlink():
            self._link.unlink()
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    def read(self) -> bytes:
        """What the host has written; empty: nothing."""
        if self.plugged:
            with contextlib.suppress(OSError):
                return os.read(self._master, 4096)
        return b""

    def write(self, data: bytes) -> None:
        """Send to the host. One that does not read loses bytes, as on a real adapter."""
        if self.plugged and data:
            with contextlib.suppress(OSError):
                os.write(self._master, data)
