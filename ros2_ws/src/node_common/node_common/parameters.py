"""Declaration of a node's parameters from one table, and refusal of misspelt ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from node_common.strict_yaml import did_you_mean

_ALWAYS_ALLOWED = ("use_sim_time", "start_type_description_service")


@dataclass(frozen=True)
class NodeParameter:
    """One parameter.

    Attributes:
        name: with the unit at its end.
        default: decides the type.
        description: one line for `ros2 param describe`.
        low, high: range of a number.
        choices: allowed strings; empty: any.
        structural: can change only while the node is unconfigured.
    """

    name: str
    default: str | bool | int | float
    description: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()
    structural: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """Return the ROS descriptor."""
        descriptor = ParameterDescriptor(description=self.description)
        if self.choices:
            descriptor.additional_constraints = f"one of {list(self.choices)}"
        if isinstance(self.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=self.low, to_value=self.high, step=0.0)
            ]
        elif isinstance(self.default, int) and not isinstance(self.default, bool):
            descriptor.integer_range = [
                IntegerRange(from_value=int(self.low), to_value=int(self.high), step=0)
            ]
        return descriptor


def declare_parameters(node: Node, table: Sequence[NodeParameter]) -> None:
    """Declare every parameter of the table. A whole number may be written for a real one.

    Raises:
        ValueError: an override is of the wrong type, out of range or not among the choices.
    """
    accept_whole_numbers(node, {entry.name: entry.default for entry in table})
    for entry in table:
        try:
            node.declare_parameter(entry.name, entry.default, entry.descriptor())
        except Exception as error:
            raise ValueError(f"parameter {entry.name}: {error}") from None
        problem = _choice_problem(entry, node.get_parameter(entry.name).value)
        if problem:
            raise ValueError(problem)


def accept_whole_numbers(node: Node, defaults: Mapping[str, object]) -> None:
    """Let `1` be written for `1.0`, at the start and at run time. Call it before the declaration.

    Args:
        node: whose parameters are about to be declared.
        defaults: by name; only those that are floats matter.
    """
    real = {name for name, default in defaults.items() if isinstance(default, float)}
    if not real:
        return
    for name in real & set(node._parameter_overrides):
        node._parameter_overrides[name] = _as_real(node._parameter_overrides[name])
    # Before the type is checked.
    node.add_pre_set_parameters_callback(
        lambda changes: [_as_real(c) if c.name in real else c for c in changes]
    )


def _as_real(parameter: Parameter) -> Parameter:
    """`1` as `1.0`; anything else as it is."""
    if parameter.type_ is not Parameter.Type.INTEGER:
        return parameter
    return Parameter(parameter.name, Parameter.Type.DOUBLE, float(parameter.value))


def unknown_overrides(node: Node) -> list[str]:
    """Return a message for every parameter given at start that the node does not declare."""
    known = list(node._parameters)
    return [
        f'unknown parameter "{name}"{did_you_mean(name, known)} (known: {sorted(known)})'
        for name in node._parameter_overrides
        if name not in known
        and name not in _ALWAYS_ALLOWED
        and not name.startswith("qos_overrides.")
    ]


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
        problem = _choice_problem(entry, change.value)
        if problem:
            return SetParametersResult(successful=False, reason=problem)
    return SetParametersResult(successful=True)


def _choice_problem(entry: NodeParameter, value: object) -> str:
    if not entry.choices or value in entry.choices:
        return ""
    return (
        f"parameter {entry.name}: found {value!r}, expected one of {list(entry.choices)}"
        f"{did_you_mean(str(value), entry.choices)}"
    )
