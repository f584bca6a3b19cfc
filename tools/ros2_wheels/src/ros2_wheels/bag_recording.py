"""Recording of topics to a bag."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import math
import os
import re
import signal
import sqlite3
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
from rclpy.subscription import Subscription
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

from .graph import CommandNode, command_node, visible
from .interfaces import message_definition
from .main import CommandError
from .messages import load_interface
from .packages import use_environment_prefix

# Enough for two seconds of a 30 Hz camera while the disk is busy.
_QUEUE_DEPTH = 60
_FLUSH_PERIOD_S = 0.5
"""A recorder that is killed loses what it received since the last flush."""
_SILENCE_S = 5.0
"""A topic that is to be recorded and says nothing for so long is told of."""


def record(arguments: argparse.Namespace) -> None:
    """Record until SIGINT, SIGTERM or SIGHUP, then complete the bag.

    Raises CommandError when no topics are chosen, the destination exists already, or it cannot be
    written any more.
    """
    use_environment_prefix()
    named = [*arguments.topics, *arguments.topics_positional]
    if not named and not arguments.all and not arguments.regex:
        raise CommandError("Need to specify one option out of --all, --topics, --regex, or topics")
    if arguments.all and named:
        raise CommandError("Invalid choice: Can not specify topics together with --all")
    output = arguments.output or f"rosbag2_{datetime.datetime.now():%Y_%m_%d-%H_%M_%S}"
    writer = _open(output, arguments.storage)
    try:
        _record_into(writer, arguments, named)
    except (OSError, sqlite3.Error) as error:
        # Most often the disk is full. Closing would write an index of what is not there.
        with contextlib.suppress(Exception):
            writer.abort()
        raise CommandError(
            f"Recording stopped: {error}. What was recorded until then is kept; "
            f"when there is space again, complete it: ros2 bag reindex '{output}'"
        ) from error
    finally:
        if writer.storage is not None:
            writer.close()


def _open(output: str, storage: str) -> Writer:
    try:
        writer = Writer(
            Path(output),
            version=Writer.VERSION_LATEST,
            storage_plugin=StoragePlugin[storage.upper()],
        )
        writer.open()
    except WriterError as error:
        raise CommandError(
            f"Output folder '{output}' already exists: choose another one with -o"
        ) from error
    # `reindex` leaves a bag alone that is locked. The end of this process unlocks it.
    fcntl.flock(os.open(output, os.O_RDONLY), fcntl.LOCK_EX)
    if isinstance(writer.storage, Sqlite3Writer):
        # Between two commits the file stays as it is, so that it can be read without its journal.
        writer.storage.conn.execute("PRAGMA cache_spill = OFF")
    return writer


def _record_into(writer: Writer, arguments: argparse.Namespace, named: list[str]) -> None:
    with command_node(arguments, "rosbag2_recorder") as node:
        signal.signal(signal.SIGTERM, node.interrupt)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # it is after `nohup`
            signal.signal(signal.SIGHUP, node.interrupt)
        recorder = _Recorder(node, writer, _topic_filter(arguments, named), _absolute(named))
        recorder.logger.info("Listening for topics...")
        polling_period_s = arguments.polling_interval * 1e-3
        look_at = flush_at = time.monotonic()
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                now = time.monotonic()
                if now >= look_at:
                    recorder.subscribe_to_new_topics()
                    look_at = time.monotonic() + polling_period_s
                if now >= flush_at:
                    flush(writer)
                    recorder.follow_later_publishers()
                    recorder.warn_without_clock()
                    recorder.warn_of_silence()
                    flush_at = time.monotonic() + _FLUSH_PERIOD_S
                node.spin_once()
        # A second Ctrl-C must not spoil the bag.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        recorder.logger.info("Recording stopped")
        recorder.warn_of_empty_topics()
        writer.close()


def flush(writer: Writer) -> None:
    """Hand what was recorded to the operating system: a recorder that is killed keeps it.

    Raises:
        OSError, sqlite3.Error: it cannot be written.
    """
    storage = writer.storage
    if isinstance(storage, Sqlite3Writer):
        storage.conn.commit()
    elif isinstance(storage, McapWriter) and storage.chunk.msgs:
        storage.close_chunk()
        storage.bio.flush()


def _topic_filter(arguments: argparse.Namespace, named: list[str]) -> Any:
    wanted = _absolute(named)
    excluded = _absolute(arguments.exclude_topics)

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


def _absolute(names: list[str]) -> set[str]:
    return {name if name.startswith("/") else f"/{name}" for name in names}


class TopicTimes:
    """When messages of a topic came; tells once when a topic has stopped."""

    def __init__(self) -> None:
        self.count = 0
        self.last_s = 0.0
        self._longest_s = 0.0
        self._told = False

    def add(self, now_s: float) -> None:
        """Take note of a message."""
        if self.count:
            self._longest_s = max(self._longest_s, now_s - self.last_s)
        self.count += 1
        self.last_s = now_s
        self._told = False

    def has_stopped(self, now_s: float) -> bool:
        """Whether it is silent for much longer than ever before; true once in each silence.

        Nothing is known of the rhythm of a topic with less than ten messages.
        """
        silent_s = now_s - self.last_s
        if self._told or self.count < 10 or silent_s < max(_SILENCE_S, 5.0 * self._longest_s):
            return False
        self._told = True
        return True


class _Recorder:
    def __init__(self, node: CommandNode, writer: Writer, is_chosen: Any, named: set[str]) -> None:
        self.node = node
        self.writer = writer
        self.is_chosen = is_chosen
        self.logger: RcutilsLogger = node.node.get_logger()
        self.seen: set[str] = set()
        self._unstamped = self._told = 0
        self._times: dict[str, TopicTimes] = {}
        self._subscriptions: dict[str, tuple[Subscription, QoSProfile]] = {}
        self._named = named
        self._ask_again_s = time.monotonic() + _SILENCE_S

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

    def warn_without_clock(self) -> None:
        """Say so while messages are recorded before the simulation's time is known."""
        if self._unstamped > self._told:
            self._told = self._unstamped
            self.logger.warning(
                f"{self._told} messages are recorded at time 0: --use-sim-time is given, "
                "but nothing has come on /clock",
                throttle_duration_sec=5.0,
            )

    def follow_later_publishers(self) -> None:
        """Ask for less where a publisher that came later offers less: it would not be heard."""
        for topic, (subscription, profile) in list(self._subscriptions.items()):
            if (profile.reliability, profile.durability) == (
                ReliabilityPolicy.BEST_EFFORT,
                DurabilityPolicy.VOLATILE,
            ):
                continue
            publishers = self.node.node.get_publishers_info_by_topic(topic)
            asked = _compatible_with_all([profile, *(info.qos_profile for info in publishers)])
            if asked != profile:
                self.node.node.destroy_subscription(subscription)
                self._listen(topic, subscription.msg_type, subscription.callback, asked)
                self.logger.info(f"Topic '{topic}' has a publisher with another QoS: heard as well")

    def warn_of_silence(self) -> None:
        """Say so when a named topic does not appear, or one that came regularly has stopped."""
        now_s = time.monotonic()
        if self._ask_again_s < now_s:
            self._ask_again_s = math.inf
            for topic in sorted(self._named - self.seen):
                self.logger.warning(
                    f"Nobody publishes '{topic}' so far: it is recorded when it comes"
                )
        for topic, times in self._times.items():
            if times.has_stopped(now_s):
                silent_s = now_s - times.last_s
                self.logger.warning(f"Nothing has come on '{topic}' for {silent_s:.0f} s")

    def warn_of_empty_topics(self) -> None:
        """Name the topics of which the bag has nothing."""
        for topic in sorted(self._named - self.seen):
            self.logger.warning(f"Nothing is recorded of '{topic}': nobody published it")
        for topic, times in self._times.items():
            if not times.count:
                self.logger.warning(
                    f"Nothing is recorded of '{topic}': it had a publisher, but no message came"
                )

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
        times = self._times[topic] = TopicTimes()

        def on_message(data: bytes) -> None:
            times.add(time.monotonic())
            now_ns = clock.now().nanoseconds
            self._unstamped += now_ns == 0
            self.writer.write(connection, now_ns, data)

        asked = _compatible_with_all(offered)
        self._listen(topic, load_interface("msg", type_name), on_message, asked)
        self.logger.info(f"Subscribed to topic '{topic}'")

    def _listen(self, topic: str, kind: Any, on_message: Any, asked: QoSProfile) -> None:
        subscription = self.node.node.create_subscription(kind, topic, on_message, asked, raw=True)
        self._subscriptions[topic] = subscription, asked


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
