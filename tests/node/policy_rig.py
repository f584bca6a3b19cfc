"""The policy node in its own process, and the robot around it."""

import array
import collections
import contextlib
import os
import time

from diagnostic_msgs.msg import DiagnosticArray
from node_rig import NodeRig
from policy_interfaces.action import RunEpisode
from policy_interfaces.msg import EndEffectorDelta, EndEffectorState, PolicyStatus
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.clock import Clock
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image, JointState

PERIOD_S = 0.2
DELAY_IMAGES = 5
"""The wrist camera's images come so much later than those of the same moment of the other."""
EMBEDDING = [0.0, 1.0, 2.0, 3.0, 4.0]


class Robot(Node):
    """A camera at 30 Hz, an arm's state at 50 Hz, and an ear on what the policy commands."""

    def __init__(self, context, simulated_rate=None):
        super().__init__("robot", context=context, use_global_arguments=False)
        self.camera_on = True
        self.camera_offset_s = 0.0
        self.state_on = True
        self.z_m = 0.1
        self.refused_commands = 0
        self.clock_offset_s = 0.0
        self.diagnostics = []
        self.commands = []  # (receive time [s], message)
        self.statuses = []
        self.simulated_rate = simulated_rate
        self.simulated_start_s = time.monotonic()
        self.images = self.create_publisher(
            Image,
            "camera/image_raw",
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
        )
        self.states = self.create_publisher(EndEffectorState, "end_effector_state", 1)
        self.create_subscription(EndEffectorDelta, "end_effector_delta", self._on_command, 10)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(PolicyStatus, "policy_node/status", self.statuses.append, latched)
        self.create_subscription(
            DiagnosticArray, "/diagnostics", lambda m: self.diagnostics.extend(m.status), 10
        )
        self.image = Image(height=24, width=32, encoding="bgr8", step=96)
        self.image.data = array.array("B", bytes(range(256)) * 9)
        self.create_timer(1 / 30, self._send_image)
        self.create_timer(1 / 50, self._send_state)
        if simulated_rate:
            self.clock_publisher = self.create_publisher(ClockMessage, "/clock", 10)
            self.create_timer(1 / 200, self._send_clock)

    def now_ns(self):
        if self.simulated_rate:
            elapsed_s = time.monotonic() - self.simulated_start_s
            return round((1.0 + self.clock_offset_s + elapsed_s * self.simulated_rate) * 1e9)
        return Clock().now().nanoseconds

    def _stamp(self, message, offset_s=0.0):
        stamp_ns = self.now_ns() + round(offset_s * 1e9)
        stamp = message.header.stamp
        stamp.sec, stamp.nanosec = divmod(stamp_ns, 10**9)
        return message

    def _send_image(self):
        if self.camera_on:
            self.images.publish(self._stamp(self.image, self.camera_offset_s))

    def _send_state(self):
        if self.state_on:
            message = self._stamp(EndEffectorState())
            message.state = [0.2, 0.0, self.z_m, 0.0, 0.0, 0.0, 1.0]
            message.refused_commands = self.refused_commands
            self.states.publish(message)

    def _send_clock(self):
        message = ClockMessage()
        message.clock.sec, message.clock.nanosec = divmod(self.now_ns(), 10**9)
        self.clock_publisher.publish(message)

    def _on_command(self, message):
        self.commands.append((time.monotonic(), message))


def grey(value):
    message = Image(height=24, width=32, encoding="rgb8", step=96)
    message.data = array.array("B", bytes([value]) * (24 * 96))
    return message


class RobotWithTwoCameras(Robot):
    """Both cameras show the number of the image; that of the wrist is slow."""

    def __init__(self, context, simulated_rate=None):
        self.number = 0
        self.wrist_on = True
        self.stamps_s = {}
        self.waiting = collections.deque()
        super().__init__(context, simulated_rate)
        quality = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.wrist_images = self.create_publisher(Image, "wrist_camera/image_raw", quality)
        self.joints = self.create_publisher(JointState, "joint_states", 1)

    def _send_image(self):
        self.number = (self.number + 1) % 250
        message = self._stamp(grey(self.number))
        self.stamps_s[self.number] = seconds(message.header.stamp)
        self.waiting.append(message)
        if self.camera_on:
            self.images.publish(message)
        if len(self.waiting) > DELAY_IMAGES:
            late = self.waiting.popleft()
            if self.wrist_on:
                self.wrist_images.publish(late)

    def _send_state(self):
        super()._send_state()
        names, velocities = ["gripper", "elbow", "waist"], [9.0, 0.25, 0.5]
        message = JointState(name=names, position=[0.0] * 3, velocity=velocities)
        self.joints.publish(self._stamp(message))


class Rig(NodeRig):
    """The policy node's process and the robot around it."""

    def __init__(self, domain, simulated_rate=None, robot_type=Robot, **parameters):
        def robot(context):
            return robot_type(context, simulated_rate)

        super().__init__(domain, "policy_server.policy_node", "policy_node", robot, **parameters)
        self.robot = self.around
        self.episodes = ActionClient(self.robot, RunEpisode, "policy_node/run_episode")
        self.feedback = []

    def start_episode(self, **goal):
        goal = {"task": "push_left", "max_steps": 5, "seed": 1, **goal}
        assert self.episodes.wait_for_server(20.0)
        future = self.episodes.send_goal_async(
            RunEpisode.Goal(**goal),
            feedback_callback=lambda message: self.feedback.append(message.feedback),
        )
        handle = self.wait_for(future)
        assert handle.accepted
        return handle, handle.get_result_async()

    def set_parameter(self, name, value):
        kinds = {int: ("integer_value", ParameterType.PARAMETER_INTEGER)}
        field, kind = kinds[type(value)]
        parameter = Parameter(name=name, value=ParameterValue(type=kind, **{field: value}))
        request = SetParameters.Request(parameters=[parameter])
        return self.call(SetParameters, "policy_node/set_parameters", request).results[0]

    def run_episode(self, **goal):
        _, future = self.start_episode(**goal)
        return self.wait_for(future).result


@contextlib.contextmanager
def rigs(domain, monkeypatch):
    """Yield what starts rigs, with parameters of the policy node; close them at the end."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    started = []

    def start(**arguments):
        started.append(Rig(domain, **arguments))
        return started[-1]

    yield start
    for rig in started:
        rig.close()


def install_policy(folder, monkeypatch, kind, code, class_name):
    """Install a package with a kind of policy for the processes that are started from now on."""
    information = folder / f"{kind}_policy-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / f"{kind}_policy.py").write_text(code)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {kind}-policy\n")
    (information / "entry_points.txt").write_text(
        f"[coxswain.policies]\n{kind} = {kind}_policy:{class_name}\n"
    )
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def seconds(stamp):
    """A stamp as one number."""
    return stamp.sec + 1e-9 * stamp.nanosec
