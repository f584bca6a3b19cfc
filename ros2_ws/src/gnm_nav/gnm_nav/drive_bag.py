"""Recorded drives: images and odometry out of rosbag2 bags, without ROS."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from policy_server.image_conversion import ImageConverter, ImageError
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from gnm_nav.planar_pose import Pose, StampedPose, odometry_pose, pose_at

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
ODOMETRY_TYPE = "nav_msgs/msg/Odometry"
_ODOMETRY_GAP_S = 0.5


class BagError(ValueError):
    """A bag that no map can be built from."""


@dataclass(frozen=True)
class DriveImage:
    """One image of a drive.

    Attributes:
        image: RGB (H, W, 3) uint8.
        stamp_s: of the header.
        pose: x, y [m], yaw [rad] of the odometry; None: there is none near.
    """

    image: NDArray[np.uint8]
    stamp_s: float
    pose: Pose | None


def read_drive(
    bag: str | Path, image_topic: str = "camera/image_raw", odometry_topic: str = "odom"
) -> Iterator[DriveImage]:
    """Read a bag's images in order.

    Args:
        bag: directory of a rosbag2 bag (MCAP or SQLite), or an MCAP file in one.
        image_topic: raw or compressed images; with or without leading slash.
        odometry_topic: may be absent; empty: poses are not wanted.

    Raises:
        BagError: no bag, a broken one, no such topic, or an image that cannot be understood.
    """
    path = Path(bag).expanduser()
    if path.is_file():
        path = path.parent
    if not path.is_dir():
        raise BagError(f"{path}: found no such directory, expected a rosbag2 bag")
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_KILTED)) as reader:
            odometry = _odometry(reader, odometry_topic)
            yield from _images(reader, path, image_topic, odometry)
    except BagError:
        raise
    except (AnyReaderError, OSError, ValueError, KeyError, AssertionError) as error:
        raise BagError(f"{path}: found {error!r}, expected a complete rosbag2 bag") from None


def _connections(reader: AnyReader, topic: str, types: tuple[str, ...]) -> list[Any]:
    wanted = topic.strip("/")
    return [c for c in reader.connections if c.topic.strip("/") == wanted and c.msgtype in types]


def _odometry(reader: AnyReader, topic: str) -> list[StampedPose]:
    connections = _connections(reader, topic, (ODOMETRY_TYPE,)) if topic else []
    poses: list[StampedPose] = []
    if not connections:
        return poses
    for connection, _, raw in reader.messages(connections=connections):
        message: Any = reader.deserialize(raw, connection.msgtype)
        pose = odometry_pose(message)
        if all(map(math.isfinite, pose)) and (not poses or pose[0] > poses[-1][0]):
            poses.append(pose)
    return poses


def _images(
    reader: AnyReader,
    path: Path,
    topic: str,
    odometry: list[StampedPose],
) -> Iterator[DriveImage]:
    connections = _connections(reader, topic, (IMAGE_TYPE, COMPRESSED_TYPE))
    if not connections:
        topics = sorted(
            c.topic for c in reader.connections if c.msgtype in (IMAGE_TYPE, COMPRESSED_TYPE)
        )
        raise BagError(
            f"{path}: found no images under {topic}, expected one of the bag's image topics: "
            f"{', '.join(topics) or 'it has none'}"
        )
    converter = ImageConverter()
    for connection, _, raw in reader.messages(connections=connections):
        message: Any = reader.deserialize(raw, connection.msgtype)
        stamp_s = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        try:
            image = converter.rgb(message)
        except ImageError as error:
            raise BagError(f"{path}: {topic} at {stamp_s:.3f} s: {error}") from None
        yield DriveImage(image, stamp_s, _pose(odometry, stamp_s))


def _pose(odometry: list[StampedPose], stamp_s: float) -> Pose | None:
    if not odometry or stamp_s > odometry[-1][0] + _ODOMETRY_GAP_S:
        return None
    if odometry[0][0] - _ODOMETRY_GAP_S <= stamp_s < odometry[0][0]:
        return odometry[0][1:]
    return pose_at(odometry, stamp_s)
