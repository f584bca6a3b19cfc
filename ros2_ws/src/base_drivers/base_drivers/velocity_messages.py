"""Velocity commands as Twist or TwistStamped."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Twist, TwistStamped
from policy_server.node_parameters import NodeParameter
from rclpy.lifecycle import LifecycleNode

from base_drivers.command_guard import Command
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
    node: LifecycleNode, topic: str, stamped: bool, on_command: Callable[[Command], None]
) -> Any:
    """Subscribe to commands of one kind; only the newest is kept."""
    return node.create_subscription(
        TwistStamped if stamped else Twist,
        topic,
        lambda message: on_command(command_from_message(message)),
        1,
    )
