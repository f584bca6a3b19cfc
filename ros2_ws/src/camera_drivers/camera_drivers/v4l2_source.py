"""USB and built-in cameras through Video4Linux."""

import math
import os
import time
from dataclasses import dataclass

import cv2
import numpy as np

from camera_drivers.camera_config import CameraConfig, Controls
from camera_drivers.image_source import (
    BadFrameError,
    Frame,
    SourceError,
    SourceReport,
    capture_time,
)

# V4L2_CID_EXPOSURE_AUTO: webcams call their automatic mode "aperture priority".
EXPOSURE_MANUAL = 1
EXPOSURE_APERTURE_PRIORITY = 3
# V4L2_CID_EXPOSURE_ABSOLUTE counts in 100 us.
EXPOSURE_UNIT_US = 100


@dataclass(frozen=True)
class _Setting:
    """One property asked of a device; `scale` converts its value to the unit of `parameter`."""

    parameter: str
    property_id: int
    value: float
    scale: float = 1.0


def control_settings(controls: Controls) -> list[_Setting]:
    """What to set, in order: a device refuses a value while its automatic mode is on."""
    settings = []
    if controls.exposure_mode != "device":
        manual = controls.exposure_mode == "manual"
        mode = EXPOSURE_MANUAL if manual else EXPOSURE_APERTURE_PRIORITY
        settings.append(_Setting("exposure_mode", cv2.CAP_PROP_AUTO_EXPOSURE, mode))
        if manual:
            value = round(controls.exposure_time_us / EXPOSURE_UNIT_US)
            settings.append(
                _Setting("exposure_time_us", cv2.CAP_PROP_EXPOSURE, value, EXPOSURE_UNIT_US)
            )
    if controls.gain >= 0:
        settings.append(_Setting("gain", cv2.CAP_PROP_GAIN, controls.gain))
    if controls.white_balance_mode != "device":
        manual = controls.white_balance_mode == "manual"
        settings.append(_Setting("white_balance_mode", cv2.CAP_PROP_AUTO_WB, float(not manual)))
        if manual:
            settings.append(
                _Setting("white_balance_k", cv2.CAP_PROP_WB_TEMPERATURE, controls.white_balance_k)
            )
    if controls.focus_mode != "device":
        manual = controls.focus_mode == "manual"
        settings.append(_Setting("focus_mode", cv2.CAP_PROP_AUTOFOCUS, float(not manual)))
        if manual:
            settings.append(_Setting("focus_position", cv2.CAP_PROP_FOCUS, controls.focus_position))
    return settings


class V4l2Source:
    """A Video4Linux capture device."""

    def __init__(self, config: CameraConfig) -> None:
        self._config = config
        self._controls = config.controls
        self._capture: cv2.VideoCapture | None = None
        self._device_s = math.nan

    def open(self) -> SourceReport:
        """Opens the device, asks for format, size, rate and controls, and reads them back.

        Raises:
            SourceError: the device is absent, busy, or gives no images.
        """
        config = self._config
        # OpenCV reads this whole number of seconds when it opens a device.
        os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] = str(max(1, round(config.read_timeout_s)))
        capture = cv2.VideoCapture(config.url.location, cv2.CAP_V4L2)
        if not capture.isOpened():
            capture.release()
            raise SourceError(
                f"{config.url.location} cannot be opened: absent, in use by another program, "
                "or not permitted (the user must be in the group 'video')"
            )
        self._capture = capture
        # The pixel format decides which sizes exist, the size which rates.
        if config.pixel_format:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*config.pixel_format))
        if config.size:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, config.image_width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, config.image_height)
        if config.frame_rate_hz:
            capture.set(cv2.CAP_PROP_FPS, config.frame_rate_hz)
        return self._apply(self._controls)

    def set_controls(self, controls: Controls) -> SourceReport:
        """Applies the controls to the open device and reads all settings back."""
        return self._apply(controls)

    def _apply(self, controls: Controls) -> SourceReport:
        capture, config = self._opened(), self._config
        self._controls = controls
        differences = []
        values = {}
        for setting in control_settings(controls):
            accepted = capture.set(setting.property_id, setting.value)
            given = capture.get(setting.property_id)
            values[setting.parameter] = f"{given * setting.scale:g}"
            if not accepted:
                differences.append(f"the device does not take {setting.parameter}")
            elif given != setting.value:
                differences.append(
                    f"{setting.parameter}: asked {setting.value * setting.scale:g}, "
                    f"got {given * setting.scale:g}"
                )
        width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        rate_hz = float(capture.get(cv2.CAP_PROP_FPS))
        code = int(capture.get(cv2.CAP_PROP_FOURCC))
        pixel_format = code.to_bytes(4, "little", signed=False).decode("ascii", "replace").strip()
        values["pixel_format"] = pixel_format
        if config.size and config.size != (width, height):
            differences.append(
                f"size: asked {config.image_width}x{config.image_height}, got {width}x{height}"
            )
        if config.frame_rate_hz and abs(config.frame_rate_hz - rate_hz) > 0.5:
            differences.append(f"rate: asked {config.frame_rate_hz:g} Hz, got {rate_hz:g} Hz")
        if config.pixel_format and config.pixel_format != pixel_format:
            differences.append(f"pixel_format: asked {config.pixel_format}, got {pixel_format}")
        return SourceReport(width, height, rate_hz, values, tuple(differences))

    def read(self) -> Frame | None:
        """Waits for the next image.

        Raises:
            BadFrameError: it cannot be decoded.
            SourceError: none came within the time limit.
        """
        capture = self._opened()
        started_s = time.monotonic()
        if not capture.grab():
            raise SourceError(
                f"{self._config.url.location} gave no image for "
                f"{time.monotonic() - started_s:.1f} s; is it still plugged in?"
            )
        # After a grab this property is the kernel's time stamp of the buffer.
        device_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
        # Some devices repeat a stamp: it is no time of capture then.
        stands, self._device_s = device_s == self._device_s, device_s
        capture_s = capture_time(math.nan if stands else device_s, self._config.transport_latency_s)
        decoded, image = capture.retrieve()
        if not decoded:
            raise BadFrameError("an image cannot be decoded")
        return Frame(np.asarray(image, dtype=np.uint8), capture_s)

    def close(self) -> None:
        """Releases the device."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _opened(self) -> cv2.VideoCapture:
        if self._capture is None:
            raise SourceError(f"{self._config.url.location} is not open")
        return self._capture
