"""Actions on launch configurations (arguments) and environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import logging
from ..action import Action
from ..some_substitutions_type import SomeSubstitutionsType
from ..substitution import Substitution
from ..utilities import normalize_to_list_of_substitutions, perform_substitutions

if TYPE_CHECKING:
    from ..launch_context import LaunchContext


class DeclareLaunchArgument(Action):
    """Declares a launch argument with its default, description and valid values."""

    def __init__(
        self,
        name: str,
        *,
        default_value: SomeSubstitutionsType | None = None,
        description: str | None = None,
        choices: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Raise RuntimeError when `choices` is empty or lacks a textual `default_value`."""
        super().__init__(**kwargs)
        if choices is not None and not choices:
            raise RuntimeError("Provided choices arg is empty. Use None to ignore the choice list.")
        if choices and isinstance(default_value, str) and default_value not in choices:
            raise RuntimeError(
                f'Provided default_value "{default_value}" is not in provided choices "{choices}".'
            )
        self.name = name
        self.default_value = (
            None if default_value is None else normalize_to_list_of_substitutions(default_value)
        )
        self.choices = choices
        if description is None:
            self.description = f"One of: {choices}" if choices else "no description given"
        elif choices:
            full_stop = "" if description.endswith(".") else "."
            self.description = f"{description}{full_stop} Valid choices are: {choices}"
        else:
            self.description = description
        self._conditionally_included = False

    def execute(self, context: LaunchContext) -> None:
        """Set the default if there is no value; RuntimeError for a missing or invalid one."""
        configurations = context.launch_configurations
        if self.name not in configurations:
            if self.default_value is None:
                self._fail(
                    f'Required launch argument "{self.name}" '
                    f'(description: "{self.description}") was not provided'
                )
            else:
                configurations[self.name] = perform_substitutions(context, self.default_value)
        if self.choices and configurations[self.name] not in self.choices:
            self._fail(
                f'Argument "{self.name}" provided value "{configurations[self.name]}" '
                f"is not valid. Valid options are: {self.choices}"
            )

    @staticmethod
    def _fail(message: str) -> None:
        logging.get_logger("launch.actions.declare_launch_argument").error(message)
        raise RuntimeError(message)


class SetLaunchConfiguration(Action):
    """Sets a launch configuration."""

    def __init__(
        self, name: SomeSubstitutionsType, value: SomeSubstitutionsType, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.name = normalize_to_list_of_substitutions(name)
        self.value = normalize_to_list_of_substitutions(value)

    def execute(self, context: LaunchContext) -> None:
        """Set it."""
        name = perform_substitutions(context, self.name)
        context.launch_configurations[name] = perform_substitutions(context, self.value)


class UnsetLaunchConfiguration(Action):
    """Removes a launch configuration."""

    def __init__(self, name: SomeSubstitutionsType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = normalize_to_list_of_substitutions(name)

    def execute(self, context: LaunchContext) -> None:
        """Remove it if it is set."""
        context.launch_configurations.pop(perform_substitutions(context, self.name), None)


class PushLaunchConfigurations(Action):
    """Saves the launch configurations for PopLaunchConfigurations."""

    def execute(self, context: LaunchContext) -> None:
        """Save them."""
        context._push_launch_configurations()


class PopLaunchConfigurations(Action):
    """Restores the launch configurations that were saved last."""

    def execute(self, context: LaunchContext) -> None:
        """Restore them."""
        context._pop_launch_configurations()


class ResetLaunchConfigurations(Action):
    """Removes all launch configurations but the given ones."""

    def __init__(
        self,
        launch_configurations: Mapping[Any, SomeSubstitutionsType] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._kept = [
            (normalize_to_list_of_substitutions(k), normalize_to_list_of_substitutions(v))
            for k, v in (launch_configurations or {}).items()
        ]

    def execute(self, context: LaunchContext) -> None:
        """Evaluate the given configurations, remove all, then set the given ones."""
        kept = {
            perform_substitutions(context, k): perform_substitutions(context, v)
            for k, v in self._kept
        }
        context.launch_configurations.clear()
        context.launch_configurations.update(kept)


class SetEnvironmentVariable(Action):
    """Sets an environment variable for the processes that start later."""

    def __init__(
        self, name: SomeSubstitutionsType, value: SomeSubstitutionsType, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.name = normalize_to_list_of_substitutions(name)
        self.value = normalize_to_list_of_substitutions(value)

    def execute(self, context: LaunchContext) -> None:
        """Set it."""
        name = perform_substitutions(context, self.name)
        context.environment[name] = perform_substitutions(context, self.value)


class AppendEnvironmentVariable(Action):
    """Adds to an environment variable that is a list, such as PATH."""

    def __init__(
        self,
        name: SomeSubstitutionsType,
        value: SomeSubstitutionsType,
        prepend: bool | SomeSubstitutionsType = False,
        separator: SomeSubstitutionsType = os.pathsep,
        **kwargs: Any,
    ) -> None:
        from ..utilities.type_utils import normalize_typed_substitution

        super().__init__(**kwargs)
        self.name = normalize_to_list_of_substitutions(name)
        self.value = normalize_to_list_of_substitutions(value)
        self.prepend = normalize_typed_substitution(prepend, bool)
        self.separator = normalize_to_list_of_substitutions(separator)

    def execute(self, context: LaunchContext) -> None:
        """Append or prepend the value, or set it where the variable is not set."""
        from ..utilities.type_utils import perform_typed_substitution

        name = perform_substitutions(context, self.name)
        parts = [perform_substitutions(context, self.value)]
        if name in context.environment:
            position = 1 if perform_typed_substitution(context, self.prepend, bool) else 0
            parts.insert(position, context.environment[name])
        context.environment[name] = perform_substitutions(context, self.separator).join(parts)


class UnsetEnvironmentVariable(Action):
    """Removes an environment variable."""

    def __init__(self, name: SomeSubstitutionsType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name: list[Substitution] = normalize_to_list_of_substitutions(name)

    def execute(self, context: LaunchContext) -> None:
        """Remove it if it is set."""
        context.environment.pop(perform_substitutions(context, self.name), None)


class PushEnvironment(Action):
    """Saves the environment for PopEnvironment."""

    def execute(self, context: LaunchContext) -> None:
        """Save it."""
        context._push_environment()


class PopEnvironment(Action):
    """Restores the environment that was saved last."""

    def execute(self, context: LaunchContext) -> None:
        """Restore it."""
        context._pop_environment()


class ResetEnvironment(Action):
    """Restores the environment that launch started with."""

    def execute(self, context: LaunchContext) -> None:
        """Restore it."""
        context._reset_environment()
