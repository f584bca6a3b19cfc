"""The guard's process between a stream of commands and a stand-in for the Interbotix driver."""

import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from interbotix_xs_msgs.srv import RegisterValues, RobotInfo
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from policy_interfaces.action import MoveToNamedPose
from policy_interfaces.msg import GuardStatus
from rclpy.action import ActionClient
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from spun_nodes import SpunNodes
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from widowx_control.gripper import finger_distance_m
from widowx_control.guard.checks import CHECKS, Code, Reaction
from widowx_control.guard.servo_health import (
    ERROR_REGISTER,
    SHADOWS,
    TEMPERATURE_REGISTER,
    VOLTAGE_REGISTER,
)
from widowx_control.kinematics import (
    JOINT_LOWER_RAD,
    JOINT_NAMES,
    JOINT_UPPER_RAD,
    NAMED_POSES,
    ArmKinematics,
)

pytestmark = pytest.mark.alone

NAMESPACE = "/wx250s"
PERIOD_S = 0.02
STOPPED_WITHIN_S = 0.3
START = np.array(NAMED_POSES["start"])
ELBOW = 2
SERVOS = (*JOINT_NAMES, "gripper")
STATES = {
    Reaction.SLOW: GuardStatus.STATE_SLOWING,
    Reaction.HOLD: GuardStatus.STATE_HOLDING,
    Reaction.STOP: GuardStatus.STATE_STOPPED,
}
QUICK = {
    "max_joint_speed_rad_s": 1.0,
    "max_joint_acceleration_rad_s2": 100.0,
    "servo_status_rate_hz": 50.0,
    "servo_status_timeout_s": 1.0,
    "joint_states_timeout_s": 3.0,
    "servo_current_s": 0.2,
    "gripper_stall_s": 0.3,
}
"""Thresholds that make the tests short, or the causes simple."""


def until(condition, timeout_s=30.0, what="condition"):
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if condition():
            return
        time.sleep(0.005)
    pytest.fail(f"not within {timeout_s} s: {what() if callable(what) else what}")


class Arm(Node):
    """The driver's interface: joints follow the commands at once, faults are set from outside."""

    def __init__(self, context):
        super().__init__("xs_sdk", context=context, namespace=NAMESPACE)
        group = ReentrantCallbackGroup()
        self.q = START.copy()
        self.efforts_ma = [0.0] * 9
        self.gripper_rad = 0.5
        self.follows = self.publishing = self.answering = True
        self.registers = {
            ERROR_REGISTER: dict.fromkeys((*SERVOS, *SHADOWS), 0),
            TEMPERATURE_REGISTER: dict.fromkeys((*SERVOS, *SHADOWS), 35),
            VOLTAGE_REGISTER: dict.fromkeys((*SERVOS, *SHADOWS), 120),
        }
        self.profile = {"Profile_Velocity": 2000, "Profile_Acceleration": 300}
        self.commands: deque = deque(maxlen=50_000)  # (monotonic s, joints)
        self.pwms: deque = deque(maxlen=50_000)
        self.clock_publisher = None
        self._states = self.create_publisher(JointState, "joint_states", 10)
        self.create_subscription(
            JointGroupCommand, "commands/joint_group", self._on_group, 100, callback_group=group
        )
        self.create_subscription(
            JointSingleCommand, "commands/joint_single", self._on_single, 100, callback_group=group
        )
        for kind, name, callback in (
            (RobotInfo, "get_robot_info", self._info),
            (RegisterValues, "get_motor_registers", self._get),
            (RegisterValues, "set_motor_registers", self._set),
        ):
            self.create_service(kind, name, callback, callback_group=group)
        self.create_timer(0.01, self._publish)

    def _on_group(self, message):
        assert message.name == "arm"
        self.commands.append((time.monotonic(), np.array(message.cmd, dtype=np.float64)))
        if self.follows:
            self.q = self.commands[-1][1]

    def _on_single(self, message):
        assert message.name == "gripper"
        self.pwms.append(message.cmd)

    def _info(self, request, response):
        if request.cmd_type == "group":
            response.mode = "position"
            response.joint_names = list(JOINT_NAMES)
            response.joint_lower_limits = JOINT_LOWER_RAD.tolist()
            response.joint_upper_limits = JOINT_UPPER_RAD.tolist()
        else:
            response.mode = "pwm"
        return response

    def _get(self, request, response):
        if request.reg in self.profile:
            response.values = [self.profile[request.reg]] * 6
        elif self.answering:
            values = self.registers[request.reg]
            names = SERVOS if request.cmd_type == "group" else (request.name,)
            response.values = [values[name] for name in names]
        return response

    def _set(self, request, response):
        self.profile[request.reg] = request.value
        return response

    def _publish(self):
        if not self.publishing:
            return
        d = finger_distance_m(self.gripper_rad)
        message = JointState(
            name=[*JOINT_NAMES, "gripper", "left_finger", "right_finger"],
            position=[*self.q.tolist(), self.gripper_rad, d, -d],
            effort=list(self.efforts_ma),
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._states.publish(message)
        if self.clock_publisher is not None:
            self.clock_publisher.publish(Clock(clock=message.header.stamp))


class Controller(Node):
    """Streams joint positions at 50 Hz into the guard, and operates it."""

    def __init__(self, context, arm):
        super().__init__("controller", context=context, namespace=NAMESPACE)
        self.arm = arm
        self.pose = START.copy()
        self.goal = START.copy()
        self.speed_rad_s = 0.8
        self.streaming = False
        self.group = "arm"
        self.sent: deque = deque(maxlen=50_000)
        self.statuses: deque = deque(maxlen=1000)
        self.diagnostics: dict[str, str] = {}
        self.level = None
        group = ReentrantCallbackGroup()
        self.group_publisher = self.create_publisher(JointGroupCommand, "guarded/joint_group", 1)
        self.single_publisher = self.create_publisher(JointSingleCommand, "guarded/joint_single", 1)
        self.button = self.create_publisher(Bool, "emergency_stop", 1)
        self.stop_client = self.create_client(Trigger, "emergency_stop", callback_group=group)
        self.rearm_client = self.create_client(Trigger, "rearm", callback_group=group)
        kept = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(
            GuardStatus, "arm_guard/status", self._on_status, kept, callback_group=group
        )
        self.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, 10, callback_group=group
        )
        self.create_timer(PERIOD_S, self._tick)

    def _on_status(self, message):
        self.statuses.append(message)

    def _on_diagnostics(self, message):
        for status in message.status:
            if status.name.endswith("arm_guard: guard"):
                self.diagnostics = {v.key: v.value for v in status.values}
                self.level = status.level

    def _tick(self):
        if self.streaming:
            largest = self.speed_rad_s * PERIOD_S
            self.pose = self.pose + np.clip(self.goal - self.pose, -largest, largest)
            self.send(self.pose)

    def send(self, values):
        message = JointGroupCommand(name=self.group, cmd=[float(v) for v in values])
        self.sent.append(np.array(message.cmd, dtype=np.float64))
        self.group_publisher.publish(message)

    def grip(self, pwm, name="gripper"):
        self.single_publisher.publish(JointSingleCommand(name=name, cmd=float(pwm)))

    @property
    def status(self):
        return self.statuses[-1] if self.statuses else None

    def is_in(self, state, code=""):
        return self.status is not None and (self.status.state, self.status.code) == (state, code)

    def told(self, state, code):
        """The newest status of this kind since `statuses` was cleared: some last half a second."""
        kinds = [m for m in list(self.statuses) if (m.state, m.code) == (state, code)]
        return kinds[-1] if kinds else None

    def wait_passing(self):
        until(lambda: self.is_in(GuardStatus.STATE_PASSING), what=lambda: self.status)

    def call(self, client):
        assert client.wait_for_service(timeout_sec=30.0)
        future = client.call_async(Trigger.Request())
        until(future.done, what=client.service_name)
        return future.result()

    def return_to_start(self):
        """Take up the arm where it is, and bring it back."""
        self.pose = self.arm.q.copy()
        self.goal = START.copy()
        self.speed_rad_s = 0.8
        self.streaming = True
        until(lambda: np.abs(self.arm.q - START).max() < 1e-6, what=lambda: self.status)
        self.wait_passing()


class Bench(SpunNodes):
    """Arm and controller in a DDS domain of their own, and the guard's process on request."""

    def __init__(self, domain):
        super().__init__(domain)
        self.environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
        self.processes = []
        self.arm = self.add(Arm(self.context))
        self.controller = self.add(Controller(self.context, self.arm))

    def start(self, module, *arguments, environment=None, **parameters):
        """Start a node's process."""
        command = [sys.executable, "-m", module, "--ros-args", "-r", f"__ns:={NAMESPACE}"]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={value}"]
        process = subprocess.Popen(
            [*command, *arguments], env={**self.environment, **(environment or {})}
        )
        self.processes.append(process)
        return process

    def start_guard(self, **parameters):
        """Start the guard and wait until a stream passes through it."""
        process = self.start("widowx_control.guard.node", **parameters)
        self.controller.streaming = True
        until(lambda: self.arm.commands, 60.0, lambda: self.controller.status)
        self.controller.wait_passing()
        return process

    def close(self):
        super().close()
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def bench(free_domain):
    bench = Bench(free_domain)
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def guarded(module_domain):
    """One guard for all codes; each test leaves it passing, with the arm at START."""
    bench = Bench(module_domain)
    bench.guard = bench.start_guard(**QUICK)
    yield bench
    bench.close()


def last_motion_s(arm):
    """When the commanded joints changed for the last time."""
    commands = list(arm.commands)
    changes = [
        at_s
        for (_, before), (at_s, after) in itertools.pairwise(commands)
        if np.abs(after - before).max() > 1e-6
    ]
    return changes[-1] if changes else -math.inf


# -- every code ------------------------------------------------------------------------------


def go(bench, goal, speed_rad_s=0.8):
    bench.controller.goal = np.asarray(goal)
    bench.controller.speed_rad_s = speed_rad_s


def moved(joint, angle_rad):
    pose = START.copy()
    pose[joint] += angle_rad
    return pose


def set_pose(bench, pose):
    """Put the arm somewhere by hand, while the stream rests."""
    bench.controller.streaming = False
    until(lambda: time.monotonic() - bench.arm.commands[-1][0] > 1.2)
    bench.arm.q = np.array(pose)
    bench.controller.pose = bench.controller.goal = np.array(pose)
    bench.controller.streaming = True
    count = len(bench.arm.commands)
    until(lambda: len(bench.arm.commands) > count + 2, what=lambda: bench.controller.status)


def jump(bench):
    """Jumps within the speed's budget; more than one, as a late message makes a slow one of it."""
    controller = bench.controller
    for _ in range(20):
        controller.pose = moved(0, 0.09)
        jumped_s = time.monotonic()
        while time.monotonic() - jumped_s < 0.4:
            if controller.is_in(GuardStatus.STATE_SLOWING, Code.JOINT_ACCELERATION):
                return
            time.sleep(0.005)


def jump_after_rearm(bench):
    bench.controller.call(bench.controller.stop_client)
    bench.controller.pose = bench.controller.goal = moved(0, 0.3)
    assert bench.controller.call(bench.controller.rearm_client).success


def stall(bench):
    bench.controller.grip(-350.0)


def stale(bench):
    """The guard's process sleeps; the command that waits for it is old when it wakes up."""
    controller = bench.controller
    controller.streaming = False
    until(lambda: time.monotonic() - bench.arm.commands[-1][0] > 0.1)
    bench.guard.send_signal(signal.SIGSTOP)
    controller.send(START)
    slept_s = time.monotonic()
    until(lambda: time.monotonic() - slept_s > 0.4)
    bench.guard.send_signal(signal.SIGCONT)


def non_finite(bench):
    """Alone: in the stream the next command may take its place before the guard looks."""
    bench.controller.streaming = False
    until(lambda: time.monotonic() - bench.arm.commands[-1][0] > 0.1)
    bench.controller.send(moved(0, math.nan))


_CLOCK_AHEAD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += 1;
    return result;
}
"""
_SENDER = """
import rclpy
from interbotix_xs_msgs.msg import JointGroupCommand
rclpy.init()
node = rclpy.create_node("ahead", namespace="/wx250s")
publisher = node.create_publisher(JointGroupCommand, "guarded/joint_group", 1)
node.create_timer(0.05, lambda: publisher.publish(JointGroupCommand(name="arm", cmd=[0.0] * 6)))
rclpy.spin(node)
"""


def future(bench):
    """A sender on a machine whose clock is a second ahead."""
    bench.controller.streaming = False
    library = bench.folder / "clock_ahead.so"
    source = bench.folder / "clock_ahead.c"
    source.write_text(_CLOCK_AHEAD)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    bench.ahead = subprocess.Popen(
        [sys.executable, "-c", _SENDER], env={**bench.environment, "LD_PRELOAD": str(library)}
    )
    bench.processes.append(bench.ahead)


def end_future(bench):
    bench.ahead.kill()
    bench.ahead.wait()
    # The guard counts a sender for a second of silence, and looks for senders once a second.
    ended_s = time.monotonic()
    until(lambda: time.monotonic() - ended_s > 2.1)


def late(bench):
    go(bench, moved(0, 1.0))
    until(lambda: bench.arm.q[0] > 0.3)
    bench.controller.streaming = False


def beyond_limit(bench):
    bench.controller.pose = bench.controller.goal = moved(ELBOW, 1.7)


def leave_workspace(bench):
    set_pose(bench, [2.0, 0, 0, 0, 0, 0])
    go(bench, [3.0, 0, 0, 0, 0, 0])


def onto_the_table(bench):
    kinematics = ArmKinematics()
    pose = kinematics.forward(START)
    pose[2, 3] = -0.03
    go(bench, kinematics.inverse(pose, START).joint_positions_rad, 0.3)


def fold(bench):
    set_pose(bench, [0.0, -1.0, 1.2, 0.0, 1.2, 0.0])
    go(bench, [0.0, -1.6, 1.6, 0.0, 2.1, 0.0])


def unfold(bench):
    set_pose(bench, START)


def block(bench):
    bench.arm.follows = False
    go(bench, moved(0, 1.0))


def unblock(bench):
    bench.arm.follows = True


def bypass(bench):
    bench.rival = Node("puppet", context=bench.context, namespace=NAMESPACE)
    bench.rival.create_publisher(JointGroupCommand, "commands/joint_group", 1)


def end_bypass(bench):
    bench.rival.destroy_node()


def attribute(name, wrong, right):
    return (
        lambda bench: setattr(bench.arm, name, wrong),
        lambda bench: setattr(bench.arm, name, right),
    )


def register(name, servo, wrong, right):
    return (
        lambda bench: bench.arm.registers[name].update({servo: wrong}),
        lambda bench: bench.arm.registers[name].update({servo: right}),
    )


def nothing(_bench):
    pass


def press(pressed):
    return lambda bench: bench.controller.button.publish(Bool(data=pressed))


CAUSES = {
    Code.JOINT_SPEED: (lambda b: go(b, moved(0, 1.5), 2.0), nothing),
    Code.JOINT_ACCELERATION: (jump, nothing),
    Code.RESUME_SPEED: (jump_after_rearm, nothing),
    Code.GRIPPER_PWM: (lambda b: b.controller.grip(-500.0), lambda b: b.controller.grip(0.0)),
    Code.GRIPPER_STALL: (stall, lambda b: b.controller.grip(0.0)),
    Code.COMMAND_MALFORMED: (
        lambda b: setattr(b.controller, "group", "all"),
        lambda b: setattr(b.controller, "group", "arm"),
    ),
    Code.COMMAND_STALE: (stale, nothing),
    Code.COMMAND_FUTURE: (future, end_future),
    Code.COMMAND_LATE: (late, nothing),
    Code.JOINT_LIMIT: (beyond_limit, nothing),
    Code.WORKSPACE: (leave_workspace, lambda b: set_pose(b, START)),
    Code.TABLE: (onto_the_table, nothing),
    Code.SELF_COLLISION: (fold, unfold),
    Code.TRACKING_ERROR: (block, unblock),
    Code.OTHER_PUBLISHER: (bypass, end_bypass),
    Code.SERVO_STATUS_LOST: attribute("answering", False, True),
    Code.JOINT_STATES_LATE: attribute("publishing", False, True),
    Code.COMMAND_NON_FINITE: (non_finite, nothing),
    Code.JOINT_STATES_LOST: attribute("publishing", False, True),
    Code.SERVO_CURRENT: attribute("efforts_ma", [0.0, 2300.0, *[0.0] * 7], [0.0] * 9),
    Code.SERVO_TEMPERATURE: register(TEMPERATURE_REGISTER, "elbow_shadow", 70, 40),
    Code.SERVO_VOLTAGE_LOW: register(VOLTAGE_REGISTER, "waist", 95, 120),
    Code.SERVO_VOLTAGE_HIGH: register(VOLTAGE_REGISTER, "gripper", 140, 120),
    Code.SERVO_HARDWARE_ERROR: register(ERROR_REGISTER, "shoulder_shadow", 0x20, 0),
    Code.EMERGENCY_STOP: (press(True), press(False)),
}
"""How each code is caused from outside the guard, and how the cause is removed."""


@pytest.mark.parametrize("code", CHECKS)
def test_every_code(guarded, code, tmp_path):
    if code is Code.COMMAND_FUTURE and shutil.which("gcc") is None:
        pytest.skip("needs gcc to give a sender another clock")
    guarded.folder = tmp_path
    arm, controller = guarded.arm, guarded.controller
    controller.return_to_start()
    cause, cure = CAUSES[code]
    reaction = CHECKS[code].reaction
    controller.statuses.clear()
    cause(guarded)
    until(lambda: controller.told(STATES[reaction], code), what=lambda: controller.statuses)
    status = controller.told(STATES[reaction], code)
    assert status.message and math.isfinite(status.value) and math.isfinite(status.threshold)
    until(lambda: int(controller.diagnostics.get(f"count_{code}", 0)) >= 1)
    if reaction is Reaction.STOP:
        until(lambda: controller.diagnostics["code"] == code)
        assert controller.level == DiagnosticStatus.ERROR
    assert all(np.isfinite(joints).all() for _, joints in list(arm.commands))
    if reaction is not Reaction.SLOW:
        until(lambda: time.monotonic() - last_motion_s(arm) > 0.2)

    if reaction is Reaction.STOP:
        refused_while_the_cause_is_there = code not in (
            Code.COMMAND_NON_FINITE,  # a single message, over by now
        )
        if refused_while_the_cause_is_there:
            answer = controller.call(controller.rearm_client)
            assert not answer.success and code in answer.message
        cure(guarded)
        count = len(arm.commands)
        controller.pose = arm.q.copy()
        controller.streaming = True
        go(guarded, arm.q + 0.1)
        controller.grip(-300.0)
        until(lambda: len(arm.commands) > count + 20)
        moved_by = [np.abs(joints - arm.q).max() for _, joints in list(arm.commands)[count:]]
        assert max(moved_by) < 1e-6 and arm.pwms[-1] >= -120.0
        assert controller.status.state == GuardStatus.STATE_STOPPED
        until(lambda: controller.call(controller.rearm_client).success)
    else:
        cure(guarded)
    controller.return_to_start()


def test_all_causes_are_covered():
    assert CAUSES.keys() == CHECKS.keys()


# -- behaviour -------------------------------------------------------------------------------


def test_commands_pass_unchanged_and_once(bench):
    bench.start_guard()
    controller = bench.controller
    go(bench, moved(0, 1.0), 1.5)
    until(lambda: np.abs(bench.arm.q - moved(0, 1.0)).max() < 1e-6)
    controller.streaming = False
    until(lambda: time.monotonic() - bench.arm.commands[-1][0] > 0.3)
    # On a busy machine only the newest message counts, and in a gap the last one is repeated:
    # what arrives was sent, and arrives in that order.
    arrived = [joints for _, joints in bench.arm.commands]
    changes = [b for a, b in itertools.pairwise(arrived) if not np.array_equal(a, b)]
    assert len(changes) > 10
    sent = iter(list(controller.sent))
    for joints in changes:
        assert any(np.array_equal(joints, candidate) for candidate in sent)
    controller.grip(-123.0)
    until(lambda: bench.arm.pwms and bench.arm.pwms[-1] == -123.0)


@pytest.mark.parametrize("how", ["topic", "service"])
def test_emergency_stop_in_mid_motion(bench, how):
    bench.start_guard()
    go(bench, moved(0, 2.0), 1.0)
    until(lambda: bench.arm.q[0] > 0.3)
    pressed_s = time.monotonic()
    if how == "topic":
        bench.controller.button.publish(Bool(data=True))
    else:
        assert bench.controller.call(bench.controller.stop_client).success
    until(
        lambda: bench.controller.is_in(GuardStatus.STATE_STOPPED, "emergency_stop"),
        what=lambda: bench.controller.status,
    )
    until(lambda: time.monotonic() - last_motion_s(bench.arm) > 0.3)
    assert last_motion_s(bench.arm) - pressed_s < STOPPED_WITHIN_S
    # Who comes later sees it too.
    late = Node("late", context=bench.context, namespace=NAMESPACE)
    seen: list = []
    kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    late.create_subscription(GuardStatus, "arm_guard/status", lambda m: seen.append(m), kept)
    bench.add(late)
    until(lambda: seen and seen[-1].state == GuardStatus.STATE_STOPPED)


def test_the_guard_dies_in_mid_motion(bench):
    process = bench.start_guard()
    go(bench, moved(0, 2.0), 1.0)
    until(lambda: bench.arm.q[0] > 0.3)
    process.kill()
    killed_s = time.monotonic()
    until(lambda: time.monotonic() - killed_s > 0.5)
    assert last_motion_s(bench.arm) - killed_s < STOPPED_WITHIN_S


def test_the_arm_controller_is_killed_in_mid_motion(bench):
    """The real controller behind the real guard."""
    bench.start("widowx_control.guard.node")
    controller = bench.start(
        "widowx_control.arm_controller_node",
        "-r",
        "commands/joint_group:=guarded/joint_group",
        "-r",
        "commands/joint_single:=guarded/joint_single",
        discovery_s=0.3,
    )
    operator = bench.controller
    for publisher in (operator.group_publisher, operator.single_publisher):
        operator.destroy_publisher(publisher)  # no rival of the real controller
    change: list = []
    client = operator.create_client(
        ChangeState, "arm_controller/change_state", callback_group=ReentrantCallbackGroup()
    )
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert client.wait_for_service(timeout_sec=60.0)
        future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
        until(future.done, 60.0)
        change.append(future.result().success)
    assert change == [True, True]
    moves: ActionClient = ActionClient(operator, MoveToNamedPose, "move_to_named_pose")
    assert moves.wait_for_server(timeout_sec=30.0)
    moves.send_goal_async(MoveToNamedPose.Goal(pose="sleep", duration_s=6.0))
    until(lambda: np.abs(bench.arm.q - START).max() > 0.4)
    # Both started at once, and no part of the motion was lost before the guard was ready.
    assert np.abs(bench.arm.commands[0][1] - START).max() < 0.05
    controller.kill()
    killed_s = time.monotonic()
    until(
        lambda: operator.is_in(GuardStatus.STATE_HOLDING, "command_late"),
        what=lambda: operator.status,
    )
    until(lambda: time.monotonic() - killed_s > 0.5)
    assert last_motion_s(bench.arm) - killed_s < STOPPED_WITHIN_S
    # The stream is over after a while, and the guard leaves the driver alone.
    operator.wait_passing()
    assert bench.arm.pwms[-1] in (0.0, -120.0)


def test_simulated_time_that_stops_does_not_stop_the_watchdog(bench):
    bench.arm.clock_publisher = bench.arm.create_publisher(Clock, "/clock", 10)
    bench.start_guard(use_sim_time=True)
    go(bench, moved(0, 0.5), 2.0)
    until(lambda: np.abs(bench.arm.q - moved(0, 0.5)).max() < 1e-6)
    bench.arm.publishing = False  # and the clock with it
    until(
        lambda: bench.controller.is_in(GuardStatus.STATE_STOPPED, "joint_states_lost"),
        what=lambda: bench.controller.status,
    )


@pytest.mark.parametrize(
    ("parameter", "told"),
    [
        ("max_temperature_c:=200.0", "to 80"),
        ("max_temprature_c:=60.0", 'unknown parameter "max_temprature_c"'),
        ("workspace_low_m:=[0.9, 0.0, 0.0]", "workspace_low_m"),
    ],
)
def test_bad_parameters_end_the_process_with_a_message(parameter, told):
    command = [sys.executable, "-m", "widowx_control.guard.node", "--ros-args", "-p", parameter]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert told in done.stderr and "Traceback" not in done.stderr
