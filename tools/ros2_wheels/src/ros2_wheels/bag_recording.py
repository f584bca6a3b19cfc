"""Recording of topics to a bag."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import re
import signal
import time
from pathlib import Path
from typing import Any

from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
)
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError

from .graph import CommandNode, command_node, visible
from .interfaces import message_definition
from .main import CommandError
from .messages import load_interface
from .packages import use_environment_prefix

# Enough for two seconds of a 30 Hz camera while the disk is busy.
_QUEUE_DEPTH = 60


def record(arguments: argparse.Namespace) -> None:
    """Record until SIGINT or SIGTERM, then complete the bag.

    Raises CommandError when no topics are chosen or the destination exists already.
    """
    use_environment_prefix()
    named = [*arguments.topics, *arguments.topics_positional]
    if not named and not arguments.all and not arguments.regex:
        raise CommandError("Need to specify one option out of --all, --topics, --regex, or topics")
    if arguments.all and named:
        raise CommandError("Invalid choice: Can not specify topics together with --all")
    output = arguments.output or f"rosbag2_{datetime.datetime.now():%Y_%m_%d-%H_%M_%S}"
    try:
        writer = Writer(
            Path(output),
            version=Writer.VERSION_LATEST,
            storage_plugin=StoragePlugin[arguments.storage.upper()],
        )
        writer.open()
    except WriterError as error:
        raise CommandError(
            f"Output folder '{output}' already exists: choose another one with -o"
        ) from error

    try:
        with command_node(arguments, "rosbag2_recorder") as node:
            signal.signal(signal.SIGTERM, node.interrupt)
            recorder = _Recorder(node, writer, _topic_filter(arguments, named))
            recorder.logger.info("Listening for topics...")
            polling_period_s = arguments.polling_interval * 1e-3
            following = time.monotonic()
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    if time.monotonic() >= following:
                        recorder.subscribe_to_new_topics()
                        following = time.monotonic() + polling_period_s
                    node.spin_once()
            recorder.logger.info("Recording stopped")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not spoil the bag
        writer.close()


def _topic_filter(arguments: argparse.Namespace, named: list[str]) -> Any:
    wanted = {name if name.startswith("/") else f"/{name}" for name in named}
    excluded = {name if name.startswith("/") else f"/{name}" for name in arguments.exclude_topics}

    def is_chosen(topic: str) -> bool:
        if topic in excluded or (
            arguments.exclude_regex and re.search(arguments.exclude_regex, topic)
        ):
            return False
        if topic in wanted:
            return True
        hidden = any(part.startswith("_") for part in topic.split("/"))
        if hidden and not arguments.include_hidden_topics:
            return False
        return arguments.all or bool(arguments.regex and re.search(arguments.regex, topic))

    return is_chosen


class _Recorder:
    def __init__(self, node: CommandNode, writer: Writer, is_chosen: Any) -> None:
        self.node = node
        self.writer = writer
        self.is_chosen = is_chosen
        self.logger: RcutilsLogger = node.node.get_logger()
        self.seen: set[str] = set()

    def subscribe_to_new_topics(self) -> None:
        """Subscribe to the chosen topics that have a publisher and were not seen before."""
        topics = visible(self.node.node.get_topic_names_and_types(), include_hidden=True)
        for topic, types in topics:
            if topic in self.seen or not self.is_chosen(topic):
                continue
            publishers = self.node.node.get_publishers_info_by_topic(topic)
            if not publishers:
                continue
            self.seen.add(topic)
            if len(types) > 1:
                self.logger.warning(f"Topic '{topic}' has more than one type, not recorded")
                continue
            try:
                self._subscribe(topic, types[0], [info.qos_profile for info in publishers])
            except CommandError as error:
                self.logger.warning(f"Topic '{topic}' is not recorded: {error}")

    def _subscribe(self, topic: str, type_name: str, offered: list[QoSProfile]) -> None:
        definition, type_hash = message_definition(type_name)
        connection = self.writer.add_connection(
            topic,
            type_name,
            msgdef=definition,
            rihs01=type_hash,
            offered_qos_profiles=[_to_bag_qos(profile) for profile in offered],
        )
        clock = self.node.node.get_clock()

        def on_message(data: bytes) -> None:
            self.writer.write(connection, clock.now().nanoseconds, data)

        self.node.node.create_subscription(
            load_interface("msg", type_name),
            topic,
            on_message,
            _compatible_with_all(offered),
            raw=True,
        )
        self.logger.info(f"Subscribed to topic '{topic}'")


def _compatible_with_all(offered: list[QoSProfile]) -> QoSProfile:
    reliable = all(q.reliability == ReliabilityPolicy.RELIABLE for q in offered)
    latched = all(q.durability == DurabilityPolicy.TRANSIENT_LOCAL for q in offered)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=_QUEUE_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _to_bag_qos(profile: QoSProfile) -> Qos:
    def to_time(duration: Any) -> QosTime:
        return QosTime(*divmod(duration.nanoseconds, 10**9))

    # rclpy's policies and those of rosbags have the same names, but not the same numbers.
    return Qos(
        history=_named(QosHistory, profile.history),
        depth=profile.depth,
        reliability=_named(QosReliability, profile.reliability),
        durability=_named(QosDurability, profile.durability),
        deadline=to_time(profile.deadline),
        lifespan=to_time(profile.lifespan),
        liveliness=_named(QosLiveliness, profile.liveliness),
        liveliness_lease_duration=to_time(profile.liveliness_lease_duration),
        avoid_ros_namespace_conventions=profile.avoid_ros_namespace_conventions,
    )


def _named(enumeration: Any, policy: Any) -> Any:
    return enumeration.__members__.get(policy.name, enumeration.UNKNOWN)
