"""What the driver knows and wants of each servo, and the procedures that make it so.

A procedure is a generator that does one bus transaction per step, so that the caller can let the
cycle of reading and writing go on between steps.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from widowx_control.xs_driver.bus import NoReply, Refused, ServoBus
from widowx_control.xs_driver.configuration import (
    OPERATING_MODES,
    POSITION_MODES,
    ArmConfiguration,
    Mode,
    Motor,
)
from widowx_control.xs_driver.control_table import (
    DRIVE_REVERSE,
    DRIVE_TIME_PROFILE,
    DRIVE_TORQUE_ON_BY_GOAL,
    MODELS,
    NO_SECONDARY_ID,
    RAD_PER_TICK,
    TABLE_END,
    WATCHDOG_TRIPPED,
    Register,
    ServoModel,
    hardware_error_text,
)
from widowx_control.xs_driver.units import decode, encode, rad_from_ticks

Result = TypeVar("Result")
Steps = Generator[None, None, Result]
"""A procedure; each step is one or a few bus transactions."""

STATE_ADDRESS: Final = 126
STATE_LENGTH: Final = 10
"""Present_Current or Load .. Present_Position: what every cycle reads of every joint's servo."""
HEALTH_ADDRESS: Final = 64
HEALTH_LENGTH: Final = TABLE_END - HEALTH_ADDRESS
"""All of the RAM that matters: what is read of one servo per cycle, in rotation."""
STREAM_REGISTERS: Final = {
    "velocity": "Goal_Velocity",
    "current": "Goal_Current",
    "pwm": "Goal_PWM",
}
"""Modes whose goal is repeated every cycle, since repeating it changes nothing."""

_STATE: Final = struct.Struct("<hii")
_MOVING_UNITS: Final = 2
HOLD_TOLERANCE_TICKS: Final = 100
"""A torqued servo further than this from its goal is on its way somewhere, so it is stopped."""
_OFFSET_TOLERANCE_TICKS: Final = 3
"""Shadow and master may differ by this before Homing_Offset, an EEPROM register, is written."""
_STILL_ATTEMPTS: Final = 100
_MAX_HOMING_OFFSET: Final = 1024
"""Beyond a quarter turn the servo ignores the offset in position mode."""
_TORQUE_TOLERANCE_TICKS: Final = int(0.02 / RAD_PER_TICK)
"""Torque comes on only with a goal this near to the joint."""
_AGREEMENT_TICKS: Final = _TORQUE_TOLERANCE_TICKS
"""A shadow that nobody calibrates may differ from its master by this."""
_UNCONFIGURED_EEPROM: Final = {
    "Homing_Offset": 0,
    "Secondary_ID": NO_SECONDARY_ID,
    "Startup_Configuration": 0,
}
"""What the motor configuration does not say: other programs leave offsets, a second ID that makes
the servo follow another, and torque or settings that come on by themselves."""


def finish(steps: Steps[Result]) -> Result:
    """Run a procedure to its end at once and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


@dataclass(frozen=True)
class ServoState:
    """One reading of a servo in raw units."""

    effort: int
    velocity: int
    position: int

    @property
    def moving(self) -> bool:
        """Whether the servo turns faster than the quantum of its speed."""
        return abs(self.velocity) >= _MOVING_UNITS


def parse_state(data: bytes) -> ServoState:
    """Return the reading in STATE_LENGTH bytes from STATE_ADDRESS."""
    return ServoState(*_STATE.unpack(data))


@dataclass
class Servo:
    """One servo: who it is, what it should be, and what was last read of it."""

    motor: Motor
    mode: Mode
    torque_wanted: bool
    model: ServoModel | None = None
    settings: dict[str, int] = field(default_factory=dict)
    """RAM registers that a client or a parameter set; restored after a restart."""
    registers: dict[str, int] = field(default_factory=dict)
    """Last value read of every register."""
    state: ServoState | None = None
    energised: bool = False
    """Whether torque was on when the driver last switched or found it."""
    missing: bool = True
    unsettled: bool = False
    """A change of its mode was not finished; it must be configured again before it moves."""
    rebooting: bool = False
    eeprom_writes: int = 0

    @property
    def servo_id(self) -> int:
        """ID on the bus."""
        return self.motor.servo_id

    @property
    def name(self) -> str:
        """Name of the motor."""
        return self.motor.name

    def known(self, register: str) -> int:
        """Return the last value read.

        Raises:
            KeyError: the servo lacks that register, or was never read.
        """
        return self.registers[register]

    def wanted_drive_mode(self) -> int:
        """Return Drive_Mode: direction as configured, profile type of the mode."""
        base = self.motor.eeprom.get("Drive_Mode", self.registers.get("Drive_Mode", 0))
        base &= ~(DRIVE_TIME_PROFILE | DRIVE_TORQUE_ON_BY_GOAL)
        return base | (DRIVE_TIME_PROFILE if self.mode.profile_type == "time" else 0)

    def wanted_ram(self) -> dict[str, int]:
        """Return the RAM settings that the servo should have: profile of the mode, settings."""
        return {"Status_Return_Level": 2, **profile_registers(self.mode), **self.settings}


def profile_registers(mode: Mode) -> dict[str, int]:
    """Return the profile of a mode as register values."""
    if mode.operating_mode in ("position", "linear_position", "ext_position"):
        return {
            "Profile_Velocity": mode.profile_velocity,
            "Profile_Acceleration": mode.profile_acceleration,
        }
    if mode.operating_mode == "velocity":
        return {"Profile_Acceleration": mode.profile_acceleration}
    return {}


class ArmServos:
    """The servos of one arm and the procedures on them.

    Args:
        configuration: of the arm.
        load_configs: write EEPROM registers of the motor configuration where they differ.
        watchdog_units: Bus_Watchdog, in 20 ms; 0 switches it off.
    """

    def __init__(
        self, configuration: ArmConfiguration, load_configs: bool, watchdog_units: int
    ) -> None:
        """Nothing is known of the servos yet."""
        self.configuration = configuration
        self._load_configs = load_configs
        self._watchdog_units = watchdog_units
        modes = start_modes(configuration)
        self.given_modes = dict(modes)
        """Modes by motor as they were configured, or asked for as a whole: with their profiles,
        which clients may lend themselves by writing registers."""
        self.by_name = {
            name: Servo(motor, modes[name], modes[name].torque_enable)
            for name, motor in configuration.motors.items()
        }
        self.by_id = {servo.servo_id: servo for servo in self.by_name.values()}
        self.master_of = {
            shadow: master for master, names in configuration.shadows.items() for shadow in names
        }

    def named(self, names: Iterable[str]) -> list[Servo]:
        """Return the servos of motors."""
        return [self.by_name[name] for name in names]

    def write(self, bus: ServoBus, servo: Servo, register: str, value: int) -> None:
        """Write one register of one servo and remember it.

        Raises:
            KeyError: the servo lacks the register.
            ValueError: value out of the register's range.
            NoReply, Refused, PortLost: see `ServoBus.write`.
        """
        entry = self.table(servo)[register]
        bus.write(servo.servo_id, entry.address, encode(entry, value))
        servo.registers[register] = value
        if entry.eeprom:
            servo.eeprom_writes += 1

    def read_all(self, bus: ServoBus, servo: Servo) -> None:
        """Read the whole control table of one servo."""
        data, _ = bus.read(servo.servo_id, 0, TABLE_END)
        self._keep(servo, data, 0)

    def read_health(self, bus: ServoBus, servo: Servo, attempts: int) -> None:
        """Read the RAM of one servo."""
        data, _ = bus.read(servo.servo_id, HEALTH_ADDRESS, HEALTH_LENGTH, attempts)
        self._keep(servo, data, HEALTH_ADDRESS)

    def table(self, servo: Servo) -> Mapping[str, Register]:
        """Return the registers of a servo's model.

        Raises:
            NoReply: the servo never answered, so its model is unknown.
        """
        if servo.model is None:
            raise NoReply(f"{servo.name} (ID {servo.servo_id}) has not answered yet")
        return servo.model.registers

    def _keep(self, servo: Servo, data: bytes, start: int) -> None:
        for register in self.table(servo).values():
            if start <= register.address and register.address + register.size <= start + len(data):
                servo.registers[register.name] = decode(register, data, start)

    # --- procedures ----------------------------------------------------------------------------

    def find(self, bus: ServoBus, servo: Servo, attempts: int = 3) -> Steps[str | None]:
        """Look for a servo on the bus and read it. Returns what is wrong, or None."""
        servo.missing = True
        try:
            number = bus.ping(servo.servo_id, attempts)
        except NoReply:
            return f"{servo.name} (ID {servo.servo_id}) does not answer"
        yield
        model = MODELS.get(number)
        if model is None:
            names = [f"{m.name} ({m.number})" for m in MODELS.values()]
            return f"{servo.name} (ID {servo.servo_id}) is model {number}; expected one of {names}"
        servo.model = model
        try:
            # A servo whose Status_Return_Level is 0 answers to pings only. Level 2 by a packet
            # that needs no answer.
            level = model.registers["Status_Return_Level"]
            bus.sync_write(level.address, {servo.servo_id: b"\x02"})
            self.read_all(bus, servo)
        except (NoReply, Refused) as error:
            return f"{servo.name}: {error}"
        yield
        servo.energised = bool(servo.known("Torque_Enable"))
        servo.missing = False
        return None

    def configure(self, bus: ServoBus, servo: Servo) -> Steps[list[str]]:
        """Bring EEPROM to what is wanted, writing only what differs. Returns what was written.

        Torque of this one servo goes off for it, and only if something differs; `energise` puts it
        back.
        """
        wanted = self._wanted_eeprom(servo)
        wanted["Drive_Mode"] = servo.wanted_drive_mode()
        wanted["Operating_Mode"] = OPERATING_MODES[servo.mode.operating_mode]
        table = self.table(servo)
        differing = {
            name: value
            for name, value in wanted.items()
            if name in table and servo.registers[name] != value
        }
        if not differing:
            return []
        yield from self._without_torque(bus, servo)
        written = []
        for name, value in differing.items():
            written.append(f"{servo.name}.{name}: {servo.registers[name]} -> {value}")
            self.write(bus, servo, name, value)
            yield
        # A change of mode resets gains, profile and goals; read them anew.
        self.read_all(bus, servo)
        yield
        wrong = [n for n, value in differing.items() if servo.registers[n] != value]
        if wrong:
            raise Refused(servo.servo_id, f"keep {wrong} in EEPROM", 1)
        return written

    def _wanted_eeprom(self, servo: Servo) -> dict[str, int]:
        wanted = _UNCONFIGURED_EEPROM | dict(servo.motor.eeprom)
        calibrated = servo.name in self.configuration.calibrated_shadows
        if calibrated or (
            servo.name in self.master_of and "Homing_Offset" not in servo.motor.eeprom
        ):
            # It makes the shadow agree with its master: see `calibrate`, `require_agreement`.
            del wanted["Homing_Offset"]
        if self._load_configs:
            return wanted
        name = "Homing_Offset"
        if name in wanted and servo.known(name) != wanted[name]:
            raise Refused(
                servo.servo_id,
                f"start: {name} of {servo.name} is {servo.known(name)}, expected {wanted[name]}, "
                "which shifts all its positions; set it right, or let load_configs do it",
                6,
            )
        return {}

    def require_agreement(self, bus: ServoBus, shadow: Servo) -> Steps[None]:
        """Refuse a shadow that is not calibrated and would work against its master."""
        master = self.by_name[self.master_of[shadow.name]]
        difference = yield from self._difference(bus, master, shadow)
        if abs(difference) > _AGREEMENT_TICKS:
            raise Refused(
                shadow.servo_id,
                f"agree with {master.name}: {shadow.name} is {difference} ticks off it, its "
                f"Homing_Offset {shadow.known('Homing_Offset')}; set that right, or let "
                "'calibrate: true' do it",
                6,
            )

    def calibrate(self, bus: ServoBus, shadow: Servo) -> Steps[list[str]]:
        """Make a shadow's position agree with its master's by its Homing_Offset, if it does not."""
        master = self.by_name[self.master_of[shadow.name]]
        difference = yield from self._difference(bus, master, shadow)
        if abs(difference) <= _OFFSET_TOLERANCE_TICKS:
            return []
        before = shadow.known("Homing_Offset")
        # The offset is added to the encoder before the direction is reversed.
        sign = -1 if shadow.known("Drive_Mode") & DRIVE_REVERSE else 1
        offset = before + sign * difference
        if abs(offset) > _MAX_HOMING_OFFSET:
            raise Refused(
                shadow.servo_id,
                f"take a homing offset of {offset} ticks: {shadow.name} is {difference} ticks off "
                f"{master.name}; check how its horn is assembled",
                6,
            )
        yield from self._without_torque(bus, shadow)
        self.write(bus, shadow, "Homing_Offset", offset)
        yield
        rest = yield from self._difference(bus, master, shadow)
        if abs(rest) > abs(difference) / 2 + _OFFSET_TOLERANCE_TICKS:
            raise Refused(
                shadow.servo_id,
                f"agree with {master.name}: {rest} ticks apart after Homing_Offset {offset}",
                1,
            )
        return [f"{shadow.name}.Homing_Offset: {before} -> {offset}"]

    def _difference(self, bus: ServoBus, master: Servo, shadow: Servo) -> Steps[int]:
        """Return master's position minus shadow's, in ticks, measured while they stand still."""
        for _ in range(_STILL_ATTEMPTS):
            self.read_health(bus, master, attempts=5)
            before = master.known("Present_Position")
            self.read_health(bus, shadow, attempts=5)
            self.read_health(bus, master, attempts=5)
            yield
            if abs(master.known("Present_Position") - before) <= 1:
                return before - shadow.known("Present_Position")
        raise Refused(
            shadow.servo_id, f"be compared with {master.name}: the joint does not rest", 1
        )

    def restore_ram(self, bus: ServoBus, servo: Servo) -> Steps[list[str]]:
        """Bring profile, gains, goals and watchdog to what is wanted. Moves nothing, stops what

        moves. Returns the names of the registers that differed.
        """
        self.read_health(bus, servo, attempts=5)
        yield
        if servo.known("Bus_Watchdog") == WATCHDOG_TRIPPED:
            self.write(bus, servo, "Bus_Watchdog", 0)
            yield
            yield from self._hold(bus, servo)
        differing = {
            name: value
            for name, value in servo.wanted_ram().items()
            if servo.registers.get(name) != value
        }
        for name, value in differing.items():
            self.write(bus, servo, name, value)
            yield
        torque = servo.known("Torque_Enable")
        if servo.mode.operating_mode in POSITION_MODES:
            distance = abs(servo.known("Goal_Position") - servo.known("Present_Position"))
            if not torque or servo.known("Moving") or distance > HOLD_TOLERANCE_TICKS:
                yield from self._hold(bus, servo)
        else:
            yield from self._hold(bus, servo)
        if servo.known("Bus_Watchdog") != self._watchdog_units:
            self.write(bus, servo, "Bus_Watchdog", self._watchdog_units)
            yield
        return sorted(differing)

    def energise(self, bus: ServoBus, servo: Servo) -> Steps[None]:
        """Switch torque to what is wanted, on only with the goal where the servo is now."""
        wanted = int(servo.torque_wanted)
        if servo.known("Torque_Enable") != wanted:
            if wanted and servo.mode.operating_mode in POSITION_MODES:
                # In one step: a limp joint may have fallen since its goal was set.
                self.read_health(bus, servo, attempts=5)
                problem = self.torque_problem(servo)
                if problem:
                    raise Refused(servo.servo_id, f"get torque: {problem[1]}", 6)
                self.write(bus, servo, "Goal_Position", self._nearest_goal(servo))
            self.write(bus, servo, "Torque_Enable", wanted)
            yield
        servo.energised = bool(wanted)

    def torque_problem(self, servo: Servo) -> tuple[str, str] | None:
        """Return (code, text) of why torque would move a servo, by what was last read, or None."""
        if (
            servo.known("Torque_Enable")
            or not servo.torque_wanted
            or servo.mode.operating_mode not in POSITION_MODES
        ):
            return None
        present = servo.known("Present_Position")
        if abs(self._nearest_goal(servo) - present) <= _TORQUE_TOLERANCE_TICKS:
            return None
        low, high = self.position_limits(servo)
        return (
            f"outside_limits:{servo.name}",
            f"{servo.name} (ID {servo.servo_id}) is at {rad_from_ticks(present):.3f} rad, outside "
            f"its limits {rad_from_ticks(low):.3f} .. {rad_from_ticks(high):.3f}: torque would "
            "jerk it back; move it by hand, then re-arm",
        )

    def _nearest_goal(self, servo: Servo) -> int:
        low, high = self.position_limits(servo)
        return min(max(servo.known("Present_Position"), low), high)

    def _hold(self, bus: ServoBus, servo: Servo) -> Steps[None]:
        """Make the goal mean: stay here."""
        mode = servo.mode.operating_mode
        if mode in POSITION_MODES:
            self.write(bus, servo, "Goal_Position", self._nearest_goal(servo))
        else:
            self.write(bus, servo, STREAM_REGISTERS[mode], 0)
        yield

    def position_limits(self, servo: Servo) -> tuple[int, int]:
        """Return the goals that the servo accepts, in ticks."""
        if servo.mode.operating_mode in ("position", "linear_position"):
            return servo.known("Min_Position_Limit"), servo.known("Max_Position_Limit")
        goal = self.table(servo)["Goal_Position"]
        return goal.minimum, goal.maximum

    def _without_torque(self, bus: ServoBus, servo: Servo) -> Steps[None]:
        if servo.known("Torque_Enable"):
            self.write(bus, servo, "Torque_Enable", 0)
            yield

    def health_problem(self, servo: Servo) -> tuple[str, str] | None:
        """Return (code, text) of what was last read of a servo that must stop the arm, or None."""
        status = servo.registers.get("Hardware_Error_Status", 0)
        shut_down = status & servo.registers.get("Shutdown", 0xFF)
        where = f"{servo.name} (ID {servo.servo_id})"
        if shut_down:
            return (
                f"hardware_error:{servo.name}",
                f"{where} shut down: {hardware_error_text(status)}; remove the cause and call "
                "reboot_motors",
            )
        if servo.registers.get("Bus_Watchdog") == WATCHDOG_TRIPPED:
            return (
                f"watchdog:{servo.name}",
                f"{where} stopped because it heard nothing for longer than its bus watchdog",
            )
        if servo.energised and servo.torque_wanted and not servo.registers.get("Torque_Enable"):
            return (f"torque_lost:{servo.name}", f"{where} lost its torque; it restarted")
        return None


def start_modes(configuration: ArmConfiguration) -> dict[str, Mode]:
    """Return the mode of every motor at the start: of its group, then its own; shadows follow."""
    modes: dict[str, Mode] = {name: Mode() for name in configuration.motors}
    for group, mode in configuration.group_modes.items():
        for name in configuration.groups[group]:
            modes[name] = mode
    for name, mode in configuration.motor_modes.items():
        modes[name] = mode
    for master, shadows in configuration.shadows.items():
        for shadow in shadows:
            modes[shadow] = modes[master]
    return modes
