"""Base class of what a launch description may contain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .launch_context import LaunchContext


class LaunchDescriptionEntity:
    """A part of a launch description that can be visited."""

    def describe(self) -> str:
        """Return a short description for printing."""
        return repr(self)

    def describe_sub_entities(self) -> list[LaunchDescriptionEntity]:
        """Return the entities that visiting this one always yields, as far as known."""
        return []

    def describe_conditional_sub_entities(
        self,
    ) -> list[tuple[str, Iterable[LaunchDescriptionEntity]]]:
        """Return (condition, entities) pairs that visiting this entity may yield."""
        return []

    def visit(self, context: LaunchContext) -> Iterable[LaunchDescriptionEntity] | None:
        """Act and return further entities to visit, or None."""
        return None

    def get_asyncio_future(self) -> asyncio.Future[Any] | None:
        """Return a future that is done when this entity's work is, or None."""
        return None
