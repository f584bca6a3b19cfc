"""Evaluation of parameter dictionaries with substitutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from launch import LaunchContext
from launch.utilities import normalize_to_list_of_substitutions, perform_substitutions
from launch.utilities.type_utils import is_substitution

from ..parameter_descriptions import ParameterValue
from ..parameter_yaml import to_yaml

_SCALARS = (bool, int, float, str)


def evaluate_parameter_dict(
    context: LaunchContext, parameters: Mapping[Any, Any]
) -> dict[str, Any]:
    """Return flat parameters {'a.b': value} of a possibly nested dictionary.

    Substitutions are read by YAML rules (use ParameterValue to force a type). A list that mixes
    text and substitutions is one text; a list of lists is a list of values. Raises TypeError for
    values that are not bool, int, float, str, bytes or a non-empty uniform list of them.
    """
    if not isinstance(parameters, Mapping):
        raise TypeError(f"expected a dictionary of parameters, got {parameters!r}")
    result: dict[str, Any] = {}
    for key, value in parameters.items():
        name = perform_substitutions(context, normalize_to_list_of_substitutions(key))
        if isinstance(value, Mapping):
            for sub_name, sub_value in evaluate_parameter_dict(context, value).items():
                result[f"{name}.{sub_name}"] = sub_value
        else:
            result[name] = _evaluate(context, name, value)
    return result


def _evaluate(context: LaunchContext, name: str, value: Any) -> Any:
    if isinstance(value, ParameterValue):
        return value.evaluate(context)
    if isinstance(value, (*_SCALARS, bytes)):
        return value
    if is_substitution(value):
        return _read_yaml(name, _perform(context, value))
    if not isinstance(value, Sequence):
        raise TypeError(f"Unexpected type for the value of parameter '{name}': {value!r}")
    types = {type(item) for item in value}
    if types == {int, float}:
        return [float(item) for item in value]
    if len(types) == 1 and types <= set(_SCALARS):
        return list(value)
    if value and types <= set(_SCALARS):  # mixed types become text
        return [item if isinstance(item, str) else to_yaml(item) for item in value]
    items = [
        item if isinstance(item, _SCALARS) else yaml.safe_load(_perform(context, item))
        for item in value
    ]
    return _check_list(name, items)


def _perform(context: LaunchContext, value: Any) -> str:
    return perform_substitutions(context, normalize_to_list_of_substitutions(value))


def _read_yaml(name: str, text: str) -> Any:
    hint = (
        "If the parameter is meant to be a string, try wrapping it in "
        "launch_ros.parameter_descriptions.ParameterValue(value, value_type=str)"
    )
    try:
        value = "" if text == "" else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TypeError(f"Unable to parse the value of parameter {name} as yaml. {hint}") from error
    if isinstance(value, list):
        return _check_list(name, value)
    if not isinstance(value, (*_SCALARS, bytes)):
        raise TypeError(
            "Allowed value types are bytes, bool, int, float, str and uniform lists of them. "
            f'Got {type(value).__name__} for "{name}". {hint}'
        )
    return value


def _check_list(name: str, items: list[Any]) -> list[Any]:
    if not items or type(items[0]) not in _SCALARS or len({type(i) for i in items}) != 1:
        raise TypeError(
            "Expected a non-empty sequence, with items of uniform type. Allowed sequence item "
            f'types are bool, int, float, str. Got inconsistent input for "{name}": {items!r}'
        )
    return items
