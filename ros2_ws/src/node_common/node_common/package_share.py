"""Where a package's configuration files are, in a source tree and once it is installed."""

from __future__ import annotations

from pathlib import Path


def share_file(module_file: str, package: str, name: str) -> Path:
    """Return the path of a file or folder that a package installs to its share directory.

    Args:
        module_file: `__file__` of a module of that package; the source tree has the same files.
        package: the package.
        name: path below the share directory, e.g. config/robots.

    Raises:
        PackageNotFoundError: the package is neither in a source tree nor in the ament index.
    """
    parts = Path(module_file).resolve().parents
    for folder in parts:
        if folder.name == package and (folder.parent / name).exists():
            return folder.parent / name
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory(package)) / name
