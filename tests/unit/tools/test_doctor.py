"""What `./run doctor` tells of shared memory."""

import fcntl
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))

from doctor import MANY_SEGMENTS, fast_dds_segments


def _make_segments(folder, count):
    for number in range(count):
        (folder / f"fastdds_{number:016x}").write_bytes(bytes(500_000))
        (folder / f"fastdds_{number:016x}_el").touch()


def test_only_what_killed_nodes_left_is_counted(tmp_path):
    assert fast_dds_segments(tmp_path) == "0 segments of killed nodes, 0 MB"
    _make_segments(tmp_path, 5)
    with (tmp_path / f"fastdds_{3:016x}_el").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert fast_dds_segments(tmp_path) == "4 segments of killed nodes, 2 MB"
    assert fast_dds_segments(tmp_path).startswith("5 segments")


def test_many_come_with_advice(tmp_path):
    for number in range(MANY_SEGMENTS + 1):
        (tmp_path / f"fastdds_{number:016x}_el").touch()
    assert "rm /dev/shm/fastdds_*" in fast_dds_segments(tmp_path)
