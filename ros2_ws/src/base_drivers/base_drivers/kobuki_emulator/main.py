"""Command `kobuki_emulator`: a Kobuki base on a pseudo-terminal."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from node_common.running import END_TIMEOUT_S

from base_drivers.kobuki_emulator.control import HELP, ControlError, execute
from base_drivers.kobuki_emulator.emulated_base import EmulatedKobuki
from base_drivers.kobuki_emulator.pseudo_terminal import KobukiServer


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


def _serve_commands(server: KobukiServer, path: Path) -> None:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with (
                contextlib.suppress(OSError, UnicodeDecodeError),
                connection,
                connection.makefile("rw", encoding="utf-8") as stream,
            ):
                for line in stream:
                    try:
                        reply = execute(server, line)
                    except ControlError as error:
                        reply = f"error: {error}"
                    stream.write(reply + "\n")
                    stream.flush()


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
        if arguments.control is not None:
            print(f"faults: ros2 run base_drivers fault {arguments.control} COMMAND", flush=True)
            threading.Thread(
                target=_serve_commands, args=(server, arguments.control), daemon=True
            ).start()
        while not stop.wait(1.0):
            pass
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
