"""Runs launch files with the `ros2 launch` of this repository, as processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil

HEADER = """
import sys
from launch import LaunchDescription
from launch.actions import *
from launch.conditions import IfCondition
from launch.event_handlers import *
from launch.events import matches_action
from launch.events.process import ShutdownProcess
from launch.substitutions import *

def python(code, **options):
    return ExecuteProcess(cmd=[sys.executable, "-u", "-c", code], **options)

def generate_launch_description():
    return LaunchDescription(description())
"""

MARK = "COXSWAIN_LAUNCH_TEST"


class LaunchRun:
    """A running `ros2 launch`; its descendants carry a mark in their environment."""

    def __init__(self, directory: Path, source: str, *arguments: str) -> None:
        path = directory / "test.launch.py"
        path.write_text(HEADER + textwrap.dedent(source), encoding="utf-8")
        self.log_directory = directory / "log"
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self._output = directory / "output.txt"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ros2_wheels.main", "launch", str(path), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "ROS_LOG_DIR": str(self.log_directory), MARK: self.mark},
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, text: str, timeout_s: float = 20.0) -> None:
        wait_until(lambda: text in self.output, timeout_s, lambda: f"no '{text}' in {self.output}")

    def finish(self, timeout_s: float = 30.0) -> int:
        """Wait for the end; return the exit status after checking that nothing is left."""
        status = self.process.wait(timeout_s)
        wait_until(lambda: not self.left_over(), 5.0, lambda: f"left over: {self.left_over()}")
        return status

    def left_over(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    process.environ().get(MARK) == self.mark
                    and process.status() != psutil.STATUS_ZOMBIE
                    and process.pid != self.process.pid
                ):
                    found.append(" ".join(process.cmdline()))
            except (psutil.Error, OSError):
                continue
        return found

    def kill_all(self) -> None:
        """Clean up after a failed test."""
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    process.send_signal(signal.SIGKILL)
            except (psutil.Error, OSError):
                continue
        self.process.wait(10.0)


def wait_until(
    condition: Callable[[], object], timeout_s: float, message: Callable[[], str]
) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, message()
        time.sleep(0.02)
