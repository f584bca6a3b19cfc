"""`ros2 service`."""

from __future__ import annotations

import argparse
import time
from typing import Any

from rclpy.client import Client

from .graph import (
    add_graph_arguments,
    command_node,
    positive_float,
    print_names,
    read_standard_input,
    visible,
)
from .main import CommandError
from .messages import load_interface, message_from_yaml


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs of `ros2 service`."""
    verbs = parser.add_subparsers(title="Commands", metavar="<verb>")

    verb = verbs.add_parser("call", help="Call a service")
    verb.add_argument("service_name", help="Name of the ROS service to call to")
    verb.add_argument("service_type", help="Type of the ROS service (e.g. 'std_srvs/srv/Empty')")
    source = verb.add_mutually_exclusive_group()
    source.add_argument("values", nargs="?", default="{}", help="Request in YAML format")
    source.add_argument("--stdin", action="store_true", help="Read values from standard input")
    verb.add_argument(
        "-r", "--rate", metavar="N", type=positive_float, help="Repeat the call at a rate in Hz"
    )
    verb.set_defaults(run=call)

    verb = verbs.add_parser("find", help="Output a list of available services of a given type")
    verb.add_argument("service_type", help="Name of the ROS service type to filter for")
    verb.add_argument("-c", "--count-services", action="store_true", help="Only show the number")
    verb.add_argument("--include-hidden-services", action="store_true", help="Also hidden ones")
    add_graph_arguments(verb)
    verb.set_defaults(run=find)

    verb = verbs.add_parser("info", help="Print information about a service")
    verb.add_argument("service_name", help="Name of the ROS service to get info")
    add_graph_arguments(verb)
    verb.set_defaults(run=print_info)

    verb = verbs.add_parser("list", help="Output a list of available services")
    verb.add_argument("-t", "--show-types", action="store_true", help="Additionally show the type")
    verb.add_argument("-c", "--count-services", action="store_true", help="Only show the number")
    verb.add_argument("--include-hidden-services", action="store_true", help="Also hidden ones")
    add_graph_arguments(verb)
    verb.set_defaults(run=print_services)

    verb = verbs.add_parser("type", help="Output a service's type")
    verb.add_argument("service_name", help="Name of the ROS service to get type")
    add_graph_arguments(verb)
    verb.set_defaults(run=print_type)


def call(arguments: argparse.Namespace) -> None:
    """Call a service, once or at a rate, and print request and response."""
    service_type = load_interface("srv", arguments.service_type)
    values = read_standard_input() if arguments.stdin else arguments.values
    request, _ = message_from_yaml(service_type.Request, values)
    with command_node(arguments) as node:
        client: Client[Any, Any] = node.node.create_client(service_type, arguments.service_name)
        if not node.spin_until(client.service_is_ready, 0.5):
            print("waiting for service to become available...", flush=True)
            node.spin_until(client.service_is_ready)
        while True:
            start = time.monotonic()
            print(f"requester: making request: {request!r}\n", flush=True)
            response = node.result(
                client.call_async(request), f"service '{arguments.service_name}'"
            )
            print(f"response:\n{response!r}\n", flush=True)
            if arguments.rate is None:
                return
            node.spin_for(start + 1.0 / arguments.rate - time.monotonic())


def print_services(arguments: argparse.Namespace) -> None:
    """Print the services."""
    with command_node(arguments) as node:
        node.discover()
        services = node.node.get_service_names_and_types()
    shown = visible(services, arguments.include_hidden_services)
    print_names(shown, arguments.show_types, arguments.count_services)


def print_info(arguments: argparse.Namespace) -> None:
    """Print a service's type and the number of its clients and servers."""
    with command_node(arguments) as node:
        service = node.absolute(arguments.service_name)
        types = node.names_and_types(node.node.get_service_names_and_types, service)
        if not types:
            raise CommandError(f"Unknown service '{service}'")
        print(
            f"Type: {types[0] if len(types) == 1 else types}\n"
            f"Clients count: {node.node.count_clients(service)}\n"
            f"Services count: {node.node.count_services(service)}"
        )


def find(arguments: argparse.Namespace) -> None:
    """Print the services of a type."""
    with command_node(arguments) as node:
        node.discover()
        services = visible(
            node.node.get_service_names_and_types(), arguments.include_hidden_services
        )
    found = [(name, types) for name, types in services if arguments.service_type in types]
    print_names(found, show_types=False, count=arguments.count_services)


def print_type(arguments: argparse.Namespace) -> int:
    """Print a service's types; the exit status is 1 when there is no such service."""
    with command_node(arguments) as node:
        types = node.names_and_types(
            node.node.get_service_names_and_types, node.absolute(arguments.service_name)
        )
    for type_name in types:
        print(type_name)
    return 0 if types else 1
