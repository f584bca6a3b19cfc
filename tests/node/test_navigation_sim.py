"""The navigation simulator as a process of its own, through its topics and services only."""

import math
import time

import numpy as np
import pytest
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from node_rig import NodeRig, wait_until
from policy_interfaces.msg import BaseContacts, BaseSimStatus
from policy_interfaces.srv import ResetWorld
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, LaserScan
from tf2_msgs.msg import TFMessage

START_S = 120.0
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class Around(Node):
    """Plays a controller, and keeps the newest message of everything."""

    def __init__(self, context):
        super().__init__("around", context=context)
        self.newest = {}
        self.count = {}
        for kind, topic, qos in (
            (Image, "camera/image_raw", NEWEST),
            (CameraInfo, "camera/camera_info", NEWEST),
            (LaserScan, "scan", NEWEST),
            (Odometry, "odom", 10),
            (TFMessage, "/tf", 10),
            (BaseContacts, "contacts", 10),
            (BaseSimStatus, "/robot_sim/base_status", 10),
            (Clock, "/clock", 10),
        ):
            self.create_subscription(kind, topic, lambda m, t=topic: self._keep(t, m), qos)
        self.twist = None

    def command(self, v, w, stamped=False):
        if self.twist is None:  # a participant has one type per topic
            kind = TwistStamped if stamped else Twist
            # Both kinds of senders are heard.
            self.twist = self.create_publisher(kind, "cmd_vel", 1 if stamped else NEWEST)
        message = TwistStamped() if stamped else Twist()
        twist = message.twist if stamped else message
        twist.linear.x, twist.angular.z = v, w
        self.twist.publish(message)

    def _keep(self, topic, message):
        self.newest[topic] = message
        self.count[topic] = self.count.get(topic, 0) + 1

    @property
    def status(self):
        return self.newest["/robot_sim/base_status"]


@pytest.fixture
def start(free_domain):
    rigs = []

    def make(**parameters):
        module = "robot_sim.navigation_sim_node"
        rigs.append(NodeRig(free_domain, module, "navigation_sim", Around, **parameters))
        return rigs[-1]

    yield make
    for sim in rigs:
        sim.close()


@pytest.fixture
def outdoors(start):
    return start(world="outdoor", seed=10003, robot="jackal", scan="true")


def drive(around, v, w, seconds, stop=lambda: False):
    """Command at 50 Hz for a while, as the guard does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop():
        around.command(v, w)
        time.sleep(0.02)


def test_drives_shows_and_stops_when_the_controller_falls_silent(outdoors):
    around = outdoors.around
    assert wait_until(lambda: len(around.newest) >= 7, START_S), around.newest.keys()
    image, info = around.newest["camera/image_raw"], around.newest["camera/camera_info"]
    assert (image.width, image.height, image.encoding, image.step) == (160, 120, "rgb8", 480)
    assert np.frombuffer(image.data, np.uint8).std() > 10
    assert info.k[0] == pytest.approx(80.0 / math.tan(1.57 / 2), rel=1e-3)
    odometry = around.newest["odom"]
    assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "base_link")
    assert around.newest["/tf"].transforms[0].child_frame_id == "base_link"
    assert len(around.newest["scan"].ranges) == 180

    def age_s():
        stamp = Time.from_msg(around.newest["camera/image_raw"].header.stamp)
        return (around.get_clock().now() - stamp).nanoseconds * 1e-9

    assert wait_until(lambda: 0.0 <= age_s() < 0.5)

    def speed():
        return around.newest["odom"].twist.twist.linear.x

    drive(around, 0.4, 0.0, 60.0, lambda: speed() > 0.3)
    assert speed() > 0.3
    assert wait_until(lambda: abs(speed()) < 0.01)
    rest = around.status.distance_m
    assert rest > 0.02
    count = around.count["odom"]
    assert wait_until(lambda: around.count["odom"] > count + 20)
    assert around.status.distance_m < rest + 0.01


def test_not_finite_commands_are_ignored(outdoors):
    around = outdoors.around
    assert wait_until(lambda: "odom" in around.newest, START_S)
    drive(around, math.nan, 0.0, 0.5)
    drive(around, 0.0, math.inf, 0.5)
    assert around.status.distance_m < 0.01
    assert outdoors.process.poll() is None


def test_contacts_and_collisions_are_reported(outdoors):
    around = outdoors.around
    assert wait_until(lambda: "contacts" in around.newest, START_S)
    seen = []

    def bumped():
        contacts = around.newest["contacts"]
        seen.append(contacts.bumper_left or contacts.bumper_center or contacts.bumper_right)
        return seen[-1]

    drive(around, 0.9, 0.0, 60.0, bumped)
    assert seen[-1]
    assert wait_until(lambda: around.status.collisions >= 1, 2.0)
    assert around.status.in_contact


def test_reset_world_changes_place_and_robot_and_refuses_nonsense(outdoors):
    around = outdoors.around
    request = ResetWorld.Request(world="indoor", seed=10002, robot="quadrotor", blocked=[1, 4])
    answer = outdoors.call(ResetWorld, "/robot_sim/reset_world", request)
    assert answer.success, answer.message
    assert "quadrotor" in answer.message
    assert "[1, 4]" in answer.message
    wait_until(lambda: around.status.episode == 1)
    assert (around.status.robot, around.status.world_seed) == ("quadrotor", 10002)
    wide = 80.0 / math.tan(1.4 / 2)
    assert wait_until(
        lambda: around.newest["camera/camera_info"].k[0] == pytest.approx(wide, rel=1e-3)
    )

    start = around.status.pose.position
    request = ResetWorld.Request(world="indoor", seed=10002, use_start=True, blocked=[1, 4])
    request.start.x, request.start.y, request.start.theta = start.x, start.y, 1.0
    assert outdoors.call(ResetWorld, "/robot_sim/reset_world", request).success
    wait_until(lambda: around.status.episode == 2)
    assert around.status.pose.orientation.z == pytest.approx(math.sin(0.5), abs=0.02)
    for change, reason in (
        ({"world": "moon"}, "expected one of indoor, outdoor"),
        ({"robot": "tricycle"}, "expected one of"),
        ({"blocked": [4000]}, "4000"),
        ({"seed": -3}, "at least 0"),
        ({"use_start": True}, "room around it"),
    ):
        request = ResetWorld.Request(**({"world": "indoor", "seed": 10002} | change))
        answer = outdoors.call(ResetWorld, "/robot_sim/reset_world", request)
        assert not answer.success
        assert reason in answer.message
    assert around.status.episode == 2


def test_a_simulated_clock_and_stamped_commands(start):
    sim = start(world="outdoor", seed=10006, robot="locobot", rtf=3.0, stamped="true")
    around = sim.around
    assert wait_until(lambda: len(around.newest) >= 7, START_S)
    end = time.monotonic() + 60.0
    while around.status.distance_m < 0.2:
        assert time.monotonic() < end
        around.command(0.3, 0.0, stamped=True)
        time.sleep(0.02)
    clock = Time.from_msg(around.newest["/clock"].clock).nanoseconds
    odometry = Time.from_msg(around.newest["odom"].header.stamp).nanoseconds
    assert abs(clock - odometry) < 1e9


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"world": "moon"}, "world"),
        ({"robot": "tricycle"}, "tricycle"),
        ({"rtf": 0.0}, "rtf"),
        ({"sed": 3}, "sed"),
    ],
)
def test_wrong_parameters_end_the_node_with_a_reason(start, parameters, reason):
    sim = start(**parameters)
    output, _ = sim.process.communicate(timeout=START_S)
    assert sim.process.returncode == 2
    assert reason in output
    assert "Traceback" not in output
