"""The simulated arm behind the commands, registers and answers of an Interbotix driver.

Semantics are those of xs_sdk for the stock wx250s; what is wrong in a request is raised as
`XsArmError`, and nothing of the request takes effect then. No ROS, no locks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from widowx_control.gripper import servo_angle_rad
from widowx_control.xs_driver.configuration import (
    OPERATING_MODES,
    POSITION_MODES,
    ArmConfiguration,
    Mode,
    load_configuration,
    mode_problem,
)
from widowx_control.xs_driver.control_table import (
    CENTRE_TICKS,
    DRIVE_TIME_PROFILE,
    FULL_PWM,
    MA_PER_UNIT,
    MODE_CURRENT,
    MODE_CURRENT_BASED_POSITION,
    MODE_EXTENDED_POSITION,
    MODE_POSITION,
    MODE_PWM,
    MODE_VELOCITY,
    RAD_PER_S_PER_UNIT,
    RAD_PER_TICK,
    XL430_W250,
    XM430_W350,
    Register,
    ServoModel,
)
from widowx_control.xs_driver.package_files import default_modes, default_motors
from widowx_control.xs_driver.robot_info import RobotInfo, limits_from_urdf, robot_info
from widowx_control.xs_driver.trajectory import (
    Trajectory,
    TrajectoryPlayer,
    TrajectoryPoint,
    trajectory_problem,
)
from widowx_description import urdf_text

from robot_sim.kitchen import GRIPPER, Kitchen

GRIPPER_NAME: Final = "gripper"
_TORQUE_CONSTANT_NM_A: Final = XM430_W350.stall_torque_nm / XM430_W350.stall_current_ma * 1000
_PWM_PER_TICK: Final = 1 / 128  # position P gain register to PWM per tick of error
_POSITION_NUMBERS: Final = (MODE_POSITION, MODE_EXTENDED_POSITION, MODE_CURRENT_BASED_POSITION)
_PID_REGISTERS: Final = (
    "Position_P_Gain",
    "Position_I_Gain",
    "Position_D_Gain",
    "Feedforward_1st_Gain",
    "Feedforward_2nd_Gain",
    "Velocity_P_Gain",
    "Velocity_I_Gain",
)


class XsArmError(ValueError):
    """A request that cannot be carried out; says what was found and what was expected."""


def _model(servo: str) -> ServoModel:
    return XL430_W250 if servo in ("wrist_rotate", GRIPPER_NAME) else XM430_W350


class XsArm:
    """The nine servos of the wx250s on the physics of a `Kitchen`.

    Servo ids, limits, groups and the modes at the start are those of the configuration files that
    the driver of the real arm ships with.
    """

    def __init__(self, kitchen: Kitchen) -> None:
        """Take over the servos of `kitchen`."""
        self._kitchen = kitchen
        self._player = TrajectoryPlayer()
        self._configuration: ArmConfiguration = load_configuration(
            default_motors(), default_modes()
        )
        self._limits = limits_from_urdf(urdf_text())
        c = self._configuration
        self._index = {name: i for i, name in enumerate(c.joint_order)}
        self._shadow = {master: names[0] for master, names in c.shadows.items()}
        self._master = {shadow: master for master, shadow in self._shadow.items()}
        self._registers: dict[str, dict[str, int]] = {}
        for name, motor in c.motors.items():
            table = {r.name: r.initial for r in _model(name).registers.values()}
            table |= motor.eeprom
            self._registers[name] = table | {"ID": motor.servo_id, "Torque_Enable": 1}
        self._group_modes = {group: Mode() for group in c.groups}
        self._motor_modes = {motor: Mode() for motor in c.motors}
        for group, mode in c.group_modes.items():
            self._apply_mode("group", group, mode)
        for name, mode in c.motor_modes.items():
            self._apply_mode("single", name, mode)

    def _servos(self, cmd_type: str, name: str) -> tuple[str, ...]:
        try:
            return self._configuration.motors_of(cmd_type, name)
        except KeyError as error:
            raise XsArmError(error.args[0]) from error

    def _mode(self, cmd_type: str, name: str) -> Mode:
        return self._group_modes[name] if cmd_type == "group" else self._motor_modes[name]

    # Information

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names and order of joint_states."""
        return self._configuration.joint_names()

    def robot_info(self, cmd_type: str, name: str) -> RobotInfo:
        """What get_robot_info answers.

        Raises:
            XsArmError: unknown cmd_type or name.
        """
        self._servos(cmd_type, name)
        mode = self._mode(cmd_type, name)
        return robot_info(self._configuration, self._limits, cmd_type, name, mode)

    def joint_state(self) -> tuple[list[float], list[float], list[float]]:
        """Positions [rad, m], velocities [rad/s] and efforts in the order of `joint_names`."""
        k = self._kitchen
        finger = k.finger_m
        positions = [*k.arm_positions_rad.tolist(), k.gripper_angle_rad, finger, -finger]
        velocities = [*k.arm_velocities_rad_s.tolist(), k.gripper_velocity_rad_s, 0.0, 0.0]
        units = [self._load_units(servo) for servo in self._configuration.joint_order]
        return positions, velocities, [*(u * MA_PER_UNIT for u in units), 0.0, 0.0]

    def _load_units(self, servo: str) -> int:
        """Present_Current (XM430) or Present_Load (XL430) in register units."""
        if servo == GRIPPER_NAME:
            return round(1000 * self._kitchen.applied_gripper_pwm / FULL_PWM)
        torque = float(self._kitchen.arm_torques_nm[self._index[servo]])
        model = _model(servo)
        if not model.has_current_sensor:
            return round(1000 * torque / model.stall_torque_nm)
        return round(1000 * torque / self._count(servo) / _TORQUE_CONSTANT_NM_A / MA_PER_UNIT)

    def _count(self, servo: str) -> int:
        """How many servos turn this joint."""
        return 2 if servo in self._shadow else 1

    # Registers

    def read_registers(self, cmd_type: str, name: str, register: str) -> list[int]:
        """One value per motor.

        Raises:
            XsArmError: unknown name, or a register that a motor lacks.
        """
        return [self._read(servo, register) for servo in self._servos(cmd_type, name)]

    def _register(self, servo: str, name: str) -> Register:
        table = _model(servo).registers
        if name not in table:
            raise XsArmError(f"found the register '{name}'; the {_model(servo).name} has no such")
        return table[name]

    def _read(self, servo: str, register: str) -> int:
        self._register(servo, register)
        master = self._master.get(servo, servo)
        k, index = self._kitchen, self._index[master]
        gripper = index == GRIPPER
        position = k.gripper_angle_rad if gripper else float(k.arm_positions_rad[index])
        speed = k.gripper_velocity_rad_s if gripper else float(k.arm_velocities_rad_s[index])
        references, reference_speeds = k.profiles.reference()
        if register == "Present_Position":
            return CENTRE_TICKS + round(position / RAD_PER_TICK)
        if register == "Present_Velocity":
            return round(speed / RAD_PER_S_PER_UNIT)
        if register in ("Present_Current", "Present_Load"):
            return self._load_units(master)
        if register == "Position_Trajectory":
            return CENTRE_TICKS + round(references[index] / RAD_PER_TICK)
        if register == "Velocity_Trajectory":
            return round(reference_speeds[index] / RAD_PER_S_PER_UNIT)
        if register == "Present_PWM":
            return round(k.applied_gripper_pwm) if gripper else 0
        if register == "Moving":
            return int(speed != 0.0)
        return self._registers[servo][register]

    def write_registers(self, cmd_type: str, name: str, register: str, value: int) -> None:
        """Write one value to every motor of a group, or to one motor.

        Raises:
            XsArmError: unknown name or register, read-only, out of range, or EEPROM under torque.
        """
        servos = self._servos(cmd_type, name)
        for servo in servos:
            known = self._register(servo, register)
            if not known.writable:
                raise XsArmError(f"register {register} is read-only")
            if not known.minimum <= value <= known.maximum:
                raise XsArmError(
                    f"found {value} for {register}; expected {known.minimum}..{known.maximum}"
                )
            if known.eeprom and self._registers[servo]["Torque_Enable"]:
                raise XsArmError(f"register {register} of {servo} is locked while its torque is on")
        for servo in servos:
            self._write(servo, register, value)

    def _write(self, servo: str, register: str, value: int) -> None:
        eeprom = self._register(servo, register).eeprom
        for listener in (servo, *([] if eeprom else [self._shadow.get(servo)])):
            if listener is not None:
                self._registers[listener][register] = value
        if servo in self._master:
            return
        k, index = self._kitchen, self._index[servo]
        at = np.array([index])
        if register == "Torque_Enable":
            k.set_torque(at, bool(value))
        elif register == "Profile_Velocity":
            k.profiles.profile_velocity[index] = value
        elif register == "Profile_Acceleration":
            k.profiles.profile_acceleration[index] = value
        elif register == "Drive_Mode":
            k.profiles.time_based[index] = bool(value & DRIVE_TIME_PROFILE)
        elif register == "Position_P_Gain":
            self._apply_gain(servo)
        elif register == "Goal_Position":
            k.set_goal([(value - CENTRE_TICKS) * RAD_PER_TICK], at)
        elif register in ("Goal_Velocity", "Goal_PWM", "Goal_Current"):
            self._apply_goal(servo, register, value)

    def _apply_goal(self, servo: str, register: str, value: int) -> None:
        """Act on a goal register if the servo's operating mode listens to it."""
        k, index = self._kitchen, self._index[servo]
        mode = self._registers[servo]["Operating_Mode"]
        if register == "Goal_Velocity" and mode == MODE_VELOCITY:
            k.profiles.set_speed(np.array([index]), [value * RAD_PER_S_PER_UNIT])
        elif register == "Goal_PWM" and mode == MODE_PWM:
            if index == GRIPPER:
                k.gripper_pwm = float(value)
            else:
                stall = _model(servo).stall_torque_nm * self._count(servo)
                k.joint_torques_nm[index] = stall * value / FULL_PWM
        elif register == "Goal_Current" and mode == MODE_CURRENT:
            amperes = value * MA_PER_UNIT / 1000
            k.joint_torques_nm[index] = self._count(servo) * _TORQUE_CONSTANT_NM_A * amperes

    def _apply_gain(self, servo: str) -> None:
        gain = self._registers[servo]["Position_P_Gain"]
        if servo != GRIPPER_NAME:
            factory = _model(servo).registers["Position_P_Gain"].initial
            self._kitchen.set_stiffness(self._index[servo], gain / factory)
        elif self._kitchen.gripper_position_gain is not None:
            self._kitchen.gripper_position_gain = gain * _PWM_PER_TICK

    # Services

    def set_torque(self, cmd_type: str, name: str, enable: bool) -> None:
        """Torque_Enable of a group or a motor, with its shadows.

        Raises:
            XsArmError: unknown cmd_type or name.
        """
        for servo in self._servos(cmd_type, name):
            self._write(servo, "Torque_Enable", int(enable))

    def set_operating_modes(
        self,
        cmd_type: str,
        name: str,
        mode: str,
        profile_type: str,
        profile_velocity: int,
        profile_acceleration: int,
    ) -> None:
        """Operating mode and profile of a group or a motor; torque is on afterwards.

        Raises:
            XsArmError: unknown name, mode or profile type, a profile out of range, or a mode that
                a servo of the group does not have.
        """
        wanted = Mode(mode, profile_type, profile_velocity, profile_acceleration)
        problem = mode_problem(wanted)
        if problem:
            raise XsArmError(problem)
        number = OPERATING_MODES[mode]
        for servo in self._servos(cmd_type, name):
            if number not in _model(servo).operating_modes:
                raise XsArmError(f"{servo} is an {_model(servo).name}, which has no mode '{mode}'")
        self._apply_mode(cmd_type, name, wanted)

    def _apply_mode(self, cmd_type: str, name: str, mode: Mode) -> None:
        servos = self._servos(cmd_type, name)
        for servo in servos:
            self._set_mode(servo, mode)
            self._motor_modes[servo] = mode
        if cmd_type == "group":
            self._group_modes[name] = mode

    def _set_mode(self, servo: str, mode: Mode) -> None:
        number = OPERATING_MODES[mode.operating_mode]
        self._write(servo, "Torque_Enable", 0)
        for each in (servo, self._shadow.get(servo)):
            if each is not None:
                drive = self._registers[each]["Drive_Mode"] & ~DRIVE_TIME_PROFILE
                drive |= DRIVE_TIME_PROFILE if mode.profile_type == "time" else 0
                self._registers[each]["Drive_Mode"] = drive
                self._registers[each]["Operating_Mode"] = number
        if servo not in self._master:
            k, index = self._kitchen, self._index[servo]
            k.profiles.time_based[index] = mode.profile_type == "time"
            if index == GRIPPER:
                gain = self._registers[servo]["Position_P_Gain"] * _PWM_PER_TICK
                k.gripper_position_gain = None if number == MODE_PWM else gain
                k.gripper_pwm = 0.0
            else:
                k.set_torque_mode(np.array([index]), number in (MODE_PWM, MODE_CURRENT))
        if number in (MODE_POSITION, MODE_EXTENDED_POSITION):
            self._write(servo, "Profile_Velocity", mode.profile_velocity)
        if number in (MODE_POSITION, MODE_EXTENDED_POSITION, MODE_VELOCITY):
            self._write(servo, "Profile_Acceleration", mode.profile_acceleration)
        self._write(servo, "Torque_Enable", 1)

    def set_pid_gains(
        self,
        cmd_type: str,
        name: str,
        gains: tuple[int, int, int, int, int, int, int],
    ) -> None:
        """Write kp_pos, ki_pos, kd_pos, k1, k2, kp_vel, ki_vel. Only kp_pos changes the motion.

        Raises:
            XsArmError: unknown name, or a gain out of range.
        """
        servos = self._servos(cmd_type, name)
        for register, value in zip(_PID_REGISTERS, gains, strict=True):
            known = self._register(servos[0], register)
            if not known.minimum <= value <= known.maximum:
                raise XsArmError(
                    f"found {value} for {register}; expected {known.minimum}..{known.maximum}"
                )
        for servo in servos:
            for register, value in zip(_PID_REGISTERS, gains, strict=True):
                self._write(servo, register, value)

    def reboot(self, cmd_type: str, name: str, enable: bool, smart: bool) -> None:
        """Restart motors: RAM registers return to their initial values, so profiles become 0.

        A group reboot with `smart` leaves motors without a hardware error alone.

        Raises:
            XsArmError: unknown cmd_type or name.
        """
        for servo in self._servos(cmd_type, name):
            healthy = self._registers[servo]["Hardware_Error_Status"] == 0
            if smart and cmd_type == "group" and healthy:
                continue
            self._write(servo, "Torque_Enable", 0)
            for register in _model(servo).registers.values():
                if not register.eeprom and register.writable and "Goal" not in register.name:
                    self._write(servo, register.name, register.initial)
            if enable:
                self._write(servo, "Torque_Enable", 1)

    # Commands

    def command_group(self, name: str, values: Sequence[float]) -> None:
        """One JointGroupCommand; the unit depends on the group's mode.

        Raises:
            XsArmError: unknown group, wrong length, or a value that is not finite.
        """
        servos = self._servos("group", name)
        if len(values) != len(servos):
            raise XsArmError(
                f"found {len(values)} values for the group '{name}'; expected {len(servos)}"
            )
        self._command(servos, values, self._group_modes[name].operating_mode)

    def command_single(self, name: str, value: float) -> None:
        """One JointSingleCommand; the unit depends on the motor's mode.

        Raises:
            XsArmError: unknown motor, or a value that is not finite.
        """
        self._command(self._servos("single", name), [value], self._motor_modes[name].operating_mode)

    def _command(self, servos: tuple[str, ...], values: Sequence[float], mode: str) -> None:
        if not all(math.isfinite(v) for v in values):
            raise XsArmError(f"found the command {list(values)}; expected finite numbers")
        if mode in POSITION_MODES:
            self._command_position(servos, values, linear=mode == "linear_position")
            return
        register, unit = {
            "velocity": ("Goal_Velocity", RAD_PER_S_PER_UNIT),
            "current": ("Goal_Current", MA_PER_UNIT),
            "pwm": ("Goal_PWM", 1.0),
        }[mode]
        for servo, value in zip(servos, values, strict=True):
            known = self._register(servo, register)
            units = min(max(int(value / unit), known.minimum), known.maximum)
            if register == "Goal_Velocity":
                limit = self._registers[servo]["Velocity_Limit"]
                units = min(max(units, -limit), limit)
            self._write(servo, register, units)

    def _command_position(
        self, servos: tuple[str, ...], values: Sequence[float], linear: bool
    ) -> None:
        index, goals = [], []
        for servo, value in zip(servos, values, strict=True):
            if servo in self._master:
                continue  # shadows follow their master and obey no goal of their own
            if linear and servo == GRIPPER_NAME:
                try:
                    goal = servo_angle_rad(value)
                except ValueError as error:
                    raise XsArmError(str(error)) from error
            else:
                goal = value
            table = self._registers[servo]
            if table["Operating_Mode"] not in _POSITION_NUMBERS:
                continue
            ticks = CENTRE_TICKS + int(goal / RAD_PER_TICK)
            if table["Operating_Mode"] == MODE_POSITION and not (
                table["Min_Position_Limit"] <= ticks <= table["Max_Position_Limit"]
            ):
                # The servo refuses the write and keeps its goal.
                continue
            table["Goal_Position"] = ticks
            if servo in self._shadow:
                self._registers[self._shadow[servo]]["Goal_Position"] = ticks
            index.append(self._index[servo])
            goals.append(goal)
        if index:
            self._kitchen.set_goal(goals, np.array(index))

    # Trajectories

    @property
    def trajectory_running(self) -> bool:
        """Whether a JointTrajectoryCommand is being carried out."""
        return self._player.running is not None

    def values_key(self, cmd_type: str, name: str) -> str:
        """Which field of a trajectory's points counts: positions, velocities or effort.

        Raises:
            XsArmError: unknown cmd_type or name.
        """
        self._servos(cmd_type, name)
        mode = self._mode(cmd_type, name).operating_mode
        if mode in POSITION_MODES:
            return "positions"
        return "velocities" if mode == "velocity" else "effort"

    def start_trajectory(
        self, cmd_type: str, name: str, times_s: Sequence[float], values: Sequence[Sequence[float]]
    ) -> None:
        """Start one JointTrajectoryCommand: point 0 is skipped, point k is sent at time k-1.

        Args:
            cmd_type: "group" or "single".
            name: of the group or motor.
            times_s: full time from start of every point.
            values: per point one value per motor, in the unit of the mode.

        Raises:
            XsArmError: one is running already, or a name, length, time or value is wrong.
        """
        servos = self._servos(cmd_type, name)
        if self.trajectory_running:
            raise XsArmError("a trajectory is running; a new one is accepted when it is done")
        points = tuple(TrajectoryPoint(t, tuple(v)) for t, v in zip(times_s, values, strict=True))
        problem = trajectory_problem(points, len(servos))
        if problem:
            raise XsArmError(f"the trajectory is wrong: {problem}")
        self._player.start(Trajectory(cmd_type, name, servos, points), self._kitchen.time_s)
        self.update()

    def update(self) -> None:
        """Send the trajectory point that is due. Call it before every advance of the physics."""
        trajectory = self._player.running
        point = self._player.due(self._kitchen.time_s + 1e-9)
        if trajectory is None or point is None:
            return
        mode = self._mode(trajectory.cmd_type, trajectory.name).operating_mode
        self._command(trajectory.motors, point.values, mode)
