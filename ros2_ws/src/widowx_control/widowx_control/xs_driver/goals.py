"""From commands in SI units to goal registers in raw units, with every check."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence

from widowx_control.gripper import servo_angle_rad
from widowx_control.xs_driver.arm_servos import (
    STREAM_REGISTERS,
    ArmServos,
    Servo,
    start_modes,
)
from widowx_control.xs_driver.configuration import (
    OPERATING_MODES,
    POSITION_MODES,
    ArmConfiguration,
    Mode,
)
from widowx_control.xs_driver.control_table import CENTRE_TICKS, RAD_PER_TICK
from widowx_control.xs_driver.driver_types import CommandRefused
from widowx_control.xs_driver.trajectory import (
    Trajectory,
    TrajectoryPoint,
    trajectory_problem,
)
from widowx_control.xs_driver.units import current_units, ticks_from_rad, velocity_units


class ModeRecords:
    """Mode of every group and motor, as last set. Thread-safe."""

    def __init__(self, configuration: ArmConfiguration) -> None:
        """Start with the configured modes."""
        self._configuration = configuration
        self._lock = threading.Lock()
        self._motors = start_modes(configuration)
        self._groups = {
            name: configuration.group_modes.get(name, Mode()) for name in configuration.groups
        }

    def of(self, cmd_type: str, name: str) -> Mode:
        """Return the mode of a group or a motor.

        Raises:
            KeyError: unknown cmd_type or name.
        """
        self._configuration.motors_of(cmd_type, name)
        with self._lock:
            return self._groups[name] if cmd_type == "group" else self._motors[name]

    def of_motor(self, name: str) -> Mode:
        """Return the mode of a motor, shadows included."""
        with self._lock:
            return self._motors[name]

    def set(self, cmd_type: str, name: str, motors: Iterable[str], mode: Mode) -> None:
        """Record a mode for motors, and for the group if it is one."""
        with self._lock:
            for motor in motors:
                self._motors[motor] = mode
            if cmd_type == "group":
                self._groups[name] = mode


class GoalTranslator:
    """Checks commands and turns them into goals.

    Args:
        configuration: of the arm.
        servos: what is known of the servos: limits, torque, whether they answer.
        modes: gives the unit of a command.
        limit_tolerance_rad: goals beyond a limit by less are clipped.
    """

    def __init__(
        self,
        configuration: ArmConfiguration,
        servos: ArmServos,
        modes: ModeRecords,
        limit_tolerance_rad: float,
    ) -> None:
        """Keep the parts."""
        self._configuration = configuration
        self._servos = servos
        self._modes = modes
        self._limit_tolerance_rad = limit_tolerance_rad

    def targets(self, cmd_type: str, name: str) -> tuple[str, ...]:
        """Return the motors that a command is for.

        Raises:
            CommandRefused: unknown cmd_type or name, or a shadow: it would work against its master.
        """
        try:
            motors = self._configuration.motors_of(cmd_type, name)
        except KeyError as error:
            raise CommandRefused("unknown_name", str(error.args[0])) from error
        for motor in motors:
            if motor in self._servos.master_of:
                raise CommandRefused(
                    "shadow", f"{motor} follows {self._servos.master_of[motor]}; command that one"
                )
        return motors

    def goals(
        self, cmd_type: str, name: str, motors: Sequence[str], values: Sequence[float]
    ) -> dict[str, dict[int, int]]:
        """Return the goals of a command, raw, by register and servo id.

        Args:
            cmd_type: 'group' or 'single'.
            name: of the group or motor.
            motors: what `targets` said.
            values: one for each of them, in the unit of the mode.

        Raises:
            CommandRefused: nothing of it may be carried out; the text says why.
        """
        if len(values) != len(motors):
            raise CommandRefused(
                "wrong_length",
                f"command for '{name}' has {len(values)} values; expected {len(motors)} for "
                f"{list(motors)}",
            )
        if not all(map(math.isfinite, values)):
            raise CommandRefused(
                "not_finite", f"command for '{name}' has a value that is not finite: {values}"
            )
        mode = self._modes.of(cmd_type, name).operating_mode
        goals: dict[str, dict[int, int]] = {}
        for motor, value in zip(motors, values, strict=True):
            servo = self._servos.by_name[motor]
            if OPERATING_MODES[self._modes.of_motor(motor).operating_mode] != OPERATING_MODES[mode]:
                continue
            if servo.missing or servo.rebooting:
                raise CommandRefused("servo_missing", f"{motor} does not answer")
            if not servo.torque_wanted:
                raise CommandRefused("torque_off", f"{motor} has no torque; call torque_enable")
            register, raw = self._goal(servo, mode, value)
            goals.setdefault(register, {})[servo.servo_id] = raw
        if not goals:
            raise CommandRefused("wrong_mode", f"no joint of '{name}' is in mode '{mode}'")
        return goals

    def _goal(self, servo: Servo, mode: str, value: float) -> tuple[str, int]:
        """Return (register, raw value), clipped within the tolerance."""
        if mode in POSITION_MODES:
            if mode == "linear_position":
                try:
                    value = servo_angle_rad(value)
                except ValueError as error:
                    raise CommandRefused("out_of_limits", f"{servo.name}: {error}") from error
            if abs(value) > 1e4:
                raise CommandRefused("out_of_limits", f"{servo.name}: {value} rad is no angle")
            ticks = ticks_from_rad(value)
            low, high = self._servos.position_limits(servo)
            slack = self._limit_tolerance_rad / RAD_PER_TICK
            if not low - slack <= ticks <= high + slack:
                raise CommandRefused(
                    "out_of_limits",
                    f"{servo.name}: goal {value:.4f} rad is outside the servo's limits "
                    f"{(low - CENTRE_TICKS) * RAD_PER_TICK:.4f}.."
                    f"{(high - CENTRE_TICKS) * RAD_PER_TICK:.4f} rad",
                )
            return "Goal_Position", min(max(ticks, low), high)
        if abs(value) > 1e6:
            raise CommandRefused("out_of_limits", f"{servo.name}: {value} is out of any range")
        if mode == "velocity":
            raw, limit_register = velocity_units(value), "Velocity_Limit"
        elif mode == "current":
            raw, limit_register = current_units(value), "Current_Limit"
        else:
            raw, limit_register = int(value), "PWM_Limit"
        limit = servo.known(limit_register)
        if abs(raw) > limit:
            raise CommandRefused(
                "out_of_limits",
                f"{servo.name}: {mode} goal {value} is {raw} in raw units; {limit_register} is "
                f"{limit}",
            )
        return STREAM_REGISTERS[mode], raw

    def trajectory(
        self,
        cmd_type: str,
        name: str,
        joint_names: Sequence[str],
        points: Mapping[str, Sequence[tuple[float, Sequence[float]]]],
    ) -> Trajectory:
        """Return the checked trajectory; see `XsDriver.command_trajectory` for the arguments.

        Raises:
            CommandRefused: it is not valid, or one of its points may not be carried out.
        """
        motors = self.targets(cmd_type, name)
        mode = self._modes.of(cmd_type, name).operating_mode
        kind = {"velocity": "velocities", "pwm": "effort", "current": "effort"}.get(
            mode, "positions"
        )
        chosen = [TrajectoryPoint(t, tuple(map(float, values))) for t, values in points[kind]]
        problem = trajectory_problem(chosen, len(motors))
        if problem:
            raise CommandRefused("bad_trajectory", f"trajectory for '{name}', {kind}: {problem}")
        if joint_names:
            if sorted(joint_names) != sorted(motors):
                raise CommandRefused(
                    "unknown_name",
                    f"trajectory for '{name}' names {list(joint_names)}; expected {list(motors)}",
                )
            order = [list(joint_names).index(motor) for motor in motors]
            chosen = [
                TrajectoryPoint(p.time_from_start_s, tuple(p.values[i] for i in order))
                for p in chosen
            ]
        for point in chosen[1:]:
            self.goals(cmd_type, name, motors, point.values)
        return Trajectory(cmd_type, name, tuple(motors), tuple(chosen))
