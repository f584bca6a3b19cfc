"""How busy the computer is, in figures, for messages about what came late."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable

import psutil

BUSY_SHARE = 0.9
"""From this share of all cores on, what is late is put down to load."""
_SAMPLE_S = 0.5
_SAMPLES = 10


class CpuLoad:
    """CPU use of the whole computer, all programs together, over the last seconds.

    Args:
        cpu_percent: CPU use since the last call, of all cores together [%].
        load_average: processes that ran or waited, averaged over the last minute.
        now: steady time [s].
    """

    def __init__(
        self,
        cpu_percent: Callable[[], float] = psutil.cpu_percent,
        load_average: Callable[[], float] = lambda: os.getloadavg()[0],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cpu_percent, self._load_average, self._now = cpu_percent, load_average, now
        self._cores = psutil.cpu_count() or 1
        self._percents: deque[float] = deque(maxlen=_SAMPLES)
        self._cpu_percent()  # the first value has no beginning, and means nothing
        self._sampled_s = self._now()

    def sample(self) -> None:
        """Take the use since the last sample into account; call it about once a second."""
        if self._now() - self._sampled_s >= _SAMPLE_S:
            self._sampled_s = self._now()
            self._percents.append(self._cpu_percent())

    @property
    def cpu_percent(self) -> float:
        """Mean use of all cores over the last seconds [%], 0 before there is any sample."""
        self.sample()
        return sum(self._percents) / len(self._percents) if self._percents else 0.0

    @property
    def busy(self) -> bool:
        """Whether next to nothing was left over."""
        return self.cpu_percent >= 100.0 * BUSY_SHARE

    @property
    def figures(self) -> str:
        """The use, e.g. "CPU 97 % of 2 cores, load average 8.1"."""
        return (
            f"CPU {self.cpu_percent:.0f} % of {self._cores} cores, "
            f"load average {self._load_average():.1f}"
        )

    @property
    def note(self) -> str:
        """What to append to a message about something late; empty when there is no load."""
        if not self.busy:
            return ""
        return f"; the computer is busy ({self.figures}): end other programs"
