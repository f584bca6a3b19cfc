"""`ros2 lifecycle`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState

from .graph import CommandNode, add_graph_arguments, command_node
from .main import CommandError

# A transition may load a model or wait for a robot.
_TRANSITION_TIMEOUT_S = 120.0
_SERVICES_TIMEOUT_S = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs of `ros2 lifecycle`."""
    verbs = parser.add_subparsers(title="Commands", metavar="<verb>")

    def add_verb(name: str, description: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=description)
        verb.add_argument(
            "--include-hidden-nodes", action="store_true", help="Consider hidden nodes as well"
        )
        add_graph_arguments(verb)
        return verb

    verb = add_verb("get", "Get lifecycle state for one or more nodes")
    verb.add_argument("node_name", nargs="?", help="Name of the ROS node (default: all nodes)")
    verb.set_defaults(run=print_states)

    verb = add_verb("list", "Output a list of available transitions")
    verb.add_argument("node_name", help="Name of the ROS node")
    verb.add_argument("-a", "--all", action="store_true", help="Display all existing transitions")
    verb.set_defaults(run=print_transitions)

    verb = add_verb("nodes", "Output a list of nodes with lifecycle")
    verb.add_argument("-a", "--all", action="store_true", help="Display hidden nodes, too")
    verb.add_argument("-c", "--count-nodes", action="store_true", help="Only show the number")
    verb.set_defaults(run=print_nodes)

    verb = add_verb("set", "Trigger lifecycle state transition")
    verb.add_argument("node_name", help="Name of the ROS node")
    verb.add_argument("transition", help="The lifecycle transition")
    verb.set_defaults(run=set_state)


def _lifecycle_nodes(node: CommandNode, include_hidden: bool) -> list[str]:
    node.discover()
    services: dict[str, Sequence[str]] = {}

    def is_known(name: str) -> bool:
        return any(service.startswith(f"{name}/") for service in services)

    def all_known() -> bool:
        services.update(node.node.get_service_names_and_types())
        return all(map(is_known, node.node_names(include_hidden)))

    # A node that has just started shows up before its services do.
    node.spin_until(all_known, _SERVICES_TIMEOUT_S)
    return [
        name
        for name in node.node_names(include_hidden)
        if "lifecycle_msgs/srv/GetState" in services.get(f"{name}/get_state", [])
    ]


def print_nodes(arguments: argparse.Namespace) -> None:
    """Print the lifecycle nodes."""
    with command_node(arguments) as node:
        names = _lifecycle_nodes(node, arguments.all or arguments.include_hidden_nodes)
    print(len(names) if arguments.count_nodes else "\n".join(names))


def print_states(arguments: argparse.Namespace) -> None:
    """Print the state of one node, or of all lifecycle nodes."""
    with command_node(arguments) as node:
        if arguments.node_name is None:
            targets = _lifecycle_nodes(node, arguments.include_hidden_nodes)
        else:
            targets = [node.require_node(arguments.node_name)]
        for target in targets:
            state = node.call(GetState, f"{target}/get_state", GetState.Request()).current_state
            prefix = f"{target}: " if arguments.node_name is None else ""
            print(f"{prefix}{state.label} [{state.id}]")


def print_transitions(arguments: argparse.Namespace) -> None:
    """Print the transitions that a node can make now, or all."""
    with command_node(arguments) as node:
        target = node.require_node(arguments.node_name)
        service = "get_transition_graph" if arguments.all else "get_available_transitions"
        response = node.call(
            GetAvailableTransitions, f"{target}/{service}", GetAvailableTransitions.Request()
        )
    for item in response.available_transitions:
        print(
            f"- {item.transition.label} [{item.transition.id}]\n"
            f"\tStart: {item.start_state.label}\n\tGoal: {item.goal_state.label}"
        )


def set_state(arguments: argparse.Namespace) -> int:
    """Make a node change its state; the exit status is 1 when the transition fails."""
    with command_node(arguments) as node:
        target = node.require_node(arguments.node_name)
        response = node.call(
            GetAvailableTransitions,
            f"{target}/get_available_transitions",
            GetAvailableTransitions.Request(),
        )
        available = [item.transition for item in response.available_transitions]
        chosen = [t for t in available if arguments.transition in (t.label, str(t.id))]
        if not chosen:
            listed = "".join(f"\n- {t.label} [{t.id}]" for t in available)
            raise CommandError(f"Unknown transition requested, available ones are:{listed}")
        request = ChangeState.Request(transition=chosen[0])
        changed = node.call(
            ChangeState, f"{target}/change_state", request, _TRANSITION_TIMEOUT_S
        ).success
    if changed:
        print("Transitioning successful")
        return 0
    print("Transitioning failed", file=sys.stderr)
    return 1
