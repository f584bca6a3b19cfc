"""What FFmpeg reads of a stream or a file, image by image."""

import math
import time

import cv2
import numpy as np
from node_common.image_conversion import ImageConverter, ImageError
from numpy.typing import NDArray

from camera_drivers.image_source import BadFrameError

# At the end each attempt to read fails at once, where a packet that cannot be decoded fails alone.
END_ATTEMPTS = 10
AT_ONCE_S = 0.005
# FFmpeg gives up a little before or after the time that it was told.
TIMED_OUT_FRACTION = 0.9
_MOTION_JPEG = cv2.VideoWriter.fourcc(*"MJPG")


class VideoCapture:
    """An opened stream or file.

    FFmpeg gives half an image where the rest of a JPEG is missing. The JPEGs of a stream or file
    are therefore taken as they are and decoded here, whole or not at all.
    """

    def __init__(self, location: str, parameters: list[int], timeout_s: float = math.inf) -> None:
        """Opens it.

        Args:
            location: URL or path.
            parameters: of cv2.VideoCapture, in pairs.
            timeout_s: that `parameters` set for reading.
        """
        # A decoder with N threads holds back N - 1 frames.
        parameters = [*parameters, cv2.CAP_PROP_N_THREADS, 1]
        self._capture = cv2.VideoCapture(location, cv2.CAP_FFMPEG, parameters)
        self._converter = ImageConverter()
        self._timeout_s = timeout_s
        self._held: NDArray[np.uint8] | None = None
        is_motion_jpeg = int(self._capture.get(cv2.CAP_PROP_FOURCC)) == _MOTION_JPEG
        self._gives_jpeg = is_motion_jpeg and self._capture.set(cv2.CAP_PROP_FORMAT, -1)

    @property
    def is_open(self) -> bool:
        """Whether there is a video to read."""
        return bool(self._capture.isOpened())

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) [px]."""
        properties = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT
        width, height = (int(self._capture.get(number)) for number in properties)
        return width, height

    @property
    def rate_hz(self) -> float:
        """Average rate; 0 or less where it is unknown."""
        return float(self._capture.get(cv2.CAP_PROP_FPS))

    @property
    def stamp_s(self) -> float:
        """Time of the image read last since the start of the video [s]."""
        return float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000.0

    def read(self) -> NDArray[np.uint8] | None:
        """Reads the next image, blue-green-red; None: there is none.

        Raises:
            BadFrameError: it cannot be decoded.
            TimeoutError: nothing came for the time-out.
        """
        image, self._held = self._held, None
        if image is None:
            image, failures = self._next()
            if failures:
                self._held = image
                raise BadFrameError("an image cannot be decoded", failures)
        if image is None or not self._gives_jpeg:
            return image
        try:
            return self._converter.decode(image, "bgr")
        except ImageError as error:
            raise BadFrameError(f"an image cannot be decoded: {error}") from None

    def _next(self) -> tuple[NDArray[np.uint8] | None, int]:
        """What comes next, and how many frames failed before it, or failed alone."""
        failures = waits = at_once = 0
        while at_once < END_ATTEMPTS:
            started_s = time.monotonic()
            received, image = self._capture.read()
            if received:
                return np.asarray(image, np.uint8), failures
            waited_s = time.monotonic() - started_s
            if waited_s > TIMED_OUT_FRACTION * self._timeout_s:
                raise TimeoutError(f"gave no image for {waited_s:.1f} s")
            failures += 1
            waits += waited_s > AT_ONCE_S
            at_once = 0 if waited_s > AT_ONCE_S else at_once + 1
            # The end may be waited for once.
            if waits > 1:
                return None, failures
        return None, 0

    def close(self) -> None:
        """Closes the connection or file."""
        self._capture.release()
