"""Loading launch descriptions from files."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

from .invalid_launch_file_error import InvalidLaunchFileError
from .launch_description import LaunchDescription
from .launch_description_source import LaunchDescriptionSource
from .some_substitutions_type import SomeSubstitutionsType

__all__ = [
    "AnyLaunchDescriptionSource",
    "InvalidPythonLaunchFileError",
    "PythonLaunchDescriptionSource",
    "get_launch_description_from_any_launch_file",
    "get_launch_description_from_python_launch_file",
]


class InvalidPythonLaunchFileError(Exception):
    """A Python launch file lacks generate_launch_description()."""


def get_launch_description_from_python_launch_file(
    python_launch_file_path: str,
) -> LaunchDescription:
    """Load a Python launch file and return what its generate_launch_description() returns."""
    loader = SourceFileLoader("python_launch_file", str(python_launch_file_path))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    function = getattr(module, "generate_launch_description", None)
    if function is None:
        raise InvalidPythonLaunchFileError(
            f"launch file at '{python_launch_file_path}' does not contain the required "
            "function 'generate_launch_description()'"
        )
    return function()


def get_launch_description_from_any_launch_file(launch_file_path: str) -> LaunchDescription:
    """Load a launch file; only Python launch files are supported here.

    Raises InvalidLaunchFileError for other formats and for files that fail to load.
    """
    path = Path(launch_file_path)
    if not path.is_file():
        raise FileNotFoundError(f"launch file '{path}' does not exist")
    if path.suffix != ".py":
        raise InvalidLaunchFileError(
            path.suffix.lstrip("."),
            likely_errors=[
                ValueError("only Python launch files can be read without a ROS 2 installation")
            ],
        )
    try:
        return get_launch_description_from_python_launch_file(str(path))
    except Exception as error:
        raise InvalidLaunchFileError("py", likely_errors=[error]) from error


class PythonLaunchDescriptionSource(LaunchDescriptionSource):
    """A Python launch file."""

    def __init__(self, launch_file_path: SomeSubstitutionsType) -> None:
        super().__init__(None, launch_file_path, "interpreted python launch file")

    def _load(self, location: str) -> LaunchDescription:
        return get_launch_description_from_python_launch_file(location)


class AnyLaunchDescriptionSource(LaunchDescriptionSource):
    """A launch file of any known format."""

    def __init__(self, launch_file_path: SomeSubstitutionsType) -> None:
        super().__init__(None, launch_file_path, "Any launch file")

    def _load(self, location: str) -> LaunchDescription:
        return get_launch_description_from_any_launch_file(location)
