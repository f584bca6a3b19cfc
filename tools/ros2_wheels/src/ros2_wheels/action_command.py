"""`ros2 action`."""

from __future__ import annotations

import argparse
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import (
    ActionClient,
    get_action_client_names_and_types_by_node,
    get_action_names_and_types,
    get_action_server_names_and_types_by_node,
)

from .graph import (
    CommandNode,
    add_graph_arguments,
    command_node,
    print_names,
    read_standard_input,
    visible,
)
from .main import CommandError
from .messages import Format, load_interface, message_from_yaml

_STATUS_NAMES = {
    getattr(GoalStatus, f"STATUS_{name}"): name
    for name in ("ACCEPTED", "EXECUTING", "CANCELING", "SUCCEEDED", "CANCELED", "ABORTED")
}
_CANCEL_TIMEOUT_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs of `ros2 action`."""
    verbs = parser.add_subparsers(title="Commands", metavar="<verb>")

    verb = verbs.add_parser("info", help="Print information about an action")
    verb.add_argument("action_name", help="Name of the ROS action to get info")
    verb.add_argument("-t", "--show-types", action="store_true", help="Additionally show the type")
    verb.add_argument("-c", "--count", action="store_true", help="Only display the numbers")
    add_graph_arguments(verb)
    verb.set_defaults(run=print_info)

    verb = verbs.add_parser("list", help="Output a list of action names")
    verb.add_argument("-t", "--show-types", action="store_true", help="Additionally show the type")
    verb.add_argument("-c", "--count-actions", action="store_true", help="Only show the number")
    add_graph_arguments(verb)
    verb.set_defaults(run=print_actions)

    verb = verbs.add_parser("send_goal", help="Send an action goal")
    verb.add_argument("action_name", help="Name of the ROS action (e.g. '/fibonacci')")
    verb.add_argument("action_type", help="Type of the ROS action")
    source = verb.add_mutually_exclusive_group()
    source.add_argument("goal", nargs="?", default="{}", help="Goal request in YAML format")
    source.add_argument("--stdin", action="store_true", help="Read goal from standard input")
    verb.add_argument("-f", "--feedback", action="store_true", help="Echo feedback messages")
    verb.set_defaults(run=send_goal)

    verb = verbs.add_parser("type", help="Print an action's type")
    verb.add_argument("action_name", help="Name of the ROS action to get type")
    add_graph_arguments(verb)
    verb.set_defaults(run=print_type)


def print_actions(arguments: argparse.Namespace) -> None:
    """Print the actions."""
    with command_node(arguments) as node:
        node.discover()
        actions = sorted(get_action_names_and_types(node.node))
    print_names(actions, arguments.show_types, arguments.count_actions)


def print_type(arguments: argparse.Namespace) -> int:
    """Print an action's types; the exit status is 1 when there is no such action."""
    with command_node(arguments) as node:
        types = _types(node, node.absolute(arguments.action_name))
    for type_name in types:
        print(type_name)
    return 0 if types else 1


def _types(node: CommandNode, action: str) -> list[str]:
    return node.names_and_types(lambda: get_action_names_and_types(node.node), action)


def print_info(arguments: argparse.Namespace) -> None:
    """Print the clients and servers of an action."""
    with command_node(arguments) as node:
        name = node.absolute(arguments.action_name)
        _types(node, name)
        node.discover()
        clients = _nodes_with(node, name, get_action_client_names_and_types_by_node)
        servers = _nodes_with(node, name, get_action_server_names_and_types_by_node)
    print(f"Action: {arguments.action_name}")
    for title, nodes in (("clients", clients), ("servers", servers)):
        print(f"Action {title}: {len(nodes)}")
        if not arguments.count:
            for node_name, types in nodes:
                suffix = f" [{', '.join(types)}]" if arguments.show_types else ""
                print(f"    {node_name}{suffix}")


def _nodes_with(node: CommandNode, action: str, query: Any) -> list[tuple[str, list[str]]]:
    found = []
    for full_name in node.node_names(include_hidden=True):
        namespace, _, name = full_name.rpartition("/")
        types = dict(visible(query(node.node, name, namespace or "/"))).get(action)
        if types is not None:
            found.append((full_name, list(types)))
    return found


def send_goal(arguments: argparse.Namespace) -> int:
    """Send a goal and print the result; Ctrl-C cancels the goal.

    The exit status is 1 when the goal is rejected or does not succeed.
    """
    action_type = load_interface("action", arguments.action_type)
    values = read_standard_input() if arguments.stdin else arguments.goal
    goal, _ = message_from_yaml(action_type.Goal, values)
    text = Format()

    def on_feedback(message: Any) -> None:
        print(f"Feedback:\n    {text.to_yaml(message.feedback)}", flush=True)

    with command_node(arguments) as node:
        client: ActionClient[Any, Any, Any] = ActionClient(
            node.node, action_type, arguments.action_name
        )
        try:
            print("Waiting for an action server to become available...", flush=True)
            node.spin_until(client.server_is_ready)
            print(f"Sending goal:\n     {text.to_yaml(goal)}", flush=True)
            what = f"action '{arguments.action_name}'"
            handle = node.result(
                client.send_goal_async(goal, on_feedback if arguments.feedback else None), what
            )
            if not handle.accepted:
                print("Goal was rejected.")
                return 1
            print(f"Goal accepted with ID: {bytes(handle.goal_id.uuid).hex()}\n", flush=True)
            result_future = handle.get_result_async()
            try:
                result = node.result(result_future, what)
            except KeyboardInterrupt:
                _cancel(node, handle, what)
                raise
        finally:
            client.destroy()
    print(f"Result:\n    {text.to_yaml(result.result)}")
    status = _STATUS_NAMES.get(result.status, "UNKNOWN")
    print(f"Goal finished with status: {status}")
    return 0 if result.status == GoalStatus.STATUS_SUCCEEDED else 1


def _cancel(node: CommandNode, handle: Any, what: str) -> None:
    print("Canceling goal...", flush=True)
    response = node.result(handle.cancel_goal_async(), what, _CANCEL_TIMEOUT_S)
    if not response.goals_canceling:
        raise CommandError("Failed to cancel goal")
    print("Goal canceled.")
