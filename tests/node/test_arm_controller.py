"""The arm controller node against a stand-in for the Interbotix driver, over real topics."""

import itertools
import math
import os
import signal
import subprocess
import sys
import time
from collections import deque
from functools import partial

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Pose
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from interbotix_xs_msgs.srv import RegisterValues, RobotInfo
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_common.parameters import ParameterError
from policy_interfaces.action import MoveToNamedPose
from policy_interfaces.msg import EndEffectorDelta, EndEffectorState
from rclpy.action import ActionClient
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.client import Client
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from spun_nodes import SpunNodes
from widowx_control.arm_controller_node import ArmController
from widowx_control.bridge_spaces import ACTION_NAMES, pose_from_state
from widowx_control.gripper import finger_distance_m
from widowx_control.kinematics import (
    JOINT_LOWER_RAD,
    JOINT_NAMES,
    JOINT_UPPER_RAD,
    NAMED_POSES,
    ArmKinematics,
)

NAMESPACE = "/wx250s"
RESULT = MoveToNamedPose.Result


class StandInDriver(Node):
    """Answers like xs_sdk; its joints follow the commands at once, its gripper follows the PWM."""

    def __init__(self, context):
        super().__init__("xs_sdk", context=context, namespace=NAMESPACE)
        self.q = np.array(NAMED_POSES["start"])
        self.gripper_rad = 0.0
        self.pwm = 0.0
        self.publishing = True
        self.lost_answers = 0
        self.follows = True
        self.joint_names = list(JOINT_NAMES)
        self.registers = {"Profile_Velocity": [2000] * 6, "Profile_Acceleration": [300] * 6}
        self.commands: deque = deque(maxlen=20000)  # (monotonic s, joints)
        self.pwms = []
        self.clock_publisher = None
        self.sim_time_s = 1000.0
        self.pace = 2.0
        self.ticks, self.states_every = 0, 1
        group = ReentrantCallbackGroup()
        self._states = self.create_publisher(JointState, "joint_states", 10)
        self.create_subscription(
            JointGroupCommand, "commands/joint_group", self._on_group, 10, callback_group=group
        )
        self.create_subscription(
            JointSingleCommand, "commands/joint_single", self._on_single, 10, callback_group=group
        )
        for kind, name, callback in (
            (RobotInfo, "get_robot_info", self._info),
            (RegisterValues, "get_motor_registers", self._get),
            (RegisterValues, "set_motor_registers", self._set),
        ):
            service = self.create_service(kind, name, callback, callback_group=group)
            service.send_response = partial(self._answer, service.send_response)
        self.create_timer(0.01, self._publish)

    def _answer(self, send, response, header):
        """DDS drops answers to a client that the service has not discovered yet."""
        if self.lost_answers:
            self.lost_answers -= 1
        else:
            send(response, header)

    def _on_group(self, message):
        self.commands.append((time.monotonic(), np.array(message.cmd)))
        if self.follows:
            self.q = np.array(message.cmd, dtype=np.float64)

    def _on_single(self, message):
        self.pwm = message.cmd
        self.pwms.append(message.cmd)

    def _info(self, request, response):
        if request.cmd_type == "group":
            response.mode = "position"
            response.joint_names = self.joint_names
            response.joint_lower_limits = JOINT_LOWER_RAD.tolist()
            response.joint_upper_limits = JOINT_UPPER_RAD.tolist()
        else:
            response.mode = "pwm"
        return response

    def _get(self, request, response):
        response.values = self.registers[request.reg]
        return response

    def _set(self, request, response):
        values = self.registers[request.reg]
        if request.cmd_type == "group":
            values[:] = [request.value] * 6
        else:
            values[JOINT_NAMES.index(request.name)] = request.value
        return response

    def _publish(self):
        stamp = self.get_clock().now().to_msg()
        if self.clock_publisher is not None:
            self.sim_time_s += 0.01 * self.pace
            seconds = int(self.sim_time_s)
            stamp.sec, stamp.nanosec = seconds, int((self.sim_time_s - seconds) * 1e9)
            self.clock_publisher.publish(Clock(clock=stamp))
        self.gripper_rad = float(np.clip(self.gripper_rad + 2e-4 * self.pwm, -0.378, 1.268))
        self.ticks += 1
        if not self.publishing or self.ticks % self.states_every:
            return
        d = finger_distance_m(self.gripper_rad)
        message = JointState(
            name=[*JOINT_NAMES, "gripper", "left_finger", "right_finger"],
            position=[*self.q.tolist(), self.gripper_rad, d, -d],
        )
        message.header.stamp = stamp
        self._states.publish(message)


class Operator(Node):
    """Sends commands and goals, and remembers what the controller says."""

    def __init__(self, context, name="operator"):
        super().__init__(name, context=context, namespace=NAMESPACE)
        group = ReentrantCallbackGroup()
        self.states: deque = deque(maxlen=1000)
        self.status = None
        self._delta = self.create_publisher(EndEffectorDelta, "end_effector_delta", 50)
        self.create_subscription(
            EndEffectorState, "end_effector_state", self._on_state, 10, callback_group=group
        )
        self.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, 10, callback_group=group
        )
        self.moves: ActionClient = ActionClient(
            self, MoveToNamedPose, "move_to_named_pose", callback_group=group
        )
        self.change_state: Client = self.create_client(
            ChangeState, "arm_controller/change_state", callback_group=group
        )

    def _on_state(self, message):
        self.states.append(message)

    def _on_diagnostics(self, message):
        self.status = message.status[0]

    def send(
        self, values, *, names=ACTION_NAMES, age_s=0.0, step_s=0.2, frame="base_link", **times
    ):
        """Send a command; `late_s` after its time, and with `max_observation_age_s`, if given."""
        message = EndEffectorDelta(names=list(names), values=list(values), step_s=step_s)
        now = self.get_clock().now()
        if "late_s" in times:
            late = rclpy.duration.Duration(seconds=times.pop("late_s"))
            message.execute_at = (now - late).to_msg()
        message.max_observation_age_s = times.pop("max_observation_age_s", 0.0)
        assert not times
        message.header.stamp = (now - rclpy.duration.Duration(seconds=age_s)).to_msg()
        message.header.frame_id = frame
        self._delta.publish(message)

    def said(self, text):
        return self.status is not None and text in self.status.message

    def value(self, name):
        values = [] if self.status is None else self.status.values
        return {v.key: v.value for v in values}.get(name, "0")

    def counter(self, name):
        return int(self.value(name))

    def level(self):
        return None if self.status is None else self.status.level

    def move(self, pose, *, duration_s=0.0, open_gripper=False):
        """Send a goal; return its handle."""
        assert self.moves.wait_for_server(timeout_sec=5.0)
        goal = MoveToNamedPose.Goal(pose=pose, duration_s=duration_s, open_gripper=open_gripper)
        return wait_for(self.moves.send_goal_async(goal))

    def configure(self):
        return self._transition(Transition.TRANSITION_CONFIGURE)

    def activate(self):
        return self._transition(Transition.TRANSITION_ACTIVATE)

    def deactivate(self):
        return self._transition(Transition.TRANSITION_DEACTIVATE)

    def cleanup(self):
        return self._transition(Transition.TRANSITION_CLEANUP)

    def _transition(self, transition_id):
        assert self.change_state.wait_for_service(timeout_sec=5.0)
        request = ChangeState.Request(transition=Transition(id=transition_id))
        return wait_for(self.change_state.call_async(request), timeout_s=20.0).success


class Graph(SpunNodes):
    """A driver and an operator in a DDS domain of their own, and controllers on request."""

    def __init__(self, domain):
        super().__init__(domain)
        self.domain = domain
        self.driver = self.add(StandInDriver(self.context))
        self.operator = self.add(Operator(self.context))

    def controller(self, **parameters):
        parameters = {"discovery_s": 0.3, "driver_timeout_s": 2.0, **parameters}
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        return self.add(
            ArmController(context=self.context, namespace=NAMESPACE, parameter_overrides=overrides)
        )

    def active_controller(self, **parameters):
        self.controller(**parameters)
        assert self.operator.configure()
        assert self.operator.activate()
        until(lambda: self.driver.commands and self.operator.states)
        # The operator's writer and the controller's reader must know each other.
        until(lambda: self.operator.count_subscribers("end_effector_delta") > 0)


@pytest.fixture
def graph(free_domain):
    graph = Graph(free_domain)
    yield graph
    graph.close()


def until(condition, timeout_s=5.0):
    """Wait for a condition; fail when it does not come true."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if condition():
            return
        time.sleep(0.005)
    pytest.fail(f"not within {timeout_s} s")


def wait_for(future, timeout_s=5.0):
    until(future.done, timeout_s)
    return future.result()


def position(pose: Pose):
    return np.array([pose.position.x, pose.position.y, pose.position.z])


def quiet_s(driver):
    """Time since the commanded joints last changed."""
    commands = list(driver.commands)
    if not commands:
        return math.inf
    last = commands[-1][1]
    for at_s, joints in reversed(commands):
        if np.abs(joints - last).max() > 1e-6:
            return time.monotonic() - at_s
    return math.inf


def test_activation_holds_the_measured_pose_and_lends_the_servo_profile(graph):
    driver = graph.driver
    before = driver.q.copy()
    graph.controller()
    assert graph.operator.configure()
    until(lambda: len(graph.operator.states) > 5)
    assert not driver.commands
    assert driver.registers["Profile_Velocity"] == [2000] * 6

    assert graph.operator.activate()
    assert driver.registers == {
        "Profile_Velocity": [0] * 6,
        "Profile_Acceleration": [0] * 6,
    }
    until(lambda: len(driver.commands) > 20)
    assert all(np.allclose(joints, before, atol=1e-6) for _, joints in driver.commands)

    assert graph.operator.deactivate()
    assert driver.registers == {
        "Profile_Velocity": [2000] * 6,
        "Profile_Acceleration": [300] * 6,
    }
    sent = len(driver.commands)
    graph.operator.send([0.05, 0, 0, 0, 0, 0, 1])
    until(lambda: graph.operator.counter("refused_not_active") == 1)
    until(lambda: graph.operator.states[-1].refused_commands == 1)
    assert len(driver.commands) == sent
    assert graph.operator.activate()
    assert graph.operator.deactivate()
    assert graph.operator.cleanup()
    assert graph.operator.configure()


def test_deltas_move_the_end_effector_along_base_axes(graph):
    graph.active_controller()
    start = position(graph.operator.states[-1].pose)
    for _ in range(4):
        graph.operator.send([0.02, -0.01, 0.01, 0, 0, 0, 0.0])
        time.sleep(0.2)
    until(lambda: quiet_s(graph.driver) > 0.1)
    until(lambda: graph.operator.counter("accepted") == 4)
    last = graph.operator.states[-1]
    np.testing.assert_allclose(position(last.pose) - start, [0.08, -0.04, 0.04], atol=2e-3)
    np.testing.assert_allclose(position(last.commanded_pose), position(last.pose), atol=2e-3)
    np.testing.assert_allclose(last.state[3:6], 0, atol=5e-3)
    until(lambda: graph.driver.pwm < 0)


@pytest.mark.alone
def test_motion_ends_within_300_ms_when_the_commands_stop(graph):
    # A low speed limit keeps the target moving far beyond the interpolation time.
    graph.active_controller(max_joint_speed_rad_s=0.15)
    for _ in range(5):
        graph.operator.send([0.05, 0.05, 0.0, 0, 0, 0.2, 1.0])
        stopped_s = time.monotonic()
        time.sleep(0.2)
    until(lambda: quiet_s(graph.driver) > 0.5)
    changes_s = [
        after[0] - stopped_s
        for before, after in itertools.pairwise(list(graph.driver.commands))
        if np.abs(before[1] - after[1]).max() > 1e-6
    ]
    assert 0.1 < max(changes_s) < 0.3
    until(lambda: graph.operator.counter("command_timeout") >= 1)
    assert graph.operator.counter("accepted") == 5


def stream(graph, commander, rate_hz, n, action, names=ACTION_NAMES):
    """Send n commands at a rate, on time, from a thread of the test's own."""
    begin_s = time.monotonic()
    for k in range(n):
        time.sleep(max(0.0, begin_s + k / rate_hz - time.monotonic()))
        commander.send(action, names=names, step_s=1 / rate_hz)


@pytest.mark.parametrize(("rate_hz", "reverse"), [(50, False), (30, True)])
def test_every_command_of_a_fast_policy_arrives_and_moves_the_arm(graph, rate_hz, reverse):
    graph.active_controller()
    start = position(graph.operator.states[-1].pose)
    n = 2 * rate_hz
    action = [0.1 / n, 0, -0.04 / n, 0, 0, 0, 1.0]
    order = slice(None, None, -1 if reverse else 1)  # the names decide the order of values
    stream(graph, graph.operator, rate_hz, n, action[order], ACTION_NAMES[order])
    until(lambda: graph.operator.counter("accepted") == n)
    until(lambda: quiet_s(graph.driver) > 0.2)
    moved = position(graph.operator.states[-1].pose) - start
    np.testing.assert_allclose(moved, [0.1, 0, -0.04], atol=2e-3)
    assert graph.operator.counter("lost") == 0
    assert graph.operator.counter("refused") == 0


def test_a_second_commander_that_comes_later_is_named_and_both_wait(graph):
    graph.active_controller()
    stream(graph, graph.operator, 10, 3, [0.01, 0, 0, 0, 0, 0, 1.0])
    until(lambda: graph.operator.counter("accepted") == 3)
    teleop = graph.add(Operator(graph.context, "my_teleop"))
    until(lambda: teleop.count_subscribers("end_effector_delta") > 0)
    for _ in range(10):
        graph.operator.send([0.01, 0, 0, 0, 0, 0, 1.0], step_s=0.1)
        teleop.send([0, 0, 0.01, 0, 0, 0, 0.0], step_s=0.1)
        time.sleep(0.1)
    until(lambda: graph.operator.counter("commands") == 23)
    assert graph.operator.counter("accepted") <= 5  # the first of each, until the other is heard
    assert graph.operator.counter("refused_other_commander") >= 18
    assert graph.operator.level() == DiagnosticStatus.WARN
    assert graph.operator.said("/wx250s/my_teleop and /wx250s/operator")
    assert quiet_s(graph.driver) > 0.3
    assert float(graph.operator.value("refusing_s")) > 0.5
    # Alone again, the first is obeyed again.
    time_s = time.monotonic()
    accepted = graph.operator.counter("accepted")
    while graph.operator.counter("accepted") == accepted:
        assert time.monotonic() < time_s + 5.0
        graph.operator.send([0.001, 0, 0, 0, 0, 0, 1.0], step_s=0.1)
        time.sleep(0.1)
    until(lambda: graph.operator.level() == DiagnosticStatus.OK)
    assert float(graph.operator.value("refusing_s")) == 0.0


def test_a_named_pose_waits_for_the_end_of_commands_and_is_refused_while_they_go_on(graph):
    graph.active_controller()
    stream(graph, graph.operator, 5, 2, [0.01, 0, 0, 0, 0, 0, 1.0])
    handle = graph.operator.move("neutral")
    result = wait_for(handle.get_result_async(), 10.0).result
    assert result.code == RESULT.CODE_REACHED  # right after the last command, as after an episode

    asked = None
    for _ in range(10):
        graph.operator.send([0.005, 0, 0, 0, 0, 0, 1.0], step_s=0.2)
        time.sleep(0.1)
        if asked is None:
            goal = MoveToNamedPose.Goal(pose="start")
            asked = graph.operator.moves.send_goal_async(goal)
    result = wait_for(wait_for(asked).get_result_async()).result
    assert result.code == RESULT.CODE_BUSY
    assert "/wx250s/operator" in result.message


@pytest.mark.parametrize(
    ("topic", "kind"),
    [("commands/joint_group", JointGroupCommand), ("commands/joint_single", JointSingleCommand)],
)
def test_a_later_publisher_of_joint_commands_makes_the_arm_hold(graph, topic, kind):
    graph.active_controller()
    teleop = graph.add(Node("teleop", context=graph.context, namespace=NAMESPACE))
    teleop.create_publisher(kind, topic, 1)
    until(lambda: graph.operator.level() == DiagnosticStatus.ERROR)
    assert graph.operator.said(f"/wx250s/teleop publishes /wx250s/{topic}")
    graph.operator.send([0.02, 0, 0, 0, 0, 0, 1.0])
    until(lambda: graph.operator.counter("refused_rival") == 1)
    result = wait_for(graph.operator.move("neutral").get_result_async()).result
    assert result.code == RESULT.CODE_BUSY
    assert graph.operator.counter("accepted") == 0


@pytest.mark.parametrize(
    ("code", "sent"),
    [
        ("stale", {"age_s": 0.6}),
        ("stale", {"age_s": 1e6}),
        ("stale", {"age_s": 0.3, "max_observation_age_s": 0.2}),
        ("stale", {"age_s": 2.2, "max_observation_age_s": 60.0}),
        ("stale", {"age_s": 0.0, "max_observation_age_s": math.nan}),
        ("late", {"late_s": 0.4}),
        ("future_stamp", {"late_s": -0.5}),
        ("future_stamp", {"age_s": -1.0}),
        ("wrong_names", {"names": ["dx", "dy", "dz", "dyaw", "dpitch", "dyaw", "gripper"]}),
        ("wrong_names", {"names": []}),
        ("wrong_length", {"values": [0.02] * 6}),
        ("non_finite", {"values": [math.nan, 0, 0, 0, 0, 0, 1]}),
        ("non_finite", {"values": [0, 0, 0, 0, 0, 0, math.inf]}),
        ("wrong_frame", {"frame": "camera"}),
        ("bad_step", {"step_s": 0.0}),
        ("bad_step", {"step_s": math.nan}),
    ],
)
def test_bad_commands_are_refused_and_counted(graph_module, code, sent):
    operator, driver = graph_module.operator, graph_module.driver
    held = driver.commands[-1][1]
    before = operator.counter(f"refused_{code}")
    sent = dict(sent)
    values = sent.pop("values", [0.05, 0, 0, 0, 0, 0, 0])
    operator.send(values, **sent)
    until(lambda: operator.counter(f"refused_{code}") == before + 1)
    assert operator.level() == DiagnosticStatus.WARN
    assert code in operator.status.message
    assert operator.counter("accepted") == 0
    assert np.array_equal(driver.commands[-1][1], held)
    assert driver.pwm == 0


@pytest.fixture(scope="module")
def graph_module(module_domain):
    graph = Graph(module_domain)
    graph.active_controller()
    yield graph
    graph.close()


def test_lost_joint_states_stop_the_commands_until_they_return(graph):
    graph.active_controller()
    graph.driver.publishing = False
    until(lambda: graph.operator.level() == DiagnosticStatus.ERROR)
    assert "joint_states" in graph.operator.status.message
    sent = len(graph.driver.commands)
    graph.operator.send([0.05, 0, 0, 0, 0, 0, 0])
    until(lambda: graph.operator.counter("refused_joint_states") == 1)
    assert len(graph.driver.commands) == sent

    graph.driver.q = np.array(NAMED_POSES["sleep"])  # moved by hand meanwhile
    # As a driver does that was started again: with a slow profile the stream would lag.
    graph.driver.registers["Profile_Velocity"][:] = [2000] * 6
    graph.driver.registers["Profile_Acceleration"][:] = [300] * 6
    graph.driver.publishing = True
    until(lambda: len(graph.driver.commands) > sent)
    assert graph.driver.registers["Profile_Velocity"] == [0] * 6
    assert graph.driver.registers["Profile_Acceleration"] == [0] * 6
    until(lambda: len(graph.driver.commands) > sent + 5)
    np.testing.assert_allclose(graph.driver.commands[-1][1], NAMED_POSES["sleep"], atol=1e-6)
    until(lambda: graph.operator.level() == DiagnosticStatus.OK)


def test_a_dead_servo_bus_is_no_measurement(graph):
    graph.active_controller()
    graph.driver.follows = False
    graph.driver.q = np.full(6, -math.pi)
    until(lambda: graph.operator.level() == DiagnosticStatus.ERROR)
    assert "cannot read its servos" in graph.operator.status.message
    assert all(np.abs(joints + math.pi).max() > 1 for _, joints in graph.driver.commands)


def test_named_pose_is_reached_with_the_gripper_open(graph):
    graph.active_controller()
    handle = graph.operator.move("neutral", duration_s=0.5, open_gripper=True)
    result = wait_for(handle.get_result_async()).result
    assert result.code == RESULT.CODE_REACHED, result.message
    np.testing.assert_allclose(graph.driver.q, NAMED_POSES["neutral"], atol=1e-3)
    assert graph.operator.states[-1].state[6] > 0.9
    expected = pose_from_state(graph.operator.states[-1].state)
    np.testing.assert_allclose(expected, ArmKinematics().forward(NAMED_POSES["neutral"]), atol=1e-3)


def test_named_pose_refusals_and_cancel(graph):
    graph.active_controller()
    operator = graph.operator
    unknown = wait_for(operator.move("elsewhere").get_result_async()).result
    assert unknown.code == RESULT.CODE_UNKNOWN_POSE
    assert "start" in unknown.message

    handle = operator.move("sleep", duration_s=10.0)
    until(lambda: quiet_s(graph.driver) < 0.05)
    busy = wait_for(operator.move("home").get_result_async()).result
    assert busy.code == RESULT.CODE_BUSY
    operator.send([0.05, 0, 0, 0, 0, 0, 0])
    until(lambda: operator.counter("refused_busy") == 1)

    wait_for(handle.cancel_goal_async())
    assert wait_for(handle.get_result_async()).result.code == RESULT.CODE_CANCELLED
    until(lambda: quiet_s(graph.driver) > 0.3)
    assert np.abs(graph.driver.q - NAMED_POSES["sleep"]).max() > 0.5

    handle = operator.move("sleep", duration_s=10.0)
    assert graph.operator.deactivate()
    assert wait_for(handle.get_result_async()).result.code == RESULT.CODE_NOT_ACTIVE


def test_a_blocked_arm_times_out_on_the_way_to_a_named_pose(graph):
    graph.active_controller(arrival_timeout_s=0.3)
    graph.driver.follows = False
    start = graph.driver.q.copy()
    result = wait_for(graph.operator.move("sleep", duration_s=0.3).get_result_async()).result
    assert result.code == RESULT.CODE_TIMEOUT
    # Commanded at most a bounded way ahead of the arm that does not move.
    assert np.abs(graph.driver.commands[-1][1] - start).max() < 0.5


def test_second_commander_is_refused(graph):
    graph.active_controller()
    # Both have the same services, so the second is asked directly.
    assert graph.controller().trigger_configure() is TransitionCallbackReturn.FAILURE
    until(lambda: graph.operator.said("2 nodes are named /wx250s/arm_controller"))


def test_foreign_publisher_of_joint_commands_is_refused(graph):
    teleop = graph.add(Node("teleop", context=graph.context, namespace=NAMESPACE))
    teleop.create_publisher(JointGroupCommand, "commands/joint_group", 1)
    graph.controller()
    assert not graph.operator.configure()
    until(lambda: graph.operator.said("teleop"))
    assert not graph.driver.commands


def test_wrong_robot_missing_driver_and_missing_joint_states_are_refused(graph):
    graph.driver.joint_names = ["waist", "shoulder", "elbow", "wrist_angle"]
    graph.controller(driver_timeout_s=0.5)
    assert not graph.operator.configure()
    until(lambda: graph.operator.said("wrist_angle"))
    graph.driver.joint_names = list(JOINT_NAMES)
    graph.driver.publishing = False
    assert graph.operator.configure()
    assert not graph.operator.activate()
    until(
        lambda: graph.operator.status and "no usable joint_states" in graph.operator.status.message
    )
    graph.driver.publishing = True
    assert graph.operator.activate()


def test_no_driver(graph):
    elsewhere = ArmController(
        context=graph.context,
        namespace="/wx250s_b",
        parameter_overrides=[
            Parameter("discovery_s", value=0.0),
            Parameter("driver_timeout_s", value=0.2),
        ],
    )
    graph.add(elsewhere)
    assert elsewhere.trigger_configure() is TransitionCallbackReturn.FAILURE
    until(lambda: graph.operator.said("/wx250s_b/get_robot_info"))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rate_hz": 5.0}, "rate_hz"),
        ({"max_joint_speed_rad_s": 50.0}, "max_joint_speed_rad_s"),
        ({"workspace_low_m": [0.5, 0.0, 0.0]}, "workspace_low_m"),
        ({"workspace_low_m": [0.1, 0.0]}, "workspace_low_m"),
        ({"named_poses.up": [0.0, 0.0]}, "named_poses.up"),
        ({"named_poses.up": [0.0, 9.0, 0.0, 0.0, 0.0, 0.0]}, "shoulder"),
        ({"max_joint_sped_rad_s": 1.0}, 'unknown parameter "max_joint_sped_rad_s"'),
        ({"rate_hz": "fast"}, "rate_hz"),
        ({"base_frame": 3}, "base_frame"),
    ],
)
def test_bad_parameters_are_refused(graph_module, parameters, message):
    with pytest.raises(ParameterError, match=message):
        graph_module.controller(**parameters)


def test_executable_ends_with_the_arm_at_rest(graph):
    """SIGTERM mid-motion: the motion ends, the servo profile is given back, exit code 0."""
    environment = {**os.environ, "ROS_DOMAIN_ID": str(graph.domain)}
    command = [sys.executable, "-m", "widowx_control.arm_controller_node", "--ros-args"]
    command += ["-r", f"__ns:={NAMESPACE}", "-p", "discovery_s:=0.1"]
    process = subprocess.Popen(command, env=environment)
    try:
        assert graph.operator.configure()
        assert graph.operator.activate()
        graph.operator.move("sleep", duration_s=10.0)
        until(lambda: quiet_s(graph.driver) < 0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
    assert graph.driver.registers["Profile_Velocity"] == [2000] * 6
    assert np.abs(graph.driver.q - NAMED_POSES["sleep"]).max() > 0.5


def test_executable_refuses_a_bad_parameter_with_a_message():
    command = [sys.executable, "-m", "widowx_control.arm_controller_node", "--ros-args"]
    done = subprocess.run(
        [*command, "-p", "rate_hz:=1.0"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode != 0
    assert "rate_hz" in done.stderr
    assert "expected a number from 50 to 200" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.alone
def test_simulated_time_sets_the_pace(graph):
    driver = graph.driver
    driver.clock_publisher = driver.create_publisher(Clock, "/clock", 10)
    graph.active_controller(use_sim_time=True)
    began_s, sent = time.monotonic(), len(driver.commands)
    handle = graph.operator.move("sleep", duration_s=2.0)
    result = wait_for(handle.get_result_async(), timeout_s=8.0).result
    took_s = time.monotonic() - began_s
    assert result.code == RESULT.CODE_REACHED, result.message
    # 2 s of simulated time at twice the pace. On the machine's own clock it would take 2 s.
    assert took_s < 1.8
    assert len(driver.commands) - sent > 60


def test_joint_states_of_a_slow_simulation_are_not_late_and_those_of_a_dead_one_are(graph):
    driver = graph.driver
    driver.clock_publisher = driver.create_publisher(Clock, "/clock", 10)
    graph.active_controller(use_sim_time=True)
    # A tenth of real time, and one joint state every half a second: one in 50 ms of simulated time.
    driver.pace, driver.states_every = 0.1, 50
    began_s = driver.sim_time_s
    until(lambda: driver.sim_time_s > began_s + 0.35, timeout_s=20.0)
    assert graph.operator.counter("joint_states_fault") == 0
    driver.pace, driver.publishing = 0.0, False
    until(lambda: graph.operator.said("no usable joint_states"))


def test_a_driver_whose_first_answer_is_lost_is_asked_again(graph):
    graph.driver.lost_answers = 1
    graph.controller()
    assert graph.operator.configure()
    assert not graph.driver.lost_answers
