"""Keeps one source open and the latest of its frames at hand."""

import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from camera_drivers.camera_config import Controls
from camera_drivers.image_source import (
    BadFrameError,
    Frame,
    ImageSource,
    SourceError,
    SourceReport,
)

RATE_WINDOW_S = 5.0
# A source that gives so many bad frames in a row, and no good one for so long, is opened anew.
BAD_FRAMES_LIMIT = 5
BAD_FRAMES_LIMIT_S = 2.0
# Every this many rows and columns are compared to tell two frames apart.
SIGNATURE_STRIDE = 8


class CaptureState(Enum):
    """What the loop is doing."""

    STOPPED = "stopped"
    CONNECTING = "connecting"
    STREAMING = "streaming"
    RETRYING = "retrying"
    ENDED = "ended"


@dataclass(frozen=True)
class CaptureStatus:
    """A consistent copy of the loop's counters.

    Attributes:
        state: see CaptureState.
        reason: why the source is not streaming; empty while it is.
        report: what the source gave when it was opened last.
        frames: received since start.
        bad_frames: that could not be decoded, since start.
        recent_bad_frames: of them, in the last seconds.
        bad_frame_reason: what was wrong with the last of them.
        drops: frames that were replaced before anyone took them.
        reconnects: successful openings after the first.
        failed_attempts: openings that failed and streams that broke, since start.
        retry_s: time to wait before the next attempt [s].
        age_s: since the capture of the latest frame; NaN before the first.
        rate_hz: over the last seconds; NaN before two frames.
        identical_frames: how many times in a row the latest image came again.
    """

    state: CaptureState = CaptureState.STOPPED
    reason: str = ""
    report: SourceReport | None = None
    frames: int = 0
    bad_frames: int = 0
    recent_bad_frames: int = 0
    bad_frame_reason: str = ""
    drops: int = 0
    reconnects: int = 0
    failed_attempts: int = 0
    retry_s: float = 0.0
    age_s: float = float("nan")
    rate_hz: float = float("nan")
    identical_frames: int = 0


@dataclass
class Backoff:
    """Waits that double from `initial_s` up to `max_s`."""

    initial_s: float
    max_s: float
    _next_s: float = field(init=False, default=0.0)

    def next(self) -> float:
        """The wait before the next attempt [s]."""
        self._next_s = min(self.max_s, self._next_s * 2 if self._next_s else self.initial_s)
        return self._next_s

    def reset(self) -> None:
        """The connection works again."""
        self._next_s = 0.0


class CaptureLoop:
    """Grabs frames in a thread of its own; a new frame replaces one that was not taken yet."""

    def __init__(
        self,
        source: ImageSource,
        stop: threading.Event,
        backoff: Backoff,
        *,
        frozen_limit_frames: int = 0,
        on_change: Callable[[CaptureStatus], None] = lambda status: None,
        on_bad_frame: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """Makes a loop that has not started.

        Args:
            source: opened, read and closed only by the loop's thread.
            stop: set by `stop`; the source uses it to cut its waits short.
            backoff: waits between attempts to open the source.
            frozen_limit_frames: so many identical frames in a row count as a broken source;
                0: any number is fine.
            on_change: called from the loop's thread whenever state or report changes.
            on_bad_frame: called from the loop's thread for a frame that cannot be decoded.
        """
        self._source = source
        self._stop = stop
        self._backoff = backoff
        self._frozen_limit_frames = frozen_limit_frames
        self._on_change = on_change
        self._on_bad_frame = on_bad_frame
        self._thread = threading.Thread(target=self._run, name="camera capture", daemon=True)
        # Guards everything below; notified when a frame arrives or the loop stops.
        self._condition = threading.Condition()
        self._latest: Frame | None = None
        self._controls: Controls | None = None
        self._state = CaptureState.STOPPED
        self._reason = ""
        self._report: SourceReport | None = None
        self._frames = self._drops = self._openings = self._failed_attempts = 0
        self._retry_s = 0.0
        self._last_capture_s: float | None = None
        self._arrivals_s: deque[float] = deque()
        self._bad_frames = self._bad_in_a_row = 0
        self._bad_s: deque[float] = deque()
        self._bad_reason = ""
        self._last_good_s = 0.0
        self._signature = -1
        self._identical_frames = 0

    def start(self) -> None:
        """Starts the thread. A loop runs once."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Asks the thread to end and waits for it. False: it is still stuck in the source."""
        self._stop.set()
        with self._condition:
            self._condition.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def take(self, timeout_s: float) -> Frame | None:
        """Waits for a frame that was not taken yet; None after `timeout_s` or when stopped."""
        with self._condition:
            self._condition.wait_for(lambda: self._latest or self._stop.is_set(), timeout_s)
            frame, self._latest = self._latest, None
            return frame

    def set_controls(self, controls: Controls) -> None:
        """Has the thread change the sensor's controls before the next frame."""
        with self._condition:
            self._controls = controls

    def status(self) -> CaptureStatus:
        """A consistent copy of state and counters."""
        now_s = time.monotonic()
        with self._condition:
            for times_s in (self._arrivals_s, self._bad_s):
                while times_s and now_s - times_s[0] > RATE_WINDOW_S:
                    times_s.popleft()
            arrivals = self._arrivals_s
            rate_hz = float("nan")
            if len(arrivals) > 1 and arrivals[-1] > arrivals[0]:
                rate_hz = (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])
            age_s = float("nan")
            if self._last_capture_s is not None:
                age_s = now_s - self._last_capture_s
            return CaptureStatus(
                state=self._state,
                reason=self._reason,
                report=self._report,
                frames=self._frames,
                bad_frames=self._bad_frames,
                recent_bad_frames=len(self._bad_s),
                bad_frame_reason=self._bad_reason,
                drops=self._drops,
                reconnects=max(0, self._openings - 1),
                failed_attempts=self._failed_attempts,
                retry_s=self._retry_s,
                age_s=age_s,
                rate_hz=rate_hz,
                identical_frames=self._identical_frames,
            )

    def _run(self) -> None:
        ended = False
        while not self._stop.is_set() and not ended:
            self._change(CaptureState.CONNECTING)
            try:
                report = self._source.open()
                with self._condition:
                    self._openings += 1
                    self._signature, self._identical_frames = -1, 0
                    self._bad_in_a_row, self._last_good_s = 0, time.monotonic()
                self._change(CaptureState.STREAMING, report=report)
                ended = self._stream()
            except SourceError as error:
                self._fail(str(error))
            except Exception as error:
                # A thread that dies would leave a camera that looks alive and shows nothing.
                self._fail(f"{type(error).__name__}: {error}")
            finally:
                self._source.close()
        if not ended or self._stop.is_set():
            self._change(CaptureState.STOPPED)

    def _stream(self) -> bool:
        """Reads until the stop (False) or the end of the recording (True)."""
        while not self._stop.is_set():
            with self._condition:
                controls, self._controls = self._controls, None
            if controls is not None:
                self._change(CaptureState.STREAMING, report=self._source.set_controls(controls))
            try:
                frame = self._source.read()
            except BadFrameError as error:
                self._leave_out(error)
                continue
            if frame is None:
                if not self._stop.is_set():
                    self._change(CaptureState.ENDED)
                return True
            self._backoff.reset()
            self._store(frame)
        return False

    def _leave_out(self, error: BadFrameError) -> None:
        now_s = time.monotonic()
        with self._condition:
            self._bad_frames += error.count
            self._bad_s.extend([now_s] * error.count)
            self._bad_reason = str(error)
            self._bad_in_a_row += error.count
        self._on_bad_frame(str(error))
        if (
            self._bad_in_a_row >= BAD_FRAMES_LIMIT
            and now_s - self._last_good_s > BAD_FRAMES_LIMIT_S
        ):
            raise SourceError(f"{self._bad_in_a_row} images in a row cannot be decoded: {error}")

    def _store(self, frame: Frame) -> None:
        signature = _signature(frame.image)
        self._bad_in_a_row, self._last_good_s = 0, time.monotonic()
        with self._condition:
            self._identical_frames = (
                self._identical_frames + 1 if signature == self._signature else 0
            )
            self._signature = signature
            frozen = 0 < self._frozen_limit_frames <= self._identical_frames
            if not frozen:
                self._frames += 1
                self._drops += self._latest is not None
                self._latest = frame
                self._last_capture_s = frame.capture_s
                self._arrivals_s.append(time.monotonic())
                while self._arrivals_s[-1] - self._arrivals_s[0] > RATE_WINDOW_S:
                    self._arrivals_s.popleft()
                self._condition.notify_all()
        if frozen:
            raise SourceError(
                f"the image is frozen: {self._frozen_limit_frames} identical frames in a row"
            )

    def _fail(self, reason: str) -> None:
        wait_s = self._backoff.next()
        with self._condition:
            self._failed_attempts += 1
            self._retry_s = wait_s
            self._latest = None  # older than the failure: nobody should take it for a live image
            self._arrivals_s.clear()
        self._change(CaptureState.RETRYING, reason)
        self._stop.wait(wait_s)

    def _change(
        self, state: CaptureState, reason: str = "", report: SourceReport | None = None
    ) -> None:
        with self._condition:
            # While it reconnects, the reason for that stays the most useful thing to say.
            if state is not CaptureState.CONNECTING:
                self._reason = reason
            self._state = state
            self._report = report or self._report
        self._on_change(self.status())


def _signature(image: NDArray[np.uint8]) -> int:
    sample = np.ascontiguousarray(image[::SIGNATURE_STRIDE, ::SIGNATURE_STRIDE])
    return zlib.crc32(sample.data)
