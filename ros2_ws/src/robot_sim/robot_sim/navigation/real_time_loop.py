"""Runs a mobile base at a steady multiple of real time, and draws its camera beside it. No ROS.

One thread steps the physics against the steady clock. Another owns the OpenGL context and draws
the newest state that is due, so a slow picture never delays the odometry.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from base_drivers.robot_config import RobotConfig
from base_drivers.velocity import STREAM_TIMEOUT_S, strength
from numpy.typing import NDArray

from robot_sim.navigation.base_simulation import BaseSimulation, Odometry
from robot_sim.navigation.world import World

CYCLE_S = 0.02
_MAX_LAG_S = 0.25


@dataclass(frozen=True)
class BaseState:
    """The state after one cycle.

    Attributes:
        time_s: simulated time since the loop started; resets do not set it back.
        wall_ns: system time at which the state was reached.
        pose: true x, y [m], yaw [rad] in the world.
        odometry: what the base measures.
        in_contact: touches something.
        contact_angles_rad: where, in the base's frame.
        collisions: contacts begun since the reset.
        distance_m: driven since the reset.
        episode: counts resets.
    """

    time_s: float
    wall_ns: int
    pose: tuple[float, float, float]
    odometry: Odometry
    in_contact: bool
    contact_angles_rad: tuple[float, ...]
    collisions: int
    distance_m: float
    episode: int


class RealTimeLoop:
    """Physics and camera threads around one `BaseSimulation` at a time.

    Callbacks run in the loop's threads: `on_cycle` at 50 Hz of simulated time, `on_image` with the
    state that the picture shows, `on_failure` once when a thread died.
    """

    def __init__(
        self,
        simulation: BaseSimulation,
        real_time_factor: float,
        camera_hz: float,
        on_cycle: Callable[[BaseState], None],
        on_image: Callable[[BaseState, NDArray[np.uint8]], None],
        on_failure: Callable[[str], None],
    ) -> None:
        """Take over a simulation; nothing runs before `start`."""
        self._lock = threading.Lock()
        self._simulation = simulation
        self._time_s = 0.0
        self._episode = 0
        self._command = (0.0, 0.0, 0.0)
        self._command_s = -math.inf
        self._factor = real_time_factor
        self._camera_period_s = 1.0 / camera_hz
        self._on_cycle, self._on_image, self._on_failure = on_cycle, on_image, on_failure
        self._stop = threading.Event()
        self._frame = threading.Condition()
        self._frame_due = False
        self._camera_ready = threading.Event()
        self.frames_skipped = 0
        """Pictures that were not drawn because the camera thread was still busy."""
        self.late_s = 0.0
        """Simulated time that was given up because the machine was too slow."""
        self._threads = [
            threading.Thread(target=self._guarded, args=(body,), name=name, daemon=True)
            for body, name in ((self._render, "camera"), (self._run, "physics"))
        ]

    @property
    def world(self) -> World:
        """Where the robot is."""
        return self._simulation.world

    @property
    def robot(self) -> RobotConfig:
        """What drives there."""
        return self._simulation.robot

    def start(self) -> None:
        """Start both threads and wait until the first picture can be drawn."""
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

    def command(self, v: float, vy: float, w: float) -> None:
        """Forward and left speed [m/s] and yaw rate [rad/s], in real time for as long as a driver
        takes it."""
        with self._lock:
            self._command = (v, vy, w)
            self._command_s = time.monotonic()

    def reset(
        self, pose: tuple[float, float, float], simulation: BaseSimulation | None = None
    ) -> None:
        """Put the robot at rest at a pose, in another world or body if one is given."""
        with self._lock:
            if simulation is not None:
                self._simulation = simulation
            self._simulation.reset(pose)
            self._command_s = -math.inf
            self._episode += 1

    def state(self) -> BaseState:
        """The present state."""
        with self._lock:
            return self._state()

    def scan(self, angles_rad: NDArray[np.float64], max_range_m: float) -> NDArray[np.float64]:
        """Ranges [m] in directions of the base's frame."""
        with self._lock:
            return self._simulation.scan(angles_rad, max_range_m)

    def _state(self) -> BaseState:
        sim = self._simulation
        return BaseState(
            self._time_s,
            time.time_ns(),
            sim.pose,
            sim.odometry,
            sim.in_contact,
            sim.contact_angles_rad,
            sim.collisions,
            sim.distance_m,
            self._episode,
        )

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
        cycles, next_frame_s = 0, 0.0
        while not self._stop.is_set():
            with self._lock:
                share = strength(time.monotonic() - self._command_s, STREAM_TIMEOUT_S)
                forward, left, turn = self._command
                self._simulation.step(share * forward, share * left, share * turn, CYCLE_S)
                self._time_s += CYCLE_S
                state = self._state()
            if state.time_s >= next_frame_s - 1e-9:
                next_frame_s += self._camera_period_s
                with self._frame:
                    self.frames_skipped += self._frame_due
                    self._frame_due = True
                    self._frame.notify()
            self._on_cycle(state)
            cycles += 1
            wait_s = start + cycles * CYCLE_S / self._factor - time.monotonic()
            if wait_s > 0:
                self._stop.wait(wait_s)
            elif wait_s < -_MAX_LAG_S:
                # Catching up would run the world too fast for whoever drives in it.
                start -= wait_s
                self.late_s -= wait_s

    def _render(self) -> None:
        drawn = self._simulation
        try:
            with self._lock:
                drawn.prepare_picture()
            self._camera_ready.set()
            while True:
                with self._frame:
                    while not self._frame_due and not self._stop.is_set():
                        self._frame.wait()
                    self._frame_due = False
                if self._stop.is_set():
                    return
                with self._lock:
                    if drawn is not self._simulation:
                        drawn.close()
                        drawn = self._simulation
                    drawn.prepare_picture()
                    state = self._state()
                self._on_image(state, drawn.draw())
        finally:
            drawn.close()
