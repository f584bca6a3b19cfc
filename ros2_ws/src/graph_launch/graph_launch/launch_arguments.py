"""Checks the arguments of a launch file before anything is started.

`ros2 launch` passes every `name:=value` on, also misspelt ones, which would then silently do
nothing. The check here knows the declared arguments and refuses the rest. It needs no ROS.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LAUNCH_CONFIGURATIONS = frozenset(
    {
        "emulate_tty",
        "global_params",
        "launch-prefix",
        "launch-prefix-filter",
        "ros_namespace",
        "ros_remaps",
        "sigkill_timeout",
        "sigterm_timeout",
    }
)
"""Names that launch and launch_ros read themselves; they are not arguments of a launch file."""

Value = str | int | float | bool | None


class ArgumentError(ValueError):
    """Launch arguments are wrong; the message has one line for each."""


@dataclass(frozen=True)
class LaunchArgument:
    """One argument of a launch file.

    Attributes:
        name: as in `name:=value`.
        default: text of the default value.
        description: for `--show-args`, with the unit.
        kind: `text`, `integer`, `number`, `boolean` or `choice`.
        low: smallest number allowed.
        high: largest number allowed.
        choices: allowed texts, for `choice`.
        optional: an empty text is allowed, and read as None.
    """

    name: str
    default: str
    description: str
    kind: str = "text"
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    optional: bool = False

    @property
    def allowed_texts(self) -> tuple[str, ...] | None:
        """The texts that the value must be one of, or None when there is no such list."""
        if self.kind not in ("boolean", "choice"):
            return None
        texts = ("true", "false") if self.kind == "boolean" else self.choices
        return (*texts, "") if self.optional else texts

    def read(self, text: str) -> Value:
        """Value of a text.

        Raises:
            ArgumentError: the text is not a value of this argument.
        """
        text = text.strip()
        if not text:
            if self.optional:
                return None
            raise ArgumentError(f"{self.name} is empty; expected {self.expected}")
        allowed = self.allowed_texts
        if allowed is not None:
            if text.lower() not in allowed:
                raise ArgumentError(f"{self.name} is '{text}'; expected {self.expected}")
            return text.lower() == "true" if self.kind == "boolean" else text.lower()
        if self.kind == "text":
            return text
        try:
            number: int | float = int(text) if self.kind == "integer" else float(text)
        except ValueError:
            raise ArgumentError(f"{self.name} is '{text}'; expected {self.expected}") from None
        if not self.low <= number <= self.high:
            raise ArgumentError(f"{self.name} is {text}; expected {self.expected}")
        return number

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        allowed = self.allowed_texts
        if allowed is not None:
            return "one of " + ", ".join(filter(None, allowed))
        if self.kind == "text":
            return "a text"
        noun = "a whole number" if self.kind == "integer" else "a number"
        return f"{noun} in {self.low:g} .. {self.high:g}"


def check_arguments(
    arguments: Sequence[LaunchArgument], given: Mapping[str, str]
) -> dict[str, Value]:
    """Read all arguments of a launch file.

    Args:
        arguments: the declared ones.
        given: all launch configurations of the launch, declared or not.

    Returns:
        the value of each declared argument.

    Raises:
        ArgumentError: for every unknown name and every wrong value, one line.
    """
    declared = [argument.name for argument in arguments]
    problems = []
    for name in given:
        if name in declared or name in LAUNCH_CONFIGURATIONS:
            continue
        nearest = difflib.get_close_matches(name, declared, n=1)
        hint = f"did you mean '{nearest[0]}'? " if nearest else ""
        problems.append(
            f"unknown launch argument '{name}': {hint}known are {', '.join(sorted(declared))}"
        )
    values: dict[str, Value] = {}
    for argument in arguments:
        try:
            values[argument.name] = argument.read(given.get(argument.name, argument.default))
        except ArgumentError as error:
            problems.append(str(error))
    if problems:
        raise ArgumentError("\n".join(problems))
    return values
