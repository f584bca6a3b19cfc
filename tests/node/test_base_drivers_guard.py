"""The guard as a process between a controller and a base."""

import itertools
import math
import signal
import subprocess
import sys
import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Quaternion, TransformStamped, Twist, TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_process import BEST_EFFORT, isolated_graph, wait_until
from policy_interfaces.msg import BaseContacts, GuardStatus
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import LaserScan, PointCloud
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STATIC = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STOP_WITHIN_S = 0.3
CONTROLLER = """
import sys, time, rclpy
from geometry_msgs.msg import Twist
rclpy.init()
node = rclpy.create_node("controller")
commands = node.create_publisher(Twist, "cmd_vel_nav", 1)
message = Twist()
message.linear.x = 0.2
while True:
    commands.publish(message)
    time.sleep(0.05)
"""


class Rig:
    """A guard, its inputs and its outputs."""

    def __init__(self, graph, **parameters):
        self.graph = graph
        self.stamped = parameters.get("stamped_input", False)
        self.velocity = (0.0, 0.0, 0.0)
        self.commands = graph.node.create_publisher(
            TwistStamped if self.stamped else Twist, "cmd_vel_nav", 1
        )
        self.contacts = graph.node.create_publisher(BaseContacts, "contacts", 1)
        self.scans = graph.node.create_publisher(LaserScan, "scan", 1)
        self.emergency = graph.node.create_publisher(Bool, "cmd_vel_guard/emergency_stop", 1)
        self.output = graph.watch(
            TwistStamped if parameters.get("stamped_output") else Twist, "cmd_vel"
        )
        self.status = graph.watch(GuardStatus, "cmd_vel_guard/status", LATCHED)
        self.diagnostics = graph.watch(DiagnosticArray, "/diagnostics")
        self.process = graph.bring_up("base_drivers.cmd_vel_guard", "cmd_vel_guard", **parameters)
        wait_until(lambda: self.commands.get_subscription_count() == 1)
        wait_until(lambda: graph.node.count_publishers("/cmd_vel") == 1)

    def twist(self, age_s=0.0, frame="base_link"):
        twist = Twist()
        twist.linear.x, twist.linear.y, twist.angular.z = self.velocity
        if not self.stamped:
            return twist
        now_ns = self.graph.node.get_clock().now().nanoseconds
        message = TwistStamped(twist=twist)
        message.header.stamp = Time(nanoseconds=now_ns - round(age_s * 1e9)).to_msg()
        message.header.frame_id = frame
        return message

    def driving(self, *velocity, **stamp):
        """Context that sends a velocity at 20 Hz."""
        self.velocity = velocity
        return self.graph.repeating(self.commands, lambda: self.twist(**stamp), 20.0)

    def reads(self, state, code=""):
        status = self.status.last
        return status is not None and (status.state, status.code) == (state, code)

    def expect(self, state, code=""):
        wait_until(lambda: self.reads(state, code), 10.0, f"{state} {code}: {self.status.last}")

    def count(self, code):
        if self.diagnostics.last is None:
            return 0
        values = self.diagnostics.last.status[0].values
        return next((item.value for item in values if item.key == code), 0)

    def speed(self):
        message = self.output.last
        twist = message.twist if isinstance(message, TwistStamped) else message
        return twist.linear.x

    @staticmethod
    def sent_s(message):
        """When a stamped command was sent [s]: a busy test may hear it late."""
        return Time.from_msg(message.header.stamp).nanoseconds * 1e-9

    def first_zero_after(self, time_s):
        """When the base was first told to rest after a time of the system's clock [s]."""

        def zeros():
            return [
                self.sent_s(m)
                for _, m in self.output.messages
                if self.sent_s(m) > time_s and m.twist.linear.x == 0.0
            ]

        return wait_until(zeros, 5.0, "no rest was commanded")[0]

    def expect_told(self, *texts):
        """Wait for a warning in /diagnostics that says all this."""

        def told():
            last = self.diagnostics.last
            status = last.status[0] if last is not None else None
            return (
                status is not None
                and status.level != DiagnosticStatus.OK
                and all(text in status.message for text in texts)
            )

        wait_until(told, 10.0, f"{texts}: {self.diagnostics.last}")

    def expect_speed(self, speed):
        wait_until(lambda: self.output.last and self.speed() == pytest.approx(speed, abs=1e-6))


@pytest.fixture
def graph(free_domain):
    with isolated_graph(free_domain) as graph:
        yield graph


@pytest.mark.alone
def test_commands_pass_and_silence_stops(graph):
    rig = Rig(graph, stamped_output=True)
    with rig.driving(0.2, 0.0, 0.3):
        rig.expect_speed(0.2)
        rig.expect(GuardStatus.STATE_PASSING)
        ended_s = time.time()
    rig.expect(GuardStatus.STATE_HOLDING, "command_silent")
    assert rig.first_zero_after(ended_s) - ended_s < STOP_WITHIN_S
    assert rig.status.last.value >= rig.status.last.threshold == 0.2
    # Zeros for a while, then nothing, so that another source may take over.
    wait_until(lambda: time.monotonic() - rig.output.messages[-1][0] > 0.5)
    assert rig.sent_s(rig.output.last) - ended_s == pytest.approx(1.25, abs=0.3)
    assert rig.speed() == 0.0


@pytest.mark.alone
def test_a_killed_controller_stops_the_base(graph):
    rig = Rig(graph, stamped_output=True)
    process = subprocess.Popen([sys.executable, "-c", CONTROLLER], env=graph.environment)
    try:
        rig.expect_speed(0.2)
        process.kill()
        killed_s = time.time()
        rig.expect(GuardStatus.STATE_HOLDING, "command_silent")
    finally:
        process.kill()
        process.wait()
    assert rig.first_zero_after(killed_s) - killed_s < STOP_WITHIN_S


def test_stamped_commands_are_judged_by_their_header(graph):
    rig = Rig(graph, stamped_input=True, stamped_output=True)
    with rig.driving(0.2, 0.0, 0.0):
        rig.expect_speed(0.2)
    assert rig.output.last.header.frame_id == "base_link"
    for stamp, code in (
        ({"age_s": 1.0}, "command_stale"),
        ({"age_s": -1.0}, "command_future"),
        ({"frame": "map"}, "command_frame"),
    ):
        with rig.driving(0.2, 0.0, 0.0, **stamp):
            rig.expect(GuardStatus.STATE_HOLDING, code)
            assert rig.speed() == 0.0
    impossible = TwistStamped()
    impossible.header.stamp.sec = -5
    rig.commands.publish(impossible)
    with rig.driving(0.2, 0.0, 0.0):
        rig.expect_speed(0.2)


def test_bad_and_excessive_commands(graph):
    rig = Rig(graph, max_linear_acceleration_m_s2=0.2)
    with rig.driving(2.0, 0.0, 0.0):
        rig.expect(GuardStatus.STATE_SLOWING, "velocity_limit")
        rig.expect_speed(0.5)
    rises = [m.linear.x for _, m in rig.output.messages if m.linear.x > 0.0]
    assert max(b - a for a, b in itertools.pairwise(rises)) < 0.2 * 0.11
    rig.expect(GuardStatus.STATE_HOLDING, "command_silent")
    with rig.driving(0.4, 0.0, 0.0):
        rig.expect(GuardStatus.STATE_SLOWING, "acceleration_limit")
    for bad in (math.nan, math.inf):
        with rig.driving(bad, 0.0, 0.0):
            rig.expect(GuardStatus.STATE_HOLDING, "command_not_finite")
            wait_until(lambda: rig.speed() == 0.0)
        with rig.driving(0.1, 0.0, 0.0):
            rig.expect_speed(0.1)
    assert all(math.isfinite(m.linear.x) for _, m in rig.output.messages)


def test_contacts(graph):
    rig = Rig(graph, contacts_required=True)
    felt = BaseContacts()
    with rig.driving(0.2, 0.0, 0.0):
        rig.expect(GuardStatus.STATE_HOLDING, "contacts_silent")
        with graph.repeating(rig.contacts, lambda: felt, 20.0):
            rig.expect_speed(0.2)
            for sensor, code in (("bumper_center", "bumper"), ("cliff_left", "cliff")):
                setattr(felt, sensor, True)
                rig.expect(GuardStatus.STATE_HOLDING, code)
                wait_until(lambda: rig.speed() == 0.0)
                rig.velocity = (-0.1, 0.0, 0.0)
                rig.expect_speed(-0.1)
                rig.expect(GuardStatus.STATE_SLOWING, code)
                setattr(felt, sensor, False)
                rig.velocity = (0.2, 0.0, 0.0)
                rig.expect_speed(0.2)
            felt.wheel_drop_left = True
            rig.expect(GuardStatus.STATE_STOPPED, "wheel_drop")
            assert not graph.call(Trigger, "/cmd_vel_guard/rearm", Trigger.Request()).success
            felt.wheel_drop_left = False
            wait_until(
                lambda: graph.call(Trigger, "/cmd_vel_guard/rearm", Trigger.Request()).success
            )
            rig.expect_speed(0.2)
        rig.expect(GuardStatus.STATE_HOLDING, "contacts_silent")
        wait_until(lambda: rig.speed() == 0.0)


def test_the_scan_slows_and_stops(graph):
    rig = Rig(graph, scan_required=True)
    ahead = {"gap_m": 3.0, "age_s": 0.0}

    def scan():
        message = LaserScan(angle_min=-0.3, angle_increment=0.01, range_min=0.05, range_max=10.0)
        now_ns = graph.node.get_clock().now().nanoseconds
        message.header.stamp = Time(nanoseconds=now_ns - int(ahead["age_s"] * 1e9)).to_msg()
        message.ranges = [0.18 + ahead["gap_m"]] * 61
        return message

    with rig.driving(0.4, 0.0, 0.0):
        rig.expect(GuardStatus.STATE_HOLDING, "scan_silent")
        with graph.repeating(rig.scans, scan, 20.0):
            rig.expect_speed(0.4)
            ahead["gap_m"] = 0.4
            rig.expect(GuardStatus.STATE_SLOWING, "scan_slow")
            wait_until(lambda: 0.0 < rig.speed() < 0.3)
            ahead["gap_m"] = 0.1
            rig.expect(GuardStatus.STATE_HOLDING, "scan_stop")
            wait_until(lambda: rig.speed() == 0.0)
            ahead.update(gap_m=3.0, age_s=2.0)
            rig.expect(GuardStatus.STATE_HOLDING, "scan_stale")
            ahead["age_s"] = 0.0
            rig.expect_speed(0.4)
        rig.expect(GuardStatus.STATE_HOLDING, "scan_silent")
        # What cannot be read is not free space.
        with graph.repeating(rig.scans, LaserScan, 20.0):
            rig.expect(GuardStatus.STATE_HOLDING, "scan_malformed")
            wait_until(lambda: int(rig.count("scan_malformed")) > 3)


def test_the_emergency_stop_is_latched_whatever_happens(graph):
    rig = Rig(graph, emergency_stop_timeout_s=1.0)
    pressed = Bool(data=False)

    def rearm():
        return graph.call(Trigger, "/cmd_vel_guard/rearm", Trigger.Request())

    with rig.driving(0.2, 0.0, 0.0):
        rig.expect_speed(0.2)
        assert graph.call(Trigger, "/cmd_vel_guard/emergency_stop", Trigger.Request()).success
        wait_until(lambda: rig.speed() == 0.0)
        rig.expect(GuardStatus.STATE_STOPPED, "emergency_stop")
        assert rearm().success
        rig.expect_speed(0.2)
        with graph.repeating(rig.emergency, lambda: pressed, 10.0):
            pressed.data = True
            rig.expect(GuardStatus.STATE_STOPPED, "emergency_stop")
            assert "pressed" in rearm().message
            for transition in (
                Transition.TRANSITION_DEACTIVATE,
                Transition.TRANSITION_CLEANUP,
                Transition.TRANSITION_CONFIGURE,
                Transition.TRANSITION_ACTIVATE,
            ):
                assert graph.change("cmd_vel_guard", transition)
            rig.expect(GuardStatus.STATE_STOPPED, "emergency_stop")
            pressed.data = False
            wait_until(lambda: rearm().success)
            rig.expect_speed(0.2)
        rig.expect(GuardStatus.STATE_STOPPED, "emergency_stop_silent")
        assert not rearm().success
    # A late subscriber learns of it, too.
    late = graph.watch(GuardStatus, "cmd_vel_guard/status", LATCHED)
    wait_until(lambda: late.last)
    assert late.last.code == "emergency_stop_silent"


def test_ending_the_guard_stops_the_base(graph):
    rig = Rig(graph)
    with rig.driving(0.2, 0.0, 0.0):
        rig.expect_speed(0.2)
        rig.process.send_signal(signal.SIGTERM)
        assert rig.process.wait(15) == 0
    wait_until(lambda: rig.speed() == 0.0)


def test_parameters_are_checked(graph):
    for parameters in ({"max_linear_ms": 0.5}, {"command_timeout_s": 0.5}):
        process = graph.start("base_drivers.cmd_vel_guard", **parameters)
        assert process.wait(30) == 2
        assert next(iter(parameters)) in process.stdout.read()
    rig = Rig(graph)

    def set_parameter(name, value):
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        return graph.call(SetParameters, "/cmd_vel_guard/set_parameters", request).results[0]

    refused = set_parameter("slow_distance_m", 0.1)
    assert not refused.successful and "stop_distance_m" in refused.reason
    assert "unconfigured" in set_parameter("stamped_input", True).reason
    assert set_parameter("max_linear_m_s", 0.1).successful
    with rig.driving(0.4, 0.0, 0.0):
        rig.expect_speed(0.1)


def scan_of(graph, ranges, frame="laser"):
    message = LaserScan(
        angle_min=0.0, angle_increment=math.radians(1.0), range_min=0.1, range_max=8.0
    )
    message.header.stamp = graph.node.get_clock().now().to_msg()
    message.header.frame_id = frame
    message.ranges = ranges
    return message


@pytest.mark.parametrize("told_by", ["parameter", "tf_static"])
def test_a_scanner_upside_down_guards_the_right_side(graph, told_by):
    # A beam at 315 degrees of a scanner on its back is one at 45 degrees, to the left.
    ranges = [math.inf] * 360
    ranges[312:319] = [0.4] * 7
    parameters = {"scan_roll_rad": 3.1416} if told_by == "parameter" else {}
    rig = Rig(graph, scan_required=True, **parameters)
    if told_by == "tf_static":
        transforms = graph.node.create_publisher(TFMessage, "/tf_static", STATIC)
        transform = TransformStamped(child_frame_id="laser")
        transform.header.frame_id = "base_link"
        transform.transform.rotation = Quaternion(x=1.0, w=0.0)
        transforms.publish(TFMessage(transforms=[transform]))
        wait_until(lambda: transforms.get_subscription_count() == 1)
    with (
        graph.repeating(rig.scans, lambda: scan_of(graph, ranges), 20.0),
        rig.driving(0.2, 0.0, -0.6),
    ):
        # To the right the way is free.
        rig.expect_speed(0.2)
        rig.velocity = (0.2, 0.0, 0.6)
        wait_until(lambda: rig.speed() < 0.19)
        rig.velocity = (0.2, 0.0, -0.6)
        rig.expect_speed(0.2)


def test_scans_that_cannot_be_placed_or_see_nothing_are_told(graph):
    rig = Rig(graph, scan_frame="laser")
    scan = {"ranges": [2.0] * 360, "frame": "laser"}
    with (
        graph.repeating(rig.scans, lambda: scan_of(graph, **scan), 20.0),
        rig.driving(0.2, 0.0, 0.0),
    ):
        rig.expect_speed(0.2)
        # Not set, and no transform: taken to be the frame of the base, and said so.
        rig.expect_told("'laser'", "not known")
        scan["frame"] = "rear_laser"
        rig.expect(GuardStatus.STATE_HOLDING, "scan_frame")
        rig.expect_told("rear_laser", "scan_frame")
        scan.update(frame="laser", ranges=[0.0] * 360)
        rig.expect(GuardStatus.STATE_HOLDING, "scan_blind")
        rig.expect_told("no beam of 360")
        scan["ranges"] = [math.inf] * 360
        rig.expect_speed(0.2)


def test_best_effort_commands_move_the_base(graph):
    rig = Rig(graph)
    best_effort = graph.node.create_publisher(Twist, "cmd_vel_nav", BEST_EFFORT)
    rig.velocity = (0.2, 0.0, 0.0)
    with graph.repeating(best_effort, rig.twist, 20.0):
        rig.expect_speed(0.2)


@pytest.mark.alone
@pytest.mark.parametrize(
    ("kind", "parameters", "said"),
    [
        ("type", {}, ["TwistStamped by /joystick", "stamped_input to true"]),
        ("type", {"stamped_input": True}, ["Twist by /joystick", "stamped_input to false"]),
        ("zero_stamp", {"stamped_input": True}, ["no stamp (0)"]),
        ("clock", {"use_sim_time": True}, ["simulated time stands", "/clock"]),
        ("clock", {"use_sim_time": True, "stamped_input": True}, ["simulated time stands"]),
        ("two_senders", {}, ["2 senders", "/joystick", "/tester"]),
    ],
)
def test_why_the_base_does_not_move_is_told(graph, kind, parameters, said):
    rig = Rig(graph, **parameters)
    rig.velocity = (0.2, 0.0, 0.0)
    publisher, make = rig.commands, rig.twist
    if kind == "type":
        other = Twist if rig.stamped else TwistStamped
        publisher, make = graph.beside("joystick").create_publisher(other, "cmd_vel_nav", 1), other
    elif kind == "zero_stamp":
        make = TwistStamped
    elif kind == "two_senders":
        graph.beside("joystick").create_publisher(Twist, "cmd_vel_nav", 1)
    began_s = time.monotonic()
    with graph.repeating(publisher, make, 20.0):
        rig.expect_told(*said)
    assert time.monotonic() - began_s < 2.0


def test_inputs_that_cannot_be_heard_are_told(graph):
    rig = Rig(graph)
    graph.node.create_publisher(Bool, "cmd_vel_guard/emergency_stop", BEST_EFFORT)
    graph.beside("lidar").create_publisher(PointCloud, "scan", 1)
    rig.expect_told("/cmd_vel_guard/emergency_stop", "quality of service", "PointCloud")


def test_a_base_that_does_not_listen_is_told(graph):
    rig = Rig(graph)
    graph.node.destroy_subscription(rig.output.subscription)
    rig.velocity = (0.2, 0.0, 0.0)
    with graph.repeating(rig.commands, rig.twist, 20.0):
        rig.expect_told("nobody listens to /cmd_vel")
        graph.beside("create3").create_subscription(TwistStamped, "cmd_vel", print, 1)
        rig.expect_told("/cmd_vel is published as geometry_msgs/msg/Twist, but /create3 expects")


def test_two_scanners_on_one_topic_are_told(graph):
    rig = Rig(graph)
    graph.beside("rear_scanner").create_publisher(LaserScan, "scan", 1)
    rig.expect_told("/scan has 2 senders", "/rear_scanner")
