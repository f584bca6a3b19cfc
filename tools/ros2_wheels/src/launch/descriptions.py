"""Description of a program to run."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .some_substitutions_type import SomeSubstitutionsType
from .substitution import Substitution
from .substitutions import LaunchConfiguration
from .utilities import normalize_to_list_of_substitutions, perform_substitutions

if TYPE_CHECKING:
    from .launch_context import LaunchContext

__all__ = ["Executable"]

_process_numbers = itertools.count(1)

Environment = Mapping[Any, SomeSubstitutionsType]


def _normalize_environment(
    env: Environment | None,
) -> list[tuple[list[Substitution], list[Substitution]]] | None:
    if env is None:
        return None
    return [
        (normalize_to_list_of_substitutions(k), normalize_to_list_of_substitutions(v))
        for k, v in env.items()
    ]


class Executable:
    """A command with its name, directory and environment; `prepare` computes the final ones."""

    def __init__(
        self,
        *,
        cmd: Iterable[SomeSubstitutionsType],
        prefix: SomeSubstitutionsType | None = None,
        name: SomeSubstitutionsType | None = None,
        cwd: SomeSubstitutionsType | None = None,
        env: Environment | None = None,
        additional_env: Environment | None = None,
        arguments: Iterable[SomeSubstitutionsType] | None = None,
    ) -> None:
        self.cmd = [normalize_to_list_of_substitutions(x) for x in [*cmd, *(arguments or [])]]
        self.prefix = normalize_to_list_of_substitutions(
            LaunchConfiguration("launch-prefix", default="") if prefix is None else prefix
        )
        self._prefix_filter = (
            [LaunchConfiguration("launch-prefix-filter", default="")] if prefix is None else []
        )
        self.name = None if name is None else normalize_to_list_of_substitutions(name)
        self.cwd = None if cwd is None else normalize_to_list_of_substitutions(cwd)
        self.env = _normalize_environment(env)
        self.additional_env = _normalize_environment(additional_env)
        self.final_name: str | None = None
        self.final_cmd: list[str] | None = None
        self.final_cwd: str | None = None
        self.final_env: dict[str, str] | None = None

    def prepare(self, context: LaunchContext, action: Any = None) -> None:
        """Perform all substitutions and number the process: its final name is `NAME-N`."""
        cmd = [perform_substitutions(context, part) for part in self.cmd]
        program = Path(cmd[0]).name
        if re.match(perform_substitutions(context, self._prefix_filter), program):
            cmd = shlex.split(perform_substitutions(context, self.prefix)) + cmd
        label = (
            Path(cmd[0]).name if self.name is None else perform_substitutions(context, self.name)
        )
        self.final_cmd = cmd
        self.final_name = f"{label}-{next(_process_numbers)}"
        self.final_cwd = None if self.cwd is None else perform_substitutions(context, self.cwd)
        final_env = dict(context.environment) if self.env is None else {}
        for key, value in [*(self.env or []), *(self.additional_env or [])]:
            final_env[perform_substitutions(context, key)] = perform_substitutions(context, value)
        self.final_env = final_env
