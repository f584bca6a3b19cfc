"""Text representation of launch descriptions, for `ros2 launch --print`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .actions import EmitEvent, ExecuteProcess, LogInfo, RegisterEventHandler
from .launch_description import LaunchDescription
from .some_substitutions_type import SomeSubstitutionsType
from .utilities import normalize_to_list_of_substitutions


def _text(subs: SomeSubstitutionsType) -> str:
    return " + ".join(sub.describe() for sub in normalize_to_list_of_substitutions(subs))


def _optional(value: Any) -> str:
    return "None" if value is None else f"'{_text(value)}'"


def _describe(entity: Any) -> tuple[str, list[Any]]:
    """Return the line of an entity and its children."""
    if isinstance(entity, LogInfo):
        return f"LogInfo({_text(entity.msg)})", []
    if isinstance(entity, EmitEvent):
        return f"EmitEvent(event='{entity.event.name}')", []
    if isinstance(entity, ExecuteProcess):
        cmd = ", ".join(_text(part) for part in entity.cmd)
        env = (
            None
            if entity.env is None
            else "{" + ", ".join(f"{_text(k)}: {_text(v)}" for k, v in entity.env) + "}"
        )
        return (
            f"ExecuteProcess(cmd=[{cmd}], cwd={_optional(entity.cwd)}, env={env}, "
            f"shell={entity.shell})",
            [],
        )
    if isinstance(entity, RegisterEventHandler):
        description, entities = entity.event_handler.describe()
        return f"RegisterEventHandler('{description}'):", entities
    return f"Action('{entity}')", []


def _tree(entities: Iterable[Any], indent: str) -> list[str]:
    items = list(entities)
    lines = []
    for index, entity in enumerate(items):
        last = index == len(items) - 1
        line, children = _describe(entity)
        lines.append(f"{indent}{'└' if last else '├'}── {line}")
        lines += _tree(children, indent + ("    " if last else "│   "))
    return lines


class LaunchIntrospector:
    """Formats launch descriptions."""

    def format_launch_description(self, launch_description: LaunchDescription) -> str:
        """Return the description as a tree, one entity per line."""
        return "\n".join([str(launch_description), *_tree(launch_description.entities, "")])
