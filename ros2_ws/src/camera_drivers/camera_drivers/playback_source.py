"""Video files and image folders, played at a steady rate."""

import re
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from camera_drivers.camera_config import CameraConfig, Controls
from camera_drivers.image_scaling import scale_to
from camera_drivers.image_source import Frame, SourceError, SourceReport

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})


def natural_order(path: Path) -> tuple[tuple[int, int | str], ...]:
    """Sort key that puts frame_10 behind frame_9."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts)


class Pacer:
    """Waits for one due time after another, a period apart.

    When it is called more than a period late it starts anew from now: frames come late rather than
    in a burst.
    """

    def __init__(self, period_s: float, stop: threading.Event) -> None:
        self._period_s = period_s
        self._stop = stop
        self._due_s: float | None = None

    def wait(self) -> float | None:
        """Waits and returns the due time on `time.monotonic` [s]; None when stopped."""
        now_s = time.monotonic()
        if self._due_s is None or now_s - self._due_s > 2 * self._period_s:
            self._due_s = now_s
        else:
            self._due_s += self._period_s
        if self._stop.wait(max(0.0, self._due_s - now_s)):
            return None
        return self._due_s


class _Playback(ABC):
    """What files and folders have in common: pacing and looping over `_next_image`."""

    def __init__(self, config: CameraConfig, stop: threading.Event) -> None:
        self._config = config
        self._stop = stop
        self._pacer = Pacer(1.0, stop)

    def read(self) -> Frame | None:
        """Waits until the next image is due. None: the end, or stopped.

        Raises:
            SourceError: nothing in the recording can be read.
        """
        image = self._next_image()
        if image is None and self._config.loop:
            self._rewind()
            image = self._next_image()
            if image is None:
                raise SourceError(f"{self._config.url.location} has no readable image")
        if image is None:
            return None
        due_s = self._pacer.wait()
        return None if due_s is None else Frame(scale_to(image, self._config.size), due_s)

    def set_controls(self, controls: Controls) -> SourceReport:
        """Recordings have no controls.

        Raises:
            SourceError: always.
        """
        raise SourceError(f"{self._config.url.location} is a recording and has no controls")

    @abstractmethod
    def _next_image(self) -> NDArray[np.uint8] | None:
        """The next image that can be read; None at the end."""

    @abstractmethod
    def _rewind(self) -> None:
        """Goes back to the first image."""


class VideoFileSource(_Playback):
    """A video file that FFmpeg can decode."""

    def __init__(self, config: CameraConfig, stop: threading.Event) -> None:
        super().__init__(config, stop)
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> SourceReport:
        """Opens the file.

        Raises:
            SourceError: it is gone, is no video, or tells no rate while none is set.
        """
        path = self._config.url.location
        self._rewind()
        capture = self._capture
        if capture is None or not capture.isOpened():
            raise SourceError(f"{path} cannot be opened as a video; expected e.g. MP4, MKV or AVI")
        file_rate_hz = float(capture.get(cv2.CAP_PROP_FPS))
        rate_hz = self._config.frame_rate_hz or file_rate_hz
        if not rate_hz > 0:
            raise SourceError(f"{path} tells no frame rate; set frame_rate_hz")
        self._pacer = Pacer(1.0 / rate_hz, self._stop)
        width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        values = {"file_size": f"{width}x{height}", "file_rate_hz": f"{file_rate_hz:g}"}
        width, height = self._config.size or (width, height)
        return SourceReport(width, height, rate_hz, values)

    def _rewind(self) -> None:
        # Opening anew works for every container; seeking to the start does not.
        self.close()
        self._capture = cv2.VideoCapture(
            self._config.url.location, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]
        )

    def _next_image(self) -> NDArray[np.uint8] | None:
        if self._capture is None:
            raise SourceError(f"{self._config.url.location} is not open")
        received, image = self._capture.read()
        return np.asarray(image, dtype=np.uint8) if received else None

    def close(self) -> None:
        """Closes the file."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


class ImageFolderSource(_Playback):
    """The images of a folder in natural order of their names; unreadable ones are skipped."""

    def __init__(self, config: CameraConfig, stop: threading.Event) -> None:
        super().__init__(config, stop)
        self._paths: list[Path] = []
        self._index = 0

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
        self._pacer = Pacer(1.0 / self._config.frame_rate_hz, self._stop)
        width, height = self._config.size or (0, 0)
        values = {"images": str(len(self._paths))}
        return SourceReport(width, height, self._config.frame_rate_hz, values)

    def _rewind(self) -> None:
        self._index = 0

    def _next_image(self) -> NDArray[np.uint8] | None:
        while self._index < len(self._paths):
            path = self._paths[self._index]
            self._index += 1
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is not None:
                return np.asarray(image, dtype=np.uint8)
        return None

    def close(self) -> None:
        """Forgets the list."""
        self._paths = []
