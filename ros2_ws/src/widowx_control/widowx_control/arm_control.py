"""Turns Bridge actions into a smooth, bounded stream of joint positions and gripper PWM.

The chain for one action is: check → clip the step → compose on the commanded pose → clip to the
workspace → bound against the measured pose → inverse kinematics → interpolate. What BridgeData's
controller lacks is bounded here: a blocked arm does not wind up, a pose that cannot be reached
does not advance the commanded one, and no joint exceeds its range or speed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from widowx_control.bridge_spaces import (
    ACTION_HIGH,
    ACTION_LOW,
    ACTION_SPACE,
    CONTROL_PERIOD_S,
    compose_delta,
    state_from_pose,
)
from widowx_control.gripper import GripperConfig, GripperController, opening_from_finger
from widowx_control.interpolation import Interpolator
from widowx_control.kinematics import JOINT_NAMES, JOINT_VELOCITY_RAD_S, ArmKinematics, IkResult
from widowx_control.rotations import limit_rotation
from widowx_control.servo_stiffness import (
    full_load_error_rad,
    servo_lag_s,
    servo_stiffness_nm_rad,
)

Array = npt.NDArray[np.float64]

STEP_RANGE_S: Final = ACTION_SPACE.step_range_s
"""Shortest and longest period of commands; `ACTION_SPACE.executes` judges one."""
_ARRIVAL_S: Final = 0.2
"""A quick command that the speed limit holds back has this long to arrive, which together with the
stop is less than the 0.3 s within which the arm rests after a policy that died."""
_MAX_SAG_RAD: Final = 0.15
"""More than any pose of the unloaded arm makes its servos give way at their factory gain."""
_HOLD_ERROR_RAD: Final = 0.2
"""A held joint this far away was moved by something stronger than its servo, or has no torque."""
_ROTATION_PARTS: Final = (0.5, 0.25, 0.0)
"""Of a rotation that the wrist cannot do, tried in this order."""
_STOP_LEAD_RAD: Final = 0.15
"""A stop leaves no joint to go further than this, which is within what the arm holds."""
_CLEAR_HEIGHT_M: Final = 0.12
"""Of the end effector over the table: nothing on it reaches the fingers there."""
_LEAST_LIFT_M: Final = 0.01
_LIFT_S: Final = 0.5
_SETTLE_S: Final = 0.2
_YIELD_S: Final = 0.5
_YIELD_SPEED_RAD_S: Final = 0.25
"""Well above the quantum of the encoders in one control period."""


class CommandCode(StrEnum):
    """Outcome of `ArmControl.command`."""

    ACCEPTED = "accepted"
    LIMITED = "limited"
    """Accepted, but the step, the workspace or the distance to the measured pose was clipped."""
    CLOSEST_REACHABLE = "closest_reachable"
    """Accepted; the pose is out of reach and the arm goes to the nearest one."""
    UNREACHABLE = "unreachable"
    NON_FINITE = "non_finite"
    WRONG_LENGTH = "wrong_length"
    BUSY = "busy"
    """A named-pose motion is running."""
    NOT_READY = "not_ready"
    """`reset` was not called yet."""


@dataclass(frozen=True)
class CommandVerdict:
    """Whether a command took effect, and why (not)."""

    accepted: bool
    code: CommandCode
    reason: str = ""


class ArmMode(StrEnum):
    """What `ArmControl` is doing."""

    IDLE = "idle"
    HOLDING = "holding"
    TRACKING = "tracking"
    MOVING = "moving"


@dataclass(frozen=True)
class JointCommand:
    """Output of one control period."""

    arm_positions_rad: Array | None
    """(6,) goals for the group `arm`; None before `reset`."""
    gripper_pwm: float


@dataclass(frozen=True)
class ArmControlConfig:
    """Limits and timing of the arm controller.

    Raises:
        ValueError: a value is outside its range; the message names it.
    """

    step_s: float = CONTROL_PERIOD_S
    """Period of commands that do not say theirs."""
    interpolation_fraction: float = 0.8
    """Part of `step_s` within which the arm's target moves to the new pose."""
    command_timeout_periods: float = 1.15
    """Tracking stops when no command came for this many periods."""
    stop_s: float = 0.03
    """Time in which a hold brings a moving target to rest."""
    workspace_low_m: tuple[float, float, float] = (0.10, -0.25, 0.0)
    workspace_high_m: tuple[float, float, float] = (0.45, 0.25, 0.33)
    """Box for ee_gripper_link in base_link."""
    max_position_error_m: float = 0.07
    max_rotation_error_rad: float = 0.35
    """How far the commanded pose may be from the measured one."""
    max_joint_step_rad: float = 0.8
    """How far one command may move any joint; also keeps the kinematic branch."""
    joint_limit_margin_rad: float = 0.02
    max_joint_speed_rad_s: float = 3.0
    max_joint_error_rad: float = 0.4
    """A named-pose motion waits while a joint lags more than this."""
    max_servo_load: float = 0.75
    """Part of a servo's stall torque that a goal may ask for; see `ArmControl.use_servo_gains`."""
    clip_tolerance: float = 1e-3
    """Excess over the step limits, m or rad, that is clipped without being counted."""
    gripper: GripperConfig = field(default_factory=GripperConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        bounds: dict[str, tuple[float, float]] = {
            "step_s": STEP_RANGE_S,
            "interpolation_fraction": (0.1, 1.0),
            "command_timeout_periods": (1.0, 2.0),
            "stop_s": (0.0, 0.5),
            "max_position_error_m": (0.005, 0.3),
            "max_rotation_error_rad": (0.02, 1.5),
            "max_joint_step_rad": (0.05, 1.5),
            "joint_limit_margin_rad": (0.0, 0.3),
            "max_joint_speed_rad_s": (0.05, float(JOINT_VELOCITY_RAD_S.min())),
            "max_joint_error_rad": (0.05, 1.5),
            "max_servo_load": (0.2, 1.0),
            "clip_tolerance": (0.0, 0.05),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must be within [{low}, {high}]")
        for name in ("workspace_low_m", "workspace_high_m"):
            value = getattr(self, name)
            if len(value) != 3 or not np.isfinite(value).all():
                raise ValueError(f"{name} is {value}; it must be three finite numbers")
        for axis, low, high in zip("xyz", self.workspace_low_m, self.workspace_high_m, strict=True):
            if not low < high:
                raise ValueError(
                    f"workspace_low_m is not below workspace_high_m in {axis}: {low} and {high}"
                )


class ArmControl:
    """The arm controller without ROS. Call `reset` once, then `update` at 50 Hz or faster.

    `command` and `move_to` set targets; `update` moves the streamed joint positions towards them.
    `counters` counts by name everything that was refused or limited.
    """

    def __init__(self, config: ArmControlConfig, kinematics: ArmKinematics) -> None:
        """Make a controller that is idle until `reset`."""
        self.config = config
        self.counters: Counter[str] = Counter()
        self._kinematics = kinematics
        margin = config.joint_limit_margin_rad
        self._lower = kinematics.joint_lower_rad + margin
        self._upper = kinematics.joint_upper_rad - margin
        self._gripper = GripperController(config.gripper)
        self._mode = ArmMode.IDLE
        self._reason = "not started"
        self._since_command_s = 0.0
        self._first_period_s: float | None = None
        self._step_s = config.step_s
        self._measured_q: Array = np.zeros(len(JOINT_NAMES))
        self._finger_m = 0.0
        self._measured_pose: Array = np.eye(4)
        self._commanded_pose: Array = np.eye(4)
        self._interpolator = Interpolator(self._measured_q, self._lower, self._upper)
        self._stiffness_nm_rad: Array | None = None
        self._lead_rad: Array = np.zeros(len(JOINT_NAMES))
        self._lag_s: Array = np.zeros(len(JOINT_NAMES))
        self._after_lift: tuple[Array, float] | None = None
        self._stopping = False
        self._stopped_goals_rad: Array | None = None
        self._yielding_s = 0.0
        self._settling_s = 0.0
        self._previous_q: Array = self._measured_q

    @property
    def mode(self) -> ArmMode:
        """What the arm is doing."""
        return self._mode

    @property
    def reason(self) -> str:
        """Why the arm holds; empty while it moves on command."""
        return self._reason

    @property
    def commanded_pose(self) -> Array:
        """(4, 4) pose of ee_gripper_link in base_link that the last command asked for."""
        return self._commanded_pose.copy()

    @property
    def measured_pose(self) -> Array:
        """(4, 4) pose of ee_gripper_link in base_link from the last measured joints."""
        return self._measured_pose.copy()

    @property
    def commanded_joints_rad(self) -> Array:
        """(6,) joint positions at which the arm is wanted now."""
        return self._interpolator.position.copy()

    @property
    def servo_goals_rad(self) -> Array:
        """(6,) goals that bring the servos to `commanded_joints_rad`; see `use_servo_gains`."""
        wanted = self._interpolator.position
        if self._stiffness_nm_rad is None:
            return wanted.copy()
        if self._stopped_goals_rad is not None:
            goals = self._stopped_goals_rad
        else:
            sag = self._kinematics.gravity_torques_nm(wanted) / self._stiffness_nm_rad
            lead = self._interpolator.velocity * self._lag_s
            goals = wanted + np.clip(sag, -_MAX_SAG_RAD, _MAX_SAG_RAD) + lead
            goals = np.clip(goals, np.minimum(self._lower, wanted), np.maximum(self._upper, wanted))
        pressed = np.clip(
            goals, self._measured_q - self._lead_rad, self._measured_q + self._lead_rad
        )
        if np.abs(pressed - goals).max() > 1e-9:
            self.counters["limited_servo_load"] += 1
        return pressed

    def use_servo_gains(self, position_p_gains: Sequence[int] | None) -> None:
        """Aim where the servos' P gain takes the arm to, instead of at where it is wanted.

        Goals then make up for what the servos give way under the arm's weight and trail while they
        move, and never ask a servo for more than `max_servo_load` of its stall torque, however the
        arm is blocked.

        Args:
            position_p_gains: register Position_P_Gain of the joints; None: goals as wanted.

        Raises:
            ValueError: they are not six numbers above 0.
        """
        if position_p_gains is None:
            self._stiffness_nm_rad = None
            return
        self._lead_rad = self.config.max_servo_load * full_load_error_rad(position_p_gains)
        self._stiffness_nm_rad = servo_stiffness_nm_rad(position_p_gains)
        self._lag_s = servo_lag_s(position_p_gains)

    @property
    def state(self) -> Array:
        """(7,) measured Bridge state; see `bridge_spaces`."""
        return state_from_pose(self._measured_pose, opening_from_finger(self._finger_m))

    @property
    def gripper_target(self) -> float:
        """Wanted opening, 0 closed .. 1 open."""
        return self._gripper.target

    @property
    def progress(self) -> float:
        """Part of the present motion that is done, 0 .. 1."""
        return self._interpolator.progress

    @property
    def at_target(self) -> bool:
        """Whether the streamed joint positions rest at their target."""
        return self._interpolator.done

    def reset(
        self, measured_q: npt.ArrayLike, finger_m: float, *, keep_gripper: bool = False
    ) -> None:
        """Forget the motion and hold the measured joints and gripper opening.

        Args:
            measured_q: (6,) joint positions, rad.
            finger_m: distance of the left finger from the centre line.
            keep_gripper: keep the gripper's target, e.g. to not let go of an object.

        Raises:
            ValueError: a value is not finite, or the length is not 6.
        """
        q = np.array(measured_q, dtype=np.float64)
        if q.shape != (len(JOINT_NAMES),) or not np.isfinite(q).all() or not np.isfinite(finger_m):
            raise ValueError(
                f"cannot hold joints {q.tolist()}, finger {finger_m}: "
                f"{len(JOINT_NAMES)} finite joint positions and a finite finger are needed"
            )
        self.observe(q, finger_m)
        self._interpolator = Interpolator(q, self._lower, self._upper)
        self._stopping = False
        self._commanded_pose = self._measured_pose.copy()
        if not keep_gripper:
            self._gripper = GripperController(self.config.gripper)
            self._gripper.target = opening_from_finger(self._finger_m)
        self._mode, self._reason = ArmMode.HOLDING, "no command yet"

    def observe(self, measured_q: npt.ArrayLike, finger_m: float) -> bool:
        """Take a measurement; a non-finite one is refused and counted, and the last one is kept.

        Args:
            measured_q: (6,) joint positions, rad.
            finger_m: distance of the left finger from the centre line.
        """
        q = np.asarray(measured_q, dtype=np.float64)
        if q.shape != (len(JOINT_NAMES),) or not np.isfinite(q).all() or not np.isfinite(finger_m):
            self.counters["bad_measurement"] += 1
            return False
        self._measured_q = q.copy()
        self._finger_m = float(finger_m)
        self._measured_pose = self._kinematics.forward(q)
        return True

    def command(self, action: npt.ArrayLike, step_s: float | None = None) -> CommandVerdict:
        """Take one Bridge action and plan the arm's target for the next period.

        Args:
            action: (7,) ``[dx, dy, dz, droll, dpitch, dyaw, gripper]``; m, rad per period, and
                opening 0 .. 1. Values outside the step limits are clipped and counted.
            step_s: period of the commands, within `STEP_RANGE_S`; None: the configured one.

        Raises:
            ValueError: `step_s` is out of range.

        Returns:
            A refused command leaves the commanded pose, the gripper target and the motion as they
            were, except UNREACHABLE: the gripper target is taken and the arm holds its pose.
        """
        step_s = self.config.step_s if step_s is None else step_s
        if not ACTION_SPACE.executes(step_s):
            raise ValueError(f"step_s is {step_s}; it must be within {STEP_RANGE_S}")
        values = np.asarray(action, dtype=np.float64)
        if values.shape != ACTION_LOW.shape:
            return self._refuse(
                CommandCode.WRONG_LENGTH,
                f"action has shape {values.shape}, expected {ACTION_LOW.shape}",
            )
        if not np.isfinite(values).all():
            return self._refuse(CommandCode.NON_FINITE, f"action is {values.tolist()}")
        if self._mode is ArmMode.IDLE:
            return self._refuse(CommandCode.NOT_READY, "the arm controller was not reset")
        if self._mode is ArmMode.MOVING:
            return self._refuse(CommandCode.BUSY, "a named-pose motion is running")

        limits: list[str] = []
        clipped = np.clip(values, ACTION_LOW, ACTION_HIGH)
        if np.abs(clipped - values).max() > self.config.clip_tolerance:
            limits.append("step")
        target = self._bounded_target(clipped[:6], limits)
        for name in limits:
            self.counters[f"limited_{name}"] += 1

        self._since_command_s, self._first_period_s = 0.0, None
        self._step_s = step_s
        self._gripper.target = clipped[6]
        result = self._inverse(target, self._interpolator.target)
        code = CommandCode.LIMITED if limits else CommandCode.ACCEPTED
        reason = f"limited: {', '.join(limits)}" if limits else ""
        if not result.converged:
            reason = (
                f"the pose is out of reach: the nearest joint positions miss it by "
                f"{1e3 * result.position_error_m:.1f} mm and {result.rotation_error_rad:.3f} rad"
            )
            result = self._with_less_rotation(clipped[:6]) or result
            near = (
                result.position_error_m <= float(ACTION_HIGH[0])
                and result.rotation_error_rad <= 0.05
            )
            if not near:
                return self._refuse(CommandCode.UNREACHABLE, reason)
            code = CommandCode.CLOSEST_REACHABLE
            self.counters[code.value] += 1
            target = self._kinematics.forward(result.joint_positions_rad)
        self._commanded_pose = target
        self._interpolator.go(
            result.joint_positions_rad, step_s * self.config.interpolation_fraction
        )
        self._mode, self._reason = ArmMode.TRACKING, ""
        return CommandVerdict(True, code, reason)

    def move_to(self, joint_target: npt.ArrayLike, duration_s: float, open_gripper: bool) -> float:
        """Start a smooth joint-space motion; from low over the table it starts straight up.

        Args:
            joint_target: (6,) joint positions, rad; moved into the limits.
            duration_s: wanted duration; lengthened where the joint speed limit asks for it.
            open_gripper: open the gripper too; else its target stays.

        Returns:
            The planned duration, s.

        Raises:
            ValueError: the target is not six finite numbers, the duration is not positive, or
                `reset` was not called.
        """
        q = np.asarray(joint_target, dtype=np.float64)
        if q.shape != (len(JOINT_NAMES),) or not np.isfinite(q).all():
            raise ValueError(f"joint target is {q.tolist()}; six finite numbers are needed")
        if not (np.isfinite(duration_s) and duration_s > 0):
            raise ValueError(f"duration is {duration_s} s; it must be positive")
        if self._mode is ArmMode.IDLE:
            raise ValueError("the arm controller was not reset")
        q = np.clip(q, self._lower, self._upper)
        start, lifted = self._interpolator.position, self._lifted()
        planned_s = self._shortest_s(q - (start if lifted is None else lifted), duration_s)
        if lifted is None:
            self._after_lift = None
            self._interpolator.go(q, planned_s)
        else:
            lift_s = self._shortest_s(lifted - start, _LIFT_S)
            self._after_lift = (q, planned_s)
            self._interpolator.go(lifted, lift_s)
            planned_s += lift_s
        self._commanded_pose = self._kinematics.forward(q)
        if open_gripper:
            self._gripper.target = 1.0
        self._mode, self._reason = ArmMode.MOVING, ""
        return planned_s

    def hold(self, reason: str) -> None:
        """Bring the arm to rest within `stop_s` and hold there; the gripper keeps its target."""
        if self._mode is ArmMode.IDLE:
            return
        if not self._interpolator.done:
            self._rest()
        if self._mode is not ArmMode.HOLDING:
            self._settling_s = _SETTLE_S
        self._stopping = True
        self._mode, self._reason = ArmMode.HOLDING, reason

    def _rest(self) -> None:
        self._interpolator.stop(self.config.stop_s)
        # An arm that lags far behind would at once count as moved by force, and its goals go on.
        target = np.clip(
            self._interpolator.target,
            self._measured_q - _STOP_LEAD_RAD,
            self._measured_q + _STOP_LEAD_RAD,
        )
        if not np.array_equal(target, self._interpolator.target):
            self._interpolator.go(target, self.config.stop_s)
        self._commanded_pose = self._kinematics.forward(self._interpolator.target)

    def update(self, dt_s: float, measured_q: npt.ArrayLike, finger_m: float) -> JointCommand:
        """Advance the streamed joint positions by one control period.

        Args:
            dt_s: time since the last call; more than 0.1 s counts as 0.1 s.
            measured_q: (6,) joint positions, rad; a non-finite measurement is ignored and counted.
            finger_m: distance of the left finger from the centre line.
        """
        self.observe(measured_q, finger_m)
        if self._mode is ArmMode.IDLE:
            return JointCommand(None, 0.0)
        dt_s = min(max(dt_s, 0.0), 0.1)
        if self._mode is ArmMode.TRACKING:
            self._track(dt_s)
        elif (
            self._mode is ArmMode.MOVING
            and self._interpolator.done
            and self._after_lift is not None
        ):
            target, duration_s = self._after_lift
            self._after_lift = None
            self._interpolator.go(target, duration_s)
        elif self._mode is ArmMode.MOVING and self._interpolator.done:
            self._mode, self._reason = ArmMode.HOLDING, "motion finished"
        self._yield_to_force(dt_s)
        lag = float(np.abs(self._interpolator.position - self._measured_q).max())
        if self._mode is ArmMode.MOVING and lag > self.config.max_joint_error_rad:
            self.counters["motion_waits_for_arm"] += 1
            self._interpolator.wait()
        elif self._interpolator.advance(dt_s, self.config.max_joint_speed_rad_s):
            self.counters["limited_joint_speed"] += 1
        pwm = self._gripper.pwm(self._finger_m, dt_s)
        self._stopping = self._stopping and self._mode is ArmMode.HOLDING
        if not self._stopping:
            self._stopped_goals_rad = None
        servo_goals_rad = self.servo_goals_rad
        if self._stopping and self._interpolator.done:
            # Goals that the load limit kept near the arm would else go on with it as it settles.
            self._stopped_goals_rad = servo_goals_rad
        return JointCommand(servo_goals_rad, pwm)

    def _track(self, dt_s: float) -> None:
        """End a motion that no further command prolongs; a step that is under way is finished."""
        self._since_command_s += dt_s
        if self._first_period_s is None:
            # The command came somewhere within this period, so less than that may have passed.
            self._first_period_s = dt_s
        if self._interpolator.done:
            least_s = self._since_command_s - self._first_period_s
            if least_s > self._step_s * self.config.command_timeout_periods + 1e-9:
                self.counters["command_timeout"] += 1
                self.hold(f"no command for {least_s:.2f} s")
            return
        limit_s = max(self._step_s, _ARRIVAL_S) + 1e-9
        if self._since_command_s > limit_s >= self._since_command_s - dt_s:
            # The speed limit kept it from arriving; going on would be motion without a policy.
            self._rest()

    def _shortest_s(self, way_rad: Array, duration_s: float) -> float:
        """Duration of a joint-space motion, lengthened where the speed limit asks for it."""
        # A cubic from rest to rest peaks at 1.5 times its mean speed.
        return max(
            duration_s, 1.5 * float(np.abs(way_rad).max()) / self.config.max_joint_speed_rad_s
        )

    def _lifted(self) -> Array | None:
        """Joint positions straight above those of a gripper that is low; None when it is not.

        The way to a named pose would else sweep over the table, or be caught in what it holds.
        """
        pose = self._kinematics.forward(self._interpolator.position)
        if pose[2, 3] > _CLEAR_HEIGHT_M - _LEAST_LIFT_M:
            return None
        pose[2, 3] = _CLEAR_HEIGHT_M
        result = self._inverse(pose, self._interpolator.position)
        return result.joint_positions_rad if result.converged else None

    def _with_less_rotation(self, delta: Array) -> IkResult | None:
        """Go the way of a (6,) delta although a wrist at the end of its range cannot turn along."""
        for part in _ROTATION_PARTS if delta[3:].any() else ():
            turned = np.concatenate((delta[:3], part * delta[3:]))
            result = self._inverse(self._bounded_target(turned, []), self._interpolator.target)
            if result.converged:
                return result
        return None

    def _inverse(self, pose: Array, start_rad: Array) -> IkResult:
        return self._kinematics.inverse(
            pose,
            start_rad,
            max_joint_step_rad=self.config.max_joint_step_rad,
            limit_margin_rad=self.config.joint_limit_margin_rad,
        )

    def _yield_to_force(self, dt_s: float) -> None:
        """Hold where the arm is, not where it was, after it was moved by force or fell limp.

        Else it would shoot back to the old pose at the moment at which its servos can again.
        """
        moved_rad, self._previous_q = self._measured_q - self._previous_q, self._measured_q
        if self._mode is not ArmMode.HOLDING:
            self._yielding_s = 0.0
            return
        lag = np.abs(self._interpolator.position - self._measured_q).max()
        if lag <= _HOLD_ERROR_RAD:
            self._settling_s = 0.0
        elif self._settling_s > 0.0:
            # A fast arm lags when it is stopped, and catches up.
            self._settling_s -= dt_s
            return
        if lag > _HOLD_ERROR_RAD:
            if self._yielding_s <= 0.0:
                self.counters["yielded"] += 1
            self._yielding_s = _YIELD_S
            self._reason = "moved by force or without torque; holding where it is"
        elif self._yielding_s > 0.0 and np.abs(moved_rad).max() > _YIELD_SPEED_RAD_S * dt_s:
            self._yielding_s = _YIELD_S
        if self._yielding_s > 0.0:
            self._yielding_s -= dt_s
            wanted = self._interpolator.position
            step_rad = self.config.max_joint_speed_rad_s * dt_s
            wanted = wanted + np.clip(self._measured_q - wanted, -step_rad, step_rad)
            self._interpolator = Interpolator(wanted, self._lower, self._upper)
            self._commanded_pose = self._kinematics.forward(wanted)
            self._stopping = False

    def _bounded_target(self, delta: Array, limits: list[str]) -> Array:
        """Compose a (6,) delta and bound the pose; append the names of limits that acted."""
        c = self.config
        previous, measured = self._commanded_pose, self._measured_pose
        target = compose_delta(previous, measured[:3, 3], delta)
        # An arm that is outside the box may move inwards or along it: it is never pulled back in
        # one jump, and never goes further out.
        low = np.minimum(c.workspace_low_m, previous[:3, 3])
        high = np.maximum(c.workspace_high_m, previous[:3, 3])
        inside = np.clip(target[:3, 3], low, high)
        if np.abs(inside - target[:3, 3]).max() > 1e-9:
            limits.append("workspace")
        error = inside - measured[:3, 3]
        distance = float(np.linalg.norm(error))
        if distance > c.max_position_error_m:
            limits.append("position_error")
            inside = measured[:3, 3] + error * (c.max_position_error_m / distance)
        target[:3, 3] = inside
        rotation, limited = limit_rotation(
            target[:3, :3], measured[:3, :3], c.max_rotation_error_rad
        )
        if limited:
            limits.append("rotation_error")
        target[:3, :3] = rotation
        return target

    def _refuse(self, code: CommandCode, reason: str) -> CommandVerdict:
        self.counters[code.value] += 1
        return CommandVerdict(False, code, reason)
