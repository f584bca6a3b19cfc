"""Keeping a control rate, and saying how well it was kept."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np

_EARLY_S = 1e-3
"""Clocks may wake a little early [s]."""


class TickClock(Protocol):
    """A clock to pace by: wall time, ROS time or a test's own."""

    def now(self) -> float:
        """The time [s]."""

    def wait_until(self, time_s: float) -> bool:
        """Block until `time_s`, or until the time goes back; return False when told to stop."""


class SteadyTickClock:
    """The machine's steady clock.

    Args:
        stop: when set, `wait_until` returns False at once.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def now(self) -> float:
        """The time since an arbitrary origin [s]."""
        return time.monotonic()

    def wait_until(self, time_s: float) -> bool:
        """Block until `time_s`; return False when stopped."""
        return not self._stop.wait(max(0.0, time_s - time.monotonic()))


@dataclass(frozen=True)
class Percentiles:
    """The 50th, 95th and 99th percentile of recent values; NaN when there are none."""

    p50: float
    p95: float
    p99: float


class RecentValues:
    """The latest values of a measured quantity.

    Args:
        capacity: how many are kept.
    """

    def __init__(self, capacity: int = 2000) -> None:
        self._values: deque[float] = deque(maxlen=capacity)

    def add(self, value: float) -> None:
        """Keep a value."""
        self._values.append(value)

    def percentiles(self) -> Percentiles:
        """Return the percentiles over the kept values."""
        values = list(self._values)
        if not values:
            return Percentiles(math.nan, math.nan, math.nan)
        return Percentiles(*(float(p) for p in np.percentile(values, (50, 95, 99))))


@dataclass(frozen=True)
class PacingReport:
    """How a rate was kept.

    Attributes:
        ticks: ticks that were started.
        missed_ticks: ticks more than half a period late, and ticks left out because of lateness.
        overruns: ticks whose work took longer than the period.
        rate_hz: achieved rate over the window, NaN before two ticks.
        mean_rate_hz: the same since the first tick.
        lateness: of ticks behind their time [s].
    """

    ticks: int
    missed_ticks: int
    overruns: int
    rate_hz: float
    mean_rate_hz: float
    lateness: Percentiles


class Pacer:
    """Starts ticks on a fixed grid of a clock.

    Lateness does not add up: a late tick is followed by one at its own time, and a tick that
    would start a whole period late is left out. A clock that goes back by two periods or more, also
    during a wait, starts a new grid.

    Args:
        period_s: time between ticks [s].
        clock: what to wait on.
        window_s: span over which the achieved rate is computed [s].
    """

    def __init__(self, period_s: float, clock: TickClock, window_s: float = 10.0) -> None:
        if not (0.0 < period_s < math.inf):
            raise ValueError(f"found a period of {period_s} s, expected a positive time")
        self.period_s = period_s
        self._clock = clock
        self._window_s = window_s
        self._next_s: float | None = None
        self._first_s = math.nan
        self._started_s = math.nan
        self._grid_ticks = 0
        self._starts: deque[float] = deque()
        self._lateness = RecentValues()
        self._ticks = 0
        self._missed = 0
        self._overruns = 0

    def wait(self) -> bool:
        """Block until the next tick is due; the first is due at once.

        Returns:
            True at a tick, False when the clock was woken to stop.
        """
        now = self._clock.now()
        if self._next_s is None or self._went_back(now):
            self._begin_grid(now)
        else:
            self._overruns += now - self._started_s > self.period_s
            # How many grid points have passed by so long ago that their tick is left out.
            skipped = math.floor((now - self._next_s) / self.period_s)
            if skipped > 0:
                self._missed += skipped
                self._next_s += skipped * self.period_s
            while True:
                if not self._clock.wait_until(self._next_s):
                    return False
                now = self._clock.now()
                if now >= self._next_s - _EARLY_S:
                    break
                if self._went_back(now):
                    self._begin_grid(now)
                    break
        assert self._next_s is not None
        late = now - self._next_s
        self._missed += late > 0.5 * self.period_s
        self._lateness.add(late)
        self._ticks += 1
        self._grid_ticks += 1
        self._started_s = now
        self._starts.append(now)
        while now - self._starts[0] > self._window_s:
            self._starts.popleft()
        self._next_s += self.period_s
        return True

    def _went_back(self, now_s: float) -> bool:
        return self._next_s is not None and now_s < self._next_s - 2.0 * self.period_s

    def _begin_grid(self, now_s: float) -> None:
        self._next_s = self._first_s = now_s
        self._starts.clear()
        self._grid_ticks = 0

    def report(self) -> PacingReport:
        """Return how the rate was kept so far."""
        starts = list(self._starts)
        return PacingReport(
            ticks=self._ticks,
            missed_ticks=self._missed,
            overruns=self._overruns,
            rate_hz=_rate_hz(len(starts), starts[-1] - starts[0] if starts else 0.0),
            mean_rate_hz=_rate_hz(self._grid_ticks, self._started_s - self._first_s),
            lateness=self._lateness.percentiles(),
        )


def _rate_hz(ticks: int, span_s: float) -> float:
    return (ticks - 1) / span_s if ticks > 1 and span_s > 0.0 else math.nan


def stalled_clock_message(time_s: float) -> str:
    """What to say of a simulated clock that stands at a time."""
    return (
        f"simulated time stands at {time_s:.2f} s: use_sim_time is set, and nothing on /clock "
        "moves it on"
    )
