"""`ros2 param`."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

import yaml
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.parameter import (
    get_parameter_value,
    parameter_dict_from_yaml_file,
    parameter_value_to_python,
)

from .graph import CommandNode, add_graph_arguments, command_node
from .main import CommandError

_TYPE_NAMES = {
    ParameterType.PARAMETER_NOT_SET: "not set",
    ParameterType.PARAMETER_BOOL: "boolean",
    ParameterType.PARAMETER_INTEGER: "integer",
    ParameterType.PARAMETER_DOUBLE: "double",
    ParameterType.PARAMETER_STRING: "string",
    ParameterType.PARAMETER_BYTE_ARRAY: "byte array",
    ParameterType.PARAMETER_BOOL_ARRAY: "boolean array",
    ParameterType.PARAMETER_INTEGER_ARRAY: "integer array",
    ParameterType.PARAMETER_DOUBLE_ARRAY: "double array",
    ParameterType.PARAMETER_STRING_ARRAY: "string array",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs of `ros2 param`."""
    verbs = parser.add_subparsers(title="Commands", metavar="<verb>")

    def add_verb(name: str, description: str, run: Any) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=description)
        optional = "?" if name == "list" else None
        verb.add_argument("node_name", nargs=optional, help="Name of the ROS node")
        verb.add_argument(
            "--include-hidden-nodes", action="store_true", help="Consider hidden nodes as well"
        )
        verb.add_argument(
            "--timeout",
            metavar="N",
            type=float,
            default=5.0,
            help="Wait for N seconds until node becomes available (default 5 sec)",
        )
        add_graph_arguments(verb)
        verb.set_defaults(run=run)
        return verb

    verb = add_verb("describe", "Show descriptive information about parameters", describe)
    verb.add_argument("parameter_names", nargs="+", help="Names of the parameters")

    add_verb("dump", "Show all of the parameters of a node in a YAML file format", dump)

    verb = add_verb("get", "Get parameter", get)
    verb.add_argument("parameter_name", help="Name of the parameter")
    verb.add_argument("--hide-type", action="store_true", help="Hide the type information")

    verb = add_verb("list", "Output a list of available parameters", print_parameters)
    verb.add_argument("--filter", help="Only parameters matching the regex expression")
    verb.add_argument(
        "--param-prefixes", nargs="+", default=[], help="Only parameters with these prefixes"
    )
    verb.add_argument("--param-type", action="store_true", help="Print parameter types")

    verb = add_verb("load", "Load parameter file for a node", load)
    verb.add_argument("parameter_file", help="Parameter file")
    verb.add_argument(
        "--no-use-wildcard",
        action="store_true",
        help="Do not load parameters in the '/**' namespace into the node",
    )

    verb = add_verb("set", "Set parameter", set_parameter)
    verb.add_argument("parameter_name", help="Name of the parameter")
    verb.add_argument("value", help="Value of the parameter")


def _names(node: CommandNode, target: str, prefixes: list[str]) -> list[str]:
    request = ListParameters.Request(prefixes=prefixes)
    response = node.call(ListParameters, f"{target}/list_parameters", request)
    return sorted(response.result.names)


def _values(node: CommandNode, target: str, names: list[str]) -> list[Any]:
    """Return the ParameterValue of each name; CommandError when the node refuses."""
    request = GetParameters.Request(names=names)
    response = node.call(GetParameters, f"{target}/get_parameters", request)
    if len(response.values) != len(names):
        raise CommandError(f"Parameter not set: {target} does not know {', '.join(names)}")
    return list(response.values)


def _to_python(value: Any) -> Any:
    content: Any = parameter_value_to_python(value)
    return content.tolist() if hasattr(content, "tolist") else content


def _descriptors(node: CommandNode, target: str, names: list[str]) -> list[Any]:
    request = DescribeParameters.Request(names=names)
    response = node.call(DescribeParameters, f"{target}/describe_parameters", request)
    if len(response.descriptors) != len(names):
        raise CommandError(f"Parameter not set: {target} does not know {', '.join(names)}")
    return list(response.descriptors)


def print_parameters(arguments: argparse.Namespace) -> None:
    """Print the names of the parameters of one node, or of all nodes."""
    matches = re.compile(arguments.filter or "").match
    with command_node(arguments) as node:
        if arguments.node_name is None:
            node.discover()
            targets = node.node_names(arguments.include_hidden_nodes)
        else:
            targets = [node.require_node(arguments.node_name, arguments.timeout)]
        for target in targets:
            try:
                names = [n for n in _names(node, target, arguments.param_prefixes) if matches(n)]
            except CommandError as error:
                if arguments.node_name is not None:
                    raise
                print(error, file=sys.stderr)
                continue
            if arguments.node_name is None and names:
                print(f"{target}:")
            types = {}
            if arguments.param_type and names:
                types = {d.name: _TYPE_NAMES[d.type] for d in _descriptors(node, target, names)}
            for name in names:
                print(f"  {name} (type: {types[name]})" if types else f"  {name}")


def get(arguments: argparse.Namespace) -> None:
    """Print a parameter's value."""
    with command_node(arguments) as node:
        target = node.require_node(arguments.node_name, arguments.timeout)
        (value,) = _values(node, target, [arguments.parameter_name])
    if value.type == ParameterType.PARAMETER_NOT_SET:
        print("None" if arguments.hide_type else "Parameter not set.")
        return
    content = _to_python(value)
    kind = _TYPE_NAMES[value.type].capitalize()
    if kind.endswith(" array"):
        label = f"{kind.removesuffix(' array')} values are:"
    else:
        label = f"{kind} value is:"
    print(content if arguments.hide_type else f"{label} {content}")


def set_parameter(arguments: argparse.Namespace) -> int:
    """Set a parameter; the exit status is 1 when the node refuses the value."""
    parameter = ParameterMessage(
        name=arguments.parameter_name, value=get_parameter_value(arguments.value)
    )
    with command_node(arguments) as node:
        target = node.require_node(arguments.node_name, arguments.timeout)
        request = SetParameters.Request(parameters=[parameter])
        response = node.call(SetParameters, f"{target}/set_parameters", request)
    (result,) = response.results
    reason = f": {result.reason}" if result.reason else ""
    if result.successful:
        print(f"Set parameter successful{reason}")
        return 0
    print(f"Setting parameter failed{reason}", file=sys.stderr)
    return 1


def dump(arguments: argparse.Namespace) -> None:
    """Print all parameters of a node as a parameter file."""
    with command_node(arguments) as node:
        target = node.require_node(arguments.node_name, arguments.timeout)
        names = _names(node, target, [])
        values = _values(node, target, names)
    tree: dict[str, Any] = {}
    for name, value in zip(names, values, strict=True):
        *groups, leaf = name.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[leaf] = _to_python(value)
    print(yaml.safe_dump({target: {"ros__parameters": tree}}, default_flow_style=False))


def load(arguments: argparse.Namespace) -> int:
    """Set a node's parameters from a file, all or none of them."""
    with command_node(arguments) as node:
        target = node.require_node(arguments.node_name, arguments.timeout)
        try:
            parameters = parameter_dict_from_yaml_file(
                arguments.parameter_file, not arguments.no_use_wildcard, target_nodes=[target]
            )
        except (OSError, RuntimeError, yaml.YAMLError) as error:
            raise CommandError(f"'{arguments.parameter_file}' cannot be loaded: {error}") from error
        request = SetParametersAtomically.Request(parameters=list(parameters.values()))
        response = node.call(
            SetParametersAtomically, f"{target}/set_parameters_atomically", request
        )
    if not response.result.successful:
        print(f"Setting parameters failed: {response.result.reason}", file=sys.stderr)
        return 1
    for name in parameters:
        print(f"Set parameter {name} successful")
    return 0


def describe(arguments: argparse.Namespace) -> None:
    """Print type, description and constraints of parameters."""
    with command_node(arguments) as node:
        target = node.require_node(arguments.node_name, arguments.timeout)
        descriptors = _descriptors(node, target, arguments.parameter_names)
    for descriptor in descriptors:
        print(f"Parameter name: {descriptor.name}")
        print(f"  Type: {_TYPE_NAMES[descriptor.type]}")
        if descriptor.description:
            print(f"  Description: {descriptor.description}")
        print("  Constraints:")
        if descriptor.read_only:
            print("    Read only: true")
        for limits in [*descriptor.floating_point_range, *descriptor.integer_range]:
            print(f"    Min value: {limits.from_value}")
            print(f"    Max value: {limits.to_value}")
            if limits.step:
                print(f"    Step: {limits.step}")
        if descriptor.additional_constraints:
            print(f"    Additional constraints: {descriptor.additional_constraints}")
