"""Node `go2_stop_keeper`: stops a Go2 whose driver was killed or hangs.

It listens to the requests that the robot gets. When the last of them asks for a velocity and
nothing follows, it asks for a stop. It needs no word from the driver, so the driver cannot fail to
say one. It says what it has heard: a driver that it does not hear must not drive.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

from node_common.declared_parameters import declare_parameters
from node_common.parameters import NodeParameter
from node_common.running import run_node
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from unitree_api.msg import Request, RequestIdentity

from base_drivers.go2.sport_service import STOP_MOVE, Api, velocity_from_parameter
from base_drivers.go2_messages import HEARD_TOPIC, request_message
from base_drivers.velocity import STREAM_TIMEOUT_S

PARAMETERS: Final = (
    NodeParameter("timeout_s", STREAM_TIMEOUT_S, "a velocity is trusted for this long", 0.05, 1.0),
)
_CHECK_S: Final = 0.02
_REPEATS: Final = 10
_REALTIME_PRIORITY: Final = 10


class Go2StopKeeper(Node):
    """See the module's text."""

    def __init__(self, **node_arguments: Any) -> None:
        """Listen from now on.

        Raises:
            ValueError: a parameter is unknown, mistyped or out of range.
        """
        super().__init__("go2_stop_keeper", **node_arguments)
        declare_parameters(self, PARAMETERS)
        self._moved_s: float | None = None
        self._stops_left = 0
        self._requests = self.create_publisher(Request, "/api/sport/request", 10)
        self._heard = self.create_publisher(RequestIdentity, HEARD_TOPIC, 1)
        # Only the newest: a queue would make an old velocity look fresh.
        self.create_subscription(Request, "/api/sport/request", self._on_request, 1)
        self.create_timer(_CHECK_S, self._check, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_request(self, message: Request) -> None:
        self._heard.publish(message.header.identity)
        if message.header.identity.api_id != Api.MOVE:
            # Every other request ends a walk; this node's own stop, too.
            self._moved_s = None
            return
        velocity = velocity_from_parameter(message.parameter)
        moving = velocity is not None and not velocity.is_rest()
        self._moved_s = time.monotonic() if moving else None
        self._stops_left = 0

    def _check(self) -> None:
        timeout_s = self.get_parameter("timeout_s").value
        if self._moved_s is not None and time.monotonic() - self._moved_s > timeout_s:
            self.get_logger().warning("the driver fell silent while the robot walked: stopping it")
            self._moved_s, self._stops_left = None, _REPEATS
        if self._stops_left > 0:
            self._stops_left -= 1
            self._requests.publish(request_message(STOP_MOVE))


def main() -> int:
    """Run the node."""
    return run_node(
        "go2_stop_keeper",
        lambda _: Go2StopKeeper(),
        users=("go2_driver",),
        goes_first=True,
        realtime_priority=_REALTIME_PRIORITY,
    )


if __name__ == "__main__":
    sys.exit(main())
