"""Node `cmd_vel_guard`: the last check between a controller and the driver of a base."""

from __future__ import annotations

import math
import sys
import time
from typing import Any, Final

import numpy as np
from geometry_msgs.msg import Twist, TwistStamped
from node_common.diagnostics import ERROR, OK, WARN
from node_common.managed_node import ManagedNode
from node_common.running import run_node
from policy_interfaces.msg import BaseContacts, GuardStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import LaserScan
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from base_drivers.command_guard import (
    COMMAND_SILENT,
    SCAN_BLIND,
    SCAN_FRAME,
    SCAN_MALFORMED,
    Command,
    CommandGuard,
    Decision,
    Finding,
    State,
)
from base_drivers.guard_parameters import PARAMETERS, config_from, mount_from
from base_drivers.odometry_messages import contacts_from_message
from base_drivers.scan_watch import BlindScanError, ScanMount, points_from_ranges
from base_drivers.static_transforms import StaticTransforms
from base_drivers.velocity import REST, Velocity
from base_drivers.velocity_messages import stamp_seconds, subscribe_commands, twist_message

_NEWEST: Final = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_LATCHED: Final = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
_ALL_STATIC: Final = QoSProfile(
    depth=100,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
_NO_POINTS: Final = np.zeros((0, 2))
_AGAIN_S: Final = 0.5
"""A new message of the same code is shown after so long: senders can take turns."""
_CALM_S: Final = 0.5
"""Slowing is reported until this long after its last time: ramps would flood the topic."""
_LEVELS: Final = {
    State.WAITING: OK,
    State.PASSING: OK,
    State.SLOWING: OK,
    State.HOLDING: WARN,
    State.STOPPED: ERROR,
}


class CmdVelGuard(ManagedNode):
    """See the package's README for topics, checks and parameters.

    The emergency stop works in every state.
    """

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("cmd_vel_guard", PARAMETERS, part="commands", **node_arguments)
        self._guard = CommandGuard(config_from(self.values()))
        self._output: Any = None
        self._shown = Decision(State.WAITING, Finding(message="not active"), None)
        self._shown_s = -math.inf
        self._shown_problems: list[str] = []
        self._slowing_until_s = -math.inf
        self._commands = 0
        self._transforms = StaticTransforms()
        self._scan_frames: dict[str, str] = {}
        self._status = self.create_publisher(GuardStatus, "~/status", _LATCHED)
        self._emergency = self.create_subscription(
            Bool, "~/emergency_stop", self._on_emergency_stop, 10
        )
        self.create_service(Trigger, "~/emergency_stop", self._on_stop_request)
        self.create_service(Trigger, "~/rearm", self._on_rearm)

    # --- lifecycle --------------------------------------------------------------------------------

    def configure(self, values: dict[str, Any]) -> None:
        """Check the parameters and create the topics."""
        self._guard.config = config_from(values)
        self._mount = mount_from(values)
        self._stamped = values["stamped_output"]
        self._frame = values["base_frame"]
        self._output = self.hold(
            self.create_lifecycle_publisher(TwistStamped if self._stamped else Twist, "cmd_vel", 1)
        )
        watch = self.watch
        self.hold(
            subscribe_commands(
                self,
                "cmd_vel_nav",
                values["stamped_input"],
                self._on_command,
                watch,
                "stamped_input",
            )
        )
        # A message takes the place of the one before: two scanners would hide each other.
        for kind, topic, on_message in (
            (BaseContacts, "contacts", self._on_contacts),
            (LaserScan, "scan", self._on_scan),
        ):
            subscription = self.create_subscription(kind, topic, on_message, _NEWEST)
            self.hold(watch.add(subscription, one_sender=True))
        self.hold(
            self.create_subscription(TFMessage, "/tf_static", self._on_transforms, _ALL_STATIC)
        )
        watch.add(self._emergency)
        watch.add_output(self._output)

    def activate(self) -> None:
        """Start to pass commands; those from before are forgotten."""
        self._guard.reset()
        self._slowing_until_s = -math.inf
        period_s = 1.0 / float(self.get_parameter("rate_hz").value)
        self.hold(self.create_timer(period_s, self._step, clock=self.steady_clock))
        self._decide()

    def rest(self, reason: str) -> None:
        """Send rest once more, then nothing; what is latched stays."""
        self._send(REST)
        self._show(Decision(State.WAITING, Finding(message="not active"), None))

    def release(self) -> None:
        """Watch nothing."""
        self.watch.forget(self._emergency)
        self._scan_frames = {}
        self._output = None

    def check_values(self, values: dict[str, Any]) -> None:
        """Refuse what does not fit together."""
        config_from(values)

    def values_changed(self, values: dict[str, Any]) -> None:
        """Take the new limits."""
        self._guard.config = config_from(values)
        self._mount = mount_from(values)

    # --- inputs -----------------------------------------------------------------------------------

    def _node_s(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _on_command(self, command: Command) -> None:
        if not self.active:
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
        code, problem = SCAN_MALFORMED, ""
        try:
            points = points_from_ranges(
                np.asarray(message.ranges, np.float32),
                message.angle_min,
                message.angle_increment,
                message.range_min,
                message.range_max,
                self._mount_of(message.header.frame_id),
                message.angle_max,
            )
        except BlindScanError as error:
            if self.get_parameter("scan_blind_is_free").value:
                points = _NO_POINTS
            else:
                code, problem = SCAN_BLIND, str(error)
        except _FrameError as error:
            code, problem = SCAN_FRAME, str(error)
        except ValueError as error:
            problem = str(error)
        if problem:
            problem = f"a scan was refused: {problem}"
            self._guard.refuse_scan(code, problem)
            self.get_logger().warning(problem, throttle_duration_sec=2.0)
            return
        self._guard.on_scan(points, stamp_seconds(message.header.stamp), time.monotonic())

    def _on_transforms(self, message: TFMessage) -> None:
        for transform in message.transforms:
            place, turn = transform.transform.translation, transform.transform.rotation
            try:
                self._transforms.add(
                    transform.header.frame_id,
                    transform.child_frame_id,
                    (place.x, place.y, place.z),
                    (turn.x, turn.y, turn.z, turn.w),
                )
            except ValueError as error:
                self.get_logger().warning(
                    f"/tf_static of {transform.child_frame_id} is left out: {error}"
                )

    def _mount_of(self, frame: str) -> ScanMount:
        """The pose of a scanner by the frame of its scans: parameters go before /tf_static.

        Raises:
            _FrameError: scans of this frame are not wanted.
        """
        expected = self.get_parameter("scan_frame").value
        frame = frame.lstrip("/")
        if expected and frame != expected:
            raise _FrameError(f"it is in the frame '{frame}', expected scan_frame, '{expected}'")
        known = self._transforms.pose(frame, self._frame)
        told = None if known is None else ScanMount.from_transform(known)
        is_set = self._mount != ScanMount()
        problem = ""
        if is_set and told is not None and not _agree(self._mount, told):
            problem = (
                f"the scan_* parameters say {_describe(self._mount)} of the scanner, /tf_static "
                f"says {_describe(told)} of '{frame}': the parameters are taken"
            )
        elif not is_set and told is None and frame not in ("", self._frame):
            problem = (
                f"the pose of the scanner's frame '{frame}' in '{self._frame}' is not known: it is "
                "taken to be the same; set the scan_* parameters or publish /tf_static"
            )
        if self._scan_frames.get(frame) != problem:
            self._scan_frames[frame] = problem
            if problem:
                self.get_logger().warning(problem)
        if is_set or told is None:
            return self._mount
        return told

    def _scan_problems(self) -> list[str]:
        problems = [problem for problem in self._scan_frames.values() if problem]
        problems += [self._guard.scan_refusal] if self._guard.scan_refusal else []
        if self._mount != ScanMount() and len(self._scan_frames) > 1:
            frames = ", ".join(f"'{frame}'" for frame in sorted(self._scan_frames))
            problems.append(
                f"scans of the frames {frames} are all placed by the scan_* parameters, which hold "
                "for one: set scan_frame"
            )
        return problems

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
        if self.active:
            self._decide()

    def _decide(self) -> None:
        now_s = time.monotonic()
        decision = self._guard.decide(now_s, self._node_s())
        if decision.output is not None:
            self._send(decision.output)
        if decision.state is State.SLOWING:
            self._slowing_until_s = now_s + _CALM_S
        elif decision.state is State.PASSING and now_s < self._slowing_until_s:
            return
        shown, finding = self._shown, decision.finding
        if (decision.state, finding.code) != (shown.state, shown.finding.code) or (
            finding.message != shown.finding.message and now_s - self._shown_s > _AGAIN_S
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
        self._shown, self._shown_s = decision, time.monotonic()
        finding = decision.finding
        if decision.state is State.STOPPED:
            self.get_logger().error(f"{finding.code}: {finding.message}")
        elif decision.state is State.HOLDING:
            self.get_logger().warning(f"{finding.code}: {finding.message}")
        self._publish_status()

    def _publish_status(self) -> None:
        finding = self._shown.finding
        message = GuardStatus(
            state=int(self._shown.state),
            code=finding.code,
            message=self._explain(self._shown),
            value=float(finding.value),
            threshold=float(finding.threshold),
            unit=finding.unit,
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(message)
        self._publish_diagnostics()

    def _explain(self, decision: Decision) -> str:
        """The message of a decision; where no command came, with what is seen of its senders."""
        message = decision.finding.message
        if decision.state is State.WAITING or decision.finding.code == COMMAND_SILENT:
            return "; ".join([message, *self.problems])
        return message

    def find_problems(self) -> list[str]:
        """Inputs and outputs, and where scans come from."""
        return self.watch.problems() + self._scan_problems() if self.active else []

    def report(self) -> None:
        """Publish the diagnostics, and the status when the problems have changed."""
        changed, self._shown_problems = self.problems != self._shown_problems, self.problems
        if changed:
            self._publish_status()
        else:
            self._publish_diagnostics()

    def _publish_diagnostics(self) -> None:
        shown = self._shown
        level, message = _LEVELS[shown.state], shown.finding.message or shown.state.name.lower()
        rivals = self.count_publishers("cmd_vel") - 1 if self._output is not None else 0
        if rivals > 0 and level == OK:
            level = WARN
            message = f"{rivals} other publishers of {self.resolve_topic_name('cmd_vel')}"
        values = {
            "state": shown.state.name.lower(),
            "code": shown.finding.code,
            "commands": self._commands,
            "other_publishers": max(rivals, 0),
            **self._guard.counts,
        }
        self.publish_health(level, message, values)


class _FrameError(ValueError):
    """A scan of a frame that is not the one that was set."""


def _agree(one: ScanMount, other: ScanMount) -> bool:
    apart_m = math.hypot(one.x_m - other.x_m, one.y_m - other.y_m)
    return apart_m < 0.05 and bool(np.abs(one.axes - other.axes).max() < 0.1)


def _describe(mount: ScanMount) -> str:
    return (
        f"x {mount.x_m:.2f} m, y {mount.y_m:.2f} m, roll {mount.roll_rad:.2f}, pitch "
        f"{mount.pitch_rad:.2f}, yaw {mount.yaw_rad:.2f} rad"
    )


def main() -> int:
    """Run the node."""
    return run_node("cmd_vel_guard", lambda _: CmdVelGuard(), goes_first=True)


if __name__ == "__main__":
    sys.exit(main())
