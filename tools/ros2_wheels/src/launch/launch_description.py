"""A list of entities, with the launch arguments that they declare."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .launch_description_entity import LaunchDescriptionEntity

if TYPE_CHECKING:
    from .actions import DeclareLaunchArgument, IncludeLaunchDescription
    from .launch_context import LaunchContext


class LaunchDescription(LaunchDescriptionEntity):
    """What a launch file returns."""

    def __init__(
        self,
        initial_entities: Iterable[LaunchDescriptionEntity] | None = None,
        *,
        deprecated_reason: str | None = None,
    ) -> None:
        self.entities = list(initial_entities or [])
        self.deprecated_reason = deprecated_reason

    @property
    def deprecated(self) -> bool:
        """Whether this description is marked as deprecated."""
        return self.deprecated_reason is not None

    def visit(self, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        """Return the entities."""
        if self.deprecated:
            from . import logging

            path = context.get_locals_as_dict().get("current_launch_file_path", "<script>")
            logging.get_logger("launch").warning(
                f"launch file [{path}] is deprecated: {self.deprecated_reason}"
            )
        return self.entities

    def describe_sub_entities(self) -> list[LaunchDescriptionEntity]:
        """Return the entities."""
        return self.entities

    def add_entity(self, entity: LaunchDescriptionEntity) -> None:
        """Append an entity."""
        self.entities.append(entity)

    def add_action(self, action: LaunchDescriptionEntity) -> None:
        """Append an action."""
        self.add_entity(action)

    def get_launch_arguments(
        self, conditional_inclusion: bool = False
    ) -> list[DeclareLaunchArgument]:
        """Return the declared launch arguments, those of included files too, as far as known."""
        pairs = self.get_launch_arguments_with_include_launch_description_actions(
            conditional_inclusion
        )
        return [argument for argument, _ in pairs]

    def get_launch_arguments_with_include_launch_description_actions(
        self, conditional_inclusion: bool = False
    ) -> list[tuple[DeclareLaunchArgument, list[IncludeLaunchDescription] | None]]:
        """Return each declared argument with the includes that lead to it (None: no include).

        The first declaration of a name counts. Arguments behind a GroupAction that resets the
        launch configurations cannot be set from outside and are left out.
        """
        from .actions import (
            DeclareLaunchArgument,
            IncludeLaunchDescription,
            ResetLaunchConfigurations,
        )

        found: dict[str, tuple[Any, list[Any] | None]] = {}

        def search(entities: Iterable[Any], conditional: bool, includes: list[Any] | None) -> None:
            for entity in entities:
                if isinstance(entity, ResetLaunchConfigurations):
                    return
                if isinstance(entity, DeclareLaunchArgument) and entity.name not in found:
                    entity._conditionally_included = conditional or entity.condition is not None
                    found[entity.name] = (entity, includes)
                nested = includes
                if isinstance(entity, IncludeLaunchDescription):
                    nested = [*(includes or []), entity]
                search(entity.describe_sub_entities(), conditional, nested)
                for _, sub_entities in entity.describe_conditional_sub_entities():
                    search(sub_entities, True, nested)

        search(self.entities, conditional_inclusion, None)
        return list(found.values())
