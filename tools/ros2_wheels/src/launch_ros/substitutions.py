"""Substitutions that find packages and their executables."""

from __future__ import annotations

import shutil
from pathlib import Path

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch import LaunchContext, SomeSubstitutionsType, Substitution
from launch.substitutions import SubstitutionFailure
from launch.utilities import normalize_to_list_of_substitutions, perform_substitutions

__all__ = ["ExecutableInPackage", "FindPackage", "FindPackagePrefix", "FindPackageShare"]


class FindPackage(Substitution):
    """Base class: a directory of a package."""

    def __init__(self, package: SomeSubstitutionsType) -> None:
        self.package = normalize_to_list_of_substitutions(package)

    def describe(self) -> str:
        """Return the kind and the package."""
        package = " + ".join(sub.describe() for sub in self.package)
        return f"{type(self).__name__}(pkg={package})"

    def find(self, package_name: str) -> str:
        """Return the directory; PackageNotFoundError when there is no such package."""
        raise NotImplementedError

    def perform(self, context: LaunchContext) -> str:
        """Return the directory."""
        return self.find(perform_substitutions(context, self.package))


class FindPackagePrefix(FindPackage):
    """The installation prefix of a package."""

    def find(self, package_name: str) -> str:
        """Return the prefix."""
        return get_package_prefix(package_name)


class FindPackageShare(FindPackage):
    """The share directory of a package."""

    def find(self, package_name: str) -> str:
        """Return the share directory."""
        return get_package_share_directory(package_name)


class ExecutableInPackage(FindPackagePrefix):
    """The path of a package's executable, in PREFIX/lib/PACKAGE."""

    def __init__(self, executable: SomeSubstitutionsType, package: SomeSubstitutionsType) -> None:
        super().__init__(package)
        self.executable = normalize_to_list_of_substitutions(executable)

    def describe(self) -> str:
        """Return the package and the executable."""
        package = " + ".join(sub.describe() for sub in self.package)
        executable = " + ".join(sub.describe() for sub in self.executable)
        return f"ExecInPkg(pkg={package}, exec={executable})"

    def perform(self, context: LaunchContext) -> str:
        """Return the path; SubstitutionFailure when the package has no such executable."""
        executable = perform_substitutions(context, self.executable)
        package = perform_substitutions(context, self.package)
        prefix = self.find(package)
        directory = Path(prefix, "lib", package)
        if not directory.is_dir():
            raise SubstitutionFailure(
                f"package '{package}' found at '{prefix}', but libexec directory "
                f"'{directory}' does not exist"
            )
        path = shutil.which(executable, path=directory)
        if path is None:
            raise SubstitutionFailure(
                f"executable '{executable}' not found on the libexec directory '{directory}'"
            )
        return path
