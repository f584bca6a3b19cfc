"""Bags whose recorder was killed, and folders without metadata.yaml."""

import argparse
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from ros2_wheels import bag_command
from ros2_wheels.bag_command import open_bag
from ros2_wheels.bag_reindexing import reindex
from ros2_wheels.main import CommandError
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_KILTED)
STRING = "std_msgs/msg/String"
WRITER = """
import itertools, sys
from pathlib import Path
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from ros2_wheels.bag_recording import flush

types = get_typestore(Stores.ROS2_KILTED)
storage = sys.argv[2].removesuffix("-wal")
writer = Writer(Path(sys.argv[1]), version=9, storage_plugin=StoragePlugin[storage.upper()])
writer.open()
if storage != sys.argv[2]:
    writer.storage.conn.execute("PRAGMA journal_mode = WAL")
topic = writer.add_connection("/text", "std_msgs/msg/String", typestore=types)
text = types.types["std_msgs/msg/String"]
try:
    for index in itertools.count():
        message = text(data=f"{index} " + "x" * (index * 7919 % 60_000))
        data = types.serialize_cdr(message, "std_msgs/msg/String")
        writer.write(topic, 1_000_000 * index, data)
        if index % 7 == 6:
            flush(writer)
            print(index, flush=True)
except Exception as error:
    print(error, file=sys.stderr)
    writer.abort()
"""


def call(run, path, **options):
    run(argparse.Namespace(bag_path=str(path), storage=None, **options))


def texts(path):
    with open_bag(str(path)) as reader:
        return [
            TYPES.deserialize_cdr(data, STRING).data.split()[0] for _, _, data in reader.messages()
        ]


def write(path, storage, indices, close=True):
    writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
    writer.open()
    topic = writer.add_connection("/text", STRING, typestore=TYPES)
    for index in indices:
        message = TYPES.types[STRING](data=f"{index} text")
        writer.write(topic, 1_000_000 * index, TYPES.serialize_cdr(message, STRING))
    if close:
        writer.close()
    return path


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("storage", ["mcap", "sqlite3", "sqlite3-wal"])
def test_what_was_flushed_survives_a_kill_at_any_moment(tmp_path, storage, seed):
    bag = tmp_path / "bag"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(bag), storage], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    flushed = int(process.stdout.readline())
    time.sleep(random.Random(seed).uniform(0.0, 0.25))
    process.kill()
    flushed = max([flushed, *map(int, process.stdout.read().split())])
    process.wait()
    call(reindex, bag)
    found = texts(bag)
    assert found == [str(index) for index in range(len(found))]
    assert len(found) > flushed
    call(bag_command.print_info, bag)
    metadata = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert metadata["message_count"] == len(found)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_full_disk_leaves_what_was_flushed(tmp_path, storage):
    limit = 2_000_000
    writing = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path / "bag"), storage],
        capture_output=True,
        text=True,
        timeout=60.0,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert writing.returncode == 0 and writing.stderr
    flushed = int(writing.stdout.split()[-1])
    call(reindex, tmp_path / "bag")
    assert len(texts(tmp_path / "bag")) > flushed > 20


def test_a_cut_or_damaged_file_keeps_its_whole_chunks(tmp_path, capsys):
    bag = tmp_path / "bag"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(bag), "mcap"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while int(process.stdout.readline()) < 200:
        pass
    process.kill()
    process.wait()
    file = bag / "bag.mcap"
    content = file.read_bytes()
    for part in (0.3, 0.6, 0.95):
        file.write_bytes(content[: int(part * len(content))])
        with pytest.raises(CommandError, match="ros2 bag reindex"):
            texts(bag)
        call(reindex, bag)
        assert 0.5 * part * 200 < len(texts(bag))
        assert (bag / "bag.mcap.damaged").read_bytes() == content[: int(part * len(content))]
        assert "cannot be read" in capsys.readouterr().err
        complete = file.read_bytes()
        call(reindex, bag)
        assert file.read_bytes() == complete
    file.write_bytes(content[:40])
    with pytest.raises(CommandError, match="found no message"):
        call(reindex, bag)
    assert file.read_bytes() == content[:40]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_metadata_of_a_split_bag_is_made_again(tmp_path, storage):
    suffix = {"mcap": "mcap", "sqlite3": "db3"}[storage]
    bag = tmp_path / "bag"
    bag.mkdir()
    for part, start in enumerate((20, 0, 10)):
        write(tmp_path / f"part_{part}", storage, range(start, start + 10))
        shutil.copy(tmp_path / f"part_{part}" / f"part_{part}.{suffix}", bag)
    with pytest.raises(CommandError, match=r"3 files but no metadata.*reindex"):
        texts(bag)
    call(reindex, bag)
    assert texts(bag) == [str(index) for index in range(30)]
    with Reader(bag) as reader:
        assert reader.message_count == 30 and reader.duration == 29_000_001
        assert [topic.msgcount for topic in reader.connections] == [30]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_one_file_needs_no_metadata(tmp_path, storage, capsys):
    bag = write(tmp_path / "bag", storage, range(5))
    (bag / "metadata.yaml").unlink()
    assert len(texts(bag)) == 5
    call(bag_command.print_info, bag)
    assert "Count: 5" in capsys.readouterr().out


def test_what_is_no_bag_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in (
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "empty", "neither metadata.yaml nor"),
        (write(tmp_path / "open", "mcap", range(3), close=False), "ros2 bag reindex"),
    ):
        with pytest.raises(CommandError, match=message):
            texts(path)
    for name in ("office.bag", "drives/office.bag"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"#ROSBAG V2.0\n")
        for path in {tmp_path / name, (tmp_path / name).parent} - {tmp_path}:
            for run in (texts, lambda path: call(reindex, path)):
                with pytest.raises(CommandError, match=r"ROS 1 bag.*rosbags-convert --src"):
                    run(path)


def test_a_bag_that_is_being_recorded_is_left_alone(tmp_path):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time, sys\nfrom ros2_wheels.bag_recording import _open\n"
            "_open(sys.argv[1], 'mcap')\nprint('open', flush=True)\ntime.sleep(60)",
            str(tmp_path / "bag"),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        with pytest.raises(CommandError, match="is being recorded"):
            call(reindex, tmp_path / "bag")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
