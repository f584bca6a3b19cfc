"""The kitchen's arm as the mechanism behind an emulated servo bus.

The servos' controllers, profiles, limits and faults are those of `servo_bus_emulator`; here their
torques turn MuJoCo's joints, and what the joints do comes back to their encoders. No ROS.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
from servo_bus_emulator.bus import BusTiming
from servo_bus_emulator.control_socket import ControlSocket
from servo_bus_emulator.plant import Drive, JointMotion
from servo_bus_emulator.pseudo_terminal import BusServer
from servo_bus_emulator.widowx import widowx_bus
from widowx_control.gripper import finger_distance_m
from widowx_control.kinematics import NAMED_POSES
from widowx_control.xs_driver.configuration import load_configuration
from widowx_control.xs_driver.package_files import default_modes, default_motors

from robot_sim.kitchen import Kitchen
from robot_sim.scene_model import ARM_JOINTS, TIMESTEP_S

_JOINTS: Final = (*ARM_JOINTS, "gripper")
_REALTIME_PRIORITY: Final = 30
_NO_DRIVE: Final = Drive()


@dataclass(frozen=True)
class ServoBusOptions:
    """Where the emulated bus is found."""

    link: Path
    """Symbolic link to the pseudo-terminal."""
    control: Path | None = None
    """Unix socket that takes the emulator's commands, such as faults."""


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


class KitchenServoBus:
    """The servo bus of a kitchen's arm on a pseudo-terminal, in real time: a context manager.

    The arm starts folded, as one that was switched off, its servos without torque.
    """

    def __init__(self, kitchen: Kitchen, lock: threading.Lock, options: ServoBusOptions) -> None:
        """Put the arm into its sleep pose and prepare; nothing runs yet."""
        kitchen.set_arm(NAMED_POSES["sleep"], finger_distance_m(0.0))
        configuration = load_configuration(default_motors(), default_modes())
        bus = widowx_bus(configuration, plant=KitchenPlant(kitchen, lock), timing=BusTiming())
        self._server = BusServer(bus, options.link, _REALTIME_PRIORITY)
        self._control = options.control
        self._running = ExitStack()

    @property
    def port(self) -> str:
        """The port that a driver opens."""
        return self._server.port

    def check(self) -> None:
        """Raise RuntimeError when the thread of the bus has died."""
        if not self._server.running:
            raise RuntimeError("the thread of the servo bus has died; its error is above")

    def __enter__(self) -> KitchenServoBus:
        """Start physics and bus.

        Raises:
            FileExistsError: something that is not a link is where the link should be.
        """
        self._running.enter_context(self._server)
        if self._control is not None:
            self._running.enter_context(ControlSocket(self._server, self._control))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop both."""
        self._running.close()
