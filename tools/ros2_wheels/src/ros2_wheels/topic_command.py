"""`ros2 topic`."""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable
from statistics import fmean, pstdev
from typing import Any

from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import qos_profile_sensor_data

from .graph import (
    CommandNode,
    add_graph_arguments,
    command_node,
    non_negative_int,
    one_type,
    positive_float,
    print_names,
    read_standard_input,
    visible,
)
from .main import CommandError
from .messages import Format, is_message, load_interface, message_from_yaml
from .qos import add_qos_arguments, chosen_qos, has_qos_overrides, matching_qos

_PRINT_PERIOD_S = 1.0
_DISCOVERED_PUBLISHER_TIMEOUT_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs of `ros2 topic`."""
    verbs = parser.add_subparsers(title="Commands", metavar="<verb>")

    verb = verbs.add_parser("bw", help="Display bandwidth used by topic")
    verb.add_argument("topic_name", help="Topic name to monitor for bandwidth utilization")
    verb.add_argument("-w", "--window", type=non_negative_int, default=100, help="window size")
    add_graph_arguments(verb)
    verb.set_defaults(run=print_bandwidth)

    verb = verbs.add_parser("delay", help="Display delay of topic from timestamp in header")
    verb.add_argument("topic_name", help="Name of the ROS topic to calculate the delay for")
    verb.add_argument("-w", "--window", type=non_negative_int, default=10000, help="window size")
    add_graph_arguments(verb)
    verb.set_defaults(run=print_delay)

    verb = verbs.add_parser("echo", help="Output messages from a topic")
    _add_echo_arguments(verb)
    verb.set_defaults(run=echo)

    verb = verbs.add_parser("find", help="Output a list of available topics of a given type")
    verb.add_argument("topic_type", help="Name of the ROS topic type to filter for")
    verb.add_argument("-c", "--count-topics", action="store_true", help="Only display the number")
    verb.add_argument("--include-hidden-topics", action="store_true", help="Consider hidden topics")
    add_graph_arguments(verb)
    verb.set_defaults(run=find)

    verb = verbs.add_parser("hz", help="Print the average publishing rate to screen")
    verb.add_argument("topic_name", nargs="+", help="Names of the ROS topics to listen to")
    verb.add_argument(
        "-w",
        "--window",
        dest="window_size",
        type=non_negative_int,
        default=10000,
        help="window size, in # of messages, for calculating rate (default: 10000)",
    )
    verb.add_argument(
        "--filter", dest="filter_expr", metavar="EXPR", help="only messages matching an expression"
    )
    verb.add_argument("--wall-time", action="store_true", help="calculates rate using wall time")
    add_graph_arguments(verb)
    verb.set_defaults(run=print_rate)

    verb = verbs.add_parser("info", help="Print information about a topic")
    verb.add_argument("topic_name", help="Name of the ROS topic to get info (e.g. '/chatter')")
    verb.add_argument("-v", "--verbose", action="store_true", help="Prints detailed information")
    add_graph_arguments(verb)
    verb.set_defaults(run=print_info)

    verb = verbs.add_parser("list", help="Output a list of available topics")
    verb.add_argument("-t", "--show-types", action="store_true", help="Additionally show the type")
    verb.add_argument("-c", "--count-topics", action="store_true", help="Only display the number")
    verb.add_argument("--include-hidden-topics", action="store_true", help="Consider hidden topics")
    verb.add_argument("-v", "--verbose", action="store_true", help="List full details")
    add_graph_arguments(verb)
    verb.set_defaults(run=print_topics)

    verb = verbs.add_parser("pub", help="Publish a message to a topic")
    _add_pub_arguments(verb)
    verb.set_defaults(run=publish)

    verb = verbs.add_parser("type", help="Print a topic's type")
    verb.add_argument("topic_name", help="Name of the ROS topic to get type (e.g. '/chatter')")
    add_graph_arguments(verb)
    verb.set_defaults(run=print_type)


def _add_echo_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("topic_name", help="Name of the ROS topic to listen to (e.g. '/chatter')")
    verb.add_argument("message_type", nargs="?", help="Type of the ROS message")
    add_qos_arguments(verb, "sensor_data")
    verb.add_argument("--csv", action="store_true", help="Output all fields separated by commas")
    verb.add_argument("--field", help="Echo a selected field of a message, e.g. pose.position")
    verb.add_argument(
        "-f", "--full-length", action="store_true", help="Output all elements of arrays and strings"
    )
    verb.add_argument(
        "-l",
        "--truncate-length",
        type=non_negative_int,
        default=128,
        help="The length to truncate arrays, bytes, and string to (default: 128)",
    )
    verb.add_argument("--no-arr", action="store_true", help="Don't print array fields of messages")
    verb.add_argument("--no-str", action="store_true", help="Don't print string fields")
    verb.add_argument("--flow-style", action="store_true", help="Print in the flow style")
    verb.add_argument(
        "--no-lost-messages", action="store_true", help="Don't report when a message is lost"
    )
    verb.add_argument("--raw", action="store_true", help="Echo the raw binary representation")
    verb.add_argument(
        "--filter", dest="filter_expr", help="Python expression on m, the message, to select by"
    )
    verb.add_argument("--once", action="store_true", help="Print the first message and then exit.")
    verb.add_argument("--timeout", metavar="N", type=positive_float, help="Seconds to listen")
    verb.add_argument(
        "-i", "--include-message-info", action="store_true", help="Shows the message info."
    )
    verb.add_argument("-c", "--clear", action="store_true", help="Clear screen before printing")
    verb.add_argument("-n", "--node-name", help="The name of the echoing node")
    add_graph_arguments(verb)


def _add_pub_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("topic_name", help="Name of the ROS topic to publish to (e.g. '/chatter')")
    verb.add_argument("message_type", help="Type of the ROS message (e.g. 'std_msgs/String')")
    source = verb.add_mutually_exclusive_group()
    source.add_argument("values", nargs="?", default="{}", help="Values in YAML format")
    source.add_argument("--stdin", action="store_true", help="Read values from standard input")
    verb.add_argument(
        "-r", "--rate", metavar="N", type=positive_float, default=1.0, help="Rate in Hz (default 1)"
    )
    verb.add_argument(
        "-p", "--print", metavar="N", type=int, default=1, help="Only print every N-th message"
    )
    number = verb.add_mutually_exclusive_group()
    number.add_argument("-1", "--once", action="store_true", help="Publish one message and exit")
    number.add_argument(
        "-t", "--times", type=non_negative_int, default=0, help="Publish this number of times"
    )
    verb.add_argument(
        "-w",
        "--wait-matching-subscriptions",
        type=non_negative_int,
        help="Wait for this number of matching subscriptions (default: 1 with --once or --times)",
    )
    verb.add_argument(
        "--max-wait-time-secs", type=positive_float, help="Longest wait for subscriptions"
    )
    verb.add_argument(
        "--keep-alive",
        metavar="N",
        type=positive_float,
        default=0.1,
        help="Keep publishing node alive for N seconds after the last msg (default: 0.1)",
    )
    verb.add_argument("-n", "--node-name", help="Name of the created publishing node")
    add_qos_arguments(verb, "default")
    add_graph_arguments(verb)


def _predicate(expression: str | None) -> Callable[[Any], bool]:
    if expression is None:
        return lambda message: True
    code = compile(expression, "<filter>", "eval")
    return lambda message: bool(eval(code, {"m": message}))


def _message_class(node: CommandNode, topic: str, type_name: str | None = None) -> Any:
    if type_name is None:
        type_name = one_type(node.topic_types(topic), f"the passed topic '{topic}'")
    return load_interface("msg", type_name)


def echo(arguments: argparse.Namespace) -> None:
    """Print messages as they arrive."""
    path = [] if arguments.field is None else [p for p in arguments.field.split(".") if p]
    if arguments.field is not None and not path:
        raise CommandError(f"Invalid field value '{arguments.field}'")
    accepts = _predicate(arguments.filter_expr)
    text = Format(
        None if arguments.full_length else arguments.truncate_length,
        arguments.no_arr,
        arguments.no_str,
        arguments.flow_style,
    )
    received = 0

    def on_message(message: Any, info: Any) -> None:
        nonlocal received
        selected = message
        for name in path:
            if not hasattr(selected, name):
                raise CommandError(f"Invalid field '{arguments.field}': no '{name}' in the message")
            selected = getattr(selected, name)
        if not accepts(selected) or (arguments.once and received):
            return
        received += 1
        if arguments.clear:
            print("\x1b[H\x1b[2J", end="")
        if not is_message(selected):  # as Python shows it, whatever the format
            if arguments.include_message_info:
                print(text.to_yaml(dict(info)), end="---\n")
            print(selected, end="\n---\n", flush=True)
            return
        if arguments.csv:
            prefix = [str(v) for v in info.values()] if arguments.include_message_info else []
            print(",".join([*prefix, text.to_csv(selected)]), flush=True)
            return
        if arguments.include_message_info:
            print(text.to_yaml(dict(info)), end="---\n")
        print(text.to_yaml(selected), end="---\n", flush=True)

    def on_lost(status: Any) -> None:
        print(
            f"A message was lost!!!\n\ttotal count change:{status.total_count_change}"
            f"\n\ttotal count: {status.total_count}---"
        )

    with command_node(arguments, arguments.node_name) as node:
        topic = node.absolute(arguments.topic_name)
        message_class = _message_class(node, topic, arguments.message_type)
        profile = chosen_qos(arguments)
        if not has_qos_overrides(arguments):
            node.spin_until(
                lambda: node.node.count_publishers(topic) > 0, _DISCOVERED_PUBLISHER_TIMEOUT_S
            )
            profile = matching_qos(node.node, topic, profile)
        callbacks = SubscriptionEventCallbacks(
            message_lost=None if arguments.no_lost_messages else on_lost
        )
        node.node.create_subscription(
            message_class, topic, on_message, profile, event_callbacks=callbacks, raw=arguments.raw
        )
        node.spin_until(lambda: arguments.once and received > 0, arguments.timeout)


def publish(arguments: argparse.Namespace) -> None:
    """Publish a message once, several times, or until Ctrl-C."""
    message_class = load_interface("msg", arguments.message_type)
    values = read_standard_input() if arguments.stdin else arguments.values
    message, stamp_setters = message_from_yaml(message_class, values)
    times = 1 if arguments.once else arguments.times
    wanted = arguments.wait_matching_subscriptions
    if wanted is None:
        wanted = 1 if times else 0
    longest_wait_s = arguments.max_wait_time_secs
    if wanted == 0 and longest_wait_s is not None:
        raise CommandError(
            "--max-wait-time-secs option is only effective with --wait-matching-subscriptions, "
            "--once or --times"
        )
    with command_node(arguments, arguments.node_name) as node:
        publisher = node.node.create_publisher(
            message_class, arguments.topic_name, chosen_qos(arguments)
        )
        start = time.monotonic()
        while publisher.get_subscription_count() < wanted:
            print(f"Waiting for at least {wanted} matching subscription(s)...", flush=True)
            node.spin_until(lambda: publisher.get_subscription_count() >= wanted, 1.0)
            if longest_wait_s is not None and time.monotonic() - start >= longest_wait_s:
                raise CommandError(
                    f"Timed out waiting for subscribers: Expected {wanted} subscribers but only "
                    f"got {publisher.get_subscription_count()} subscribers"
                )
        print("publisher: beginning loop")
        count = 0
        following = time.monotonic()
        while True:
            for set_stamp in stamp_setters:
                set_stamp(node.node.get_clock().now().to_msg())
            count += 1
            if arguments.print and count % arguments.print == 0:
                print(f"publishing #{count}: {message!r}\n", flush=True)
            publisher.publish(message)
            if times and count >= times:
                break
            following += 1.0 / arguments.rate
            node.spin_for(following - time.monotonic())
        # The message leaves this process only after publish() has returned.
        time.sleep(arguments.keep_alive)


class _RateMeter:
    """Intervals between messages of one topic."""

    def __init__(self, window: int) -> None:
        self._intervals_s: deque[float] = deque(maxlen=window or None)
        self._last_ns: int | None = None
        self._fresh = False

    def add(self, now_ns: int) -> None:
        if self._last_ns is not None and now_ns < self._last_ns:
            self._intervals_s.clear()  # simulated time was reset
        elif self._last_ns is not None:
            self._intervals_s.append((now_ns - self._last_ns) * 1e-9)
            self._fresh = True
        self._last_ns = now_ns

    def statistics(self) -> tuple[float, float, float, float, int] | None:
        """Return rate (Hz), least and longest interval, deviation (s), count; None: no news."""
        if not self._fresh:
            return None
        self._fresh = False
        count = len(self._intervals_s)
        mean = sum(self._intervals_s) / count
        deviation = math.sqrt(sum((x - mean) ** 2 for x in self._intervals_s) / count)
        rate = 1.0 / mean if mean > 0.0 else 0.0
        return rate, min(self._intervals_s), max(self._intervals_s), deviation, count


def print_rate(arguments: argparse.Namespace) -> None:
    """Print the rate of topics once a second until Ctrl-C."""
    accepts = _predicate(arguments.filter_expr)
    meters: dict[str, _RateMeter] = defaultdict(lambda: _RateMeter(arguments.window_size))
    needs_message = arguments.filter_expr is not None
    with command_node(arguments) as node:
        wall_clock = Clock(clock_type=ClockType.SYSTEM_TIME)
        clock = wall_clock if arguments.wall_time else node.node.get_clock()
        topics = [node.absolute(name) for name in arguments.topic_name]

        def subscribe(topic: str) -> None:
            def on_message(message: Any) -> None:
                if accepts(message):
                    meters[topic].add(clock.now().nanoseconds)

            # Undecoded messages keep this process from slowing down what it measures.
            node.node.create_subscription(
                _message_class(node, topic),
                topic,
                on_message,
                qos_profile_sensor_data,
                raw=not needs_message,
            )

        for topic in topics:
            subscribe(topic)
            if len(topics) > 1:
                print(f"Subscribed to [{topic}]")
        while node.spin_unless_interrupted(_PRINT_PERIOD_S):
            _print_rates({topic: meters[topic].statistics() for topic in topics})


def _print_rates(statistics: dict[str, tuple[float, float, float, float, int] | None]) -> None:
    known = {topic: values for topic, values in statistics.items() if values is not None}
    if len(statistics) == 1:
        for rate, least, longest, deviation, count in known.values():
            print(
                f"average rate: {rate:.3f}\n\tmin: {least:.3f}s max: {longest:.3f}s "
                f"std dev: {deviation:.5f}s window: {count}",
                flush=True,
            )
    elif known:
        rows = [["topic", "rate", "min_delta", "max_delta", "std_dev", "window"]]
        for topic, (rate, least, longest, deviation, count) in known.items():
            rows.append(
                [
                    topic,
                    f"{rate:.3f}",
                    f"{least:.3f}",
                    f"{longest:.3f}",
                    f"{deviation:.5f}",
                    str(count),
                ]
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        header = "   ".join(text.center(w) for text, w in zip(rows[0], widths, strict=True))
        print(f"{header}\n{'=' * (sum(widths) + 3 * (len(widths) - 1))}")
        for row in rows[1:]:
            print("   ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)))
        print(flush=True)


def print_bandwidth(arguments: argparse.Namespace) -> None:
    """Print the bandwidth of a topic once a second until Ctrl-C."""
    samples: deque[tuple[float, int]] = deque(maxlen=max(arguments.window, 2))
    with command_node(arguments) as node:
        topic = node.absolute(arguments.topic_name)
        node.node.create_subscription(
            _message_class(node, topic),
            topic,
            lambda data: samples.append((time.monotonic(), len(data))),
            qos_profile_sensor_data,
            raw=True,
        )
        print(f"Subscribed to [{topic}]")
        while node.spin_unless_interrupted(_PRINT_PERIOD_S):
            if len(samples) < 2:
                continue
            sizes = [size for _, size in samples]
            rate = sum(sizes) / (time.monotonic() - samples[0][0])
            mean, least, most = sum(sizes) / len(sizes), min(sizes), max(sizes)
            unit, factor, digits = (
                ("B", 1, 0) if rate < 1e3 else ("KB", 1e3, 2) if rate < 1e6 else ("MB", 1e6, 2)
            )
            size = "{:.%df} %s" % (digits, unit)  # noqa: UP031
            print(
                f"{size.format(rate / factor)}/s from {len(sizes)} messages\n"
                f"\tMessage size mean: {size.format(mean / factor)} "
                f"min: {size.format(least / factor)} max: {size.format(most / factor)}",
                flush=True,
            )


def print_delay(arguments: argparse.Namespace) -> None:
    """Print the age of a topic's messages by their stamps once a second until Ctrl-C."""
    delays_s: deque[float] = deque(maxlen=arguments.window or None)
    printed = 0
    with command_node(arguments) as node:
        topic = node.absolute(arguments.topic_name)
        message_class = _message_class(node, topic)
        if not hasattr(message_class(), "header"):
            raise CommandError(f"msg does not have header: {topic}")
        received = 0

        def on_message(message: Any) -> None:
            nonlocal received
            received += 1
            stamp = message.header.stamp
            stamp_ns = stamp.sec * 10**9 + stamp.nanosec
            delays_s.append((node.node.get_clock().now().nanoseconds - stamp_ns) * 1e-9)

        node.node.create_subscription(message_class, topic, on_message, qos_profile_sensor_data)
        while node.spin_unless_interrupted(_PRINT_PERIOD_S):
            if received > printed:
                printed = received
                print(
                    f"average delay: {fmean(delays_s):.3f}\n\tmin: {min(delays_s):.3f}s "
                    f"max: {max(delays_s):.3f}s std dev: {pstdev(delays_s):.5f}s "
                    f"window: {len(delays_s)}",
                    flush=True,
                )


def print_topics(arguments: argparse.Namespace) -> None:
    """Print the topics."""
    with command_node(arguments) as node:
        node.discover()
        topics = visible(node.node.get_topic_names_and_types(), arguments.include_hidden_topics)
        if not arguments.verbose or arguments.count_topics:
            print_names(topics, arguments.show_types, arguments.count_topics)
            return
        for title, noun, count_of in (
            ("Published topics:", "publisher", node.node.count_publishers),
            ("Subscribed topics:", "subscriber", node.node.count_subscribers),
        ):
            print(title)
            for name, types in topics:
                count = count_of(name)
                if count:
                    plural = "s" if count > 1 else ""
                    print(f" * {name} [{', '.join(types)}] {count} {noun}{plural}")
            print()


def print_info(arguments: argparse.Namespace) -> None:
    """Print a topic's type and its publishers and subscribers."""
    with command_node(arguments) as node:
        topic = node.absolute(arguments.topic_name)
        types = node.topic_types(topic)
        if not types:
            raise CommandError(f"Unknown topic '{topic}'")
        node.discover()
        end = "\n\n" if arguments.verbose else "\n"
        print(f"Type: {types[0] if len(types) == 1 else types}", end=end)
        print(f"Publisher count: {node.node.count_publishers(topic)}", end=end)
        if arguments.verbose:
            for info in node.node.get_publishers_info_by_topic(topic):
                print(info, end=end)
        print(f"Subscription count: {node.node.count_subscribers(topic)}", end=end)
        if arguments.verbose:
            for info in node.node.get_subscriptions_info_by_topic(topic):
                print(info, end=end)


def print_type(arguments: argparse.Namespace) -> int:
    """Print a topic's types; the exit status is 1 when there is no such topic."""
    with command_node(arguments) as node:
        types = node.topic_types(arguments.topic_name)
    for name in types:
        print(name)
    return 0 if types else 1


def find(arguments: argparse.Namespace) -> None:
    """Print the topics of a type."""
    with command_node(arguments) as node:
        node.discover()
        topics = visible(node.node.get_topic_names_and_types(), arguments.include_hidden_topics)
    found = [(name, types) for name, types in topics if arguments.topic_type in types]
    print_names(found, show_types=False, count=arguments.count_topics)
