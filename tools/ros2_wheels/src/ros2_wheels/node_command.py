"""`ros2 node`."""

from __future__ import annotations

import argparse
import sys

from rclpy.action import (
    get_action_client_names_and_types_by_node,
    get_action_server_names_and_types_by_node,
)

from .graph import NamesAndTypes, add_graph_arguments, command_node, visible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs of `ros2 node`."""
    verbs = parser.add_subparsers(title="Commands", metavar="<verb>")

    verb = verbs.add_parser("info", help="Output information about a node")
    verb.add_argument("node_name", help="Fully qualified node name to request information")
    verb.add_argument("--include-hidden", action="store_true", help="Display hidden things as well")
    add_graph_arguments(verb)
    verb.set_defaults(run=print_info)

    verb = verbs.add_parser("list", help="Output a list of available nodes")
    verb.add_argument("-a", "--all", action="store_true", help="Display all nodes, hidden ones too")
    verb.add_argument(
        "-c", "--count-nodes", action="store_true", help="Only display the number of nodes"
    )
    add_graph_arguments(verb)
    verb.set_defaults(run=print_nodes)


def print_nodes(arguments: argparse.Namespace) -> None:
    """Print the nodes."""
    with command_node(arguments) as node:
        node.discover()
        names = node.node_names(arguments.all)
    if len(set(names)) < len(names):
        print(
            "WARNING: Be aware that there are nodes in the graph that share an exact name, which "
            "can have unintended side effects.",
            file=sys.stderr,
        )
    if arguments.count_nodes:
        print(len(names))
        return
    for name in names:
        print(name)


def print_info(arguments: argparse.Namespace) -> None:
    """Print what a node publishes, subscribes to, serves and uses."""
    with command_node(arguments) as node:
        full_name = node.require_node(arguments.node_name)
        node.discover()
        namespace, _, name = full_name.rpartition("/")
        where = (name, namespace or "/")
        ros_node = node.node
        count = node.node_names(True).count(full_name)
        if count > 1:
            print(
                f'There are {count} nodes in the graph with the exact name "{full_name}". You are '
                "seeing information about only one of them.",
                file=sys.stderr,
            )
        sections: dict[str, NamesAndTypes] = {
            "Subscribers": ros_node.get_subscriber_names_and_types_by_node(*where),
            "Publishers": ros_node.get_publisher_names_and_types_by_node(*where),
            "Service Servers": ros_node.get_service_names_and_types_by_node(*where),
            "Service Clients": ros_node.get_client_names_and_types_by_node(*where),
            "Action Servers": get_action_server_names_and_types_by_node(ros_node, *where),
            "Action Clients": get_action_client_names_and_types_by_node(ros_node, *where),
        }
    print(full_name)
    for title, names_and_types in sections.items():
        print(f"  {title}:")
        for name, types in visible(names_and_types, arguments.include_hidden):
            print(f"    {name}: {', '.join(types)}")
