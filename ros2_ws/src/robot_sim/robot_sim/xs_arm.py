"""The simulated arm behind the commands, registers and answers of an Interbotix driver.

Semantics are those of xs_sdk for the stock wx250s; what is wrong in a request is raised as
`XsArmError`, and nothing of the request takes effect then. No ROS, no locks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from widowx_control.gripper import finger_distance_m, servo_angle_rad
from widowx_control.kinematics import (
    JOINT_LOWER_RAD,
    JOINT_NAMES,
    JOINT_UPPER_RAD,
    JOINT_VELOCITY_RAD_S,
    NAMED_POSES,
)
from widowx_control.xs_driver.configuration import (
    OPERATING_MODES,
    POSITION_MODES,
    PROFILE_TYPES,
)
from widowx_control.xs_driver.control_table import (
    CENTRE_TICKS,
    DRIVE_REVERSE,
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

from robot_sim.kitchen import GRIPPER, Kitchen
from robot_sim.scene_model import FINGER_LOWER_M, FINGER_UPPER_M, LEFT_FINGER, RIGHT_FINGER

GRIPPER_NAME: Final = "gripper"
JOINT_STATE_NAMES: Final = (*JOINT_NAMES, GRIPPER_NAME, LEFT_FINGER, RIGHT_FINGER)
"""Names and order of joint_states."""
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "arm": JOINT_NAMES,
    "all": (*JOINT_NAMES, GRIPPER_NAME),
}
SHADOWS: Final = {"shoulder": "shoulder_shadow", "elbow": "elbow_shadow"}
_MASTERS: Final = {shadow: master for master, shadow in SHADOWS.items()}
SERVO_IDS: Final = {
    "waist": 1,
    "shoulder": 2,
    "shoulder_shadow": 3,
    "elbow": 4,
    "elbow_shadow": 5,
    "forearm_roll": 6,
    "wrist_angle": 7,
    "wrist_rotate": 8,
    "gripper": 9,
}
_INDEX: Final = {name: i for i, name in enumerate(GROUPS["all"])}
_REVERSED: Final = ("shoulder_shadow", "elbow_shadow", "wrist_angle")
_TICK_LIMITS: Final = {
    "shoulder": (819, 3345),
    "shoulder_shadow": (819, 3345),
    "elbow": (648, 3094),
    "elbow_shadow": (648, 3094),
    "wrist_angle": (910, 3447),
}
_VELOCITY_LIMIT_UNITS: Final = 131
_GRIPPER_VELOCITY_LIMIT_M_S: Final = 1.0
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


@dataclass
class ModeRecord:
    """Mode of a group or of a motor, as the driver remembers it."""

    mode: str
    profile_type: str


@dataclass(frozen=True)
class RobotInfo:
    """Answer to get_robot_info; defaults are what an unknown name gets."""

    mode: str = ""
    profile_type: str = ""
    joint_names: tuple[str, ...] = ()
    joint_ids: tuple[int, ...] = ()
    joint_lower_limits: tuple[float, ...] = ()
    joint_upper_limits: tuple[float, ...] = ()
    joint_velocity_limits: tuple[float, ...] = ()
    joint_sleep_positions: tuple[float, ...] = ()
    joint_state_indices: tuple[int, ...] = ()
    name: tuple[str, ...] = ()


@dataclass
class _Trajectory:
    cmd_type: str
    name: str
    times_s: list[float]
    commands: list[list[float]]
    next_point: int = 1
    started_s: float = field(default=0.0)


def _model(servo: str) -> ServoModel:
    return XL430_W250 if servo in ("wrist_rotate", GRIPPER_NAME) else XM430_W350


class XsArm:
    """The nine servos of the wx250s on the physics of a `Kitchen`.

    Starts as the stock launch file leaves the arm: group arm in position mode with the time
    profile 2000/300 ms, gripper in PWM mode, torque on.
    """

    def __init__(self, kitchen: Kitchen) -> None:
        """Take over the servos of `kitchen`."""
        self._kitchen = kitchen
        self._trajectory: _Trajectory | None = None
        self._registers: dict[str, dict[str, int]] = {}
        for name, servo_id in SERVO_IDS.items():
            table = {r.name: r.initial for r in _model(name).registers.values()}
            low, high = _TICK_LIMITS.get(name, (0, 4095))
            table |= {
                "ID": servo_id,
                "Baud_Rate": 3,
                "Return_Delay_Time": 0,
                "Drive_Mode": DRIVE_REVERSE if name in _REVERSED else 0,
                "Velocity_Limit": _VELOCITY_LIMIT_UNITS,
                "Min_Position_Limit": low,
                "Max_Position_Limit": high,
                "Torque_Enable": 1,
            }
            if name in _MASTERS:
                table["Secondary_ID"] = SERVO_IDS[_MASTERS[name]]
            self._registers[name] = table
        self._group_modes = {g: ModeRecord("position", "velocity") for g in GROUPS}
        self._motor_modes = {s: ModeRecord("position", "velocity") for s in SERVO_IDS}
        self.set_operating_modes("group", "arm", "position", "time", 2000, 300)
        self.set_operating_modes("single", GRIPPER_NAME, "pwm", "velocity", 0, 0)

    # Names

    def _servos(self, cmd_type: str, name: str) -> tuple[str, ...]:
        if cmd_type == "group":
            if name in GROUPS:
                return GROUPS[name]
            raise XsArmError(f"found the group '{name}'; expected one of {sorted(GROUPS)}")
        if cmd_type == "single":
            if name in SERVO_IDS:
                return (name,)
            raise XsArmError(f"found the motor '{name}'; expected one of {list(SERVO_IDS)}")
        raise XsArmError(f"found the cmd_type '{cmd_type}'; expected 'group' or 'single'")

    def _record(self, cmd_type: str, name: str) -> ModeRecord:
        return self._group_modes[name] if cmd_type == "group" else self._motor_modes[name]

    # Information

    def robot_info(self, cmd_type: str, name: str) -> RobotInfo:
        """What get_robot_info answers.

        Raises:
            XsArmError: unknown cmd_type or name, or a shadow servo, which has no joint.
        """
        servos = self._servos(cmd_type, name)
        if any(servo in _MASTERS for servo in servos):
            raise XsArmError(f"found the shadow motor '{name}'; it has no joint of its own")
        record = self._record(cmd_type, name)
        lower = [*JOINT_LOWER_RAD.tolist(), FINGER_LOWER_M]
        upper = [*JOINT_UPPER_RAD.tolist(), FINGER_UPPER_M]
        speed = [*JOINT_VELOCITY_RAD_S.tolist(), _GRIPPER_VELOCITY_LIMIT_M_S]
        sleep = [*NAMED_POSES["sleep"], finger_distance_m(0.0)]
        at = [_INDEX[servo] for servo in servos]
        names = tuple(LEFT_FINGER if servo == GRIPPER_NAME else servo for servo in servos)
        return RobotInfo(
            mode=record.mode,
            profile_type=record.profile_type,
            joint_names=names,
            joint_ids=tuple(SERVO_IDS[servo] for servo in servos),
            joint_lower_limits=tuple(lower[i] for i in at),
            joint_upper_limits=tuple(upper[i] for i in at),
            joint_velocity_limits=tuple(speed[i] for i in at),
            joint_sleep_positions=tuple(sleep[i] for i in at),
            joint_state_indices=tuple(JOINT_STATE_NAMES.index(n) for n in names),
            name=tuple(GROUPS)[::-1] if (cmd_type, name) == ("group", "all") else (name,),
        )

    def joint_state(self) -> tuple[list[float], list[float], list[float]]:
        """Positions [rad, m], velocities [rad/s] and efforts in the order `JOINT_STATE_NAMES`."""
        k = self._kitchen
        finger = k.finger_m
        positions = [*k.arm_positions_rad.tolist(), k.gripper_angle_rad, finger, -finger]
        velocities = [*k.arm_velocities_rad_s.tolist(), k.gripper_velocity_rad_s, 0.0, 0.0]
        units = [self._load_units(servo) for servo in GROUPS["all"]]
        return positions, velocities, [*(u * MA_PER_UNIT for u in units), 0.0, 0.0]

    def _load_units(self, servo: str) -> int:
        """Present_Current (XM430) or Present_Load (XL430) in register units."""
        if servo == GRIPPER_NAME:
            return round(1000 * self._kitchen.applied_gripper_pwm / FULL_PWM)
        torque = float(self._kitchen.arm_torques_nm[_INDEX[servo]])
        if servo == "wrist_rotate":
            return round(1000 * torque / XL430_W250.stall_torque_nm)
        share = 2 if servo in SHADOWS else 1
        return round(1000 * torque / share / _TORQUE_CONSTANT_NM_A / MA_PER_UNIT)

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
        master = _MASTERS.get(servo, servo)
        k, index = self._kitchen, _INDEX[master]
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
        for listener in (servo, *([] if eeprom else [SHADOWS.get(servo)])):
            if listener is not None:
                self._registers[listener][register] = value
        if servo in _MASTERS:
            return
        k, index = self._kitchen, _INDEX[servo]
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
        k, index = self._kitchen, _INDEX[servo]
        mode = self._registers[servo]["Operating_Mode"]
        if register == "Goal_Velocity" and mode == MODE_VELOCITY:
            k.profiles.set_speed(np.array([index]), [value * RAD_PER_S_PER_UNIT])
        elif register == "Goal_PWM" and mode == MODE_PWM:
            if index == GRIPPER:
                k.gripper_pwm = float(value)
            else:
                stall = _model(servo).stall_torque_nm * (2 if servo in SHADOWS else 1)
                k.joint_torques_nm[index] = stall * value / FULL_PWM
        elif register == "Goal_Current" and mode == MODE_CURRENT:
            amperes = value * MA_PER_UNIT / 1000
            pair = 2 if servo in SHADOWS else 1
            k.joint_torques_nm[index] = pair * _TORQUE_CONSTANT_NM_A * amperes

    def _apply_gain(self, servo: str) -> None:
        gain = self._registers[servo]["Position_P_Gain"]
        if servo != GRIPPER_NAME:
            factory = _model(servo).registers["Position_P_Gain"].initial
            self._kitchen.set_stiffness(_INDEX[servo], gain / factory)
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
        servos = self._servos(cmd_type, name)
        if mode not in OPERATING_MODES:
            raise XsArmError(f"found the mode '{mode}'; expected one of {list(OPERATING_MODES)}")
        if profile_type not in PROFILE_TYPES:
            raise XsArmError(f"found the profile type '{profile_type}'; expected time or velocity")
        number = OPERATING_MODES[mode]
        for servo in servos:
            if number not in _model(servo).operating_modes:
                raise XsArmError(f"{servo} is an {_model(servo).name}, which has no mode '{mode}'")
            for register, value in (
                ("Profile_Velocity", profile_velocity),
                ("Profile_Acceleration", profile_acceleration),
            ):
                known = self._register(servo, register)
                if not 0 <= value <= known.maximum:
                    raise XsArmError(f"found {value} for {register}; expected 0..{known.maximum}")
        for servo in servos:
            self._set_mode(servo, number, profile_type, profile_velocity, profile_acceleration)
        record = ModeRecord(mode, profile_type)
        if cmd_type == "group":
            self._group_modes[name] = record
        for servo in servos:
            self._motor_modes[servo] = record

    def _set_mode(
        self, servo: str, number: int, profile_type: str, velocity: int, acceleration: int
    ) -> None:
        self._write(servo, "Torque_Enable", 0)
        for each in (servo, SHADOWS.get(servo)):
            if each is not None:
                drive = self._registers[each]["Drive_Mode"] & ~DRIVE_TIME_PROFILE
                drive |= DRIVE_TIME_PROFILE if profile_type == "time" else 0
                self._registers[each]["Drive_Mode"] = drive
                self._registers[each]["Operating_Mode"] = number
        if servo not in _MASTERS:
            k, index = self._kitchen, _INDEX[servo]
            k.profiles.time_based[index] = profile_type == "time"
            if index == GRIPPER:
                gain = self._registers[servo]["Position_P_Gain"] * _PWM_PER_TICK
                k.gripper_position_gain = None if number == MODE_PWM else gain
                k.gripper_pwm = 0.0
            else:
                k.set_torque_mode(np.array([index]), number in (MODE_PWM, MODE_CURRENT))
        if number in (MODE_POSITION, MODE_EXTENDED_POSITION):
            self._write(servo, "Profile_Velocity", velocity)
        if number in (MODE_POSITION, MODE_EXTENDED_POSITION, MODE_VELOCITY):
            self._write(servo, "Profile_Acceleration", acceleration)
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
        self._command(servos, values, self._group_modes[name].mode)

    def command_single(self, name: str, value: float) -> None:
        """One JointSingleCommand; the unit depends on the motor's mode.

        Raises:
            XsArmError: unknown motor, or a value that is not finite.
        """
        self._command(self._servos("single", name), [value], self._motor_modes[name].mode)

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
                units = min(max(units, -_VELOCITY_LIMIT_UNITS), _VELOCITY_LIMIT_UNITS)
            self._write(servo, register, units)

    def _command_position(
        self, servos: tuple[str, ...], values: Sequence[float], linear: bool
    ) -> None:
        index, goals = [], []
        for servo, value in zip(servos, values, strict=True):
            if servo in _MASTERS:
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
            if servo in SHADOWS:
                self._registers[SHADOWS[servo]]["Goal_Position"] = ticks
            index.append(_INDEX[servo])
            goals.append(goal)
        if index:
            self._kitchen.set_goal(goals, np.array(index))

    # Trajectories

    @property
    def trajectory_running(self) -> bool:
        """Whether a JointTrajectoryCommand is being carried out."""
        return self._trajectory is not None

    def start_trajectory(
        self,
        cmd_type: str,
        name: str,
        times_s: list[float],
        points: list[dict[str, list[float]]],
    ) -> None:
        """Start one JointTrajectoryCommand: point 0 is skipped, point k is sent at time k-1.

        Args:
            cmd_type: "group" or "single".
            name: of the group or motor.
            times_s: full time from start of every point.
            points: per point its `positions`, `velocities` and `effort`.

        Raises:
            XsArmError: one is running already, or a name, length, time or value is wrong.
        """
        servos = self._servos(cmd_type, name)
        if self._trajectory is not None:
            raise XsArmError("a trajectory is running; a new one is accepted when it is done")
        if len(points) < 2:
            raise XsArmError(f"found a trajectory of {len(points)} points; expected at least 2")
        if any(b < a for a, b in itertools.pairwise(times_s)) or times_s[0] < 0:
            raise XsArmError(f"found the times {times_s}; expected them to rise from at least 0")
        mode = self._record(cmd_type, name).mode
        key = "positions" if mode in POSITION_MODES else "effort"
        key = "velocities" if mode == "velocity" else key
        commands = [point[key] for point in points]
        for k, command in enumerate(commands[1:], start=1):
            if len(command) != len(servos) or not all(math.isfinite(v) for v in command):
                raise XsArmError(
                    f"point {k} has {key} {command}; expected {len(servos)} finite numbers"
                )
        self._trajectory = _Trajectory(
            cmd_type, name, times_s, commands, started_s=self._kitchen.time_s
        )
        self.update()

    def update(self) -> None:
        """Send the trajectory points that are due. Call it before every advance of the physics."""
        trajectory = self._trajectory
        if trajectory is None:
            return
        elapsed_s = self._kitchen.time_s - trajectory.started_s + trajectory.times_s[0]
        while trajectory.next_point < len(trajectory.commands):
            k = trajectory.next_point
            if trajectory.times_s[k - 1] > elapsed_s + 1e-9:
                return
            command = trajectory.commands[k]
            if trajectory.cmd_type == "group":
                self.command_group(trajectory.name, command)
            else:
                self.command_single(trajectory.name, command[0])
            trajectory.next_point += 1
        if elapsed_s + 1e-9 >= trajectory.times_s[-1]:
            self._trajectory = None
