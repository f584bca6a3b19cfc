"""Whether a camera can be driven by: images that are fresh, alive and show something."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

_STRIDE = 4
"""Every so many pixels are looked at: enough to tell images apart, cheap at any size."""
_LATE_PERIODS = 1.4
_LATE_AT_LEAST_S = 0.07
_LATE_SHARE = 0.6
"""An image is late after so many of the camera's periods, within bounds: a busy machine delays
images by some hundredths of a second, and a slow camera must not use up the time-out."""
_REFUSED_S = 2.0
"""So long after a refusal it is the reason for having no newer image."""
_PERIODS = 9
"""Gaps between images of which the median is the period."""


class CameraProblem(StrEnum):
    """What is wrong with a camera."""

    MISSING = "missing"
    """No image yet."""
    STALE = "stale"
    """The newest image is old, by its stamp or by when it arrived."""
    FUTURE = "future"
    """The newest image is stamped ahead of the clock."""
    FROZEN = "frozen"
    """The same picture again and again, while the robot moves."""
    DARK = "dark"
    """Black."""
    FLAT = "flat"
    """Without any structure: white, grey, covered."""

    @property
    def is_picture(self) -> bool:
        """The images come, but nothing can be seen on them."""
        return self in (CameraProblem.DARK, CameraProblem.FLAT)


@dataclass(frozen=True)
class CameraFault:
    """A problem and a sentence about it."""

    problem: CameraProblem
    message: str


@dataclass(frozen=True)
class CameraLimits:
    """When a camera counts as faulty.

    Attributes:
        timeout_s: largest age of the newest image, by its stamp and by when it arrived.
        future_tolerance_s: how far a stamp may lie ahead of the clock.
        frozen_s: for so long the same picture while the robot moves. Noise makes every picture of
            a real camera different.
        dark_level: an image whose brightest percent is below this is black, 0 … 255.
        flat_deviation: an image whose grey levels have a smaller standard deviation shows nothing.
    """

    timeout_s: float = 0.2
    future_tolerance_s: float = 0.1
    frozen_s: float = 0.07
    dark_level: float = 16.0
    flat_deviation: float = 2.0


class CameraWatch:
    """Looks at every image, and says whether the camera can be driven by now.

    Args:
        limits: when it cannot.
    """

    def __init__(self, limits: CameraLimits) -> None:
        self.limits = limits
        self.reset()

    def reset(self) -> None:
        """Forget every image."""
        self._stamp_s = math.nan
        self._arrived_s = -math.inf
        self._advanced_s = -math.inf
        self._changed_s = -math.inf
        self._gaps_s: deque[float] = deque(maxlen=_PERIODS)
        self._sample: NDArray[np.uint8] | None = None
        self._same_since_s = math.inf
        self._moving_since_s = math.inf
        self._moving_since_steady_s = math.inf
        self._picture: CameraFault | None = None
        self._frozen: CameraFault | None = None
        self._refusal = ""
        self._refused_s = -math.inf

    def refuse(self, reason: str, steady_s: float) -> None:
        """Remember that an image came and could not be read.

        Args:
            reason: why.
            steady_s: when, on the steady clock.
        """
        self._refusal, self._refused_s = reason, steady_s

    def push(self, image: NDArray[np.uint8], stamp_s: float, steady_s: float) -> None:
        """Look at an image.

        Args:
            image: (H, W, 3) uint8.
            stamp_s: its stamp, on the clock of `check`'s `now_s`.
            steady_s: when it arrived, on the steady clock.
        """
        sample = image[::_STRIDE, ::_STRIDE]
        if self._sample is None or not np.array_equal(sample, self._sample):
            self._same_since_s = stamp_s
            self._changed_s = steady_s
            self._sample = sample.copy()
            self._picture = self._examine(sample)
            self._frozen = None
        # A clock that was set back would make the same picture new for as long.
        self._same_since_s = min(self._same_since_s, stamp_s)
        if stamp_s != self._stamp_s:
            self._advanced_s = steady_s
        self._stamp_s = stamp_s
        self._gaps_s.append(steady_s - self._arrived_s)
        self._arrived_s = steady_s

    def _examine(self, sample: NDArray[np.uint8]) -> CameraFault | None:
        grey = sample.mean(axis=2)
        brightest = float(np.percentile(grey, 99.0))
        if brightest < self.limits.dark_level:
            return CameraFault(
                CameraProblem.DARK,
                f"the image is black: its brightest percent is {brightest:.0f} of 255, expected "
                f"at least {self.limits.dark_level:g}",
            )
        deviation = float(grey.std())
        if deviation < self.limits.flat_deviation:
            return CameraFault(
                CameraProblem.FLAT,
                f"the image shows nothing: its grey levels differ by {deviation:.1f}, expected at "
                f"least {self.limits.flat_deviation:g}",
            )
        return None

    def moving(self, moves: bool, stamp_s: float, steady_s: float) -> None:
        """Tell whether the robot moves, by a measurement that the camera has no part in.

        Args:
            moves: fast enough that two pictures must differ.
            stamp_s: when, on the clock of the images' stamps.
            steady_s: when, on the steady clock.
        """
        if not moves:
            self._moving_since_s = self._moving_since_steady_s = math.inf
        elif math.isinf(self._moving_since_s):
            self._moving_since_s, self._moving_since_steady_s = stamp_s, steady_s

    def is_late(self, steady_s: float) -> bool:
        """Whether the next image is overdue, so that the robot had better slow down.

        While it moves, the same picture once more is not an image.

        Args:
            steady_s: the steady clock, or a time to come.
        """
        period_s = sorted(self._gaps_s)[len(self._gaps_s) // 2] if self._gaps_s else math.inf
        late_s = max(_LATE_PERIODS * period_s, _LATE_AT_LEAST_S)
        newest_s = min(self._arrived_s, max(self._changed_s, self._moving_since_steady_s))
        return steady_s - newest_s > min(late_s, _LATE_SHARE * self.limits.timeout_s)

    def check(self, now_s: float, steady_s: float) -> CameraFault | None:
        """What is wrong now, None: nothing.

        Args:
            now_s: the clock of the stamps.
            steady_s: the steady clock.
        """
        limits = self.limits
        silence_s = steady_s - self._arrived_s
        if silence_s > limits.timeout_s and steady_s - self._refused_s <= _REFUSED_S:
            return CameraFault(
                CameraProblem.MISSING if math.isnan(self._stamp_s) else CameraProblem.STALE,
                f"images arrive and are refused: {self._refusal}",
            )
        if math.isnan(self._stamp_s):
            return CameraFault(CameraProblem.MISSING, "no image has arrived yet")
        age_s = now_s - self._stamp_s
        if not max(age_s, silence_s) <= limits.timeout_s:
            return CameraFault(
                CameraProblem.STALE,
                f"the newest image {self._describe(age_s, silence_s, steady_s)}, expected at most "
                f"{limits.timeout_s:g} s",
            )
        if age_s < -limits.future_tolerance_s:
            return CameraFault(
                CameraProblem.FUTURE,
                f"the newest image is stamped {-age_s:.2f} s ahead of the clock, expected at most "
                f"{limits.future_tolerance_s:g} s",
            )
        if self._picture is not None:
            return self._picture
        same_s = self._stamp_s - max(self._same_since_s, self._moving_since_s)
        if self._frozen is None and same_s >= limits.frozen_s:
            self._frozen = CameraFault(
                CameraProblem.FROZEN,
                f"the picture has been the same for {same_s:.2f} s while the robot moves",
            )
        # Until another picture comes: the robot now stands, which alone would explain this one.
        return self._frozen

    def _describe(self, age_s: float, silence_s: float, steady_s: float) -> str:
        if silence_s <= self.limits.timeout_s:
            if self._stamp_s == 0.0:
                return "has no stamp (0): its driver must stamp it"
            if steady_s - self._advanced_s > self.limits.timeout_s:
                return (
                    f"has the stamp of those before, {self._stamp_s:.3f}, and is {age_s:.2f} s old"
                )
        return f"is {age_s:.2f} s old and came {silence_s:.2f} s ago"
