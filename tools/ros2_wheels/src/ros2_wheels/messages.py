"""Messages as text: type lookup, YAML and CSV output, filling from YAML."""

from __future__ import annotations

import array
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import yaml
from rosidl_parser.definition import (
    AbstractGenericString,
    AbstractNestedType,
    AbstractSequence,
    BasicType,
    NamespacedType,
)

from .main import CommandError

_MAP = "tag:yaml.org,2002:map"
StampSetter = Callable[[Any], None]


def load_interface(kind: str, name: str) -> Any:
    """Return the class of 'package/kind/Name' or 'package/Name'; kind is msg, srv or action.

    Raises CommandError when there is no such interface in the environment.
    """
    parts = name.split("/")
    if len(parts) == 2:
        parts.insert(1, kind)
    label = {"msg": "message", "srv": "service", "action": "action"}[kind]
    if len(parts) != 3 or parts[1] != kind or not all(parts):
        raise CommandError(
            f"The passed {label} type is invalid: '{name}', expected 'package/{kind}/Name'"
        )
    try:
        return getattr(importlib.import_module(f"{parts[0]}.{kind}"), parts[2])
    except (ImportError, AttributeError) as error:
        raise CommandError(f"The passed {label} type is invalid: '{name}': {error}") from error


def is_message(value: Any) -> bool:
    """Return whether the value is a ROS message."""
    return hasattr(value, "get_fields_and_field_types")


class _Dumper(yaml.SafeDumper):
    """Writes messages' fields in their order."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# As rosidl does: the flow style is that of sequences.
_Dumper.add_representer(
    dict, lambda dumper, data: dumper.represent_mapping(_MAP, data.items(), flow_style=False)
)


class Format:
    """How messages are printed; see the options of `ros2 topic echo`."""

    def __init__(
        self,
        truncate_length: int | None = None,
        no_arr: bool = False,
        no_str: bool = False,
        flow_style: bool = False,
    ) -> None:
        self.truncate_length = truncate_length
        self.no_arr = no_arr
        self.no_str = no_str
        self.flow_style = flow_style

    def to_plain(self, value: Any, slot_type: Any = None) -> Any:
        """Return a message or a field's value as dict, list, str, bool, int or float."""
        if is_message(value):
            fields = zip(value.get_fields_and_field_types(), value.SLOT_TYPES, strict=True)
            return {name: self.to_plain(getattr(value, name), slot) for name, slot in fields}
        if isinstance(value, str):
            return f"<string length: <{len(value)}>>" if self.no_str else self._cut(value)
        if isinstance(value, bytes):
            value = list(value)
            if len(value) == 1:
                return value[0]
        if isinstance(value, (list, tuple, np.ndarray, array.array)):
            if self.no_arr and slot_type is not None:
                return _array_summary(slot_type, len(value))
            limit = self.truncate_length
            head = value if limit is None else value[:limit]
            plain = [self.to_plain(item) for item in head]
            if limit is not None and len(value) > limit:
                plain.append("...")
            return plain
        return value.item() if isinstance(value, np.generic) else value

    def _cut(self, text: str) -> str:
        limit = self.truncate_length
        return text if limit is None or len(text) <= limit else text[:limit] + "..."

    def to_yaml(self, value: Any) -> str:
        """Return a message, or a field of one, as YAML."""
        text = yaml.dump(
            self.to_plain(value),
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=True,
            width=sys.maxsize,
            default_flow_style=self.flow_style,
        )
        return text.removesuffix("...\n")

    def to_csv(self, value: Any) -> str:
        """Return all values of a message, in the order of its fields, separated by commas."""

        def flatten(plain: Any) -> list[str]:
            if isinstance(plain, dict):
                plain = list(plain.values())
            if isinstance(plain, list):
                return [text for item in plain for text in flatten(item)]
            return [str(plain)]

        return ",".join(flatten(self.to_plain(value)))


def _array_summary(slot_type: AbstractNestedType, length: int) -> str:
    item = slot_type.value_type
    item_name = (
        "/".join(item.namespaced_name()) if isinstance(item, NamespacedType) else _type_name(item)
    )
    if isinstance(slot_type, AbstractSequence):
        return f"<sequence type: {item_name}, length: {length}>"
    return f"<array type: {item_name}[{length}]>"


def _type_name(slot_type: Any) -> str:
    return slot_type.typename if isinstance(slot_type, BasicType) else "string"


def message_from_yaml(message_type: Any, text: str) -> tuple[Any, list[StampSetter]]:
    """Return a message filled from YAML, and setters for stamps that are to be the current time.

    A header given as 'auto' and a time given as 'now' are such stamps. Raises CommandError for
    text that is not a YAML dictionary, unknown fields and values that do not fit.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CommandError(f"The passed value is not valid YAML: {error}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise CommandError("The passed value needs to be a dictionary in YAML format")
    message = message_type()
    setters: list[StampSetter] = []
    try:
        _fill(message, values, setters)
    except (TypeError, ValueError, AssertionError, OverflowError) as error:
        raise CommandError(f"Failed to populate field: {error}") from error
    return message, setters


def _fill(message: Any, values: Mapping[str, Any], setters: list[StampSetter]) -> None:
    slots = dict(zip(message.get_fields_and_field_types(), message.SLOT_TYPES, strict=True))
    for name, value in values.items():
        if name not in slots:
            raise ValueError(
                f"{type(message).__name__} has no field '{name}', it has: {', '.join(slots)}"
            )
        setattr(message, name, _convert(name, slots[name], value, setters))


def _convert(name: str, slot_type: Any, value: Any, setters: list[StampSetter]) -> Any:
    if isinstance(slot_type, NamespacedType):
        (package, kind), type_name = slot_type.namespaces, slot_type.name
        nested = load_interface(kind, f"{package}/{kind}/{type_name}")()
        if value == "auto" and (package, type_name) == ("std_msgs", "Header"):
            setters.append(lambda stamp: setattr(nested, "stamp", stamp))
        elif value == "now" and (package, type_name) == ("builtin_interfaces", "Time"):

            def set_time(stamp: Any) -> None:
                nested.sec, nested.nanosec = stamp.sec, stamp.nanosec

            setters.append(set_time)
        elif isinstance(value, Mapping):
            _fill(nested, value, setters)
        else:
            raise ValueError(f"'{name}' is a {type_name}, expected a dictionary, got {value!r}")
        return nested
    if isinstance(slot_type, AbstractNestedType):
        if not isinstance(value, list):
            raise ValueError(f"'{name}' is a list, got {value!r}")
        return [_convert(name, slot_type.value_type, item, setters) for item in value]
    if isinstance(slot_type, AbstractGenericString):
        return value if isinstance(value, str) else str(value)
    assert isinstance(slot_type, BasicType)
    if slot_type.typename in ("float", "double", "long double"):
        return float(value)
    if slot_type.typename == "boolean":
        if not isinstance(value, (bool, int)):
            raise ValueError(f"'{name}' is a bool, got {value!r}")
        return bool(value)
    if slot_type.typename == "octet":
        return bytes([value])
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"'{name}' is an {slot_type.typename}, got {value!r}")
    return value
