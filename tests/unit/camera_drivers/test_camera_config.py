"""Which settings fit together, and which source a string names."""

import pytest
from camera_drivers.camera_config import CameraConfig, ConfigError, Controls
from camera_drivers.source_url import SourceKind, parse_source


def test_source_strings(tmp_path):
    video = tmp_path / "drive 1.mp4"
    video.touch()
    expected = {
        "0": (SourceKind.V4L2, "/dev/video0"),
        "/dev/v4l/by-id/usb-046d_C920": (SourceKind.V4L2, "/dev/v4l/by-id/usb-046d_C920"),
        "v4l2:///dev/video2": (SourceKind.V4L2, "/dev/video2"),
        "rtsp://10.0.0.4/live": (SourceKind.STREAM, "rtsp://10.0.0.4/live"),
        "http://cam.local:81/stream": (SourceKind.STREAM, "http://cam.local:81/stream"),
        "realsense://": (SourceKind.REALSENSE, ""),
        "realsense://0123456": (SourceKind.REALSENSE, "0123456"),
        str(video): (SourceKind.VIDEO_FILE, str(video)),
        video.as_uri(): (SourceKind.VIDEO_FILE, str(video)),
        str(tmp_path): (SourceKind.IMAGE_FOLDER, str(tmp_path)),
    }
    for text, (kind, location) in expected.items():
        url = parse_source(text)
        assert (url.kind, url.location) == (kind, location), text


@pytest.mark.parametrize("text", ["", "/no/such/file.mp4", "ftp://host/a", "rtsp:///live"])
def test_other_source_strings_are_refused(text):
    with pytest.raises(ValueError, match="expected"):
        parse_source(text)


def test_label_shows_no_password():
    url = parse_source("rtsp://admin:secret@10.0.0.4:554/live?token=secret")
    assert url.label == "rtsp://10.0.0.4:554/live"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"source": "0", "image_width": 640}, "image_height"),
        ({"source": "0", "rotation_deg": 45}, "rotation_deg"),
        ({"source": "0", "pixel_format": "MJPEG"}, "pixel_format"),
        ({"source": "http://host/", "pixel_format": "MJPG"}, "pixel_format"),
        ({"source": "http://host/", "frame_rate_hz": 30.0}, "frame_rate_hz"),
        ({"source": "/tmp", "frame_rate_hz": 0.0}, "frame_rate_hz"),
        ({"source": "rtsp://host/", "rtsp_transport": "sctp"}, "rtsp_transport"),
        ({"source": "0", "reconnect_initial_s": 5.0, "reconnect_max_s": 1.0}, "reconnect_max_s"),
        ({"source": "/tmp", "frame_rate_hz": 5.0, "transport_latency_s": 0.1}, "latency"),
        ({"source": "http://host/", "controls": Controls(gain=3)}, "gain"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, name):
    with pytest.raises(ConfigError, match=name):
        CameraConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"exposure_mode": "manual"},
        {"exposure_time_us": 8000},
        {"exposure_mode": "auto", "exposure_time_us": 8000},
        {"white_balance_mode": "warm"},
        {"focus_mode": "manual"},
    ],
)
def test_controls_that_contradict_each_other_are_refused(settings):
    with pytest.raises(ConfigError, match="_mode is"):
        Controls(**settings)
