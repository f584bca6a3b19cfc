"""Substitutions of the launch package."""

from __future__ import annotations

import importlib
import math
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .some_substitutions_type import SomeSubstitutionsType
from .substitution import Substitution
from .utilities import normalize_to_list_of_substitutions, perform_substitutions

if TYPE_CHECKING:
    from .launch_context import LaunchContext

__all__ = [
    "AllSubstitution",
    "AndSubstitution",
    "AnySubstitution",
    "Command",
    "EnvironmentVariable",
    "EqualsSubstitution",
    "FileContent",
    "FindExecutable",
    "IfElseSubstitution",
    "LaunchConfiguration",
    "LaunchLogDir",
    "LocalSubstitution",
    "NotEqualsSubstitution",
    "NotSubstitution",
    "OrSubstitution",
    "PathJoinSubstitution",
    "PythonExpression",
    "SubstitutionFailure",
    "TextSubstitution",
    "ThisLaunchFile",
    "ThisLaunchFileDir",
]


class SubstitutionFailure(RuntimeError):
    """A substitution could not be performed."""


def _describe_all(subs: Iterable[Substitution]) -> str:
    return " + ".join(sub.describe() for sub in subs)


class TextSubstitution(Substitution):
    """Plain text."""

    def __init__(self, *, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"TextSubstitution expected text, got {text!r}")
        self.text = text

    def describe(self) -> str:
        """Return the quoted text."""
        return f"'{self.text}'"

    def perform(self, context: LaunchContext) -> str:
        """Return the text."""
        return self.text


class LaunchConfiguration(Substitution):
    """The value of a launch configuration (launch argument)."""

    def __init__(
        self, variable_name: SomeSubstitutionsType, *, default: Any | Iterable[Any] | None = None
    ) -> None:
        self.variable_name = normalize_to_list_of_substitutions(variable_name)
        self._default: list[Substitution] | None = None
        if default is not None:
            single = isinstance(default, (str, Substitution)) or not isinstance(default, Iterable)
            items = [default] if single else list(default)
            self._default = normalize_to_list_of_substitutions(
                [i if isinstance(i, (str, Substitution)) else str(i) for i in items]
            )

    def describe(self) -> str:
        """Return the kind and the variable's name."""
        return f"LaunchConfig({_describe_all(self.variable_name)})"

    def perform(self, context: LaunchContext) -> str:
        """Return the value, or the default; SubstitutionFailure when there is neither."""
        name = perform_substitutions(context, self.variable_name)
        if name in context.launch_configurations:
            return context.launch_configurations[name]
        if self._default is None:
            raise SubstitutionFailure(f"launch configuration '{name}' does not exist")
        return perform_substitutions(context, self._default)


class PathJoinSubstitution(Substitution):
    """Path components joined by the separator.

    A component may itself be a list, whose parts are concatenated first.
    """

    def __init__(self, substitutions: Iterable[SomeSubstitutionsType]) -> None:
        self._components = [normalize_to_list_of_substitutions(s) for s in substitutions]

    @property
    def substitutions(self) -> list[list[Substitution]]:
        """The components."""
        return self._components

    def __truediv__(self, additional_path: SomeSubstitutionsType) -> PathJoinSubstitution:
        """Return the path with one more component."""
        return PathJoinSubstitution([*self._components, additional_path])

    def describe(self) -> str:
        """Return the kind and its components."""
        return f"PathJoin('{' + '.join(_describe_all(c) for c in self._components)}')"

    def perform(self, context: LaunchContext) -> str:
        """Return the joined path."""
        parts = [perform_substitutions(context, component) for component in self._components]
        return os.path.join(*parts)  # noqa: PTH118  (Path would change "package://…")


class EnvironmentVariable(Substitution):
    """The value of an environment variable of the launch context."""

    def __init__(
        self, name: SomeSubstitutionsType, *, default_value: SomeSubstitutionsType | None = None
    ) -> None:
        self.name = normalize_to_list_of_substitutions(name)
        self.default_value = (
            None if default_value is None else normalize_to_list_of_substitutions(default_value)
        )

    def describe(self) -> str:
        """Return the kind and the variable's name."""
        return f"EnvVar({_describe_all(self.name)})"

    def perform(self, context: LaunchContext) -> str:
        """Return the value, or the default; SubstitutionFailure when there is neither."""
        name = perform_substitutions(context, self.name)
        if name in context.environment:
            return context.environment[name]
        if self.default_value is None:
            raise SubstitutionFailure(f"environment variable '{name}' does not exist")
        return perform_substitutions(context, self.default_value)


class PythonExpression(Substitution):
    """The result of a Python expression; names from `math` need no prefix."""

    def __init__(
        self, expression: SomeSubstitutionsType, python_modules: SomeSubstitutionsType = ("math",)
    ) -> None:
        self.expression = normalize_to_list_of_substitutions(expression)
        self.python_modules = normalize_to_list_of_substitutions(python_modules)

    def describe(self) -> str:
        """Return the kind and the expression."""
        modules = ", ".join(sub.describe() for sub in self.python_modules)
        return f"PythonExpr({_describe_all(self.expression)}, [{modules}])"

    def perform(self, context: LaunchContext) -> str:
        """Return str() of the expression's value."""
        names: dict[str, Any] = {}
        for sub in self.python_modules:
            module = importlib.import_module(context.perform_substitution(sub))
            if module is math:
                names.update(vars(math))
            names[module.__name__] = module
        return str(eval(perform_substitutions(context, self.expression), {}, names))


class LocalSubstitution(Substitution):
    """An attribute of `context.locals`, e.g. `event.name` inside an event handler."""

    def __init__(self, expression: str, description: str | None = None) -> None:
        self.expression = expression
        self.description = description

    def describe(self) -> str:
        """Return the kind and the expression."""
        return f"LocalVar('{self.description or self.expression}')"

    def perform(self, context: LaunchContext) -> str:
        """Return the value of the expression on the context's locals."""
        return eval(f"context.locals.{self.expression}", {"context": context})


class ThisLaunchFile(Substitution):
    """The path of the launch file that is being visited."""

    def describe(self) -> str:
        """Return the kind."""
        return "ThisLaunchFile()"

    def perform(self, context: LaunchContext) -> str:
        """Return the path; SubstitutionFailure outside a launch file."""
        return _current_launch_file(context, "current_launch_file_path", "ThisLaunchFile")


class ThisLaunchFileDir(Substitution):
    """The directory of the launch file that is being visited."""

    def describe(self) -> str:
        """Return the kind."""
        return "ThisLaunchFileDir()"

    def perform(self, context: LaunchContext) -> str:
        """Return the directory; SubstitutionFailure outside a launch file."""
        return _current_launch_file(context, "current_launch_file_directory", "ThisLaunchFileDir")


def _current_launch_file(context: LaunchContext, key: str, caller: str) -> str:
    try:
        return context.get_locals_as_dict()[key]
    except KeyError:
        raise SubstitutionFailure(f"{caller} used outside of a launch file (in a script)") from None


class LaunchLogDir(Substitution):
    """The directory of this launch's log files."""

    def perform(self, context: LaunchContext) -> str:
        """Return the directory."""
        from . import logging

        return logging.launch_config.log_dir


class FileContent(Substitution):
    """The text of a file."""

    def __init__(self, path: SomeSubstitutionsType) -> None:
        self.path = normalize_to_list_of_substitutions(path)

    def describe(self) -> str:
        """Return the kind and the path."""
        return f"FileContent({_describe_all(self.path)})"

    def perform(self, context: LaunchContext) -> str:
        """Return the file's text; SubstitutionFailure when it cannot be read."""
        path = perform_substitutions(context, self.path)
        try:
            return Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise SubstitutionFailure(f"Failed to read file '{path}': {error}") from error


class FindExecutable(Substitution):
    """The path of a program on PATH."""

    def __init__(self, *, name: SomeSubstitutionsType) -> None:
        self.name = normalize_to_list_of_substitutions(name)

    def describe(self) -> str:
        """Return the kind and the program's name."""
        return f"FindExec({_describe_all(self.name)})"

    def perform(self, context: LaunchContext) -> str:
        """Return the path; SubstitutionFailure when PATH has no such program."""
        name = perform_substitutions(context, self.name)
        found = shutil.which(name, path=context.environment.get("PATH"))
        if found is None:
            raise SubstitutionFailure(f"executable '{name}' not found on the PATH")
        return found


class Command(Substitution):
    """The standard output of a command.

    `on_stderr` says what output on stderr means: 'fail', 'ignore', 'warn' or 'capture' (append
    it to the result). A failing command is always a SubstitutionFailure.
    """

    def __init__(
        self, command: SomeSubstitutionsType, *, on_stderr: SomeSubstitutionsType = "fail"
    ) -> None:
        self.command = normalize_to_list_of_substitutions(command)
        self.on_stderr = normalize_to_list_of_substitutions(on_stderr)

    def describe(self) -> str:
        """Return the kind and the command."""
        return f"Command({_describe_all(self.command)})"

    def perform(self, context: LaunchContext) -> str:
        """Run the command (split like a shell does) and return its output."""
        command = perform_substitutions(context, self.command)
        on_stderr = perform_substitutions(context, self.on_stderr)
        if on_stderr not in ("fail", "ignore", "warn", "capture"):
            raise SubstitutionFailure(
                "expected 'on_stderr' to be one of: 'fail', 'ignore', 'warn' or 'capture', "
                f"got '{on_stderr}'"
            )
        try:
            result = subprocess.run(
                shlex.split(command),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if on_stderr == "capture" else subprocess.PIPE,
                env=dict(context.environment),
                text=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise SubstitutionFailure(f"file not found: {error}") from error
        stderr = f"\nCaptured stderr output: {result.stderr}" if result.stderr else ""
        if result.returncode != 0:
            raise SubstitutionFailure(f"executed command failed. Command: {command}{stderr}")
        if stderr and on_stderr in ("fail", "warn"):
            message = f"executed command showed stderr output. Command: {command}{stderr}"
            if on_stderr == "fail":
                raise SubstitutionFailure(message)
            from . import logging

            logging.get_logger("launch").warning(message)
        return result.stdout


def _as_bool(context: LaunchContext, subs: list[Substitution]) -> bool:
    from .utilities.type_utils import coerce_to_type

    try:
        return coerce_to_type(perform_substitutions(context, subs), bool)
    except ValueError as error:
        raise SubstitutionFailure(str(error)) from error


def _bool_text(value: bool) -> str:
    return "true" if value else "false"


class NotSubstitution(Substitution):
    """'true' when the value is false, else 'false'."""

    def __init__(self, value: SomeSubstitutionsType) -> None:
        self.value = normalize_to_list_of_substitutions(value)

    def perform(self, context: LaunchContext) -> str:
        """Return 'true' or 'false'."""
        return _bool_text(not _as_bool(context, self.value))


class AllSubstitution(Substitution):
    """'true' when all arguments are true, else 'false'."""

    def __init__(self, *args: SomeSubstitutionsType) -> None:
        self.args = [normalize_to_list_of_substitutions(arg) for arg in args]

    def _values(self, context: LaunchContext) -> list[bool]:
        return [_as_bool(context, arg) for arg in self.args]

    def perform(self, context: LaunchContext) -> str:
        """Return 'true' or 'false'; every argument must read as a bool."""
        return _bool_text(all(self._values(context)))


class AnySubstitution(AllSubstitution):
    """'true' when at least one argument is true, else 'false'."""

    def perform(self, context: LaunchContext) -> str:
        """Return 'true' or 'false'; every argument must read as a bool."""
        return _bool_text(any(self._values(context)))


class AndSubstitution(AllSubstitution):
    """'true' when both sides are true, else 'false'."""

    def __init__(self, left: SomeSubstitutionsType, right: SomeSubstitutionsType) -> None:
        super().__init__(left, right)


class OrSubstitution(AnySubstitution):
    """'true' when at least one side is true, else 'false'."""

    def __init__(self, left: SomeSubstitutionsType, right: SomeSubstitutionsType) -> None:
        super().__init__(left, right)


class EqualsSubstitution(Substitution):
    """'true' when both sides are equal: as bools, else as numbers, else as text."""

    def __init__(self, left: Any, right: Any) -> None:
        self.left = self._normalize(left)
        self.right = self._normalize(right)

    @staticmethod
    def _normalize(value: Any) -> list[Substitution]:
        from .utilities.type_utils import is_substitution

        if value is None:
            value = ""
        elif isinstance(value, bool):
            value = _bool_text(value)
        elif not is_substitution(value):
            value = str(value)
        return normalize_to_list_of_substitutions(value)

    def _equal(self, context: LaunchContext) -> bool:
        left = perform_substitutions(context, self.left)
        right = perform_substitutions(context, self.right)
        words = {"true": True, "1": True, "false": False, "0": False}
        if left.lower() in words and right.lower() in words:
            return words[left.lower()] == words[right.lower()]
        try:
            return math.isclose(float(left), float(right))
        except ValueError:
            return left == right

    def perform(self, context: LaunchContext) -> str:
        """Return 'true' or 'false'."""
        return _bool_text(self._equal(context))


class NotEqualsSubstitution(EqualsSubstitution):
    """'true' when the sides differ, else 'false'."""

    def perform(self, context: LaunchContext) -> str:
        """Return 'true' or 'false'."""
        return _bool_text(not self._equal(context))


class IfElseSubstitution(Substitution):
    """One of two texts, chosen by a condition."""

    def __init__(
        self,
        condition: SomeSubstitutionsType,
        if_value: SomeSubstitutionsType = "",
        else_value: SomeSubstitutionsType = "",
    ) -> None:
        if if_value == "" and else_value == "":
            raise RuntimeError("One of if_value and else_value must be specified")
        self.condition = normalize_to_list_of_substitutions(condition)
        self.if_value = normalize_to_list_of_substitutions(if_value)
        self.else_value = normalize_to_list_of_substitutions(else_value)

    def perform(self, context: LaunchContext) -> str:
        """Return the text of the branch that the condition selects."""
        chosen = self.if_value if _as_bool(context, self.condition) else self.else_value
        return perform_substitutions(context, chosen)
