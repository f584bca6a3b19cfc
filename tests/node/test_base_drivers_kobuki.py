"""The Kobuki driver as a process, against the emulated base on a pseudo-terminal."""

import itertools
import math
import os
import signal
import time
from functools import partial

import psutil
import pytest
from base_drivers.kobuki_emulator.remote import RemoteKobuki
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from emulators import fault
from geometry_msgs.msg import Twist, TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_process import BEST_EFFORT, isolated_graph, wait_until
from nav_msgs.msg import Odometry
from policy_interfaces.msg import BaseContacts
from rclpy.time import Time
from sensor_msgs.msg import BatteryState
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

STOP_WITHIN_S = 0.3


class Rig:
    """Driver and emulator."""

    def __init__(self, graph, emulator, **parameters):
        self.graph = graph
        self.emulator = emulator
        self.velocity = (0.0, 0.0)
        self.stamped = parameters.get("stamped", False)
        self.commands = graph.node.create_publisher(
            TwistStamped if self.stamped else Twist, "cmd_vel", 1
        )
        self.odometry = graph.watch(Odometry, "odom")
        self.contacts = graph.watch(BaseContacts, "contacts")
        self.battery = graph.watch(BatteryState, "battery_state")
        self.diagnostics = graph.watch(DiagnosticArray, "/diagnostics")
        self.transforms = graph.watch(TFMessage, "/tf")
        self.process = graph.bring_up(
            "base_drivers.kobuki_driver", "kobuki_driver", port=emulator.port, **parameters
        )
        wait_until(lambda: self.commands.get_subscription_count() == 1)

    def twist(self, age_s=0.0):
        twist = Twist()
        twist.linear.x, twist.angular.z = self.velocity
        if not self.stamped:
            return twist
        now_ns = self.graph.node.get_clock().now().nanoseconds
        message = TwistStamped(twist=twist)
        message.header.stamp = Time(nanoseconds=now_ns - round(age_s * 1e9)).to_msg()
        return message

    def driving(self, x, yaw=0.0, **stamp):
        """Context that sends a velocity at 50 Hz, as the guard does."""
        self.velocity = (x, yaw)
        return self.graph.repeating(self.commands, lambda: self.twist(**stamp), 50.0)

    def value(self, key):
        if self.diagnostics.last is None:
            return None
        status = self.diagnostics.last.status[0]
        return {item.key: item.value for item in status.values}.get(key)

    def message(self):
        return self.diagnostics.last.status[0].message if self.diagnostics.last else ""

    def expect_state(self, state):
        wait_until(lambda: self.value("state") == state, 60.0, f"{state}, not {self.message()}")

    def moves(self):
        return self.emulator.state()["speed_m_s"] > 0.05

    def stands(self):
        state = self.emulator.state()
        return abs(state["speed_m_s"]) < 1e-3 and abs(state["rate_rad_s"]) < 1e-3

    def first_rest_after(self, time_s):
        """When the base was first told to rest after a time [s]."""
        rests = []

        def told():
            rests.extend(
                at
                for at, x, yaw in self.emulator.commands()
                if at > time_s - 0.01 and x == yaw == 0.0
            )
            return rests

        return wait_until(told, 5.0, "the base was not told to rest")[0]

    def pose_error_m(self):
        truth, pose = self.emulator.state(), self.odometry.last.pose.pose.position
        return math.hypot(truth["x_m"] - pose.x, truth["y_m"] - pose.y)

    def largest_jump_m(self):
        poses = [m.pose.pose.position for _, m in self.odometry.messages]
        return max(math.hypot(b.x - a.x, b.y - a.y) for a, b in itertools.pairwise(poses))


@pytest.fixture
def graph(free_domain):
    with isolated_graph(free_domain) as graph:
        yield graph


@pytest.fixture
def emulator(tmp_path):
    with RemoteKobuki(tmp_path) as emulator:
        yield emulator


def test_driving_measuring_and_ending(graph, emulator):
    rig = Rig(graph, emulator)
    rig.expect_state("driving")
    assert rig.value("firmware") == "1.2.0" and rig.value("unique_id")
    with rig.driving(0.3, 0.6):
        wait_until(lambda: emulator.state()["travelled_m"] > 0.5, 15.0)
        emulator.tell("bumper left center")
        wait_until(lambda: rig.contacts.last.bumper_left and rig.contacts.last.bumper_center)
        emulator.tell("bumper none")
        emulator.tell("cliff right")
        wait_until(lambda: rig.contacts.last.cliff_right and not rig.contacts.last.bumper_left)
        emulator.tell("wheel_drop left")
        wait_until(lambda: rig.contacts.last.wheel_drop_left)
    wait_until(rig.stands)
    wait_until(lambda: rig.pose_error_m() < 0.01)
    yaw = emulator.state()["yaw_rad"]

    def heading_error():
        rotation = rig.odometry.last.pose.pose.orientation
        return math.remainder(2.0 * math.atan2(rotation.z, rotation.w) - yaw, math.tau)

    wait_until(lambda: abs(heading_error()) < 0.01)
    transform = rig.transforms.last.transforms[0]
    assert (transform.header.frame_id, transform.child_frame_id) == ("odom", "base_link")
    emulator.tell("battery 13.0")
    wait_until(lambda: rig.battery.last and rig.battery.last.voltage == pytest.approx(13.0))
    assert rig.battery.last.percentage < 0.05
    wait_until(lambda: "13.0 V" in rig.message())
    assert graph.call(Trigger, "/kobuki_driver/reset_odometry", Trigger.Request()).success
    wait_until(lambda: rig.odometry.last.pose.pose.position.x == 0.0)
    with rig.driving(0.3):
        wait_until(rig.moves)
        emulator.commands()
        rig.process.send_signal(signal.SIGTERM)
        assert rig.process.wait(15) == 0
    assert emulator.state()["target"] == [0.0, 0.0]


def test_faults_are_asked_for_by_a_command(emulator, tmp_path, capsys):
    socket = str(tmp_path / "kobuki.sock")
    assert fault.main([socket, "battery", "13.5"]) == 0
    assert fault.main([socket, "state"]) == 0
    assert "travelled_m" in capsys.readouterr().out
    assert fault.main([socket, "bumper", "top"]) == 1
    assert "expected one of" in capsys.readouterr().err


@pytest.mark.alone
def test_silence_of_commands_stops_the_base(graph, emulator):
    rig = Rig(graph, emulator)
    rig.expect_state("driving")
    with rig.driving(0.3):
        wait_until(rig.moves)
        emulator.commands()
        ended_s = time.monotonic()
    assert rig.first_rest_after(ended_s) - ended_s < STOP_WITHIN_S
    wait_until(lambda: rig.value("watchdog_stops") == "1")


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_hanging_driver_stops_the_base(graph, emulator, number):
    rig = Rig(graph, emulator)
    rig.expect_state("driving")
    with rig.driving(0.3):
        wait_until(rig.moves)
        emulator.commands()
        os.kill(rig.process.pid, number)
        killed_s = time.monotonic()
        assert rig.first_rest_after(killed_s) - killed_s < STOP_WITHIN_S
        if number == signal.SIGSTOP:
            # It wakes up and goes on.
            os.kill(rig.process.pid, signal.SIGCONT)
            wait_until(rig.moves)


def test_bad_and_late_commands_do_not_move_the_base(graph, emulator):
    rig = Rig(graph, emulator, stamped=True)
    rig.expect_state("driving")
    with rig.driving(0.3, age_s=1.0):
        wait_until(lambda: int(rig.value("command_stale") or 0) > 5)
    with rig.driving(math.nan):
        wait_until(lambda: int(rig.value("command_not_finite") or 0) > 5)
    assert all(x == yaw == 0.0 for _, x, yaw in emulator.commands())
    with rig.driving(5.0):
        wait_until(rig.moves)
    assert max(x for _, x, _ in emulator.commands()) == pytest.approx(0.7, abs=0.001)


def test_best_effort_commands_drive_the_base(graph, emulator):
    rig = Rig(graph, emulator)
    rig.expect_state("driving")
    best_effort = graph.node.create_publisher(Twist, "cmd_vel", BEST_EFFORT)
    rig.velocity = (0.3, 0.0)
    with graph.repeating(best_effort, rig.twist, 50.0):
        wait_until(rig.moves)


@pytest.mark.alone
@pytest.mark.parametrize(
    ("kind", "parameters", "said"),
    [
        ("type", {}, ["TwistStamped by /joystick", "stamped to true"]),
        ("no_stamp", {"stamped": True}, ["no stamp (0)"]),
        ("future", {"stamped": True}, ["from the future"]),
        ("clock", {"use_sim_time": True}, ["simulated time stands"]),
        ("two_senders", {}, ["2 senders", "/joystick", "/tester"]),
    ],
)
def test_why_the_base_does_not_move_is_told(graph, emulator, kind, parameters, said):
    rig = Rig(graph, emulator, **parameters)
    rig.expect_state("driving")
    publisher, make = rig.commands, rig.twist
    if kind == "type":
        publisher = graph.beside("joystick").create_publisher(TwistStamped, "cmd_vel", 1)
    elif kind == "two_senders":
        graph.beside("joystick").create_publisher(Twist, "cmd_vel", 1)
    if kind in ("type", "no_stamp"):
        make = TwistStamped
    elif kind == "future":
        make = partial(rig.twist, age_s=-5.0)
    rig.velocity = (0.3, 0.0)
    began_s = time.monotonic()
    with graph.repeating(publisher, make, 50.0):
        wait_until(lambda: all(text in rig.message() for text in said), 10.0, rig.message())
    assert time.monotonic() - began_s < 2.0
    assert rig.diagnostics.last.status[0].level == DiagnosticStatus.WARN


def test_one_percent_of_damaged_bytes(graph, emulator):
    rig = Rig(graph, emulator)
    rig.expect_state("driving")
    wait_until(lambda: rig.odometry.last is not None)
    emulator.tell("noise corrupt=0.01")
    with rig.driving(0.3, 0.4):
        wait_until(lambda: emulator.state()["travelled_m"] > 2.0, 40.0)
    wait_until(rig.stands)
    wait_until(lambda: rig.pose_error_m() < 0.03)
    assert int(rig.value("skipped_bytes")) > 1000
    assert rig.largest_jump_m() < 0.35
    assert rig.process.poll() is None


def test_unplugging(graph, emulator):
    rig = Rig(graph, emulator)
    rig.expect_state("driving")
    with rig.driving(0.3):
        wait_until(rig.moves)
        emulator.tell("unplug")
        rig.expect_state("absent")
    emulator.commands()
    emulator.tell("plug")
    rig.expect_state("driving")
    assert rig.value("connections") == "2"
    # Nobody commands: the base was told to rest, and nothing else.
    told = wait_until(emulator.commands)
    assert all(x == yaw == 0.0 for _, x, yaw in told)
    wait_until(rig.stands)
    before = rig.odometry.last.pose.pose.position.x
    with rig.driving(0.3):
        wait_until(rig.moves)
    wait_until(lambda: rig.odometry.last.pose.pose.position.x > before)
    assert rig.largest_jump_m() < 0.1


def test_a_base_that_is_switched_off_and_on(graph, emulator):
    rig = Rig(graph, emulator)
    rig.expect_state("driving")
    with rig.driving(0.3):
        wait_until(rig.moves)
        emulator.tell("mute")
        wait_until(lambda: rig.value("state") != "driving")
        emulator.tell("power_cycle")
        emulator.tell("unmute")
        rig.expect_state("driving")
        wait_until(rig.moves)
    assert rig.largest_jump_m() < 0.1


def test_another_protocol_is_not_driven(graph, tmp_path):
    with RemoteKobuki(tmp_path, "--firmware", "2.0.0") as emulator:
        rig = Rig(graph, emulator)
        rig.expect_state("incompatible")
        assert "2.0.0" in rig.message()
        with rig.driving(0.3):
            wait_until(lambda: int(rig.value("command_not_connected") or 0) > 5)
        assert all(x == yaw == 0.0 for _, x, yaw in emulator.commands())


def test_the_port_is_held_only_while_active(graph, emulator):
    rig = Rig(graph, emulator)
    rig.expect_state("driving")
    children = psutil.Process(rig.process.pid).children()
    assert len(children) == 1
    assert graph.change("kobuki_driver", Transition.TRANSITION_DEACTIVATE)
    held = [file.path for file in psutil.Process(rig.process.pid).open_files()]
    assert not any("pts" in path for path in held)
    assert not children[0].is_running()
    assert graph.change("kobuki_driver", Transition.TRANSITION_ACTIVATE)
    rig.expect_state("driving")
    # A new one replaces a keeper that has died, with the next connection.
    psutil.Process(rig.process.pid).children()[0].kill()
    wait_until(lambda: "process that stops the base" in rig.message())
