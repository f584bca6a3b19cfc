"""The path follower: drives along the navigator's path, and stops when there is none."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
from base_drivers.robot_config import CONTROLLERS, load_robot, robot_names
from base_drivers.velocity import REST, STREAM_TIMEOUT_S, Velocity
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry, Path
from node_common.diagnostics import OK, WARN
from node_common.managed_node import ManagedNode
from node_common.pacing import stalled_clock_message
from node_common.parameters import NodeParameter
from node_common.running import run_node
from policy_interfaces.msg import BaseContacts
from rclpy.qos import QoSProfile, ReliabilityPolicy

from gnm_nav.odometry_gate import OdometryGate
from gnm_nav.path_follower import (
    FollowerOutput,
    FollowerSettings,
    FollowerState,
    PathError,
    PathFollower,
)
from gnm_nav.planar_pose import odometry_pose, yaw_of

PATH_FRAME = "base_link"
RATE_HZ = 50.0
_STALLED_CLOCK_S = 0.2
_CLOCK_STEP_S = 0.02
"""Zero is sent when a simulated clock moves on by less than this in `_STALLED_CLOCK_S`."""
_MAX_PERIOD_S = 0.1
"""An update after a pause must not make up for all of it at once."""
_TOLD_S = 2.0

PARAMETERS = (
    NodeParameter(
        "robot",
        "locobot",
        f"The robot: one of {list(robot_names())}, or the path of a YAML file",
        structural=True,
    ),
    NodeParameter(
        "controller",
        "robot",
        "How to follow; robot: as the robot's file says",
        choices=("robot", *CONTROLLERS),
        structural=True,
    ),
    NodeParameter(
        "waypoint_index",
        -1,
        "0-based index of the waypoint that is driven to; -1: as the robot's file says",
        -1,
        31,
        structural=True,
    ),
    NodeParameter(
        "stamped",
        "robot",
        "Publish TwistStamped (true) or Twist (false); robot: as the robot's file says",
        choices=("robot", "true", "false"),
        structural=True,
    ),
    NodeParameter(
        "angular_time_s",
        0.5,
        "Time in which the PD controller wants to look towards its waypoint",
        0.1,
        5.0,
        structural=True,
    ),
    NodeParameter(
        "path_timeout_s",
        0.9,
        "Largest age of the image behind a path, by its stamp",
        0.1,
        5.0,
        structural=True,
    ),
    NodeParameter(
        "silence_timeout_s",
        STREAM_TIMEOUT_S,
        "Largest real time without a message on `waypoints`; slower from the half on",
        0.05,
        2.0,
        structural=True,
    ),
    NodeParameter(
        "back_off_m",
        0.1,
        "How far the robot drives back from what its bumper touches; 0: not at all",
        0.0,
        0.3,
        structural=True,
    ),
    NodeParameter(
        "odometry_timeout_s",
        0.3,
        "Largest age of odometry that is still used to move the path",
        0.01,
        2.0,
        structural=True,
    ),
)


class PathFollowerNode(ManagedNode):
    """Lifecycle node `path_follower`. See the package's README for its graph interface."""

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("path_follower", PARAMETERS, part="path follower", **node_arguments)
        self._follower: PathFollower | None = None
        self._stamped = False
        self._said = FollowerState.QUIET
        self._refused: Counter[str] = Counter()
        self._refusal = ("", -math.inf)
        self._odometry = OdometryGate()
        self._output: FollowerOutput | None = None
        self._commands: Any = None
        self._last_update_s: float | None = None
        self._clock_seen = (-math.inf, 0.0)
        self._clock_stands = False

    # --- lifecycle -------------------------------------------------------------------------

    def configure(self, values: dict[str, Any]) -> None:
        """Read the robot's file and make the topics."""
        robot = load_robot(values["robot"])
        controller, index, stamped = (
            values[name] for name in ("controller", "waypoint_index", "stamped")
        )
        self._stamped = robot.stamped if stamped == "robot" else stamped == "true"
        self._follower = PathFollower(
            robot,
            FollowerSettings(
                controller=robot.drive.controller if controller == "robot" else controller,
                waypoint_index=robot.drive.waypoint_index if index < 0 else index,
                angular_time_s=values["angular_time_s"],
                path_timeout_s=values["path_timeout_s"],
                silence_timeout_s=values["silence_timeout_s"],
                odometry_timeout_s=values["odometry_timeout_s"],
                back_off_m=values["back_off_m"],
            ),
        )
        watch = self.watch
        self._commands = watch.add_output(
            self.hold(
                self.create_lifecycle_publisher(
                    TwistStamped if self._stamped else Twist, "cmd_vel_nav", 1
                )
            )
        )
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        several = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        # Best effort hears senders of both kinds; a path comes again and again.
        for kind, topic, on_message, qos, one_sender in (
            (Path, "waypoints", self._on_path, newest, True),
            (Odometry, "odom", self._on_odometry, newest, True),
            (BaseContacts, "contacts", self._on_contacts, several, False),
        ):
            subscription = self.create_subscription(kind, topic, on_message, qos)
            self.hold(watch.add(subscription, one_sender=one_sender))

    def activate(self) -> None:
        """Start without a path; nothing is commanded before one arrives."""
        assert self._follower is not None
        self.check_no_contradiction("cmd_vel_nav")
        self._follower.reset()
        self._refused.clear()
        self._refusal = ("", -math.inf)
        self._odometry.reset()
        self._said = FollowerState.QUIET
        self._last_update_s = None
        self._clock_seen = (-math.inf, 0.0)
        self._clock_stands = False
        self.hold(self.create_timer(1.0 / RATE_HZ, self._update, clock=self.steady_clock))

    def rest(self, reason: str) -> None:
        """Send zero once; the guard behind sees silence then."""
        self._publish(REST)

    def release(self) -> None:
        """Forget the robot."""
        self._commands = self._follower = None

    # --- driving ---------------------------------------------------------------------------

    def _on_path(self, message: Path) -> None:
        if self._follower is None or not self.active or self._clock_stands:
            return
        frame = message.header.frame_id
        if message.poses and frame != PATH_FRAME:
            self._drop("frame", f'found a path in the frame "{frame}", expected "{PATH_FRAME}"')
            return
        poses = [pose.pose for pose in message.poses]
        waypoints = np.array(
            [[pose.position.x, pose.position.y, yaw_of(pose.orientation)] for pose in poses]
        ).reshape(-1, 3)
        stamp = message.header.stamp
        try:
            self._follower.set_path(
                waypoints, stamp.sec + stamp.nanosec * 1e-9, self._now_s(), time.monotonic()
            )
        except PathError as error:
            self._drop(error.code, str(error))
            return
        if not message.poses:
            # At once, not at the next update.
            self._send(self._follower.update(self._now_s(), time.monotonic(), 0.0))

    def _drop(self, code: str, message: str) -> None:
        self._refused[code] += 1
        self._refusal = (f"path refused: {message}", time.monotonic())
        self.get_logger().error(f"path refused: {message}", throttle_duration_sec=5.0)

    def _on_odometry(self, message: Odometry) -> None:
        if self._follower is None:
            return
        pose = odometry_pose(message)
        if self._odometry.accept(pose, self._now_s(), time.monotonic()):
            self._follower.add_odometry(*pose)

    def _on_contacts(self, message: BaseContacts) -> None:
        if self._follower is None or not self.active:
            return
        # Away from an edge backwards as well; a lifted base does not drive at all.
        touches = (
            message.bumper_left
            or message.bumper_center
            or message.bumper_right
            or message.cliff_left
            or message.cliff_center
            or message.cliff_right
        )
        lifted = message.wheel_drop_left or message.wheel_drop_right
        self._follower.touch(touches and not lifted, time.monotonic())

    def _update(self) -> None:
        if self._follower is None or not self.active:
            return
        now_s, steady_s = self._now_s(), time.monotonic()
        last_s = now_s if self._last_update_s is None else self._last_update_s
        self._last_update_s = now_s
        # A clock that creeps is as bad as one that stands: by it no path grows old.
        if not 0.0 <= now_s - self._clock_seen[0] < _CLOCK_STEP_S:
            self._clock_seen = (now_s, steady_s)
        self._clock_stands = steady_s - self._clock_seen[1] > _STALLED_CLOCK_S
        if self._clock_stands:
            self._follower.stop(stalled_clock_message(now_s), steady_s)
        period_s = min(max(now_s - last_s, 0.0), _MAX_PERIOD_S)
        self._send(self._follower.update(now_s, steady_s, period_s))

    def _send(self, output: FollowerOutput) -> None:
        self._output = output
        if output.state is not self._said:
            if output.state is FollowerState.STOPPING:
                log = self.get_logger().info if "asked" in output.reason else self._warn
                log(f"stopping: {output.reason}")
            self._said = output.state
            self.report()
        if output.velocity is not None:
            self._publish(output.velocity)

    def _warn(self, message: str) -> None:
        self.get_logger().warning(message)

    def _publish(self, velocity: Velocity) -> None:
        twist = Twist()
        twist.linear.x = velocity.x
        twist.linear.y = velocity.y
        twist.angular.z = velocity.yaw
        if not self._stamped:
            self._commands.publish(twist)
            return
        stamped = TwistStamped(twist=twist)
        stamped.header.stamp = self.get_clock().now().to_msg()
        stamped.header.frame_id = PATH_FRAME
        self._commands.publish(stamped)

    def _now_s(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    # --- status ----------------------------------------------------------------------------

    def find_problems(self) -> list[str]:
        """Inputs and outputs, paths that are refused, and odometry."""
        if not self.active:
            return []
        problems = self.watch.problems()
        refusal, refused_s = self._refusal
        if time.monotonic() - refused_s < _TOLD_S:
            problems.append(refusal)
        if problem := self._odometry.problem(time.monotonic()):
            self.get_logger().warning(problem, throttle_duration_sec=10.0)
            problems.append(problem)
        return problems

    def report(self) -> None:
        """Publish the diagnostics."""
        follower, output = self._follower, self._output
        level, message = OK, "unconfigured"
        values: dict[str, object] = {}
        if follower is not None:
            message = "inactive"
            values |= {
                "robot": follower.robot.name,
                "controller": follower.settings.controller,
            }
            if self.active:
                message = output.state.value if output else "quiet"
                if output is not None and output.state is FollowerState.STOPPING:
                    message = f"stopping: {output.reason}"
                    if "asked" not in output.reason:
                        level = WARN
                values["odometry_used"] = bool(output and output.compensated)
                values |= {f"odometry_refused_{c}": n for c, n in self._odometry.refused.items()}
            values |= {f"paths_refused_{code}": n for code, n in sorted(self._refused.items())}
        self.publish_health(level, message, values, hardware_id=self.get_parameter("robot").value)


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is shut down; return the exit status."""
    return run_node(
        "path_follower",
        lambda _: PathFollowerNode(),
        arguments=arguments,
        on_end=lambda node: node.come_to_rest("the node was interrupted"),
        switches_quickly=True,
    )


if __name__ == "__main__":
    sys.exit(main())
