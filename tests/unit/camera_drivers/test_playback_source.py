"""Video files and image folders."""

import contextlib
import threading
import time

import cv2
import numpy as np
import pytest
from camera_drivers.camera_config import CameraConfig
from camera_drivers.image_source import BadFrameError, SourceError
from camera_drivers.source_factory import make_source

LEVELS = (20, 60, 100, 140, 180, 220)


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "levels.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 200.0, (32, 24))
    for level in LEVELS:
        writer.write(np.full((24, 32, 3), level, np.uint8))
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    for index, level in enumerate(LEVELS):
        cv2.imwrite(str(path / f"frame_{index + 7}.png"), np.full((24, 32, 3), level, np.uint8))
    (path / "frame_9.png").write_bytes(b"not a picture")
    (path / "notes.txt").write_text("not a picture either")
    return path


def next_frame(source):
    """The next frame that can be decoded."""
    while True:
        with contextlib.suppress(BadFrameError):
            return source.read()


def read(source):
    frame = next_frame(source)
    assert frame is not None
    return frame


def levels_of(source, count):
    source.open()
    frames = [next_frame(source) for _ in range(count)]
    source.close()
    return [None if frame is None else round(float(frame.image.mean())) for frame in frames]


def test_video_ends_or_starts_again(video):
    once = make_source(CameraConfig(str(video), loop=False), threading.Event())
    assert levels_of(once, 7) == pytest.approx([*LEVELS, None], abs=2)
    again = make_source(CameraConfig(str(video), loop=True), threading.Event())
    assert levels_of(again, 13) == pytest.approx([*LEVELS, *LEVELS, LEVELS[0]], abs=2)


def test_folder_is_played_in_natural_order_without_unreadable_files(folder):
    config = CameraConfig(str(folder), frame_rate_hz=500.0)
    readable = [level for index, level in enumerate(LEVELS) if index != 2]
    assert levels_of(make_source(config, threading.Event()), 6) == [*readable, readable[0]]


def test_capture_times_keep_the_asked_rate(folder):
    source = make_source(CameraConfig(str(folder), frame_rate_hz=100.0), threading.Event())
    source.open()
    times_s = [read(source).capture_s for _ in range(20)]
    assert np.median(np.diff(times_s)) == pytest.approx(0.01)
    assert 0.0 <= time.monotonic() - times_s[-1] < 1.0


def test_frames_are_scaled_to_the_asked_size(video):
    config = CameraConfig(str(video), image_width=16, image_height=8)
    source = make_source(config, threading.Event())
    report = source.open()
    assert (report.width, report.height) == (16, 8)
    assert read(source).image.shape == (8, 16, 3)


def test_stop_ends_a_long_wait(folder):
    stop = threading.Event()
    source = make_source(CameraConfig(str(folder), frame_rate_hz=0.01), stop)
    source.open()
    assert source.read() is not None
    threading.Timer(0.05, stop.set).start()
    assert source.read() is None


def test_recording_that_cannot_be_played_names_the_path(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00" * 2000)
    with pytest.raises(SourceError, match=r"broken\.mp4"):
        make_source(CameraConfig(str(broken)), threading.Event()).open()
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceError, match="empty"):
        make_source(CameraConfig(str(empty), frame_rate_hz=5.0), threading.Event()).open()
    (empty / "a.png").write_bytes(b"not a picture")
    source = make_source(CameraConfig(str(empty), frame_rate_hz=5.0), threading.Event())
    source.open()
    with pytest.raises(BadFrameError, match=r"a\.png"):
        source.read()
    with pytest.raises(SourceError, match="no readable image"):
        source.read()


def find_box(content, path):
    """(start, size) of each box of an MP4's `path`."""
    found, start, end = [], 0, len(content)
    for name in path:
        while bytes(content[start + 4 : start + 8]) != name:
            start += int.from_bytes(content[start : start + 4], "big")
            assert start < end, name
        size = int.from_bytes(content[start : start + 4], "big")
        found.append((start, size))
        start, end = start + 8, start + size
    return found


def write_variable_rate(path, durations_s):
    """An MP4 as phones write it: each frame has its own duration."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, (64, 48))
    for number in range(len(durations_s)):
        writer.write(np.full((48, 64, 3), 10 + 4 * number, np.uint8))
    writer.release()
    content = bytearray(path.read_bytes())
    media = find_box(content, [b"moov", b"trak", b"mdia", b"mdhd"])[-1][0]
    timescale = int.from_bytes(content[media + 20 : media + 24], "big")
    # The edit list tells the length at the steady rate.
    edits = find_box(content, [b"moov", b"trak", b"edts"])[-1][0]
    content[edits + 4 : edits + 8] = b"free"
    chain = find_box(content, [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"])
    start, size = chain[-1]
    table = b"stts" + bytes(4) + len(durations_s).to_bytes(4, "big")
    for duration_s in durations_s:
        table += (1).to_bytes(4, "big") + round(duration_s * timescale).to_bytes(4, "big")
    table = (len(table) + 4).to_bytes(4, "big") + table
    content[start : start + size] = table
    for parent, parent_size in chain[:-1]:
        content[parent : parent + 4] = (parent_size + len(table) - size).to_bytes(4, "big")
    path.write_bytes(content)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_video_of_variable_rate_is_played_by_its_own_time_stamps(tmp_path, seed):
    random = np.random.default_rng(seed)
    durations_s = [*random.uniform(0.01, 0.02, 6), *random.uniform(0.06, 0.1, 4), 0.3, 0.02, 0.02]
    path = tmp_path / "phone.mp4"
    write_variable_rate(path, durations_s)
    source = make_source(CameraConfig(str(path), loop=False), threading.Event())
    report = source.open()
    assert not report.is_rate_steady
    started_s = time.monotonic()
    times_s = [read(source).capture_s for _ in durations_s]
    assert next_frame(source) is None
    gaps_s = np.diff(times_s)
    # A frame that the machine was late for shifts those behind it.
    late = gaps_s - durations_s[:-1] > 0.002
    np.testing.assert_allclose(gaps_s[~late], np.array(durations_s[:-1])[~late], atol=0.002)
    assert np.count_nonzero(~late) >= 8
    assert sum(durations_s[:-1]) - 0.01 < time.monotonic() - started_s < sum(durations_s) + 1.0
    source.close()
    steady = make_source(CameraConfig(str(path), frame_rate_hz=200.0), threading.Event())
    assert steady.open().is_rate_steady
    times_s = [read(steady).capture_s for _ in range(10)]
    assert np.median(np.diff(times_s)) == pytest.approx(0.005)
