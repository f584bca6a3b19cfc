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

from widowx_control.xs_driver.arm_servos import (
    HOLD_TOLERANCE_TICKS,
    STATE_ADDRESS,
    STATE_LENGTH,
    STREAM_REGISTERS,
    ArmServos,
    Servo,
    Steps,
    parse_state,
)
from widowx_control.xs_driver.bus import NoReply, Refused, ServoBus
from widowx_control.xs_driver.configuration import (
    POSITION_MODES,
    ArmConfiguration,
    Mode,
    mode_problem,
)
from widowx_control.xs_driver.control_table import (
    DRIVE_TIME_PROFILE,
    RAD_PER_S_PER_UNIT,
    RAD_PER_TICK,
    WATCHDOG_MS_PER_UNIT,
    WATCHDOG_TRIPPED,
    ServoModel,
    hardware_error_text,
)
from widowx_control.xs_driver.driver_types import (
    CommandRefused,
    DriverSettings,
    DriverState,
    DriverStatus,
    JointReading,
    LoopCounters,
    ServiceFailed,
)
from widowx_control.xs_driver.goals import GoalTranslator, ModeRecords
from widowx_control.xs_driver.position_filter import PositionFilter
from widowx_control.xs_driver.procedures import Procedures
from widowx_control.xs_driver.realtime import request_realtime
from widowx_control.xs_driver.serial_port import PortLost, SerialPort
from widowx_control.xs_driver.trajectory import TrajectoryPlayer
from widowx_control.xs_driver.units import encode

_STOP_RAMP_MS: Final = 50
_STOP_TIME_MS: Final = 100
_STOP_ACCELERATION_UNITS: Final = 40
"""15 rad/s^2, for servos in a velocity profile."""
_STOP_VELOCITY_UNITS: Final = 131
_START_ATTEMPTS: Final = 10
_MISSES: Final = 8
"""Cycles in a row without an answer before a servo counts as missing."""
_LAST_PINGS: Final = 3
_GOAL_MISSES_TO_LOOK: Final = 3
_GOAL_MISSES_TO_STOP: Final = 25
_VERIFY_PERIOD_S: Final = 0.1
_SHADOW_TURNS: Final = 3
"""Shadows are read every so many cycles."""
_SHADOW_PATIENCE_S: Final = 0.06
_STEP_ALLOWANCE_S: Final = 0.003
"""A service step is started only when this much of the cycle is left."""
_PROFILE_REGISTERS: Final = frozenset({"Profile_Velocity", "Profile_Acceleration"})
_OWNED_REGISTERS: Final = {
    "ID": "it would lose the servo; use the maker's tool",
    "Baud_Rate": "it would lose the servo; use the maker's tool",
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


class _BusSilent(Exception):
    """No servo answers any more although the port is there."""


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
        self._period_s = 1.0 / configuration.update_rate_hz
        self._servos = ArmServos(
            configuration, settings.load_configs, settings.bus_watchdog_ms // WATCHDOG_MS_PER_UNIT
        )
        self._joints = self._servos.named(configuration.joint_order)
        self._shadows = self._servos.named(sorted(self._servos.master_of))
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        # Guarded by the lock: what callers and the bus thread share.
        self._state = DriverState.DISCONNECTED
        self._faults: dict[str, str] = {}
        self._pending: dict[str, dict[int, int]] = {}
        self._jobs: deque[_Job] = deque()
        self._refused: Counter[str] = Counter()
        self._player = TrajectoryPlayer()
        self._stream_time_s: dict[int, float] = {}
        self._problem = ""
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
        self._expected_goal: dict[int, int] = {}
        self._unverified: set[int] = set()
        self._goal_written_s = 0.0
        self._goal_verified_s = 0.0
        self._shadow_turn = 0
        self._goal_misses: Counter[int] = Counter()
        self._streamed: dict[str, dict[int, int]] = {}
        self._written: set[str] = set()
        self._last_answer_s: dict[int, float] = {}
        self._misses: Counter[int] = Counter()
        self._filter = PositionFilter()
        self._known_errors: dict[int, int] = {}
        self._health_order: deque[int] = deque(self._servos.by_id)
        self._urgent: deque[int] = deque()
        self._last_probe_s = 0.0
        self._counters = LoopCounters()
        self._rate_window: deque[float] = deque(maxlen=101)

    # --- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the bus thread. It opens the port, and keeps trying until it can."""
        self._thread = threading.Thread(target=self._run, name="xs_driver_bus", daemon=True)
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
        with self._lock:
            return DriverStatus(
                self._state,
                dict(self._faults),
                self._problem,
                rate,
                replace(
                    self._counters,
                    implausible_readings=self._filter.rejected,
                    eeprom_writes=sum(s.eeprom_writes for s in self._servos.by_name.values()),
                ),
                replace(self.bus.counters),
                dict(self._refused),
                {name: dict(s.registers) for name, s in self._servos.by_name.items()},
                tuple(name for name, s in self._servos.by_name.items() if s.missing),
                self._player.running is not None,
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
            with self._lock:
                self._require_running()
            goals = self._translator.goals(cmd_type, name, motors, values)
            with self._lock:
                self._require_running()
                running = self._player.running
                if running is not None and set(running.motors) & set(motors):
                    self._player.cancel()
                    self.event("warning", "a command for the same joints ended the trajectory")
                self._set_pending(goals)
        except CommandRefused as refusal:
            self._count_refusal(refusal)
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
            with self._lock:
                self._require_running()
                if self._player.running is not None and not self._settings.preempt_trajectories:
                    raise CommandRefused("trajectory_busy", "a trajectory is already running")
                self._player.start(trajectory, time.monotonic())
        except CommandRefused as refusal:
            self._count_refusal(refusal)
            raise
        self._wake.set()

    def count_refusal(self, code: str) -> None:
        """Count a command that was refused before it came here."""
        with self._lock:
            self._refused[code] += 1

    def _count_refusal(self, refusal: CommandRefused) -> None:
        self.count_refusal(refusal.code)

    def _require_running(self) -> None:
        if self._state is not DriverState.RUNNING:
            reasons = "; ".join(self._faults.values()) or "the bus is not connected"
            raise CommandRefused(self._state.value, f"the driver is {self._state.value}: {reasons}")

    def _set_pending(self, goals: Mapping[str, Mapping[int, int]]) -> None:
        now = time.monotonic()
        for register, values in goals.items():
            self._pending.setdefault(register, {}).update(values)
            if register != "Goal_Position":
                for servo_id in values:
                    self._stream_time_s[servo_id] = now

    # --- services ------------------------------------------------------------------------------

    def torque_enable(self, cmd_type: str, name: str, enable: bool) -> Future[None]:
        """Switch torque of the motors and their shadows. Switching on also re-arms.

        Raises:
            KeyError: unknown cmd_type or name. The future raises ServiceFailed.
        """
        servos = self._procedures.with_shadows(self._configuration.motors_of(cmd_type, name))
        return self._submit(self._procedures.torque(servos, enable))

    def rearm(self) -> Future[None]:
        """Leave STOPPED, if no cause stands. The future raises ServiceFailed naming what stands."""
        return self._submit(self._procedures.rearm())

    def halt(self, reason: str) -> Future[None]:
        """Stop the arm and refuse commands until re-armed."""
        return self._submit(self._procedures.halt(reason))

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
        return self._submit(self._procedures.reboot(servos, enable, smart))

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
        return self._submit(self._procedures.set_modes(cmd_type, name, motors, mode))

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
            return self._submit(_then(self._procedures.torque(servos, enable), []))
        return self._submit(self._procedures.set_registers(motors, values))

    def get_registers(self, cmd_type: str, name: str, register: str) -> Future[list[int]]:
        """Read one register of every motor; the list ends before the first that failed.

        Raises:
            KeyError: unknown cmd_type or name.
        """
        motors = self._configuration.motors_of(cmd_type, name)
        return self._submit(self._procedures.get_registers(motors, register))

    def _submit(self, steps: Steps[Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self._state is DriverState.DISCONNECTED:
                future.set_exception(ServiceFailed("the bus is not connected"))
                return future
            self._jobs.append(_Job(steps, future))
        self._wake.set()
        return future

    # --- what procedures use (see procedures.Host), in the bus thread ---------------------------

    def forget_goals(self, servos: Sequence[Servo]) -> None:
        """Drop what was commanded, so that nothing old is sent or missed."""
        ids = {s.servo_id for s in servos}
        names = {s.name for s in servos}
        with self._lock:
            for goals in (*self._pending.values(), *self._streamed.values()):
                for servo_id in ids:
                    goals.pop(servo_id, None)
            running = self._player.running
            if running is not None and names & set(running.motors):
                self._player.cancel()
        for servo_id in ids:
            self._expected_goal.pop(servo_id, None)
            self._unverified.discard(servo_id)
            self._goal_misses.pop(servo_id, None)

    def fault(self, code: str, text: str) -> None:
        """Latch a stop."""
        with self._lock:
            known = code in self._faults
            self._faults[code] = text
            first = self._state is DriverState.RUNNING
            self._state = DriverState.STOPPED
            self._pending.clear()
            self._player.cancel()
        if first:
            self._hold_all()
        if not known:
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
        with self._lock:
            try:
                self._require_running()
            except CommandRefused as refusal:
                raise ServiceFailed(str(refusal)) from refusal
            self._set_pending(goals)

    def answered(self, servo: Servo) -> None:
        """Note that a servo is there."""
        self._last_answer_s[servo.servo_id] = time.monotonic()
        self._misses.pop(servo.servo_id, None)
        self._filter.forget(servo.servo_id)

    def fault_codes(self) -> frozenset[str]:
        """Return the faults that stand."""
        with self._lock:
            return frozenset(self._faults)

    def clear_faults(self) -> None:
        """Leave STOPPED."""
        with self._lock:
            self._faults.clear()
            self._state = DriverState.RUNNING
        self.event("info", "re-armed")

    # --- bus thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        limitation = request_realtime(self._settings.realtime_priority)
        if limitation:
            self.event("info", limitation)
        problem = ""
        while not self._stopping.is_set():
            try:
                self._connect()
                problem = ""
                self._cycle_until_stopped()
            except (PortLost, _BusSilent, NoReply, Refused, ServiceFailed) as error:
                if str(error) != problem:
                    self.event("error", str(error))
                    problem = str(error)
                self._disconnected(str(error))
                self._stopping.wait(self._settings.reconnect_period_s)
            except Exception as error:
                # The thread must outlive a defect: the servos would stop, the node would not know.
                self.event("error", f"defect in the bus thread: {error!r}")
                self._disconnected(f"defect: {error!r}")
                self._stopping.wait(self._settings.reconnect_period_s)
        self._release()

    def _disconnected(self, reason: str) -> None:
        self._port.closePort()
        with self._lock:
            self._problem = reason
            self._state = DriverState.DISCONNECTED
            if self._started_once:
                self._faults.setdefault("bus_lost", f"the bus was lost: {reason}")
            self._pending.clear()
            self._player.cancel()
            jobs, self._jobs = list(self._jobs), deque()
        self._streamed.clear()
        self._expected_goal.clear()
        self._unverified.clear()
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
            problem = _finish(self._servos.find(self.bus, servo, _START_ATTEMPTS))
            if problem:
                problems.append(problem)
            if len(problems) >= 3 and len(problems) == servos.index(servo) + 1:
                raise _BusSilent(
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
            for text in _finish(self._servos.configure(self.bus, servo)):
                self.event("info", f"wrote EEPROM {text}")
        for shadow in sorted(self._configuration.calibrated_shadows):
            servo = self._servos.by_name[shadow]
            if (
                not servo.missing
                and not self._servos.by_name[self._servos.master_of[shadow]].missing
            ):
                for text in _finish(self._servos.calibrate(self.bus, servo)):
                    self.event("info", f"wrote EEPROM {text}")
        ordered = sorted(present, key=lambda s: s.name not in self._servos.master_of)
        for servo in ordered:
            _finish(self._servos.restore_ram(self.bus, servo))
            fault = self._servos.health_problem(servo)
            if fault and not fault[0].startswith("torque_lost"):
                faults[fault[0]] = fault[1]
        with self._lock:
            faults = self._faults | faults
        if not faults:
            for servo in ordered:
                _finish(self._servos.energise(self.bus, servo))
        now = time.monotonic()
        self._last_answer_s = {s.servo_id: now for s in present}
        self._misses.clear()
        self._filter.clear()
        with self._lock:
            self._problem = ""
            self._faults = faults
            self._state = DriverState.STOPPED if faults else DriverState.RUNNING
        if self._started_once:
            self._counters.reconnections += 1
        self._started_once = True
        names = ", ".join(s.name for s in present)
        self.event("info", f"connected to {len(present)} servos on {self._settings.port}: {names}")
        if faults:
            self.event("error", "stopped until re-armed: " + "; ".join(faults.values()))

    def _release(self) -> None:
        """Leave the servos holding still, with their watchdogs off so that others can command."""
        if self._port.is_open and self._state is not DriverState.DISCONNECTED:
            with contextlib.suppress(PortLost, NoReply, Refused, ServiceFailed):
                self._hold_all()
                for servo in self._servos.by_name.values():
                    if not servo.missing:
                        self._servos.write(self.bus, servo, "Bus_Watchdog", 0)
        self._disconnected("the driver ends")

    def _cycle_until_stopped(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            self._wait_until(due)
            start = time.monotonic()
            if start - due > self._period_s:
                self._counters.late_cycles += 1
                due = start
            self._rate_window.append(start)
            self._written.clear()
            self._counters.cycles += 1
            self._play_trajectory(start)
            self._repeat_streams(start)
            self._send_pending()
            complete = self._read_states(start)
            if not complete:
                self._counters.lost_cycles += 1
            self._send_pending()
            self._work(due + self._period_s)
            due += self._period_s

    def _wait_until(self, due: float) -> None:
        while not self._stopping.is_set():
            left = due - time.monotonic()
            if left <= 0.0:
                return
            if self._wake.wait(left):
                self._wake.clear()
                self._send_pending()

    # --- goals out -----------------------------------------------------------------------------

    def _play_trajectory(self, now: float) -> None:
        with self._lock:
            running = self._player.running
            point = self._player.due(now)
            if running is None or point is None or self._state is not DriverState.RUNNING:
                return
        try:
            goals = self._translator.goals(
                running.cmd_type, running.name, running.motors, point.values
            )
        except CommandRefused as refusal:
            with self._lock:
                self._player.cancel()
            self._count_refusal(refusal)
            self.event("error", f"the trajectory ends: {refusal}")
            return
        with self._lock:
            self._set_pending(goals)

    def _repeat_streams(self, now: float) -> None:
        """Repeat velocity, current and PWM goals; zero those that nobody renews."""
        with self._lock:
            if self._state is not DriverState.RUNNING:
                return
            for register, goals in self._streamed.items():
                fresh = self._pending.setdefault(register, {})
                for servo_id, value in goals.items():
                    if servo_id in fresh:
                        continue
                    gripper = self._servos.by_id[servo_id].name in self._configuration.grippers
                    age = now - self._stream_time_s.get(servo_id, now)
                    limit = self._settings.open_loop_timeout_s
                    fresh[servo_id] = value if gripper or not limit or age <= limit else 0

    def _send_pending(self) -> None:
        with self._lock:
            if self._state is not DriverState.RUNNING:
                self._pending.clear()
                return
            ready = {
                register: self._pending.pop(register)
                for register in list(self._pending)
                if register not in self._written and self._pending[register]
            }
        for register, goals in ready.items():
            self._write_goals(register, goals)
            self._written.add(register)
            if register == "Goal_Position":
                self._expect(goals)
                for servo_id in goals:
                    self._goal_misses.pop(servo_id, None)
            else:
                self._streamed.setdefault(register, {}).update(goals)

    def _write_goals(self, register: str, goals: Mapping[int, int]) -> None:
        first = self._servos.by_id[next(iter(goals))]
        entry = self._servos.table(first)[register]
        self.bus.sync_write(
            entry.address, {servo_id: encode(entry, value) for servo_id, value in goals.items()}
        )

    def _expect(self, goals: Mapping[int, int]) -> None:
        self._expected_goal.update(goals)
        self._unverified.update(goals)
        self._goal_written_s = time.monotonic()

    def _hold_all(self) -> None:
        """Stop what moves, quickly; leave what stands, so that a loaded joint does not sag."""
        goals: dict[int, int] = {}
        zeros: dict[str, dict[int, int]] = {}
        for servo in self._servos.by_name.values():
            if servo.missing or servo.name in self._servos.master_of or servo.state is None:
                continue
            if servo.mode.operating_mode not in POSITION_MODES:
                register = STREAM_REGISTERS[servo.mode.operating_mode]
                zeros.setdefault(register, {})[servo.servo_id] = 0
                continue
            goal = servo.registers.get("Goal_Position", servo.state.position)
            goal = self._expected_goal.get(servo.servo_id, goal)
            if servo.state.moving or abs(goal - servo.state.position) > HOLD_TOLERANCE_TICKS:
                goals[servo.servo_id] = self._stopping_goal(servo)
        self._write_stop(goals)
        for register, values in zeros.items():
            self._write_goals(register, values)
            self._streamed[register] = dict(values)

    def _write_stop(self, goals: Mapping[int, int]) -> None:
        """Write a short profile and the goal, which lie side by side, in one packet."""
        data: dict[int, bytes] = {}
        for servo_id, goal in goals.items():
            servo = self._servos.by_id[servo_id]
            table = self._servos.table(servo)
            timed = servo.known("Drive_Mode") & DRIVE_TIME_PROFILE
            ramp = _STOP_RAMP_MS if timed else _STOP_ACCELERATION_UNITS
            span = _STOP_TIME_MS if timed else _STOP_VELOCITY_UNITS
            data[servo_id] = (
                encode(table["Profile_Acceleration"], ramp)
                + encode(table["Profile_Velocity"], span)
                + encode(table["Goal_Position"], goal)
            )
        if data:
            self._expect(goals)
            self.bus.sync_write(table["Profile_Acceleration"].address, data)

    def _stopping_goal(self, servo: Servo) -> int:
        assert servo.state is not None
        ticks_per_s = servo.state.velocity * RAD_PER_S_PER_UNIT / RAD_PER_TICK
        ahead = servo.state.position + ticks_per_s * _STOP_RAMP_MS * 1e-3
        low, high = self._servos.position_limits(servo)
        return min(max(round(ahead), low), high)

    # --- state in ------------------------------------------------------------------------------

    def _read_states(self, start: float) -> bool:
        """Read every joint, those that failed a second time. Returns whether all were read."""
        wanted = [s for s in self._joints if not s.missing and not s.rebooting]
        joints = [s.servo_id for s in wanted]
        left = joints + self._shadows_due(start)
        budget = start + 0.75 * self._period_s
        attempt = 0
        while any(servo_id in joints for servo_id in left):
            if attempt >= 2 and time.monotonic() > budget:
                break
            if attempt:
                # A servo that does not answer silences those after it, so it goes last.
                left = left[1:] + left[:1]
            self._sync_read(left)
            attempt += 1
        self._misses.update(left)
        self._find_missing(time.monotonic())
        if any(servo_id in joints for servo_id in left) or len(wanted) < len(self._joints):
            return False
        if self._configuration.publish_states:
            states = tuple(s.state for s in self._joints if s.state is not None)
            try:
                self._on_reading(JointReading(states))
            except Exception as error:
                self.event("error", f"a reading could not be published: {error!r}")
        return True

    def _sync_read(self, left: list[int]) -> None:
        """Read servos once and take those that answered off the list."""
        answers = self.bus.sync_read(left, STATE_ADDRESS, STATE_LENGTH)
        now = time.monotonic()
        for servo_id, data in answers.data.items():
            state = parse_state(data)
            if self._filter.accept(servo_id, state.position, now):
                self._servos.by_id[servo_id].state = state
                self._last_answer_s[servo_id] = now
                self._misses.pop(servo_id, None)
                left.remove(servo_id)
        for servo_id in answers.alerts:
            if not self._servos.by_id[servo_id].registers.get("Hardware_Error_Status"):
                self._look_at(servo_id)

    def _shadows_due(self, now: float) -> list[int]:
        """Return shadows that were not heard for long: they are read with the joints."""
        return [
            s.servo_id
            for s in self._shadows
            if not (s.missing or s.rebooting)
            and now - self._last_answer_s.get(s.servo_id, now) > _SHADOW_PATIENCE_S
        ]

    def _read_shadows(self) -> None:
        """Read the shadows by themselves, also for their bus watchdogs' sake: a packet for the

        master may or may not feed them.
        """
        left = [s.servo_id for s in self._shadows if not (s.missing or s.rebooting)]
        if left:
            self._sync_read(left)
            self._misses.update(left)

    def _find_missing(self, now: float) -> None:
        servos = (*self._joints, *self._shadows)
        present = [s for s in servos if not s.missing and not s.rebooting]
        # Both a time and a count: a thread that was not scheduled for long proves nothing.
        silent = [
            s
            for s in present
            if now - self._last_answer_s.get(s.servo_id, now) > self._settings.missing_after_s
            and self._misses[s.servo_id] >= _MISSES
        ]
        # On a noisy line, bad luck alone can look the same; a ping is short.
        silent = [s for s in silent if not self._answers_ping(s)]
        if silent and len(silent) == len(present):
            raise _BusSilent(f"no servo on {self._settings.port} answers any more")
        for servo in silent:
            self._lost(servo)

    def _answers_ping(self, servo: Servo) -> bool:
        try:
            self.bus.ping(servo.servo_id, _LAST_PINGS)
        except NoReply:
            return False
        self._last_answer_s[servo.servo_id] = time.monotonic()
        self._misses.pop(servo.servo_id, None)
        return True

    def _lost(self, servo: Servo) -> None:
        servo.missing = True
        servo.state = None
        self.forget_goals([servo])
        self.fault(
            f"servo_missing:{servo.name}", f"{servo.name} (ID {servo.servo_id}) does not answer"
        )

    def _goals_to_verify(self) -> bool:
        """Whether it is time to see if goals arrived: after the last one, and now and then."""
        if not self._unverified:
            return False
        now = time.monotonic()
        quiet = now - self._goal_written_s > self._period_s
        return quiet or now - self._goal_verified_s > _VERIFY_PERIOD_S

    def _verify_goals(self) -> None:
        """Read goals back and send them again where they are not; nothing acknowledges a sync

        write.
        """
        self._goal_verified_s = time.monotonic()
        asked = [self._servos.by_id[i] for i in sorted(self._unverified)]
        asked = [s for s in asked if not (s.missing or s.rebooting)]
        if not asked:
            self._unverified.clear()
            return
        masters = {s.name: s.servo_id for s in asked}
        shadows = [s for s in self._shadows if self._servos.master_of[s.name] in masters]
        shadows = [s for s in shadows if not (s.missing or s.rebooting)]
        entry = self._servos.table(asked[0])["Goal_Position"]
        ids = [s.servo_id for s in (*asked, *shadows)]
        answers = self.bus.sync_read(ids, entry.address, entry.size).data
        goals = {i: int.from_bytes(raw, "little", signed=True) for i, raw in answers.items()}
        for shadow in shadows:
            master = masters[self._servos.master_of[shadow.name]]
            if goals.get(shadow.servo_id) not in (None, self._expected_goal.get(master)):
                # It has missed the goal that its master may have taken.
                goals.pop(master, None)
                self._resend({shadow.servo_id: self._expected_goal[master]})
        again: dict[int, int] = {}
        for servo in asked:
            expected = self._expected_goal[servo.servo_id]
            if servo.servo_id not in goals:
                continue
            if goals[servo.servo_id] == expected:
                self._unverified.discard(servo.servo_id)
                self._goal_misses.pop(servo.servo_id, None)
                continue
            again[servo.servo_id] = expected
            self._goal_misses[servo.servo_id] += 1
            if self._goal_misses[servo.servo_id] == _GOAL_MISSES_TO_LOOK:
                self._look_at(servo.servo_id)
            if self._goal_misses[servo.servo_id] > _GOAL_MISSES_TO_STOP:
                self.forget_goals([servo])
                self.fault(
                    f"goal_refused:{servo.name}",
                    f"{servo.name} (ID {servo.servo_id}) does not take the goal {expected}",
                )
                return
        self._resend(again)

    def _resend(self, goals: Mapping[int, int]) -> None:
        if not goals:
            return
        self._counters.goals_resent += 1
        if self._state is not DriverState.RUNNING:
            self._write_stop(goals)
            return
        with self._lock:
            waiting = self._pending.get("Goal_Position", {})
            fresh = {i: goal for i, goal in goals.items() if i not in waiting}
        if fresh:
            self._write_goals("Goal_Position", fresh)

    # --- health and services -------------------------------------------------------------------

    def _look_at(self, servo_id: int) -> None:
        if servo_id not in self._urgent:
            self._urgent.append(servo_id)

    def _work(self, until: float) -> None:
        """Do service steps while there is time; without a service, one other thing."""
        stepped = False
        while self._next_job() is not None:
            if stepped and time.monotonic() > until - _STEP_ALLOWANCE_S:
                return
            self._step_job()
            stepped = True
            self._send_pending()
        if stepped:
            return
        self._shadow_turn = (self._shadow_turn + 1) % _SHADOW_TURNS
        if self._shadow_turn == 0:
            self._read_shadows()
        elif self._goals_to_verify():
            self._verify_goals()
        else:
            self._look_after_one()

    def _next_job(self) -> _Job | None:
        if self._job is None:
            with self._lock:
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

    def _look_after_one(self) -> None:
        now = time.monotonic()
        if self._urgent:
            servo = self._servos.by_id[self._urgent.popleft()]
        else:
            self._health_order.rotate(-1)
            servo = self._servos.by_id[self._health_order[0]]
        if servo.rebooting:
            return
        if servo.missing:
            self._probe(servo, now)
            return
        try:
            self._servos.read_health(self.bus, servo, attempts=1)
        except (NoReply, Refused):
            return
        error = servo.known("Hardware_Error_Status")
        if error & ~self._known_errors.get(servo.servo_id, 0):
            self.event("error", f"{servo.name}: hardware error: {hardware_error_text(error)}")
        self._known_errors[servo.servo_id] = error
        problem = self._servos.health_problem(servo)
        if problem:
            self.fault(*problem)
        elif servo.known("Bus_Watchdog") != WATCHDOG_TRIPPED:
            self._repair(servo)

    def _probe(self, servo: Servo, now: float) -> None:
        """Look for a missing servo now and then; found, it waits for the re-arm."""
        if now - self._last_probe_s < self._settings.reconnect_period_s:
            return
        self._last_probe_s = now
        try:
            self.bus.ping(servo.servo_id, attempts=1)
            problem = _finish(self._servos.find(self.bus, servo))
        except (NoReply, Refused):
            return
        if problem is None:
            self.answered(servo)
            self.event("info", f"{servo.name} answers again; re-arm to go on")

    def _repair(self, servo: Servo) -> None:
        """Put settings back that a servo lost, as after a brown-out, and goals a shadow missed."""
        running = self._state is DriverState.RUNNING
        for name, value in servo.wanted_ram().items():
            if not running and name in _PROFILE_REGISTERS:
                continue
            if servo.known(name) != value:
                with contextlib.suppress(NoReply, Refused):
                    self._servos.write(self.bus, servo, name, value)
                    self._counters.settings_restored += 1
                return
        master = self._servos.master_of.get(servo.name, servo.name)
        followed = self._servos.by_name[master].servo_id
        goal = self._expected_goal.get(followed)
        if goal is not None and servo.known("Goal_Position") != goal:
            self._unverified.add(followed)


def _finish(steps: Steps[Any]) -> Any:
    """Run a procedure to its end at once and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def _then(steps: Steps[Any], result: Any) -> Steps[Any]:
    """Run a procedure and return something else than its result."""
    yield from steps
    return result
