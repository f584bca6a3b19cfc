"""An emulator in a process of its own, told what to do over its control socket."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from emulators.control_socket import tell

_START_S: Final = 60.0


class RemoteEmulator:
    """Starts an emulator's command and speaks to it. Use as a context manager.

    Args:
        module: of the command, with the options `--link` and `--control`.
        port: link to the serial port that it makes; the socket is made beside it.
        options: further options of the command.
    """

    def __init__(self, module: str, port: Path, *options: str) -> None:
        """Prepare; nothing is started yet."""
        self.port = port
        self._module = module
        self._socket = port.with_suffix(".sock")
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the emulator and wait until it takes commands.

        Raises:
            RuntimeError: it ended, or took too long; the text has its output.
        """
        command = [sys.executable, "-m", self._module]
        command += ["--link", str(self.port), "--control", str(self._socket), *self._options]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                output, _ = self._process.communicate()
                raise RuntimeError(f"the emulator ended: {output}")
            if self._socket.is_socket():
                return
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"the emulator took no commands within {_START_S} s")

    def stop(self) -> None:
        """End the emulator."""
        if self._process is not None:
            self._process.terminate()
            self._process.communicate()
            self._process = None
            self._socket.unlink(missing_ok=True)

    def tell(self, line: str) -> str:
        """Send a command and return the answer.

        Raises:
            CommandError: the emulator did not understand it.
        """
        return tell(self._socket, line)

    def read(self, command: str) -> Any:
        """Send a command that answers in JSON, and return what it says."""
        return json.loads(self.tell(command))
