"""Video files, played by their own time stamps or at a steady rate, and image folders."""

import math
import re
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from node_common.image_conversion import ImageConverter, ImageError
from numpy.typing import NDArray

from camera_drivers.camera_config import CameraConfig, Controls
from camera_drivers.image_scaling import scale_to
from camera_drivers.image_source import BadFrameError, Frame, SourceError, SourceReport
from camera_drivers.video_capture import VideoCapture

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})

# A longer gap in the time stamps of a file is an error in them.
MAX_PAUSE_S = 10.0


def natural_order(path: Path) -> tuple[tuple[int, int | str], ...]:
    """Sort key that puts frame_10 behind frame_9."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts)


class Pacer:
    """Waits for one due time after another.

    When it is called more than a period late it starts anew from now: frames come late rather than
    in a burst.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._due_s: float | None = None

    def wait(self, period_s: float) -> float | None:
        """Waits and returns the due time on `time.monotonic` [s]; None when stopped.

        Args:
            period_s: between this due time and the last one.
        """
        now_s = time.monotonic()
        if self._due_s is None or now_s - self._due_s > 2 * period_s:
            self._due_s = now_s
        else:
            self._due_s += period_s
        if self._stop.wait(max(0.0, self._due_s - now_s)):
            return None
        return self._due_s


class _Playback(ABC):
    """What files and folders have in common: pacing and looping over `_next_image`."""

    def __init__(self, config: CameraConfig, stop: threading.Event) -> None:
        self._config = config
        self._stop = stop
        self._pacer = Pacer(stop)
        self._has_image = False

    def read(self) -> Frame | None:
        """Waits until the next image is due. None: the end, or stopped.

        Raises:
            BadFrameError: the next image cannot be decoded.
            SourceError: nothing in the recording can be read.
        """
        image = self._next_image()
        if image is None:
            if not self._has_image:
                raise SourceError(f"{self._config.url.location} has no readable image")
            if not self._config.loop:
                return None
            self._has_image = False
            self._rewind()
            return self.read()
        self._has_image = True
        due_s = self._pacer.wait(self._period_s())
        return None if due_s is None else Frame(scale_to(image, self._config.size), due_s)

    def set_controls(self, controls: Controls) -> SourceReport:
        """Recordings have no controls.

        Raises:
            SourceError: always.
        """
        raise SourceError(f"{self._config.url.location} is a recording and has no controls")

    @abstractmethod
    def _next_image(self) -> NDArray[np.uint8] | None:
        """The next image; None at the end.

        Raises:
            BadFrameError: it cannot be decoded.
        """

    @abstractmethod
    def _period_s(self) -> float:
        """The time between the image read last and the one before."""

    @abstractmethod
    def _rewind(self) -> None:
        """Goes back to the first image."""


class VideoFileSource(_Playback):
    """A video file that FFmpeg can decode."""

    def __init__(self, config: CameraConfig, stop: threading.Event) -> None:
        super().__init__(config, stop)
        self._capture: VideoCapture | None = None
        self._nominal_s = 0.0
        self._stamp_s: float | None = None

    def open(self) -> SourceReport:
        """Opens the file.

        Raises:
            SourceError: it is gone, is no video, or tells no rate while none is set.
        """
        path = self._config.url.location
        self._rewind()
        capture = self._capture
        if capture is None or not capture.is_open:
            raise SourceError(f"{path} cannot be opened as a video; expected e.g. MP4, MKV or AVI")
        file_rate_hz = capture.rate_hz
        rate_hz = self._config.frame_rate_hz or file_rate_hz
        if not rate_hz > 0:
            raise SourceError(f"{path} tells no frame rate; set frame_rate_hz")
        self._nominal_s = 1.0 / rate_hz
        width, height = capture.size
        values = {"file_size": f"{width}x{height}", "file_rate_hz": f"{file_rate_hz:g}"}
        width, height = self._config.size or (width, height)
        is_steady = bool(self._config.frame_rate_hz)
        return SourceReport(width, height, rate_hz, values, is_rate_steady=is_steady)

    def _rewind(self) -> None:
        # Opening anew works for every container; seeking to the start does not.
        self.close()
        self._capture = VideoCapture(self._config.url.location, [])

    def _next_image(self) -> NDArray[np.uint8] | None:
        if self._capture is None:
            raise SourceError(f"{self._config.url.location} is not open")
        return self._capture.read()

    def _period_s(self) -> float:
        if self._config.frame_rate_hz or self._capture is None:
            return self._nominal_s
        before_s, self._stamp_s = self._stamp_s, self._capture.stamp_s
        # Phones film at a rate that varies, and leave pauses.
        period_s = math.nan if before_s is None else self._stamp_s - before_s
        return period_s if 0.0 < period_s <= MAX_PAUSE_S else self._nominal_s

    def close(self) -> None:
        """Closes the file."""
        if self._capture is not None:
            self._capture.close()
            self._capture = None
        self._stamp_s = None


class ImageFolderSource(_Playback):
    """The images of a folder in natural order of their names; unreadable ones are skipped."""

    def __init__(self, config: CameraConfig, stop: threading.Event) -> None:
        super().__init__(config, stop)
        self._paths: list[Path] = []
        self._index = 0
        self._converter = ImageConverter()

    def open(self) -> SourceReport:
        """Lists the folder.

        Raises:
            SourceError: it is gone or holds no image.
        """
        folder = Path(self._config.url.location)
        try:
            entries = list(folder.iterdir())
        except OSError as error:
            raise SourceError(f"{folder} cannot be listed: {error.strerror}") from None
        images = (path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES)
        self._paths = sorted(images, key=natural_order)
        if not self._paths:
            raise SourceError(
                f"{folder} holds no image; expected files ending in "
                + ", ".join(sorted(IMAGE_SUFFIXES))
            )
        self._index = 0
        width, height = self._config.size or (0, 0)
        values = {"images": str(len(self._paths))}
        return SourceReport(width, height, self._config.frame_rate_hz, values)

    def _rewind(self) -> None:
        self._index = 0

    def _next_image(self) -> NDArray[np.uint8] | None:
        if self._index == len(self._paths):
            return None
        path = self._paths[self._index]
        self._index += 1
        try:
            return self._converter.decode(path.read_bytes(), "bgr")
        except (OSError, ImageError) as error:
            raise BadFrameError(f"{path.name}: {error}") from None

    def _period_s(self) -> float:
        return 1.0 / self._config.frame_rate_hz

    def close(self) -> None:
        """Forgets the list."""
        self._paths = []
