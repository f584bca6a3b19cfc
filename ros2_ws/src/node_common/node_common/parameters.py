"""The table of a node's parameters: names, defaults, ranges, and what to say of a wrong value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

ParameterValue = str | bool | int | float | list[float]


class ParameterError(ValueError):
    """A parameter has an unknown name, a wrong type or a value out of range."""


@dataclass(frozen=True)
class NodeParameter:
    """One parameter.

    Attributes:
        name: with the unit at its end.
        default: decides the type.
        description: one line for `ros2 param describe`.
        low, high: inclusive range of a number; None: any.
        choices: allowed strings; empty: any.
        structural: can change only while the node is unconfigured.
        step: a whole number must be a multiple of it; 0: any.
    """

    name: str
    default: ParameterValue
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    structural: bool = False
    step: int = 0

    @property
    def expected(self) -> str:
        """What values are accepted, for messages."""
        if self.choices:
            return f"one of {list(self.choices)}"
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, str):
            return "a string"
        if isinstance(self.default, list):
            return "a list of numbers"
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        if self.step:
            kind = f"a multiple of {self.step}"
        if self.low is None or self.high is None:
            return kind
        return f"{kind} from {self.low:g} to {self.high:g}"

    def problem(self, value: object) -> str:
        """What is wrong with a value of the right type; empty: nothing."""
        if self.choices:
            fits = value in self.choices
            hint = did_you_mean(str(value), self.choices)
        else:
            hint = ""
            fits = (
                self.low is None
                or self.high is None
                or not isinstance(value, (int, float))
                or self.low <= value <= self.high
            )
        return "" if fits else self.refusal(value) + hint

    def refusal(self, value: object) -> str:
        """The sentence that refuses a value."""
        return f"parameter {self.name}: found {value!r}, expected {self.expected}"


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """Return ', did you mean "…"?' when one of `known` is close to `found`, otherwise ''."""
    close = difflib.get_close_matches(found, list(known), n=1)
    return f', did you mean "{close[0]}"?' if close else ""
