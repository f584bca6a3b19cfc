"""Video files and image folders."""

import threading
import time

import cv2
import numpy as np
import pytest
from camera_drivers.camera_config import CameraConfig
from camera_drivers.image_source import SourceError
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


def read(source):
    frame = source.read()
    assert frame is not None
    return frame


def levels_of(source, count):
    source.open()
    frames = [source.read() for _ in range(count)]
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
    with pytest.raises(SourceError, match="no readable image"):
        source.read()
