"""Physics at a steady multiple of real time, its camera beside it. No ROS.

One thread steps the physics against the steady clock. Another owns the OpenGL context and draws
what is due, so a slow image never delays measurements.
"""

from __future__ import annotations

import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Frame = TypeVar("Frame")
_MAX_LAG_S = 0.25
DRAWING_S = 0.02
"""Simulated time that an image may take to be drawn where the physics waits for the camera: about
what it takes on an idle computer."""


class PhysicsLoop(ABC, Generic[Frame]):
    """The two threads; a subclass says what a cycle and an image are.

    Args:
        cycle_s: simulated time of a cycle.
        real_time_factor: simulated seconds per second.
        camera_rate_hz: images per simulated second.
        on_failure: called once, from the thread that died.
        wait_for_camera: the physics waits for an image that takes longer than `DRAWING_S`: none is
            skipped, and all are as fresh as on an idle computer.

    Attributes:
        frames_skipped: images that were not drawn because the camera thread was still busy.
        late_s: simulated time that was given up because the machine was too slow.
    """

    def __init__(
        self,
        cycle_s: float,
        real_time_factor: float,
        camera_rate_hz: float,
        on_failure: Callable[[str], None],
        wait_for_camera: bool = False,
    ) -> None:
        self._cycle_s, self._factor = cycle_s, real_time_factor
        self._camera_period_s = 1.0 / camera_rate_hz
        self._next_frame_s = 0.0
        self._on_failure = on_failure
        self._stop = threading.Event()
        self._frame = threading.Condition()
        self._frame_due: Frame | None = None
        self._drawing = False
        self._drawn_from_s = 0.0
        self._wait_for_camera = wait_for_camera
        self._camera_ready = threading.Event()
        self.frames_skipped = 0
        self.late_s = 0.0
        self._threads = [
            threading.Thread(target=self._guarded, args=(body,), name=name, daemon=True)
            for body, name in ((self._render, "camera"), (self._run, "physics"))
        ]

    @abstractmethod
    def _cycle(self) -> float:
        """Step the physics, offer an image if one is due; return the simulated time [s]."""

    @abstractmethod
    def _render(self) -> None:
        """Make the renderer, set `_camera_ready`, and draw all `_frames`."""

    def start(self) -> None:
        """Start both threads and wait until the first image can be drawn."""
        self._threads[0].start()
        while not self._camera_ready.wait(0.1):
            if self._stop.is_set():
                return
        self._threads[1].start()

    def stop(self) -> None:
        """End both threads."""
        self._stop.set()
        with self._frame:
            self._frame.notify_all()
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(timeout=2.0)

    def _guarded(self, body: Callable[[], None]) -> None:
        try:
            body()
        except Exception:
            failure = traceback.format_exc()
            if not self._stop.is_set():
                self._stop.set()
                self._on_failure(failure)

    def _run(self) -> None:
        start = time.monotonic()
        cycles = 0
        while not self._stop.is_set():
            time_s = self._cycle()
            if self._wait_for_camera:
                self._wait_for_image(time_s)
            cycles += 1
            wait_s = start + cycles * self._cycle_s / self._factor - time.monotonic()
            if wait_s > 0:
                self._stop.wait(wait_s)
            elif wait_s < -_MAX_LAG_S:
                # Catching up would run the world too fast for whoever acts in it.
                start -= wait_s
                self.late_s -= wait_s

    def _frame_is_due(self, time_s: float) -> bool:
        """Whether an image of this simulated time is wanted; the next is a period later then."""
        if time_s < self._next_frame_s - 1e-9:
            return False
        self._next_frame_s += self._camera_period_s
        return True

    def _offer(self, frame: Frame, time_s: float) -> None:
        """Have an image drawn of what is at this simulated time."""
        with self._frame:
            self.frames_skipped += self._frame_due is not None
            self._frame_due, self._drawn_from_s = frame, time_s
            self._frame.notify_all()

    def _wait_for_image(self, time_s: float) -> None:
        with self._frame:
            while (
                time_s >= self._drawn_from_s + DRAWING_S - 1e-9
                and (self._drawing or self._frame_due is not None)
                and not self._stop.is_set()
            ):
                self._frame.wait()

    def _frames(self) -> Iterator[Frame]:
        """What is to be drawn, until the loop ends; each is drawn when the next is asked for."""
        while True:
            with self._frame:
                self._drawing = False
                self._frame.notify_all()
                while self._frame_due is None and not self._stop.is_set():
                    self._frame.wait()
                if self._stop.is_set():
                    return
                assert self._frame_due is not None
                frame, self._frame_due, self._drawing = self._frame_due, None, True
            yield frame
