"""The colour camera of an Intel RealSense, where `pyrealsense2` is installed."""

import time
from typing import Any

import numpy as np

from camera_drivers.calibration_file import Calibration
from camera_drivers.camera_config import CameraConfig, Controls
from camera_drivers.image_source import (
    MAX_PLAUSIBLE_AGE_S,
    Frame,
    SourceError,
    SourceReport,
)

# The colour sensor's exposure option counts in 100 us.
EXPOSURE_UNIT_US = 100


def import_realsense() -> Any:
    """The `pyrealsense2` module.

    Raises:
        SourceError: it is not installed.
    """
    try:
        import pyrealsense2
    except ImportError:
        raise SourceError("pyrealsense2 is not installed; run: pip install pyrealsense2") from None
    return pyrealsense2


class RealSenseSource:
    """The colour stream of one RealSense, chosen by serial number or the first one found."""

    def __init__(self, config: CameraConfig, context: Any = None) -> None:
        """Makes a source.

        Args:
            config: the settings.
            context: a `pyrealsense2.context` to find devices in; None: those of this computer.
        """
        self._config = config
        self._controls = config.controls
        self._context = context
        self._pipeline: Any = None
        self._profile: Any = None

    def open(self) -> SourceReport:
        """Starts the colour stream and applies the controls.

        Raises:
            SourceError: no such device, it is busy, or it does not offer this size and rate.
        """
        rs = import_realsense()
        config = self._config
        request = rs.config()
        if config.url.location:
            request.enable_device(config.url.location)
        request.enable_stream(
            rs.stream.color,
            config.image_width,
            config.image_height,
            rs.format.bgr8,
            round(config.frame_rate_hz),
        )
        pipeline = rs.pipeline(self._context) if self._context is not None else rs.pipeline()
        try:
            self._profile = pipeline.start(request)
        except RuntimeError as error:
            raise SourceError(f"{config.url.label} cannot be started: {error}") from None
        self._pipeline = pipeline
        return self.set_controls(self._controls)

    def set_controls(self, controls: Controls) -> SourceReport:
        """Applies the controls to the running camera and reads all settings back.

        Raises:
            SourceError: the camera is gone.
        """
        if self._profile is None:
            raise SourceError(f"{self._config.url.label} is not open")
        self._controls = controls
        stream = self._profile.get_stream(import_realsense().stream.color)
        video = stream.as_video_stream_profile()
        values: dict[str, str] = {}
        differences: list[str] = []
        try:
            device = self._profile.get_device()
            values["device"] = _device_info(device)
            self._set_options(device, controls, values, differences)
        except RuntimeError as error:
            raise SourceError(f"{self._config.url.label} refuses its settings: {error}") from None
        return SourceReport(
            video.width(),
            video.height(),
            float(video.fps()),
            values,
            tuple(differences),
            _calibration(video.get_intrinsics()),
        )

    def _set_options(
        self, device: Any, controls: Controls, values: dict[str, str], differences: list[str]
    ) -> None:
        option = import_realsense().option
        requests: list[tuple[str, Any, float, float]] = []
        if controls.exposure_mode != "device":
            auto = float(controls.exposure_mode == "auto")
            requests.append(("exposure_mode", option.enable_auto_exposure, auto, 1.0))
        if controls.exposure_mode == "manual":
            exposure = round(controls.exposure_time_us / EXPOSURE_UNIT_US)
            requests.append(("exposure_time_us", option.exposure, exposure, EXPOSURE_UNIT_US))
        if controls.gain >= 0:
            requests.append(("gain", option.gain, controls.gain, 1.0))
        if controls.white_balance_mode != "device":
            auto = float(controls.white_balance_mode == "auto")
            requests.append(("white_balance_mode", option.enable_auto_white_balance, auto, 1.0))
        if controls.white_balance_mode == "manual":
            requests.append(("white_balance_k", option.white_balance, controls.white_balance_k, 1))
        if controls.focus_mode != "device":
            differences.append("the device does not take focus_mode")
        if not requests:
            return
        sensor = device.first_color_sensor()
        for name, key, value, scale in requests:
            if not sensor.supports(key):
                differences.append(f"the device does not take {name}")
                continue
            limits = sensor.get_option_range(key)
            sensor.set_option(key, min(max(value, limits.min), limits.max))
            given = sensor.get_option(key)
            values[name] = f"{given * scale:g}"
            if given != value:
                differences.append(f"{name}: asked {value * scale:g}, got {given * scale:g}")

    def read(self) -> Frame | None:
        """Waits for the next image.

        Raises:
            SourceError: none came within `read_timeout_s`.
        """
        if self._pipeline is None:
            raise SourceError(f"{self._config.url.label} is not open")
        try:
            frames = self._pipeline.wait_for_frames(int(self._config.read_timeout_s * 1000))
        except RuntimeError as error:
            raise SourceError(f"{self._config.url.label} gave no image: {error}") from None
        color = frames.get_color_frame()
        if not color:
            raise SourceError(f"{self._config.url.label} gave a set of frames without colour")
        # The SDK reuses the buffer for a later frame.
        image = np.array(np.asanyarray(color.get_data()), dtype=np.uint8)
        return Frame(image, self._capture_time(color))

    def _capture_time(self, color: Any) -> float:
        domain = import_realsense().timestamp_domain
        now_s = time.monotonic()
        # Only these two domains are on the computer's clock; the third is the camera's own.
        if color.get_frame_timestamp_domain() in (domain.system_time, domain.global_time):
            age_s = time.time() - color.get_timestamp() / 1000.0
            if 0.0 <= age_s <= MAX_PLAUSIBLE_AGE_S:
                return now_s - age_s
        return now_s - self._config.transport_latency_s

    def close(self) -> None:
        """Stops the stream."""
        pipeline, self._pipeline, self._profile = self._pipeline, None, None
        if pipeline is not None:
            try:
                pipeline.stop()
            except RuntimeError:
                return  # an unplugged camera cannot be stopped


def _device_info(device: Any) -> str:
    info = import_realsense().camera_info
    keys = (info.name, info.serial_number, info.firmware_version)
    return " ".join(device.get_info(key) for key in keys if device.supports(key))


def _calibration(intrinsics: Any) -> Calibration | None:
    if not (intrinsics.fx > 0 and intrinsics.fy > 0):
        return None
    camera_matrix = np.array(
        [[intrinsics.fx, 0.0, intrinsics.ppx], [0.0, intrinsics.fy, intrinsics.ppy], [0, 0, 1.0]]
    )
    return Calibration(
        camera_name="factory",
        width=intrinsics.width,
        height=intrinsics.height,
        distortion_model="plumb_bob",
        distortion=np.array(intrinsics.coeffs, dtype=np.float64),
        camera_matrix=camera_matrix,
        rectification=np.eye(3),
        projection=np.hstack([camera_matrix, np.zeros((3, 1))]),
    )
