"""Receives what may not wait: commands and requests to stop.

In a node and a thread of their own, because a service such as a reboot takes seconds. The executor
waits for events; one that asks every entity about every message takes longer for it than everything
else on a command's way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from interbotix_xs_msgs.msg import (
    JointGroupCommand,
    JointSingleCommand,
    JointTrajectoryCommand,
)
from node_common.realtime import request_realtime
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from widowx_control.xs_driver.driver import XsDriver
from widowx_control.xs_driver.driver_types import SHOWN_CHARACTERS, CommandRefused

_STOP_TIMEOUT_S: Final = 1.0
"""A stop waits for one packet and its answer, many times over on a noisy line."""
_QOS: Final = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


class CommandNode(Node):
    """Node `xs_driver_commands`: the three command topics, and `xs_driver/stop`.

    Args:
        driver: gets the commands.
        realtime_priority: of the thread that receives, where the system allows it; 0: none.
    """

    def __init__(self, driver: XsDriver, realtime_priority: int, **kwargs: Any) -> None:
        """Subscribe; `start` begins to receive."""
        name = "xs_driver_commands"
        super().__init__(
            name,
            # A launch file that names the driver's node names every node of the process.
            cli_args=["--ros-args", "-r", f"__node:={name}"],
            start_parameter_services=False,
            enable_rosout=True,
            **kwargs,
        )
        self._driver = driver
        self._realtime_priority = realtime_priority
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        subscriptions: tuple[tuple[type, str, Callable[[Any], None]], ...] = (
            (JointGroupCommand, "commands/joint_group", self._on_group),
            (JointSingleCommand, "commands/joint_single", self._on_single),
            (JointTrajectoryCommand, "commands/joint_trajectory", self._on_trajectory),
        )
        for kind, topic, callback in subscriptions:
            self.create_subscription(kind, topic, self._guarded(topic, callback), _QOS)
        self.create_service(Trigger, "xs_driver/stop", self._on_stop)
        self._executor = EventsExecutor(context=self.context)
        self._executor.add_node(self)

    def start(self) -> None:
        """Receive, in a thread of its own."""
        self._thread = threading.Thread(target=self._spin, name="xs_driver_commands", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Receive nothing any more, and end."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._executor.shutdown()
        self.destroy_node()

    def _spin(self) -> None:
        # What is not allowed, the bus thread has reported.
        request_realtime(self._realtime_priority)
        # Its spin() does not sleep between events in rclpy 9.1, which at this priority would starve
        # the machine.
        while not self._stopping.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def _guarded(self, topic: str, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        def receive(message: Any) -> None:
            try:
                callback(message)
            except CommandRefused as refusal:
                text = str(refusal)[:SHOWN_CHARACTERS]
                self.get_logger().warning(f"{topic}: refused: {text}", throttle_duration_sec=1.0)

        return receive

    def _on_group(self, message: JointGroupCommand) -> None:
        self._driver.command("group", message.name, list(message.cmd))

    def _on_single(self, message: JointSingleCommand) -> None:
        self._driver.command("single", message.name, [message.cmd])

    def _on_trajectory(self, message: JointTrajectoryCommand) -> None:
        self._driver.command_trajectory(
            message.cmd_type, message.name, message.traj.joint_names, _points(message.traj)
        )

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            self._driver.halt("stop was requested").result(timeout=_STOP_TIMEOUT_S)
            response.success, response.message = True, "stopped"
        except TimeoutError:
            response.message = f"not stopped within {_STOP_TIMEOUT_S} s; the bus is busy"
        return response


def _points(trajectory: JointTrajectory) -> dict[str, list[tuple[float, list[float]]]]:
    """Return (time in s, values) of each point for positions, velocities and effort."""
    points: dict[str, list[tuple[float, list[float]]]] = {
        "positions": [],
        "velocities": [],
        "effort": [],
    }
    for point in trajectory.points:
        stamp = point.time_from_start
        time_s = stamp.sec + stamp.nanosec * 1e-9
        for kind, values in points.items():
            values.append((time_s, list(getattr(point, kind))))
    return points
