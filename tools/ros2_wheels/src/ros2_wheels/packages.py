"""Packages of the environment: from wheels and from workspaces, by AMENT_PREFIX_PATH."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
    get_packages_with_prefixes,
)

from .main import CommandError, nearest


def use_environment_prefix() -> None:
    """Make packages of wheels known even when AMENT_PREFIX_PATH does not name their prefix."""
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    if sys.prefix not in prefixes and Path(sys.prefix, "share", "ament_index").is_dir():
        os.environ["AMENT_PREFIX_PATH"] = os.pathsep.join([*prefixes, sys.prefix])


def prefix(package: str) -> Path:
    """Return the installation prefix; CommandError when the package is not found."""
    try:
        return Path(get_package_prefix(package))
    except (PackageNotFoundError, ValueError) as error:
        raise _not_found(package, error) from error


def share_directory(package: str) -> Path:
    """Return the share directory; CommandError when the package is not found."""
    try:
        return Path(get_package_share_directory(package))
    except (PackageNotFoundError, ValueError) as error:
        raise _not_found(package, error) from error


def _not_found(package: str, error: Exception) -> CommandError:
    hint = nearest(package, get_packages_with_prefixes())
    return CommandError(f"Package '{package}' not found: {hint or error}".rstrip())


def executables(package: str) -> list[Path]:
    """Return the paths of the executables in PREFIX/lib/PACKAGE, sorted."""
    directory = prefix(package) / "lib" / package
    if not directory.is_dir():
        return []
    return sorted(
        path for path in directory.rglob("*") if path.is_file() and os.access(path, os.X_OK)
    )
