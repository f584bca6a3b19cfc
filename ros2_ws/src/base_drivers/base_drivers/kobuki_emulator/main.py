"""Command `kobuki_emulator`: a Kobuki base on a pseudo-terminal."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

from emulators.control_socket import ControlSocket
from node_common.running import END_TIMEOUT_S

from base_drivers.kobuki_emulator.base_server import KobukiServer
from base_drivers.kobuki_emulator.control import HELP, execute
from base_drivers.kobuki_emulator.emulated_base import EmulatedKobuki


def _version(text: str) -> tuple[int, int, int]:
    major, minor, patch = map(int, text.split("."))
    return major, minor, patch


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="kobuki_emulator",
        description="Emulates a Kobuki base on a serial port.",
        epilog=f"Commands on --control, one per line:\n{HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--link", type=Path, required=True, help="link to the port")
    parser.add_argument("--control", type=Path, help="Unix socket that takes commands")
    parser.add_argument("--firmware", type=_version, default=(1, 2, 0), help="version it tells")
    parser.add_argument("--seed", type=int, default=0, help="of sensor and line noise")
    arguments, _ = parser.parse_known_args(argv)
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted. Returns the exit status."""
    arguments = _arguments(argv)
    stop = threading.Event()
    # An exception out of a handler could be lost where the main thread closes a connection.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    base = EmulatedKobuki(seed=arguments.seed, firmware=arguments.firmware)
    with KobukiServer(base, arguments.link) as server:
        print(f"kobuki_emulator: on {arguments.link}", flush=True)
        control: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if arguments.control is not None:
            print(f"faults: ros2 run emulators fault {arguments.control} COMMAND", flush=True)
            control = ControlSocket(partial(execute, server), arguments.control)
        with control:
            stop.wait()
            # The driver brings the base to rest before it ends; both are interrupted at once.
            deadline_s = time.monotonic() + END_TIMEOUT_S
            while _is_held(arguments.link) and time.monotonic() < deadline_s:
                time.sleep(0.02)
    return 0


def _is_held(port: Path) -> bool:
    """Whether a driver has the port to itself."""
    try:
        descriptor = os.open(port, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:  # unplugged
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


if __name__ == "__main__":
    sys.exit(main())
