"""Runs a mobile base beside its camera. No ROS."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from base_drivers.robot_config import RobotConfig
from base_drivers.velocity import STREAM_TIMEOUT_S, strength
from numpy.typing import NDArray

from robot_sim.navigation.base_simulation import BaseSimulation, Odometry
from robot_sim.navigation.world import World
from robot_sim.physics_loop import PhysicsLoop

CYCLE_S = 0.02


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


class BaseLoop(PhysicsLoop[bool]):
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
        wait_for_camera: bool = False,
    ) -> None:
        """Take over a simulation; nothing runs before `start`."""
        super().__init__(CYCLE_S, real_time_factor, camera_hz, on_failure, wait_for_camera)
        self._lock = threading.Lock()
        self._simulation = simulation
        self._time_s = 0.0
        self._episode = 0
        self._command = (0.0, 0.0, 0.0)
        self._command_s = -math.inf
        self._on_cycle, self._on_image = on_cycle, on_image

    @property
    def world(self) -> World:
        """Where the robot is."""
        return self._simulation.world

    @property
    def robot(self) -> RobotConfig:
        """What drives there."""
        return self._simulation.robot

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

    def _cycle(self) -> float:
        with self._lock:
            share = strength(time.monotonic() - self._command_s, STREAM_TIMEOUT_S)
            forward, left, turn = self._command
            self._simulation.step(share * forward, share * left, share * turn, CYCLE_S)
            self._time_s += CYCLE_S
            state = self._state()
        if self._frame_is_due(state.time_s):
            self._offer(True, state.time_s)
        self._on_cycle(state)
        return state.time_s

    def _render(self) -> None:
        drawn = self._simulation
        try:
            with self._lock:
                drawn.prepare_picture()
            self._camera_ready.set()
            for _ in self._frames():
                with self._lock:
                    if drawn is not self._simulation:
                        drawn.close()
                        drawn = self._simulation
                    drawn.prepare_picture()
                    state = self._state()
                self._on_image(state, drawn.draw())
        finally:
            drawn.close()
