"""`ros2 run`."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys

from launch.child_process import die_with_parent

from . import packages
from .main import CommandError, nearest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ros2 run`."""
    parser.add_argument(
        "--prefix",
        help="Prefix command, which should go before the executable. Command must be wrapped "
        "in quotes if it contains spaces (e.g. --prefix 'gdb -ex run --args').",
    )
    parser.add_argument("package_name", help="Name of the ROS package")
    parser.add_argument("executable_name", help="Name of the executable")
    parser.add_argument(
        "argv", nargs=argparse.REMAINDER, help="Pass arbitrary arguments to the executable"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run an executable of a package and return its exit status."""
    packages.use_environment_prefix()
    package, name = arguments.package_name, arguments.executable_name
    found = [path for path in packages.executables(package) if path.name == name]
    if not found:
        known = [path.name for path in packages.executables(package)]
        raise CommandError(
            f"No executable found: '{package}' has no '{name}'; {nearest(name, known)}"
            f"it has: {', '.join(known) or 'none'}"
        )
    if len(found) > 1:
        raise CommandError(f"Multiple executables found: {', '.join(str(path) for path in found)}")
    command = [*shlex.split(arguments.prefix or ""), str(found[0]), *arguments.argv]
    own_pid = os.getpid()
    process = subprocess.Popen(command, preexec_fn=lambda: die_with_parent(own_pid))
    # Signals for this process are the program's to handle. Ctrl-C reaches it by itself.
    signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    while True:
        try:
            returncode = process.wait()
            break
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                process.send_signal(signal.SIGINT)
    if returncode < 0:
        print(f"[ros2run]: {signal.strsignal(-returncode)}")
    elif returncode > 0:
        print(f"[ros2run]: Process exited with failure {returncode}")
    return returncode
