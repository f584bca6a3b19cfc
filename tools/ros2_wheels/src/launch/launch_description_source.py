"""Where a launch description comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .launch_description import LaunchDescription
from .some_substitutions_type import SomeSubstitutionsType
from .utilities import normalize_to_list_of_substitutions, perform_substitutions

if TYPE_CHECKING:
    from .launch_context import LaunchContext


class LaunchDescriptionSource:
    """A launch description and its location; subclasses load it from a file."""

    def __init__(
        self,
        launch_description: LaunchDescription | None = None,
        location: SomeSubstitutionsType = "<string>",
        method: str = "unspecified mechanism from a script",
    ) -> None:
        self._launch_description = launch_description
        self._location = normalize_to_list_of_substitutions(location)
        self._expanded_location: str | None = None
        self.method = method

    @property
    def location(self) -> str:
        """The path once it is known, else a description of it."""
        if self._expanded_location is not None:
            return self._expanded_location
        return " + ".join(sub.describe() for sub in self._location)

    def try_get_launch_description_without_context(self) -> LaunchDescription | None:
        """Return the description if it can be loaded before launching, else None."""
        from .launch_context import LaunchContext

        if self._launch_description is not None:
            return self._launch_description
        try:
            return self._load(perform_substitutions(LaunchContext(), self._location))
        except Exception:
            # The path may depend on arguments that are not set yet.
            return None

    def get_launch_description(self, context: LaunchContext) -> LaunchDescription:
        """Return the description, loading it on first use."""
        if self._expanded_location is None:
            self._expanded_location = perform_substitutions(context, self._location)
        if self._launch_description is None:
            self._launch_description = self._load(self._expanded_location)
        return self._launch_description

    def _load(self, location: str) -> LaunchDescription:
        raise RuntimeError(f"no launch description was given for '{location}'")
