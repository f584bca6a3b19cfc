"""Node `cmd_vel_guard`: the last check between a controller and the driver of a base."""

from __future__ import annotations

import math
import sys
import time
from typing import Any, Final

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Twist, TwistStamped
from policy_interfaces.msg import BaseContacts, GuardStatus
from policy_server.node_parameters import (
    check_change,
    declare_parameters,
    unknown_overrides,
)
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn as Transition
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import LaserScan
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from base_drivers.command_guard import Command, CommandGuard, Decision, Finding, State
from base_drivers.guard_parameters import PARAMETERS, config_from, mount_from
from base_drivers.lifecycle_process import run_node
from base_drivers.odometry_messages import contacts_from_message
from base_drivers.scan_watch import points_from_ranges
from base_drivers.velocity import REST, Velocity
from base_drivers.velocity_messages import stamp_seconds, subscribe_commands, twist_message

_NEWEST: Final = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_LATCHED: Final = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
_DIAGNOSTICS_PERIOD_S: Final = 1.0
_CALM_S: Final = 0.5
"""Slowing is reported until this long after its last time: ramps would flood the topic."""
_LEVELS: Final = {
    State.WAITING: DiagnosticStatus.OK,
    State.PASSING: DiagnosticStatus.OK,
    State.SLOWING: DiagnosticStatus.OK,
    State.HOLDING: DiagnosticStatus.WARN,
    State.STOPPED: DiagnosticStatus.ERROR,
}


class CmdVelGuard(LifecycleNode):
    """See the package's README for topics, checks and parameters."""

    # rclpy destroys a node whose constructor has failed, too.
    _active = False

    def __init__(self, **node_arguments: Any) -> None:
        """Declare parameters; the emergency stop works from now on, in every state.

        Raises:
            ValueError: a parameter is unknown, mistyped or out of range.
        """
        super().__init__("cmd_vel_guard", **node_arguments)
        declare_parameters(self, PARAMETERS)
        problems = unknown_overrides(self)
        if problems:
            raise ValueError("; ".join(problems))
        self._guard = CommandGuard(config_from(self._values()))
        self._configured = False
        self._entities: list[Any] = []
        self._timer: Any = None
        self._output: Any = None
        self._shown = Decision(State.WAITING, Finding(message="not active"), None)
        self._slowing_until_s = -math.inf
        self._commands = 0
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._status = self.create_publisher(GuardStatus, "~/status", _LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_subscription(Bool, "~/emergency_stop", self._on_emergency_stop, 10)
        self.create_service(Trigger, "~/emergency_stop", self._on_stop_request)
        self.create_service(Trigger, "~/rearm", self._on_rearm)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=self._steady)

    # --- lifecycle --------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> Transition:
        """Check the parameters and create the topics."""
        values = self._values()
        try:
            self._guard.config = config_from(values)
        except ValueError as error:
            self.get_logger().error(f"cannot configure: {error}")
            return Transition.FAILURE
        self._mount = mount_from(values)
        self._stamped = values["stamped_output"]
        self._frame = values["base_frame"]
        self._output = self.create_lifecycle_publisher(
            TwistStamped if self._stamped else Twist, "cmd_vel", 1
        )
        self._entities = [
            subscribe_commands(self, "cmd_vel_nav", values["stamped_input"], self._on_command),
            self.create_subscription(BaseContacts, "contacts", self._on_contacts, _NEWEST),
            self.create_subscription(LaserScan, "scan", self._on_scan, _NEWEST),
        ]
        self._configured = True
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> Transition:
        """Start to pass commands; those from before are forgotten."""
        self._guard.reset()
        self._slowing_until_s = -math.inf
        result = super().on_activate(state)
        self._active = True
        period_s = 1.0 / float(self.get_parameter("rate_hz").value)
        self._timer = self.create_timer(period_s, self._step, clock=self._steady)
        self._step()
        return result

    def on_deactivate(self, state: LifecycleState) -> Transition:
        """Send rest once more, then nothing."""
        self._rest()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> Transition:
        """Give the topics back; what is latched stays."""
        self._release()
        return Transition.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> Transition:
        """Rest, then give everything back."""
        self._rest()
        self._release()
        return Transition.SUCCESS

    def on_error(self, state: LifecycleState) -> Transition:
        """Rest, then give everything back."""
        self._rest()
        self._release()
        return Transition.SUCCESS

    def destroy_node(self) -> None:
        """Bring the base to rest before the process ends."""
        self._rest()
        super().destroy_node()

    def _rest(self) -> None:
        if not self._active:
            return
        self._active = False
        self.destroy_timer(self._timer)
        self._send(REST)
        self._show(Decision(State.WAITING, Finding(message="not active"), None))

    def _release(self) -> None:
        for subscription in self._entities:
            self.destroy_subscription(subscription)
        self._entities = []
        if self._output is not None:
            self.destroy_lifecycle_publisher(self._output)
        self._output = None
        self._configured = False

    # --- parameters -------------------------------------------------------------------------------

    def _values(self) -> dict[str, Any]:
        return {entry.name: self.get_parameter(entry.name).value for entry in PARAMETERS}

    def _check_parameters(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        result = check_change(PARAMETERS, changes, configured=self._configured)
        if result.successful:
            try:
                config_from(self._values() | {change.name: change.value for change in changes})
            except ValueError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return result

    def _apply_parameters(self, changes: list[Parameter[Any]]) -> None:
        values = self._values()
        self._guard.config = config_from(values)
        self._mount = mount_from(values)

    # --- inputs -----------------------------------------------------------------------------------

    def _node_s(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _on_command(self, command: Command) -> None:
        if not self._active:
            return
        self._commands += 1
        self._guard.on_command(command, time.monotonic(), self._node_s())
        self._step()

    def _on_contacts(self, message: BaseContacts) -> None:
        contacts = contacts_from_message(message)
        self._guard.on_contacts(contacts, time.monotonic())
        if contacts.bumper or contacts.cliff or contacts.wheel_drop:
            self._step()

    def _on_scan(self, message: LaserScan) -> None:
        try:
            points = points_from_ranges(
                np.asarray(message.ranges, np.float32),
                message.angle_min,
                message.angle_increment,
                message.range_min,
                message.range_max,
                self._mount,
            )
        except ValueError as error:
            self._guard.refuse_scan()
            self.get_logger().warning(f"a scan was refused: {error}", throttle_duration_sec=2.0)
            return
        self._guard.on_scan(points, stamp_seconds(message.header.stamp), time.monotonic())

    def _on_emergency_stop(self, message: Bool) -> None:
        self._guard.on_emergency_stop(message.data, time.monotonic())
        self._step()

    def _on_stop_request(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self._guard.stop()
        self._step()
        response.success, response.message = True, "stopped; ~/rearm ends it"
        return response

    def _on_rearm(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._guard.rearm(time.monotonic())
        self._step()
        return response

    # --- output -----------------------------------------------------------------------------------

    def _step(self) -> None:
        if not self._active:
            return
        now_s = time.monotonic()
        decision = self._guard.decide(now_s, self._node_s())
        if decision.output is not None:
            self._send(decision.output)
        if decision.state is State.SLOWING:
            self._slowing_until_s = now_s + _CALM_S
        elif decision.state is State.PASSING and now_s < self._slowing_until_s:
            return
        if (decision.state, decision.finding.code) != (
            self._shown.state,
            self._shown.finding.code,
        ):
            self._show(decision)

    def _send(self, velocity: Velocity) -> None:
        message: Any = twist_message(velocity)
        if self._stamped:
            message = TwistStamped(twist=message)
            message.header.stamp = self.get_clock().now().to_msg()
            message.header.frame_id = self._frame
        self._output.publish(message)

    def _show(self, decision: Decision) -> None:
        self._shown = decision
        finding = decision.finding
        message = GuardStatus(
            state=int(decision.state),
            code=finding.code,
            message=finding.message,
            value=float(finding.value),
            threshold=float(finding.threshold),
            unit=finding.unit,
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(message)
        if decision.state is State.STOPPED:
            self.get_logger().error(f"{finding.code}: {finding.message}")
        elif decision.state is State.HOLDING:
            self.get_logger().warning(f"{finding.code}: {finding.message}")
        self._publish_diagnostics()

    def _publish_diagnostics(self) -> None:
        shown = self._shown
        level, message = _LEVELS[shown.state], shown.finding.message or shown.state.name.lower()
        rivals = self.count_publishers("cmd_vel") - 1 if self._output is not None else 0
        if rivals > 0 and level == DiagnosticStatus.OK:
            level = DiagnosticStatus.WARN
            message = f"{rivals} other publishers of {self.resolve_topic_name('cmd_vel')}"
        values = {
            "state": shown.state.name.lower(),
            "code": shown.finding.code,
            "commands": self._commands,
            "other_publishers": max(rivals, 0),
            **self._guard.counts,
        }
        status = DiagnosticStatus(
            level=level,
            name=f"{self.get_name()}: commands",
            message=message,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def main() -> int:
    """Run the node."""
    return run_node("cmd_vel_guard", CmdVelGuard)


if __name__ == "__main__":
    sys.exit(main())
