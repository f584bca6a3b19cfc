"""Strict reading of YAML: nothing unknown, doubled or mistyped passes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from node_common.parameters import did_you_mean


class BundleError(ValueError):
    """A policy bundle that must not be run.

    Attributes:
        file: the file in which the fault was found.
        field: dotted path of the faulty field, or "" for the file as a whole.
        found: what was found there.
        expected: what would have been accepted.
    """

    def __init__(self, file: Path | str, field: str, found: object, expected: str) -> None:
        self.file = str(file)
        self.field = field
        self.found = str(found)
        self.expected = expected
        place = f"{self.file}: {field}" if field else self.file
        super().__init__(f"{place}: found {self.found}, expected {expected}")


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a mapping in which a key occurs twice."""


def _construct_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, (str, int, float, bool)):
            raise yaml.constructor.ConstructorError(
                None, None, f"a key of type {type(key).__name__}", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f'the key "{key}" twice', key_node.start_mark
            )
        seen.add(key)
    return dict(loader.construct_mapping(node, deep=True))


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        BundleError: the file is missing, is not YAML, holds language-specific tags (which could
            run code), repeats a key, or does not hold exactly one mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BundleError(path, "", "no such file", "the bundle's YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(path, "", error, "a readable UTF-8 file") from None
    try:
        document = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        summary = " ".join(str(error).split())
        raise BundleError(path, "", summary, "plain YAML without tags or doubled keys") from None
    if not isinstance(document, dict):
        raise BundleError(path, "", type(document).__name__, "a mapping")
    return document


class Section:
    """One mapping of a YAML file, read key by key.

    Every read names its key, type and, in errors, its place; `finish` refuses keys never read.
    """

    def __init__(self, file: Path, path: str, value: object) -> None:
        if not isinstance(value, dict):
            raise BundleError(file, path, _shown(value), "a mapping")
        self.file = file
        self.path = path
        self._mapping: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise BundleError(file, path, f"the key {key!r}", "keys that are strings")
            self._mapping[key] = item
        self._read: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._mapping

    def keys(self) -> list[str]:
        """The keys in file order."""
        return list(self._mapping)

    def field(self, key: str) -> str:
        """The dotted path of `key`."""
        return f"{self.path}.{key}" if self.path else key

    def error(self, key: str, expected: str) -> BundleError:
        """An error about the value of `key`."""
        found = _shown(self._mapping[key]) if key in self._mapping else "nothing"
        return BundleError(self.file, self.field(key), found, expected)

    def value(self, key: str) -> Any:
        """The raw value of a required key."""
        self._read.add(key)
        if key not in self._mapping:
            raise self.error(key, "a value")
        return self._mapping[key]

    def optional(self, key: str) -> Any:
        """The raw value of a key, None when absent."""
        self._read.add(key)
        return self._mapping.get(key)

    def section(self, key: str) -> Section:
        """A required nested mapping."""
        return Section(self.file, self.field(key), self.value(key))

    def string(self, key: str, choices: Iterable[str] | None = None) -> str:
        """A required non-empty string, one of `choices` when given."""
        value = self.value(key)
        if not isinstance(value, str) or not value:
            raise self.error(key, "a non-empty string")
        if choices is not None:
            known = list(choices)
            if value not in known:
                raise self.error(key, f"one of {known}{did_you_mean(value, known)}")
        return value

    def text(self, key: str) -> str:
        """An optional string for people; "" when absent."""
        value = self.optional(key)
        if value is not None and not isinstance(value, str):
            raise self.error(key, "a string")
        return value or ""

    def number(self, key: str, low: float, high: float) -> float:
        """A required finite number in [low, high]."""
        return _number(self, key, self.value(key), low, high)

    def integer(self, key: str, low: int, high: int) -> int:
        """A required integer in [low, high]."""
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(key, f"an integer from {low} to {high}")
        return value

    def numbers(self, key: str) -> tuple[float, ...]:
        """A required list of finite numbers."""
        value = self.value(key)
        if not isinstance(value, list) or not value:
            raise self.error(key, "a list of numbers")
        return tuple(_number(self, key, item, -math.inf, math.inf) for item in value)

    def strings(self, key: str) -> tuple[str, ...]:
        """A required non-empty list of non-empty strings."""
        value = self.value(key)
        if (
            not isinstance(value, list)
            or not value
            or not all(isinstance(item, str) and item for item in value)
        ):
            raise self.error(key, "a list of strings")
        return tuple(value)

    def string_map(self, key: str) -> dict[str, str]:
        """A required mapping from string to string."""
        nested = self.section(key)
        return {name: nested.string(name) for name in nested.keys()}  # noqa: SIM118

    def mapping(self, key: str) -> Mapping[str, Any]:
        """A required mapping whose content is free (for records that nothing is decided on)."""
        return dict(self.section(key)._mapping)

    def finish(self) -> None:
        """Refuse keys that were never read.

        Raises:
            BundleError: naming the first such key and the keys that are known.
        """
        for key in self._mapping:
            if key not in self._read:
                known = sorted(self._read)
                raise BundleError(
                    self.file,
                    self.field(key),
                    "an unknown key",
                    f"one of {known}{did_you_mean(key, known)}",
                )


def _number(section: Section, key: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise section.error(key, "finite numbers")
    if not low <= value <= high:
        raise section.error(key, f"a number from {low:g} to {high:g}")
    return float(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
