"""Completing of bags whose recorder did not end by itself, and of folders without metadata.yaml."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from mcap.records import Channel, Chunk, Header, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.writer import CompressionType, Writer
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.metadata import dump_qos_v9

from .bag_command import SUFFIXES, has_open_journal, refuse_ros1, storage_files
from .main import CommandError

_COMPRESSION = {"zstd": CompressionType.ZSTD, "lz4": CompressionType.LZ4}


def reindex(arguments: argparse.Namespace) -> None:
    """Complete the files of a bag and write its metadata.yaml anew; of a single file, the file.

    Raises CommandError when there is nothing that can be read, or it is still being recorded.
    """
    path = Path(arguments.bag_path)
    if not path.exists():
        raise CommandError(f"Bag path '{path}' does not exist!")
    refuse_ros1(path)
    folder = path if path.is_dir() else path.parent
    files = storage_files(path) if path.is_dir() else [path]
    if arguments.storage:
        files = [file for file in files if SUFFIXES.get(file.suffix) == arguments.storage]
    storages = {SUFFIXES.get(file.suffix) for file in files}
    if not files or None in storages:
        raise CommandError(f"'{path}' is no bag: found no MCAP or SQLite file")
    if len(storages) > 1:
        raise CommandError(f"'{path}' has MCAP and SQLite files: choose with --storage")
    with _locked(folder):
        for file in files:
            complete_file(file)
        if path.is_dir():
            _write_metadata(folder, files)
    print("Reindexing complete.", file=sys.stderr)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise CommandError(f"'{folder}' is being recorded; end the recording first") from error
    finally:
        os.close(descriptor)


def complete_file(file: Path) -> None:
    """Make a storage file readable whose recorder was killed; a complete one stays as it is.

    Raises CommandError when nothing in it can be read.
    """
    if file.suffix == ".db3" and has_open_journal(file):
        try:
            with contextlib.closing(sqlite3.connect(file)) as database:
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
                database.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:
            raise CommandError(f"Nothing can be read from '{file}': {error}") from error
    try:
        with Reader(file):
            return
    except Exception as error:  # of a damaged file the reader raises whatever comes
        if file.suffix != ".mcap":
            raise CommandError(f"Nothing can be read from '{file}': {error}") from error
    recovered = _recover_mcap(file)
    print(f"{file.name}: {recovered.messages} messages recovered", file=sys.stderr)
    if recovered.left_out:
        kept = file.with_name(f"{file.name}.damaged")
        file.rename(kept)
        print(
            f"{file.name}: {', '.join(recovered.left_out)} cannot be read; "
            f"the file as it was is now {kept.name}",
            file=sys.stderr,
        )
    recovered.path.replace(file)


@dataclass
class _Recovered:
    """A copy of what can be read of an MCAP file."""

    path: Path
    messages: int = 0
    left_out: list[str] = field(default_factory=list)


def _recover_mcap(file: Path) -> _Recovered:
    result = _Recovered(file.with_name(f"{file.name}.recovered"))
    try:
        with file.open("rb") as source, result.path.open("wb") as target:
            _copy_records(source, target, result)
    except OSError as error:
        result.path.unlink(missing_ok=True)
        raise CommandError(f"'{file}' cannot be completed: {error}") from error
    if not result.messages:
        result.path.unlink()
        raise CommandError(f"Nothing can be read from '{file}': found no message in it")
    return result


def _copy_records(source: Any, target: Any, result: _Recovered) -> None:
    writer: Writer | None = None
    profile = "ros2"
    schemas: dict[int, int] = {0: 0}
    channels: dict[int, int] = {}
    end = source.tell()
    broken_chunks = 0
    for record in _whole_records(source):
        end = source.tell()
        if isinstance(record, Header):
            profile = record.profile
            continue
        inner = [record]
        if isinstance(record, Chunk):
            try:
                inner = breakup_chunk(record, validate_crc=True)
            except Exception:  # the decompressors have errors of their own
                broken_chunks += 1
                continue
        if writer is None:
            kind = getattr(record, "compression", "")
            writer = Writer(target, compression=_COMPRESSION.get(kind, CompressionType.NONE))
            writer.start(profile=profile)
        for item in inner:
            if isinstance(item, Schema) and item.id not in schemas:
                schemas[item.id] = writer.register_schema(item.name, item.encoding, item.data)
            elif isinstance(item, Channel) and item.id not in channels:
                channels[item.id] = writer.register_channel(
                    item.topic, item.message_encoding, schemas[item.schema_id], item.metadata
                )
            elif isinstance(item, Message) and item.channel_id in channels:
                writer.add_message(
                    channels[item.channel_id],
                    item.log_time,
                    item.data,
                    item.publish_time,
                    item.sequence,
                )
                result.messages += 1
    if writer is not None:
        writer.finish()
    if broken_chunks:
        result.left_out.append(f"{broken_chunks} damaged chunks")
    size = os.fstat(source.fileno()).st_size
    if end < size:
        result.left_out.append(f"the last {size - end} bytes")


def _whole_records(source: Any) -> Iterator[Any]:
    # Where the file ends early, the reader raises whatever comes.
    with contextlib.suppress(Exception):
        yield from StreamReader(source, emit_chunks=True).records


def _write_metadata(folder: Path, files: list[Path]) -> None:
    parts: list[dict[str, Any]] = []
    topics: dict[tuple[str, str], dict[str, Any]] = {}
    for file in files:
        with Reader(file) as reader:
            start_ns, end_ns = reader.start_time, max(reader.end_time - 1, 0)
            parts.append(
                {
                    "path": file.name,
                    "starting_time": {"nanoseconds_since_epoch": start_ns},
                    "duration": {"nanoseconds": max(0, end_ns - start_ns)},
                    "message_count": reader.message_count,
                }
            )
            for connection in reader.connections:
                extension: Any = connection.ext
                entry = topics.setdefault(
                    (connection.topic, connection.msgtype),
                    {
                        "topic_metadata": {
                            "name": connection.topic,
                            "type": connection.msgtype,
                            "serialization_format": extension.serialization_format,
                            "offered_qos_profiles": dump_qos_v9(extension.offered_qos_profiles),
                            "type_description_hash": connection.digest,
                        },
                        "message_count": 0,
                    },
                )
                entry["message_count"] += connection.msgcount

    def start_of(part: dict[str, Any]) -> int:
        return int(part["starting_time"]["nanoseconds_since_epoch"])

    def end_of(part: dict[str, Any]) -> int:
        return start_of(part) + int(part["duration"]["nanoseconds"])

    parts.sort(key=start_of)
    filled = [part for part in parts if part["message_count"]] or parts[:1]
    start_ns = min(map(start_of, filled))
    information = {
        "version": 9,
        "storage_identifier": SUFFIXES[files[0].suffix],
        "relative_file_paths": [part["path"] for part in parts],
        "duration": {"nanoseconds": max(map(end_of, filled)) - start_ns},
        "starting_time": {"nanoseconds_since_epoch": start_ns},
        "message_count": sum(part["message_count"] for part in parts),
        "topics_with_message_count": list(topics.values()),
        "compression_format": "",
        "compression_mode": "",
        "files": parts,
        "custom_data": None,
        "ros_distro": "rosbags",
    }
    written = folder / "metadata.yaml.tmp"
    written.write_text(
        yaml.safe_dump({"rosbag2_bagfile_information": information}, sort_keys=False), "utf-8"
    )
    written.replace(folder / "metadata.yaml")
