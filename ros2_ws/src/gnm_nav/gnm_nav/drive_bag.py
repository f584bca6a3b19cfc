"""Recorded drives: images and odometry out of ROS bags, without ROS."""

from __future__ import annotations

import bisect
import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from node_common.image_conversion import ImageConverter, ImageError
from numpy.typing import NDArray
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from gnm_nav.planar_pose import Pose, StampedPose, odometry_pose, pose_at

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
ODOMETRY_TYPE = "nav_msgs/msg/Odometry"
_ODOMETRY_GAP_S = 0.5
_SUFFIXES = (".mcap", ".db3", ".bag")


class BagError(ValueError):
    """A bag that no map can be built from."""


@dataclass(frozen=True)
class DriveImage:
    """One image of a drive.

    Attributes:
        image: RGB (H, W, 3) uint8.
        stamp_s: of the header, or time of the recording.
        pose: x, y [m], yaw [rad] of the odometry; None: there is none near.
    """

    image: NDArray[np.uint8]
    stamp_s: float
    pose: Pose | None


@dataclass
class DriveCounts:
    """What was found in a bag while it was read.

    Attributes:
        images: messages of the image topic.
        bad: of them without an image that can be understood.
        fault: what was wrong with the last of those.
        poses: images with a pose.
        odometry: messages of the odometry topic.
        odometry_left_out: of them out of order in time, or without a pose that is a number.
        unfinished: the recording was cut off; what is there was read.
    """

    images: int = 0
    bad: int = 0
    fault: str = ""
    poses: int = 0
    odometry: int = 0
    odometry_left_out: int = 0
    unfinished: bool = False


def read_drive(
    bag: str | Path,
    image_topic: str = "camera/image_raw",
    odometry_topic: str = "odom",
    *,
    recording_time: bool = False,
    counts: DriveCounts | None = None,
) -> Iterator[DriveImage]:
    """Read a bag's images in order. Images that cannot be understood are left out and counted.

    Args:
        bag: directory of a rosbag2 bag, one of its files (MCAP or SQLite), or a ROS 1 bag.
        image_topic: raw or compressed images; with or without leading slash.
        odometry_topic: may be absent; empty: poses are not wanted.
        recording_time: take the times of the recording instead of the stamps in the headers.
        counts: filled while the bag is read.

    Raises:
        BagError: no bag, a broken one, no such topic, or no image that can be understood.
    """
    counts = counts if counts is not None else DriveCounts()
    path = _path_to_read(Path(bag).expanduser())
    try:
        source = _open(path, counts)
    except Exception as error:  # of a damaged file the readers raise whatever comes
        raise BagError(
            f"{path}: found {error!r}, expected a complete bag; if its recorder did not end by "
            f"itself, `ros2 bag reindex {path}` makes what is there readable"
        ) from None
    with contextlib.closing(source):
        try:
            odometry = _odometry(source, odometry_topic, recording_time, counts)
            yield from _images(source, path, image_topic, odometry, recording_time, counts)
        except BagError:
            raise
        except (OSError, ValueError, KeyError, AssertionError, EOFError) as error:
            raise BagError(f"{path}: found {error!r}, expected a complete bag") from None


def _path_to_read(path: Path) -> Path:
    """The bag's folder, or its only file where metadata.yaml is missing."""
    if not path.exists():
        raise BagError(f"{path}: found nothing there, expected a bag")
    if path.is_file() or (path / "metadata.yaml").exists():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    if not files:
        raise BagError(f"{path}: found neither metadata.yaml nor a file of a bag, expected a bag")
    if len(files) > 1:
        raise BagError(
            f"{path}: found {len(files)} files and no metadata.yaml, expected one file or a "
            f"complete bag; `ros2 bag reindex {path}` writes metadata.yaml"
        )
    return files[0]


class _Source:
    """Messages of a bag by topic and type, whatever its format.

    Only what is asked for is read, by the standard definitions: those in a bag, which may be
    missing or broken, are those of all of its topics.
    """

    def __init__(self, reader: Any, ros1: bool) -> None:
        self._reader = reader
        types = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_KILTED)
        self._deserialize = types.deserialize_ros1 if ros1 else types.deserialize_cdr

    def close(self) -> None:
        self._reader.close()

    def topics(self) -> set[tuple[str, str]]:
        """(topic, type) of all topics."""
        return {(c.topic, c.msgtype) for c in self._reader.connections}

    def messages(self, topic: str, types: Sequence[str]) -> Iterator[tuple[float, Any]]:
        """(time of the recording [s], message); None for a message that cannot be understood."""
        chosen = [
            c
            for c in self._reader.connections
            if c.topic.strip("/") == topic.strip("/") and c.msgtype in types
        ]
        for connection, time_ns, raw in self._reader.messages(chosen) if chosen else ():
            try:
                message = self._deserialize(raw, connection.msgtype)
            except Exception:  # of damaged bytes it raises whatever comes
                message = None
            yield 1e-9 * time_ns, message


@dataclass(frozen=True)
class _Topic:
    topic: str
    msgtype: str


class _UnfinishedMcap:
    """Whole records of an MCAP file without an end, as a killed recorder leaves it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.connections = list(dict.fromkeys(topic for topic, _ in self._records()))
        if not self.connections:
            raise ValueError(f"no message in {path.name}")

    def close(self) -> None:
        """Nothing is open between two reads."""

    def messages(self, chosen: Sequence[_Topic]) -> Iterator[tuple[_Topic, int, bytes]]:
        for topic, message in self._records():
            if topic in chosen:
                yield topic, message.log_time, message.data

    def _records(self) -> Iterator[tuple[_Topic, Message]]:
        schemas: dict[int, str] = {}
        topics: dict[int, _Topic] = {}
        with self._path.open("rb") as file:
            records = iter(StreamReader(file).records)
            while True:
                try:
                    record = next(records)
                except Exception:  # where the file ends early, whatever comes
                    return
                if isinstance(record, Schema):
                    schemas[record.id] = record.name
                elif isinstance(record, Channel):
                    topics[record.id] = _Topic(record.topic, schemas.get(record.schema_id, ""))
                elif isinstance(record, Message):
                    yield topics[record.channel_id], record


def _open(path: Path, counts: DriveCounts) -> _Source:
    files = [path] if path.is_file() else sorted(path.iterdir())
    for file in files:
        for kind in ("journal", "wal"):
            journal = file.with_name(f"{file.name}-{kind}")
            # A rollback journal begins with zeros until the file itself is about to be changed.
            if journal.exists() and journal.open("rb").read(1).strip(b"\0"):
                raise ValueError(f"{journal.name}, which was not closed")
    ros1 = path.suffix == ".bag"
    reader: Any = Ros1Reader(path) if ros1 else Reader(path)
    try:
        reader.open()
    except Exception:
        mcap = [file for file in files if file.suffix == ".mcap"]
        if len(mcap) != 1:
            raise
        reader = _UnfinishedMcap(mcap[0])
        counts.unfinished = True
    return _Source(reader, ros1)


def _odometry(
    source: _Source, topic: str, recording_time: bool, counts: DriveCounts
) -> list[StampedPose]:
    poses: list[StampedPose] = []
    for time_s, message in source.messages(topic, (ODOMETRY_TYPE,)) if topic else ():
        counts.odometry += 1
        pose = odometry_pose(message) if message is not None else (math.nan,) * 4
        if recording_time:
            pose = (time_s, *pose[1:])
        if all(map(math.isfinite, pose)):
            poses.append(pose)
    kept = _longest_rising(poses)
    counts.odometry_left_out = counts.odometry - len(kept)
    return kept


def _longest_rising(poses: Sequence[StampedPose]) -> list[StampedPose]:
    """The most poses whose stamps rise: one from the future does not cost those after it."""
    last_stamps: list[float] = []
    last_indices: list[int] = []
    before: list[int] = []
    for index, (stamp_s, *_) in enumerate(poses):
        length = bisect.bisect_left(last_stamps, stamp_s)
        before.append(last_indices[length - 1] if length else -1)
        last_stamps[length : length + 1] = [stamp_s]
        last_indices[length : length + 1] = [index]
    kept: list[StampedPose] = []
    index = last_indices[-1] if last_indices else -1
    while index >= 0:
        kept.append(poses[index])
        index = before[index]
    return kept[::-1]


def _images(
    source: _Source,
    path: Path,
    topic: str,
    odometry: list[StampedPose],
    recording_time: bool,
    counts: DriveCounts,
) -> Iterator[DriveImage]:
    types = (IMAGE_TYPE, COMPRESSED_TYPE)
    converter = ImageConverter()
    for time_s, message in source.messages(topic, types):
        counts.images += 1
        try:
            if message is None:
                raise ImageError("found a message that is cut off")
            image = converter.rgb(message)
        except ImageError as error:
            counts.bad += 1
            counts.fault = str(error)
            continue
        stamp = message.header.stamp
        stamp_s = time_s if recording_time else stamp.sec + 1e-9 * stamp.nanosec
        pose = _pose(odometry, stamp_s)
        counts.poses += pose is not None
        yield DriveImage(image, stamp_s, pose)
    if not counts.images:
        topics = sorted(name for name, kind in source.topics() if kind in types)
        raise BagError(
            f"{path}: found no images under {topic}, expected one of the bag's image topics: "
            f"{', '.join(topics) or 'it has none'}"
        )
    if counts.bad == counts.images:
        raise BagError(f"{path}: none of the {counts.images} images is good: {counts.fault}")


def _pose(odometry: list[StampedPose], stamp_s: float) -> Pose | None:
    if not odometry or stamp_s > odometry[-1][0] + _ODOMETRY_GAP_S:
        return None
    if odometry[0][0] - _ODOMETRY_GAP_S <= stamp_s < odometry[0][0]:
        return odometry[0][1:]
    return pose_at(odometry, stamp_s)
