"""Quality-of-service options of the topic commands."""

from __future__ import annotations

import argparse

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSHistoryPolicy,
    QoSLivelinessPolicy,
    QoSPresetProfiles,
    QoSProfile,
    QoSReliabilityPolicy,
)


def add_qos_arguments(parser: argparse.ArgumentParser, default_profile: str) -> None:
    """Declare the --qos-… options."""
    parser.add_argument(
        "--qos-profile",
        choices=QoSPresetProfiles.short_keys(),
        default=default_profile,
        help=f"Quality of service preset profile (default: {default_profile})",
    )
    parser.add_argument("--qos-depth", metavar="N", type=int, help="Queue size")
    parser.add_argument(
        "--qos-history", choices=QoSHistoryPolicy.short_keys(), help="History of samples"
    )
    parser.add_argument(
        "--qos-reliability", choices=QoSReliabilityPolicy.short_keys(), help="Reliability"
    )
    parser.add_argument(
        "--qos-durability", choices=QoSDurabilityPolicy.short_keys(), help="Durability"
    )
    parser.add_argument(
        "--qos-liveliness", choices=QoSLivelinessPolicy.short_keys(), help="Liveliness"
    )
    parser.add_argument(
        "--qos-liveliness-lease-duration-seconds", type=float, help="Liveliness lease duration"
    )


def chosen_qos(arguments: argparse.Namespace) -> QoSProfile:
    """Return the preset profile with the given options."""
    profile = QoSPresetProfiles.get_from_short_key(arguments.qos_profile)
    if arguments.qos_depth is not None:
        profile.depth = arguments.qos_depth
    elif arguments.qos_durability == "transient_local" and profile.depth == 0:
        profile.depth = 1
    if arguments.qos_history is not None:
        profile.history = QoSHistoryPolicy.get_from_short_key(arguments.qos_history)
    if arguments.qos_reliability is not None:
        profile.reliability = QoSReliabilityPolicy.get_from_short_key(arguments.qos_reliability)
    if arguments.qos_durability is not None:
        profile.durability = QoSDurabilityPolicy.get_from_short_key(arguments.qos_durability)
    if arguments.qos_liveliness is not None:
        profile.liveliness = QoSLivelinessPolicy.get_from_short_key(arguments.qos_liveliness)
    lease_s = arguments.qos_liveliness_lease_duration_seconds
    if lease_s is not None and lease_s >= 0.0:
        profile.liveliness_lease_duration = Duration(seconds=lease_s)
    return profile


def matching_qos(node: Node, topic: str, profile: QoSProfile) -> QoSProfile:
    """Return the profile made compatible with all present publishers of the topic."""
    publishers = [info.qos_profile for info in node.get_publishers_info_by_topic(topic)]
    if not publishers:
        return profile
    reliable = [q.reliability == QoSReliabilityPolicy.RELIABLE for q in publishers]
    latched = [q.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL for q in publishers]
    if any(reliable) and not all(reliable):
        print(
            "Some, but not all, publishers are offering QoSReliabilityPolicy.RELIABLE. Falling "
            "back to QoSReliabilityPolicy.BEST_EFFORT as it will connect to all publishers"
        )
    if any(latched) and not all(latched):
        print(
            "Some, but not all, publishers are offering QoSDurabilityPolicy.TRANSIENT_LOCAL. "
            "Falling back to QoSDurabilityPolicy.VOLATILE as it will connect to all publishers"
        )
    profile.reliability = (
        QoSReliabilityPolicy.RELIABLE if all(reliable) else QoSReliabilityPolicy.BEST_EFFORT
    )
    profile.durability = (
        QoSDurabilityPolicy.TRANSIENT_LOCAL if all(latched) else QoSDurabilityPolicy.VOLATILE
    )
    return profile


def has_qos_overrides(arguments: argparse.Namespace) -> bool:
    """Return whether a single policy was given, so that publishers are not looked at."""
    return any(
        getattr(arguments, f"qos_{policy}") is not None
        for policy in ("depth", "history", "reliability", "durability", "liveliness")
    )
