"""Network cameras: RTSP, and MJPEG or any other video over HTTP."""

import os
import threading
import time

import cv2
import numpy as np

from camera_drivers.camera_config import CameraConfig, Controls
from camera_drivers.image_scaling import scale_to
from camera_drivers.image_source import Frame, SourceError, SourceReport

# OpenCV takes FFmpeg's options from this variable of the process when it opens a stream.
OPTIONS_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_options_lock = threading.Lock()


class StreamSource:
    """A stream that FFmpeg can open. It has no time of capture: frames carry that of arrival."""

    def __init__(self, config: CameraConfig) -> None:
        self._config = config
        self._capture: cv2.VideoCapture | None = None

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
            # A decoder with N threads holds back N - 1 frames.
            cv2.CAP_PROP_N_THREADS,
            1,
        ]
        with _options_lock:
            before = os.environ.get(OPTIONS_VARIABLE)
            os.environ.setdefault(OPTIONS_VARIABLE, options)
            try:
                capture = cv2.VideoCapture(config.url.location, cv2.CAP_FFMPEG, parameters)
            finally:
                if before is None:
                    del os.environ[OPTIONS_VARIABLE]
        if not capture.isOpened():
            capture.release()
            raise SourceError(
                f"{config.url.label} refused, or said nothing for {config.open_timeout_s:g} s; "
                "check the address, the server, and user name and password"
            )
        self._capture = capture
        rate_hz = float(capture.get(cv2.CAP_PROP_FPS))
        width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        stream_size = f"{width}x{height}"
        width, height = config.size or (width, height)
        return SourceReport(width, height, rate_hz, {"stream_size": stream_size})

    def set_controls(self, controls: Controls) -> SourceReport:
        """Streams have no controls.

        Raises:
            SourceError: always.
        """
        raise SourceError(f"{self._config.url.label} has no controls")

    def read(self) -> Frame | None:
        """Waits for the next image.

        Raises:
            SourceError: the stream ended or gave nothing within `read_timeout_s`.
        """
        if self._capture is None:
            raise SourceError(f"{self._config.url.label} is not open")
        received, image = self._capture.read()
        if not received:
            raise SourceError(
                f"{self._config.url.label} ended or gave no image within "
                f"{self._config.read_timeout_s:g} s"
            )
        arrival_s = time.monotonic()
        image = scale_to(np.asarray(image, dtype=np.uint8), self._config.size)
        return Frame(image, arrival_s - self._config.transport_latency_s)

    def close(self) -> None:
        """Closes the connection."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None
