"""Velocity commands as Twist or TwistStamped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Twist, TwistStamped
from node_common.parameters import NodeParameter
from node_common.topic_watch import TopicWatch
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy

from base_drivers.command_guard import Command, stamp_finding
from base_drivers.velocity import STREAM_TIMEOUT_S, Velocity

DRIVER_COMMAND_PARAMETERS: Final = (
    NodeParameter(
        "command_timeout_s",
        STREAM_TIMEOUT_S,
        "a command is in force for this long, from the half on less and less",
        0.05,
        0.25,
        structural=True,
    ),
    NodeParameter(
        "command_max_age_s", 0.3, "oldest stamp of a command", 0.02, 2.0, structural=True
    ),
)
"""How long drivers take a command; the guard sends to them at 50 Hz."""
_FUTURE_TOLERANCE_S: Final = 0.1
_TOLD_S: Final = 2.0
_NEWEST: Final = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def stamp_seconds(stamp: Time) -> float:
    """Seconds of a stamp, also of one that no clock can show, such as a negative one."""
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec)


def command_from_message(message: Twist | TwistStamped) -> Command:
    """Read a command; all six components count for `is_finite`."""
    stamped = isinstance(message, TwistStamped)
    twist = message.twist if stamped else message
    linear, angular = twist.linear, twist.angular
    return Command(
        velocity=Velocity(linear.x, linear.y, angular.z),
        is_finite=all(
            map(
                math.isfinite,
                (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z),
            )
        ),
        stamp_s=stamp_seconds(message.header.stamp) if stamped else None,
        frame=message.header.frame_id if stamped else "",
    )


def twist_message(velocity: Velocity) -> Twist:
    """Make a Twist."""
    message = Twist()
    message.linear.x = velocity.x
    message.linear.y = velocity.y
    message.angular.z = velocity.yaw
    return message


def subscribe_commands(
    node: LifecycleNode,
    topic: str,
    stamped: bool,
    on_command: Callable[[Command], None],
    watch: TopicWatch,
    parameter: str,
) -> Any:
    """Subscribe to commands of one kind; only the newest is kept.

    Best effort hears senders of both kinds; a reliable subscription would not hear one that sends
    best effort, as micro-ROS and joysticks do.

    Args:
        node: that takes commands.
        topic: of the commands.
        stamped: they are TwistStamped instead of Twist.
        on_command: told of each.
        watch: tells what else is published there.
        parameter: of the node, which chooses `stamped`.
    """
    subscription = node.create_subscription(
        TwistStamped if stamped else Twist,
        topic,
        lambda message: on_command(command_from_message(message)),
        _NEWEST,
    )
    hint = f"set the parameter {parameter} to {str(not stamped).lower()}"
    return watch.add(subscription, hint, one_sender=True)


class DriverCommands:
    """Commands on `cmd_vel` of a driver, judged by their stamps.

    Args:
        node: the driver, with parameters `stamped` and `command_max_age_s`.
        on_command: takes a command whose stamp is right.
        refuse: counts a command that is not taken, by its code.
    """

    def __init__(
        self,
        node: LifecycleNode,
        on_command: Callable[[Command], None],
        refuse: Callable[[str], None],
    ) -> None:
        self._node = node
        self._on_command = on_command
        self._refuse = refuse
        self._max_age_s = float(node.get_parameter("command_max_age_s").value)
        self._refusal, self._refused_s = "", -math.inf
        self._watch = TopicWatch(node)
        stamped = node.get_parameter("stamped").value
        self._subscription = subscribe_commands(
            node, "cmd_vel", stamped, self._take, self._watch, "stamped"
        )

    def _take(self, command: Command) -> None:
        if command.stamp_s is not None:
            node_s = self._node.get_clock().now().nanoseconds * 1e-9
            finding = stamp_finding(command.stamp_s, node_s, self._max_age_s, _FUTURE_TOLERANCE_S)
            if finding is not None:
                self._refusal, self._refused_s = finding.message, time.monotonic()
                self._node.get_logger().warning(finding.message, throttle_duration_sec=5.0)
                self._refuse(finding.code)
                return
        self._on_command(command)

    def problems(self) -> list[str]:
        """Why commands do not arrive or are refused; call about once a second."""
        problems = self._watch.problems()
        if time.monotonic() - self._refused_s < _TOLD_S and self._refusal not in problems:
            problems.append(self._refusal)
        return problems

    def destroy(self) -> None:
        """Take no more commands."""
        self._node.destroy_subscription(self._subscription)
