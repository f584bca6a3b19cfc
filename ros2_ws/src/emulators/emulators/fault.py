"""Command `fault`: tells a running emulator a command, such as a fault, by its control socket."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from emulators.control_socket import CommandError, tell


def main(argv: list[str] | None = None) -> int:
    """Send one command and print the answer. Returns the exit status: 1 when it was refused."""
    parser = argparse.ArgumentParser(
        prog="fault",
        description="Sends a command to an emulator that was started with a control socket.",
        epilog="The command 'help' lists what an emulator understands.",
    )
    parser.add_argument("socket", type=Path, help="what --control names, e.g. /tmp/dxl.sock")
    parser.add_argument("command", nargs="+", help="e.g. overload 4")
    arguments = parser.parse_args(argv)
    try:
        print(tell(arguments.socket, " ".join(arguments.command)))
    except CommandError as error:
        print(f"fault: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"fault: no emulator answers on {arguments.socket}: {error.strerror or error}; was it "
            "started with this control socket?",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
