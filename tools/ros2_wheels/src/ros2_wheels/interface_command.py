"""`ros2 interface`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ament_index_python import get_resource, get_resources

from . import packages
from .main import CommandError

_KINDS = {"msg": "Messages", "srv": "Services", "action": "Actions"}
_PRIMITIVES = {
    "bool", "byte", "char", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32",
    "uint32", "int64", "uint64", "string", "wstring",
}  # fmt: skip
# TYPE, with optional length limits, then a name; a constant has "=" after the name.
_FIELD = re.compile(r"^\s*([A-Za-z][\w/]*)(?:<=\d+)?(?:\[[^\]]*\])?\s+\w+\s*(=?)")


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


def _interfaces(package: str) -> list[str]:
    """Return the 'kind/Name' of a package's interfaces, sorted."""
    content, _ = get_resource("rosidl_interfaces", package)
    names = {line.rsplit(".", 1)[0] for line in content.splitlines() if "." in line}
    return sorted(n for n in names if n.split("/")[0] in _KINDS and not n.startswith("action/_"))


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
    names = {
        package: _interfaces(package) for package in sorted(get_resources("rosidl_interfaces"))
    }
    for kind in _chosen_kinds(arguments):
        print(f"{_KINDS[kind]}:")
        for package, interfaces in names.items():
            for name in interfaces:
                if name.startswith(f"{kind}/"):
                    print(f"    {package}/{name}")


def print_packages(arguments: argparse.Namespace) -> None:
    """Print the packages that have interfaces of the chosen kinds."""
    packages.use_environment_prefix()
    prefixes = tuple(f"{kind}/" for kind in _chosen_kinds(arguments))
    for package in sorted(get_resources("rosidl_interfaces")):
        if any(name.startswith(prefixes) for name in _interfaces(package)):
            print(package)


def print_package(arguments: argparse.Namespace) -> None:
    """Print the interfaces of a package."""
    packages.use_environment_prefix()
    package = arguments.package_name
    if package not in get_resources("rosidl_interfaces"):
        raise CommandError(f"Unknown package name: '{package}' provides no interfaces")
    for name in _interfaces(package):
        print(f"{package}/{name}")


def definition_path(interface: str) -> Path:
    """Return the file that defines 'package/kind/Name'; CommandError when there is none."""
    parts = interface.split("/")
    if len(parts) != 3 or parts[1] not in _KINDS:
        raise CommandError(
            f"Invalid name '{interface}'. Expected three parts separated by '/', "
            "like 'std_msgs/msg/String'"
        )
    package, kind, name = parts
    path = packages.share_directory(package) / kind / f"{name}.{kind}"
    if not path.is_file():
        known = [n for n in _interfaces(package) if n.startswith(f"{kind}/")]
        raise CommandError(
            f"Could not find the interface '{interface}' at '{path}'; "
            f"{package} has: {', '.join(known) or 'none of that kind'}"
        )
    return path


def nested_type(line: str, package: str) -> str | None:
    """Return the 'package/msg/Name' that a line of a definition uses; None for other lines."""
    match = _FIELD.match(line)
    if match is None or match[2] or match[1] in _PRIMITIVES:
        return None
    parts = match[1].split("/")
    if len(parts) == 1:
        parts.insert(0, package)
    return f"{parts[0]}/msg/{parts[-1]}"


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
