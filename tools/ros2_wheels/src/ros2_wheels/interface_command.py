"""`ros2 interface`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator

from ament_index_python import get_resources

from . import packages
from .interfaces import KINDS, definition_path, interfaces, nested_type
from .main import CommandError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs of `ros2 interface`."""
    verbs = parser.add_subparsers(title="Commands", metavar="<verb>")

    verb = verbs.add_parser("list", help="List all interface types available")
    verb.add_argument("-m", "--only-msgs", action="store_true", help="Only the message types")
    verb.add_argument("-s", "--only-srvs", action="store_true", help="Only the service types")
    verb.add_argument("-a", "--only-actions", action="store_true", help="Only the action types")
    verb.set_defaults(run=print_interfaces)

    verb = verbs.add_parser(
        "package", help="Output a list of available interface types within one package"
    )
    verb.add_argument("package_name", help="Name of the ROS package")
    verb.set_defaults(run=print_package)

    verb = verbs.add_parser("packages", help="Output a list of packages that provide interfaces")
    verb.add_argument("-m", "--only-msgs", action="store_true", help="Only with messages")
    verb.add_argument("-s", "--only-srvs", action="store_true", help="Only with services")
    verb.add_argument("-a", "--only-actions", action="store_true", help="Only with actions")
    verb.set_defaults(run=print_packages)

    verb = verbs.add_parser("show", help="Output the interface definition")
    comments = verb.add_mutually_exclusive_group()
    comments.add_argument(
        "--all-comments", action="store_true", help="Show comments of nested interfaces, too"
    )
    comments.add_argument("--no-comments", action="store_true", help="Show no comments")
    verb.add_argument(
        "type", help="Interface (e.g. 'std_msgs/msg/String'); '-' reads it from standard input"
    )
    verb.set_defaults(run=show)


def _chosen_kinds(arguments: argparse.Namespace) -> list[str]:
    flags = {
        "msg": arguments.only_msgs,
        "srv": arguments.only_srvs,
        "action": arguments.only_actions,
    }
    return [kind for kind, flag in flags.items() if flag] or list(flags)


def print_interfaces(arguments: argparse.Namespace) -> None:
    """Print all interfaces, by kind."""
    packages.use_environment_prefix()
    names = {package: interfaces(package) for package in sorted(get_resources("rosidl_interfaces"))}
    for kind in _chosen_kinds(arguments):
        print(f"{KINDS[kind]}:")
        for package, package_names in names.items():
            for name in package_names:
                if name.startswith(f"{kind}/"):
                    print(f"    {package}/{name}")


def print_packages(arguments: argparse.Namespace) -> None:
    """Print the packages that have interfaces of the chosen kinds."""
    packages.use_environment_prefix()
    prefixes = tuple(f"{kind}/" for kind in _chosen_kinds(arguments))
    for package in sorted(get_resources("rosidl_interfaces")):
        if any(name.startswith(prefixes) for name in interfaces(package)):
            print(package)


def print_package(arguments: argparse.Namespace) -> None:
    """Print the interfaces of a package."""
    packages.use_environment_prefix()
    package = arguments.package_name
    if package not in get_resources("rosidl_interfaces"):
        raise CommandError(f"Unknown package name: '{package}' provides no interfaces")
    for name in interfaces(package):
        print(f"{package}/{name}")


def definition_lines(
    interface: str, comments: bool, nested_comments: bool, indent: str = ""
) -> Iterator[str]:
    """Yield the lines of a definition, each nested definition indented below its field."""
    package = interface.split("/")[0]
    for line in definition_path(interface).read_text(encoding="utf-8").splitlines():
        text = line.rstrip()
        if not comments:
            # A '#' in a text default is no comment.
            text = re.sub(r"""^((?:[^'"#]|'[^']*'|"[^"]*")*)#.*$""", r"\1", text).strip()
            if not text:
                continue
        yield indent + text if text else ""
        nested = nested_type(text, package)
        if nested is not None:
            yield from definition_lines(nested, nested_comments, nested_comments, indent + "\t")


def show(arguments: argparse.Namespace) -> None:
    """Print the definition of an interface with all nested ones."""
    packages.use_environment_prefix()
    interface = sys.stdin.readline().strip() if arguments.type == "-" else arguments.type
    comments = not arguments.no_comments
    for line in definition_lines(interface, comments, arguments.all_comments):
        print(line)
