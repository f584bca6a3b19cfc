"""The robot state publisher as a process, against pinocchio's kinematics of the wx250s."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pinocchio
import pytest
import rclpy
import widowx_description
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from spun_nodes import SpunNodes
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Graph:
    """One robot_state_publisher process, and the frames that it publishes."""

    def __init__(self, nodes, domain):
        self.nodes = nodes
        self.node = node = nodes.add(rclpy.create_node("frames_test", context=nodes.context))
        self.environment = os.environ | {"ROS_DOMAIN_ID": str(domain)}
        self.process = None
        self.moving = {}  # child frame: latest TransformStamped
        self.messages = []
        self.fixed = {}
        self.descriptions = []
        self.publisher = node.create_publisher(JointState, "joint_states", 10)
        node.create_subscription(TFMessage, "/tf", self._on_tf, 100)

    def _on_tf(self, message):
        self.messages.append(message)
        self.moving.update({t.child_frame_id: t for t in message.transforms})

    def _on_tf_static(self, message):
        self.fixed = {t.child_frame_id: t for t in message.transforms}

    def listen_to_latched(self):
        self.node.create_subscription(TFMessage, "/tf_static", self._on_tf_static, LATCHED)
        self.node.create_subscription(
            String, "robot_description", self.descriptions.append, LATCHED
        )

    def start(self, tmp_path, urdf, **parameters):
        file = tmp_path / "parameters.yaml"
        lines = "".join(f"    {name}: {value}\n" for name, value in parameters.items())
        text = urdf.replace("\n", "\n      ")
        file.write_text(
            "/**:\n  ros__parameters:\n" + lines + "    robot_description: |-\n      " + text
        )
        command = [sys.executable, "-m", "robot_state_publisher.robot_state_publisher"]
        command += ["--ros-args", "--params-file", str(file)]
        self.process = subprocess.Popen(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def connect(self):
        """Waits until joint states come out as frames, then forgets those frames."""
        stamp_s = itertools.count()

        def answered():
            self.publish({"waist": 0.0}, next(stamp_s) / 10.0)
            time.sleep(0.02)
            return self.messages

        wait_until(answered)
        self.publish({"waist": 0.0}, 500.0)
        wait_until(lambda: self.messages[-1].transforms[0].header.stamp.sec == 500)
        self.moving.clear()
        self.messages.clear()

    def publish(self, positions, stamp_s):
        message = JointState(name=list(positions), position=list(positions.values()))
        message.header.stamp.sec = int(stamp_s)
        message.header.stamp.nanosec = round(stamp_s % 1.0 * 1e9)
        self.publisher.publish(message)

    def set(self, name, value):
        parameter = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        return self.nodes.call(
            SetParameters, "robot_state_publisher/set_parameters", request
        ).results[0]

    def pose(self, frame, root):
        """4x4 pose of a frame in the root frame, from the published transforms."""
        pose = np.eye(4)
        while frame != root:
            stamped = {**self.moving, **self.fixed}[frame]
            q, t = stamped.transform.rotation, stamped.transform.translation
            step = pinocchio.SE3(
                pinocchio.Quaternion(q.w, q.x, q.y, q.z).matrix(), np.array([t.x, t.y, t.z])
            )
            pose = step.homogeneous @ pose
            frame = stamped.header.frame_id
        return pose

    def end(self):
        if self.process is None:
            return ""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=15)[0]


def wait_until(condition, timeout_s=20.0):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "the condition did not come true"
        time.sleep(0.01)


@pytest.fixture
def graph(free_domain, monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    nodes = SpunNodes(free_domain)
    graph = Graph(nodes, free_domain)
    yield graph
    graph.end()
    nodes.close()


def configuration(model, positions):
    """Pinocchio's configuration vector; continuous joints take two numbers, (cos, sin)."""
    q = pinocchio.neutral(model)
    for name, position in positions.items():
        joint = model.joints[model.getJointId(name)]
        if joint.nq == 2:
            q[joint.idx_q : joint.idx_q + 2] = np.cos(position), np.sin(position)
        else:
            q[joint.idx_q] = position
    return q


@pytest.mark.parametrize(("prefix", "seed"), [("", 3), ("left/", 4)])
def test_frames_are_pinocchios(graph, tmp_path, prefix, seed):
    urdf = widowx_description.urdf_text()
    graph.start(tmp_path, urdf, frame_prefix=f"'{prefix}'")
    graph.connect()
    graph.listen_to_latched()  # later than the publication: only latched messages arrive
    wait_until(lambda: graph.fixed and graph.descriptions)
    assert graph.descriptions[-1].data == urdf

    model = pinocchio.buildModelFromXML(urdf)
    data = model.createData()
    links = [f.name for f in model.frames if f.type == pinocchio.FrameType.BODY]
    rng = np.random.default_rng(seed)
    for count in range(1, 6):
        finger = rng.uniform(0.015, 0.037)
        joints = dict(zip(ARM, rng.uniform(-1.7, 1.6, 6), strict=True))
        joints |= {"gripper": rng.uniform(-3.0, 3.0), "left_finger": finger}
        graph.moving.clear()
        graph.publish(joints, stamp_s=1000.0 * count)
        wait_until(lambda: graph.moving)
        # The right finger has no position in the message: it mimics the left one.
        q = configuration(model, joints | {"right_finger": -finger})
        pinocchio.framesForwardKinematics(model, data, q)
        for link in links:
            expected = data.oMf[model.getFrameId(link)].homogeneous
            np.testing.assert_allclose(
                graph.pose(prefix + link, prefix + "base_link"), expected, atol=1e-9, err_msg=link
            )
        stamps = {t.header.stamp.sec for t in graph.moving.values()}
        assert stamps == {1000 * count}, "frames carry the stamp of the joint state"


def test_rate_is_limited_by_stamps_and_can_be_unlimited(graph, tmp_path):
    graph.start(tmp_path, widowx_description.urdf_text(), publish_frequency=10.0)
    graph.connect()
    for stamp_s in (1000.0, 1000.04, 1000.09, 1000.1, 1001.0):
        graph.publish({"waist": stamp_s}, stamp_s)
    wait_until(lambda: graph.messages and graph.messages[-1].transforms[0].header.stamp.sec == 1001)
    assert len(graph.messages) == 3
    assert graph.set("ignore_timestamp", True).successful
    graph.messages.clear()
    for stamp_s in (1000.0, 950.0, 1100.0):
        graph.publish({"waist": 0.0}, stamp_s)
    wait_until(lambda: len(graph.messages) == 3)


def test_position_in_the_message_wins_over_mimicry_and_nan_is_skipped(graph, tmp_path):
    graph.start(tmp_path, widowx_description.urdf_text())
    graph.connect()
    graph.publish(
        {"left_finger": 0.03, "right_finger": -0.02, "waist": float("nan"), "no_such": 1.0}, 1000.0
    )
    wait_until(lambda: graph.moving)
    assert set(graph.moving) == {"left_finger_link", "right_finger_link"}
    assert graph.moving["right_finger_link"].transform.translation.y == -0.02


def test_new_description_is_taken_and_a_broken_one_refused(graph, tmp_path):
    graph.start(tmp_path, widowx_description.urdf_text())
    graph.listen_to_latched()
    wait_until(lambda: graph.fixed)
    two_roots = '<robot name="r"><link name="a"/><link name="b"/></robot>'
    result = graph.set("robot_description", two_roots)
    assert not result.successful
    assert "a, b" in result.reason
    joint = '<joint name="j" type="fixed"><parent link="a"/><child link="b"/></joint>'
    assert graph.set(
        "robot_description", two_roots.replace("</robot>", joint + "</robot>")
    ).successful
    wait_until(lambda: set(graph.fixed) == {"b"})
    assert graph.set("frame_prefix", "x/").successful
    wait_until(lambda: set(graph.fixed) == {"x/b"})
    assert graph.fixed["x/b"].header.frame_id == "x/a"


def test_without_a_description_it_says_so_and_ends(graph):
    command = [sys.executable, "-m", "robot_state_publisher.robot_state_publisher"]
    result = subprocess.run(
        command, env=graph.environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode == 2
    assert "robot_description must not be empty" in result.stderr
    assert "Traceback" not in result.stderr
