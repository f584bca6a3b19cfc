"""The kitchen's arm as the mechanism behind an emulated servo bus, in a process of its own.

The servos' controllers, profiles, limits and faults are those of `servo_bus_emulator`; here their
torques turn MuJoCo's joints, and what the joints do comes back to their encoders. A process of its
own, because servos answer within a millisecond and pictures take many. No ROS.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import numpy as np
from emulators.control_socket import ControlSocket
from node_common.realtime import prefer_process
from numpy.typing import NDArray
from servo_bus_emulator.bus import BusTiming
from servo_bus_emulator.bus_server import BusServer
from servo_bus_emulator.commands import execute
from servo_bus_emulator.plant import Drive, JointMotion
from servo_bus_emulator.widowx import widowx_bus
from widowx_control.gripper import finger_distance_m
from widowx_control.kinematics import NAMED_POSES
from widowx_control.xs_driver.configuration import load_configuration
from widowx_control.xs_driver.package_files import default_modes, default_motors

from robot_sim.kitchen import Kitchen
from robot_sim.scene_layout import SceneLayout
from robot_sim.scene_model import ARM_JOINTS, TIMESTEP_S

_JOINTS: Final = (*ARM_JOINTS, "gripper")
_REALTIME_PRIORITY: Final = 30
_NO_DRIVE: Final = Drive()
_START_S: Final = 30.0
_SILENCE_S: Final = 5.0
_END_S: Final = 2.0


@dataclass(frozen=True)
class ServoBusOptions:
    """Where the emulated bus is found."""

    link: Path
    """Symbolic link to the pseudo-terminal."""
    control: Path | None = None
    """Unix socket that takes the emulator's commands, such as faults."""


@dataclass(frozen=True)
class PhysicsState:
    """What the physics behind the bus is at one moment; see `Kitchen.state`."""

    layouts: int
    """How many layouts had been laid by then."""
    time_s: float
    wall_ns: int
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]


class KitchenPlant:
    """`servo_bus_emulator.plant.Plant` on a kitchen: physics at its own fixed step.

    The bus asks for any duration, the kitchen knows steps of `TIMESTEP_S` only. What is left over
    waits for the next call, and the answer is extrapolated by it.
    """

    max_step_s: Final = TIMESTEP_S

    def __init__(self, kitchen: Kitchen, lock: threading.Lock) -> None:
        """Take the joints over; `lock` is held around every use of the kitchen."""
        self._kitchen = kitchen
        self._lock = lock
        self._due_s = 0.0
        kitchen.release_joints()

    def advance(self, duration_s: float, drives: Mapping[str, Drive]) -> Mapping[str, JointMotion]:
        """Integrate; see `Plant`."""
        self._due_s += duration_s
        joint_drives = [drives.get(name, _NO_DRIVE) for name in _JOINTS]
        with self._lock:
            if self._due_s >= TIMESTEP_S:
                self._kitchen.advance_driven(
                    np.array([drive.torque_nm for drive in joint_drives]),
                    np.array([drive.damping_nm_s_per_rad for drive in joint_drives]),
                )
                self._due_s -= TIMESTEP_S
            positions, velocities = self._kitchen.joint_motion
        positions = positions + velocities * self._due_s
        return {
            name: JointMotion(position, velocity)
            for name, position, velocity in zip(
                _JOINTS, positions.tolist(), velocities.tolist(), strict=True
            )
        }


class ServoBusProcess:
    """Physics and servo bus of a kitchen's arm in another process, in real time.

    The arm starts folded, as one that was switched off, its servos without torque.

    Args:
        options: where the bus is found.
        layout: of the scene at the start.
        period_s: time between the states that `receive` returns.
    """

    def __init__(self, options: ServoBusOptions, layout: SceneLayout, period_s: float) -> None:
        """Start the process; the port is there when the first state is received."""
        self.port = str(options.link)
        self.layouts = 0
        """How many layouts were laid with `lay`."""
        self._heard = False
        self._connection, other_end = multiprocessing.Pipe()
        # A program of its own: multiprocessing would import the node, with ROS, once more.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "robot_sim.servo_bus", str(other_end.fileno())],
            pass_fds=[other_end.fileno()],
        )
        other_end.close()
        self._connection.send((options, layout, period_s))

    def receive(self) -> PhysicsState:
        """Wait for the next state.

        Raises:
            RuntimeError: the process has failed or is silent; says why.
        """
        if not self._connection.poll(_SILENCE_S if self._heard else _START_S):
            raise RuntimeError("the process of the servo bus is silent")
        try:
            message = self._connection.recv()
        except (EOFError, OSError):
            raise RuntimeError("the process of the servo bus has ended") from None
        if isinstance(message, str):
            raise RuntimeError(f"the servo bus failed: {message}")
        self._heard = True
        state: PhysicsState = message
        return state

    def lay(self, layout: SceneLayout) -> None:
        """Put the scene into a layout; the arm stays where it is."""
        self.layouts += 1
        self._connection.send(layout)

    def stop(self) -> None:
        """End the process, which removes its link and its socket."""
        with contextlib.suppress(OSError):
            self._connection.send(None)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(connection: Connection) -> None:
    """Body of the process: serve the bus, tell of the physics, end with the other side."""
    # Who started this process ends it; an interruption from the terminal reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(0.0005)
    lock = threading.Lock()
    try:
        options, layout, period_s = connection.recv()
        kitchen = Kitchen()
        kitchen.set_layout(layout)
        kitchen.set_arm(NAMED_POSES["sleep"], finger_distance_m(0.0))
        configuration = load_configuration(default_motors(), default_modes())
        bus = widowx_bus(configuration, plant=KitchenPlant(kitchen, lock), timing=BusTiming())
        server = BusServer(bus, options.link, _REALTIME_PRIORITY)
        with ExitStack() as running:
            running.enter_context(server)
            if options.control is not None:
                running.enter_context(ControlSocket(partial(execute, server), options.control))
            prefer_process()
            _tell(connection, kitchen, lock, server, period_s)
    except (EOFError, ConnectionError):
        return
    except Exception as error:
        with contextlib.suppress(OSError):
            connection.send(f"{type(error).__name__}: {error}")


def _tell(
    connection: Connection,
    kitchen: Kitchen,
    lock: threading.Lock,
    server: BusServer,
    period_s: float,
) -> None:
    layouts = 0
    due_s = time.monotonic()
    while server.running:
        with lock:
            state = PhysicsState(layouts, kitchen.time_s, time.time_ns(), *kitchen.state)
        connection.send(state)
        due_s = max(due_s + period_s, time.monotonic())
        while connection.poll(max(0.0, due_s - time.monotonic())):
            layout = connection.recv()
            if layout is None:
                return
            with lock:
                kitchen.set_layout(layout)
            layouts += 1
    raise RuntimeError("the thread of the bus has died; its error is above")


if __name__ == "__main__":
    # Sent objects are of the imported module's classes, not of this program's.
    from robot_sim import servo_bus

    servo_bus.serve(Connection(int(sys.argv[1])))
