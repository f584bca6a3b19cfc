"""Runs the kitchen beside its camera, or follows the one behind an emulated servo bus. No ROS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_sim.kitchen import CameraRenderer, Kitchen
from robot_sim.physics_loop import PhysicsLoop
from robot_sim.scene_model import TIMESTEP_S
from robot_sim.servo_bus import ServoBusOptions, ServoBusProcess
from robot_sim.tasks import SuccessTimer, Task
from robot_sim.xs_arm import XsArm

CYCLE_STEPS = 2
CYCLE_S = CYCLE_STEPS * TIMESTEP_S
"""Period of the joint states: 100 Hz."""


@dataclass(frozen=True)
class CycleState:
    """What one cycle of the physics produced."""

    time_s: float
    """Simulated time."""
    wall_ns: int
    """System time at which this state was reached."""
    joint_state: tuple[list[float], list[float], list[float]] | None
    """Positions, velocities and efforts in the order of joint_states; None behind a servo bus,
    whose driver reads them."""


@dataclass(frozen=True)
class TaskState:
    """The judgement of the task in the scene."""

    task: Task
    seed: int
    episode: int
    success: bool
    success_s: float


class SimulationLoop(PhysicsLoop[tuple[CycleState, NDArray[np.float64]]]):
    """Physics and camera threads around one `Kitchen`.

    Callbacks run in the loop's threads: `on_cycle` at 100 Hz of simulated time, `on_image` with
    the simulated and the system time [ns] of the state that the picture shows, `on_failure` once
    when a thread died.
    """

    def __init__(
        self,
        task: Task,
        seed: int,
        real_time_factor: float,
        camera_rate_hz: float,
        on_cycle: Callable[[CycleState], None],
        on_image: Callable[[float, int, NDArray[np.uint8]], None],
        on_failure: Callable[[str], None],
        servo_bus: ServoBusOptions | None = None,
        wait_for_camera: bool = False,
    ) -> None:
        """Build the scene; nothing runs before `start`.

        With `servo_bus`, drivers reach the arm over that bus only, and time is real time.
        """
        super().__init__(CYCLE_S, real_time_factor, camera_rate_hz, on_failure, wait_for_camera)
        self._lock = threading.Lock()
        self._scene_lock = threading.Lock()
        """Held while the model's parts are moved and tinted, and while they are drawn; the physics
        does not wait for it."""
        self._kitchen = Kitchen()
        layout = task.layout(seed)
        self._kitchen.set_layout(layout)
        self._bus = ServoBusProcess(servo_bus, layout, CYCLE_S) if servo_bus else None
        self._arm = None if self._bus else XsArm(self._kitchen)
        self._timer = SuccessTimer()
        self._task, self._seed, self._episode = task, seed, 0
        self._on_cycle, self._on_image = on_cycle, on_image

    @property
    def model(self) -> mujoco.MjModel:
        """The physics model, for a viewer."""
        return self._kitchen.model

    def copy_state(self, data: mujoco.MjData) -> None:
        """Copy the present positions into `data`, for a viewer."""
        with self._lock:
            data.qpos[:] = self._kitchen.data.qpos
            data.time = self._kitchen.data.time
        mujoco.mj_kinematics(self._kitchen.model, data)

    def arm(self) -> _LockedArm:
        """Access to the arm while the physics stands still: ``with loop.arm() as arm``.

        Raises:
            RuntimeError: the arm is behind a servo bus.
        """
        if self._arm is None:
            raise RuntimeError("the arm is behind a servo bus; command it through its driver")
        return _LockedArm(self._lock, self._arm)

    @property
    def servo_port(self) -> str | None:
        """The port of the servo bus, if there is one."""
        return self._bus.port if self._bus else None

    def stop(self) -> None:
        """End both threads, and the servo bus."""
        self._stop.set()
        if self._bus is not None:
            self._bus.stop()
        super().stop()

    def reset_scene(self, task: Task, seed: int) -> None:
        """Lay the scene of a task and seed; the arm stays where it is.

        Raises:
            ValueError: the seed is negative.
        """
        layout = task.layout(seed)
        with self._scene_lock, self._lock:
            self._kitchen.set_layout(layout)
            if self._bus is not None:
                self._bus.lay(layout)
            self._task, self._seed = task, seed
            self._episode += 1
            self._timer.reset()

    def task_state(self) -> TaskState:
        """The judgement of the present scene."""
        with self._lock:
            return TaskState(
                self._task, self._seed, self._episode, self._timer.success, self._timer.held_s
            )

    def _run(self) -> None:
        if self._bus is None:
            super()._run()
        else:
            self._follow_bus()

    def _cycle(self) -> float:
        assert self._arm is not None
        with self._lock:
            self._arm.update()
            self._kitchen.advance(CYCLE_STEPS)
            state, positions = self._judge(CYCLE_S, time.time_ns(), self._arm.joint_state())
        self._hand_out(state, positions)
        return state.time_s

    def _follow_bus(self) -> None:
        """Judge and draw what happens behind the bus, in real time."""
        assert self._bus is not None
        while not self._stop.is_set():
            now = self._bus.receive()
            with self._lock:
                if now.layouts != self._bus.layouts:
                    continue
                elapsed_s = now.time_s - self._kitchen.time_s
                self._kitchen.take_state(now.time_s, now.positions, now.velocities)
                state, positions = self._judge(elapsed_s, now.wall_ns, None)
            self._hand_out(state, positions)

    def _judge(
        self,
        elapsed_s: float,
        wall_ns: int,
        joint_state: tuple[list[float], list[float], list[float]] | None,
    ) -> tuple[CycleState, NDArray[np.float64] | None]:
        """The state now and, when a picture is due, the positions for it. Call it with the lock."""
        self._timer.update(self._task.succeeded(self._kitchen), elapsed_s)
        state = CycleState(self._kitchen.time_s, wall_ns, joint_state)
        due = self._frame_is_due(state.time_s)
        return state, self._kitchen.data.qpos.copy() if due else None

    def _hand_out(self, state: CycleState, positions: NDArray[np.float64] | None) -> None:
        if positions is not None:
            self._offer((state, positions), state.time_s)
        self._on_cycle(state)

    def _render(self) -> None:
        model = self._kitchen.model
        data = mujoco.MjData(model)
        with CameraRenderer(model) as renderer:
            self._camera_ready.set()
            for state, positions in self._frames():
                data.qpos[:] = positions
                with self._scene_lock:
                    mujoco.mj_kinematics(model, data)
                    mujoco.mj_comPos(model, data)
                    mujoco.mj_camlight(model, data)
                    renderer.update(data)
                self._on_image(state.time_s, state.wall_ns, renderer.draw())


class _LockedArm:
    """Context manager that holds the physics still and gives the arm."""

    def __init__(self, lock: threading.Lock, arm: XsArm) -> None:
        self._lock, self._arm = lock, arm

    def __enter__(self) -> XsArm:
        self._lock.acquire()
        return self._arm

    def __exit__(self, *_: object) -> None:
        self._lock.release()
