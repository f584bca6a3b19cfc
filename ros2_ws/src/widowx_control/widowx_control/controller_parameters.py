"""Declares parameters on a node and refuses what it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node_common.parameters import accept_whole_numbers
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterUninitializedException,
)
from rclpy.node import Node

from widowx_control.controller_config import (
    NAMED_POSE_PREFIX,
    PARAMETERS,
    ControllerConfig,
    ParameterSpec,
    config_from_values,
    named_pose_parameters,
)

# Declared by rclpy itself, or given by users to rclpy.
_FOREIGN_PREFIXES = ("use_sim_time", "start_type_description_service", "qos_overrides.")


class ParameterError(ValueError):
    """A parameter has an unknown name, a wrong type or a value out of range."""


def given_parameters(node: Node) -> dict[str, Any]:
    """Return what users gave a node that has declared nothing yet.

    The node must have been made with ``automatically_declare_parameters_from_overrides=True``:
    that shows which names were given.
    """
    return {
        name: parameter.value
        for name, parameter in node.get_parameters_by_prefix("").items()
        if not name.startswith(_FOREIGN_PREFIXES)
    }


def declare(node: Node, specs: Mapping[str, ParameterSpec]) -> dict[str, Any]:
    """Declare parameters read-only, with ranges, and return their values.

    Raises:
        ParameterError: the message names the parameter, what was found and what is accepted.
    """
    given = given_parameters(node)
    unknown = sorted(set(given) - set(specs))
    if unknown:
        raise ParameterError(
            f"unknown parameter {', '.join(unknown)}; known are {', '.join(sorted(specs))}"
        )
    for name in given:
        node.undeclare_parameter(name)
    accept_whole_numbers(node, {name: spec.default for name, spec in specs.items()})
    values: dict[str, Any] = {}
    for name, spec in specs.items():
        try:
            values[name] = node.declare_parameter(name, spec.default, _descriptor(name, spec)).value
        except (InvalidParameterTypeException, ParameterUninitializedException) as error:
            raise ParameterError(
                f"parameter {name} is {given.get(name)}; it must be a {_type_name(spec.default)}"
            ) from error
        except InvalidParameterValueException as error:
            raise ParameterError(
                f"parameter {name} is {given[name]}; it must be within [{spec.low}, {spec.high}]"
            ) from error
    return values


def declare_parameters(node: Node) -> ControllerConfig:
    """Declare the arm controller's parameters and return its configuration.

    Raises:
        ParameterError: the message names the parameter, what was found and what is accepted.
    """
    poses = [name for name in given_parameters(node) if name.startswith(NAMED_POSE_PREFIX)]
    values = declare(node, {**PARAMETERS, **named_pose_parameters(poses)})
    try:
        return config_from_values(values)
    except ValueError as error:
        raise ParameterError(f"parameter {error}") from error


def _descriptor(name: str, spec: ParameterSpec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(name=name, description=spec.description, read_only=True)
    if spec.low is None or spec.high is None:
        return descriptor
    if isinstance(spec.default, int):
        descriptor.integer_range = [
            IntegerRange(from_value=int(spec.low), to_value=int(spec.high), step=0)
        ]
    else:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(spec.low), to_value=float(spec.high), step=0.0)
        ]
    return descriptor


def _type_name(value: Any) -> str:
    if isinstance(value, list):
        return "list of floating-point numbers"
    return {int: "whole number", float: "number"}.get(type(value), type(value).__name__)
