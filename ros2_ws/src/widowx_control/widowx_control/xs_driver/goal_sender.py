"""What is commanded: kept until it is on the wire, and followed until it is in the servos.

Commands come from any thread and coalesce per servo; everything else runs in the bus thread.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from widowx_control.xs_driver.arm_servos import (
    HOLD_TOLERANCE_TICKS,
    STREAM_REGISTERS,
    ArmServos,
    Servo,
)
from widowx_control.xs_driver.bus import ServoBus
from widowx_control.xs_driver.configuration import POSITION_MODES, ArmConfiguration
from widowx_control.xs_driver.control_table import (
    DRIVE_TIME_PROFILE,
    RAD_PER_S_PER_UNIT,
    RAD_PER_TICK,
)
from widowx_control.xs_driver.driver_types import CommandRefused, DriverSettings, LoopCounters
from widowx_control.xs_driver.goals import GoalTranslator
from widowx_control.xs_driver.run_state import RunState
from widowx_control.xs_driver.trajectory import Trajectory, TrajectoryPlayer
from widowx_control.xs_driver.units import encode

_STOP_RAMP_MS: Final = 50
_STOP_TIME_MS: Final = 100
_STOP_ACCELERATION_UNITS: Final = 40
"""15 rad/s^2, for servos in a velocity profile."""
_STOP_VELOCITY_UNITS: Final = 131
_VERIFY_PERIOD_S: Final = 0.1
_MISSES_TO_LOOK: Final = 3
_MISSES_TO_STOP: Final = 25


class GoalSender:
    """Sends goals, repeats and verifies them, and stops the arm.

    Args:
        configuration: of the arm.
        settings: see `DriverSettings`.
        servos: what is known of the servos.
        bus: only the bus thread uses it.
        translator: from commands to goals.
        run: says whether commands are obeyed; its lock guards what is commanded.
        counters: `goals_resent` is counted here.
        fault: latches a stop, given code and text.
        look_at: asks for a servo's health to be read soon.
        on_refusal: told of a command that was accepted and cannot be carried out.
    """

    def __init__(
        self,
        configuration: ArmConfiguration,
        settings: DriverSettings,
        servos: ArmServos,
        bus: ServoBus,
        translator: GoalTranslator,
        run: RunState,
        counters: LoopCounters,
        *,
        fault: Callable[[str, str], None],
        look_at: Callable[[int], None],
        on_refusal: Callable[[CommandRefused], None],
    ) -> None:
        """Nothing is commanded yet."""
        self._configuration = configuration
        self._settings = settings
        self._servos = servos
        self._bus = bus
        self._translator = translator
        self._run = run
        self._counters = counters
        self._fault = fault
        self._look_at = look_at
        self._on_refusal = on_refusal
        self._shadows = servos.named(sorted(servos.master_of))
        # Guarded by the lock.
        self._player = TrajectoryPlayer()
        self._pending: dict[str, dict[int, int]] = {}
        self._stream_time_s: dict[int, float] = {}
        # Only the bus thread.
        self._streamed: dict[str, dict[int, int]] = {}
        self._expected: dict[int, int] = {}
        self._unverified: set[int] = set()
        self._misses: Counter[int] = Counter()
        self._written_s = 0.0
        self._verified_s = 0.0

    # --- commands, from any thread -------------------------------------------------------------

    def command(self, motors: Sequence[str], goals: Mapping[str, Mapping[int, int]]) -> bool:
        """Keep goals until they are sent. Returns whether they ended a trajectory.

        Raises:
            CommandRefused: the driver is not running.
        """
        with self._run.lock:
            self._run.require_running()
            running = self._player.running
            overlaps = running is not None and bool(set(running.motors) & set(motors))
            if overlaps:
                self._player.cancel()
            self._keep(goals)
            return overlaps

    def start_trajectory(self, trajectory: Trajectory) -> None:
        """Play a trajectory.

        Raises:
            CommandRefused: the driver is not running, or plays another that may not be replaced.
        """
        with self._run.lock:
            self._run.require_running()
            if self._player.running is not None and not self._settings.preempt_trajectories:
                raise CommandRefused("trajectory_busy", "a trajectory is already running")
            self._player.start(trajectory, time.monotonic())

    @property
    def trajectory_running(self) -> bool:
        """Whether a trajectory is being played."""
        return self._player.running is not None

    def drop_commands(self) -> None:
        """Forget what was commanded and is not sent yet. The caller holds the lock."""
        self._pending.clear()
        self._player.cancel()

    def _keep(self, goals: Mapping[str, Mapping[int, int]]) -> None:
        now = time.monotonic()
        for register, values in goals.items():
            self._pending.setdefault(register, {}).update(values)
            if register != "Goal_Position":
                for servo_id in values:
                    self._stream_time_s[servo_id] = now

    # --- forgetting, in the bus thread ---------------------------------------------------------

    def forget(self, servos: Sequence[Servo]) -> None:
        """Drop what was commanded of servos, so that nothing old is sent or missed."""
        ids = {s.servo_id for s in servos}
        names = {s.name for s in servos}
        with self._run.lock:
            for goals in (*self._pending.values(), *self._streamed.values()):
                for servo_id in ids:
                    goals.pop(servo_id, None)
            running = self._player.running
            if running is not None and names & set(running.motors):
                self._player.cancel()
        for servo_id in ids:
            self._expected.pop(servo_id, None)
            self._unverified.discard(servo_id)
            self._misses.pop(servo_id, None)

    def forget_all(self) -> None:
        """Start over, as on a new connection."""
        with self._run.lock:
            self.drop_commands()
        self._streamed.clear()
        self._expected.clear()
        self._unverified.clear()
        self._misses.clear()

    # --- sending, in the bus thread ------------------------------------------------------------

    def begin_cycle(self, now: float) -> None:
        """Send what is due in this cycle: trajectory points, repeated streams, commands."""
        self._play_trajectory(now)
        self._repeat_streams(now)
        self.send_pending()

    def _play_trajectory(self, now: float) -> None:
        with self._run.lock:
            running = self._player.running
            point = self._player.due(now)
            if running is None or point is None or not self._run.running:
                return
        try:
            goals = self._translator.goals(
                running.cmd_type, running.name, running.motors, point.values
            )
        except CommandRefused as refusal:
            with self._run.lock:
                self._player.cancel()
            self._on_refusal(refusal)
            return
        with self._run.lock:
            self._keep(goals)

    def _repeat_streams(self, now: float) -> None:
        """Repeat velocity, current and PWM goals; zero those that nobody renews."""
        with self._run.lock:
            if not self._run.running:
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

    def send_pending(self) -> None:
        """Send what was commanded since the last call."""
        with self._run.lock:
            ready, self._pending = self._pending, {}
            if not self._run.running:
                return
        for register, goals in ready.items():
            if not goals:
                continue
            self._write(register, goals)
            if register == "Goal_Position":
                self._expect(goals)
                for servo_id in goals:
                    self._misses.pop(servo_id, None)
            else:
                self._streamed.setdefault(register, {}).update(goals)

    def _write(self, register: str, goals: Mapping[int, int]) -> None:
        first = self._servos.by_id[next(iter(goals))]
        entry = self._servos.table(first)[register]
        self._bus.sync_write(
            entry.address, {servo_id: encode(entry, value) for servo_id, value in goals.items()}
        )

    def _expect(self, goals: Mapping[int, int]) -> None:
        self._expected.update(goals)
        self._unverified.update(goals)
        self._written_s = time.monotonic()

    # --- stopping, in the bus thread -----------------------------------------------------------

    def hold_all(self) -> None:
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
            goal = self._expected.get(servo.servo_id, goal)
            if servo.state.moving or abs(goal - servo.state.position) > HOLD_TOLERANCE_TICKS:
                goals[servo.servo_id] = self._stopping_goal(servo)
        self._write_stop(goals)
        for register, values in zeros.items():
            self._write(register, values)
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
            self._bus.sync_write(table["Profile_Acceleration"].address, data)

    def _stopping_goal(self, servo: Servo) -> int:
        assert servo.state is not None
        ticks_per_s = servo.state.velocity * RAD_PER_S_PER_UNIT / RAD_PER_TICK
        ahead = servo.state.position + ticks_per_s * _STOP_RAMP_MS * 1e-3
        low, high = self._servos.position_limits(servo)
        return min(max(round(ahead), low), high)

    # --- verifying, in the bus thread ----------------------------------------------------------

    def verification_due(self, quiet_s: float) -> bool:
        """Whether to see if goals arrived: after the last one, and now and then.

        Args:
            quiet_s: for how long no goal was sent after the last one.
        """
        if not self._unverified:
            return False
        now = time.monotonic()
        return now - self._written_s > quiet_s or now - self._verified_s > _VERIFY_PERIOD_S

    def verify(self) -> None:
        """Read goals back and send them again where they are not.

        Nothing acknowledges a sync write.
        """
        self._verified_s = time.monotonic()
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
        answers = self._bus.sync_read(ids, entry.address, entry.size).data
        goals = {i: int.from_bytes(raw, "little", signed=True) for i, raw in answers.items()}
        for shadow in shadows:
            master = masters[self._servos.master_of[shadow.name]]
            if goals.get(shadow.servo_id) not in (None, self._expected.get(master)):
                # It has missed the goal that its master may have taken.
                goals.pop(master, None)
                self._resend({shadow.servo_id: self._expected[master]})
        again: dict[int, int] = {}
        for servo in asked:
            expected = self._expected[servo.servo_id]
            if servo.servo_id not in goals:
                continue
            if goals[servo.servo_id] == expected:
                self._unverified.discard(servo.servo_id)
                self._misses.pop(servo.servo_id, None)
                continue
            again[servo.servo_id] = expected
            self._misses[servo.servo_id] += 1
            if self._misses[servo.servo_id] == _MISSES_TO_LOOK:
                self._look_at(servo.servo_id)
            if self._misses[servo.servo_id] > _MISSES_TO_STOP:
                self.forget([servo])
                self._fault(
                    f"goal_refused:{servo.name}",
                    f"{servo.name} (ID {servo.servo_id}) does not take the goal {expected}",
                )
                return
        self._resend(again)

    def check_goal(self, servo: Servo) -> None:
        """Compare the goal last read from a servo, shadows included, with what it should be."""
        master = self._servos.master_of.get(servo.name, servo.name)
        followed = self._servos.by_name[master].servo_id
        goal = self._expected.get(followed)
        if goal is not None and servo.known("Goal_Position") != goal:
            self._unverified.add(followed)

    def _resend(self, goals: Mapping[int, int]) -> None:
        if not goals:
            return
        self._counters.goals_resent += 1
        if not self._run.running:
            self._write_stop(goals)
            return
        with self._run.lock:
            waiting = self._pending.get("Goal_Position", {})
            fresh = {i: goal for i, goal in goals.items() if i not in waiting}
        if fresh:
            self._write("Goal_Position", fresh)
