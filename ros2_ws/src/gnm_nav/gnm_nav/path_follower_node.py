"""The path follower: drives along the navigator's path, and stops when there is none."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
from base_drivers.robot_config import CONTROLLERS, RobotConfigError, load_robot, robot_names
from base_drivers.velocity import REST, STREAM_TIMEOUT_S, Velocity
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry, Path
from node_common.declared_parameters import check_change, declare_parameters
from node_common.diagnostics import ERROR, OK, WARN, Diagnostics
from node_common.pacing import stalled_clock_message
from node_common.parameters import NodeParameter
from node_common.running import run_node
from node_common.topic_watch import TopicWatch
from policy_interfaces.msg import BaseContacts
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
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


class PathFollowerNode(LifecycleNode):
    """Lifecycle node `path_follower`. See the package's README for its graph interface."""

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("path_follower", **node_arguments)
        declare_parameters(self, PARAMETERS)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._follower: PathFollower | None = None
        self._stamped = False
        self._active = False
        self._fault = ""
        self._said = FollowerState.QUIET
        self._refused: Counter[str] = Counter()
        self._refusal = ("", -math.inf)
        self._odometry = OdometryGate()
        self._watch = TopicWatch(self)
        self._problems: list[str] = []
        self._output: FollowerOutput | None = None
        self._commands: Any = None
        self._entities: list[Any] = []
        self._last_update_s: float | None = None
        self._clock_seen = (-math.inf, 0.0)
        self._clock_stands = False
        self._diagnostics = Diagnostics(self, "path follower")
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._watch_inputs, clock=steady)

    # --- lifecycle -------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the robot's file; refused with the reason in log and diagnostics."""
        try:
            robot = load_robot(self._parameter("robot"))
        except (RobotConfigError, ValueError) as error:
            return self._refuse(f"configure refused: {error}")
        controller = self._parameter("controller")
        index = self._parameter("waypoint_index")
        stamped = self._parameter("stamped")
        self._stamped = robot.stamped if stamped == "robot" else stamped == "true"
        self._follower = PathFollower(
            robot,
            FollowerSettings(
                controller=robot.drive.controller if controller == "robot" else controller,
                waypoint_index=robot.drive.waypoint_index if index < 0 else index,
                angular_time_s=self._parameter("angular_time_s"),
                path_timeout_s=self._parameter("path_timeout_s"),
                silence_timeout_s=self._parameter("silence_timeout_s"),
                odometry_timeout_s=self._parameter("odometry_timeout_s"),
                back_off_m=self._parameter("back_off_m"),
            ),
        )
        self._commands = self.create_lifecycle_publisher(
            TwistStamped if self._stamped else Twist, "cmd_vel_nav", 1
        )
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        several = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        watch = self._watch
        watch.add_output(self._commands)
        # Best effort hears senders of both kinds; a path comes again and again.
        self._entities = [
            watch.add(
                self.create_subscription(Path, "waypoints", self._on_path, newest), one_sender=True
            ),
            watch.add(
                self.create_subscription(Odometry, "odom", self._on_odometry, newest),
                one_sender=True,
            ),
            watch.add(
                self.create_subscription(BaseContacts, "contacts", self._on_contacts, several)
            ),
        ]
        self._report("")
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start without a path; nothing is commanded before one arrives."""
        assert self._follower is not None
        others = [
            f"{end.node_namespace.rstrip('/')}/{end.node_name}"
            for end in self.get_publishers_info_by_topic(self._commands.topic_name)
            if (end.node_name, end.node_namespace) != (self.get_name(), self.get_namespace())
        ]
        if others:
            return self._refuse(
                f"activate refused: found {', '.join(others)} publishing "
                f"{self._commands.topic_name} too, expected one source of commands"
            )
        self._follower.reset()
        self._refused.clear()
        self._refusal = ("", -math.inf)
        self._odometry.reset()
        self._said = FollowerState.QUIET
        self._last_update_s = None
        self._clock_seen = (-math.inf, 0.0)
        self._clock_stands = False
        result = super().on_activate(state)
        self._active = True
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._entities += [
            self.create_timer(1.0 / RATE_HZ, self._update, clock=steady),
        ]
        self._report("")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Send zero once; the guard behind sees silence then."""
        self.stop_driving()
        self.destroy_timer(self._entities.pop())
        result = super().on_deactivate(state)
        self._report("")
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Send zero if active, and stop listening."""
        self.stop_driving()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def stop_driving(self) -> None:
        """Send zero and send nothing more, if the node is active."""
        if self._active:
            self._publish(REST)
        self._active = False

    def _release(self) -> None:
        for entity in self._entities:
            destroy = self.destroy_timer if hasattr(entity, "reset") else self.destroy_subscription
            destroy(entity)
        self._entities = []
        self._watch.clear()
        self._problems = []
        if self._commands is not None:
            self.destroy_publisher(self._commands)
            self._commands = None
        self._follower = None

    def _refuse(self, message: str) -> TransitionCallbackReturn:
        self._report(message)
        return TransitionCallbackReturn.FAILURE

    def _parameter(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _on_set_parameters(self, changes: list[Parameter[Any]]) -> Any:
        return check_change(PARAMETERS, changes, configured=self._follower is not None)

    # --- driving ---------------------------------------------------------------------------

    def _on_path(self, message: Path) -> None:
        if self._follower is None or not self._active or self._clock_stands:
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
        if self._follower is None or not self._active:
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
        if self._follower is None or not self._active:
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
            self._publish_diagnostics()
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

    def _watch_inputs(self) -> None:
        problems = self._watch.problems() if self._active else []
        steady_s = time.monotonic()
        if self._active:
            refusal, refused_s = self._refusal
            refusals = [refusal] if steady_s - refused_s < _TOLD_S else []
            if problem := self._odometry.problem(steady_s):
                self.get_logger().warning(problem, throttle_duration_sec=10.0)
                refusals.append(problem)
            problems += refusals
        self._problems = problems
        self._publish_diagnostics()

    def _report(self, fault: str) -> None:
        self._fault = fault
        if fault:
            self.get_logger().error(fault)
        self._publish_diagnostics()

    def _publish_diagnostics(self) -> None:
        follower, output = self._follower, self._output
        level, message = OK, "unconfigured"
        values: dict[str, object] = {}
        if follower is not None:
            message = "inactive"
            values |= {
                "robot": follower.robot.name,
                "controller": follower.settings.controller,
            }
            if self._active:
                message = output.state.value if output else "quiet"
                if output is not None and output.state is FollowerState.STOPPING:
                    message = f"stopping: {output.reason}"
                    if "asked" not in output.reason:
                        level = WARN
                if self._problems:
                    level = max(level, WARN)
                    message = "; ".join([message, *(p for p in self._problems if p not in message)])
                values["odometry_used"] = bool(output and output.compensated)
                values |= {f"odometry_refused_{c}": n for c, n in self._odometry.refused.items()}
            values |= {f"paths_refused_{code}": n for code, n in sorted(self._refused.items())}
        if self._fault:
            level, message = ERROR, self._fault
        self._diagnostics.publish(level, message, values, hardware_id=self._parameter("robot"))


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is shut down; return the exit status."""
    return run_node(
        "path_follower",
        lambda _: PathFollowerNode(),
        arguments=arguments,
        on_end=lambda node: node.stop_driving(),
    )


if __name__ == "__main__":
    sys.exit(main())
