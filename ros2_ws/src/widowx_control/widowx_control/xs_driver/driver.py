"""The driver of the arm's servo bus, without ROS: one thread owns the bus and runs the cycle.

Every cycle: goals out (one sync write per goal register, sent as soon as a command arrives), state
in (one sync read), then service steps, a check that goals arrived, the shadows, or one servo's
health. Commands coalesce per servo. No single transaction is long, because a command waits for the
one that is on the wire.
Anything that can move the arm by itself is refused in the state STOPPED, which every fault latches
and only an explicit re-arm leaves.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final

from node_common.realtime import request_realtime

from widowx_control.xs_driver.arm_servos import (
    ArmServos,
    Servo,
    Steps,
    finish,
    profile_registers,
)
from widowx_control.xs_driver.bus import NoReply, Refused, ServoBus
from widowx_control.xs_driver.configuration import ArmConfiguration, Mode, mode_problem
from widowx_control.xs_driver.control_table import WATCHDOG_MS_PER_UNIT, ServoModel
from widowx_control.xs_driver.driver_types import (
    CommandRefused,
    DriverSettings,
    DriverState,
    DriverStatus,
    JointReading,
    LoopCounters,
    ServiceFailed,
)
from widowx_control.xs_driver.goal_sender import GoalSender
from widowx_control.xs_driver.goals import GoalTranslator, ModeRecords
from widowx_control.xs_driver.procedures import Procedures
from widowx_control.xs_driver.run_state import RunState
from widowx_control.xs_driver.serial_port import PortLost, SerialPort
from widowx_control.xs_driver.servo_care import ServoCare
from widowx_control.xs_driver.state_reader import BusSilent, StateReader

_START_ATTEMPTS: Final = 10
_SHADOW_TURNS: Final = 3
"""Shadows are read every so many cycles."""
_STEP_ALLOWANCE_S: Final = 0.003
"""A service step is started only when this much of the cycle is left."""
_READ_SHARE: Final = 0.75
"""Part of the cycle after which the joints are not read a third time."""
_MAX_BEHIND_S: Final = 0.04
"""Late cycles are made up for as long as they are not later than this."""
_OWNED_REGISTERS: Final = {
    "ID": "it would lose the servo; use the maker's tool",
    "Baud_Rate": "it would lose the servo; use the maker's tool",
    "Homing_Offset": "it shifts all positions; set it in the motor configuration",
    "Secondary_ID": "it is set by the motor configuration",
    "Bus_Watchdog": "it is set by the parameter bus_watchdog_ms",
    "Status_Return_Level": "the driver needs every answer",
    "Protocol_Type": "the driver speaks protocol 2.0 only",
    "Operating_Mode": "use set_operating_modes",
    "Drive_Mode": "use set_operating_modes",
}


@dataclass
class _Job:
    steps: Steps[Any]
    future: Future[Any]


class XsDriver:
    """Drives the servos of one arm.

    Commands and services may be called from any thread; `on_reading` and `on_event` are called from
    the bus thread and must be quick.

    Args:
        configuration: of the arm.
        settings: see `DriverSettings`.
        on_reading: gets every complete reading.
        on_event: gets ('info' | 'warning' | 'error', text).
    """

    def __init__(
        self,
        configuration: ArmConfiguration,
        settings: DriverSettings,
        on_reading: Callable[[JointReading], None],
        on_event: Callable[[str, str], None],
    ) -> None:
        """Prepare; nothing is opened until `start`."""
        self._configuration = configuration
        self._settings = settings
        self._on_reading = on_reading
        self._on_event = on_event
        self._publish_period_s = 1.0 / configuration.update_rate_hz
        self._period_s = 1.0 / max(settings.cycle_rate_hz, configuration.update_rate_hz)
        self._servos = ArmServos(
            configuration, settings.load_configs, settings.bus_watchdog_ms // WATCHDOG_MS_PER_UNIT
        )
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._run = RunState()
        # Guarded by the lock of the run state: what callers and the bus thread share.
        self._jobs: deque[_Job] = deque()
        self._halts: deque[tuple[str, Future[None]]] = deque()
        self._refused: Counter[str] = Counter()
        self._modes = ModeRecords(configuration)
        self._translator = GoalTranslator(
            configuration, self._servos, self._modes, settings.limit_tolerance_rad
        )
        self._procedures = Procedures(configuration, self._servos, self._modes, self)
        # Only the bus thread.
        self._port = SerialPort(settings.port, settings.baud_rate, settings.reply_margin_s)
        self.bus = ServoBus(self._port)
        self._started_once = False
        self._job: _Job | None = None
        self._turn = 0
        self._urgent: deque[int] = deque()
        self._counters = LoopCounters()
        self._rate_window: deque[float] = deque(maxlen=101)
        self._sender = GoalSender(
            configuration,
            settings,
            self._servos,
            self.bus,
            self._translator,
            self._run,
            self._counters,
            fault=self.fault,
            look_at=self._look_at,
            on_refusal=self._trajectory_refused,
        )
        self._reader = StateReader(
            configuration,
            self._servos,
            self.bus,
            settings.missing_after_s,
            attend=self._attend,
            look_at=self._look_at,
            lost=self._lost,
        )
        self._care = ServoCare(
            self._servos,
            self.bus,
            self._sender,
            self._run,
            self._counters,
            settings.reconnect_period_s,
            urgent=self._urgent,
            fault=self.fault,
            event=self.event,
            answered=self._reader.answered,
        )

    # --- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the bus thread. It opens the port, and keeps trying until it can."""
        self._thread = threading.Thread(target=self._drive_bus, name="xs_driver_bus", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Hold the arm where it is, release the bus and end the thread."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def status(self) -> DriverStatus:
        """Return a copy of the driver's state and counters."""
        window = list(self._rate_window)
        rate = (len(window) - 1) / (window[-1] - window[0]) if len(window) > 1 else 0.0
        with self._run.lock:
            return DriverStatus(
                self._run.state,
                dict(self._run.faults),
                self._run.problem,
                rate,
                replace(
                    self._counters,
                    implausible_readings=self._reader.implausible_readings,
                    eeprom_writes=sum(s.eeprom_writes for s in self._servos.by_name.values()),
                ),
                replace(self.bus.counters),
                dict(self._refused),
                {name: dict(s.registers) for name, s in self._servos.by_name.items()},
                tuple(name for name, s in self._servos.by_name.items() if s.missing),
                self._sender.trajectory_running,
                self._port.latency_timer_ms() if self._port.is_open else None,
            )

    def models(self) -> dict[str, ServoModel]:
        """Return the servo model of every motor that ever answered."""
        servos = self._servos.by_name.items()
        return {name: servo.model for name, servo in servos if servo.model is not None}

    def mode_of(self, cmd_type: str, name: str) -> Mode:
        """Return the recorded mode of a group or a motor.

        Raises:
            KeyError: unknown cmd_type or name.
        """
        return self._modes.of(cmd_type, name)

    # --- commands ------------------------------------------------------------------------------

    def command(self, cmd_type: str, name: str, values: Sequence[float]) -> None:
        """Carry out a group or single command, values in the unit of the target's mode.

        Position modes: rad; linear_position: m between the fingers; velocity: rad/s; current: mA;
        pwm: raw units. A joint of the group that is in another mode than the group is left alone.

        Raises:
            CommandRefused: nothing of the command was carried out.
        """
        try:
            motors = self._translator.targets(cmd_type, name)
            with self._run.lock:
                self._run.require_running()
            goals = self._translator.goals(cmd_type, name, motors, values)
            if self._sender.command(motors, goals):
                self.event("warning", "a command for the same joints ended the trajectory")
        except CommandRefused as refusal:
            self.count_refusal(refusal.code)
            raise
        self._wake.set()

    def command_trajectory(
        self,
        cmd_type: str,
        name: str,
        joint_names: Sequence[str],
        points: Mapping[str, Sequence[tuple[float, Sequence[float]]]],
    ) -> None:
        """Start a trajectory.

        Args:
            cmd_type: 'group' or 'single'.
            name: of the group or motor.
            joint_names: order of the values; empty means the group's own order.
            points: (time from start in s, values) for 'positions', 'velocities' and 'effort'; the
                mode of the target says which is used.

        Raises:
            CommandRefused: it is not valid, or another one runs and may not be replaced.
        """
        try:
            trajectory = self._translator.trajectory(cmd_type, name, joint_names, points)
            self._sender.start_trajectory(trajectory)
        except CommandRefused as refusal:
            self.count_refusal(refusal.code)
            raise
        self._wake.set()

    def count_refusal(self, code: str) -> None:
        """Count a command that was refused before it came here."""
        with self._run.lock:
            self._refused[code] += 1

    # --- services ------------------------------------------------------------------------------

    def torque_enable(self, cmd_type: str, name: str, enable: bool) -> Future[None]:
        """Switch torque of the motors and their shadows. Switching on also re-arms.

        Raises:
            KeyError: unknown cmd_type or name. The future raises ServiceFailed.
        """
        servos = self._procedures.with_shadows(self._configuration.motors_of(cmd_type, name))
        steps = self._procedures.torque(servos, enable, self.stops())
        return self._submit(self._by_all("torque_enable", steps))

    def rearm(self) -> Future[None]:
        """Leave STOPPED, if no cause stands. The future raises ServiceFailed naming what stands."""
        return self._submit(self._procedures.rearm(self.stops()))

    def halt(self, reason: str) -> Future[None]:
        """Stop the arm and refuse commands until re-armed.

        Services that are at work do not hold it up, and it is not lost while there is no bus.
        """
        future: Future[None] = Future()
        with self._run.lock:
            if self._run.state is DriverState.DISCONNECTED:
                self._run.latch("halted", reason, request=True)
                future.set_result(None)
                return future
            self._halts.append((reason, future))
        self._wake.set()
        return future

    def reboot(self, cmd_type: str, name: str, enable: bool, smart: bool) -> Future[list[str]]:
        """Restart motors and their shadows one after the other; returns those restarted.

        Args:
            cmd_type: 'group' or 'single'.
            name: of the group or motor.
            enable: torque on afterwards, and re-arm.
            smart: only those with a hardware error, or that do not answer.

        Raises:
            KeyError: unknown cmd_type or name. The future raises ServiceFailed.
        """
        servos = self._procedures.with_shadows(self._configuration.motors_of(cmd_type, name))
        return self._submit(self._procedures.reboot(servos, enable, smart, self.stops()))

    def set_operating_modes(self, cmd_type: str, name: str, mode: Mode) -> Future[list[str]]:
        """Change mode and profile; returns the motors that cannot do the mode and keep theirs.

        Raises:
            KeyError: unknown cmd_type or name.
            ServiceFailed: the mode is not valid; the future raises it too.
        """
        motors = self._configuration.motors_of(cmd_type, name)
        problem = mode_problem(mode)
        if problem:
            raise ServiceFailed(problem)
        if mode.operating_mode == "linear_position":
            wrong = [m for m in motors if m not in self._configuration.grippers]
            if wrong:
                raise ServiceFailed(f"{wrong} are not grippers, so they have no linear_position")
        for motor in motors:
            if motor in self._servos.master_of:
                master = self._servos.master_of[motor]
                raise ServiceFailed(f"{motor} has the mode of {master}; set that one's")
        steps = self._procedures.set_modes(cmd_type, name, motors, mode)
        return self._submit(self._by_all("set_operating_modes", steps))

    def set_registers(
        self, cmd_type: str, name: str, values: Mapping[str, int]
    ) -> Future[list[str]]:
        """Write the same register values to every motor; returns the motors that lack one.

        RAM settings also reach the shadows and are restored after a restart. An EEPROM register
        is written only where it differs, and only while torque is off.

        Raises:
            KeyError: unknown cmd_type, name or register.
            ServiceFailed: the register belongs to the driver; the future raises it too.
        """
        motors = self._configuration.motors_of(cmd_type, name)
        for register in values:
            if register in _OWNED_REGISTERS:
                raise ServiceFailed(f"{register} is not written: {_OWNED_REGISTERS[register]}")
        if set(values) == {"Torque_Enable"}:
            enable = bool(values["Torque_Enable"])
            servos = self._procedures.with_shadows(motors)
            torque = _then(self._procedures.torque(servos, enable, self.stops()), [])
            return self._submit(self._by_all("torque_enable", torque))
        steps = self._procedures.set_registers(motors, values)
        return self._submit(self._by_all("set_motor_registers", steps))

    def get_registers(self, cmd_type: str, name: str, register: str) -> Future[list[int]]:
        """Read one register of every motor; the list ends before the first that failed.

        Raises:
            KeyError: unknown cmd_type or name.
        """
        motors = self._configuration.motors_of(cmd_type, name)
        return self._submit(self._procedures.get_registers(motors, register))

    def _by_all(self, service: str, steps: Steps[Any]) -> Steps[Any]:
        """Latch a stop when one servo did not do what others of a group may have done already."""
        try:
            return (yield from steps)
        except (NoReply, Refused) as error:
            self.fault(f"incomplete:{service}", f"{service} was not done by every servo: {error}")
            raise

    def _submit(self, steps: Steps[Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._run.lock:
            if self._run.state is DriverState.DISCONNECTED:
                future.set_exception(ServiceFailed("the bus is not connected"))
                return future
            self._jobs.append(_Job(steps, future))
        self._wake.set()
        return future

    # --- what procedures use (see procedures.Host), in the bus thread ---------------------------

    def forget_goals(self, servos: Sequence[Servo]) -> None:
        """Drop what was commanded, so that nothing old is sent or missed."""
        self._sender.forget(servos)

    def fault(self, code: str, text: str) -> None:
        """Latch a stop."""
        self._stop(code, text, request=False)

    def _stop(self, code: str, text: str, request: bool) -> None:
        with self._run.lock:
            first = self._run.running
            # Noticed servo by servo, after a loss of power for up to a second; torque is what a
            # re-arm gives to all.
            mended = not first and code.startswith("torque_lost:")
            new = self._run.latch(code, text, request=request, mended_by_rearm=mended)
            self._run.state = DriverState.STOPPED
            self._sender.drop_commands()
        if first:
            self._sender.hold_all()
        if new:
            self.event("error", f"stopped until re-armed: {text}")

    def event(self, level: str, text: str) -> None:
        """Report something to the owner of the driver."""
        # A log that fails must not end the thread that keeps the servos alive.
        with contextlib.suppress(Exception):
            self._on_event(level, text)

    def command_goals(self, goals: Mapping[str, Mapping[int, int]]) -> None:
        """Command goals in raw units.

        Raises:
            ServiceFailed: the driver is not running.
        """
        try:
            self._sender.command((), goals)
        except CommandRefused as refusal:
            raise ServiceFailed(str(refusal)) from refusal

    def answered(self, servo: Servo) -> None:
        """Note that a servo is there."""
        self._reader.answered(servo)

    def stops(self) -> int:
        """Return how often something latched a stop."""
        with self._run.lock:
            return self._run.stops

    def faults(self) -> dict[str, str]:
        """Return the faults that stand, by code."""
        with self._run.lock:
            return dict(self._run.faults)

    def clear_faults(self) -> None:
        """Leave STOPPED."""
        with self._run.lock:
            self._run.faults.clear()
            self._run.state = DriverState.RUNNING
        self.event("info", "re-armed")

    # --- bus thread ----------------------------------------------------------------------------

    def _drive_bus(self) -> None:
        limitation = request_realtime(self._settings.realtime_priority)
        if limitation:
            self.event("info", limitation)
        problem = ""
        while not self._stopping.is_set():
            try:
                self._connect()
                problem = ""
                self._cycle_until_stopped()
            except (PortLost, BusSilent, NoReply, Refused, ServiceFailed) as error:
                self._disconnected(str(error))
                if str(error) != problem:
                    self.event("error", str(error))
                    problem = str(error)
                self._stopping.wait(self._settings.reconnect_period_s)
            except Exception as error:
                # The thread must outlive a defect: the servos would stop, the node would not know.
                self._disconnected(f"defect: {error!r}")
                self.event("error", f"defect in the bus thread: {error!r}")
                self._stopping.wait(self._settings.reconnect_period_s)
        self._release()

    def _disconnected(self, reason: str) -> None:
        self._port.closePort()
        with self._run.lock:
            self._run.problem = reason
            self._run.state = DriverState.DISCONNECTED
            if self._started_once:
                self._run.latch("bus_lost", f"the bus was lost: {reason}")
            jobs, self._jobs = list(self._jobs), deque()
            while self._halts:
                halt_reason, future = self._halts.popleft()
                self._run.latch("halted", halt_reason, request=True)
                future.set_result(None)
        self._sender.forget_all()
        if self._job is not None:
            jobs.append(self._job)
            self._job = None
        for job in jobs:
            job.future.set_exception(ServiceFailed(f"the bus was lost: {reason}"))
        for servo in self._servos.by_name.values():
            servo.missing = True
            servo.rebooting = False
            servo.state = None

    def _connect(self) -> None:
        """Open the port, find the servos and bring them to what is wanted, without moving them."""
        self._port.openPort()
        latency = self._port.latency_timer_ms()
        if latency is not None and latency > 1:
            self.event(
                "warning",
                f"the adapter's latency timer is {latency} ms; 1 ms is needed for the cycle rate",
            )
        problems = []
        servos = list(self._servos.by_name.values())
        for servo in servos:
            problem = finish(self._servos.find(self.bus, servo, _START_ATTEMPTS))
            if problem:
                problems.append(problem)
            if len(problems) >= 3 and len(problems) == servos.index(servo) + 1:
                raise BusSilent(
                    f"no servo answers on {self._settings.port} at {self._settings.baud_rate} "
                    "bit/s; check power, cable, port and baud rate"
                )
        present = [s for s in servos if not s.missing]
        faults: dict[str, str] = {
            f"servo_missing:{s.name}": f"{s.name} (ID {s.servo_id}) does not answer"
            for s in servos
            if s.missing
        }
        for servo in present:
            for text in finish(self._servos.configure(self.bus, servo)):
                self.event("info", f"wrote EEPROM {text}")
        for shadow in sorted(self._servos.master_of):
            servo = self._servos.by_name[shadow]
            if servo.missing or self._servos.by_name[self._servos.master_of[shadow]].missing:
                continue
            if shadow not in self._configuration.calibrated_shadows:
                finish(self._servos.require_agreement(self.bus, servo))
                continue
            for text in finish(self._servos.calibrate(self.bus, servo)):
                self.event("info", f"wrote EEPROM {text}")
        ordered = sorted(present, key=lambda s: s.name not in self._servos.master_of)
        for servo in ordered:
            finish(self._servos.restore_ram(self.bus, servo))
            fault = self._servos.health_problem(servo)
            if fault and not fault[0].startswith("torque_lost"):
                faults[fault[0]] = fault[1]
            unsafe = self._servos.torque_problem(servo)
            if unsafe:
                faults[unsafe[0]] = unsafe[1]
        with self._run.lock:
            faults = self._run.faults | faults
        if not faults:
            for servo in ordered:
                finish(self._servos.energise(self.bus, servo))
        self._reader.start_over(present)
        with self._run.lock:
            self._run.problem = ""
            # A halt may have come meanwhile.
            self._run.faults = faults = self._run.faults | faults
            self._run.state = DriverState.STOPPED if faults else DriverState.RUNNING
        if self._started_once:
            self._counters.reconnections += 1
        self._started_once = True
        names = ", ".join(s.name for s in present)
        self.event("info", f"connected to {len(present)} servos on {self._settings.port}: {names}")
        if faults:
            self.event("error", "stopped until re-armed: " + "; ".join(faults.values()))

    def _release(self) -> None:
        """Leave the servos holding still, with the profiles of their modes, which a client that

        ends later can give back no more, and their watchdogs off so that others can command.
        """
        if self._port.is_open and self._run.state is not DriverState.DISCONNECTED:
            with contextlib.suppress(PortLost):
                self._sender.hold_all()
                for servo in self._servos.by_name.values():
                    profile = profile_registers(self._servos.given_modes[servo.name])
                    with contextlib.suppress(NoReply, Refused):
                        for register, value in {**profile, "Bus_Watchdog": 0}.items():
                            if not servo.missing:
                                self._servos.write(self.bus, servo, register, value)
        self._disconnected("the driver ends")

    def _cycle_until_stopped(self) -> None:
        due = time.monotonic()
        publish_due = due
        while not self._stopping.is_set():
            self._wait_until(due)
            start = time.monotonic()
            if start - due > self._period_s:
                self._counters.late_cycles += 1
            if start - due > _MAX_BEHIND_S:
                due = start
            self._rate_window.append(start)
            self._counters.cycles += 1
            self._obey_halts()
            self._sender.begin_cycle(start)
            reading = self._reader.read_joints(start, _READ_SHARE * self._period_s)
            # Commands that came during the read go out before anything else.
            self._attend()
            if reading is None:
                self._counters.lost_cycles += 1
            elif start >= publish_due - 0.25 * self._period_s:
                self._publish(reading)
                publish_due = max(publish_due + self._publish_period_s, start)
                self._attend()
            due += self._period_s
            self._work(due)

    def _wait_until(self, due: float) -> None:
        while not self._stopping.is_set():
            left = due - time.monotonic()
            if left <= 0.0:
                return
            if self._wake.wait(left):
                self._wake.clear()
                self._attend()

    def _attend(self) -> None:
        """Do what shall not wait longer than for the packets on the wire."""
        self._obey_halts()
        self._sender.send_pending()

    def _obey_halts(self) -> None:
        while self._halts:
            reason, future = self._halts.popleft()
            self._stop("halted", reason, request=True)
            future.set_result(None)

    def _publish(self, reading: JointReading) -> None:
        if not self._configuration.publish_states:
            return
        try:
            self._on_reading(reading)
        except Exception as error:
            self.event("error", f"a reading could not be published: {error!r}")

    def _lost(self, servo: Servo) -> None:
        servo.missing = True
        servo.state = None
        self.forget_goals([servo])
        self.fault(
            f"servo_missing:{servo.name}", f"{servo.name} (ID {servo.servo_id}) does not answer"
        )

    def _trajectory_refused(self, refusal: CommandRefused) -> None:
        self.count_refusal(refusal.code)
        self.event("error", f"the trajectory ends: {refusal}")

    def _look_at(self, servo_id: int) -> None:
        if servo_id not in self._urgent:
            self._urgent.append(servo_id)

    # --- services in the bus thread ------------------------------------------------------------

    def _work(self, until: float) -> None:
        """Do service steps while there is time; without a service, one other thing."""
        stepped = False
        while self._next_job() is not None:
            if stepped and time.monotonic() > until - _STEP_ALLOWANCE_S:
                return
            self._step_job()
            stepped = True
            self._attend()
        if stepped:
            return
        self._turn = (self._turn + 1) % _SHADOW_TURNS
        if self._turn == 0:
            self._reader.read_shadows()
        elif self._sender.verification_due(self._period_s):
            self._sender.verify()
        else:
            self._care.look_after_one()

    def _next_job(self) -> _Job | None:
        if self._job is None:
            with self._run.lock:
                if self._jobs:
                    self._job = self._jobs.popleft()
        return self._job

    def _step_job(self) -> None:
        job = self._job
        assert job is not None
        try:
            next(job.steps)
            return
        except StopIteration as end:
            job.future.set_result(end.value)
        except ServiceFailed as error:
            job.future.set_exception(error)
        except (NoReply, Refused, ValueError) as error:
            job.future.set_exception(ServiceFailed(str(error)))
        except PortLost:
            raise
        except Exception as error:
            job.future.set_exception(ServiceFailed(f"defect: {error!r}"))
        self._job = None


def _then(steps: Steps[Any], result: Any) -> Steps[Any]:
    """Run a procedure and return something else than its result."""
    yield from steps
    return result
