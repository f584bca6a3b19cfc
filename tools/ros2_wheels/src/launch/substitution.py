"""Base class of text that is computed while launching."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .launch_context import LaunchContext


class Substitution:
    """Text that depends on the launch context."""

    def describe(self) -> str:
        """Return a short description for printing."""
        return repr(self)

    def perform(self, context: LaunchContext) -> str:
        """Return the text for `context`."""
        raise NotImplementedError(f"{type(self).__name__}.perform() is not implemented")
