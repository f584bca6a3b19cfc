"""Lifecycle node `arm_controller`: end-effector deltas in, joint positions and gripper PWM out.

It uses only the public interface of xs_sdk, so the Interbotix driver and the simulator serve
alike. All decisions are made in `arm_control`, `command_gate` and `joint_state_reader`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from interbotix_xs_msgs.srv import RegisterValues
from node_common.cpu_load import CpuLoad
from node_common.declared_parameters import given_parameters
from node_common.diagnostics import ERROR, OK, WARN
from node_common.managed_node import ManagedNode
from node_common.parameters import NodeParameter
from node_common.running import run_node
from node_common.topic_watch import publishers
from policy_interfaces.action import MoveToNamedPose
from policy_interfaces.msg import EndEffectorDelta, EndEffectorState
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock
from rclpy.node import Node
from rclpy.subscription import MessageInfo
from rclpy.task import Future
from sensor_msgs.msg import JointState

from widowx_control.arm_control import ArmControl, ArmMode, CommandCode
from widowx_control.command_gate import CommandGate, GateCode
from widowx_control.commanders import Commanders, silence_s
from widowx_control.controller_config import (
    NAMED_POSE_PREFIX,
    PARAMETERS,
    config_from_values,
    named_pose_parameters,
)
from widowx_control.joint_state_reader import ArmMeasurement, JointStateReader
from widowx_control.kinematics import JOINT_NAMES, ArmKinematics
from widowx_control.rotations import quaternion_from_rotation
from widowx_control.xs_client import ARM_GROUP, GRIPPER, DriverError, XsClient

_PROFILE_REGISTERS = ("Profile_Velocity", "Profile_Acceleration")
_PROFILE_ANSWER_S = 1.0
_GRIPPER_REPEAT_S = 0.5
_GRIPPER_DEADBAND_PWM = 10.0
_FEEDBACK_PERIOD_S = 0.1
_WATCH_PERIOD_S = 0.5
_STANDSTILL_S = 1.0
"""Silence of joint_states after which even a standing clock is no excuse."""
_ARM_TOPICS = ("commands/joint_group", "commands/joint_single", "commands/joint_trajectory")
_COMMAND_DEPTH = 50
"""Commands are deltas, so none may be dropped: a second of them at the highest rate."""
_OPENED = 0.9

_REFUSALS = (
    "not_active",
    "joint_states",
    "rival",
    "other_commander",
    *(c.value for c in GateCode if c is not GateCode.PASSED),
    CommandCode.UNREACHABLE.value,
    CommandCode.BUSY.value,
)


_COMMAND_CODES = frozenset(code.value for code in CommandCode)


@dataclass
class _Motion:
    """A named-pose motion in progress."""

    goal: ServerGoalHandle
    finished: Future[tuple[int, str]]
    target: tuple[float, ...]
    accepted: int
    """Commands accepted by the time of the goal."""
    started: bool = False
    deadline_s: float = 0.0
    elapsed_s: float = 0.0
    feedback_s: float = 0.0


def _parameters(node: Node) -> tuple[NodeParameter, ...]:
    poses = [name for name in given_parameters(node) if name.startswith(NAMED_POSE_PREFIX)]
    return (*PARAMETERS, *named_pose_parameters(poses))


class ArmController(ManagedNode):
    """See the package README for topics, parameters and the behaviour in each state."""

    def __init__(self, interrupted: threading.Event | None = None, **kwargs: Any) -> None:
        """Declare the parameters.

        Args:
            interrupted: set from outside when the process is to end; ends waits for the driver.
            kwargs: passed on to the lifecycle node.

        Raises:
            ParameterError: a parameter is unknown or out of range.
        """
        super().__init__(
            "arm_controller",
            _parameters,
            part="control",
            hardware_id="wx250s",
            read_only=True,
            **kwargs,
        )
        self._created_s = time.monotonic()
        self._config = config_from_values(self.values())
        self._control: ArmControl | None = None
        self._silence = ""
        """Why there is no usable joint state; empty: there is."""
        self._measurement: ArmMeasurement | None = None
        # On the steady clock, and on the loop's own.
        self._measured_at_s = self._measured_tick_s = float("-inf")
        self._load = CpuLoad()
        self._motion: _Motion | None = None
        self._saved_profile: dict[str, list[int]] = {}
        self._profile_answers: list[Future[RegisterValues.Response]] = []
        self._profile_asked_s = float("-inf")
        self._counts: Counter[str] = Counter()
        self._refused = 0
        self._refused_at_s = float("-inf")
        self._refusing_since_s: float | None = None
        self._last_refusal = ""
        self._commanders = Commanders()
        self._step_s = 0.0
        self._reported: tuple[Any, str] = (None, "")
        self._reported_at_s = float("-inf")
        self._rival_nodes: list[str] = []
        self._gripper_sent = (float("nan"), float("-inf"))
        self._last_tick_s = 0.0
        self._late = False
        self._gate = CommandGate(
            self._config.command_max_age_s,
            self._config.future_tolerance_s,
            self._config.base_frame,
            self._config.command_max_lateness_s,
        )
        self._reader = JointStateReader(
            self._config.joint_states_timeout_s, self._config.future_tolerance_s
        )
        self._client: XsClient | None = None
        self._interrupted = interrupted or threading.Event()
        self._control_clock: Clock = self.steady_clock
        # On the steady clock: a simulator that dies takes the clock of use_sim_time with it.
        self.create_timer(_WATCH_PERIOD_S, self._watch, clock=self.steady_clock)

    # -- lifecycle ---------------------------------------------------------------------------

    def configure(self, values: dict[str, Any]) -> None:
        """Check driver, robot and rivals; create topics and the action. Nothing moves."""
        time.sleep(max(0.0, self._created_s + self._config.discovery_s - time.monotonic()))
        self._check_alone()
        control = ArmControl(self._config.control, ArmKinematics())
        self._client = self.hold(
            XsClient(self, self._config.driver_timeout_s, self._interrupted.is_set)
        )
        self._client.wait()
        self._client.check_robot()
        self._control = control
        self._joint_group = self.hold(
            self.create_lifecycle_publisher(JointGroupCommand, "commands/joint_group", 10)
        )
        self._joint_single = self.hold(
            self.create_lifecycle_publisher(JointSingleCommand, "commands/joint_single", 10)
        )
        self._state_publisher = self.hold(
            self.create_publisher(EndEffectorState, "end_effector_state", 10)
        )
        self._profile_setter: Any = self.hold(
            self.create_client(RegisterValues, "set_motor_registers")
        )
        self.hold(self.create_subscription(JointState, "joint_states", self._on_joint_states, 1))
        self.hold(
            self.create_subscription(
                EndEffectorDelta, "end_effector_delta", self._on_command, _COMMAND_DEPTH
            )
        )
        self.hold(
            ActionServer(
                self,
                MoveToNamedPose,
                "move_to_named_pose",
                execute_callback=self._execute_move,
                cancel_callback=lambda _: CancelResponse.ACCEPT,
            )
        )

    def activate(self) -> None:
        """Set the servo profile for streaming and hold the present measured pose."""
        assert self._client is not None and self._control is not None
        try:
            self._check_alone()
            self._wait_for_listener()
            self._measure()
            self._save_and_set_profile()
            self._control.use_servo_gains(self._servo_gains())
            measurement = self._measure()
        except (DriverError, ValueError):
            self._restore_profile()
            raise
        # Under use_sim_time the loop keeps the simulator's time; else no clock step may stop it.
        sim_time = self.get_parameter("use_sim_time").value
        self._control_clock = self.get_clock() if sim_time else self.steady_clock
        self._take(measurement)
        self._control.reset(measurement.joint_positions_rad, measurement.finger_m)
        self._gate.reset()
        self._silence = ""
        self._last_refusal = ""
        self._refused_at_s = float("-inf")
        self._refusing_since_s = None
        self._commanders = Commanders()
        self._rival_nodes = []
        self._gripper_sent = (float("nan"), float("-inf"))
        self._last_tick_s = self._control_now_s()
        self.hold(
            self.create_timer(1.0 / self._config.rate_hz, self._tick, clock=self._control_clock)
        )

    def rest(self, reason: str) -> None:
        """Stop the stream: the servos hold the last position, a closed gripper stays closed."""
        assert self._control is not None
        if not self._silence:
            self._control.hold("deactivated")
            self._publish_arm(self._control.servo_goals_rad.tolist())
        # A closed gripper would drop what it holds at PWM 0. A small PWM keeps it, and is
        # far below what heats the servo.
        gripping = self._gripper_sent[0] < 0
        self._publish_gripper(-self._config.gripper_inactive_pwm if gripping else 0.0)
        self._finish_motion(MoveToNamedPose.Result.CODE_NOT_ACTIVE, "deactivated")
        self._restore_profile()

    def release(self) -> None:
        """Forget driver and arm."""
        self._client = None
        self._control = None
        self._measurement = None
        self._measured_at_s = self._measured_tick_s = float("-inf")

    def _check_alone(self) -> None:
        """Raise DriverError when another node commands, or could command, the same arm."""
        mine = (self.get_name(), self.get_namespace())
        twins = self.get_node_names_and_namespaces().count(mine)
        if twins > 1:
            raise DriverError(
                f"{twins} nodes are named {self.get_fully_qualified_name()}: another arm "
                "controller runs in this namespace; stop it, or use another namespace"
            )
        rivals = self._rivals()
        if rivals:
            raise DriverError(
                f"{'; '.join(rivals)} already: two nodes must not command one arm; stop it, or "
                "use another namespace"
            )

    def _rivals(self) -> list[str]:
        """Say which other nodes publish the topics that this one commands the arm by."""
        return [
            f"{name} publishes {topic}"
            for topic in map(self.resolve_topic_name, _ARM_TOPICS)
            for name in publishers(self, topic).values()
            if name != self.get_fully_qualified_name()
        ]

    def _wait_for_listener(self) -> None:
        """Raise DriverError when nobody takes the commands, for example because a guard is absent.

        A motion that begins before its listener is there would reach it as a jump.
        """
        deadline_s = time.monotonic() + self._config.driver_timeout_s
        for publisher in (self._joint_group, self._joint_single):
            while publisher.get_subscription_count() == 0:
                if self._interrupted.is_set() or time.monotonic() > deadline_s:
                    raise DriverError(
                        f"nobody takes commands on {publisher.topic_name}: is the arm's driver, or "
                        "the guard before it, running and ready?"
                    )
                time.sleep(0.02)

    def _measure(self) -> ArmMeasurement:
        """Wait for a measurement from now on; the node's own subscription is asleep meanwhile."""
        assert self._client is not None
        deadline_s = time.monotonic() + self._config.driver_timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            message = self._client.next_joint_states(left_s)
            # It came just now; the node's simulated clock rests during a transition.
            measurement = message and self._read(message, _stamp_s(message.header.stamp))
            if measurement:
                return measurement
        topic = self.resolve_topic_name("joint_states")
        raise DriverError(
            f"no usable joint_states on {topic} for {self._config.driver_timeout_s} s"
            + (f": {self._reader.reason}" if self._reader.reason else "")
        )

    def _read(self, message: JointState, now_s: float) -> ArmMeasurement | None:
        stamp_s = _stamp_s(message.header.stamp)
        return self._reader.read(message.name, message.position, stamp_s, now_s)

    def _now_s(self) -> float:
        return float(self.get_clock().now().nanoseconds * 1e-9)

    def _save_and_set_profile(self) -> None:
        assert self._client is not None
        wanted = (self._config.profile_velocity, self._config.profile_acceleration)
        saved = {name: self._client.read_register(name) for name in _PROFILE_REGISTERS}
        self._saved_profile = saved
        for name, value in zip(_PROFILE_REGISTERS, wanted, strict=True):
            self._client.write_register(name, [value] * len(JOINT_NAMES))

    def _servo_gains(self) -> list[int] | None:
        """Gains for `ArmControl.use_servo_gains`; None without sag_compensation."""
        assert self._client is not None
        if not self._config.sag_compensation:
            return None
        try:
            return self._client.read_register("Position_P_Gain")
        except DriverError as error:
            # Interbotix's simulator knows no such register, and its arm has no weight.
            self.get_logger().warning(f"no sag_compensation: {error}")
            return None

    def _profile_is_set(self) -> bool:
        """Give the driver the streaming profile again, without waiting; true once it has it.

        A driver that was started again streams into its own profile, which lags by seconds.
        """
        if self._profile_answers and all(answer.done() for answer in self._profile_answers):
            self._profile_answers = []
            return True
        now_s = time.monotonic()
        if not self._profile_answers or now_s - self._profile_asked_s > _PROFILE_ANSWER_S:
            for answer in self._profile_answers:
                self._profile_setter.remove_pending_request(answer)
            wanted = (self._config.profile_velocity, self._config.profile_acceleration)
            self._profile_answers = [
                self._profile_setter.call_async(
                    RegisterValues.Request(cmd_type="group", name=ARM_GROUP, reg=name, value=value)
                )
                for name, value in zip(_PROFILE_REGISTERS, wanted, strict=True)
            ]
            self._profile_asked_s = now_s
        return False

    def _restore_profile(self) -> None:
        saved, self._saved_profile = self._saved_profile, {}
        if not saved or self._client is None:
            return
        try:
            for name, values in saved.items():
                self._client.write_register(name, values)
        except DriverError as error:
            self.get_logger().error(f"the servos' time profile was not restored: {error}")

    # -- stream ------------------------------------------------------------------------------

    def _take(self, measurement: ArmMeasurement) -> None:
        self._measurement = measurement
        self._measured_at_s, self._measured_tick_s = time.monotonic(), self._control_now_s()

    def _on_joint_states(self, message: JointState) -> None:
        measurement = self._read(message, self._now_s())
        if measurement is None or self._control is None:
            return
        self._take(measurement)
        q, finger_m = measurement.joint_positions_rad, measurement.finger_m
        self._control.observe(q, finger_m)
        if self.active and self._silence and self._profile_is_set():
            self._control.reset(q, finger_m, keep_gripper=True)
            self._silence = ""
            self.get_logger().warning("joint_states are back: holding the measured pose")
        measured, state = self._control.measured_pose, self._control.state
        commanded = self._control.commanded_pose if self.active else measured
        output = EndEffectorState()
        output.header.stamp = message.header.stamp
        output.header.frame_id = self._config.base_frame
        output.pose = _pose_message(measured)
        output.state = state
        output.commanded_pose = _pose_message(commanded)
        output.refused_commands = self._refused
        self._state_publisher.publish(output)

    def _on_command(self, message: EndEffectorDelta, info: MessageInfo) -> None:
        self._counts["commands"] += 1
        self._step_s = message.step_s
        gid = _gid(info)
        number = info.get("publication_sequence_number") if gid else None
        self._counts["lost"] += self._commanders.heard(
            gid, number, message.step_s, time.monotonic()
        )
        if not self.active or self._control is None:
            self._refuse("not_active", "the arm controller is not active")
            return
        if self._silence:
            self._refuse("joint_states", self._silence)
            return
        if self._rival_nodes:
            self._refuse("rival", self._rivalry())
            return
        others = self._other_commanders(gid)
        if others:
            if self._control.mode is ArmMode.TRACKING:
                self._control.hold(others)
            self._refuse("other_commander", others)
            return
        gate = self._gate.check(
            message.names,
            message.values,
            message.header.frame_id,
            message.step_s,
            _stamp_s(message.header.stamp),
            self._now_s(),
            _stamp_s(message.execute_at) or None,
            message.max_observation_age_s or None,
        )
        if self._gate.notice:
            self.get_logger().warning(self._gate.notice)
            self._gate.notice = ""
        if not gate.passed:
            self._refuse(gate.code.value, gate.reason)
            return
        if self._motion is not None and self._motion.started:
            self._refuse(CommandCode.BUSY.value, "a named-pose motion is running")
            return
        verdict = self._control.command(gate.action, message.step_s)
        if verdict.accepted:
            self._counts["accepted"] += 1
            self._refusing_since_s = None
        else:
            self._refuse(verdict.code.value, verdict.reason)

    def _other_commanders(self, sender: bytes) -> str:
        """Say that several nodes send commands now; '' while it is one."""
        if len(self._commanders.active(time.monotonic())) < 2:
            return ""
        names = self._command_publishers()
        # One that has ended, such as a policy node that was started again, is no commander.
        self._commanders.keep({sender, *names})
        active = self._commanders.active(time.monotonic())
        if len(active) < 2:
            return ""
        known = sorted(names.get(gid, "a node that has ended") for gid in active)
        return (
            f"{' and '.join(known)} send end_effector_delta, expected one source of commands: "
            "all are refused and the arm holds; end the others"
        )

    def _command_publishers(self) -> dict[bytes, str]:
        """Return the nodes that publish the arm's commands, by the identity of the publisher."""
        return publishers(self, "end_effector_delta")

    def _rivalry(self) -> str:
        return f"{'; '.join(self._rival_nodes)} too: the arm holds; stop it"

    def _refuse(self, code: str, reason: str) -> None:
        self._counts[f"refused_{code}"] += 1
        self._refused += 1
        self._last_refusal = f"command refused ({code}): {reason}"
        self._refused_at_s = time.monotonic()
        if self._refusing_since_s is None:
            self._refusing_since_s = self._refused_at_s
        self.get_logger().warning(self._last_refusal, throttle_duration_sec=1.0)

    def _refusing_s(self) -> float:
        """For how long every command has been refused; 0 when none comes."""
        if self._refusing_since_s is None:
            return 0.0
        if time.monotonic() - self._refused_at_s > silence_s(self._step_s):
            self._refusing_since_s = None
            return 0.0
        return self._refused_at_s - self._refusing_since_s

    def _control_now_s(self) -> float:
        return self._control_clock.now().nanoseconds * 1e-9

    def _tick(self) -> None:
        now_s = self._control_now_s()
        dt_s = now_s - self._last_tick_s
        limit_s = max(0.5 * self._config.joint_states_timeout_s, 3.0 / self._config.rate_hz)
        self._late = dt_s > limit_s and not self._late
        if self._late:
            # This process was kept waiting, and what arrived meanwhile is worked off after timers.
            return
        self._last_tick_s = now_s
        if not self.active or dt_s <= 0:
            return
        # On the loop's own clock: the arm of a slow simulation moves no faster than its time.
        if self._check_stale(now_s - self._measured_tick_s):
            self._report_change()
            return
        assert self._control is not None and self._measurement is not None
        command = self._control.update(
            dt_s, self._measurement.joint_positions_rad, self._measurement.finger_m
        )
        if command.arm_positions_rad is not None:
            self._publish_arm(command.arm_positions_rad.tolist())
        self._publish_gripper_when_due(command.gripper_pwm)
        if self._motion is not None:
            self._follow_motion(self._motion, dt_s)
        self._report_change()

    def _check_stale(self, age_s: float) -> bool:
        """Stop commanding when joint_states stopped; recovery is in `_on_joint_states`."""
        if age_s > self._config.joint_states_timeout_s and not self._silence:
            assert self._control is not None
            self._silence = f"no usable joint_states for {age_s:.2f} s"
            self._profile_answers = []
            if self._reader.reason:
                self._silence += f": {self._reader.reason}"
            self._silence += self._load.note
            self._counts["joint_states_fault"] += 1
            self._control.hold(self._silence)
            self._finish_motion(MoveToNamedPose.Result.CODE_STALE_JOINT_STATES, self._silence)
            self.get_logger().error(f"{self._silence}; commanding stopped")
        return bool(self._silence)

    def _publish_arm(self, positions_rad: list[float]) -> None:
        self._joint_group.publish(JointGroupCommand(name=ARM_GROUP, cmd=positions_rad))

    def _publish_gripper(self, pwm: float) -> None:
        self._joint_single.publish(JointSingleCommand(name=GRIPPER, cmd=pwm))
        self._gripper_sent = (pwm, time.monotonic())

    def _publish_gripper_when_due(self, pwm: float) -> None:
        """Send what differs: each message costs the Interbotix driver 10 ms of its loop."""
        sent, at_s = self._gripper_sent
        changed = not abs(pwm - sent) < _GRIPPER_DEADBAND_PWM or (pwm == 0) != (sent == 0)
        if changed or time.monotonic() - at_s >= _GRIPPER_REPEAT_S:
            self._publish_gripper(pwm)

    # -- named poses -------------------------------------------------------------------------

    async def _execute_move(self, goal: ServerGoalHandle) -> MoveToNamedPose.Result:
        """Start the motion; the control loop follows it and sets the outcome."""
        motion = self._start_motion(goal)
        if isinstance(motion, _Motion):
            await motion.finished
            outcome = motion.finished.result()
            assert outcome is not None
            code, message = outcome
        else:
            code, message = motion
        if code == MoveToNamedPose.Result.CODE_REACHED:
            goal.succeed()
        elif code == MoveToNamedPose.Result.CODE_CANCELLED:
            goal.canceled()
        else:
            self.get_logger().warning(f"move_to_named_pose: {message}")
            goal.abort()
        return MoveToNamedPose.Result(code=code, message=message)

    def _start_motion(self, goal: ServerGoalHandle) -> _Motion | tuple[int, str]:
        result = MoveToNamedPose.Result
        request = goal.request
        if not self.active or self._control is None:
            return result.CODE_NOT_ACTIVE, "the arm controller is not active"
        if self._silence:
            return result.CODE_STALE_JOINT_STATES, self._silence
        if self._motion is not None:
            return result.CODE_BUSY, "another named-pose motion is running"
        poses = self._config.named_poses
        if request.pose not in poses:
            known = ", ".join(sorted(poses))
            return (
                result.CODE_UNKNOWN_POSE,
                f"unknown pose {request.pose[:40]!r}; known are {known}",
            )
        if self._rival_nodes:
            return result.CODE_BUSY, self._rivalry()
        motion = _Motion(goal, Future(), poses[request.pose], self._counts["accepted"])
        self._motion = motion
        if self._control.mode is not ArmMode.TRACKING:
            self._begin_motion(motion)
        return motion

    def _begin_motion(self, motion: _Motion) -> None:
        assert self._control is not None
        request = motion.goal.request
        duration_s = request.duration_s or self._config.move_duration_s
        try:
            planned_s = self._control.move_to(motion.target, duration_s, request.open_gripper)
        except ValueError as error:
            self._finish_motion(MoveToNamedPose.Result.CODE_NONE, str(error))
            return
        motion.started = True
        motion.deadline_s = planned_s + self._config.arrival_timeout_s

    def _await_end_of_commands(self, motion: _Motion) -> None:
        """Begin once the stream of commands has ended; refuse when it goes on."""
        assert self._control is not None
        result = MoveToNamedPose.Result
        if motion.goal.is_cancel_requested:
            self._finish_motion(result.CODE_CANCELLED, "cancelled before it began")
        elif self._counts["accepted"] > motion.accepted:
            names = ", ".join(sorted(set(self._command_publishers().values())))
            self._finish_motion(
                result.CODE_BUSY, f"{names} commands the arm by end_effector_delta; end that first"
            )
        elif self._control.mode is not ArmMode.TRACKING:
            self._begin_motion(motion)

    def _follow_motion(self, motion: _Motion, dt_s: float) -> None:
        result = MoveToNamedPose.Result
        assert self._control is not None and self._measurement is not None
        if not motion.started:
            self._await_end_of_commands(motion)
            return
        motion.elapsed_s += dt_s
        if motion.goal.is_cancel_requested:
            self._control.hold("motion cancelled")
            self._finish_motion(result.CODE_CANCELLED, "cancelled; the arm holds")
            return
        errors = abs(self._measurement.joint_positions_rad - motion.target)
        worst = int(errors.argmax())
        opened = not motion.goal.request.open_gripper or self._control.state[6] >= _OPENED
        there = errors[worst] <= self._config.arrival_tolerance_rad
        if self._control.mode is not ArmMode.MOVING and there and opened:
            self._finish_motion(result.CODE_REACHED, f"reached {motion.goal.request.pose}")
        elif motion.elapsed_s > motion.deadline_s:
            self._control.hold("motion timed out")
            what = (
                "the gripper did not open"
                if there
                else f"{JOINT_NAMES[worst]} is {errors[worst]:.3f} rad from its target"
            )
            self._finish_motion(
                result.CODE_TIMEOUT, f"not arrived after {motion.elapsed_s:.1f} s: {what}"
            )
        elif motion.elapsed_s - motion.feedback_s >= _FEEDBACK_PERIOD_S:
            motion.feedback_s = motion.elapsed_s
            motion.goal.publish_feedback(MoveToNamedPose.Feedback(progress=self._control.progress))

    def _finish_motion(self, code: int, message: str) -> None:
        motion, self._motion = self._motion, None
        if motion is not None:
            motion.finished.set_result((code, message))

    # -- diagnostics -------------------------------------------------------------------------

    def _watch(self) -> None:
        self._load.sample()
        self._rival_nodes = self._rivals() if self.active else []
        if self.active:
            silent_s = time.monotonic() - self._measured_at_s
            if silent_s > _STANDSTILL_S:
                # Simulated time may stand, and the control loop with it.
                self._check_stale(silent_s)
            self._commanders.keep(self._command_publishers())
            if self._rival_nodes and self._control is not None:
                self._control.hold(self._rivalry())
                self._finish_motion(MoveToNamedPose.Result.CODE_BUSY, self._rivalry())
        self.report()

    def _report_change(self) -> None:
        """Publish diagnostics at once when the health changed, at most every 0.1 s."""
        if self._health() != self._reported and time.monotonic() - self._reported_at_s > 0.1:
            self.report()

    def report(self) -> None:
        """Publish the health and the counters."""
        self._reported = self._health()
        self._reported_at_s = time.monotonic()
        level, text = self._reported
        values: dict[str, Any] = {
            "mode": self._control.mode.value if self.active and self._control else "off",
            "reason": self._control.reason if self._control else "",
            "commands": self._counts["commands"],
            "accepted": self._counts["accepted"],
            "lost": self._counts["lost"],
            "refused": self._refused,
            "refusing_s": f"{self._refusing_s():.2f}",
            **{f"refused_{c}": self._counts[f"refused_{c}"] for c in _REFUSALS},
            "last_refusal": self._last_refusal,
            "joint_states_fault": self._counts["joint_states_fault"],
            **self._reader.counters,
        }
        if self._control is not None:
            limits = self._control.counters
            values |= {k: v for k, v in limits.items() if k not in _COMMAND_CODES}
        self.publish_health(level, text, values)

    def _health(self) -> tuple[bytes, str]:
        if self._control is None:
            return WARN, self._last_refusal or "not configured"
        if not self.active:
            return OK, self._last_refusal or "inactive"
        if self._silence:
            return ERROR, self._silence
        if self._rival_nodes:
            return ERROR, self._rivalry()
        if time.monotonic() - self._refused_at_s < silence_s(self._step_s):
            return WARN, self._last_refusal
        reason = self._control.reason
        return OK, self._control.mode.value + (f": {reason}" if reason else "")


def _gid(info: MessageInfo) -> bytes:
    """Identify the publisher of a message; before ROS 2 Kilted all look alike."""
    gid = info.get("publisher_gid")
    return b"" if gid is None else bytes(gid["data"])


def _stamp_s(stamp: Time) -> float:
    return float(stamp.sec + 1e-9 * stamp.nanosec)


def _pose_message(pose: Any) -> Pose:
    message = Pose()
    message.position.x, message.position.y, message.position.z = (float(v) for v in pose[:3, 3])
    orientation = quaternion_from_rotation(pose[:3, :3])
    (
        message.orientation.x,
        message.orientation.y,
        message.orientation.z,
        message.orientation.w,
    ) = orientation
    return message


def main() -> int:
    """Run the node until SIGINT or SIGTERM, and leave the arm holding."""
    return run_node(
        "arm_controller",
        lambda ending: ArmController(interrupted=ending.event),
        on_end=lambda node: node.trigger_shutdown(),
    )


if __name__ == "__main__":
    sys.exit(main())
