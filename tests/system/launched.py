"""Starts `ros2` commands for the system tests, reads what they print, and finds what they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping

import psutil

_MARK = "COXSWAIN_SYSTEM_TEST"


def wait_until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Wait for a condition; fail with `what` when it does not come true in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} (waited {timeout_s:g} s)"
        time.sleep(0.01)


class Launched:
    """A running command. Every process that descends from it carries a mark in its environment, so
    that orphans are found, too."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._mark = uuid.uuid4().hex
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **environment, _MARK: self._mark},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for_line(self, text: str, timeout_s: float) -> None:
        """Wait until a line with `text` was printed; fail early when the command ends."""

        def printed_or_ended() -> bool:
            return text in self.output or self.process.poll() is not None

        wait_until(printed_or_ended, timeout_s, f"'{text}' was not printed:\n{self.output}")
        self._join_reader()
        assert text in self.output, f"the command ended before '{text}':\n{self.output}"

    def wait(self, timeout_s: float) -> int:
        """Exit status, when the command ends by itself in time."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {timeout_s:g} s:\n{self.output}") from None
        self._join_reader()
        return self.process.returncode

    def _join_reader(self) -> None:
        if self.process.poll() is not None:
            self._reader.join(timeout=2.0)

    def descendants(self) -> list[psutil.Process]:
        """Processes that came from this command, orphans included, without the command itself."""
        found = []
        for process in psutil.process_iter():
            try:
                marked = process.environ().get(_MARK) == self._mark
                if marked and process.pid != self.process.pid and process.status() != "zombie":
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def node_process(self, executable: str) -> psutil.Process:
        """The process of a node."""
        found = [
            process
            for process in self.descendants()
            if any(part.endswith(f"/{executable}") for part in process.cmdline())
        ]
        assert len(found) == 1, f"{executable}: {found}\n{self.output}"
        return found[0]

    def assert_nothing_left(self) -> None:
        """Fail when a process of the command outlived it."""
        left = [process.cmdline() for process in self.descendants()]
        assert not left, f"left running: {left}\n{self.output}"

    def stop(self) -> None:
        """End the command and whatever it left."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for process in self.descendants():
            process.kill()
