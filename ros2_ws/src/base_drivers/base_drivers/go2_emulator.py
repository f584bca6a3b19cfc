"""Node `go2_emulator`: the sport service of a Go2 without the robot, over the same topics."""

from __future__ import annotations

import math
import sys
import time
from typing import Any, Final

from node_common.declared_parameters import declare_parameters
from node_common.parameters import NodeParameter
from node_common.running import run_node
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from unitree_api.msg import Request, Response
from unitree_go.msg import LowState, SportModeState

from base_drivers.go2.sport_service import WALKING_MODES, Api, Mode, velocity_from_parameter
from base_drivers.velocity import REST, Velocity

PARAMETERS: Final = (
    NodeParameter("mode", int(Mode.LIE_DOWN), "mode at the start", 0, 13),
    NodeParameter("muted", False, "tell no state, as a robot that is off"),
    NodeParameter("transition_s", 0.5, "time to stand up or lie down", 0.0, 10.0),
    NodeParameter("state_of_charge", 80, "of the battery, in percent", 0, 100),
)
_PERIOD_S: Final = 0.01
_LOW_STATE_PERIOD_S: Final = 0.1
_LAG_S: Final = 0.15
_HEIGHT_M: Final = 0.32
_NOT_POSSIBLE: Final = 4201
"""Code of an answer to a request that the mode does not allow."""
_TARGETS: Final = {
    Api.STAND_UP: Mode.JOINT_LOCK,
    Api.STAND_DOWN: Mode.LIE_DOWN,
    Api.BALANCE_STAND: Mode.BALANCE_STAND,
}


class Go2Emulator(Node):
    """Walks as asked. A velocity never times out: the worst that a robot could do."""

    def __init__(self, **node_arguments: Any) -> None:
        """Start to tell the state.

        Raises:
            ValueError: a parameter is unknown, mistyped or out of range.
        """
        super().__init__("go2_emulator", **node_arguments)
        declare_parameters(self, PARAMETERS)
        self._mode = self.get_parameter("mode").value
        self._next_mode: tuple[float, int] | None = None
        self._target = REST
        self._velocity = REST
        self._x_m = self._y_m = self._yaw_rad = 0.0
        self._now_s = time.monotonic()
        self._low_state_s = 0.0
        sensor = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._states = self.create_publisher(SportModeState, "/sportmodestate", sensor)
        self._low_states = self.create_publisher(LowState, "/lf/lowstate", sensor)
        self._responses = self.create_publisher(Response, "/api/sport/response", 10)
        self.create_subscription(Request, "/api/sport/request", self._on_request, 10)
        self.create_timer(_PERIOD_S, self._step, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_request(self, message: Request) -> None:
        api = message.header.identity.api_id
        done = self._do(api, message.parameter)
        if message.header.policy.noreply:
            return
        response = Response()
        response.header.identity = message.header.identity
        response.header.status.code = 0 if done else _NOT_POSSIBLE
        self._responses.publish(response)

    def _do(self, api: int, parameter: str) -> bool:
        if api == Api.MOVE:
            velocity = velocity_from_parameter(parameter)
            if velocity is None or self._mode not in WALKING_MODES:
                return False
            self._target = velocity
            self._mode = Mode.LOCOMOTION
            return True
        if api == Api.STOP_MOVE:
            self._target = REST
            return True
        if api in _TARGETS:
            if api == Api.BALANCE_STAND and self._mode == Mode.LIE_DOWN:
                return False
            self._target = REST
            duration_s = self.get_parameter("transition_s").value
            self._next_mode = (self._now_s + duration_s, int(_TARGETS[Api(api)]))
            return True
        return False

    def _step(self) -> None:
        now_s = time.monotonic()
        duration_s, self._now_s = min(0.1, now_s - self._now_s), now_s
        if self._next_mode is not None and now_s >= self._next_mode[0]:
            self._mode, self._next_mode = self._next_mode[1], None
        part = min(1.0, duration_s / _LAG_S)
        before, target = self._velocity, self._target
        self._velocity = Velocity(
            before.x + part * (target.x - before.x),
            before.y + part * (target.y - before.y),
            before.yaw + part * (target.yaw - before.yaw),
        )
        cos, sin = math.cos(self._yaw_rad), math.sin(self._yaw_rad)
        vx = cos * self._velocity.x - sin * self._velocity.y
        vy = sin * self._velocity.x + cos * self._velocity.y
        self._x_m += vx * duration_s
        self._y_m += vy * duration_s
        self._yaw_rad += self._velocity.yaw * duration_s
        if self.get_parameter("muted").value:
            return
        state = SportModeState(mode=int(self._mode), yaw_speed=self._velocity.yaw)
        state.position = [self._x_m, self._y_m, _HEIGHT_M]
        state.velocity = [vx, vy, 0.0]
        half = 0.5 * self._yaw_rad
        state.imu_state.quaternion = [math.cos(half), 0.0, 0.0, math.sin(half)]
        self._states.publish(state)
        if now_s - self._low_state_s >= _LOW_STATE_PERIOD_S:
            self._low_state_s = now_s
            low_state = LowState(power_v=29.0)
            low_state.bms_state.soc = self.get_parameter("state_of_charge").value
            low_state.bms_state.current = -1500
            self._low_states.publish(low_state)


def main() -> int:
    """Run the node."""
    return run_node(
        "go2_emulator",
        lambda _: Go2Emulator(),
        users=("go2_driver", "go2_stop_keeper"),
        goes_first=True,
    )


if __name__ == "__main__":
    sys.exit(main())
