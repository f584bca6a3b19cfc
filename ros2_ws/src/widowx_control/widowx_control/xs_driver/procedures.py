"""The services as procedures: generators that do a little at a time on the bus."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from widowx_control.xs_driver.arm_servos import ArmServos, Servo, Steps
from widowx_control.xs_driver.bus import NoReply, Refused, ServoBus
from widowx_control.xs_driver.configuration import OPERATING_MODES, ArmConfiguration, Mode
from widowx_control.xs_driver.driver_types import ServiceFailed
from widowx_control.xs_driver.goals import ModeRecords


class Host(Protocol):
    """What a procedure needs of the driver that runs it."""

    @property
    def bus(self) -> ServoBus:
        """The bus; only procedures in the driver's thread touch it."""

    def event(self, level: str, text: str) -> None:
        """Report something."""

    def fault(self, code: str, text: str) -> None:
        """Latch a stop."""

    def forget_goals(self, servos: Sequence[Servo]) -> None:
        """Drop what was commanded of servos, so that nothing old is sent."""

    def command_goals(self, goals: Mapping[str, Mapping[int, int]]) -> None:
        """Command goals: by register, then by servo id.

        Raises:
            ServiceFailed: the driver is not running.
        """

    def answered(self, servo: Servo) -> None:
        """Note that a servo is there."""

    def stops(self) -> int:
        """Return how often something latched a stop."""

    def faults(self) -> Mapping[str, str]:
        """Return the faults that stand, by code."""

    def clear_faults(self) -> None:
        """Leave STOPPED."""


class Procedures:
    """The services on the servos of an arm. Every method returns a generator of steps."""

    def __init__(
        self,
        configuration: ArmConfiguration,
        servos: ArmServos,
        modes: ModeRecords,
        host: Host,
    ) -> None:
        """Keep the parts."""
        self._configuration = configuration
        self._servos = servos
        self._modes = modes
        self._host = host

    def with_shadows(self, motors: Iterable[str]) -> list[Servo]:
        """Return the servos of motors and of their shadows."""
        return self._servos.named(self._configuration.with_shadows(motors))

    def torque(self, servos: Sequence[Servo], enable: bool, stops: int) -> Steps[None]:
        """Switch torque. Switching on also re-arms; servos that have torque already go on.

        Args:
            servos: to switch.
            enable: on or off.
            stops: `Host.stops` at the request; what came up later is not cleared.
        """
        self._require_present(servos)
        if not enable:
            for servo in servos:
                servo.torque_wanted = servo.energised = False
            self._host.forget_goals(servos)
            # Masters first would switch their shadows with them; either order ends the same.
            for servo in servos:
                self._servos.write(self._host.bus, servo, "Torque_Enable", 0)
                yield
            return
        wanted_before = {servo.name: servo.torque_wanted for servo in servos}
        for servo in servos:
            servo.torque_wanted = True
        try:
            if self._host.faults():
                yield from self.rearm(stops)
                return
            without: list[Servo] = []
            for servo in servos:
                self._servos.read_health(self._host.bus, servo, attempts=5)
                yield
                if not servo.known("Torque_Enable"):
                    without.append(servo)
            yield from self._prepare_and_energise(without)
        except ServiceFailed:
            # Nothing was switched. When a servo failed in between, the re-arm finishes the rest.
            for servo in servos:
                servo.torque_wanted = wanted_before[servo.name]
            raise

    def rearm(self, stops: int) -> Steps[None]:
        """Leave STOPPED if no cause stands: every servo answers and none is shut down.

        Args:
            stops: `Host.stops` at the request; what came up later is not cleared.
        """
        problems: list[str] = []
        for servo in self._servos.by_name.values():
            if servo.missing or servo.unsettled:
                problem = yield from self._servos.find(self._host.bus, servo)
                if problem:
                    problems.append(problem)
                    continue
                yield from self._servos.configure(self._host.bus, servo)
                servo.unsettled = False
            self._servos.read_health(self._host.bus, servo, attempts=5)
            yield
            if servo.known("Hardware_Error_Status") & servo.known("Shutdown"):
                fault = self._servos.health_problem(servo)
                assert fault is not None
                problems.append(fault[1])
        if problems:
            raise ServiceFailed("not re-armed: " + "; ".join(problems))
        yield from self._prepare_and_energise(list(self._servos.by_name.values()))
        if self._host.stops() != stops:
            raise ServiceFailed(f"not re-armed: stopped again meanwhile: {self._causes()}")
        self._host.clear_faults()

    def _prepare_and_energise(self, servos: Sequence[Servo]) -> Steps[None]:
        self._host.forget_goals(servos)
        # Shadows first: energising a master energises its shadows, whose goals must be set by then.
        ordered = sorted(servos, key=lambda s: s.name not in self._servos.master_of)
        for servo in ordered:
            yield from self._servos.restore_ram(self._host.bus, servo)
        unsafe = [p for p in map(self._servos.torque_problem, ordered) if p]
        if unsafe:
            for code, text in unsafe:
                self._host.fault(code, text)
            raise ServiceFailed("no torque: " + "; ".join(text for _, text in unsafe))
        for servo in ordered:
            yield from self._servos.energise(self._host.bus, servo)

    def reboot(
        self, servos: Sequence[Servo], enable: bool, smart: bool, stops: int
    ) -> Steps[list[str]]:
        """Restart servos one after the other; see `XsDriver.reboot` and, for the rest, `rearm`."""
        restarted: list[str] = []
        failed: list[str] = []
        for servo in servos:
            if smart:
                try:
                    self._servos.read_health(self._host.bus, servo, attempts=5)
                    yield
                    if not servo.known("Hardware_Error_Status"):
                        continue
                except (NoReply, Refused):
                    pass
            servo.rebooting = True
            self._host.forget_goals([servo])
            try:
                self._host.bus.reboot(servo.servo_id)
                yield from self._await_return(servo)
                problem = yield from self._servos.find(self._host.bus, servo)
                if problem:
                    failed.append(problem)
                    continue
                servo.torque_wanted = enable
                yield from self._servos.configure(self._host.bus, servo)
                yield from self._servos.restore_ram(self._host.bus, servo)
                yield from self._servos.energise(self._host.bus, servo)
                restarted.append(servo.name)
            except (NoReply, Refused) as error:
                failed.append(str(error))
            finally:
                servo.rebooting = False
                self._host.answered(servo)
        if failed:
            self._host.fault("incomplete:reboot_motors", "; ".join(failed))
        elif self._host.stops() != stops:
            failed.append(f"stopped meanwhile: {self._causes()}")
        elif enable and self._host.faults():
            yield from self.rearm(stops)
        if failed:
            raise ServiceFailed(f"restarted {restarted}, but: " + "; ".join(failed))
        return restarted

    def _await_return(self, servo: Servo) -> Steps[None]:
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            yield
            with contextlib.suppress(NoReply):
                self._host.bus.ping(servo.servo_id, attempts=1)
                return

    def set_modes(
        self, cmd_type: str, name: str, motors: Sequence[str], mode: Mode
    ) -> Steps[list[str]]:
        """Change mode and profile; see `XsDriver.set_operating_modes`."""
        number = OPERATING_MODES[mode.operating_mode]
        able: list[str] = []
        unable: list[str] = []
        for motor in motors:
            model = self._servos.by_name[motor].model
            (able if model is None or number in model.operating_modes else unable).append(motor)
        if not able:
            raise ServiceFailed(f"{unable} have no mode '{mode.operating_mode}'")
        servos = self.with_shadows(able)
        self._require_present(servos)
        self._host.forget_goals(servos)
        for servo in servos:
            servo.mode = self._servos.given_modes[servo.name] = mode
            servo.torque_wanted = servo.unsettled = True
        self._modes.set(cmd_type, name, [servo.name for servo in servos], mode)
        for servo in servos:
            self._servos.read_all(self._host.bus, servo)
            yield
            yield from self._servos.configure(self._host.bus, servo)
            servo.unsettled = False
        yield from self._prepare_and_energise(servos)
        return unable

    def set_registers(self, motors: Sequence[str], values: Mapping[str, int]) -> Steps[list[str]]:
        """Write registers; see `XsDriver.set_registers`."""
        servos = self._servos.named(motors)
        self._require_present(servos)
        lacking: list[str] = []
        for register, value in values.items():
            having = [s for s in servos if register in self._servos.table(s)]
            lacking += [f"{s.name}.{register}" for s in servos if s not in having]
            if not having:
                raise ServiceFailed(f"register '{register}' is unknown")
            entry = self._servos.table(having[0])[register]
            if not entry.writable:
                raise ServiceFailed(f"register '{register}' is read-only")
            if not entry.minimum <= value <= entry.maximum:
                raise ServiceFailed(
                    f"{register} is {value}; expected {entry.minimum}..{entry.maximum}"
                )
            if register.startswith("Goal_"):
                self._goal_by_register(having, register, value)
                continue
            targets = having
            if not entry.eeprom:
                targets = self.with_shadows([s.name for s in having])
                self._remember_setting(targets, register, value)
            for servo in targets:
                if entry.eeprom:
                    if servo.known(register) == value:
                        continue
                    if servo.torque_wanted:
                        raise ServiceFailed(
                            f"{register} is in EEPROM, which torque locks; switch torque of "
                            f"{servo.name} off first"
                        )
                try:
                    self._servos.write(self._host.bus, servo, register, value)
                except Refused as error:
                    if servo is not targets[0]:
                        raise
                    raise ServiceFailed(f"{servo.name}: {error}") from error
                yield
        return lacking

    def _remember_setting(self, servos: Sequence[Servo], register: str, value: int) -> None:
        for servo in servos:
            if register == "Profile_Velocity":
                servo.mode = replace(servo.mode, profile_velocity=value)
            elif register == "Profile_Acceleration":
                servo.mode = replace(servo.mode, profile_acceleration=value)
            else:
                servo.settings[register] = value

    def _goal_by_register(self, servos: Sequence[Servo], register: str, value: int) -> None:
        """Treat a goal that is written as a register like the command that it is."""
        for servo in servos:
            master = self._servos.master_of.get(servo.name)
            if master is not None:
                raise ServiceFailed(f"{servo.name} follows {master}; write that one's {register}")
            if register == "Goal_Position":
                low, high = self._servos.position_limits(servo)
                if not low <= value <= high:
                    raise ServiceFailed(f"{servo.name}: {register} {value} is not in {low}..{high}")
            if not servo.torque_wanted:
                raise ServiceFailed(f"{servo.name} has no torque; call torque_enable")
        self._host.command_goals({register: {servo.servo_id: value for servo in servos}})

    def get_registers(self, motors: Sequence[str], register: str) -> Steps[list[int]]:
        """Read a register; see `XsDriver.get_registers`."""
        values: list[int] = []
        for servo in self._servos.named(motors):
            try:
                entry = self._servos.table(servo).get(register)
                if entry is None:
                    raise ServiceFailed(f"{servo.name} has no register '{register}'")
                data, _ = self._host.bus.read(servo.servo_id, entry.address, entry.size)
            except (NoReply, Refused) as error:
                self._host.event("error", f"get_motor_registers: {error}")
                return values
            values.append(int.from_bytes(data, "little", signed=entry.signed))
            yield
        return values

    def _causes(self) -> str:
        return "; ".join(self._host.faults().values())

    def _require_present(self, servos: Sequence[Servo]) -> None:
        missing = [s.name for s in servos if s.missing]
        if missing:
            raise ServiceFailed(f"{missing} do not answer")
