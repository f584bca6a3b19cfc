"""The guard: judges every command and every measurement, holds, and latches stops. No ROS.

Times ending in `now_s` are of a steady clock, which no simulator and no clock step can halt; how
fast and how long the arm moves or pushes counts on the clock of `motion_s`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from widowx_control.guard.arm_geometry import ArmGeometry, Posture
from widowx_control.guard.checks import Code, Finding, GuardConfig, Reaction
from widowx_control.guard.gripper_watch import GripperWatch
from widowx_control.guard.servo_health import ServoHealth
from widowx_control.guard.step_limits import StepLimiter
from widowx_control.kinematics import JOINT_LOWER_RAD, JOINT_NAMES, JOINT_UPPER_RAD

Array = npt.NDArray[np.float64]

ARM: Final = "arm"
GRIPPER: Final = "gripper"
_IDLE_S: Final = 1.0
"""A stream that is silent for this long is over: nothing is repeated for it any more, and the next
one starts from where the arm rests."""
_REPEAT_S: Final = 0.03
"""The held pose is repeated when nothing was sent for this long."""
_GRIPPER_REPEAT_S: Final = 0.2
"""Drivers may let the gripper's PWM fall to 0 when it is not repeated."""
_KEEP_GRIP_PWM: Final = 120.0
"""Keeps what a closed gripper holds, and does not heat the servo."""
_MOVED_RAD: Final = 1e-4
_REACHED_RAD: Final = 0.1
"""A joint that is this near to its goal has reached it, but for its load."""
_SLOWED_S: Final = 0.5
"""The state stays SLOWING for this long after a scaled step."""
_BAD_COMMAND_S: Final = 0.5
"""A sender of bad commands is taken as mended when it was silent or right for this long."""
_DEEPER: Final = 1e-6
"""m or rad. A pose that is further out by less counts as no worse: messages are rounded."""
_SHOWN_CHARACTERS: Final = 40
"""Of a name in a message: senders can make it as long as they like."""
_CURRENT_JOINTS: Final = JOINT_NAMES[:5]
"""XM430 servos. wrist_rotate and the gripper have none of its current sensors."""


class GuardState(StrEnum):
    """What the guard does now."""

    WAITING = "waiting"
    """No usable joint_states yet: nothing is passed on."""
    PASSING = "passing"
    SLOWING = "slowing"
    HOLDING = "holding"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Measurement:
    """One usable joint_states message."""

    joint_positions_rad: Array
    """(6,)."""
    finger_m: float
    currents_ma: Array | None
    """(6,) effort of the arm's joints; None when the driver does not say."""


@dataclass(frozen=True)
class CommandTimes:
    """When a command was sent and received."""

    now_s: float
    """Steady clock."""
    motion_s: float
    """Clock on which speed counts: the simulator's under simulated time, else the steady one."""
    age_s: float
    """Time since it was sent; NaN when the middleware does not say, which is refused."""
    sent_s: float
    """When it was sent, on any clock of the pace of `motion_s`; NaN when not known."""


@dataclass(frozen=True)
class Output:
    """What goes to the driver; None: nothing."""

    arm_rad: Array | None = None
    """(6,)."""
    gripper_pwm: float | None = None


@dataclass(frozen=True)
class GuardStatus:
    """State and its cause, for people."""

    state: GuardState
    finding: Finding | None
    """Why it is not PASSING. For STOPPED the first cause."""
    also: tuple[Finding, ...]
    """Further causes that are there now."""


class Guard:
    """Decides what reaches the arm. Not thread-safe.

    Feed it with `on_joint_states`, `on_arm_command`, `on_gripper_command`, `health`, and call
    `tick` at 50 Hz from a thread that nothing else can delay.
    """

    def __init__(self, config: GuardConfig, geometry: ArmGeometry | None = None) -> None:
        """Wait for the first measurement.

        Args:
            config: thresholds.
            geometry: of the arm; None: the project's own.
        """
        self.config = config
        self.counters: Counter[str] = Counter()
        """Findings by code, and commands passed on."""
        self._geometry = geometry or ArmGeometry(config.self_collision_distance_m)
        self.health = ServoHealth(config)
        self._gripper = GripperWatch(config)
        self._limiter = StepLimiter()
        self._measurement: Measurement | None = None
        self._measured_s = -math.inf
        self._first_measured_s = math.inf
        self._unusable = ""
        self._overload_since_s: dict[str, float] = {}
        self._sensed: set[str] = set()
        self._standing: dict[Code, Finding] = {}
        self._bad_command_s = -math.inf
        self._bad_run: Counter[Code] = Counter()
        self._refused: Finding | None = None
        self._slowed: tuple[float, Finding] | None = None
        self._latched: Finding | None = None
        self._pose: Array | None = None
        self._last: Array | None = None
        self._posture: Posture | None = None
        self._command_motion_s = -math.inf
        self._message_s = -math.inf
        self._moving = False
        self._sent_s = -math.inf
        self._gripper_sent: tuple[float, float] = (0.0, -math.inf)
        self._ease_gripper = False
        self._was_held = False
        self._resume_until_s = -math.inf
        self._pressed = False
        self._button_s = -math.inf
        self._started_s: float | None = None

    # -- measurements and other inputs -------------------------------------------------------

    @property
    def knows_pose(self) -> bool:
        """Whether there was a usable measurement; nothing is passed on before."""
        return self._measurement is not None

    def on_joint_states(
        self, measurement: Measurement | None, now_s: float, motion_s: float, problem: str = ""
    ) -> None:
        """Take a measurement; None with the problem when a message had no usable content."""
        if measurement is None:
            self._unusable = problem
            return
        self._unusable = ""
        self._measurement = measurement
        self._measured_s = now_s
        self._first_measured_s = min(self._first_measured_s, now_s)
        self._judge_current(measurement, motion_s)

    def unsensed_joints(self) -> list[str]:
        """Return the joints whose current the driver says, but never as a number."""
        if self._measurement is None or self._measurement.currents_ma is None:
            return []
        return [name for name in _CURRENT_JOINTS if name not in self._sensed]

    def set_other_publishers(self, nodes: Sequence[str], senders: Sequence[str] = ()) -> None:
        """Say who else commands the arm.

        Args:
            nodes: that publish the driver's command topics past the guard.
            senders: that send commands to the guard now, of which there should be one.
        """
        limit = self.config.max_other_publishers
        count = len(nodes) + max(0, len(senders) - 1)
        texts = []
        if nodes:
            texts.append(f"{', '.join(nodes)} publishes the driver's commands past the guard")
        if len(senders) > 1:
            texts.append(f"{' and '.join(senders)} send commands, expected one of them")
        finding = Finding(
            Code.OTHER_PUBLISHER, f"{'; '.join(texts)}; stop the others", count, limit
        )
        self._stand(Code.OTHER_PUBLISHER, finding if count > limit else None)

    def set_emergency_button(self, pressed: bool, now_s: float) -> None:
        """Take a message of the emergency stop; pressed stops, released does not re-arm."""
        self._pressed = pressed
        self._button_s = now_s
        self._evaluate(now_s)

    def emergency_stop(self) -> None:
        """Stop on request."""
        self._stop(self._emergency("the service emergency_stop was called"))

    def rearm(self, now_s: float) -> tuple[bool, str]:
        """End a latched stop, when no cause for one is left.

        Returns:
            whether the guard is armed now, and what to tell the operator.
        """
        self._evaluate(now_s)
        causes = [f for f in self._standing.values() if f.reaction is Reaction.STOP]
        if self._measurement is None:
            return False, "refused: there was no usable joint_states yet"
        if causes:
            return False, "refused: " + "; ".join(f"{f.code}: {f.message}" for f in causes)
        if self._latched is None:
            return True, "the guard was not stopped"
        text = f"re-armed after {self._latched.code}"
        self._latched = None
        self._refused = None
        self._forget_stream()
        self._resume_until_s = now_s + self.config.resume_s
        return True, text

    # -- commands ----------------------------------------------------------------------------

    def on_arm_command(self, group: str, values: Sequence[float], times: CommandTimes) -> Output:
        """Judge a command of joint positions and return what goes to the driver instead."""
        self._evaluate(times.now_s)
        finding = self._judge_message(group == ARM, len(JOINT_NAMES), group, values, times)
        if finding is not None or self._blocked() or self._measurement is None:
            return self._hold(times.now_s, finding)
        start = self._pose if self._pose is not None else self._resting_pose()
        wanted = np.asarray(values, dtype=np.float64)
        finding = self._judge_joint_limits(wanted, start)
        if finding is not None:
            return self._hold(times.now_s, finding)
        goal, slowed = self._limited_goal(wanted, start, times)
        posture = self._geometry.posture(goal, self._measurement.finger_m)
        if self._posture is None:
            self._posture = self._geometry.posture(start, self._measurement.finger_m)
        finding = self._judge_goal(goal, start, posture, self._posture)
        if finding is not None:
            return self._hold(times.now_s, finding)
        if slowed is not None:
            self.counters[slowed.code] += 1
            self._slowed = (times.now_s, slowed)
        elif self._resume_until_s > times.now_s and self._latched is None:
            # It has caught up with the stream.
            self._resume_until_s = -math.inf
        self._limiter.take(start, goal, self._max_speed(times.now_s))
        self._moving = bool(np.abs(goal - start).max() > _MOVED_RAD)
        self._pose, self._posture, self._refused = goal, posture, None
        self._command_motion_s = times.motion_s
        self._sent_s = times.now_s
        self.counters["passed"] += 1
        return Output(arm_rad=goal)

    def on_gripper_command(self, name: str, value: float, times: CommandTimes) -> Output:
        """Judge a gripper PWM and return what goes to the driver instead."""
        self._evaluate(times.now_s)
        finding = self._judge_message(name == GRIPPER, 1, name, [value], times)
        if finding is not None:
            return self._hold(times.now_s, finding)
        if self._latched is not None or self._measurement is None:
            return Output()
        pwm, finding = self._gripper.command(value)
        if finding is not None:
            self.counters[finding.code] += 1
            self._slowed = (times.now_s, finding)
        self._gripper_sent = (pwm, times.now_s)
        self._ease_gripper = False
        return Output(gripper_pwm=pwm)

    def tick(self, now_s: float, motion_s: float) -> Output:
        """Look after everything that is judged by time, and repeat what is held."""
        self._evaluate(now_s)
        self._watch_stream(now_s, motion_s)
        arm = gripper = None
        if self._holds() and self._pose is not None and now_s - self._sent_s >= _REPEAT_S:
            arm, self._sent_s = self._pose, now_s
        pwm, sent_at_s = self._gripper_sent
        if self._latched is not None or self._ease_gripper:
            kept = self.resting_gripper_pwm
            repeat = self._latched is not None and now_s - sent_at_s >= _GRIPPER_REPEAT_S
            if kept != pwm or repeat:
                gripper = kept
        elif self._measurement is not None:
            finding = self._gripper.stalled(self._measurement.finger_m, motion_s)
            if finding is not None:
                self._slowed = (now_s, finding)
                eased, _ = self._gripper.command(self._gripper.wanted_pwm)
                if eased != pwm:
                    self.counters[finding.code] += 1
                    gripper = eased
        if gripper is not None:
            self._gripper_sent = (gripper, now_s)
        return Output(arm, gripper)

    @property
    def resting_gripper_pwm(self) -> float:
        """PWM for a gripper that nobody commands: it keeps what it holds, else it gets none."""
        return max(min(self._gripper_sent[0], 0.0), -_KEEP_GRIP_PWM)

    def status(self, now_s: float) -> GuardStatus:
        """Return the state now."""
        standing = tuple(self._standing.values())
        if self._latched is not None:
            also = tuple(f for f in standing if f.code is not self._latched.code)
            return GuardStatus(GuardState.STOPPED, self._latched, also)
        if self._measurement is None:
            return GuardStatus(GuardState.WAITING, None, standing)
        holding = [f for f in (*standing, self._refused) if f is not None]
        if holding:
            return GuardStatus(GuardState.HOLDING, holding[0], tuple(holding[1:]))
        if self._slowed is not None and now_s - self._slowed[0] < _SLOWED_S:
            return GuardStatus(GuardState.SLOWING, self._slowed[1], ())
        return GuardStatus(GuardState.PASSING, None, ())

    # -- judging -----------------------------------------------------------------------------

    def _judge_message(
        self,
        name_fits: bool,
        length: int,
        name: str,
        values: Sequence[float],
        times: CommandTimes,
    ) -> Finding | None:
        """Judge what a message says of itself. Findings within a tolerance still refuse it."""
        c = self.config
        self._message_s = times.now_s
        shown = repr(name[:_SHOWN_CHARACTERS])
        if not name_fits or len(values) != length:
            text = f"command for {shown} with {len(values)} values; expected '{ARM}' with "
            text += f"{len(JOINT_NAMES)}, or '{GRIPPER}' with 1"
            return self._bad(Code.COMMAND_MALFORMED, text, c.max_malformed_commands)
        if not all(map(math.isfinite, values)):
            self._bad_command_s = times.now_s
            text = f"command for {shown} is {[float(v) for v in values]}"
            return self._bad(Code.COMMAND_NON_FINITE, text, c.max_non_finite_commands)
        self._bad_run.clear()
        # Written so that an age of NaN is refused too.
        if not times.age_s <= c.command_max_age_s:
            text = f"command for {shown} was sent {times.age_s:.3f} s ago"
            return Finding(Code.COMMAND_STALE, text, times.age_s, c.command_max_age_s)
        if not times.age_s >= -c.command_future_s:
            text = (
                f"command for {shown} was sent {-times.age_s:.3f} s in the future; "
                "are the clocks of the machines synchronised?"
            )
            return Finding(Code.COMMAND_FUTURE, text, -times.age_s, c.command_future_s)
        return None

    def _bad(self, code: Code, text: str, tolerated: int) -> Finding:
        self._bad_run[code] += 1
        return Finding(code, text, self._bad_run[code], tolerated)

    def _judge_joint_limits(self, wanted: Array, start: Array) -> Finding | None:
        tolerance = self.config.joint_limit_tolerance_rad
        excess = np.maximum(JOINT_LOWER_RAD - wanted, wanted - JOINT_UPPER_RAD)
        before = np.maximum(JOINT_LOWER_RAD - start, start - JOINT_UPPER_RAD)
        bad = ~(excess <= tolerance) & ~(excess <= before + _DEEPER)
        if not bad.any():
            return None
        i = int(np.where(bad, excess, -np.inf).argmax())
        text = (
            f"{JOINT_NAMES[i]} is commanded to {wanted[i]:.4f} rad; its range is "
            f"{JOINT_LOWER_RAD[i]:.4f} .. {JOINT_UPPER_RAD[i]:.4f}"
        )
        return Finding(Code.JOINT_LIMIT, text, float(excess[i]), tolerance)

    def _limited_goal(
        self, wanted: Array, start: Array, times: CommandTimes
    ) -> tuple[Array, Finding | None]:
        """Return the part of the way to a wanted pose that may be gone now, and why not all."""
        c = self.config
        max_speed = self._max_speed(times.now_s)
        scales = self._limiter.judge(
            start,
            wanted,
            times.motion_s,
            times.sent_s,
            max_speed,
            c.max_joint_acceleration_rad_s2,
        )
        scale = min(scales.speed, scales.acceleration)
        if scale >= 1.0:
            return wanted, None
        step = wanted - start
        joint = JOINT_NAMES[int(np.abs(step).argmax())]
        if scales.acceleration < scales.speed:
            code, value = Code.JOINT_ACCELERATION, scales.acceleration_rad_s2
            limit = c.max_joint_acceleration_rad_s2
        else:
            resuming = max_speed < c.max_joint_speed_rad_s
            code = Code.RESUME_SPEED if resuming else Code.JOINT_SPEED
            value, limit = scales.speed_rad_s, max_speed
        unit = "rad/s²" if code is Code.JOINT_ACCELERATION else "rad/s"
        text = f"{joint} is commanded with {value:.2f} {unit}; the step is scaled to {scale:.0%}"
        return start + scale * step, Finding(code, text, value, limit)

    def _max_speed(self, now_s: float) -> float:
        c = self.config
        if now_s < self._resume_until_s:
            return min(c.resume_speed_rad_s, c.max_joint_speed_rad_s)
        return c.max_joint_speed_rad_s

    def _judge_goal(
        self, goal: Array, start: Array, posture: Posture, before: Posture
    ) -> Finding | None:
        """Judge a pose; one that is no worse than the pose before it may always be taken."""
        c = self.config
        measurement = self._measurement
        assert measurement is not None
        errors = np.abs(goal - measurement.joint_positions_rad)
        i = int(errors.argmax())
        limit = c.max_tracking_error_rad
        was = float(np.abs(start - measurement.joint_positions_rad)[i])
        if not errors[i] <= limit and not errors[i] <= was + _DEEPER:
            text = (
                f"{JOINT_NAMES[i]} is commanded to {goal[i]:.3f} rad and is at "
                f"{measurement.joint_positions_rad[i]:.3f}: is the arm blocked?"
            )
            return Finding(Code.TRACKING_ERROR, text, float(errors[i]), limit)
        return (
            self._judge_workspace(posture.end_effector_m, before.end_effector_m)
            or self._judge_table(posture, before)
            or self._judge_self_collision(posture, before)
        )

    def _judge_workspace(self, position_m: Array, before_m: Array) -> Finding | None:
        low = np.asarray(self.config.workspace_low_m)
        high = np.asarray(self.config.workspace_high_m)
        excess = np.maximum(low - position_m, position_m - high)
        was = np.maximum(low - before_m, before_m - high)
        bad = ~(excess <= 0) & ~(excess <= was + _DEEPER)
        if not bad.any():
            return None
        i = int(np.where(bad, excess, -np.inf).argmax())
        edge = low[i] if position_m[i] < low[i] else high[i]
        text = (
            f"the end effector would be at {'xyz'[i]} = {position_m[i]:.3f} m; the workspace is "
            f"{low[i]:g} .. {high[i]:g} m"
        )
        return Finding(Code.WORKSPACE, text, float(position_m[i]), float(edge))

    def _judge_table(self, posture: Posture, before: Posture) -> Finding | None:
        c = self.config
        depth = c.table_height_m - posture.lowest_m
        was = c.table_height_m - before.lowest_m
        if depth <= c.max_table_depth_m or depth <= was + _DEEPER:
            return None
        text = (
            f"{posture.lowest_part} would be {depth:.3f} m below the table plane at "
            f"z = {c.table_height_m:g} m"
        )
        return Finding(Code.TABLE, text, depth, c.max_table_depth_m)

    def _judge_self_collision(self, posture: Posture, before: Posture) -> Finding | None:
        limit = self.config.self_collision_distance_m
        near = posture.nearest_m
        if near >= limit or near >= before.nearest_m - _DEEPER:
            return None
        text = f"{' and '.join(posture.nearest_parts)} would be {near:.4f} m apart"
        return Finding(Code.SELF_COLLISION, text, near, limit)

    def _judge_current(self, measurement: Measurement, motion_s: float) -> None:
        c = self.config
        worst: Finding | None = None
        currents = () if measurement.currents_ma is None else measurement.currents_ma
        for name, current in zip(_CURRENT_JOINTS, currents, strict=False):
            load = abs(float(current))
            if math.isfinite(load):
                self._sensed.add(name)
            if name not in self._sensed:
                # Drivers of servos without a sensor say NaN.
                continue
            if load <= c.max_current_ma:
                self._overload_since_s.pop(name, None)
                continue
            lasted_s = motion_s - self._overload_since_s.setdefault(name, motion_s)
            if lasted_s >= c.servo_current_s and (worst is None or load > worst.value):
                text = (
                    f"{name} draws {load:.0f} mA for {lasted_s:.1f} s: is the arm blocked?"
                    if math.isfinite(load)
                    else f"the effort of {name} has been {load} for {lasted_s:.1f} s: has its "
                    "sensor failed?"
                )
                # An infinite value would be no number in the status.
                value = load if math.isfinite(load) else c.max_current_ma
                worst = Finding(Code.SERVO_CURRENT, text, value, c.max_current_ma)
        if worst is not None and Code.SERVO_CURRENT not in self._standing:
            self._relieve()
        self._stand(Code.SERVO_CURRENT, worst)

    def _evaluate(self, now_s: float) -> None:
        """Refresh every finding that stands without a command, and latch those that stop."""
        if self._started_s is None:
            self._started_s = now_s
        c = self.config
        self._stand(
            Code.JOINT_STATES_LATE,
            self._judge_silence(Code.JOINT_STATES_LATE, c.joint_states_late_s, now_s),
        )
        lost = self._judge_silence(Code.JOINT_STATES_LOST, c.joint_states_timeout_s, now_s)
        # An arm that nobody commands needs no stop: a driver may start late, or again.
        self._stand(Code.JOINT_STATES_LOST, lost if self._pose is not None else None)
        findings = self.health.findings()
        for code in (
            Code.SERVO_TEMPERATURE,
            Code.SERVO_VOLTAGE_LOW,
            Code.SERVO_VOLTAGE_HIGH,
            Code.SERVO_HARDWARE_ERROR,
        ):
            self._stand(code, findings.get(code))
        self._stand(Code.SERVO_STATUS_LOST, self.health.lost(self._first_measured_s, now_s))
        self._stand(Code.EMERGENCY_STOP, self._judge_button(now_s))
        broken = None
        if now_s - self._bad_command_s < _BAD_COMMAND_S:
            count = self._bad_run[Code.COMMAND_NON_FINITE]
            limit = self.config.max_non_finite_commands
            if count > limit:
                text = "the sender of commands still sends NaN or infinity"
                broken = Finding(Code.COMMAND_NON_FINITE, text, count, limit)
        self._stand(Code.COMMAND_NON_FINITE, broken)
        held = self._held_for_health()
        if self._was_held and not held:
            self._resume_until_s = now_s + self.config.resume_s
        self._was_held = held
        for finding in self._standing.values():
            if finding.reaction is Reaction.STOP:
                self._stop(finding)

    def _judge_silence(self, code: Code, limit_s: float, now_s: float) -> Finding | None:
        silent_s = now_s - self._measured_s
        if self._measurement is None or silent_s <= limit_s:
            return None
        text = f"no usable joint_states for {silent_s:.2f} s"
        if self._unusable:
            text += f": {self._unusable}"
        return Finding(code, text, silent_s, limit_s)

    def _judge_button(self, now_s: float) -> Finding | None:
        if self._pressed:
            return self._emergency("the topic emergency_stop says stop")
        limit_s = self.config.emergency_stop_timeout_s
        assert self._started_s is not None
        silent_s = now_s - max(self._button_s, self._started_s)
        if limit_s <= 0 or silent_s <= limit_s:
            return None
        text = f"emergency_stop was silent for {silent_s:.2f} s"
        return Finding(Code.EMERGENCY_STOP, text, silent_s, limit_s)

    def _emergency(self, text: str) -> Finding:
        limit_s = self.config.emergency_stop_timeout_s
        return Finding(Code.EMERGENCY_STOP, text, 0.0, limit_s)

    # -- state -------------------------------------------------------------------------------

    def _stand(self, code: Code, finding: Finding | None) -> None:
        """Record whether a finding stands; count it when it appears."""
        if finding is None:
            self._standing.pop(code, None)
            return
        if code not in self._standing:
            self.counters[code] += 1
        self._standing[code] = finding

    def _stop(self, finding: Finding) -> None:
        """Latch; the first cause is kept."""
        if self._latched is not None:
            return
        self._latched = finding
        if finding.code not in self._standing:
            self.counters[finding.code] += 1
        self._moving = False
        if self._pose is None or finding.code is Code.EMERGENCY_STOP:
            self._relieve()

    def _relieve(self) -> None:
        """Hold the arm where it is; the commanded pose may lie behind what blocks it."""
        if self._measurement is not None:
            self._pose, self._posture = self._resting_pose(), None

    def _resting_pose(self) -> Array:
        """Return the last commanded pose while the arm is about there, else the measured one.

        Servos give way under the arm's weight. Would the measured pose be commanded every time,
        the arm would sink further with each pause.
        """
        assert self._measurement is not None
        measured = self._measurement.joint_positions_rad
        last = self._last if self._pose is None else self._pose
        if last is not None and np.abs(last - measured).max() <= _REACHED_RAD:
            return last
        return measured.copy()

    def _held_for_health(self) -> bool:
        return any(f.reaction is Reaction.HOLD for f in self._standing.values())

    def _blocked(self) -> bool:
        """Whether commands are refused whatever they say."""
        return self._latched is not None or bool(self._standing)

    def _holds(self) -> bool:
        return self._blocked() or self._refused is not None

    def _hold(self, now_s: float, finding: Finding | None) -> Output:
        """Refuse a command: the last safe pose goes out instead."""
        if finding is not None:
            counted = finding.code in (Code.COMMAND_MALFORMED, Code.COMMAND_NON_FINITE)
            tolerated = counted and finding.value <= finding.threshold
            if finding.reaction is Reaction.STOP and not tolerated:
                self._stand(finding.code, finding)
                self._stop(finding)
            else:
                self.counters[finding.code] += 1
                if not tolerated:
                    self._refused = finding
        self._limiter.rest()
        if self._pose is None or not self._holds():
            return Output()
        self._sent_s = now_s
        return Output(arm_rad=self._pose)

    def _forget_stream(self) -> None:
        """Start the next step from where the arm rests then: it may have been moved."""
        if self._pose is not None:
            self._last = self._pose
        self._pose = self._posture = None
        self._limiter.restart()
        self._moving = False

    def _watch_stream(self, now_s: float, motion_s: float) -> None:
        """Notice that commands stopped in mid-motion, and the end of a stream."""
        limit_s = self.config.command_timeout_s
        silent_s = motion_s - self._command_motion_s
        if self._moving and silent_s > limit_s and not self._holds():
            text = f"no command for {silent_s:.2f} s in mid-motion: has the controller died?"
            self._refused = Finding(Code.COMMAND_LATE, text, silent_s, limit_s)
            self.counters[Code.COMMAND_LATE] += 1
            self._moving = False
        elif self._latched is None and now_s - self._message_s > _IDLE_S:
            self._refused = None
            self._forget_stream()
            self._ease_gripper = True
