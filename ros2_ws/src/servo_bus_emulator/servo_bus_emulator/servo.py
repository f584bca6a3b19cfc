"""One emulated servo: control table, motion profile, controller, motor, protection.

Source of the control laws and gains: ROBOTIS e-manual of XM430-W350 and XL430-W250. Position mode:
goal -> profile -> PID + feedforward -> PWM. K_P = P/128, K_I = I/65536, K_D = D/16 on position in
ticks and time in ms; velocity mode: K_P = P/128, K_I = I/65536 on 0.229 rev/min and ms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from widowx_control.xs_driver.control_table import (
    CENTRE_TICKS,
    DRIVE_REVERSE,
    DRIVE_TIME_PROFILE,
    EEPROM_END,
    ERROR_OVERHEATING,
    ERROR_OVERLOAD,
    ERROR_VOLTAGE,
    FULL_PWM,
    MA_PER_UNIT,
    MODE_CURRENT,
    MODE_CURRENT_BASED_POSITION,
    MODE_PWM,
    MODE_VELOCITY,
    NO_SECONDARY_ID,
    RAD_PER_S2_PER_UNIT,
    RAD_PER_S_PER_UNIT,
    RAD_PER_TICK,
    TICKS_PER_TURN,
    WATCHDOG_MS_PER_UNIT,
    WATCHDOG_TRIPPED,
    ServoModel,
)

from servo_bus_emulator.memory import ControlTable
from servo_bus_emulator.plant import Drive, JointMotion
from servo_bus_emulator.profile import Profile, step_profile, time_profile, velocity_profile
from servo_bus_emulator.protocol import ACCESS_ERROR, ALERT, DATA_RANGE_ERROR

NOMINAL_VOLTAGE: Final = 12.0
REBOOT_S: Final = 0.35
"""Time without an answer after a reboot."""
OVERLOAD_TIME_S: Final = 1.0
"""A load above OVERLOAD_FRACTION of the stall torque for this long is an overload."""
OVERLOAD_FRACTION: Final = 0.85
_AMBIENT_C: Final = 25.0
_STALL_RISE_C: Final = 150.0
_THERMAL_TIME_S: Final = 300.0
_TICKS_PER_S_PER_UNIT: Final = RAD_PER_S_PER_UNIT / RAD_PER_TICK
_TICKS_PER_S2_PER_UNIT: Final = RAD_PER_S2_PER_UNIT / RAD_PER_TICK
_MAX_INTEGRAL_PWM: Final = FULL_PWM
_STEP_S: Final = 1e-3


class Servo:
    """One servo on the bus.

    Args:
        model: XM430_W350 or XL430_W250.
        joint: name of the joint it turns; several servos may turn one joint.
        eeprom: registers that differ from the factory's values; `ID` is needed.
        mounting_sign: +1 when the servo turns counter-clockwise for a positive joint angle, -1 when
            it is mounted mirrored (then it needs Drive_Mode reverse).
        assembly_offset_ticks: error of the horn's position on the shaft.
    """

    def __init__(
        self,
        model: ServoModel,
        joint: str,
        eeprom: Mapping[str, int],
        *,
        mounting_sign: int = 1,
        assembly_offset_ticks: int = 0,
    ) -> None:
        """Power the servo up at time 0, torque off."""
        self.model = model
        self.joint = joint
        self.table = ControlTable(model, eeprom)
        self.mounting_sign = mounting_sign
        self.assembly_offset_ticks = assembly_offset_ticks
        self.supply_voltage = NOMINAL_VOLTAGE
        self.unplugged = False
        self.eeprom_writes = 0
        """EEPROM write cycles since construction; real flash wears out after some 100 000."""
        self.torque_drops = 0
        """How often Torque_Enable went from 1 to 0 since construction."""
        self._time_s = 0.0
        self._temperature_c = _AMBIENT_C
        self._angle_rad = 0.0
        self._velocity_rad_s = 0.0
        self._pwm = 0.0
        self._current_fraction = 0.0
        self._overload_s = 0.0
        self._integral = 0.0
        self._velocity_reference = 0.0
        self._profile: Profile = step_profile(CENTRE_TICKS)
        self._profile_start_s = 0.0
        self._trajectory = (float(CENTRE_TICKS), 0.0)
        self._holding_after_watchdog = False
        self._registered: tuple[int, bytes] | None = None
        self._last_packet_s = 0.0
        self._boot_s = 0.0
        self._ready_s = 0.0
        self._write_hooks: dict[str, Callable[[int], None]] = {
            "Torque_Enable": self._torque_written,
            "Operating_Mode": self._mode_written,
            "Goal_Position": self._goal_position_written,
            "Bus_Watchdog": self._watchdog_written,
            "Goal_PWM": self._goal_written,
            "Goal_Velocity": self._goal_written,
        }
        if "Goal_Current" in model.registers:
            self._write_hooks["Goal_Current"] = self._goal_written
        self.table.reset_ram()

    # --- identity and instructions -------------------------------------------------------------

    @property
    def servo_id(self) -> int:
        """Present ID."""
        return self.table.get("ID")

    @property
    def secondary_id(self) -> int:
        """Second ID that the servo obeys without answering; 255 for none."""
        return self.table.get("Secondary_ID")

    def answers(self, now_s: float) -> bool:
        """Whether the servo is plugged in and not rebooting."""
        return not self.unplugged and now_s >= self._ready_s

    def listens_to(self, packet_id: int) -> bool:
        """Whether a packet for that ID is obeyed through the secondary ID."""
        return self.secondary_id not in (NO_SECONDARY_ID, self.servo_id) and (
            packet_id == self.secondary_id
        )

    @property
    def alert(self) -> int:
        """The alert bit of status packets: set while a hardware error stands."""
        return ALERT if self.table.get("Hardware_Error_Status") else 0

    def heard(self, now_s: float) -> None:
        """Restart the bus watchdog: a packet for this servo arrived."""
        self._last_packet_s = now_s

    def read(self, address: int, length: int) -> tuple[int, bytes]:
        """Return (error number, bytes)."""
        self._refresh()
        return self.table.read(address, length)

    def write(self, address: int, data: bytes, *, ram_only: bool = False) -> int:
        """Obey a write and return the error number. `ram_only`: it came by the secondary ID."""
        if ram_only and address < EEPROM_END:
            return ACCESS_ERROR
        error = self.table.check_write(address, data)
        if error:
            return error
        enable = self.model.registers["Torque_Enable"]
        if (
            address <= enable.address < address + len(data)
            and data[enable.address - address]
            and self._shut_down
        ):
            return ACCESS_ERROR
        watchdog = self.model.registers["Bus_Watchdog"]
        if (
            address <= watchdog.address < address + len(data)
            and data[watchdog.address - address]
            and self.table.get("Bus_Watchdog") == WATCHDOG_TRIPPED
        ):
            return DATA_RANGE_ERROR
        before = {name: self.table.get(name) for name in self._write_hooks}
        for register in self.table.write(address, data):
            if register.eeprom:
                self.eeprom_writes += 1
            hook = self._write_hooks.get(register.name)
            if hook is not None:
                hook(before[register.name])
        return 0

    def register_write(self, address: int, data: bytes) -> int:
        """Keep a write until `action`."""
        error = self.table.check_write(address, data)
        if not error:
            self._registered = (address, data)
            self.table.set("Registered_Instruction", 1)
        return error

    def action(self) -> None:
        """Do the registered write."""
        if self._registered is not None:
            address, data = self._registered
            self._registered = None
            self.table.set("Registered_Instruction", 0)
            self.write(address, data)

    def reboot(self, now_s: float) -> None:
        """Restart: RAM at its initial values, torque off, hardware error cleared."""
        if self.table.get("Torque_Enable"):
            self.torque_drops += 1
        self.table.reset_ram()
        self._registered = None
        self._overload_s = 0.0
        self._pwm = 0.0
        self._boot_s = now_s
        self._ready_s = now_s + REBOOT_S
        self._holding_after_watchdog = False
        self.table.set("Goal_Position", self._position_ticks())
        self._hold_here()

    def set_temperature(self, celsius: float) -> None:
        """Heat or cool the servo; from there the temperature follows the motor's losses."""
        self._temperature_c = celsius

    def raise_error(self, bits: int) -> None:
        """Set bits in Hardware_Error_Status, with the shutdown that the servo would make."""
        status = self.table.get("Hardware_Error_Status") | bits
        self.table.set("Hardware_Error_Status", status)
        if self._shut_down and self.table.get("Torque_Enable"):
            self.table.set("Torque_Enable", 0)
            self.torque_drops += 1

    def summary(self, now_s: float) -> dict[str, int | float | str | bool]:
        """Return what a person or a test wants to see of the servo."""
        self._refresh()
        names = (
            "Torque_Enable",
            "Operating_Mode",
            "Hardware_Error_Status",
            "Bus_Watchdog",
            "Goal_PWM",
            "Goal_Position",
            "Present_Position",
            "Profile_Velocity",
            "Velocity_Trajectory",
        )
        return {
            "id": self.servo_id,
            "joint": self.joint,
            "answers": self.answers(now_s),
            "angle_rad": self._angle_rad,
            "velocity_rad_s": self._velocity_rad_s,
            "eeprom_writes": self.eeprom_writes,
            "torque_drops": self.torque_drops,
            **{name: self.table.get(name) for name in names},
        }

    # --- motion --------------------------------------------------------------------------------

    def start_at(self, motion: JointMotion) -> None:
        """Take over the joint's position without moving, as at power-up."""
        self._angle_rad, self._velocity_rad_s = motion.position_rad, motion.velocity_rad_s
        self.table.set("Goal_Position", self._position_ticks())
        self._hold_here()

    def drive(self, now_s: float, motion: JointMotion, duration_s: float) -> Drive:
        """Run controller and protection at `now_s` and return what the motor does next.

        Args:
            now_s: time on the bus's clock.
            motion: the joint's motion now.
            duration_s: length of the step that the drive will hold for.
        """
        self._time_s = now_s
        self._angle_rad, self._velocity_rad_s = motion.position_rad, motion.velocity_rad_s
        self._check_watchdog(now_s)
        sign = self._direction
        if not self.table.get("Torque_Enable") or now_s < self._ready_s:
            self._trajectory = (self._position_exact(), 0.0)
            self._pwm = 0.0
            self._current_fraction = 0.0
            self._protect(duration_s)
            return Drive()
        supply = self.supply_voltage / NOMINAL_VOLTAGE
        speed_fraction = sign * self._velocity_rad_s / self.model.no_load_speed_rad_s
        stall = self.model.stall_torque_nm
        mode = self.table.get("Operating_Mode")
        if mode == MODE_CURRENT and not self._holding_after_watchdog:
            wanted = self.table.get("Goal_Current") * MA_PER_UNIT / self.model.stall_current_ma
            available = supply - abs(speed_fraction)
            self._current_fraction = min(max(wanted, -available), available)
            self._pwm = (self._current_fraction + speed_fraction) / supply * FULL_PWM
            self._protect(duration_s)
            return Drive(sign * stall * self._current_fraction, 0.0)
        self._pwm = self._controller_pwm(mode, duration_s)
        duty = self._pwm / FULL_PWM * supply
        if mode == MODE_CURRENT_BASED_POSITION:
            allowed = abs(self.table.get("Goal_Current")) * MA_PER_UNIT
            allowed /= self.model.stall_current_ma
            duty = min(max(duty, speed_fraction - allowed), speed_fraction + allowed)
            self._pwm = duty / supply * FULL_PWM
        self._current_fraction = duty - speed_fraction
        self._protect(duration_s)
        return Drive(sign * stall * duty, stall / self.model.no_load_speed_rad_s)

    def _controller_pwm(self, mode: int, duration_s: float) -> float:
        if mode == MODE_PWM and not self._holding_after_watchdog:
            return float(self.table.get("Goal_PWM"))
        limit = float(abs(self.table.get("Goal_PWM"))) if mode != MODE_PWM else FULL_PWM
        duration_ms = duration_s / _STEP_S
        velocity = self._direction * self._velocity_rad_s / RAD_PER_TICK
        if mode == MODE_PWM:
            return 0.0
        if mode == MODE_VELOCITY:
            goal = 0.0 if self._holding_after_watchdog else float(self.table.get("Goal_Velocity"))
            ramp = self.table.get("Profile_Acceleration") * _TICKS_PER_S2_PER_UNIT * duration_s
            change = goal - self._velocity_reference
            if ramp > 0.0 and not self._holding_after_watchdog:
                ramp /= _TICKS_PER_S_PER_UNIT
                change = min(max(change, -ramp), ramp)
            self._velocity_reference += change
            error = self._velocity_reference - velocity / _TICKS_PER_S_PER_UNIT
            gain_i = self.table.get("Velocity_I_Gain") / 65536
            self._integrate(gain_i * error * duration_ms, limit)
            pwm = self.table.get("Velocity_P_Gain") / 128 * error + self._integral
            return min(max(pwm, -limit), limit)
        self._trajectory = self._profile.at(self._time_s - self._profile_start_s)
        wanted, wanted_velocity = self._trajectory
        error = wanted - self._position_exact()
        self._integrate(self.table.get("Position_I_Gain") / 65536 * error * duration_ms, limit)
        pwm = (
            self.table.get("Position_P_Gain") / 128 * error
            + self._integral
            + self.table.get("Position_D_Gain") / 16 * (wanted_velocity - velocity) * _STEP_S
            + self.table.get("Feedforward_1st_Gain") / 4 * wanted_velocity * _STEP_S
        )
        return min(max(pwm, -limit), limit)

    def _integrate(self, increment: float, limit: float) -> None:
        bound = min(limit, _MAX_INTEGRAL_PWM)
        self._integral = min(max(self._integral + increment, -bound), bound)

    def _protect(self, duration_s: float) -> None:
        fraction = abs(self._current_fraction)
        target = _AMBIENT_C + _STALL_RISE_C * fraction * fraction
        self._temperature_c += (target - self._temperature_c) * duration_s / _THERMAL_TIME_S
        self._overload_s = self._overload_s + duration_s if fraction > OVERLOAD_FRACTION else 0.0
        bits = 0
        if self._overload_s > OVERLOAD_TIME_S:
            bits |= ERROR_OVERLOAD
        if self._temperature_c > self.table.get("Temperature_Limit"):
            bits |= ERROR_OVERHEATING
        decivolts = self.supply_voltage * 10
        if (
            not self.table.get("Min_Voltage_Limit")
            <= decivolts
            <= self.table.get("Max_Voltage_Limit")
        ):
            bits |= ERROR_VOLTAGE
        if bits & ~self.table.get("Hardware_Error_Status"):
            self.raise_error(bits)

    def _check_watchdog(self, now_s: float) -> None:
        value = self.table.get("Bus_Watchdog")
        if value in (0, WATCHDOG_TRIPPED) or not self.table.get("Torque_Enable"):
            return
        if now_s - self._last_packet_s > value * WATCHDOG_MS_PER_UNIT * 1e-3:
            self.table.set("Bus_Watchdog", WATCHDOG_TRIPPED)
            self._holding_after_watchdog = True
            self._hold_here()

    def _hold_here(self) -> None:
        self._profile = step_profile(self._position_exact())
        self._profile_start_s = self._time_s
        self._trajectory = (self._position_exact(), 0.0)
        self._integral = 0.0
        self._velocity_reference = 0.0

    # --- effects of writes ---------------------------------------------------------------------

    def _torque_written(self, before: int) -> None:
        enabled = self.table.get("Torque_Enable")
        if before and not enabled:
            self.torque_drops += 1
        if enabled and not before:
            self._last_packet_s = self._time_s
            self._overload_s = 0.0
            self._hold_here()
            self._goal_position_written(0)

    def _mode_written(self, before: int) -> None:
        if self.table.get("Operating_Mode") == before:
            return
        # The e-manual: switching the mode resets gains, profile and the PWM and current goals.
        for name in (
            "Velocity_I_Gain",
            "Velocity_P_Gain",
            "Position_D_Gain",
            "Position_I_Gain",
            "Position_P_Gain",
            "Feedforward_2nd_Gain",
            "Feedforward_1st_Gain",
            "Profile_Acceleration",
            "Profile_Velocity",
            "Goal_Velocity",
        ):
            self.table.set(name, self.model.registers[name].initial)
        for name, limit in (("Goal_PWM", "PWM_Limit"), ("Goal_Current", "Current_Limit")):
            if name in self.model.registers:
                self.table.set(name, self.table.get(limit))

    def _goal_position_written(self, _: int) -> None:
        if not self.table.get("Torque_Enable"):
            return
        self._holding_after_watchdog = False
        start, velocity = self._profile.at(self._time_s - self._profile_start_s)
        goal = float(self.table.get("Goal_Position"))
        span = self.table.get("Profile_Velocity")
        ramp = self.table.get("Profile_Acceleration")
        if self.table.get("Drive_Mode") & DRIVE_TIME_PROFILE:
            self._profile = time_profile(start, velocity, goal, span * 1e-3, ramp * 1e-3)
        else:
            self._profile = velocity_profile(
                start, velocity, goal, span * _TICKS_PER_S_PER_UNIT, ramp * _TICKS_PER_S2_PER_UNIT
            )
        self._profile_start_s = self._time_s

    def _goal_written(self, _: int) -> None:
        self._holding_after_watchdog = False

    def _watchdog_written(self, _: int) -> None:
        # The time without packets counts from the moment at which the watchdog is set.
        self._last_packet_s = self._time_s

    # --- derived values ------------------------------------------------------------------------

    @property
    def _shut_down(self) -> bool:
        return bool(self.table.get("Hardware_Error_Status") & self.table.get("Shutdown"))

    @property
    def _direction(self) -> int:
        reverse = self.table.get("Drive_Mode") & DRIVE_REVERSE
        return -self.mounting_sign if reverse else self.mounting_sign

    def _position_exact(self) -> float:
        shaft = (
            CENTRE_TICKS
            + self.mounting_sign * self._angle_rad / RAD_PER_TICK
            + self.assembly_offset_ticks
            + self.table.get("Homing_Offset")
        )
        if self.table.get("Drive_Mode") & DRIVE_REVERSE:
            return TICKS_PER_TURN - shaft
        return shaft

    def _position_ticks(self) -> int:
        return math.floor(self._position_exact() + 0.5)

    def _refresh(self) -> None:
        table = self.table
        position = self._position_ticks()
        velocity = self._direction * self._velocity_rad_s / RAD_PER_S_PER_UNIT
        in_profile = self._time_s - self._profile_start_s < self._profile.duration_s
        table.set("Realtime_Tick", int((self._time_s - self._boot_s) * 1000) % 32768)
        table.set("Moving", int(abs(velocity) > table.get("Moving_Threshold")))
        table.set("Moving_Status", (0x02 if in_profile else 0x01) | 0x30)
        table.set("Present_PWM", round(self._pwm))
        fraction = min(max(self._current_fraction, -1.0), 1.0)
        if self.model.has_current_sensor:
            current = fraction * self.model.stall_current_ma / MA_PER_UNIT
            table.set("Present_Current", round(current))
        else:
            table.set("Present_Load", round(fraction * 1000))
        table.set("Present_Velocity", round(velocity))
        table.set("Present_Position", position)
        table.set("Velocity_Trajectory", round(self._trajectory[1] / _TICKS_PER_S_PER_UNIT))
        table.set("Position_Trajectory", round(self._trajectory[0]))
        table.set("Present_Input_Voltage", round(self.supply_voltage * 10))
        table.set("Present_Temperature", min(max(round(self._temperature_c), 0), 100))
