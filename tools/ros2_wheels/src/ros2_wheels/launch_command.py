"""`ros2 launch`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from launch import LaunchDescription, LaunchIntrospector, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.child_process import adopt_orphans, kill_descendants
from launch.invalid_launch_file_error import InvalidLaunchFileError
from launch.launch_description_sources import (
    AnyLaunchDescriptionSource,
    get_launch_description_from_any_launch_file,
)

from . import packages
from .main import CommandError, nearest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ros2 launch`."""
    parser.add_argument(
        "-n",
        "--noninteractive",
        default=not sys.stdin.isatty(),
        action="store_true",
        help="Run the launch system non-interactively, with no terminal associated",
    )
    parser.add_argument(
        "-d",
        "--debug",
        action="store_true",
        help="Put the launch system in debug mode, provides more verbose output.",
    )
    only_show = parser.add_mutually_exclusive_group()
    only_show.add_argument(
        "-p",
        "--print",
        "--print-description",
        action="store_true",
        help="Print the launch description to the console without launching it.",
    )
    only_show.add_argument(
        "-s",
        "--show-args",
        "--show-arguments",
        action="store_true",
        help="Show arguments that may be given to the launch file.",
    )
    parser.add_argument(
        "-a",
        "--show-all-subprocesses-output",
        action="store_true",
        help="Show all launched subprocesses' output by overriding their output configuration "
        "using the OVERRIDE_LAUNCH_PROCESS_OUTPUT envvar.",
    )
    parser.add_argument(
        "--launch-prefix", help="Prefix command, which should go before all executables."
    )
    parser.add_argument(
        "--launch-prefix-filter",
        help="Regex pattern for filtering which executables the --launch-prefix is applied to "
        "by matching the executable name.",
    )
    parser.add_argument(
        "package_name", help="Name of the ROS package which contains the launch file"
    )
    parser.add_argument("launch_file_name", nargs="?", help="Name of the launch file")
    parser.add_argument(
        "launch_arguments",
        nargs="*",
        help="Arguments to the launch file; '<name>:=<value>' (for duplicates, last one wins)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Launch, print or describe a launch file given by package and name, or by its path."""
    packages.use_environment_prefix()
    words = list(arguments.launch_arguments)
    if Path(arguments.package_name).is_file():
        path = Path(arguments.package_name)
        words = [*([arguments.launch_file_name] if arguments.launch_file_name else []), *words]
    else:
        path = find_launch_file(arguments.package_name, arguments.launch_file_name)
    if arguments.launch_prefix_filter is not None and arguments.launch_prefix is None:
        raise CommandError(
            "--launch-prefix must be specified if --launch-prefix-filter is provided"
        )
    if arguments.launch_prefix is not None:
        words.append(f"launch-prefix:={arguments.launch_prefix}")
        words.append(f"launch-prefix-filter:={arguments.launch_prefix_filter or ''}")
    if arguments.show_all_subprocesses_output:
        os.environ["OVERRIDE_LAUNCH_PROCESS_OUTPUT"] = "both"
    launch_arguments = parse_launch_arguments(words)
    if arguments.print or arguments.show_args:
        try:
            description = get_launch_description_from_any_launch_file(str(path))
        except InvalidLaunchFileError as error:
            raise CommandError(str(error)) from error
        if arguments.print:
            print(LaunchIntrospector().format_launch_description(description))
        else:
            print_launch_arguments(description)
        return 0

    service = LaunchService(
        argv=words, noninteractive=arguments.noninteractive, debug=arguments.debug
    )
    service.include_launch_description(
        LaunchDescription(
            [
                IncludeLaunchDescription(
                    AnyLaunchDescriptionSource(str(path)), launch_arguments=launch_arguments
                )
            ]
        )
    )
    # Programs that nodes have started themselves end with the launch, too.
    adopt_orphans()
    try:
        return service.run()
    finally:
        kill_descendants()


def find_launch_file(package: str, file_name: str | None) -> Path:
    """Return the path of a launch file in the package's share directory.

    Raises CommandError when there is no such package or file, or several files of that name.
    """
    if file_name is None:
        raise CommandError(
            f"No launch file supplied: '{package}' is not a file; "
            "expected a path, or a package and the name of a launch file"
        )
    share = packages.share_directory(package)
    found = [
        Path(directory, file_name)
        for directory, _, files in os.walk(share, followlinks=True)
        if file_name in files
    ]
    if not found:
        known = sorted(path.name for path in share.rglob("*.launch.py"))
        hint = f"known launch files: {', '.join(known)}" if known else "it has no launch files"
        raise CommandError(
            f"file '{file_name}' was not found in the share directory of package '{package}' "
            f"which is at '{share}'; {nearest(file_name, known)}{hint}"
        )
    if len(found) > 1:
        raise CommandError(
            f"file '{file_name}' was found more than once in the share directory of package "
            f"'{package}': [{', '.join(map(str, found))}]"
        )
    return found[0]


def parse_launch_arguments(words: list[str]) -> list[tuple[str, str]]:
    """Return (name, value) pairs of `name:=value` words; of duplicates the last one counts."""
    result: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition(":=")
        if not separator or not name or not value:
            raise CommandError(
                f"malformed launch argument '{word}', expected format '<name>:=<value>'"
            )
        result[name] = value
    return list(result.items())


def print_launch_arguments(description: LaunchDescription) -> None:
    """Print the launch arguments with descriptions and defaults."""
    print("Arguments (pass arguments as '<name>:=<value>'):")
    arguments = description.get_launch_arguments()
    for argument in arguments:
        mark = "*" if argument._conditionally_included else ""
        print(f"\n    '{argument.name}':{mark}\n        {argument.description}")
        if argument.default_value is not None:
            default = " + ".join(sub.describe() for sub in argument.default_value)
            print(f"        (default: {default})")
    if not arguments:
        print("\n  No arguments.")
    elif any(argument._conditionally_included for argument in arguments):
        print("\n* argument(s) which are only used if specific conditions occur")
