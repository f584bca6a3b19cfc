"""`ros2 bag`."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2 import Reader

from .graph import non_negative_int, positive_float
from .main import CommandError

SUFFIXES = {".mcap": "mcap", ".db3": "sqlite3"}
STORAGES = tuple(SUFFIXES.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs of `ros2 bag`."""
    verbs = parser.add_subparsers(title="Commands", metavar="<verb>")

    verb = verbs.add_parser("info", help="Print information about a bag to the screen")
    verb.add_argument("bag_path", help="Bag to open")
    verb.add_argument("-s", "--storage", choices=STORAGES, help="Found out from the bag itself")
    verb.set_defaults(run=print_info)

    verb = verbs.add_parser("play", help="Play back ROS data from a bag")
    verb.add_argument("bag_path", help="Bag to open")
    verb.add_argument("-s", "--storage", choices=STORAGES, help="Found out from the bag itself")
    verb.add_argument(
        "-r", "--rate", type=positive_float, default=1.0, help="Rate at which to play back messages"
    )
    verb.add_argument("-l", "--loop", action="store_true", help="Play back until Ctrl-C")
    verb.add_argument("--topics", nargs="+", default=[], help="Topics to replay (default: all)")
    verb.add_argument("--exclude-topics", nargs="+", default=[], help="Topics not to replay")
    verb.add_argument(
        "-m", "--remap", nargs="+", default=[], help="Topics to be remapped, old:=new"
    )
    verb.add_argument(
        "--clock",
        type=positive_float,
        nargs="?",
        const=40.0,
        metavar="HZ",
        help="Publish to /clock at a frequency in Hz (default 40), to act as a time source",
    )
    verb.add_argument(
        "-d", "--delay", type=float, default=0.0, help="Sleep duration before play, in seconds"
    )
    verb.add_argument(
        "--start-offset",
        type=float,
        default=0.0,
        help="Start the playback this many seconds into the bag",
    )
    verb.set_defaults(run=_play)

    verb = verbs.add_parser("record", help="Record ROS data to a bag")
    verb.add_argument("topics_positional", nargs="*", metavar="topics", help="Topics to record")
    verb.add_argument("--topics", nargs="+", default=[], help="Topics to record")
    verb.add_argument("-a", "--all", action="store_true", help="Record all topics")
    verb.add_argument("--all-topics", dest="all", action="store_true", help="Record all topics")
    verb.add_argument("-e", "--regex", default="", help="Record topics matching the expression")
    verb.add_argument("--exclude-regex", default="", help="Do not record matching topics")
    verb.add_argument("--exclude-topics", nargs="+", default=[], help="Topics not to record")
    verb.add_argument(
        "-o", "--output", help="Destination of the bag (default: rosbag2_ and the local time)"
    )
    verb.add_argument(
        "-s", "--storage", choices=STORAGES, default="mcap", help="Storage (default mcap)"
    )
    verb.add_argument("--include-hidden-topics", action="store_true", help="Record hidden topics")
    verb.add_argument(
        "-p",
        "--polling-interval",
        type=non_negative_int,
        default=100,
        help="Time in ms to wait between querying available topics for recording",
    )
    verb.add_argument("--use-sim-time", action="store_true", help="Use simulation time")
    verb.set_defaults(run=_record)

    verb = verbs.add_parser("reindex", help="Reconstruct metadata file for a bag")
    verb.add_argument("bag_path", help="Bag to reindex")
    verb.add_argument("-s", "--storage", choices=STORAGES, help="Found out from the bag itself")
    verb.set_defaults(run=_reindex)


def _play(arguments: argparse.Namespace) -> None:
    from .bag_playing import play

    play(arguments)


def _record(arguments: argparse.Namespace) -> None:
    from .bag_recording import record

    record(arguments)


def _reindex(arguments: argparse.Namespace) -> None:
    from .bag_reindexing import reindex

    reindex(arguments)


def storage_files(folder: Path) -> list[Path]:
    """The storage files of a bag's folder, sorted by name."""
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)


def refuse_ros1(path: Path) -> None:
    """CommandError for a ROS 1 bag, or a folder of them; it names the command that converts."""
    files = sorted(path.glob("*.bag")) if path.is_dir() and not storage_files(path) else [path]
    for file in files:
        if file.suffix == ".bag" and file.is_file():
            raise CommandError(
                f"'{file}' is a ROS 1 bag; convert it: "
                f"rosbags-convert --src '{file}' --dst '{file.with_suffix('')}'"
            )


def has_open_journal(file: Path) -> bool:
    """Whether an SQLite file is complete only with its journal: it was not closed."""
    for kind in ("journal", "wal"):
        journal = file.with_name(f"{file.name}-{kind}")
        # A rollback journal begins with zeros until the file itself is about to be changed.
        if journal.exists() and journal.open("rb").read(1).strip(b"\0"):
            return True
    return False


def _path_to_read(path: Path) -> Path:
    """The bag's folder, or its only file where metadata.yaml is missing."""
    if not path.exists():
        raise CommandError(f"Bag path '{path}' does not exist!")
    refuse_ros1(path)
    if path.is_dir() and not (path / "metadata.yaml").exists():
        files = storage_files(path)
        if not files:
            raise CommandError(
                f"'{path}' is no bag: found neither metadata.yaml nor an MCAP or SQLite file"
            )
        if len(files) > 1:
            raise CommandError(
                f"'{path}' has {len(files)} files but no metadata.yaml; "
                f"write it: ros2 bag reindex '{path}'"
            )
        path = files[0]
    for file in storage_files(path) if path.is_dir() else [path]:
        if has_open_journal(file):
            raise CommandError(
                f"'{file}' is being recorded, or its recorder did not end by itself; "
                f"then complete it: ros2 bag reindex '{path}'"
            )
    return path


@contextmanager
def open_bag(path: str) -> Iterator[Reader]:
    """Open a bag directory or file for reading; CommandError when it is none."""
    chosen = _path_to_read(Path(path))
    try:
        reader = Reader(chosen)
        reader.open()
    except Exception as error:  # of a damaged file the reader raises whatever comes
        raise CommandError(
            f"No bag can be read from '{path}': {error or repr(error)} "
            "If its recorder did not end by itself, what is there can be completed: "
            f"ros2 bag reindex '{path}'"
        ) from error
    try:
        yield reader
    finally:
        reader.close()


def _encoding(connection: Connection) -> str:
    assert isinstance(connection.ext, ConnectionExtRosbag2)
    return connection.ext.serialization_format


def _size_text(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024.0 or unit == "GiB":
            break
        size /= 1024.0
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _time_text(time_ns: int) -> str:
    seconds, milliseconds = time_ns // 10**9, time_ns // 10**6 % 1000
    moment = datetime.datetime.fromtimestamp(seconds)
    return f"{moment:%b} {moment.day:2d} {moment:%Y %H:%M:%S}.{milliseconds:03d} " + (
        f"({seconds}.{milliseconds:03d})"
    )


def print_info(arguments: argparse.Namespace) -> None:
    """Print files, times and topics of a bag."""
    path = Path(arguments.bag_path)
    with open_bag(arguments.bag_path) as reader:
        files = [path]
        if path.is_dir():
            files = storage_files(path) or sorted(path.glob("*.zstd"))
        storage = "sqlite3" if ".db3" in files[0].name else "mcap"
        topics = [
            f"Topic: {c.topic} | Type: {c.msgtype} | Count: {c.msgcount} | "
            f"Serialization Format: {getattr(c.ext, 'serialization_format', 'cdr')}"
            for c in sorted(reader.connections, key=lambda c: c.topic)
        ]
        count = reader.message_count
        start, end = (reader.start_time, reader.end_time) if count else (0, 0)
        rows = {
            "Files:": ", ".join(file.name for file in files),
            "Bag size:": _size_text(sum(file.stat().st_size for file in files)),
            "Storage id:": storage,
            "ROS Distro:": reader.ros_distro or "unknown",
            "Duration:": f"{(end - start) * 1e-9:.9f}s",
            "Start:": _time_text(start),
            "End:": _time_text(end),
            "Messages:": str(count),
            "Topic information:": ("\n" + " " * 19).join(topics),
        }
    print()
    for label, text in rows.items():
        print(f"{label:19}{text}")
