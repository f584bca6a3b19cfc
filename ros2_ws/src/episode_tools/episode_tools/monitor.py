"""Node that shows a running policy on a web page of this machine."""

from __future__ import annotations

import math
import sys
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node_common.declared_parameters import declare_parameters
from node_common.image_conversion import ImageConverter, ImageError
from node_common.image_transport import IMAGE_TRANSPORT, image_source
from node_common.parameters import NodeParameter
from node_common.running import StartError, run_node
from policy_interfaces.msg import EndEffectorDelta, PolicyStatus, TaskStatus
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from episode_tools.monitor_server import MonitorServer, MonitorState

_LATEST_IMAGE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
)
_POLICY_STATES = {
    PolicyStatus.STATE_IDLE: "idle",
    PolicyStatus.STATE_RUNNING: "running",
    PolicyStatus.STATE_FAULT: "fault",
}
_RUNNER_STATUS = "episode_runner: episodes"


_PARAMETERS = (
    NodeParameter("port", 8642, "TCP port of the page on 127.0.0.1; 0 picks a free one", 0, 65535),
    IMAGE_TRANSPORT,
)


class Monitor(Node):
    """Collects what the page shows. Images are subscribed to only while somebody looks at them."""

    def __init__(self) -> None:
        super().__init__("monitor")
        values = declare_parameters(self, _PARAMETERS, read_only=True)
        self._transport = values["image_transport"]
        self._state = MonitorState()
        self._converter = ImageConverter(lambda text: self.get_logger().warning(text))
        self._images: Subscription | None = None
        try:
            self._server = MonitorServer(self._state, values["port"])
        except OSError as error:
            raise StartError(f"cannot serve the page: {error}") from error
        self.create_subscription(PolicyStatus, "policy_node/status", self._on_policy, 10)
        self.create_subscription(TaskStatus, "robot_sim/task_status", self._on_task, 10)
        self.create_subscription(EndEffectorDelta, "end_effector_delta", self._on_action, 10)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._faults: dict[str, str] = {}
        self.create_timer(0.5, self._subscribe_on_demand)
        self._server.start()
        self.get_logger().info(f"open {self._server.url} in a browser of this machine")

    def destroy_node(self) -> None:
        """Stop the web server."""
        if hasattr(self, "_server"):  # otherwise its constructor has failed
            self._server.close()
        super().destroy_node()

    def _subscribe_on_demand(self) -> None:
        if self._state.viewers and self._images is None:
            source = image_source(self._transport)
            self._images = self.create_subscription(*source, self._on_image, _LATEST_IMAGE)
        elif not self._state.viewers and self._images is not None:
            self.destroy_subscription(self._images)
            self._images = None

    def _on_image(self, message: Image | CompressedImage) -> None:
        try:
            self._state.set_image(self._converter.rgb(message))
        except ImageError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=10.0)

    def _on_policy(self, message: PolicyStatus) -> None:
        self._state.update(
            "policy",
            {
                "state": _POLICY_STATES.get(message.state, "unknown"),
                "policy": message.policy,
                "task": message.task,
                "reason": message.reason,
                "ticks": message.ticks,
                "missed_ticks": message.missed_ticks,
                "overruns": message.overruns,
                "rate_hz": _finite(message.rate_hz),
                "inference_p50_ms": _finite(message.inference_p50_ms),
                "inference_p95_ms": _finite(message.inference_p95_ms),
                "inference_p99_ms": _finite(message.inference_p99_ms),
                "observation_age_ms": _finite(message.observation_age_ms),
            },
        )

    def _on_task(self, message: TaskStatus) -> None:
        self._state.update(
            "task",
            {
                "instruction": message.instruction,
                "task": message.task,
                "seed": message.seed,
                "success": message.success,
                "success_s": _finite(message.success_s),
            },
        )

    def _on_action(self, message: EndEffectorDelta) -> None:
        values = dict(zip(message.names, map(_finite, message.values), strict=False))
        self._state.update("action", values)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == _RUNNER_STATUS:
                self._state.update("episodes", {value.key: value.value for value in status.values})
            if status.level == DiagnosticStatus.OK:
                self._faults.pop(status.name, None)
            else:
                self._faults[status.name] = status.message
        self._state.update("faults", self._faults)


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def main(args: list[str] | None = None) -> int:
    """Run the node until it is stopped; return the exit status."""
    return run_node("monitor", lambda _: Monitor(), arguments=args)


if __name__ == "__main__":
    sys.exit(main())
