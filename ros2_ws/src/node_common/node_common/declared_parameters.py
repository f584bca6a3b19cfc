"""Declaration of a node's parameters from its table, and changes of them at run time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterUninitializedException,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from node_common.parameters import NodeParameter, ParameterError, did_you_mean

_ALWAYS_ALLOWED = ("use_sim_time", "start_type_description_service", "qos_overrides.")


def given_parameters(node: Node) -> dict[str, Any]:
    """Value by name of what was given to the node at its start, rclpy's own parameters left out."""
    return {
        name: parameter.value
        for name, parameter in node._parameter_overrides.items()
        if not name.startswith(_ALWAYS_ALLOWED)
    }


def declare_parameters(
    node: Node, table: Sequence[NodeParameter], *, read_only: bool = False
) -> dict[str, Any]:
    """Declare every parameter of the table. A whole number may be written for a real one.

    Args:
        node: has declared none of them yet.
        table: its parameters.
        read_only: none of them can change after the start.

    Returns:
        Value by name.

    Raises:
        ParameterError: one was given that is not in the table, is of the wrong type, out of range
            or not among the choices; the message says what was found and what is expected.
    """
    given = given_parameters(node)
    known = [entry.name for entry in table]
    unknown = [
        f'unknown parameter "{name}"{did_you_mean(name, known)} (known: {", ".join(sorted(known))})'
        for name in given
        if name not in known
    ]
    if unknown:
        raise ParameterError("; ".join(unknown))
    _accept_whole_numbers(node, table)
    values = {}
    for entry in table:
        try:
            descriptor = _descriptor(entry, read_only)
            value: Any = node.declare_parameter(entry.name, entry.default, descriptor).value
        except (
            InvalidParameterTypeException,
            InvalidParameterValueException,
            ParameterUninitializedException,
        ):
            raise ParameterError(entry.refusal(given.get(entry.name))) from None
        if problem := entry.problem(value):
            raise ParameterError(problem)
        values[entry.name] = value
    return values


def parameter_values(node: Node, table: Sequence[NodeParameter]) -> dict[str, Any]:
    """The present value by name of every parameter of the table."""
    return {entry.name: node.get_parameter(entry.name).value for entry in table}


def check_change(
    table: Sequence[NodeParameter], changes: Sequence[Parameter], configured: bool
) -> SetParametersResult:
    """Decide about a change at run time: all of it or none.

    Args:
        table: the declared parameters.
        changes: the wanted values; type and range were checked by rclpy already.
        configured: whether the node is past `configure`.
    """
    entries = {entry.name: entry for entry in table}
    for change in changes:
        entry = entries.get(change.name)
        if entry is None:
            continue
        if entry.structural and configured:
            reason = f"{entry.name} can change only while the node is unconfigured: clean up first"
            return SetParametersResult(successful=False, reason=reason)
        if problem := entry.problem(change.value):
            return SetParametersResult(successful=False, reason=problem)
    return SetParametersResult(successful=True)


def _descriptor(entry: NodeParameter, read_only: bool) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=entry.description, read_only=read_only)
    if entry.choices:
        descriptor.additional_constraints = f"one of {list(entry.choices)}"
    if entry.low is None or entry.high is None:
        return descriptor
    if isinstance(entry.default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(entry.low), to_value=float(entry.high), step=0.0)
        ]
    else:
        descriptor.integer_range = [
            IntegerRange(from_value=int(entry.low), to_value=int(entry.high), step=entry.step)
        ]
    return descriptor


def _accept_whole_numbers(node: Node, table: Sequence[NodeParameter]) -> None:
    """Let `1` be written for `1.0`, at the start and at run time, also in a list."""
    real = {entry.name for entry in table if isinstance(entry.default, (float, list))}
    for name in real & set(node._parameter_overrides):
        node._parameter_overrides[name] = _as_real(node._parameter_overrides[name])
    # Before the type is checked.
    node.add_pre_set_parameters_callback(
        lambda changes: [_as_real(c) if c.name in real else c for c in changes]
    )


def _as_real(parameter: Parameter) -> Parameter:
    """Whole numbers as real ones; anything else as it is."""
    if parameter.type_ is Parameter.Type.INTEGER:
        return Parameter(parameter.name, Parameter.Type.DOUBLE, float(parameter.value))
    if parameter.type_ is Parameter.Type.INTEGER_ARRAY:
        return Parameter(
            parameter.name, Parameter.Type.DOUBLE_ARRAY, [float(v) for v in parameter.value]
        )
    return parameter
