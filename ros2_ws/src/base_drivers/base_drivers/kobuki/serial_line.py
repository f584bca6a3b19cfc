"""The serial line of a Kobuki, with the process that stops the base when this one dies."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from typing import Final

import serial

from base_drivers.kobuki import stop_keeper

BAUD_RATE: Final = 115200
_READ_BYTES: Final = 4096


class LineLost(OSError):
    """The port is not there (any more), or another program has it."""


class SerialLine:
    """An open port. Use as a context manager.

    Args:
        port: device file, such as /dev/kobuki.
        keeper_timeout_s: silence of this process after which the keeper stops the base.

    Raises:
        LineLost: the port cannot be opened.
    """

    def __init__(self, port: str, keeper_timeout_s: float) -> None:
        self.port = port
        try:
            self._serial = serial.Serial(port, BAUD_RATE, timeout=0, exclusive=True)
        except (OSError, ValueError) as error:
            raise LineLost(f"cannot open {port}: {error}") from error
        self._descriptor = int(self._serial.fileno())
        heartbeat, self._heartbeat = os.pipe()
        os.set_blocking(self._heartbeat, False)
        command = [sys.executable, "-m", stop_keeper.__name__]
        command += ["--port", str(self._descriptor), "--heartbeat", str(heartbeat)]
        command += ["--timeout-s", str(keeper_timeout_s)]
        # Of this process's streams it holds none: who reads them would wait for it, too.
        self._keeper = subprocess.Popen(
            command,
            pass_fds=(self._descriptor, heartbeat),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(heartbeat)

    def __enter__(self) -> SerialLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def keeper_pid(self) -> int:
        """Process that stops the base when this one dies."""
        return self._keeper.pid

    @property
    def kept(self) -> bool:
        """Whether the keeper is running."""
        return self._keeper.poll() is None

    def close(self) -> None:
        """Close the port and end the keeper."""
        with contextlib.suppress(OSError):
            os.write(self._heartbeat, stop_keeper.FAREWELL)
        os.close(self._heartbeat)
        with contextlib.suppress(OSError):
            self._serial.close()
        try:
            self._keeper.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()

    def alive(self) -> None:
        """Tell the keeper that this process works."""
        # A full pipe says the same; a keeper that ended shows in `kept`.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._heartbeat, stop_keeper.ALIVE)

    def read(self, timeout_s: float) -> bytes:
        """Return what arrived, or nothing after the time.

        Raises:
            LineLost: the port is gone.
        """
        try:
            ready, _, _ = select.select([self._descriptor], [], [], timeout_s)
            if not ready:
                return b""
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return b""
        except (OSError, ValueError) as error:
            raise LineLost(f"{self.port} is gone: {error}") from error
        if not data:
            raise LineLost(f"{self.port} is gone: end of file")
        return data

    def write(self, data: bytes) -> None:
        """Send bytes; what does not fit into a jammed line is dropped, the next command follows.

        Raises:
            LineLost: the port is gone.
        """
        try:
            os.write(self._descriptor, data)
        except BlockingIOError:
            return
        except OSError as error:
            raise LineLost(f"{self.port} is gone: {error}") from error
