"""The RealSense source over the real SDK, which plays a recording of a software camera."""

import time

import numpy as np
import pytest
from camera_drivers.camera_config import CameraConfig, Controls
from camera_drivers.image_source import SourceError
from camera_drivers.realsense_source import RealSenseSource

rs = pytest.importorskip("pyrealsense2", reason="needs pyrealsense2")

WIDTH, HEIGHT, FRAMES = 320, 240, 20


def record(path):
    intrinsics = rs.intrinsics()
    intrinsics.width, intrinsics.height = WIDTH, HEIGHT
    intrinsics.fx, intrinsics.fy, intrinsics.ppx, intrinsics.ppy = 300.0, 301.0, 160.0, 120.0
    intrinsics.model = rs.distortion.inverse_brown_conrady
    intrinsics.coeffs = [0.1, 0.0, 0.0, 0.0, 0.0]
    stream = rs.video_stream()
    stream.type, stream.fmt, stream.index, stream.uid = rs.stream.color, rs.format.bgr8, 0, 0
    stream.width, stream.height, stream.fps, stream.bpp = WIDTH, HEIGHT, 30, 3
    stream.intrinsics = intrinsics
    camera = rs.software_device()
    sensor = camera.add_sensor("RGB Camera")
    profile = sensor.add_video_stream(stream, True)
    camera.register_info(rs.camera_info.serial_number, "123")
    camera.register_info(rs.camera_info.name, "software camera")
    recorder = rs.recorder(str(path), camera)
    recorded = recorder.query_sensors()[0]
    recorded.open(recorded.get_stream_profiles()[0])
    recorded.start(lambda frame: None)
    for count in range(1, FRAMES + 1):
        frame = rs.software_video_frame()
        frame.pixels = np.full((HEIGHT, WIDTH, 3), (count, 2 * count, 255), np.uint8)
        frame.stride, frame.bpp = WIDTH * 3, 3
        frame.timestamp, frame.domain = time.time() * 1e3, rs.timestamp_domain.system_time
        frame.frame_number, frame.profile = count, profile.as_video_stream_profile()
        sensor.on_video_frame(frame)
        time.sleep(1 / 30)  # the recorder stamps frames when they come
    recorded.stop()
    recorded.close()


def test_recorded_camera_is_played_with_its_own_calibration(tmp_path):
    path = tmp_path / "camera.db3"
    record(path)
    context = rs.context()
    recording = context.load_device(str(path))  # found only as long as it is referred to
    assert recording is not None
    config = CameraConfig(
        "realsense://123",
        image_width=WIDTH,
        image_height=HEIGHT,
        frame_rate_hz=30.0,
        read_timeout_s=1.0,
    )
    source = RealSenseSource(config, context)
    report = source.open()
    assert (report.width, report.height, report.frame_rate_hz) == (WIDTH, HEIGHT, 30.0)
    assert report.calibration is not None
    assert report.calibration.camera_matrix[1, 1] == 301.0
    assert report.calibration.distortion[0] == pytest.approx(0.1)
    frames = [source.read() for _ in range(5)]
    first = [frame.image[0, 0].tolist() for frame in frames if frame is not None]
    assert first == [[count, 2 * count, 255] for count in range(first[0][0], first[0][0] + 5)]
    assert all(0.0 <= time.monotonic() - f.capture_s < 5.0 for f in frames if f is not None)
    assert source.set_controls(Controls(gain=5)).differences == ("the device does not take gain",)
    source.close()
    with pytest.raises(SourceError, match="not open"):
        source.read()


def test_absent_camera_is_an_error_worth_retrying():
    with pytest.raises(SourceError, match="realsense://404"):
        RealSenseSource(CameraConfig("realsense://404")).open()
