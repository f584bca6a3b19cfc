"""Pacing by a node's clock, simulated time included."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rclpy.clock import Clock, JumpThreshold
from rclpy.duration import Duration
from rclpy.time import Time

_WAKE_S = 0.1


class SimulatedTickClock:
    """Simulated time, which advances when a message on /clock arrives.

    Args:
        clock: the node's clock, with simulated time active.
        stop: ends waiting when it is set.
        stall_timeout_s: real time without an advance after which the clock counts as standing [s].
        on_stall: told so, once per wait; it is to set `stop`.
    """

    def __init__(
        self,
        clock: Clock,
        stop: threading.Event,
        stall_timeout_s: float,
        on_stall: Callable[[str], object],
    ) -> None:
        self._clock = clock
        self._stop = stop
        self._stall_timeout_s = stall_timeout_s
        self._on_stall = on_stall
        self._advanced = threading.Event()
        self._handle = clock.create_jump_callback(
            JumpThreshold(
                min_forward=Duration(nanoseconds=1),
                min_backward=Duration(nanoseconds=-1),
                on_clock_change=True,
            ),
            post_callback=lambda _: self._advanced.set(),
        )

    def close(self) -> None:
        """Stop following the clock."""
        self._handle.unregister()

    def now(self) -> float:
        """The simulated time [s]."""
        return float(self._clock.now().nanoseconds) * 1e-9

    def wait_until(self, time_s: float) -> bool:
        """Block until the simulated time is `time_s`; return False when stopped or stalled.

        A clock that goes back, as of a simulation that begins anew, ends the waiting, too: it would
        last as long as the simulation has run.
        """
        target = Time(nanoseconds=round(time_s * 1e9), clock_type=self._clock.clock_type)
        last_advance_s = time.monotonic()
        newest = self._clock.now()
        while not self._stop.is_set():
            self._advanced.clear()
            now = self._clock.now()
            if now >= target or now < newest:
                return True
            newest = now
            if self._advanced.wait(_WAKE_S):
                last_advance_s = time.monotonic()
            elif time.monotonic() - last_advance_s > self._stall_timeout_s:
                self._on_stall(f"the simulated clock stood still for {self._stall_timeout_s:g} s")
                break
        return False
