"""Playing of a bag's messages."""

from __future__ import annotations

import argparse
import time
from collections import deque
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock as ClockMessage

from .bag_command import open_bag
from .graph import CommandNode, command_node
from .main import CommandError
from .messages import load_interface

# Messages that are published before the subscribers have discovered the publisher are lost.
_SUBSCRIBER_DISCOVERY_S = 1.0
_QUEUE_DEPTH = 10


def play(arguments: argparse.Namespace) -> None:
    """Publish the messages at the pace of their recording, or that times --rate."""
    remappings = {}
    for rule in arguments.remap:
        old, separator, new = rule.partition(":=")
        if not separator:
            raise CommandError(f"malformed remapping '{rule}', expected format 'old:=new'")
        remappings[_absolute(old)] = _absolute(new)
    wanted = {_absolute(topic) for topic in arguments.topics}
    excluded = {_absolute(topic) for topic in arguments.exclude_topics}
    with open_bag(arguments.bag_path) as reader, command_node(arguments, "rosbag2_player") as node:
        connections = [
            c
            for c in reader.connections
            if (not wanted or c.topic in wanted) and c.topic not in excluded
        ]
        if not connections or not reader.message_count:
            known = ", ".join(sorted(c.topic for c in reader.connections)) or "none"
            raise CommandError(f"Nothing to play: the bag has the topics {known}")
        publishers: dict[int, Any] = {}
        for connection in connections:
            topic = remappings.get(connection.topic, connection.topic)
            try:
                message_type = load_interface("msg", connection.msgtype)
            except CommandError as error:
                node.node.get_logger().warning(f"Ignoring a topic '{topic}': {error}")
                continue
            publishers[connection.id] = node.node.create_publisher(
                message_type, topic, _qos(connection)
            )
        clock = _ClockPublisher(node, arguments.clock) if arguments.clock else None
        node.spin_for(arguments.delay)
        node.spin_until(
            lambda: all(p.get_subscription_count() for p in publishers.values()),
            _SUBSCRIBER_DISCOVERY_S,
        )
        first_ns = reader.start_time + round(arguments.start_offset * 1e9)
        for connection, data in _latched_before(reader, connections, first_ns):
            if connection.id in publishers:
                publishers[connection.id].publish(data)
        while True:
            start = time.monotonic()
            for connection, stamp_ns, data in reader.messages(connections, start=first_ns):
                due = start + (stamp_ns - first_ns) * 1e-9 / arguments.rate
                if clock is not None:
                    clock.run_until(due, stamp_ns, arguments.rate)
                node.spin_until_time(due)
                if connection.id in publishers:
                    publishers[connection.id].publish(data)
            if not arguments.loop:
                break
        # The last messages leave this process only after publish() has returned.
        time.sleep(0.1)


def _latched_before(reader: Reader, connections: list[Any], first_ns: int) -> list[Any]:
    """(connection, data) that the recorded publishers still offered to late subscribers then."""
    latched = [c for c in connections if _is_latched(c)]
    if not latched or first_ns <= reader.start_time:
        return []
    kept: dict[int, deque[bytes]] = {}
    for connection, _, data in reader.messages(latched, stop=first_ns):
        # Each publisher keeps its own, e.g. the two of /tf_static.
        extension: Any = connection.ext
        depth = sum(q.depth for q in extension.offered_qos_profiles)
        length = min(max(depth, 1), _QUEUE_DEPTH)
        kept.setdefault(connection.id, deque(maxlen=length)).append(data)
    return [(c, data) for c in latched for data in kept.get(c.id, ())]


def _is_latched(connection: Any) -> bool:
    offered = connection.ext.offered_qos_profiles
    return bool(offered) and all(q.durability.name == "TRANSIENT_LOCAL" for q in offered)


def _absolute(topic: str) -> str:
    return topic if topic.startswith("/") else f"/{topic}"


def _qos(connection: Any) -> QoSProfile:
    """Return a profile that serves all subscribers that the recorded publishers served."""
    offered = connection.ext.offered_qos_profiles
    reliable = all(q.reliability.name == "RELIABLE" for q in offered)
    latched = _is_latched(connection)
    return QoSProfile(
        depth=_QUEUE_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


class _ClockPublisher:
    """Publishes the bag's time on /clock."""

    def __init__(self, node: CommandNode, rate_hz: float) -> None:
        self._node = node
        self._publisher = node.node.create_publisher(ClockMessage, "/clock", QoSProfile(depth=1))
        self._period_s = 1.0 / rate_hz
        self._following = time.monotonic()

    def run_until(self, due: float, stamp_ns: int, rate: float) -> None:
        """Publish the ticks until a message with this time is due."""
        while self._following <= due:
            self._node.spin_until_time(self._following)
            time_ns = stamp_ns - round((due - self._following) * rate * 1e9)
            stamp = Time(nanoseconds=time_ns).to_msg()
            self._publisher.publish(ClockMessage(clock=stamp))
            self._following = max(self._following + self._period_s, time.monotonic())
