"""What is wrong with devices and ports that a launch will open, told before any node starts."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import os
import socket
from pathlib import Path

import psutil

_SERIAL_PORTS = ("serial/by-id/*", "ttyDXL", "kobuki", "ttyUSB*", "ttyACM*")
_CAMERAS = ("v4l/by-id/*", "video*")


def serial_port_problem(argument: str, path: str, rule: str) -> str | None:
    """Why a serial port cannot be used; None when it can.

    Args:
        argument: launch argument that names a port, for the message.
        path: device file.
        rule: where the udev rule is that names the adapter, for the message.
    """
    try:
        # As the drivers do: without becoming the terminal's owner, and exclusively.
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except FileNotFoundError:
        return (
            f"{argument}: the serial port {path} does not exist: {_present(_SERIAL_PORTS)}; plug "
            f"the adapter in, name another port with {argument}:=, or install the udev rule that "
            f"makes the name: {rule}"
        )
    except PermissionError:
        return _no_permission(argument, path)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return _in_use(argument, path)
        return f"{argument}: the serial port {path} cannot be opened: {error.strerror}"
    try:
        if not os.isatty(descriptor):
            return f"{argument}: {path} is no serial port; {_present(_SERIAL_PORTS)}"
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _in_use(argument, path)
    finally:
        os.close(descriptor)
    return None


def camera_problem(argument: str, source: str) -> str | None:
    """Why a camera cannot be used; None when it can, or when only its driver can tell.

    Args:
        argument: launch argument that names the camera, for the message.
        source: of the camera driver: device or its number, URL, file or folder.
    """
    if "://" in source:
        return None
    path = Path(f"/dev/video{source}" if source.isdecimal() else source).expanduser()
    if not path.is_relative_to("/dev"):
        return None if path.exists() else f"{argument}: {path} does not exist"
    if not path.exists():
        return f"{argument}: the camera {path} does not exist: {_present(_CAMERAS)}"
    if not os.access(path, os.R_OK | os.W_OK):
        return _no_permission(argument, str(path))
    return None


def tcp_port_problem(argument: str, port: int) -> str | None:
    """Why a page cannot be served on a TCP port of this computer; None when it can.

    Args:
        argument: launch argument that names the port, for the message.
        port: its number.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return (
                f"{argument}: port {port} cannot be used ({error.strerror}): another program, "
                f"perhaps another run, serves a page there; choose another {argument}:="
            )
    return None


def _present(patterns: tuple[str, ...], folder: Path = Path("/dev")) -> str:
    found = sorted(str(path) for pattern in patterns for path in folder.glob(pattern))
    return f"found {', '.join(found)}" if found else "none is connected"


def _no_permission(argument: str, path: str) -> str:
    device = Path(path)
    group = str(device.stat().st_gid)
    with contextlib.suppress(KeyError):
        group = device.group()
    return (
        f"{argument}: {getpass.getuser()} may not open {path}, which belongs to the group {group}: "
        f"sudo usermod -aG {group} {getpass.getuser()}, then log in again"
    )


def _in_use(argument: str, path: str) -> str:
    users = _processes_with(path) or ["a program of another user"]
    return (
        f"{argument}: {path} is in use by {', '.join(users)}; end that first, two programs cannot "
        "share a port"
    )


def _processes_with(path: str) -> list[str]:
    """Programs that have a file open, with their process numbers."""
    wanted = os.path.realpath(path)
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # processes come and go
            descriptors = Path(f"/proc/{process.pid}/fd").iterdir()
            if process.pid != os.getpid() and any(
                str(descriptor.readlink()) == wanted for descriptor in descriptors
            ):
                found.append(f"{process.name()} (pid {process.pid})")
    return found
