"""An emulator in a process of its own, told what to do over its control socket."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from servo_bus_emulator.commands import CommandError
from servo_bus_emulator.control_socket import tell

from base_drivers.kobuki_emulator.control import ControlError

_START_S: Final = 60.0


class RemoteKobuki:
    """Starts the command `kobuki_emulator` and speaks to it. Use as a context manager.

    Args:
        folder: where the link `kobuki` and the socket are made.
        options: further options of the command.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = folder / "kobuki"
        self._socket = folder / "kobuki.sock"
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> RemoteKobuki:
        command = [sys.executable, "-m", "base_drivers.kobuki_emulator.main"]
        command += ["--link", str(self.port), "--control", str(self._socket), *self._options]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        deadline_s = time.monotonic() + _START_S
        while not self._socket.is_socket():
            if self._process.poll() is not None:
                raise RuntimeError(f"the emulator ended: {self._process.communicate()[0]}")
            if time.monotonic() > deadline_s:
                self.__exit__()
                raise RuntimeError(f"the emulator took no commands within {_START_S:g} s")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate()
            self._process = None
            self._socket.unlink(missing_ok=True)

    def tell(self, line: str) -> str:
        """Send a command and return the answer.

        Raises:
            ControlError: the emulator did not understand it.
        """
        try:
            return tell(self._socket, line)
        except CommandError as error:
            raise ControlError(str(error)) from None

    def state(self) -> dict[str, Any]:
        """Return what the command `state` says."""
        found: dict[str, Any] = json.loads(self.tell("state"))
        return found

    def commands(self) -> list[tuple[float, float, float]]:
        """Base control commands since the last call: steady time [s], m/s, rad/s."""
        return [(at, x, yaw) for at, x, yaw in json.loads(self.tell("commands"))]
