"""The Go2 driver as a process, against an emulated sport service in another."""

import math
import os
import signal
import time

import pytest
from base_drivers.go2.sport_service import Api, velocity_from_parameter
from base_drivers.velocity import Velocity
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from lifecycle_process import BEST_EFFORT, isolated_graph, wait_until
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import BatteryState
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from unitree_api.msg import Request

STOP_WITHIN_S = 0.3


class Rig:
    """Driver, keeper and emulator."""

    def __init__(self, graph, mode=1, **parameters):
        self.graph = graph
        self.velocity = (0.0, 0.0, 0.0)
        self.commands = graph.node.create_publisher(Twist, "cmd_vel", 1)
        self.requests = graph.watch(Request, "/api/sport/request", 100)
        self.odometry = graph.watch(Odometry, "odom")
        self.battery = graph.watch(BatteryState, "battery_state")
        self.transforms = graph.watch(TFMessage, "/tf")
        self.diagnostics = graph.watch(DiagnosticArray, "/diagnostics")
        self.emulator = graph.start("base_drivers.go2_emulator", mode=mode)
        self.keeper = graph.start("base_drivers.go2_stop_keeper")
        self.process = graph.bring_up("base_drivers.go2_driver", "go2_driver", **parameters)
        wait_until(lambda: self.commands.get_subscription_count() == 1)
        wait_until(lambda: graph.node.count_subscribers("/api/sport/request") == 3)

    def twist(self):
        message = Twist()
        message.linear.x, message.linear.y, message.angular.z = self.velocity
        return message

    def driving(self, *velocity):
        """Context that sends a velocity at 50 Hz, as the guard does."""
        self.velocity = velocity
        return self.graph.repeating(self.commands, self.twist, 50.0)

    def asked(self, since_s=0.0):
        return [Api(m.header.identity.api_id) for _, m in self.requests.since(since_s)]

    def speed(self):
        linear = self.odometry.last.twist.twist.linear
        return math.hypot(linear.x, linear.y)

    def walks(self):
        return self.odometry.last is not None and self.speed() > 0.2

    def first_stop_after(self, time_s):
        """When the robot was first asked to stop after a time [s]."""

        def stops():
            # Requests are numbered by the steady time of sending: a busy test may hear them late.
            sent = [
                m.header.identity.id * 1e-9
                for _, m in self.requests.messages
                if m.header.identity.api_id == Api.STOP_MOVE
            ]
            return [at for at in sent if at > time_s]

        return wait_until(stops, 5.0, "no stop was asked for")[0]

    def value(self, key):
        if self.diagnostics.last is None:
            return None
        status = self.diagnostics.last.status[0]
        return {item.key: item.value for item in status.values}.get(key)

    def message(self):
        return self.diagnostics.last.status[0].message if self.diagnostics.last else ""

    def set_emulator(self, name, value):
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        return self.graph.call(SetParameters, "/go2_emulator/set_parameters", request)


@pytest.fixture
def graph(free_domain):
    with isolated_graph(free_domain) as graph:
        yield graph


@pytest.mark.alone
def test_walking_measuring_and_ending(graph):
    rig = Rig(graph)
    with rig.driving(0.4, 0.2, 0.5):
        wait_until(rig.walks, 20.0)
        wait_until(lambda: Api.MOVE in rig.asked())

        def at_speed():
            twist = rig.odometry.last.twist.twist
            return abs(twist.linear.x - 0.4) < 0.02 and abs(twist.linear.y - 0.2) < 0.02

        wait_until(at_speed)
        transform = rig.transforms.last.transforms[0]
        assert (transform.header.frame_id, transform.child_frame_id) == ("odom", "base_link")
        moves = [m for _, m in rig.requests.messages if m.header.identity.api_id == Api.MOVE]
        assert all(m.header.policy.noreply for m in moves)
        # None is faster; one may be weaker: a command fades when the next one comes late.
        fastest = max((velocity_from_parameter(m.parameter) for m in moves), key=lambda v: v.x)
        assert fastest == Velocity(0.4, 0.2, 0.5)
        ended_s = time.monotonic()
    assert rig.first_stop_after(ended_s - 0.05) - ended_s < STOP_WITHIN_S
    wait_until(lambda: rig.speed() < 0.01)
    wait_until(lambda: rig.battery.last and rig.battery.last.percentage == pytest.approx(0.8))
    with rig.driving(0.4, 0.0, 0.0):
        wait_until(rig.walks, 20.0)
        ended_s = time.monotonic()
        rig.process.send_signal(signal.SIGTERM)
        assert rig.process.wait(20) == 0
    assert rig.first_stop_after(ended_s) - ended_s < STOP_WITHIN_S
    assert set(rig.asked()) == {Api.MOVE, Api.STOP_MOVE}


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_hanging_driver_stops_the_robot(graph, number):
    rig = Rig(graph)
    with rig.driving(0.4, 0.0, 0.0):
        wait_until(rig.walks, 20.0)
        os.kill(rig.process.pid, number)
        killed_s = time.monotonic()
        assert rig.first_stop_after(killed_s) - killed_s < STOP_WITHIN_S


def test_without_its_keeper_the_driver_does_not_drive(graph):
    rig = Rig(graph)
    with rig.driving(0.4, 0.0, 0.0):
        wait_until(rig.walks, 20.0)
        rig.keeper.kill()
        rig.first_stop_after(time.monotonic())
        wait_until(lambda: rig.speed() < 0.01)
        wait_until(lambda: "keeper" in rig.message())
        rig.keeper = graph.start("base_drivers.go2_stop_keeper")
        wait_until(rig.walks, 20.0)


def test_a_robot_that_tells_nothing_is_stopped(graph):
    rig = Rig(graph)
    with rig.driving(0.4, 0.0, 0.0):
        wait_until(rig.walks, 20.0)
        before_s = time.monotonic()
        rig.set_emulator("muted", True)
        rig.first_stop_after(before_s)
        wait_until(lambda: "no state" in rig.message())
        rig.set_emulator("muted", False)
        wait_until(lambda: rig.message() == "driving")


def test_it_lies_until_it_is_asked_to_stand(graph):
    rig = Rig(graph, mode=5)
    with rig.driving(0.4, 0.0, 0.0):
        wait_until(lambda: int(rig.value("not_standing") or 0) > 10, 20.0)
        assert rig.asked() == []
    stood = graph.call(Trigger, "/go2_driver/stand_up", Trigger.Request())
    assert stood.success, stood.message
    assert {Api.STAND_UP, Api.BALANCE_STAND} == set(rig.asked())
    with rig.driving(0.4, 0.0, 0.0):
        wait_until(rig.walks, 20.0)
    lay = graph.call(Trigger, "/go2_driver/lie_down", Trigger.Request())
    assert lay.success, lay.message
    wait_until(lambda: rig.value("mode") == "lie_down")


def test_best_effort_commands_walk_and_others_are_told(graph):
    rig = Rig(graph)
    best_effort = graph.node.create_publisher(Twist, "cmd_vel", BEST_EFFORT)
    rig.velocity = (0.4, 0.0, 0.0)
    with graph.repeating(best_effort, rig.twist, 50.0):
        wait_until(rig.walks, 20.0)
    graph.beside("joystick").create_publisher(TwistStamped, "cmd_vel", 1)
    wait_until(lambda: "TwistStamped by /joystick" in rig.message(), 10.0, rig.message())
    assert "2 senders" in rig.message() and "stamped to true" in rig.message()
    assert rig.diagnostics.last.status[0].level == DiagnosticStatus.WARN
