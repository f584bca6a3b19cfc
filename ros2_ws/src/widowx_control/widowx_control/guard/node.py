"""Node `arm_guard`: the last step between an arm controller and the arm's driver.

It translates messages, parameters and services; every decision is made in `core`. It uses only the
public interface of Interbotix's xs_sdk, so it serves any driver or simulator that has it.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from interbotix_xs_msgs.srv import RegisterValues
from node_common.declared_parameters import declare_parameters
from node_common.diagnostics import ERROR, OK, WARN, Diagnostics
from node_common.parameters import NodeParameter
from node_common.running import Ending, run_node
from node_common.topic_watch import publishers
from policy_interfaces.msg import GuardStatus as StatusMessage
from rclpy.client import Client
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import MessageInfo
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from widowx_control.commanders import Commanders
from widowx_control.guard.checks import CHECKS, THRESHOLDS, GuardConfig
from widowx_control.guard.core import (
    ARM,
    GRIPPER,
    CommandTimes,
    Guard,
    GuardState,
    GuardStatus,
    Measurement,
    Output,
)
from widowx_control.guard.servo_health import Question
from widowx_control.joint_state_reader import JointStateReader
from widowx_control.kinematics import JOINT_NAMES

_TICK_S: Final = 0.02
_ANSWER_TIMEOUT_S: Final = 1.0
_FUTURE_TOLERANCE_S: Final = 0.1
_REPORT_PERIOD_S: Final = 0.1
_SENDER_TOPICS: Final = ("guarded/joint_group", "guarded/joint_single")
_DRIVER_TOPICS: Final = (
    "commands/joint_group",
    "commands/joint_single",
    "commands/joint_trajectory",
)
_STATES: Final = {
    GuardState.WAITING: StatusMessage.STATE_WAITING,
    GuardState.PASSING: StatusMessage.STATE_PASSING,
    GuardState.SLOWING: StatusMessage.STATE_SLOWING,
    GuardState.HOLDING: StatusMessage.STATE_HOLDING,
    GuardState.STOPPED: StatusMessage.STATE_STOPPED,
}
_LEVELS: Final = {
    GuardState.WAITING: WARN,
    GuardState.PASSING: OK,
    GuardState.SLOWING: WARN,
    GuardState.HOLDING: WARN,
    GuardState.STOPPED: ERROR,
}


@dataclass
class _PendingQuestion:
    question: Question
    future: Future[Any]
    asked_s: float


class ArmGuard(Node):
    """See the package README for topics, services, parameters and the table of codes."""

    def __init__(self, process: Ending, **kwargs: Any) -> None:
        """Declare parameters, create the topics, and start the watchdog thread.

        Args:
            process: told when the watchdog has died: the process must end.
            kwargs: passed on to the node.

        Raises:
            ParameterError: a parameter is unknown or out of range.
        """
        super().__init__("arm_guard", **kwargs)
        config = self._declare()
        self._guard = Guard(config)
        self._lock = threading.Lock()
        self._reader = JointStateReader(config.joint_states_timeout_s, _FUTURE_TOLERANCE_S)
        self._simulated_time = bool(self.get_parameter("use_sim_time").value)
        self._senders = Commanders()
        self._told_unsensed = False
        self._pending: _PendingQuestion | None = None
        self._worst_ms = 0.0
        self._reported: tuple[GuardState, str] | None = None
        self._reported_s: dict[tuple[GuardState, str], float] = {}
        self._ending = threading.Event()
        self._process = process
        kept = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        self._group = self.create_publisher(JointGroupCommand, "commands/joint_group", 10)
        self._single = self.create_publisher(JointSingleCommand, "commands/joint_single", 10)
        self._status = self.create_publisher(StatusMessage, "~/status", kept)
        self._diagnostics = Diagnostics(self, "guard", hardware_id="wx250s")
        self._registers: Client = self.create_client(RegisterValues, "get_motor_registers")
        self.create_subscription(JointState, "joint_states", self._on_joint_states, 1)
        self.create_subscription(Bool, "emergency_stop", self._on_emergency_stop, 10)
        self.create_service(Trigger, "emergency_stop", self._serve_emergency_stop)
        self.create_service(Trigger, "rearm", self._serve_rearm)
        # On the steady clock: a simulator that dies takes the clock of use_sim_time with it.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / config.servo_status_rate_hz, self._ask_servos, clock=steady)
        self.create_timer(1.0, self._look_around, clock=steady)
        self._opening = self.create_timer(0.05, self._open, clock=steady)
        # Also because rclpy's first log line of a process takes up to a second, and a later one
        # would take it from the middle of a motion.
        self.get_logger().info("waiting for joint_states, and for who takes commands/joint_group")
        self._report(force=True)
        self._watchdog = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._watchdog.start()

    def destroy_node(self) -> None:
        """End the watchdog, and leave a gripper that keeps what it holds but does not heat up."""
        if hasattr(self, "_watchdog"):  # otherwise its constructor has failed
            self._ending.set()
            self._watchdog.join()
            with self._lock:
                self._send(Output(gripper_pwm=self._guard.resting_gripper_pwm))
        super().destroy_node()

    def _declare(self) -> GuardConfig:
        table = []
        for name, threshold in THRESHOLDS.items():
            several = isinstance(threshold.default, tuple)
            table.append(
                NodeParameter(
                    name,
                    list(threshold.default) if several else threshold.default,
                    f"{threshold.description} [{threshold.unit}]",
                    None if several else threshold.low,
                    None if several else threshold.high,
                )
            )
        values = declare_parameters(self, table, read_only=True)
        for name in ("workspace_low_m", "workspace_high_m"):
            values[name] = tuple(values[name])
        return GuardConfig(**values)

    # -- commands ----------------------------------------------------------------------------

    def _open(self) -> None:
        """Take commands once the arm's pose and its driver are known.

        Subscribing only then tells a controller when it may begin: the first part of a motion
        would be lost before, and the rest would look like a jump.
        """
        with self._lock:
            known = self._guard.knows_pose
        takers = (self._group.get_subscription_count(), self._single.get_subscription_count())
        if not known or not all(takers):
            return
        self.destroy_timer(self._opening)
        # Depth 1: after a delay only the newest command counts.
        self.create_subscription(JointGroupCommand, "guarded/joint_group", self._on_group, 1)
        self.create_subscription(JointSingleCommand, "guarded/joint_single", self._on_single, 1)
        self.get_logger().info("taking commands")

    def _on_group(self, message: JointGroupCommand, info: MessageInfo) -> None:
        began_s = time.monotonic()
        with self._lock:
            self._send(
                self._guard.on_arm_command(message.name, message.cmd, self._times(info, began_s))
            )
            self._worst_ms = max(self._worst_ms, (time.monotonic() - began_s) * 1e3)
            self._report()

    def _on_single(self, message: JointSingleCommand, info: MessageInfo) -> None:
        now_s = time.monotonic()
        with self._lock:
            self._send(
                self._guard.on_gripper_command(message.name, message.cmd, self._times(info, now_s))
            )
            self._report()

    def _times(self, info: MessageInfo, now_s: float) -> CommandTimes:
        """When a command was sent, by the time that the middleware puts on every message.

        Notes who sent it, too.

        Interbotix's messages have no stamp. Both ends read the system clock, whatever the nodes'
        time is.
        """
        gid = info.get("publisher_gid")
        self._senders.heard(b"" if gid is None else bytes(gid["data"]), None, _TICK_S, now_s)
        sent_ns = info["source_timestamp"]
        known = sent_ns > 0
        return CommandTimes(
            now_s=now_s,
            motion_s=self._motion_s(now_s),
            age_s=(time.time_ns() - sent_ns) * 1e-9 if known else math.nan,
            sent_s=sent_ns * 1e-9 if known and not self._simulated_time else math.nan,
        )

    def _motion_s(self, now_s: float) -> float:
        return self._now_s() if self._simulated_time else now_s

    def _now_s(self) -> float:
        return float(self.get_clock().now().nanoseconds * 1e-9)

    def _send(self, output: Output) -> None:
        if output.arm_rad is not None:
            self._group.publish(JointGroupCommand(name=ARM, cmd=output.arm_rad.tolist()))
        if output.gripper_pwm is not None:
            self._single.publish(JointSingleCommand(name=GRIPPER, cmd=output.gripper_pwm))

    # -- measurements ------------------------------------------------------------------------

    def _on_joint_states(self, message: JointState) -> None:
        stamp_s = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        measured = self._reader.read(message.name, message.position, stamp_s, self._now_s())
        measurement = None
        if measured is not None:
            measurement = Measurement(
                measured.joint_positions_rad, measured.finger_m, _currents_ma(message)
            )
        with self._lock:
            now_s = time.monotonic()
            self._guard.on_joint_states(
                measurement, now_s, self._motion_s(now_s), self._reader.reason
            )

    def _ask_servos(self) -> None:
        """Ask for the next registers; one question at a time."""
        now_s = time.monotonic()
        pending = self._pending
        if pending is not None:
            if now_s - pending.asked_s < _ANSWER_TIMEOUT_S:
                return
            self._registers.remove_pending_request(pending.future)
            self._pending = None
            with self._lock:
                self._guard.health.answer(pending.question, None, now_s)
        with self._lock:
            question = self._guard.health.next_question()
            if not self._registers.service_is_ready():
                self._guard.health.answer(question, None, now_s)
                return
        request = RegisterValues.Request(
            cmd_type=question.cmd_type, name=question.name, reg=question.register
        )
        future = self._registers.call_async(request)
        self._pending = _PendingQuestion(question, future, now_s)
        future.add_done_callback(lambda done: self._on_answer(question, done))

    def _on_answer(self, question: Question, future: Future[Any]) -> None:
        if self._pending is not None and self._pending.future is future:
            self._pending = None
        response = future.result()
        with self._lock:
            values = None if response is None else list(response.values)
            self._guard.health.answer(question, values, time.monotonic())

    def _look_around(self) -> None:
        """Find nodes that could command the driver past the guard; report once a second."""
        others = set(publishers(self, *_DRIVER_TOPICS).values()) - {self.get_fully_qualified_name()}
        senders = publishers(self, *_SENDER_TOPICS)
        self._senders.keep(senders)
        active = {senders[gid] for gid in self._senders.active(time.monotonic())}
        with self._lock:
            self._guard.set_other_publishers(sorted(others), sorted(active))
            unsensed = self._guard.unsensed_joints()
            self._publish_diagnostics(self._guard.status(time.monotonic()))
            self._worst_ms = 0.0
        if unsensed and not self._told_unsensed:
            self._told_unsensed = True
            self.get_logger().warning(
                f"the effort of {', '.join(unsensed)} was never a finite number: taken for joints "
                "without a sensor, whose current is not checked"
            )

    # -- stop and re-arm ---------------------------------------------------------------------

    def _on_emergency_stop(self, message: Bool) -> None:
        with self._lock:
            self._guard.set_emergency_button(message.data, time.monotonic())
            self._report()

    def _serve_emergency_stop(
        self, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        with self._lock:
            self._guard.emergency_stop()
            self._report()
        response.success, response.message = True, "stopped; call rearm to go on"
        return response

    def _serve_rearm(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            response.success, response.message = self._guard.rearm(time.monotonic())
            self._report()
        self.get_logger().warning(f"rearm: {response.message}")
        return response

    # -- watchdog ----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Runs in a thread of its own: no callback, executor or simulated clock can delay it."""
        try:
            while not self._ending.wait(_TICK_S):
                now_s = time.monotonic()
                with self._lock:
                    self._send(self._guard.tick(now_s, self._motion_s(now_s)))
                    self._report()
        except Exception as error:
            if not self._ending.is_set() and self.context.ok():
                self._process.fail(f"the watchdog died: {error!r}")

    # -- reports -----------------------------------------------------------------------------

    def _report(self, force: bool = False) -> None:
        """Publish and log a change of state or cause; each one at most every 0.1 s."""
        now_s = time.monotonic()
        status = self._guard.status(now_s)
        key = (status.state, status.finding.code.value if status.finding else "")
        if key == self._reported and not force:
            return
        if now_s - self._reported_s.get(key, -math.inf) < _REPORT_PERIOD_S:
            return
        self._reported = key
        self._reported_s[key] = now_s
        message = StatusMessage(state=_STATES[status.state])
        message.header.stamp = self.get_clock().now().to_msg()
        finding = status.finding
        if finding is not None:
            message.code, message.message = finding.code.value, finding.message
            message.value, message.threshold = float(finding.value), float(finding.threshold)
            message.unit = finding.unit
        self._status.publish(message)
        self._publish_diagnostics(status)
        text = f"{status.state}: {finding.code}: {finding.message}" if finding else status.state
        # One call per level: rclpy ties the place of a call to its level.
        if status.state is GuardState.STOPPED:
            self.get_logger().error(f"{text}; call {self.resolve_service_name('rearm')} to go on")
        elif finding is not None:
            self.get_logger().warning(text, throttle_duration_sec=1.0)

    def _publish_diagnostics(self, status: GuardStatus) -> None:
        finding = status.finding
        text = f"{status.state}: {finding.message}" if finding else str(status.state)
        values: dict[str, Any] = {
            "state": status.state.value,
            "code": finding.code.value if finding else "",
            "reaction": finding.reaction.value if finding else "",
            "value": f"{finding.value:g}" if finding else "",
            "threshold": f"{finding.threshold:g}" if finding else "",
            "unit": finding.unit if finding else "",
            "also": "; ".join(f"{f.code}: {f.message}" for f in status.also),
            "passed": self._guard.counters["passed"],
            "worst_ms": f"{self._worst_ms:.2f}",
            **{f"count_{code}": self._guard.counters[code] for code in CHECKS},
        }
        self._diagnostics.publish(_LEVELS[status.state], text, values)


def _currents_ma(message: JointState) -> np.ndarray | None:
    if len(message.effort) != len(message.name):
        return None
    index = {name: i for i, name in enumerate(message.name)}
    return np.array([message.effort[index[name]] for name in JOINT_NAMES])


def main() -> int:
    """Run the node until SIGINT or SIGTERM. The servos keep the last pose that was sent."""
    return run_node("arm_guard", ArmGuard, users=("arm_controller",))


if __name__ == "__main__":
    sys.exit(main())
