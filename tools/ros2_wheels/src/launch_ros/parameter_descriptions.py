"""Parameter values with a type, single parameters and parameter files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml
from launch import LaunchContext, SomeSubstitutionsType
from launch.substitutions import (
    EnvironmentVariable,
    LaunchConfiguration,
    SubstitutionFailure,
    ThisLaunchFileDir,
)
from launch.utilities import normalize_to_list_of_substitutions, perform_substitutions
from launch.utilities.type_utils import normalize_typed_substitution, perform_typed_substitution

from .parameter_yaml import write_parameters_file
from .substitutions import FindPackagePrefix, FindPackageShare

__all__ = ["Parameter", "ParameterFile", "ParameterValue"]

_FILE_SUBSTITUTIONS: dict[str, Any] = {
    "var": LaunchConfiguration,
    "env": EnvironmentVariable,
    "dirname": ThisLaunchFileDir,
    "find-pkg-share": FindPackageShare,
    "find-pkg-prefix": FindPackagePrefix,
}


class ParameterValue:
    """A value, or a substitution whose text is converted to `value_type` (None: as YAML)."""

    def __init__(self, value: Any, *, value_type: Any = None) -> None:
        self.value_type = value_type
        self.value = normalize_typed_substitution(value, value_type)

    def evaluate(self, context: LaunchContext) -> Any:
        """Return the value; ValueError when its text does not read as the type."""
        return perform_typed_substitution(context, self.value, self.value_type)


class Parameter:
    """A parameter's name and value."""

    def __init__(self, name: SomeSubstitutionsType, value: Any, *, value_type: Any = None) -> None:
        self.name = normalize_to_list_of_substitutions(name)
        self._value = ParameterValue(value, value_type=value_type)

    def evaluate(self, context: LaunchContext) -> tuple[str, Any]:
        """Return the name and the value."""
        return perform_substitutions(context, self.name), self._value.evaluate(context)


class ParameterFile:
    """A YAML file of parameters; with `allow_substs`, $(...) in it is replaced first."""

    def __init__(
        self, param_file: Any, *, allow_substs: bool | SomeSubstitutionsType = False
    ) -> None:
        if isinstance(param_file, (os.PathLike, bytes)):
            param_file = os.fsdecode(param_file)
        self.param_file = normalize_to_list_of_substitutions(param_file)
        self.allow_substs = normalize_typed_substitution(allow_substs, bool)

    def evaluate(self, context: LaunchContext) -> Path:
        """Return the path of the file, or of a temporary one with the replaced text."""
        path = Path(perform_substitutions(context, self.param_file))
        if not perform_typed_substitution(context, self.allow_substs, bool):
            return path
        text = _substitute(path.read_text(encoding="utf-8"), context)
        try:
            return write_parameters_file(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise SubstitutionFailure(
                f"the substituted parameter file '{path}' is not a valid yaml file: {error}"
            ) from error


def _substitute(text: str, context: LaunchContext) -> str:
    """Replace the innermost $(kind argument...) until there are none."""
    pattern = re.compile(r"\$\(([\w-]+)((?:\s+[^\s()]+)*)\s*\)")

    def replace(match: re.Match[str]) -> str:
        kind, arguments = match[1], match[2].split()
        if kind not in _FILE_SUBSTITUTIONS:
            known = ", ".join(_FILE_SUBSTITUTIONS)
            raise SubstitutionFailure(f"unknown substitution '$({kind})', expected one of {known}")
        if kind == "env" and len(arguments) == 2:
            return EnvironmentVariable(arguments[0], default_value=arguments[1]).perform(context)
        if kind == "var" and len(arguments) == 2:
            return LaunchConfiguration(arguments[0], default=arguments[1]).perform(context)
        return _FILE_SUBSTITUTIONS[kind](*arguments).perform(context)

    while pattern.search(text):
        text = pattern.sub(replace, text)
    return text
