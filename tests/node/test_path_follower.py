"""The path follower's node through its topics, in its own process."""

import itertools
import math
import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry, Path
from node_rig import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, NodeRig, wait_until
from rclpy.clock import Clock
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock as ClockMessage

pytestmark = pytest.mark.alone


def make_path(stamp_ns, waypoints, frame="base_link"):
    path = Path()
    path.header.frame_id = frame
    path.header.stamp.sec, path.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    for x, y, yaw in waypoints:
        pose = PoseStamped(header=path.header)
        pose.pose.position.x, pose.pose.position.y = float(x), float(y)
        pose.pose.orientation.z, pose.pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
        path.poses.append(pose)
    return path


def straight(spacing=0.1, bearing=0.0):
    return [
        (k * spacing * math.cos(bearing), k * spacing * math.sin(bearing), bearing)
        for k in range(1, 6)
    ]


class Around(Node):
    """A navigator that repeats its path at 50 Hz, and a base that listens."""

    def __init__(self, context, command_type=Twist, clock_rate=None):
        super().__init__("around", context=context, use_global_arguments=False)
        self.waypoints = None
        self.frame = "base_link"
        self.stamp_offset_s = 0.0
        self.odometry = None
        self.odometry_offset_s = 0.0
        self.clock_rate = clock_rate
        self.clock_s = 10.0
        self.commands = []  # (receive time [s], message)
        self.diagnostics = []
        self.create_subscription(
            command_type,
            "cmd_vel_nav",
            lambda message: self.commands.append((time.monotonic(), message)),
            50,
        )
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self.paths = self.create_publisher(Path, "waypoints", 1)
        self.odometry_publisher = self.create_publisher(Odometry, "odom", 1)
        self.create_timer(0.02, self._send)
        if clock_rate:
            self.clock_publisher = self.create_publisher(ClockMessage, "/clock", 10)
            self.create_timer(0.01, self._send_clock)

    def now_ns(self):
        return round(self.clock_s * 1e9) if self.clock_rate else Clock().now().nanoseconds

    def _send(self):
        stamp_ns = self.now_ns() + round(self.stamp_offset_s * 1e9)
        if self.odometry is not None:
            message = Odometry()
            odometry_ns = self.now_ns() + round(self.odometry_offset_s * 1e9)
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(odometry_ns, 10**9)
            x, y, yaw = self.odometry
            message.pose.pose.position.x, message.pose.pose.position.y = x, y
            message.pose.pose.orientation.z = math.sin(yaw / 2)
            message.pose.pose.orientation.w = math.cos(yaw / 2)
            self.odometry_publisher.publish(message)
        if self.waypoints is not None:
            self.paths.publish(make_path(stamp_ns, self.waypoints, self.frame))

    def _send_clock(self):
        self.clock_s += 0.01 * self.clock_rate
        message = ClockMessage()
        message.clock.sec, message.clock.nanosec = divmod(self.now_ns(), 10**9)
        self.clock_publisher.publish(message)

    def _on_diagnostics(self, message):
        self.diagnostics += message.status

    def twist(self):
        message = self.commands[-1][1] if self.commands else Twist()
        return message.twist if isinstance(message, TwistStamped) else message

    def speed(self):
        return self.twist().linear.x


@pytest.fixture
def make_rig(free_domain, monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rigs = []

    def make(command_type=Twist, clock_rate=None, **parameters):
        if clock_rate:
            parameters["use_sim_time"] = "true"
        rigs.append(
            NodeRig(
                free_domain,
                "gnm_nav.path_follower_node",
                "path_follower",
                lambda context: Around(context, command_type, clock_rate),
                **parameters,
            )
        )
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


def stop_time_s(around, since_s):
    """From `since_s` until the first zero after it, nothing else following."""
    assert wait_until(lambda: around.commands[-1][0] > since_s and around.speed() == 0.0, 2.0)
    after = [(t, m) for t, m in around.commands if t >= since_s]
    moving = [t for t, m in after if m != type(m)()]
    return (moving[-1] if moving else since_s) - since_s


def test_drives_along_the_path_and_stops_on_silence(make_rig):
    rig = make_rig(robot="locobot")
    around = rig.around
    around.waypoints = straight()
    rig.activate()
    assert wait_until(lambda: around.speed() > 0.35)
    assert around.twist().angular.z == pytest.approx(0.0, abs=1e-6)
    speeds = [message.linear.x for _, message in around.commands]
    steps = [b - a for a, b in itertools.pairwise(speeds)]
    assert max(steps) < 0.11, "faster than 1 m/s²"
    around.waypoints = None
    silent_s = time.monotonic()
    assert stop_time_s(around, silent_s) <= 0.3
    assert wait_until(lambda: time.monotonic() - around.commands[-1][0] > 1.0, 5.0), "not quiet"
    assert wait_until(lambda: any("no path for" in d.message for d in around.diagnostics))
    # It goes on as soon as paths come again.
    around.waypoints = straight()
    assert wait_until(lambda: around.speed() > 0.3)
    assert rig.transition(DEACTIVATE)
    assert wait_until(lambda: around.speed() == 0.0)
    assert rig.transition(CLEANUP)
    assert rig.transition(CONFIGURE)
    assert rig.transition(ACTIVATE)
    assert wait_until(lambda: around.speed() > 0.3)
    assert "Traceback" not in rig.output()
    assert rig.process.returncode == 0
    assert around.speed() == 0.0, "an ended follower leaves the base driving"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"stamp_offset_s": -2.0}, "stale"),
        ({"stamp_offset_s": 1.0}, "future"),
        ({"frame": "odom"}, "frame"),
        ({"waypoints": [(math.nan, 0.0, 0.0)] * 5}, "not_finite"),
    ],
)
def test_bad_paths_are_refused_counted_and_stop_the_robot(make_rig, change, code):
    rig = make_rig()
    around = rig.around
    around.waypoints = straight()
    rig.activate()
    assert wait_until(lambda: around.speed() > 0.2)
    for name, value in change.items():
        setattr(around, name, value)
    assert stop_time_s(around, time.monotonic()) <= 0.35
    counted = f"paths_refused_{code}"
    assert wait_until(
        lambda: any(
            v.key == counted and int(v.value) > 0 for d in around.diagnostics for v in d.values
        )
    )
    assert rig.process.poll() is None


def told(around, *texts):
    """Whether a warning in /diagnostics says all this."""
    last = around.diagnostics[-1] if around.diagnostics else None
    return last is not None and last.level != last.OK and all(t in last.message for t in texts)


def test_best_effort_paths_are_followed_and_what_cannot_be_heard_is_told(make_rig):
    rig = make_rig()
    around = rig.around
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    around.destroy_publisher(around.paths)
    around.paths = around.create_publisher(Path, "waypoints", best_effort)
    around.waypoints = straight()
    rig.activate()
    assert wait_until(lambda: around.speed() > 0.2)
    around.odometry, around.odometry_offset_s = (0.0, 0.0, 0.0), 50.0
    assert wait_until(lambda: told(around, "odometry is not used", "ahead of the clock"))
    around.odometry_offset_s = 0.0
    around.odometry = (math.nan, 0.0, 0.0)
    assert wait_until(lambda: told(around, "odometry is not used", "no number"))
    around.odometry = None
    around.frame = "odom"
    assert wait_until(lambda: told(around, 'path refused: found a path in the frame "odom"'))
    around.create_publisher(Path, "waypoints", 1)
    assert wait_until(lambda: told(around, "/waypoints has 2 senders", "/around"))


def test_two_senders_of_odometry_are_told(make_rig):
    rig = make_rig()
    rig.activate()
    rig.around.create_publisher(Odometry, "odom", 1)
    assert wait_until(lambda: told(rig.around, "/odom has 2 senders"))


def test_an_empty_path_stops_at_once(make_rig):
    rig = make_rig()
    around = rig.around
    around.waypoints = straight()
    rig.activate()
    assert wait_until(lambda: around.speed() > 0.3)
    around.waypoints = []
    assert stop_time_s(around, time.monotonic()) <= 0.25


def test_odometry_since_the_image_counts(make_rig):
    rig = make_rig(path_timeout_s=5.0)
    around = rig.around
    around.odometry = (3.0, 1.0, 2.0)
    around.waypoints = straight(bearing=0.5)
    rig.activate()
    assert wait_until(lambda: len(around.commands) > 40 and around.twist().angular.z > 0.5)
    # Images stay those of now - 1 s, while the robot has turned by then.
    around.stamp_offset_s = -1.0
    turned_s = time.monotonic()
    around.odometry = (3.0, 1.0, 2.5)
    assert wait_until(
        lambda: any(
            t - turned_s < 0.9 and abs(m.angular.z) < 0.05
            for t, m in around.commands
            if t > turned_s
        ),
        3.0,
    )


def test_a_robot_that_wants_stamps_gets_them(make_rig):
    rig = make_rig(TwistStamped, robot="turtlebot4")
    around = rig.around
    around.waypoints = straight(spacing=0.075)
    rig.activate()
    assert wait_until(lambda: around.speed() > 0.25)
    header = around.commands[-1][1].header
    assert header.frame_id == "base_link"
    assert abs(header.stamp.sec - time.time()) < 5.0


def test_a_standing_clock_stops_the_robot(make_rig):
    rig = make_rig(clock_rate=2.0)
    around = rig.around
    around.waypoints = straight()
    rig.activate()
    assert wait_until(lambda: around.speed() > 0.2)
    around.clock_rate = 0.0000001
    assert stop_time_s(around, time.monotonic()) <= 0.45
    assert wait_until(lambda: told(around, "simulated time stands", "/clock"))


def test_is_not_activated_beside_another_source_of_commands(make_rig):
    rig = make_rig()
    publisher = rig.around.create_publisher(Twist, "cmd_vel_nav", 1)
    assert rig.transition(CONFIGURE)
    assert wait_until(lambda: rig.around.count_publishers("cmd_vel_nav") == 2)
    assert wait_until(lambda: not rig.transition(ACTIVATE))
    # Not by name: discovery may know a publisher before its node.
    assert "expected one source of commands" in rig.output()
    del publisher


def test_a_robot_that_is_not_known_is_refused_by_name(make_rig):
    rig = make_rig(robot="lokobot")
    assert not rig.transition(CONFIGURE)
    assert "locobot" in rig.output()


def test_a_misspelt_parameter_ends_the_node_with_the_right_name(make_rig):
    rig = make_rig(waypiont_index=2)
    output, _ = rig.process.communicate(timeout=40.0)
    assert rig.process.returncode == 2
    assert 'did you mean "waypoint_index"' in output
