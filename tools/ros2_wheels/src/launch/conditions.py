"""Conditions: IfCondition, UnlessCondition and comparisons of launch configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .condition import Condition
from .some_substitutions_type import SomeSubstitutionsType
from .substitution import Substitution
from .utilities import normalize_to_list_of_substitutions, perform_substitutions

if TYPE_CHECKING:
    from .launch_context import LaunchContext

__all__ = [
    "IfCondition",
    "InvalidConditionExpressionError",
    "LaunchConfigurationEquals",
    "LaunchConfigurationNotEquals",
    "UnlessCondition",
    "evaluate_condition_expression",
]

TRUE_WORDS = ("true", "1")
FALSE_WORDS = ("false", "0")


class InvalidConditionExpressionError(Exception):
    """A condition's text is neither true nor false."""


def evaluate_condition_expression(context: LaunchContext, expression: list[Substitution]) -> bool:
    """Perform `expression` and read it as a bool; case and outer blanks do not matter.

    Raises InvalidConditionExpressionError for any other text, the empty one included.
    """
    text = perform_substitutions(context, expression).strip().lower()
    if text in TRUE_WORDS:
        return True
    if text in FALSE_WORDS:
        return False
    described = " + ".join(sub.describe() for sub in expression)
    raise InvalidConditionExpressionError(
        f"invalid condition expression, expected one of {[*TRUE_WORDS, *FALSE_WORDS]}, "
        f"but got '{text}' from ({described})"
    )


class IfCondition(Condition):
    """Holds when the expression reads as true."""

    def __init__(self, predicate_expression: SomeSubstitutionsType) -> None:
        self._expression = normalize_to_list_of_substitutions(predicate_expression)
        super().__init__(predicate=lambda c: evaluate_condition_expression(c, self._expression))


class UnlessCondition(Condition):
    """Holds when the expression reads as false."""

    def __init__(self, predicate_expression: SomeSubstitutionsType) -> None:
        self._expression = normalize_to_list_of_substitutions(predicate_expression)
        super().__init__(predicate=lambda c: not evaluate_condition_expression(c, self._expression))


class LaunchConfigurationEquals(Condition):
    """Holds when a launch configuration has the expected value (None: when it is not set)."""

    def __init__(
        self, launch_configuration_name: str, expected_value: SomeSubstitutionsType | None
    ) -> None:
        self._name = launch_configuration_name
        self._expected = (
            None if expected_value is None else normalize_to_list_of_substitutions(expected_value)
        )
        super().__init__(predicate=self._matches)

    def _matches(self, context: LaunchContext) -> bool:
        expected = (
            None if self._expected is None else perform_substitutions(context, self._expected)
        )
        return context.launch_configurations.get(self._name) == expected


class LaunchConfigurationNotEquals(LaunchConfigurationEquals):
    """Holds when a launch configuration does not have the value."""

    def _matches(self, context: LaunchContext) -> bool:
        return not super()._matches(context)
