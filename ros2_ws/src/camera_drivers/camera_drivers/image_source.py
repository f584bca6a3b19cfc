"""What every kind of camera offers to the capture loop."""

import time
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from camera_drivers.calibration_file import Calibration
from camera_drivers.camera_config import Controls

# A device time further back than this was not taken from the clock it was compared with.
MAX_PLAUSIBLE_AGE_S = 1.0


class SourceError(RuntimeError):
    """A source could not be opened or gave no image: worth another attempt later."""


class BadFrameError(RuntimeError):
    """Frames came and cannot be decoded: the next one may be good."""

    def __init__(self, reason: str, count: int = 1) -> None:
        """Says what was wrong with how many frames."""
        super().__init__(reason)
        self.count = count


@dataclass(frozen=True)
class Frame:
    """One image.

    Attributes:
        image: uint8 (H, W, 3), blue-green-red as OpenCV decodes it.
        capture_s: when it was taken [s] on the clock of `time.monotonic`.
    """

    image: NDArray[np.uint8]
    capture_s: float


@dataclass(frozen=True)
class SourceReport:
    """What the source really gave.

    Attributes:
        width, height: [px]; 0 when only the first frame will tell.
        frame_rate_hz: nominal rate; 0 when the source does not say.
        values: further settings in words, for diagnostics.
        differences: what was asked and not given, one sentence each.
        calibration: the device's own, if it has one.
        is_rate_steady: the nominal rate is kept at all times, not only on average.
    """

    width: int
    height: int
    frame_rate_hz: float
    values: dict[str, str] = field(default_factory=dict)
    differences: tuple[str, ...] = ()
    calibration: Calibration | None = None
    is_rate_steady: bool = True


class ImageSource(Protocol):
    """A camera, stream or recording. Used from one thread at a time."""

    def open(self) -> SourceReport:
        """Connects, applies the settings and reads back what the source made of them.

        Raises:
            SourceError: it cannot be opened now.
        """

    def read(self) -> Frame | None:
        """Waits for the next image. None: the recording has ended or the loop is stopping.

        Raises:
            BadFrameError: a frame came that cannot be decoded; the source is still open.
            SourceError: no image came within the time limit, or the connection broke.
        """

    def set_controls(self, controls: Controls) -> SourceReport:
        """Changes exposure, gain, white balance and focus of an open source."""

    def close(self) -> None:
        """Disconnects; harmless when not open."""


def capture_time(device_time_s: float, transport_latency_s: float) -> float:
    """Converts a device's time of capture to the clock of `time.monotonic`.

    Kernel buffers are stamped on the monotonic or on the system clock, depending on the driver; a
    time that fits neither is replaced by the time of arrival less the known transport latency.

    Args:
        device_time_s: [s] on an unknown clock; NaN where the device told none.
        transport_latency_s: [s], used only for times of arrival.
    """
    now_s = time.monotonic()
    for clock_s in (now_s, time.time()):
        age_s = clock_s - device_time_s
        if 0.0 <= age_s <= MAX_PLAUSIBLE_AGE_S:
            return now_s - age_s
    return now_s - transport_latency_s
