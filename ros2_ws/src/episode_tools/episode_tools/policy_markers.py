"""Node `policy_markers`: shows in RViz what a policy asks of the arm, and how it is doing."""

import sys
import time
from collections.abc import Iterable

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from node_common.declared_parameters import declare_parameters
from node_common.parameters import NodeParameter
from node_common.running import run_node
from policy_interfaces.msg import EndEffectorDelta, EndEffectorState, PolicyStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import qos_profile_sensor_data
from rclpy.task import Future
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from episode_tools.policy_scene import (
    Arrow,
    Color,
    Lines,
    PolicyCondition,
    Text,
    action_arrow,
    pose_axes,
    status_text,
    workspace_box,
)

# What the arm controller knows, and only it: asked for, not configured twice.
CONTROLLER_PARAMETERS = ["base_frame", "workspace_low_m", "workspace_high_m"]
CONTROLLER_PERIOD_S = 2.0
STATE_STALE_S = 1.0
# The policy node speaks once a second.
STATUS_STALE_S = 3.0
LINE_WIDTH_M = 0.003
AXIS_LENGTH_M = 0.06
ARROW_WIDTHS_M = (0.008, 0.016, 0.02)  # shaft, head, length of the head
TEXT_HEIGHT_M = 0.03
TEXT_ABOVE_WORKSPACE_M = 0.12
DEFAULT_TEXT_POSITION_M = (0.25, 0.0, 0.5)


_PARAMETERS = (
    NodeParameter("rate_hz", 10.0, "rate of the markers", 1.0, 60.0),
    NodeParameter(
        "arrow_scale", 2.0, "length of the action's arrow per length of the motion", 0.1, 20.0
    ),
    NodeParameter("arm_controller", "arm_controller", "node that is asked for frame and workspace"),
)


class PolicyMarkers(Node):
    """Keeps the latest of each message and publishes markers at a steady rate."""

    def __init__(self) -> None:
        """Declares parameters, subscriptions and the timers.

        Raises:
            ParameterError: a parameter is unknown or out of range.
        """
        super().__init__("policy_markers")
        values = declare_parameters(self, _PARAMETERS, read_only=True)
        rate_hz, self._arrow_scale = values["rate_hz"], values["arrow_scale"]
        self._lifetime_s = 3.0 / rate_hz
        self._frame_id = "base_link"
        self._workspace: Lines | None = None
        self._text_position = np.array(DEFAULT_TEXT_POSITION_M)
        self._state: tuple[float, EndEffectorState] | None = None
        self._arrow: tuple[float, Arrow] | None = None
        self._status: tuple[float, PolicyStatus] | None = None
        self._markers = self.create_publisher(MarkerArray, "policy_markers", 10)
        self.create_subscription(
            EndEffectorState, "end_effector_state", self._on_state, qos_profile_sensor_data
        )
        self.create_subscription(EndEffectorDelta, "end_effector_delta", self._on_delta, 1)
        self.create_subscription(PolicyStatus, "policy_node/status", self._on_status, 10)
        self._controller = AsyncParameterClient(self, values["arm_controller"])
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / rate_hz, self._publish, clock=steady)
        self.create_timer(CONTROLLER_PERIOD_S, self._ask_controller, clock=steady)

    def _on_state(self, message: EndEffectorState) -> None:
        self._state = (time.monotonic(), message)
        self._frame_id = message.header.frame_id or self._frame_id

    def _on_delta(self, message: EndEffectorDelta) -> None:
        if self._state is None:
            return
        position = self._state[1].commanded_pose.position
        start = np.array([position.x, position.y, position.z])
        try:
            arrow = action_arrow(message.names, message.values, start, self._arrow_scale)
        except ValueError as error:
            self.get_logger().warning(f"no arrow: {error}", throttle_duration_sec=5.0)
            return
        self._arrow = (time.monotonic(), arrow)

    def _on_status(self, message: PolicyStatus) -> None:
        self._status = (time.monotonic(), message)

    def _ask_controller(self) -> None:
        if self._controller.services_are_ready():
            future = self._controller.get_parameters(CONTROLLER_PARAMETERS)
            future.add_done_callback(self._on_controller_parameters)

    def _on_controller_parameters(self, future: Future) -> None:
        response = future.result()
        if response is None or len(response.values) != len(CONTROLLER_PARAMETERS):
            return
        frame, low, high = response.values
        low_m, high_m = list(low.double_array_value), list(high.double_array_value)
        try:
            self._workspace = workspace_box(low_m, high_m)
        except ValueError as error:
            self.get_logger().warning(f"no workspace: {error}", throttle_duration_sec=60.0)
            return
        self._frame_id = frame.string_value or self._frame_id
        middle = (np.array(low_m) + np.array(high_m)) / 2.0
        self._text_position = np.array([middle[0], middle[1], high_m[2] + TEXT_ABOVE_WORKSPACE_M])

    def _publish(self) -> None:
        now_s = time.monotonic()
        markers = []
        if self._workspace is not None:
            markers.append(self._lines("workspace", self._workspace))
        if self._state is not None and now_s - self._state[0] < STATE_STALE_S:
            pose = self._state[1].commanded_pose
            position, rotation = pose.position, pose.orientation
            try:
                axes = pose_axes(
                    (position.x, position.y, position.z),
                    (rotation.x, rotation.y, rotation.z, rotation.w),
                    AXIS_LENGTH_M,
                )
                markers.append(self._lines("commanded_pose", axes))
            except ValueError as error:
                self.get_logger().warning(f"no target: {error}", throttle_duration_sec=5.0)
        if self._arrow is not None and now_s - self._arrow[0] < STATE_STALE_S:
            markers.append(self._arrow_marker("action", self._arrow[1]))
        text = status_text(self._condition(now_s), self._text_position)
        markers.append(self._text_marker("status", text))
        self._markers.publish(MarkerArray(markers=markers))

    def _condition(self, now_s: float) -> PolicyCondition | None:
        if self._status is None or now_s - self._status[0] > STATUS_STALE_S:
            return None
        status = self._status[1]
        return PolicyCondition(
            running=status.state == PolicyStatus.STATE_RUNNING,
            faulty=status.state == PolicyStatus.STATE_FAULT,
            policy=status.policy,
            task=status.task,
            reason=status.reason,
            rate_hz=status.rate_hz,
            inference_p95_ms=status.inference_p95_ms,
            observation_age_ms=status.observation_age_ms,
        )

    # --- shapes as markers ------------------------------------------------------------------------

    def _marker(self, namespace: str, kind: int) -> Marker:
        # No stamp: RViz then places the marker by the latest transform.
        marker = Marker(ns=namespace, id=0, type=kind, action=Marker.ADD)
        marker.header.frame_id = self._frame_id
        marker.pose.orientation.w = 1.0
        seconds, fraction = divmod(self._lifetime_s, 1.0)
        marker.lifetime = Duration(sec=int(seconds), nanosec=int(fraction * 1e9))
        return marker

    def _lines(self, namespace: str, lines: Lines) -> Marker:
        marker = self._marker(namespace, Marker.LINE_LIST)
        marker.scale.x = LINE_WIDTH_M
        marker.points = _points(lines.points)
        marker.colors = [_color(color) for color in lines.colors for _ in range(2)]
        marker.color = _color(lines.colors[0])
        return marker

    def _arrow_marker(self, namespace: str, arrow: Arrow) -> Marker:
        marker = self._marker(namespace, Marker.ARROW)
        marker.scale.x, marker.scale.y, marker.scale.z = ARROW_WIDTHS_M
        marker.points = _points((arrow.start, arrow.end))
        marker.color = _color(arrow.color)
        return marker

    def _text_marker(self, namespace: str, text: Text) -> Marker:
        marker = self._marker(namespace, Marker.TEXT_VIEW_FACING)
        (marker.pose.position,) = _points([text.position])
        marker.scale.z = TEXT_HEIGHT_M
        marker.text = text.words
        marker.color = _color(text.color)
        return marker


def _points(points: Iterable[np.ndarray]) -> list[Point]:
    return [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in points]


def _color(color: Color) -> ColorRGBA:
    red, green, blue, alpha = color
    return ColorRGBA(r=red, g=green, b=blue, a=alpha)


def main() -> int:
    """Run the node until it is interrupted; return the exit status."""
    return run_node("policy_markers", lambda _: PolicyMarkers())


if __name__ == "__main__":
    sys.exit(main())
