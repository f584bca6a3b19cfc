"""`ros2 pkg`."""

from __future__ import annotations

import argparse

from ament_index_python.packages import get_packages_with_prefixes

from . import packages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs of `ros2 pkg`."""
    verbs = parser.add_subparsers(title="Commands", metavar="<verb>")

    verb = verbs.add_parser("executables", help="Output a list of package specific executables")
    verb.add_argument("package_name", nargs="?", help="The package name")
    verb.add_argument(
        "--full-path", action="store_true", help="Show the full path of each executable"
    )
    verb.set_defaults(run=print_executables)

    verb = verbs.add_parser("list", help="Output a list of available packages")
    verb.set_defaults(run=print_packages)

    verb = verbs.add_parser("prefix", help="Output the prefix path of a package")
    verb.add_argument("package_name", help="The package name")
    verb.add_argument(
        "--share", action="store_true", help="Show the share directory for the package"
    )
    verb.set_defaults(run=print_prefix)

    verb = verbs.add_parser("xml", help="Output the XML of the package manifest")
    verb.add_argument("package_name", help="The package name")
    verb.set_defaults(run=print_manifest)


def print_executables(arguments: argparse.Namespace) -> None:
    """Print the executables of one package, or of all."""
    packages.use_environment_prefix()
    names = [arguments.package_name] if arguments.package_name else get_packages_with_prefixes()
    for package in sorted(names):
        for path in packages.executables(package):
            print(path if arguments.full_path else f"{package} {path.name}")


def print_packages(arguments: argparse.Namespace) -> None:
    """Print the names of all packages."""
    packages.use_environment_prefix()
    for package in sorted(get_packages_with_prefixes()):
        print(package)


def print_prefix(arguments: argparse.Namespace) -> None:
    """Print where a package is installed."""
    packages.use_environment_prefix()
    find = packages.share_directory if arguments.share else packages.prefix
    print(find(arguments.package_name))


def print_manifest(arguments: argparse.Namespace) -> None:
    """Print a package's package.xml."""
    packages.use_environment_prefix()
    path = packages.share_directory(arguments.package_name) / "package.xml"
    print(path.read_text(encoding="utf-8"))
