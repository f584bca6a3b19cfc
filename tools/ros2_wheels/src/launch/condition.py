"""Base class of conditions on actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .launch_context import LaunchContext


class Condition:
    """Decides, while launching, whether an action is executed."""

    def __init__(self, *, predicate: Callable[[LaunchContext], bool] | None = None) -> None:
        self._predicate = predicate
        self._last_result: bool | None = None

    def describe(self) -> str:
        """Return a short description for printing."""
        return repr(self)

    def evaluate(self, context: LaunchContext) -> bool:
        """Return whether the condition holds; remembered for `last_evaluated_result`."""
        self._last_result = True if self._predicate is None else self._predicate(context)
        return self._last_result
