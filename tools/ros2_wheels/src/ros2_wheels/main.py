"""Entry point of the `ros2` command: one module per command, loaded only when used."""

from __future__ import annotations

import argparse
import difflib
import importlib
import signal
import sys
from collections.abc import Iterable

COMMANDS = {
    "action": "Various action related sub-commands",
    "bag": "Various rosbag related sub-commands",
    "interface": "Show information about ROS interfaces",
    "launch": "Run a launch file",
    "lifecycle": "Various lifecycle related sub-commands",
    "node": "Various node related sub-commands",
    "param": "Various param related sub-commands",
    "pkg": "Various package related sub-commands",
    "run": "Run a package specific executable",
    "service": "Various service related sub-commands",
    "topic": "Various topic related sub-commands",
}


REPLACED = {
    "daemon": "there is none: each command looks at the graph itself",
    "doctor": "use ./run doctor",
    "wtf": "use ./run doctor",
}
"""Commands of a ROS 2 installation that are not here, and what is instead."""


class CommandError(Exception):
    """A user's request cannot be done; the message is printed and the exit status is 1."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "did you mean '…'? " for a misspelt word, '' when nothing is like it."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean '{found[0]}'? " if found else ""


def main(argv: list[str] | None = None) -> int:
    """Run `ros2 ARGV` and return its exit status.

    0: done; 1: an error, which is printed on standard error; 2: wrong usage or Ctrl-C.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="ros2", description="ros2 is an extensible command-line tool for ROS 2."
    )
    subparsers = parser.add_subparsers(
        dest="command",
        title="Commands",
        metavar="Call `ros2 <command> -h` for more detailed usage.",
    )
    chosen = next((word for word in argv if not word.startswith("-")), None)
    if chosen is not None and chosen not in COMMANDS:
        instead = REPLACED.get(chosen) or f"expected one of {', '.join(COMMANDS)}"
        print(
            f"ros2 {chosen}: no such command; {nearest(chosen, COMMANDS)}{instead}", file=sys.stderr
        )
        return 2
    modules = {}
    for name, description in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=description, description=description)
        if name == chosen:
            module_name = f"{name}_command"
            modules[name] = importlib.import_module(f"ros2_wheels.{module_name}")
            modules[name].add_arguments(subparser)
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    run = getattr(arguments, "run", None)
    if run is None:  # a command without a verb
        next_parser = subparsers.choices[arguments.command]
        next_parser.print_help()
        return 0
    try:
        return run(arguments) or 0
    except CommandError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has gone: no message about flushing it
        return 1
    except KeyboardInterrupt:
        return int(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
