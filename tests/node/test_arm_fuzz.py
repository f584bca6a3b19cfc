"""Random and mutated messages at the arm's nodes: no crash, no motion outside the limits.

The real controller, guard and driver run on the emulated servo bus, and get what they get over
their topics, services and actions. COXSWAIN_FUZZ_MESSAGES sets how many messages are sent in all.
"""

import math
import os
import random
import subprocess
import sys
import time

import numpy as np
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
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from policy_interfaces.action import MoveToNamedPose
from policy_interfaces.msg import EndEffectorDelta
from rclpy.action import ActionClient
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import JointState
from servo_bus_emulator.remote import RemoteServoBus
from spun_nodes import SpunNodes
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectoryPoint
from widowx_control.bridge_spaces import ACTION_NAMES
from widowx_control.guard.arm_geometry import ArmGeometry
from widowx_control.guard.checks import GuardConfig
from widowx_control.kinematics import JOINT_LOWER_RAD, JOINT_NAMES, JOINT_UPPER_RAD, NAMED_POSES

NAMESPACE = "/wx250s"
MESSAGES = int(os.environ.get("COXSWAIN_FUZZ_MESSAGES", "4000"))
"""Half of them go to controller and guard, half to the driver."""
RATE_HZ = 1000.0
STATES = [*JOINT_NAMES, "gripper", "left_finger", "right_finger"]
START = np.array(NAMED_POSES["start"])
OVERSHOOT_RAD = 0.06
"""Of a servo that is told to go to its limit at full speed."""
MEASURED_RAD = 0.03
MEASURED_M = 0.01
"""A pose that is held as it was measured may be this far beyond a limit on what is commanded."""

ODD = [math.nan, math.inf, -math.inf, 3.4e38, -1e30, 1e-45, -0.0, 0.0, 1e9]
TEXTS = ["", "leg", "шар", "arm ", "ARM", "*", "/", "../arm", "x" * 100_000, "\n\x1b[2J", "%s%n"]
GROUPS = ["arm", "gripper", "all", *JOINT_NAMES, "left_finger", "shoulder_shadow", *TEXTS]
REGISTERS = [
    # To be written by right: nothing that lets go of the arm.
    *("Profile_Velocity", "Profile_Acceleration", "Goal_Position", "LED", "Moving"),
    # To be refused.
    *("ID", "Baud_Rate", "Secondary_ID", "Bus_Watchdog", "Operating_Mode", "Drive_Mode"),
    *("Homing_Offset", "Min_Position_Limit", "Max_Position_Limit", "Status_Return_Level"),
    *("Hardware_Error_Status", "Present_Position", "Present_Temperature", *TEXTS),
]


def until(condition, timeout_s=180.0, what="condition"):
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if condition():
            return
        time.sleep(0.01)
    pytest.fail(f"not within {timeout_s} s: {what() if callable(what) else what}")


class Operator(Node):
    """Watches the arm, and operates it before and after."""

    def __init__(self, context):
        super().__init__("operator", context=context, namespace=NAMESPACE)
        self.group = ReentrantCallbackGroup()
        self.q = None
        self.count = 0
        self.violations: list[str] = []
        self.refused = {}
        self.moves: ActionClient = ActionClient(
            self, MoveToNamedPose, "move_to_named_pose", callback_group=self.group
        )
        self.create_subscription(JointState, "joint_states", self._on_states, 10)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_states(self, message):
        # The fuzzer's own have other names, lengths or frames.
        if message.header.frame_id or list(message.name) != STATES:
            return
        q = np.array(message.position)
        self.count += 1
        self.q = q[:6]
        low, high = JOINT_LOWER_RAD - OVERSHOOT_RAD, JOINT_UPPER_RAD + OVERSHOOT_RAD
        if not (np.isfinite(q).all() and (self.q >= low).all() and (self.q <= high).all()):
            self.violations.append(f"the arm is at {q.tolist()}")

    def _on_diagnostics(self, message):
        for status in message.status:
            for entry in status.values:
                if entry.key.startswith(("refused_", "count_", "passed", "accepted")):
                    self.refused[entry.key] = entry.value

    def watch_commands(self):
        """Check all that reaches the driver."""
        self._geometry = ArmGeometry(GuardConfig().self_collision_distance_m)
        self.commands: list[tuple[float, np.ndarray]] = []
        self.create_subscription(JointGroupCommand, "commands/joint_group", self._on_command, 1000)

    def _on_command(self, message):
        config = GuardConfig()
        q = np.array(message.cmd, dtype=np.float64)
        now_s = time.monotonic()
        if message.name != "arm" or q.shape != (6,) or not np.isfinite(q).all():
            self.violations.append(f"'{message.name}' is commanded to {q.tolist()}")
            return
        low, high = JOINT_LOWER_RAD - MEASURED_RAD, JOINT_UPPER_RAD + MEASURED_RAD
        if not ((q >= low).all() and (q <= high).all()):
            self.violations.append(f"joints are commanded to {q.tolist()}")
        posture = self._geometry.posture(q, 0.03)
        box = (
            np.array(config.workspace_low_m) - MEASURED_M,
            np.array(config.workspace_high_m) + MEASURED_M,
        )
        position = posture.end_effector_m
        if not ((position >= box[0]).all() and (position <= box[1]).all()):
            self.violations.append(f"the end effector is commanded to {position}")
        if posture.lowest_m < config.table_height_m - config.max_table_depth_m - MEASURED_M:
            self.violations.append(f"{posture.lowest_part} is commanded to {posture.lowest_m}")
        if posture.nearest_m < config.self_collision_distance_m - MEASURED_M:
            self.violations.append(f"{posture.nearest_parts}: {posture.nearest_m}")
        # Messages may arrive late, by up to half a second here.
        self.commands.append((now_s, q))
        while self.commands[0][0] < now_s - 3.0:
            self.commands.pop(0)
        then_s, before = self.commands[0]
        furthest = config.max_joint_speed_rad_s * (now_s - then_s + 0.6)
        if np.abs(q - before).max() > furthest:
            self.violations.append(f"from {before} to {q} within {now_s - then_s} s")

    def call(self, kind, service, /, **fields):
        client = self.create_client(kind, service, callback_group=self.group)
        assert client.wait_for_service(timeout_sec=60.0), f"no service {service}"
        future = client.call_async(kind.Request(**fields))
        until(future.done, what=f"an answer of {service}")
        self.destroy_client(client)
        return future.result()

    def change_state(self, transition):
        return self.call(ChangeState, "arm_controller/change_state", transition=transition)

    def go_to_start(self):
        """Command the driver directly, again and again: something else may still run."""
        command = self.create_publisher(JointGroupCommand, "commands/joint_group", 1)

        def arrived():
            command.publish(JointGroupCommand(name="arm", cmd=START.tolist()))
            return np.abs(self.q - START).max() < 0.1

        until(arrived, what=lambda: self.q)
        self.destroy_publisher(command)

    def move(self, pose):
        assert self.moves.wait_for_server(timeout_sec=60.0)
        sent = self.moves.send_goal_async(MoveToNamedPose.Goal(pose=pose))
        until(sent.done)
        result = sent.result().get_result_async()
        until(result.done)
        return result.result().result


class Fuzzer(Node):
    """Makes messages; half of each is right, so that it gets beyond the first check."""

    def __init__(self, context, operator, seed):
        super().__init__("fuzzer", context=context, namespace=NAMESPACE)
        self.rng = random.Random(seed)
        self.operator = operator
        self.sent = 0
        self._pending: list = []
        self._senders: list = []
        self._callers: list = []

    def topic(self, kind, name, make):
        publisher = self.create_publisher(kind, name, 10)
        self._senders.append(lambda: publisher.publish(make()))
        return publisher

    def service(self, kind, name, make=dict):
        client = self.create_client(kind, name)
        assert client.wait_for_service(timeout_sec=60.0), name
        self._callers.append(lambda: client.call_async(kind.Request(**make())))

    def goals(self):
        def send():
            return self.operator.moves.send_goal_async(
                MoveToNamedPose.Goal(
                    pose=self.rng.choice([*NAMED_POSES, *TEXTS]),
                    duration_s=self.number(2.0),
                    open_gripper=self.rng.random() < 0.5,
                )
            )

        self._callers.append(send)

    def run(self, messages, alive):
        """Send; one message in 50 is a call, and no more than 16 calls are open at a time."""
        due_s = time.monotonic()
        while self.sent < messages:
            if self._callers and self.rng.random() < 0.02:
                self._pending.append(self.rng.choice(self._callers)())
                until(lambda: sum(not f.done() for f in self._pending) < 16, what="answers")
                self._pending = [f for f in self._pending if not f.done()]
            else:
                self.rng.choice(self._senders)()
            self.sent += 1
            if self.sent % 500 == 0:
                alive()
            due_s = max(due_s + 1.0 / RATE_HZ, time.monotonic() - 0.05)
            time.sleep(max(0.0, due_s - time.monotonic()))
        until(lambda: all(f.done() for f in self._pending), what="the last answers")

    # -- content -----------------------------------------------------------------------------

    def number(self, spread=4.0):
        kind = self.rng.random()
        if kind < 0.2:
            return self.rng.choice(ODD)
        return self.rng.uniform(-spread, spread)

    def whole(self):
        return self.rng.choice([0, 1, -1, 2**31 - 1, -(2**31), self.rng.randrange(-5000, 5000)])

    def joints(self):
        """Near the arm, as a stream is; or anywhere."""
        kind = self.rng.random()
        near = self.operator.q + [self.rng.gauss(0, 0.05) for _ in range(6)]
        if kind < 0.5:
            return near.tolist()
        if kind < 0.6:
            near[self.rng.randrange(6)] = self.number()
            return near.tolist()
        if kind < 0.7:
            return [self.rng.uniform(-3.2, 3.2) for _ in range(6)]
        return [self.number() for _ in range(self.rng.choice([0, 1, 5, 6, 6, 7, 9, 1000]))]

    def name(self, right):
        return right if self.rng.random() < 0.7 else self.rng.choice(GROUPS)

    def cmd_type(self):
        return self.rng.choice(["group", "single", "group", "single", *TEXTS])

    def joint_group(self):
        return JointGroupCommand(name=self.name("arm"), cmd=self.joints())

    def joint_single(self):
        spread = self.rng.choice([4.0, 400.0])
        return JointSingleCommand(name=self.name("gripper"), cmd=self.number(spread))

    def joint_trajectory(self):
        message = JointTrajectoryCommand(cmd_type=self.cmd_type(), name=self.name("arm"))
        if self.rng.random() < 0.3:
            message.traj.joint_names = [self.rng.choice(GROUPS) for _ in range(6)]
        ordered = self.rng.random() < 0.7
        for k in range(self.rng.choice([0, 1, 2, 3, 20])):
            point = JointTrajectoryPoint(positions=self.joints())
            if self.rng.random() < 0.1:
                point.velocities, point.effort = self.joints(), self.joints()
            point.time_from_start.sec = k // 10 if ordered else self.whole()
            point.time_from_start.nanosec = k % 10 * 10**8 if ordered else 2**32 - 1
            message.traj.points.append(point)
        return message

    def end_effector_delta(self):
        values = [self.rng.uniform(-0.05, 0.05) for _ in range(6)] + [self.rng.random()]
        names = list(ACTION_NAMES)
        kind = self.rng.random()
        if kind < 0.2:
            values = [self.number() for _ in range(self.rng.choice([0, 6, 7, 8, 1000]))]
        elif kind < 0.3:
            names = [self.rng.choice([*names, *TEXTS]) for _ in range(self.rng.choice([0, 7, 9]))]
        message = EndEffectorDelta(names=names, values=values, step_s=0.2)
        message.header.frame_id = self.rng.choice(["base_link"] * 8 + TEXTS)
        if self.rng.random() < 0.1:
            message.step_s = self.number()
        if self.rng.random() < 0.8:
            message.header.stamp = self.get_clock().now().to_msg()
        else:
            message.header.stamp.sec = self.whole()
        return message

    def broken_joint_states(self):
        """Never whole: what a driver says of the arm has to be believed."""
        message = JointState(name=list(STATES), position=[0.0] * 9, effort=[0.0] * 9)
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = "fuzz"
        kind = self.rng.randrange(4)
        if kind == 0:
            message.name[self.rng.randrange(6)] = self.rng.choice(TEXTS)
        elif kind == 1:
            message.position[self.rng.randrange(6)] = self.rng.choice(ODD[:3])
        elif kind == 2:
            message.position = [self.number() for _ in range(self.rng.choice([0, 8, 10, 1000]))]
        else:
            message.header.stamp.sec = self.rng.choice([-(2**31), 0, 2**31 - 1])
        return message

    def wrong_name(self):
        return {"cmd_type": self.cmd_type(), "name": self.rng.choice(TEXTS)}

    def any_name(self):
        return {"cmd_type": self.cmd_type(), "name": self.rng.choice(GROUPS)}

    def modes(self):
        return {
            **self.any_name(),
            "mode": self.rng.choice(["position", *TEXTS]),
            "profile_type": self.rng.choice(["time", "velocity", *TEXTS]),
            "profile_velocity": self.whole(),
            "profile_acceleration": self.whole(),
        }

    def register(self):
        return {**self.any_name(), "reg": self.rng.choice(REGISTERS)}


class Graph(SpunNodes):
    """Emulated bus, processes of the nodes, operator and fuzzer."""

    def __init__(self, folder, domain, seed):
        super().__init__(domain)
        self.folder = folder
        self.environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
        self.processes: dict[str, subprocess.Popen] = {}
        self.emulator = RemoteServoBus(folder, "--no-timing")
        self.emulator.start()
        self.operator = self.add(Operator(self.context))
        self.fuzzer = self.add(Fuzzer(self.context, self.operator, seed))
        self.start(
            "xs_driver",
            "widowx_control.xs_driver.node",
            *("-p", f"port:={self.emulator.port}"),
            *("-p", "reply_margin_ms:=50.0", "-p", "bus_watchdog_ms:=1000"),
        )
        until(lambda: self.operator.q is not None, what="joint_states")
        # The emulated arm fell onto its stops while its servos were without torque.
        self.operator.go_to_start()

    def start(self, name, module, *arguments):
        command = [sys.executable, "-m", module, "--ros-args", "-r", f"__ns:={NAMESPACE}"]
        with (self.folder / f"{name}.log").open("w") as log:
            self.processes[name] = subprocess.Popen(
                [*command, *arguments], env=self.environment, stdout=log, stderr=log
            )

    def check(self):
        """Fail when a process died, an exception was logged, or the arm left its limits."""
        for name, process in self.processes.items():
            log = (self.folder / f"{name}.log").read_text(errors="replace")
            assert process.poll() is None, f"{name} ended: {log[-3000:]}"
            found = log.find("Traceback")
            assert found < 0, f"{name}: {log[found : found + 3000]}"
        assert not self.operator.violations, self.operator.violations[:5]

    def report(self):
        """Say what the nodes counted."""
        counts = {k: v for k, v in sorted(self.operator.refused.items()) if v != "0"}
        print(f"\n{self.fuzzer.sent} messages; {self.operator.count} joint_states; {counts}")

    def close(self):
        self.report()
        for name in self.processes:
            print((self.folder / f"{name}.log").read_text(errors="replace")[-2000:])
        super().close()
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.emulator.stop()


@pytest.fixture
def graph(tmp_path, free_domain):
    graph = Graph(tmp_path, free_domain, seed=MESSAGES)
    yield graph
    graph.close()


def rearm(graph):
    """End every latched stop; a stall of the machine may have caused one as well."""
    operator = graph.operator
    until(lambda: operator.call(Trigger, "xs_driver/rearm").success)


def test_controller_and_guard_keep_the_arm_within_its_limits(graph):
    operator, fuzzer = graph.operator, graph.fuzzer
    # The fuzzer sends to the guard beside the controller, and is judged by what it sends.
    graph.start("arm_guard", "widowx_control.guard.node", "-p", "max_other_publishers:=10")
    remap = [f"commands/{topic}:=guarded/{topic}" for topic in ("joint_group", "joint_single")]
    graph.start(
        "arm_controller",
        "widowx_control.arm_controller_node",
        *(word for rule in remap for word in ("-r", rule)),
    )
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        change = Transition(id=transition)
        until(lambda c=change: operator.change_state(c).success, what=str(change))
    until(lambda: operator.move("start").code == MoveToNamedPose.Result.CODE_REACHED)
    operator.watch_commands()

    fuzzer.topic(EndEffectorDelta, "end_effector_delta", fuzzer.end_effector_delta)
    fuzzer.topic(JointState, "joint_states", fuzzer.broken_joint_states)
    fuzzer.topic(
        Bool, "emergency_stop", lambda: Bool(data=fuzzer.rng.random() < 0.02 and fuzzer.sent > 0)
    )
    fuzzer.goals()
    fuzzer.service(Trigger, "emergency_stop")
    for _ in range(20):
        fuzzer.service(Trigger, "rearm")
    fuzzer.run(MESSAGES // 4, graph.check)
    # From here on the controller refuses everything: another node commands the arm, too.
    rivals = [
        fuzzer.topic(JointGroupCommand, "guarded/joint_group", fuzzer.joint_group),
        fuzzer.topic(JointSingleCommand, "guarded/joint_single", fuzzer.joint_single),
    ]
    fuzzer.run(MESSAGES // 2, graph.check)
    for rival in rivals:
        fuzzer.destroy_publisher(rival)
    graph.report()
    assert int(operator.refused["passed"]) > 0 and len(operator.commands) > 0

    # They still do their work.
    released = operator.create_publisher(Bool, "emergency_stop", 1)
    until(lambda: released.get_subscription_count() > 0)
    released.publish(Bool(data=False))
    rearm(graph)
    until(lambda: operator.call(Trigger, "rearm").success)
    until(lambda: operator.move("neutral").code == MoveToNamedPose.Result.CODE_REACHED)
    until(lambda: np.abs(operator.q - NAMED_POSES["neutral"]).max() < 0.1)
    graph.check()


def test_the_driver_keeps_the_arm_within_its_limits(graph):
    operator, fuzzer = graph.operator, graph.fuzzer
    fuzzer.topic(JointGroupCommand, "commands/joint_group", fuzzer.joint_group)
    fuzzer.topic(JointSingleCommand, "commands/joint_single", fuzzer.joint_single)
    fuzzer.topic(JointTrajectoryCommand, "commands/joint_trajectory", fuzzer.joint_trajectory)
    fuzzer.service(RobotInfo, "get_robot_info", fuzzer.any_name)
    fuzzer.service(RegisterValues, "get_motor_registers", fuzzer.register)
    fuzzer.service(
        RegisterValues,
        "set_motor_registers",
        lambda: {**fuzzer.register(), "value": fuzzer.whole()},
    )
    fuzzer.service(OperatingModes, "set_operating_modes", fuzzer.modes)
    # Used by right, these may let go of the arm.
    fuzzer.service(TorqueEnable, "torque_enable", lambda: {**fuzzer.any_name(), "enable": True})
    fuzzer.service(Reboot, "reboot_motors", fuzzer.wrong_name)
    fuzzer.service(
        MotorGains,
        "set_motor_pid_gains",
        lambda: {**fuzzer.wrong_name(), "kp_pos": fuzzer.whole(), "k2": fuzzer.whole()},
    )
    fuzzer.service(Trigger, "xs_driver/rearm")
    fuzzer.run(MESSAGES // 2, graph.check)
    graph.report()

    rearm(graph)
    for name in ("arm", "gripper"):
        answer = operator.call(
            OperatingModes,
            "set_operating_modes",
            cmd_type="group" if name == "arm" else "single",
            name=name,
            mode="position" if name == "arm" else "pwm",
            profile_type="time",
            profile_velocity=1000,
            profile_acceleration=300,
        )
        assert answer is not None
    operator.go_to_start()
    graph.check()
