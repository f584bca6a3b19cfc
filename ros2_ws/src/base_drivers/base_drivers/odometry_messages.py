"""Odometry, transforms and contacts as messages."""

from __future__ import annotations

import math
from typing import Final

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, TransformStamped
from nav_msgs.msg import Odometry
from policy_interfaces.msg import BaseContacts
from tf2_msgs.msg import TFMessage

from base_drivers.contact_rules import Contacts
from base_drivers.velocity import Velocity

CONTACT_FIELDS: Final = tuple(Contacts.__dataclass_fields__)
# Of what a base on the ground does not measure: large, so that a filter leaves it alone.
_UNKNOWN: Final = 1e6


def planar_rotation(yaw_rad: float) -> Quaternion:
    """A turn about the vertical."""
    return Quaternion(z=math.sin(0.5 * yaw_rad), w=math.cos(0.5 * yaw_rad))


def odometry_message(
    stamp: Time,
    frames: tuple[str, str],
    position_m: tuple[float, float, float],
    rotation: Quaternion,
    velocity: Velocity,
    variances: tuple[float, float, float, float],
) -> Odometry:
    """Make an Odometry.

    Args:
        stamp: time of measurement.
        frames: of the pose and of the velocity.
        position_m: x, y, z in the first frame.
        rotation: of the second frame in the first.
        velocity: in the second frame.
        variances: of position [m²], yaw [rad²], speed [m²/s²] and yaw rate [rad²/s²].
    """
    message = Odometry(child_frame_id=frames[1])
    message.header.frame_id = frames[0]
    message.header.stamp = stamp
    pose, twist = message.pose.pose, message.twist.twist
    pose.position.x, pose.position.y, pose.position.z = position_m
    pose.orientation = rotation
    twist.linear.x, twist.linear.y, twist.angular.z = velocity.x, velocity.y, velocity.yaw
    position, yaw, speed, rate = variances
    message.pose.covariance = _diagonal(position, yaw)
    message.twist.covariance = _diagonal(speed, rate)
    return message


def _diagonal(linear: float, angular: float) -> list[float]:
    values = [0.0] * 36
    for index, value in enumerate((linear, linear, _UNKNOWN, _UNKNOWN, _UNKNOWN, angular)):
        values[7 * index] = value
    return values


def transform_message(odometry: Odometry) -> TFMessage:
    """The transform that an odometry says."""
    transform = TransformStamped(child_frame_id=odometry.child_frame_id)
    transform.header = odometry.header
    position, translation = odometry.pose.pose.position, transform.transform.translation
    translation.x, translation.y, translation.z = position.x, position.y, position.z
    transform.transform.rotation = odometry.pose.pose.orientation
    return TFMessage(transforms=[transform])


def contacts_message(stamp: Time, frame: str, contacts: Contacts) -> BaseContacts:
    """Make a BaseContacts."""
    message = BaseContacts(**{name: getattr(contacts, name) for name in CONTACT_FIELDS})
    message.header.stamp = stamp
    message.header.frame_id = frame
    return message


def contacts_from_message(message: BaseContacts) -> Contacts:
    """Read a BaseContacts."""
    return Contacts(**{name: getattr(message, name) for name in CONTACT_FIELDS})
