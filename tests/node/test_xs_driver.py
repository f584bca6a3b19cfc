"""The xs_driver node on the emulated bus, through its public interface only.

The client in these tests does what Interbotix's own Python client does; where that client is
installed, it is run too.
"""

import importlib.util
import math
import random
import subprocess
import sys
import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand, JointTrajectoryCommand
from interbotix_xs_msgs.srv import (
    MotorGains,
    OperatingModes,
    Reboot,
    RegisterValues,
    RobotInfo,
    TorqueEnable,
)
from rclpy.duration import Duration
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from servo_bus_emulator.remote import RemoteServoBus
from spun_nodes import SpunNodes
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectoryPoint

NAMES = [
    *("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper"),
    *("left_finger", "right_finger"),
]
ARM = NAMES[:6]


def wait_for(condition, timeout_s=15.0, what="the condition"):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come true within {timeout_s} s")


class Client(Node):
    """Speaks as the Interbotix client does."""

    def __init__(self, nodes):
        super().__init__("client", context=nodes.context, namespace="/wx250s")
        self.nodes = nodes
        reliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self.states = []
        self.diagnostics = {}
        self.create_subscription(JointState, "joint_states", self.states.append, reliable)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.group = self.create_publisher(JointGroupCommand, "commands/joint_group", 10)
        self.single = self.create_publisher(JointSingleCommand, "commands/joint_single", 10)
        self.trajectory = self.create_publisher(
            JointTrajectoryCommand, "commands/joint_trajectory", 10
        )

    def _on_diagnostics(self, message):
        for status in message.status:
            name = status.name.rpartition("xs_driver: ")[2]
            values = {entry.key: entry.value for entry in status.values}
            self.diagnostics[name] = (status.level, status.message, values)

    def call(self, kind, service, /, **fields):
        return self.nodes.call(kind, service, kind.Request(**fields), timeout_s=25.0)

    def position(self, name):
        return self.states[-1].position[NAMES.index(name)]

    def wait_states(self, count):
        start = len(self.states)
        wait_for(lambda: len(self.states) >= start + count, what="joint_states")


class System(SpunNodes):
    def __init__(self, path, domain, monkeypatch):
        super().__init__(domain)
        self.domain = domain
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        self.emulator = RemoteServoBus(path, "--no-timing")
        self.emulator.start()
        self.process = None
        executor = MultiThreadedExecutor(num_threads=2, context=self.context)
        self.client = self.add(Client(self), executor)

    def start_node(self, *parameters):
        settings = ("reply_margin_ms:=20.0", "bus_watchdog_ms:=500", *parameters)
        arguments = [word for setting in settings for word in ("-p", setting)]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "widowx_control.xs_driver.node", "--ros-args"),
                *("-r", "__ns:=/wx250s", "-p", f"port:={self.emulator.port}", *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end_node(self, signal_name="terminate"):
        getattr(self.process, signal_name)()
        output, _ = self.process.communicate(timeout=20)
        return self.process.returncode, output

    def close(self):
        super().close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        self.emulator.stop()


@pytest.fixture
def system(tmp_path, free_domain, monkeypatch):
    system = System(tmp_path, free_domain, monkeypatch)
    yield system
    system.close()


@pytest.fixture
def running(system):
    system.start_node()
    wait_for(lambda: system.client.states, 90.0, "joint_states")
    return system


def test_the_interface_is_that_of_xs_sdk(running):
    client = running.client
    info = client.call(RobotInfo, "get_robot_info", cmd_type="group", name="arm")
    assert (info.mode, info.profile_type, info.num_joints) == ("position", "time", 6)
    assert list(info.joint_names) == ARM
    gripper = client.call(RobotInfo, "get_robot_info", cmd_type="single", name="gripper")
    assert (gripper.mode, list(gripper.joint_names)) == ("pwm", ["left_finger"])
    assert gripper.joint_lower_limits[0] == pytest.approx(0.015)

    state = client.states[-1]
    assert list(state.name) == NAMES
    assert len(state.position) == len(state.velocity) == len(state.effort) == 9
    assert state.position[7] == -state.position[8] > 0
    assert state.header.stamp.sec > 0
    services = dict(client.get_service_names_and_types())
    for name in (
        *("torque_enable", "reboot_motors", "get_robot_info", "set_operating_modes"),
        *("set_motor_pid_gains", "set_motor_registers", "get_motor_registers"),
    ):
        assert f"/wx250s/{name}" in services


@pytest.mark.alone
def test_a_session_of_the_interbotix_client(running):
    client = running.client
    for register, value in (("Profile_Velocity", 400), ("Profile_Acceleration", 100)):
        client.call(
            RegisterValues,
            "set_motor_registers",
            cmd_type="group",
            name="arm",
            reg=register,
            value=value,
        )
    client.group.publish(JointGroupCommand(name="arm", cmd=[0.4, -0.9, 0.9, -0.4, 0.4, 0.3]))
    wait_for(lambda: abs(client.position("waist") - 0.4) < 0.03)
    client.single.publish(JointSingleCommand(name="forearm_roll", cmd=0.5))
    wait_for(lambda: abs(client.position("forearm_roll") - 0.5) < 0.03)

    client.single.publish(JointSingleCommand(name="gripper", cmd=250.0))
    wait_for(lambda: client.position("left_finger") >= 0.0365)
    client.single.publish(JointSingleCommand(name="gripper", cmd=-250.0))
    wait_for(lambda: client.position("left_finger") <= 0.0155)
    client.single.publish(JointSingleCommand(name="gripper", cmd=0.0))

    message = JointTrajectoryCommand(cmd_type="group", name="arm")
    for k in range(25):
        point = JointTrajectoryPoint(positions=[0.4 - 0.02 * k, -0.9, 0.9, 0.5, 0.4, 0.3])
        point.time_from_start = Duration(seconds=0.05 * k).to_msg()
        message.traj.points.append(point)
    start = time.monotonic()
    client.trajectory.publish(message)
    wait_for(lambda: abs(client.position("waist") + 0.08) < 0.02)
    # 1.2 s across a whole second; the reference driver would stop there for 3 s.
    assert time.monotonic() - start < 3.0

    gains = dict.fromkeys(("ki_pos", "kd_pos", "k1", "k2"), 0)
    client.call(
        MotorGains,
        "set_motor_pid_gains",
        cmd_type="group",
        name="arm",
        kp_pos=700,
        kp_vel=100,
        ki_vel=1920,
        **gains,
    )
    values = client.call(
        RegisterValues, "get_motor_registers", cmd_type="group", name="arm", reg="Position_P_Gain"
    ).values
    assert list(values) == [700] * 6
    client.call(Reboot, "reboot_motors", cmd_type="single", name="gripper", enable=True)
    client.call(
        OperatingModes,
        "set_operating_modes",
        cmd_type="single",
        name="gripper",
        mode="linear_position",
        profile_type="velocity",
        profile_velocity=131,
        profile_acceleration=15,
    )
    client.single.publish(JointSingleCommand(name="gripper", cmd=0.05))
    wait_for(lambda: abs(client.position("left_finger") - 0.025) < 0.001)
    client.call(TorqueEnable, "torque_enable", cmd_type="group", name="arm", enable=False)
    client.call(TorqueEnable, "torque_enable", cmd_type="group", name="arm", enable=True)
    client.group.publish(JointGroupCommand(name="arm", cmd=[0.0, -1.8, 1.55, 0.0, 0.8, 0.0]))
    wait_for(lambda: abs(client.position("shoulder") + 1.8) < 0.06)
    code, output = running.end_node()
    assert code == 0, output
    assert "Traceback" not in output


def test_rubbish_is_refused_counted_and_survived(running):
    client = running.client
    wait_for(lambda: client.trajectory.get_subscription_count() == 1)
    rng = random.Random(7)
    odd = [math.nan, math.inf, -math.inf, 1e38, -5.0, 0.0]
    names = ["arm", "all", "leg", "", "gripper", "waist", "шар", "left_finger"]
    held = client.position("waist")
    for k in range(300):
        values = [rng.choice(odd) for _ in range(rng.randrange(0, 9))]
        values[:1] = [math.nan]
        client.group.publish(JointGroupCommand(name=rng.choice(names), cmd=values))
        client.single.publish(JointSingleCommand(name=rng.choice(names), cmd=rng.choice(odd[:4])))
        message = JointTrajectoryCommand(
            cmd_type=rng.choice(["group", "single", "x"]), name=rng.choice(names)
        )
        for _ in range(rng.randrange(4)):
            point = JointTrajectoryPoint(positions=[rng.choice(odd[:4])] * rng.randrange(8))
            point.time_from_start.sec = rng.randrange(-5, 5)
            message.traj.points.append(point)
        client.trajectory.publish(message)
        if k % 20 == 0:
            client.wait_states(2)
    for kind, service, fields in (
        (RobotInfo, "get_robot_info", {"cmd_type": "group", "name": "leg"}),
        (RobotInfo, "get_robot_info", {"cmd_type": "both", "name": "arm"}),
        (RegisterValues, "get_motor_registers", {"cmd_type": "group", "name": "leg"}),
        (
            RegisterValues,
            "get_motor_registers",
            {"cmd_type": "group", "name": "arm", "reg": "Nothing"},
        ),
        (OperatingModes, "set_operating_modes", {"cmd_type": "group", "name": "arm"}),
        (TorqueEnable, "torque_enable", {"cmd_type": "single", "name": "left_finger"}),
        (Reboot, "reboot_motors", {"cmd_type": "", "name": ""}),
    ):
        answer = client.call(kind, service, **fields)
        assert answer == kind.Response()
    client.wait_states(10)
    assert client.position("waist") == pytest.approx(held, abs=0.01)

    def refused():
        _, _, values = client.diagnostics.get("bus", (None, None, {}))
        counts = {k: int(v) for k, v in values.items() if k.startswith("refused_")}
        return counts.get("refused_unknown_name", 0) > 50 and (
            counts.get("refused_service_get_robot_info") == 2
        )

    wait_for(refused)
    assert running.process.poll() is None


def test_a_fault_shows_in_diagnostics_and_stays_until_rearmed(running):
    client = running.client
    running.emulator.tell("overload 4")
    # On a busy machine the bus may be lost for a moment first, which is an error of its own.
    wait_for(
        lambda: (
            "elbow (ID 4) shut down: overload" in client.diagnostics.get("bus", (0, "", {}))[1]
            and client.diagnostics["bus"][2]["state"] == "stopped"
        ),
        what="a stop for the elbow's overload",
    )
    assert client.diagnostics["bus"][0] == b"\x02"
    assert client.diagnostics["elbow"][0] == b"\x02"
    answer = client.call(Trigger, "xs_driver/rearm")
    assert not answer.success
    assert "reboot_motors" in answer.message
    client.call(Reboot, "reboot_motors", cmd_type="group", name="all", smart_reboot=True)
    # Not enabled: the elbow stays without torque, and the stop stays latched.
    assert client.call(Trigger, "xs_driver/rearm").success
    wait_for(lambda: client.diagnostics["bus"][2]["state"] == "running")
    client.call(TorqueEnable, "torque_enable", cmd_type="group", name="arm", enable=True)
    assert client.call(Trigger, "xs_driver/stop").success
    wait_for(lambda: client.diagnostics["bus"][2]["state"] == "stopped")
    assert client.call(Trigger, "xs_driver/rearm").success


def test_an_unplugged_bus_comes_back_by_itself_and_stays_stopped(running):
    client = running.client
    running.emulator.tell("unplug_bus")
    wait_for(lambda: client.diagnostics.get("bus", (0, 0, {}))[2].get("state") == "disconnected")
    count = len(client.states)
    running.emulator.tell("plug_bus")
    wait_for(lambda: len(client.states) > count, 4.0)
    wait_for(lambda: client.diagnostics["bus"][2]["state"] == "stopped")
    held = client.position("waist")
    client.group.publish(JointGroupCommand(name="arm", cmd=[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    client.wait_states(30)
    assert client.position("waist") == pytest.approx(held, abs=0.01)
    assert client.call(Trigger, "xs_driver/rearm").success
    client.group.publish(JointGroupCommand(name="arm", cmd=[0.5, -1.0, 1.0, 0.0, 0.0, 0.0]))
    wait_for(lambda: abs(client.position("waist") - 0.5) < 0.05)


def test_a_killed_driver_leaves_a_still_arm(running):
    client = running.client
    client.group.publish(JointGroupCommand(name="arm", cmd=[2.0, -1.0, 1.0, 0.0, 0.0, 0.0]))
    wait_for(lambda: client.position("waist") > 0.1)
    running.process.kill()

    def speed():
        return max(abs(servo["velocity_rad_s"]) for servo in running.emulator.state().values())

    wait_for(lambda: speed() < 0.02, 1.5, "standstill")


def test_wrong_parameters_end_the_node_with_a_reason(system, tmp_path):
    wrong = tmp_path / "motors.yaml"
    wrong.write_text("joint_order: [waist]\nmotors: {waist: {ID: 999}}\n")
    for parameter, reason in (
        (f"motor_configs:={wrong}", "motors.waist.ID"),
        ("mode_configs:=/nowhere.yaml", "/nowhere.yaml"),
        ("bus_watchdog_ms:=5000", "bus_watchdog_ms"),
        ("xs_driver_logging_level:=LOUD", "LOUD"),
        ("robot_description:=not xml", "robot_description"),
    ):
        system.start_node(parameter)
        output, _ = system.process.communicate(timeout=40)
        assert system.process.returncode == 2, output
        assert reason in output
        assert "Traceback" not in output


@pytest.mark.skipif(
    importlib.util.find_spec("interbotix_xs_modules") is None,
    reason="Interbotix's Python client is not installed",
)
def test_the_unmodified_interbotix_client_moves_the_arm(running):
    script = """
from interbotix_common_modules.common_robot.robot import robot_shutdown, robot_startup
from interbotix_xs_modules.xs_robot.arm import InterbotixManipulatorXS
bot = InterbotixManipulatorXS(robot_model="wx250s", group_name="arm", gripper_name="gripper")
robot_startup()
bot.arm.go_to_home_pose(moving_time=1.0)
assert max(map(abs, bot.core.joint_states.position[:6])) < 0.07
assert bot.arm.set_ee_pose_components(x=0.3, z=0.2, moving_time=1.0)[1]
assert bot.arm.set_ee_cartesian_trajectory(z=-0.05, moving_time=1.5)
bot.gripper.release(1.5)
assert bot.core.joint_states.position[7] > 0.036
bot.gripper.grasp(1.5)
assert bot.core.joint_states.position[7] < 0.016
bot.arm.go_to_sleep_pose(moving_time=1.0)
assert abs(bot.core.joint_states.position[1] + 1.8) < 0.07
robot_shutdown()
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=90, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
