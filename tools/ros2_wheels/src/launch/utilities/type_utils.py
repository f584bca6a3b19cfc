"""Conversion of substitution results to bool, int, float, str and uniform lists of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_args, get_origin

import yaml

from ..substitution import Substitution
from . import normalize_to_list_of_substitutions, perform_substitutions

if TYPE_CHECKING:
    from ..launch_context import LaunchContext

SCALAR_TYPES = (bool, int, float, str)


def _split_type(data_type: Any) -> tuple[Any, bool]:
    """Return (scalar type or None for any, whether a list is wanted)."""
    if data_type is None:
        return None, False
    if get_origin(data_type) is list and get_args(data_type):
        data_type, is_list = get_args(data_type)[0], True
    else:
        is_list = False
    if data_type not in SCALAR_TYPES:
        raise ValueError(f"Unrecognized data type: {data_type}")
    return data_type, is_list


def _is_uniform(value: Any) -> bool:
    if isinstance(value, list):
        return all(type(item) is type(value[0]) for item in value) and (
            not value or type(value[0]) in SCALAR_TYPES
        )
    return type(value) in SCALAR_TYPES


def is_substitution(value: Any) -> bool:
    """Return whether `value` is a substitution or a mix of text and at least one of them."""
    if isinstance(value, Substitution):
        return True
    if isinstance(value, str) or not isinstance(value, Iterable):
        return False
    items = list(value)
    return any(isinstance(i, Substitution) for i in items) and all(
        isinstance(i, (str, Substitution)) for i in items
    )


def coerce_to_type(text: str, data_type: Any = None) -> Any:
    """Convert `text` to `data_type`; None means: by YAML rules.

    Raises ValueError when the text does not read as that type.
    """
    scalar_type, is_list = _split_type(data_type)
    if scalar_type is str and not is_list:
        return text
    if scalar_type in (int, float) and not is_list:
        return scalar_type(text)
    if scalar_type is bool and not is_list and text in ("0", "1"):
        return text == "1"
    if data_type is None and text == "":
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(
            f"Cannot convert '{text}' to {data_type}: not valid YAML: {error}"
        ) from None
    if scalar_type is None:
        valid = _is_uniform(value)
    elif is_list:
        valid = isinstance(value, list) and all(type(i) is scalar_type for i in value)
    else:
        valid = type(value) is scalar_type
    if not valid:
        wanted = data_type or "a bool, int, float, str or uniform list of them"
        raise ValueError(f"Cannot convert '{text}' to {wanted}, it reads as {value!r}")
    return value


def normalize_typed_substitution(value: Any, data_type: Any = None) -> Any:
    """Return `value` ready for perform_typed_substitution, checking literal values now.

    Raises TypeError when a literal is not of `data_type`, ValueError for an unknown type.
    """
    scalar_type, is_list = _split_type(data_type)
    if isinstance(value, SCALAR_TYPES):
        if is_list or (scalar_type is not None and not isinstance(value, scalar_type)):
            raise TypeError(f"value='{value}' is not an instance of {data_type}")
        return value
    if is_substitution(value):
        return normalize_to_list_of_substitutions(value)
    if not isinstance(value, Iterable):
        raise TypeError(f"value={value!r} is neither a scalar, a substitution nor a list of them")
    if data_type is not None and not is_list:
        raise TypeError(f"value={value!r} is a list, expected {data_type}")
    return [normalize_typed_substitution(item, scalar_type) for item in value]


def perform_typed_substitution(context: LaunchContext, value: Any, data_type: Any = None) -> Any:
    """Perform a value from normalize_typed_substitution and convert it to `data_type`.

    Raises ValueError when the performed text does not read as `data_type`.
    """
    if isinstance(value, SCALAR_TYPES):
        return value
    if all(isinstance(item, Substitution) for item in value) and value:
        return coerce_to_type(perform_substitutions(context, value), data_type)
    scalar_type, _ = _split_type(data_type)
    result = [perform_typed_substitution(context, item, scalar_type) for item in value]
    if not _is_uniform(result):
        raise ValueError(f"Expected a list of one type, got {result!r}")
    return result
