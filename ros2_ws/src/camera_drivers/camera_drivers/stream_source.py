"""Network cameras: RTSP, and MJPEG or any other video over HTTP."""

import os
import threading
import time

import cv2

from camera_drivers.camera_config import CameraConfig, Controls
from camera_drivers.image_scaling import scale_to
from camera_drivers.image_source import Frame, SourceError, SourceReport
from camera_drivers.video_capture import VideoCapture

# OpenCV takes FFmpeg's options from this variable of the process when it opens a stream.
OPTIONS_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_options_lock = threading.Lock()


class StreamSource:
    """A stream that FFmpeg can open. It has no time of capture: frames carry that of arrival."""

    def __init__(self, config: CameraConfig) -> None:
        self._config = config
        self._capture: VideoCapture | None = None

    def open(self) -> SourceReport:
        """Connects to the server.

        Raises:
            SourceError: no connection within `open_timeout_s`, or no video in the stream.
        """
        config = self._config
        # Without these FFmpeg collects frames for seconds before it gives the first.
        options = f"rtsp_transport;{config.rtsp_transport}|fflags;nobuffer|flags;low_delay"
        parameters = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            int(config.open_timeout_s * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            int(config.read_timeout_s * 1000),
        ]
        with _options_lock:
            before = os.environ.get(OPTIONS_VARIABLE)
            os.environ.setdefault(OPTIONS_VARIABLE, options)
            try:
                capture = VideoCapture(config.url.location, parameters, config.read_timeout_s)
            finally:
                if before is None:
                    del os.environ[OPTIONS_VARIABLE]
        if not capture.is_open:
            capture.close()
            raise SourceError(
                f"{config.url.label} refused, or said nothing for {config.open_timeout_s:g} s; "
                "check the address, the server, and user name and password"
            )
        self._capture = capture
        width, height = capture.size
        values = {"stream_size": f"{width}x{height}"}
        width, height = config.size or (width, height)
        return SourceReport(width, height, capture.rate_hz, values)

    def set_controls(self, controls: Controls) -> SourceReport:
        """Streams have no controls.

        Raises:
            SourceError: always.
        """
        raise SourceError(f"{self._config.url.label} has no controls")

    def read(self) -> Frame | None:
        """Waits for the next image.

        Raises:
            BadFrameError: a frame cannot be decoded.
            SourceError: the stream ended or gave nothing within `read_timeout_s`.
        """
        if self._capture is None:
            raise SourceError(f"{self._config.url.label} is not open")
        try:
            image = self._capture.read()
        except TimeoutError as error:
            raise SourceError(f"{self._config.url.label} {error}") from None
        if image is None:
            raise SourceError(f"{self._config.url.label}: the server ended the stream")
        arrival_s = time.monotonic()
        image = scale_to(image, self._config.size)
        return Frame(image, arrival_s - self._config.transport_latency_s)

    def close(self) -> None:
        """Closes the connection."""
        if self._capture is not None:
            self._capture.close()
            self._capture = None
