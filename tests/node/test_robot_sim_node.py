"""The simulator node as a process of its own, through its topics and services only."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque

import numpy as np
import pytest
import rclpy
import serial
from emulators.control_socket import tell
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand, JointTrajectoryCommand
from interbotix_xs_msgs.srv import (
    MotorGains,
    OperatingModes,
    Reboot,
    RegisterValues,
    RobotInfo,
    TorqueEnable,
)
from policy_interfaces.msg import TaskStatus
from policy_interfaces.srv import ResetScene
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from robot_sim.robot_sim_node import RIVAL_WATCH_S
from robot_sim.tasks import TASKS
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from trajectory_msgs.msg import JointTrajectoryPoint

NAMESPACE = "/wx250s"
START = [0.0, 0.022, 0.1831, 0.0, 1.3657, 0.0]
JOINTS = ["waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate"]
NAMES = [*JOINTS, "gripper", "left_finger", "right_finger"]
TIMEOUT_S = 20.0


def launch(domain, *parameters):
    command = [sys.executable, "-m", "robot_sim.robot_sim_node", "--ros-args"]
    command += ["-r", f"__ns:={NAMESPACE}"]
    for parameter in parameters:
        command += ["-p", parameter]
    return subprocess.Popen(
        command,
        env=os.environ | {"ROS_DOMAIN_ID": str(domain)},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Interrupt the node and return its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail("the node did not end on SIGINT")
    return process.returncode


class Client:
    """Everything that the tests need from the graph."""

    def __init__(self, domain):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("client", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.joint_states: deque = deque(maxlen=2000)
        self.images: deque = deque(maxlen=200)
        self.infos: deque = deque(maxlen=2)
        self.status: deque = deque(maxlen=2)
        self.clock: deque = deque(maxlen=2)
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        for kind, topic, store, qos in (
            (JointState, f"{NAMESPACE}/joint_states", self.joint_states, 10),
            (Image, "/camera/image_raw", self.images, newest),
            (CameraInfo, "/camera/camera_info", self.infos, newest),
            (TaskStatus, "/robot_sim/task_status", self.status, 10),
            (Clock, "/clock", self.clock, 10),
        ):
            self.node.create_subscription(kind, topic, lambda m, s=store: s.append(m), qos)
        self.group, self.single, self.trajectory = (
            self.node.create_publisher(kind, f"{NAMESPACE}/commands/{name}", 10)
            for kind, name in (
                (JointGroupCommand, "joint_group"),
                (JointSingleCommand, "joint_single"),
                (JointTrajectoryCommand, "joint_trajectory"),
            )
        )
        self._clients = {}

    def until(self, condition, what):
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"timeout: {what}"
            self.executor.spin_once(timeout_sec=0.05)

    def ready(self):
        self.until(lambda: self.joint_states, "no joint_states")
        for publisher in (self.group, self.single, self.trajectory):
            self.until(lambda p=publisher: p.get_subscription_count(), "no subscriber")

    def call(self, kind, service, /, **fields):
        if service not in self._clients:
            path = service if service.startswith("/") else f"{NAMESPACE}/{service}"
            self._clients[service] = self.node.create_client(kind, path)
        client = self._clients[service]
        self.until(client.service_is_ready, f"no service {service}")
        future = client.call_async(kind.Request(**fields))
        self.until(future.done, f"{service} did not answer")
        return future.result()

    def position(self, name):
        return self.joint_states[-1].position[NAMES.index(name)]

    def stamp(self):
        stamp = self.joint_states[-1].header.stamp
        return stamp.sec + 1e-9 * stamp.nanosec

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture(scope="module")
def process(module_domain):
    started = launch(module_domain, "task:=open_drawer", "seed:=3")
    yield started
    assert finish(started) == 0


@pytest.fixture(scope="module")
def client(process, module_domain):
    made = Client(module_domain)
    made.ready()
    yield made
    made.close()


def test_joint_states_have_the_order_of_the_driver(client):
    message = client.joint_states[-1]
    assert list(message.name) == NAMES
    assert message.header.frame_id == ""
    assert len(message.position) == len(message.velocity) == len(message.effort) == 9
    assert message.position[:6] == pytest.approx(START, abs=0.02)
    assert message.position[7] == -message.position[8]


def test_joint_states_come_100_times_per_second_with_rising_stamps(client):
    client.joint_states.clear()
    client.until(lambda: len(client.joint_states) >= 300, "too few joint_states")
    stamps = np.array([m.header.stamp.sec + 1e-9 * m.header.stamp.nanosec
                       for m in client.joint_states])  # fmt: skip
    assert (np.diff(stamps) > 0).all()
    assert (stamps[-1] - stamps[0]) / (len(stamps) - 1) == pytest.approx(0.01, rel=0.05)


def test_the_camera_sends_rgb_and_its_intrinsics(client):
    client.until(lambda: client.images and client.infos, "no camera")
    image = client.images[-1]
    assert (image.width, image.height, image.encoding, image.step) == (640, 480, "rgb8", 1920)
    pixels = np.frombuffer(image.data, np.uint8).reshape(480, 640, 3)
    assert pixels.std() > 20
    assert client.infos[-1].k[2] == pytest.approx(319.5)


@pytest.mark.parametrize(
    ("cmd_type", "name", "expected"),
    [
        ("group", "arm", ("position", "time", JOINTS, [1, 2, 4, 6, 7, 8], [0, 1, 2, 3, 4, 5])),
        ("single", "gripper", ("pwm", "velocity", ["left_finger"], [9], [7])),
    ],
)
def test_robot_info_is_what_stock_clients_expect(client, cmd_type, name, expected):
    info = client.call(RobotInfo, "get_robot_info", cmd_type=cmd_type, name=name)
    assert (
        info.mode,
        info.profile_type,
        list(info.joint_names),
        list(info.joint_ids),
        list(info.joint_state_indices),
    ) == expected
    assert info.num_joints == len(info.joint_names) == len(info.joint_lower_limits)


def test_a_group_command_arrives_in_the_time_of_its_profile(client):
    for register, value in (("Profile_Velocity", 1000), ("Profile_Acceleration", 300)):
        client.call(
            RegisterValues,
            "set_motor_registers",
            cmd_type="group",
            name="arm",
            reg=register,
            value=value,
        )
    goal = [0.4, *START[1:]]
    client.group.publish(JointGroupCommand(name="arm", cmd=goal))
    client.until(lambda: client.position("waist") > 0.02, "the arm does not move")
    began = client.stamp()
    client.until(lambda: client.position("waist") > 0.385, "the arm does not arrive")
    assert 0.4 < client.stamp() - began < 1.0
    client.group.publish(JointGroupCommand(name="arm", cmd=START))
    client.until(lambda: abs(client.position("waist")) < 0.01, "the arm does not return")


@pytest.mark.parametrize(("pwm", "limit"), [(-250.0, 0.0155), (250.0, 0.0365)])
def test_gripper_pwm_closes_and_opens(client, pwm, limit):
    client.single.publish(JointSingleCommand(name="gripper", cmd=pwm))
    client.until(
        lambda: (client.position("left_finger") - limit) * pwm > 0, "the fingers do not arrive"
    )
    client.single.publish(JointSingleCommand(name="gripper", cmd=0.0))


def test_a_trajectory_keeps_its_times_across_a_whole_second(client):
    message = JointTrajectoryCommand(cmd_type="group", name="arm")
    for k in range(6):
        point = JointTrajectoryPoint(positions=[0.1 * k, *START[1:]])
        point.time_from_start.sec, point.time_from_start.nanosec = divmod(k * 300_000_000, 10**9)
        message.traj.points.append(point)
    client.call(
        RegisterValues,
        "set_motor_registers",
        cmd_type="group",
        name="arm",
        reg="Profile_Velocity",
        value=300,
    )
    client.trajectory.publish(message)
    client.until(lambda: client.position("waist") > 0.02, "the trajectory does not start")
    began = client.stamp()
    client.until(lambda: client.position("waist") > 0.485, "the trajectory does not end")
    assert 1.0 < client.stamp() - began < 1.9
    client.group.publish(JointGroupCommand(name="arm", cmd=START))
    client.until(lambda: abs(client.position("waist")) < 0.01, "the arm does not return")


def test_bad_names_and_values_do_not_kill_it_and_change_nothing(client):
    client.group.publish(JointGroupCommand(name="legs", cmd=[0.0] * 6))
    client.group.publish(JointGroupCommand(name="arm", cmd=[0.0] * 5))
    client.group.publish(JointGroupCommand(name="arm", cmd=[float("nan")] * 6))
    client.single.publish(JointSingleCommand(name="left_finger", cmd=250.0))
    client.trajectory.publish(JointTrajectoryCommand(cmd_type="crowd", name="arm"))
    for kind, name, fields in (
        (RobotInfo, "get_robot_info", {}),
        (TorqueEnable, "torque_enable", {}),
        (Reboot, "reboot_motors", {}),
        (MotorGains, "set_motor_pid_gains", {}),
        (OperatingModes, "set_operating_modes", {"mode": "fast"}),
        (RegisterValues, "set_motor_registers", {"reg": "Profile_Velocity", "value": 9}),
        (RegisterValues, "get_motor_registers", {"reg": "Profile_Velocity"}),
    ):
        answer = client.call(kind, name, cmd_type="group", name="legs", **fields)
        if kind is RobotInfo:
            assert answer.num_joints == 0
    client.joint_states.clear()
    client.until(lambda: len(client.joint_states) >= 50, "joint_states stopped")
    assert client.joint_states[-1].position[:6] == pytest.approx(START, abs=0.02)


def test_reset_scene_changes_the_task_and_refuses_unknown_ones(client):
    answer = client.call(
        ResetScene, "/robot_sim/reset_scene", task="put_yellow_block_on_plate", seed=9
    )
    assert answer.success
    assert answer.instruction == "put the yellow block on the plate"
    client.until(
        lambda: client.status[-1].task == "put_yellow_block_on_plate", "task_status is old"
    )
    status = client.status[-1]
    assert (status.seed, status.success) == (9, False)
    for task, seed, found in (("dance", 1, "dance"), ("open_drawer", -4, "-4")):
        answer = client.call(ResetScene, "/robot_sim/reset_scene", task=task, seed=seed)
        assert not answer.success
        assert found in answer.message
        assert list(answer.known_tasks) == list(TASKS)
    client.until(lambda: client.status[-1].episode == status.episode, "a refused reset counted")


def test_a_second_driver_in_the_namespace_refuses_to_start(client, module_domain):
    # Of two that start together both may give way; the first is safe once it has stopped looking.
    first_s = time.monotonic()
    client.until(lambda: time.monotonic() > first_s + RIVAL_WATCH_S, "the clock stands still")
    rival = launch(module_domain)
    _, errors = rival.communicate(timeout=TIMEOUT_S)
    # On a busy machine it discovers the first one only after it has started, and ends then.
    assert rival.returncode in (1, 2)
    # The other's name may not have been discovered yet when its publisher has.
    assert f"{NAMESPACE}/joint_states is already published by" in errors


@pytest.mark.parametrize(
    ("parameter", "found"),
    [
        ("task:=fold_towel", "fold_towel"),
        ("rtf:=0.0", "rtf"),
        ("rtf:=fast", "rtf"),
        ("seed:=-1", "seed"),
        ("camera_rate:=30.0", 'unknown parameter "camera_rate", did you mean "camera_rate_hz"'),
        ("viewer:=vr", "expected one of ['none', 'window']"),
        ("servo_bus:=/no/such/folder/tty", "there is no folder /no/such/folder"),
        ("servo_bus:=/etc/passwd", "exists and is not a link"),
        ("servo_bus_control:=/no/bus", "no bus to control"),
    ],
)
def test_wrong_parameters_end_it_with_a_message(free_domain, parameter, found):
    process = launch(free_domain, parameter)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 2
    assert found in errors
    assert "Traceback" not in errors


@pytest.mark.alone
def test_faster_than_real_time_publishes_the_clock_and_stamps_with_it(free_domain):
    process = launch(free_domain, "rtf:=2.0")
    client = Client(free_domain)
    try:
        client.ready()
        client.until(lambda: client.clock and client.images, "no clock or no image")
        seen = [(time.monotonic(), client.stamp())]

        def is_faster():
            """Over some second: few computers keep the pace, and none all the time."""
            seen.append((time.monotonic(), client.stamp()))
            now_s, to_s = seen[-1]
            began_s, from_s = next(entry for entry in seen if now_s - entry[0] < 1.0)
            return now_s - began_s > 0.8 and to_s - from_s > 1.1 * (now_s - began_s)

        client.until(is_faster, "simulated time is not faster than real time")
        (began_s, from_s), (now_s, to_s) = seen[0], seen[-1]
        assert to_s - from_s < 2.0 * (now_s - began_s) + 1.0
        assert client.stamp() < 100.0

        def clock_s():
            clock = client.clock[-1].clock
            return clock.sec + 1e-9 * clock.nanosec

        # Messages of one topic may wait in their queue while those of another are taken.
        client.until(lambda: abs(clock_s() - client.stamp()) < 0.2, "the clock is not the stamps'")
    finally:
        client.close()
        assert finish(process) == 0


def test_behind_a_servo_bus_there_are_servos_instead_of_topics(tmp_path, free_domain):
    link, control = tmp_path / "ttyDXL", tmp_path / "control"
    process = launch(free_domain, f"servo_bus:={link}", f"servo_bus_control:={control}")
    client = Client(free_domain)
    try:
        client.until(lambda: client.images and client.status, "no image or no task_status")
        laid = client.call(ResetScene, "/robot_sim/reset_scene", task="open_drawer", seed=5)
        assert laid.success
        client.until(lambda: client.status[-1].task == "open_drawer", "the scene stays")
        assert client.status[-1].seed == 5 and not client.status[-1].success
        servos = json.loads(tell(control, "state"))
        assert [servo["id"] for servo in servos] == list(range(1, 10))
        assert all(servo["answers"] and not servo["Torque_Enable"] for servo in servos)
        with serial.Serial(str(link), 1_000_000, timeout=TIMEOUT_S) as port:
            ping_of_servo_4 = bytes.fromhex("fffffd0004030001190a")
            port.write(ping_of_servo_4)
            answer = port.read(14)
        assert answer[:5] == b"\xff\xff\xfd\x00\x04" and answer[7] == 0x55
        assert not client.joint_states
        assert client.node.count_publishers(f"{NAMESPACE}/joint_states") == 0
    finally:
        client.close()
        code = finish(process)
    assert code == 0
    assert not link.is_symlink() and not control.exists()


def test_the_servos_do_not_outlive_a_killed_simulation(tmp_path, free_domain):
    link, control = tmp_path / "ttyDXL", tmp_path / "control"
    process = launch(free_domain, f"servo_bus:={link}", f"servo_bus_control:={control}")
    client = Client(free_domain)
    try:
        client.until(lambda: client.images, "no image")
        process.kill()
        process.communicate()
        client.until(lambda: not control.exists(), "the process of the servos lives on")
    finally:
        client.close()
        finish(process)


@pytest.mark.skipif(
    importlib.util.find_spec("interbotix_xs_modules") is None,
    reason="Interbotix's Python client is not installed",
)
def test_the_unmodified_interbotix_client_moves_the_arm(client, module_domain):
    script = """
import time
from interbotix_common_modules.common_robot.robot import robot_shutdown, robot_startup
from interbotix_xs_modules.xs_robot.arm import InterbotixManipulatorXS
bot = InterbotixManipulatorXS(robot_model="wx250s", group_name="arm", gripper_name="gripper")
def until(condition):
    deadline = time.monotonic() + 10.0
    while not condition(bot.core.joint_states.position):
        assert time.monotonic() < deadline, bot.core.joint_states
        time.sleep(0.02)
robot_startup()
bot.arm.go_to_home_pose(moving_time=1.0)
until(lambda position: max(map(abs, position[:6])) < 0.02)
assert bot.arm.set_ee_pose_components(x=0.3, z=0.2, moving_time=1.0)[1]
assert bot.arm.set_ee_cartesian_trajectory(z=-0.05, moving_time=1.5)
bot.gripper.release(1.5)
until(lambda position: position[7] > 0.035)
bot.gripper.grasp(1.5)
until(lambda position: position[7] < 0.017)
robot_shutdown()
"""
    client.ready()
    environment = os.environ | {"ROS_DOMAIN_ID": str(module_domain)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=90.0)
