"""The order and reading back of a webcam's settings, over a stand-in for cv2.VideoCapture."""

import time
from typing import ClassVar

import cv2
import numpy as np
import pytest
from camera_drivers.camera_config import CameraConfig, Controls
from camera_drivers.image_source import BadFrameError, SourceError
from camera_drivers.v4l2_source import V4l2Source


class Webcam:
    """Behaves like a UVC camera: offers 640x480, refuses manual values in automatic mode."""

    present = True
    instances: ClassVar[list] = []

    def __init__(self, location, backend):
        assert backend == cv2.CAP_V4L2
        self.properties = {
            cv2.CAP_PROP_FRAME_WIDTH: 1280.0,
            cv2.CAP_PROP_FRAME_HEIGHT: 720.0,
            cv2.CAP_PROP_FPS: 10.0,
            cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter.fourcc(*"YUYV")),
            cv2.CAP_PROP_AUTO_EXPOSURE: 3.0,
            cv2.CAP_PROP_EXPOSURE: 250.0,
            cv2.CAP_PROP_AUTO_WB: 1.0,
            cv2.CAP_PROP_WB_TEMPERATURE: 4000.0,
            cv2.CAP_PROP_GAIN: 10.0,
        }
        self.timestamp_s = 0.0
        Webcam.instances.append(self)

    def isOpened(self):
        return Webcam.present

    def get(self, key):
        if key == cv2.CAP_PROP_POS_MSEC:
            return self.timestamp_s * 1000.0
        return self.properties.get(key, 0.0)

    def set(self, key, value):
        now = self.properties
        if key not in now:
            return False
        if key == cv2.CAP_PROP_EXPOSURE and now[cv2.CAP_PROP_AUTO_EXPOSURE] != 1.0:
            return False
        if key == cv2.CAP_PROP_WB_TEMPERATURE and now[cv2.CAP_PROP_AUTO_WB] != 0.0:
            return False
        if key == cv2.CAP_PROP_FRAME_WIDTH:
            value = min(value, 640)
        if key == cv2.CAP_PROP_FRAME_HEIGHT:
            value = min(value, 480)
        if key == cv2.CAP_PROP_FPS and now[cv2.CAP_PROP_FOURCC] != cv2.VideoWriter.fourcc(*"MJPG"):
            value = 10.0
        now[key] = float(value)
        return True

    def grab(self):
        return Webcam.present

    def retrieve(self):
        return True, np.zeros((480, 640, 3), np.uint8)

    def release(self):
        pass


@pytest.fixture(autouse=True)
def webcam(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Webcam)
    monkeypatch.setattr(Webcam, "present", True)
    Webcam.instances.clear()


def test_device_gets_settings_in_an_order_it_accepts():
    controls = Controls(
        exposure_mode="manual",
        exposure_time_us=8000,
        white_balance_mode="manual",
        white_balance_k=5000,
    )
    config = CameraConfig(
        "0",
        image_width=640,
        image_height=480,
        frame_rate_hz=30.0,
        pixel_format="MJPG",
        controls=controls,
    )
    report = V4l2Source(config).open()
    assert report.differences == ()
    assert (report.width, report.height, report.frame_rate_hz) == (640, 480, 30.0)
    assert report.values["exposure_time_us"] == "8000"
    device = Webcam.instances[0].properties
    assert device[cv2.CAP_PROP_EXPOSURE] == 80.0, "V4L2 counts exposure in 100 us"
    assert device[cv2.CAP_PROP_GAIN] == 10.0, "what was not asked for stays"


def test_what_the_device_refuses_or_changes_is_told():
    config = CameraConfig(
        "0",
        image_width=1920,
        image_height=1080,
        frame_rate_hz=30.0,
        controls=Controls(focus_mode="auto"),
    )
    told = "; ".join(V4l2Source(config).open().differences)
    assert "size: asked 1920x1080, got 640x480" in told
    assert "rate: asked 30 Hz, got 10 Hz" in told
    assert "does not take focus_mode" in told


def test_new_controls_survive_a_reconnection():
    source = V4l2Source(CameraConfig("0"))
    source.open()
    source.set_controls(Controls(gain=42))
    source.close()
    assert source.open().values["gain"] == "42"


@pytest.mark.parametrize("clock", [time.monotonic, time.time])
def test_frames_carry_the_kernels_time_of_capture(clock):
    source = V4l2Source(CameraConfig("0"))
    source.open()
    Webcam.instances[0].timestamp_s = clock() - 0.3
    frame = source.read()
    assert frame is not None
    age_s = time.monotonic() - frame.capture_s
    assert 0.3 <= age_s < 0.4


def test_time_of_an_unknown_clock_is_replaced_by_arrival():
    source = V4l2Source(CameraConfig("0", transport_latency_s=0.05))
    source.open()
    Webcam.instances[0].timestamp_s = 12.0
    frame = source.read()
    assert frame is not None
    age_s = time.monotonic() - frame.capture_s
    assert 0.05 <= age_s < 0.15


def test_unplugged_device_is_an_error_worth_retrying(monkeypatch):
    source = V4l2Source(CameraConfig("0"))
    source.open()
    monkeypatch.setattr(Webcam, "present", False)
    with pytest.raises(SourceError, match="plugged in"):
        source.read()
    source.close()
    with pytest.raises(SourceError, match="/dev/video0 cannot be opened"):
        source.open()


def test_stamps_that_stand_still_are_replaced_by_the_time_of_arrival():
    source = V4l2Source(CameraConfig("0"))
    source.open()
    Webcam.instances[0].timestamp_s = time.monotonic() - 0.2
    times_s = []
    for _ in range(4):
        frame = source.read()
        assert frame is not None
        times_s.append(frame.capture_s)
    assert np.all(np.diff(times_s) > 0)
    assert time.monotonic() - times_s[-1] < 0.1


def test_an_image_that_cannot_be_decoded_does_not_lose_the_device(monkeypatch):
    source = V4l2Source(CameraConfig("0"))
    source.open()
    monkeypatch.setattr(Webcam, "retrieve", lambda self: (False, None))
    with pytest.raises(BadFrameError):
        source.read()
    monkeypatch.undo()
    monkeypatch.setattr(cv2, "VideoCapture", Webcam)
    assert source.read() is not None
