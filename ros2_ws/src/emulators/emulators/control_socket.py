"""Commands to an emulator over a Unix socket, one per line: the serving end and the asking one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

_ANSWER_S: Final = 5.0
_REFUSED: Final = "error: "


class CommandError(ValueError):
    """A command was not understood; the text says what was expected."""


def do_command(table: Mapping[str, Callable[..., str | None]], line: str) -> str:
    """Do one command and return its answer, "ok" where it has none.

    Args:
        table: what each name does with the words behind it.
        line: name and words.

    Raises:
        CommandError: unknown name, wrong words.
    """
    words = line.split()
    if not words:
        raise CommandError("empty command; 'help' lists them")
    name, arguments = words[0], words[1:]
    if name not in table:
        raise CommandError(f"unknown command '{name}'; expected one of {sorted(table)}")
    try:
        return table[name](*arguments) or "ok"
    except TypeError as error:
        raise CommandError(f"{name}: wrong arguments {arguments}; 'help' lists them") from error
    except (ValueError, KeyError) as error:
        raise CommandError(f"{name}: {error}") from error


class ControlSocket:
    """Serves commands in a thread. Use as a context manager.

    Args:
        execute: does one command and returns the answer, or raises CommandError.
        path: of the socket; one that is there is replaced.
    """

    def __init__(self, execute: Callable[[str], str], path: Path) -> None:
        """Prepare; nothing is opened yet."""
        self._execute = execute
        self._path = path
        self._listener: socket.socket | None = None

    def __enter__(self) -> ControlSocket:
        """Open the socket.

        Raises:
            OSError: it cannot be made at this path.
        """
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        self._listener.listen()
        threading.Thread(target=self._serve, name="control_socket", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._listener is not None:
            # Closing alone does not wake a thread that waits in accept.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        listener = self._listener
        assert listener is not None
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with (
                contextlib.suppress(OSError, UnicodeDecodeError),
                connection,
                connection.makefile("rw", encoding="utf-8") as stream,
            ):
                for line in stream:
                    try:
                        reply = self._execute(line)
                    except CommandError as error:
                        reply = f"{_REFUSED}{error}"
                    stream.write(reply + "\n")
                    stream.flush()


def tell(path: Path, line: str) -> str:
    """Send a command to an emulator's socket and return the answer.

    Raises:
        CommandError: the emulator did not understand it.
        OSError: nobody listens there, or there was no answer in time.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_S)
        connection.connect(str(path))
        with connection.makefile("rw", encoding="utf-8") as stream:
            stream.write(line + "\n")
            stream.flush()
            answer = stream.readline().rstrip("\n")
    if answer.startswith(_REFUSED):
        raise CommandError(answer.removeprefix(_REFUSED))
    return answer
