"""Node `navigation_sim`: a mobile base with a camera in a procedural world, as a driver serves it.

See the README for topics, parameters and limits.
"""

from __future__ import annotations

import array
import math
import sys
from typing import Any

import numpy as np
from base_drivers.robot_config import RobotConfigError, load_robot
from base_drivers.velocity import STREAM_TIMEOUT_S
from builtin_interfaces.msg import Time as TimeMessage
from geometry_msgs.msg import Pose, Quaternion, TransformStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry
from node_common.declared_parameters import declare_parameters
from node_common.parameters import NodeParameter
from node_common.running import Ending, StartError, run_node
from node_common.topic_watch import TopicWatch
from numpy.typing import NDArray
from policy_interfaces.msg import BaseContacts, BaseSimStatus
from policy_interfaces.srv import ResetWorld
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, LaserScan
from tf2_msgs.msg import TFMessage

from robot_sim.navigation.base_loop import BaseLoop, BaseState
from robot_sim.navigation.base_simulation import BaseSimulation
from robot_sim.navigation.route import NoRoute, free_pose
from robot_sim.navigation.world import KINDS, World, WorldError, make_world

ODOMETRY_PERIOD_S = 1.0 / 30.0
STATUS_PERIOD_S = 0.05
SLOW_PERIOD_S = 0.1
"""Of the contacts, which are also sent when they change, and of the scan."""
SCAN_RAYS = 180
SCAN_RANGE_M = 8.0
_MAX_SEED = 2**31 - 1
_PARAMETERS = (
    NodeParameter("world", "indoor", "kind of world", choices=KINDS),
    NodeParameter("seed", 10000, "of the world; from 10000 on unseen in training", 0, _MAX_SEED),
    NodeParameter("robot", "locobot", "name in base_drivers' config/robots, or a YAML file"),
    NodeParameter("rtf", 1.0, "simulated seconds per second; not 1: /clock is sent", 0.1, 20.0),
    NodeParameter("camera_hz", 25.0, "pictures per simulated second", 1.0, 60.0),
    NodeParameter("image_width", 160, "of the pictures [pixels]", 32, 1280),
    NodeParameter("image_height", 120, "of the pictures [pixels]", 24, 960),
    NodeParameter("stamped", False, "take TwistStamped instead of Twist"),
    NodeParameter("scan", False, "publish scan"),
)


class NavigationSim(Node):
    """Simulated base, camera and judge."""

    def __init__(self, ending: Ending, **kwargs: Any) -> None:
        """Check the parameters, build the world and start.

        Args:
            ending: told when the simulation died, with the reason.
            kwargs: passed on to `rclpy.node.Node`.

        Raises:
            StartError: a parameter is wrong or the world cannot be drawn.
        """
        super().__init__("navigation_sim", **kwargs)
        values = declare_parameters(self, _PARAMETERS)
        self._simulated_clock = values["rtf"] != 1.0
        self._image_size = (values["image_width"], values["image_height"])
        self._seed = values["seed"]
        try:
            world = make_world(values["world"], values["seed"])
            robot = load_robot(values["robot"])
            pose = free_pose(world, values["seed"], robot.radius_m)
        except (RobotConfigError, WorldError, NoRoute) as error:
            raise StartError(str(error)) from error
        simulation = BaseSimulation(world, robot, values["seed"], self._image_size)
        simulation.reset(pose)
        self.loop = BaseLoop(
            simulation,
            values["rtf"],
            values["camera_hz"],
            self._publish_cycle,
            self._publish_image,
            ending.fail,
        )
        self._camera_info = _camera_info(self._image_size, robot.camera.horizontal_fov_rad)
        self._due = dict.fromkeys(("odometry", "status", "contacts", "scan"), 0.0)
        self._bumpers = (False, False, False)
        reliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._odometry = self.create_publisher(Odometry, "odom", reliable)
        self._transforms = self.create_publisher(TFMessage, "/tf", QoSProfile(depth=100))
        self._contacts = self.create_publisher(BaseContacts, "contacts", reliable)
        self._images = self.create_publisher(Image, "camera/image_raw", newest)
        self._camera_infos = self.create_publisher(CameraInfo, "camera/camera_info", newest)
        self._scans = self.create_publisher(LaserScan, "scan", newest) if values["scan"] else None
        self._statuses = self.create_publisher(BaseSimStatus, "/robot_sim/base_status", reliable)
        self._clock_messages = (
            self.create_publisher(Clock, "/clock", reliable) if self._simulated_clock else None
        )
        self.loop.start()
        if ending.failure:
            raise StartError(ending.failure)
        if values["stamped"]:
            commands = self.create_subscription(TwistStamped, "cmd_vel", self._on_stamped, newest)
        else:
            commands = self.create_subscription(Twist, "cmd_vel", self._on_twist, newest)
        self._watch = TopicWatch(self)
        hint = f"set the parameter stamped to {str(not values['stamped']).lower()}"
        self._watch.add(commands, hint, one_sender=True)
        self.create_timer(1.0, self._watch_commands)
        # Last: who finds the service takes it for ready to answer.
        self.create_service(ResetWorld, "/robot_sim/reset_world", self._serve_reset)
        self.get_logger().info(f"{_describe(world, robot.name)}, {values['rtf']:g} x real time")

    def destroy_node(self) -> None:
        """Stop the simulation before the publishers go."""
        if hasattr(self, "loop"):
            self.loop.stop()
        super().destroy_node()

    # Commands

    def _watch_commands(self) -> None:
        # The watch logs what it finds, once.
        self._watch.problems()

    def _on_stamped(self, message: TwistStamped) -> None:
        age_s = (self.get_clock().now() - Time.from_msg(message.header.stamp)).nanoseconds * 1e-9
        if not self._simulated_clock and abs(age_s) > STREAM_TIMEOUT_S:
            self.get_logger().warning(
                f"cmd_vel ignored: its stamp is {age_s:.2f} s old, expected less than "
                f"{STREAM_TIMEOUT_S} s",
                throttle_duration_sec=1.0,
            )
            return
        self._on_twist(message.twist)

    def _on_twist(self, message: Twist) -> None:
        command = (message.linear.x, message.linear.y, message.angular.z)
        if not all(map(math.isfinite, command)):
            self.get_logger().error(
                f"cmd_vel ignored: found {command}, expected finite numbers",
                throttle_duration_sec=1.0,
            )
            return
        self.loop.command(*command)

    def _serve_reset(
        self, q: ResetWorld.Request, answer: ResetWorld.Response
    ) -> ResetWorld.Response:
        old_world, old_robot = self.loop.world, self.loop.robot
        try:
            world = make_world(q.world or old_world.kind, q.seed, tuple(q.blocked))
            robot = load_robot(q.robot) if q.robot else old_robot
            if q.use_start:
                pose = (q.start.x, q.start.y, q.start.theta)
                row, column = world.cell(np.array(pose[:2]))
                if not np.isfinite(pose).all() or world.clearance_m[row, column] < robot.radius_m:
                    raise NoRoute(
                        f"found the start ({pose[0]:.2f}, {pose[1]:.2f}) m, expected a place with "
                        f"{robot.radius_m:.2f} m of room around it"
                    )
            else:
                pose = free_pose(world, q.seed, robot.radius_m)
            simulation = None
            if world is not old_world or robot != old_robot:
                simulation = BaseSimulation(world, robot, q.seed, self._image_size)
        except (RobotConfigError, WorldError, NoRoute) as error:
            answer.success, answer.message = False, str(error)
            self.get_logger().error(f"reset_world refused: {error}")
            return answer
        self._camera_info = _camera_info(self._image_size, robot.camera.horizontal_fov_rad)
        self.loop.reset(pose, simulation)
        answer.success, answer.message = True, _describe(world, robot.name)
        return answer

    # Publishing, in the loop's threads

    def _stamp(self, state: BaseState) -> TimeMessage:
        """Simulated time with a simulated clock, else the system time of that moment."""
        ns = round(state.time_s * 1e9) if self._simulated_clock else state.wall_ns
        return TimeMessage(sec=ns // 10**9, nanosec=ns % 10**9)

    def _is_due(self, name: str, period_s: float, time_s: float) -> bool:
        if time_s < self._due[name] - 1e-9:
            return False
        self._due[name] = max(self._due[name] + period_s, time_s)
        return True

    def _publish_cycle(self, state: BaseState) -> None:
        stamp = self._stamp(state)
        if self._clock_messages is not None:
            self._clock_messages.publish(Clock(clock=stamp))
        if self._is_due("odometry", ODOMETRY_PERIOD_S, state.time_s):
            self._publish_odometry(state, stamp)
        if self._is_due("status", STATUS_PERIOD_S, state.time_s):
            self._publish_status(state, stamp)
        bumpers = _bumpers(state)
        due = self._is_due("contacts", SLOW_PERIOD_S, state.time_s)
        if due or bumpers != self._bumpers:
            self._bumpers = bumpers
            message = BaseContacts()
            message.header.stamp, message.header.frame_id = stamp, "base_link"
            message.bumper_left, message.bumper_center, message.bumper_right = bumpers
            self._contacts.publish(message)
        if self._scans is not None and self._is_due("scan", SLOW_PERIOD_S, state.time_s):
            self._publish_scan(stamp)

    def _publish_odometry(self, state: BaseState, stamp: TimeMessage) -> None:
        x, y, yaw = state.odometry.pose
        v, vy, w = state.odometry.velocity
        message = Odometry()
        message.header.stamp, message.header.frame_id = stamp, "odom"
        message.child_frame_id = "base_link"
        message.pose.pose = _pose(x, y, yaw)
        message.twist.twist.linear.x, message.twist.twist.linear.y = v, vy
        message.twist.twist.angular.z = w
        self._odometry.publish(message)
        transform = TransformStamped(header=message.header, child_frame_id="base_link")
        transform.transform.translation.x, transform.transform.translation.y = x, y
        transform.transform.rotation = message.pose.pose.orientation
        self._transforms.publish(TFMessage(transforms=[transform]))

    def _publish_status(self, state: BaseState, stamp: TimeMessage) -> None:
        message = BaseSimStatus()
        message.header.stamp, message.header.frame_id = stamp, "world"
        message.episode = state.episode
        message.world_seed, message.robot = self.loop.world.seed, self.loop.robot.name
        message.pose = _pose(*state.pose)
        message.in_contact, message.collisions = state.in_contact, state.collisions
        message.distance_m = state.distance_m
        self._statuses.publish(message)

    def _publish_scan(self, stamp: TimeMessage) -> None:
        assert self._scans is not None
        angles = np.arange(SCAN_RAYS, dtype=np.float64) * (2 * math.pi / SCAN_RAYS) - math.pi
        message = LaserScan()
        message.header.stamp, message.header.frame_id = stamp, "base_link"
        message.angle_min, message.angle_max = float(angles[0]), float(angles[-1])
        message.angle_increment = 2 * math.pi / SCAN_RAYS
        message.scan_time = SLOW_PERIOD_S
        message.range_min, message.range_max = 0.05, SCAN_RANGE_M
        message.ranges = array.array("f", self.loop.scan(angles, SCAN_RANGE_M))
        self._scans.publish(message)

    def _publish_image(self, state: BaseState, pixels: NDArray[np.uint8]) -> None:
        message = Image()
        message.header.stamp, message.header.frame_id = self._stamp(state), "camera"
        message.height, message.width = pixels.shape[:2]
        message.encoding = "rgb8"
        message.step = 3 * message.width
        # rclpy copies anything but an array.array element by element.
        message.data = array.array("B", pixels.tobytes())
        self._images.publish(message)
        self._camera_info.header = message.header
        self._camera_infos.publish(self._camera_info)


def _bumpers(state: BaseState) -> tuple[bool, bool, bool]:
    """Left, centre and right third of the front half."""
    angles = state.contact_angles_rad
    return (
        any(0.5 < a < 1.7 for a in angles),
        any(abs(a) <= 0.5 for a in angles),
        any(-1.7 < a < -0.5 for a in angles),
    )


def _pose(x: float, y: float, yaw: float) -> Pose:
    pose = Pose()
    pose.position.x, pose.position.y = x, y
    pose.orientation = Quaternion(z=math.sin(yaw / 2), w=math.cos(yaw / 2))
    return pose


def _describe(world: World, robot: str) -> str:
    text = f"{robot} in {world.kind} world {world.seed} with {len(world.openings)} openings"
    return f"{text}, blocked {list(world.blocked)}" if world.blocked else text


def _camera_info(size: tuple[int, int], horizontal_fov_rad: float) -> CameraInfo:
    """Pinhole camera without distortion."""
    width, height = size
    focal = 0.5 * width / math.tan(horizontal_fov_rad / 2)
    cx, cy = (width - 1) / 2, (height - 1) / 2
    info = CameraInfo(width=width, height=height, distortion_model="plumb_bob")
    info.d = [0.0] * 5
    info.k = [focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted or the simulation died; return the exit status."""
    return run_node(
        "navigation_sim",
        NavigationSim,
        arguments=arguments,
        users=("cmd_vel_guard",),
    )


if __name__ == "__main__":
    sys.exit(main())
