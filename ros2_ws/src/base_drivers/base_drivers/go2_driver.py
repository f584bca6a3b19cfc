"""Node `go2_driver`: a Unitree Go2 behind the topics of every base."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from geometry_msgs.msg import Quaternion
from nav_msgs.msg import Odometry
from node_common.diagnostics import ERROR, OK, WARN
from node_common.managed_node import ManagedNode
from node_common.parameters import NodeParameter
from node_common.polled_subscription import PolledSubscription
from node_common.running import run_node
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import BatteryState
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from unitree_api.msg import Request, RequestIdentity, Response
from unitree_go.msg import LowState, SportModeState

from base_drivers.command_guard import Command
from base_drivers.go2.driver import Go2Core, Outcome, Posture
from base_drivers.go2.sport_service import SportState, mode_name
from base_drivers.go2_messages import HEARD_TOPIC, request_message, state_from_message
from base_drivers.odometry_messages import odometry_message, transform_message
from base_drivers.velocity import VelocityLimits, limit_speed
from base_drivers.velocity_messages import DRIVER_COMMAND_PARAMETERS, DriverCommands

PARAMETERS: Final = (
    NodeParameter("stamped", False, "cmd_vel is TwistStamped instead of Twist", structural=True),
    NodeParameter("odom_frame", "odom", "frame of the odometry", structural=True),
    NodeParameter("base_frame", "base_link", "frame of the body", structural=True),
    NodeParameter("publish_tf", True, "publish odom_frame → base_frame", structural=True),
    NodeParameter("state_topic", "/sportmodestate", "state of the robot", structural=True),
    NodeParameter("low_state_topic", "/lf/lowstate", "battery of the robot", structural=True),
    NodeParameter(
        "velocity_frame",
        "odom",
        "axes along which the robot tells its velocity",
        choices=("odom", "body"),
        structural=True,
    ),
    NodeParameter("rate_hz", 50.0, "rate of requests and odometry", 20.0, 200.0, structural=True),
    *DRIVER_COMMAND_PARAMETERS,
    NodeParameter(
        "state_timeout_s", 0.2, "silence of the state that stops", 0.05, 2.0, structural=True
    ),
    NodeParameter(
        "posture_timeout_s", 8.0, "time to stand up or lie down", 1.0, 60.0, structural=True
    ),
    NodeParameter(
        "keeper_timeout_s",
        0.3,
        "the stop keeper must hear requests within this time; 0: drive without one",
        0.0,
        2.0,
        structural=True,
    ),
    NodeParameter("max_linear_m_s", 1.0, "forward and backward speed", 0.01, 2.5),
    NodeParameter("max_lateral_m_s", 0.4, "sideways speed", 0.0, 1.0),
    NodeParameter("max_angular_rad_s", 1.5, "yaw rate", 0.01, 4.0),
)
_NO_LIMIT: Final = 1e9
_VARIANCES: Final = (1e-2, 1e-2, 1e-2, 1e-2)
_REMEMBERED_REQUESTS: Final = 64
_RELIABLE: Final = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


class Go2Node(ManagedNode):
    """See the package's README for topics and parameters."""

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("go2_driver", PARAMETERS, part="base", **node_arguments)
        self._values: Mapping[str, Any] = {}
        self._core: Go2Core | None = None
        self._state: SportState | None = None
        self._unsound_states = 0
        self._failed_requests = 0
        self._sent: deque[int] = deque(maxlen=_REMEMBERED_REQUESTS)
        self._waiting: Future | None = None
        self._topics: dict[str, Any] = {}
        self._commands: DriverCommands | None = None
        self._polled: dict[str, PolledSubscription] = {}
        # They wait for the robot; in the group of the others they would hold up the watchdog.
        waiting = ReentrantCallbackGroup()
        self.create_service(Trigger, "~/stand_up", self._stand_up, callback_group=waiting)
        self.create_service(Trigger, "~/lie_down", self._lie_down, callback_group=waiting)

    # --- lifecycle --------------------------------------------------------------------------------

    def configure(self, values: dict[str, Any]) -> None:
        """Create the topics."""
        self._values = values
        self._topics = {
            "requests": self.create_lifecycle_publisher(Request, "/api/sport/request", _RELIABLE),
            "odom": self.create_lifecycle_publisher(Odometry, "odom", 10),
            "battery": self.create_lifecycle_publisher(BatteryState, "battery_state", 10),
        }
        if values["publish_tf"]:
            self._topics["tf"] = self.create_lifecycle_publisher(TFMessage, "/tf", 100)
        self._commands = DriverCommands(self, self._on_command, self._refuse)
        self._polled = {
            "state": PolledSubscription(self, SportModeState, values["state_topic"]),
            "low_state": PolledSubscription(self, LowState, values["low_state_topic"]),
        }
        for entity in (
            *self._topics.values(),
            self.create_subscription(Response, "/api/sport/response", self._on_response, 10),
            self.create_subscription(RequestIdentity, HEARD_TOPIC, self._on_heard, 1),
            self._commands,
            *self._polled.values(),
        ):
            self.hold(entity)

    def activate(self) -> None:
        """Begin to pass commands. The robot is not moved."""
        values = self._values
        self._core = Go2Core(
            values["command_timeout_s"],
            values["state_timeout_s"],
            values["posture_timeout_s"],
            values["keeper_timeout_s"],
        )
        self._sent.clear()
        self._state = None
        self.hold(self.create_timer(1.0 / values["rate_hz"], self._step, clock=self.steady_clock))

    def rest(self, reason: str) -> None:
        """Stop the robot; it keeps standing."""
        assert self._core is not None
        for request in self._core.halt():
            self._topics["requests"].publish(request_message(request))
        self._answer(Outcome(False, "the driver was deactivated"))

    def find_problems(self) -> list[str]:
        """Why commands do not arrive."""
        return self._commands.problems() if self.active and self._commands is not None else []

    # --- commands ---------------------------------------------------------------------------------

    def _on_command(self, command: Command) -> None:
        if not self.active or self._core is None:
            return
        velocity = command.velocity
        if command.is_finite:
            limits = VelocityLimits(
                self.get_parameter("max_linear_m_s").value,
                self.get_parameter("max_lateral_m_s").value,
                self.get_parameter("max_angular_rad_s").value,
                _NO_LIMIT,
                _NO_LIMIT,
            )
            velocity = limit_speed(velocity, limits).velocity
        self._core.on_command(velocity, time.monotonic())

    def _refuse(self, code: str) -> None:
        if self._core is not None:
            self._core.refuse(code)

    def _step(self) -> None:
        if not self.active or self._core is None:
            return
        now_s = time.monotonic()
        message = self._polled["state"].take()
        if message is not None:
            state = state_from_message(message)
            if state.is_sound():
                self._state = state
                self._core.on_state(state, now_s)
                self._publish_odometry(state)
            else:
                self._unsound_states += 1
        for request in self._core.tick(now_s):
            message = request_message(request)
            self._sent.append(message.header.identity.id)
            self._topics["requests"].publish(message)
        if self._core.outcome is not None:
            self._answer(self._core.outcome)

    def _on_heard(self, message: RequestIdentity) -> None:
        # Others may ask the robot for something, too, and the keeper itself does.
        if self._core is not None and message.id in self._sent:
            self._core.on_heard()

    def _on_response(self, message: Response) -> None:
        if message.header.status.code != 0:
            self._failed_requests += 1
            self.get_logger().warning(
                f"the robot answered request {message.header.identity.api_id} with code "
                f"{message.header.status.code}",
                throttle_duration_sec=1.0,
            )

    # --- posture ----------------------------------------------------------------------------------

    async def _stand_up(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        return await self._change_posture(Posture.STANDING, response)

    async def _lie_down(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        return await self._change_posture(Posture.LYING, response)

    async def _change_posture(
        self, posture: Posture, response: Trigger.Response
    ) -> Trigger.Response:
        if not self.active or self._core is None:
            response.success, response.message = False, "the node is not active; activate it first"
            return response
        problem = self._core.change_posture(posture, time.monotonic())
        if problem:
            response.success, response.message = False, problem
            return response
        future: Future = Future(executor=self.executor)
        self._waiting = future
        outcome = await future
        assert outcome is not None
        response.success, response.message = outcome.success, outcome.message
        return response

    def _answer(self, outcome: Outcome) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.set_result(outcome)

    # --- measurements -----------------------------------------------------------------------------

    def _publish_odometry(self, state: SportState) -> None:
        w, x, y, z = state.quaternion_wxyz
        odometry = odometry_message(
            # The robot's own stamp is of a clock that nobody synchronises.
            self.get_clock().now().to_msg(),
            (self._values["odom_frame"], self._values["base_frame"]),
            state.position_m,
            Quaternion(x=x, y=y, z=z, w=w),
            state.body_velocity(self._values["velocity_frame"] == "body"),
            _VARIANCES,
        )
        self._topics["odom"].publish(odometry)
        if "tf" in self._topics:
            self._topics["tf"].publish(transform_message(odometry))

    def report(self) -> None:
        """Publish diagnostics and battery."""
        low_state = self._polled["low_state"].take() if self.active else None
        if low_state is not None:
            self._publish_battery(low_state)
        core, state = self._core, self._state
        level, text = OK, "inactive"
        values: dict[str, object] = {}
        if self.active and core is not None:
            not_ready = core.not_ready(time.monotonic())
            level = OK if not_ready is None else WARN
            text = "driving" if not_ready is None else not_ready[1]
            if not_ready is not None and not_ready[0] in ("state_silent", "keeper_silent"):
                level = ERROR
            if state is not None and state.error_code and not_ready is None:
                level, text = WARN, f"the robot tells error {state.error_code}"
            values = {
                "mode": mode_name(state.mode) if state is not None else "",
                "error_code": state.error_code if state is not None else "",
                "watchdog_stops": core.watchdog_stops,
                "unsound_states": self._unsound_states,
                "failed_requests": self._failed_requests,
                **core.refused,
            }
        self.publish_health(level, text, values)

    def _publish_battery(self, low_state: LowState) -> None:
        battery = low_state.bms_state
        cells = [value * 1e-3 for value in battery.cell_vol if value]
        message = BatteryState(
            voltage=low_state.power_v,
            current=battery.current * 1e-3,
            percentage=battery.soc / 100.0,
            cell_voltage=cells,
            power_supply_status=BatteryState.POWER_SUPPLY_STATUS_UNKNOWN,
            power_supply_health=BatteryState.POWER_SUPPLY_HEALTH_UNKNOWN,
            power_supply_technology=BatteryState.POWER_SUPPLY_TECHNOLOGY_LION,
            present=True,
            location="body",
            charge=float("nan"),
            capacity=float("nan"),
            design_capacity=float("nan"),
            temperature=float(max(battery.bq_ntc)),
        )
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = self._values["base_frame"]
        self._topics["battery"].publish(message)


def main() -> int:
    """Run the node."""
    return run_node("go2_driver", lambda _: Go2Node(), goes_first=True)


if __name__ == "__main__":
    sys.exit(main())
