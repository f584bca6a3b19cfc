"""Definitions of the environment's interfaces: files, nested types and type hashes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ament_index_python import get_resource

from . import packages
from .main import CommandError

KINDS = {"msg": "Messages", "srv": "Services", "action": "Actions"}
_PRIMITIVES = {
    "bool", "byte", "char", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32",
    "uint32", "int64", "uint64", "string", "wstring",
}  # fmt: skip
# TYPE, with optional length limits, then a name; a constant has "=" after the name.
_FIELD = re.compile(r"^\s*([A-Za-z][\w/]*)(?:<=\d+)?(?:\[[^\]]*\])?\s+\w+\s*(=?)")


def interfaces(package: str) -> list[str]:
    """Return the 'kind/Name' of a package's interfaces, sorted."""
    content, _ = get_resource("rosidl_interfaces", package)
    names = {line.rsplit(".", 1)[0] for line in content.splitlines() if "." in line}
    return sorted(n for n in names if n.split("/")[0] in KINDS and not n.startswith("action/_"))


def definition_path(interface: str) -> Path:
    """Return the file that defines 'package/kind/Name'; CommandError when there is none."""
    parts = interface.split("/")
    if len(parts) != 3 or parts[1] not in KINDS:
        raise CommandError(
            f"Invalid name '{interface}'. Expected three parts separated by '/', "
            "like 'std_msgs/msg/String'"
        )
    package, kind, name = parts
    path = packages.share_directory(package) / kind / f"{name}.{kind}"
    if not path.is_file():
        known = [n for n in interfaces(package) if n.startswith(f"{kind}/")]
        raise CommandError(
            f"Could not find the interface '{interface}' at '{path}'; "
            f"{package} has: {', '.join(known) or 'none of that kind'}"
        )
    return path


def nested_type(line: str, package: str) -> str | None:
    """Return the 'package/msg/Name' that a line of a definition uses; None for other lines."""
    match = _FIELD.match(line)
    if match is None or match[2] or match[1] in _PRIMITIVES:
        return None
    parts = match[1].split("/")
    if len(parts) == 1:
        parts.insert(0, package)
    return f"{parts[0]}/msg/{parts[-1]}"


def message_definition(message_type: str) -> tuple[str, str]:
    """Return a message's full definition and its type hash, as bags store them.

    The definition is the message's file followed by those of all nested types, each after a line
    of "=" and a line "MSG: package/Name".
    """
    path = definition_path(message_type)
    description = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    hashes = {item["type_name"]: item["hash_string"] for item in description["type_hashes"]}
    parts = [path.read_text(encoding="utf-8")]
    for name in sorted(set(hashes) - {message_type}):
        package, _, short_name = name.split("/")
        text = definition_path(name).read_text(encoding="utf-8")
        parts.append(f"{'=' * 80}\nMSG: {package}/{short_name}\n{text}")
    return "\n".join(parts), hashes[message_type]
