#!/bin/bash
# What a process leaves of a bag when it is killed while it writes with rosbags' Writer.
#
# Seen with rosbags 0.11.9: nothing reaches an SQLite file before close() (all messages are one
# transaction), and nothing an MCAP file before 1 MiB of them is there (it is empty), however long
# ago they were written. Reader refuses what is left of the MCAP file.
# A recorder must flush by itself: storage.conn.commit(), or storage.close_chunk() and bio.flush().
#
# Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rosbags==0.11.9 mcap==1.6.0
cd "$folder"
cat > write.py <<'PYTHON'
import os, signal, sys
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

types = get_typestore(Stores.ROS2_KILTED)
writer = Writer(sys.argv[1], version=9, storage_plugin=StoragePlugin[sys.argv[1].upper()])
writer.open()
topic = writer.add_connection("/text", "std_msgs/msg/String", typestore=types)
for index in range(1000):
    message = types.types["std_msgs/msg/String"](data=f"message {index}")
    writer.write(topic, index * 10**8, types.serialize_cdr(message, "std_msgs/msg/String"))
print(f"{sys.argv[1]}: 1000 messages written over 100 s of bag time, now killed", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
PYTHON
cat > look.py <<'PYTHON'
import importlib.metadata, sqlite3, sys
from pathlib import Path
from mcap.records import Message
from mcap.stream_reader import StreamReader
from rosbags.rosbag2 import Reader

print("rosbags", importlib.metadata.version("rosbags"))
rows = sqlite3.connect("sqlite3/sqlite3.db3").execute("SELECT count(*) FROM messages").fetchone()[0]
file = Path("mcap/mcap.mcap")
found, refused = 0, ""
try:
    with file.open("rb") as stream:
        found = sum(isinstance(record, Message) for record in StreamReader(stream).records)
except Exception as error:
    print("mcap's StreamReader ends with", type(error).__name__)
try:
    with Reader(file):
        pass
except Exception as error:
    refused = str(error) or repr(error)
print(f"SQLite: {rows} messages; MCAP: {found} messages in {file.stat().st_size} bytes, {refused!r}")
sys.exit(not (rows == 0 and found == 0 and refused))
PYTHON
for storage in sqlite3 mcap; do
    "$folder/venv/bin/python" write.py "$storage" || true
done
"$folder/venv/bin/python" look.py
