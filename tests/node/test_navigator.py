"""The navigator through its actions, services and topics, in its own process.

Around it: a camera on a straight way, which moves as the navigator's waypoints say.
"""

import array
import json
import math
import os
import shutil
import signal
import time
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from gnm_nav.map_building import MapBuilder
from gnm_nav.map_directory import save_map
from nav_msgs.msg import Odometry, Path
from navigation_bundle import STEPS, picture, write_navigation_bundle
from node_rig import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, NodeRig, wait_until
from policy_interfaces.action import Explore, NavigateToGoal
from policy_interfaces.msg import NavigationStatus
from policy_interfaces.srv import LoadMap
from policy_server.navigation_model import load_navigation_model
from rclpy.action import ActionClient
from rclpy.clock import Clock
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from spun_nodes import SpunNodes
from std_msgs.msg import Bool, Float32MultiArray
from visualization_msgs.msg import MarkerArray

SPACING_M = 0.1
Reason = NavigateToGoal.Result


class Around(Node):
    """Camera, odometry and base of a robot on the straight way."""

    def __init__(self, context):
        super().__init__("around", context=context, use_global_arguments=False)
        self.steps = 2.0
        self.camera = "alive"  # alive, off, frozen, black, white, mono8, broken
        self.stamp_of = lambda now_ns: now_ns
        self.odometry_w = 1.0
        self.moves_by_itself = 0.0  # steps per second, as the odometry says
        self.paths = []  # (receive time [s], message)
        self.statuses = []
        self.diagnostics = []
        self.markers = []
        self.annotated = []
        self._noise = np.random.default_rng(os.getpid())
        self._last_image = None
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.images = self.create_publisher(Image, "camera/image_raw", newest)
        self.compressed = self.create_publisher(
            CompressedImage, "camera/image_raw/compressed", newest
        )
        self.odometry = self.create_publisher(Odometry, "odom", newest)
        self.create_subscription(
            Path, "waypoints", lambda m: self.paths.append((time.monotonic(), m)), 50
        )
        self.create_subscription(
            NavigationStatus, "navigator/status", self.statuses.append, latched
        )
        self.create_subscription(
            DiagnosticArray, "/diagnostics", lambda m: self.diagnostics.extend(m.status), 10
        )
        self.goals = ActionClient(self, NavigateToGoal, "navigator/navigate_to_goal")
        self.explorations = ActionClient(self, Explore, "navigator/explore")
        self.create_timer(0.05, self._step)

    def show(self):
        """Look at what is for people."""
        self.create_subscription(MarkerArray, "navigator/markers", self.markers.append, 10)
        self.create_subscription(Image, "navigator/annotated_image", self.annotated.append, 10)

    @property
    def pace(self):
        """Steps per second that the newest path asks for."""
        if not self.paths or time.monotonic() - self.paths[-1][0] > 0.3:
            return 0.0
        poses = self.paths[-1][1].poses
        return poses[0].pose.position.x / SPACING_M / 0.25 if poses else 0.0

    def _step(self):
        pace = self.pace
        self.steps += 0.05 * pace
        stamp_ns = Clock().now().nanoseconds
        odometry = Odometry()
        odometry.header.stamp.sec, odometry.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        odometry.twist.twist.linear.x = (pace + self.moves_by_itself) * SPACING_M
        odometry.pose.pose.orientation.w = self.odometry_w
        self.odometry.publish(odometry)
        if self.camera == "off":
            return
        image = picture(self.steps, self._noise)
        encoding = "rgb8"
        if self.camera == "frozen" and self._last_image is not None:
            image = self._last_image
        elif self.camera == "black":
            image = self._noise.integers(0, 6, image.shape, np.uint8)
        elif self.camera == "white":
            image = np.full_like(image, 255)
        elif self.camera == "bgr8":
            image, encoding = image[..., ::-1], "bgr8"
        elif self.camera == "broken":
            encoding = "no_encoding"
        self._last_image = image
        message = Image(height=120, width=160, encoding=encoding, step=480)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(
            self.stamp_of(stamp_ns), 10**9
        )
        if self.camera == "compressed":
            _, content = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
            data = array.array("B", content.tobytes())
            self.compressed.publish(CompressedImage(header=message.header, format="png", data=data))
            return
        message.data = array.array("B", np.ascontiguousarray(image).tobytes())
        self.images.publish(message)


def image_of(pixels):
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding="rgb8")
    message.step = 3 * pixels.shape[1]
    message.data = array.array("B", pixels.tobytes())
    return message


class Rig(NodeRig):
    """The navigator and the robot around it."""

    def __init__(self, domain, **parameters):
        parameters = {"robot": "locobot", **parameters}
        super().__init__(domain, "gnm_nav.navigator_node", "navigator", Around, **parameters)
        self.goals = self.around.goals
        self.explorations = self.around.explorations
        self.feedback = []

    def send(self, client=None, **goal):
        client = client or self.goals
        action = Explore if client is self.explorations else NavigateToGoal
        assert client.wait_for_server(30.0)
        future = client.send_goal_async(
            action.Goal(**goal), feedback_callback=lambda m: self.feedback.append(m.feedback)
        )
        handle = self.wait_for(future)
        assert handle.accepted
        return handle, handle.get_result_async()

    def navigate(self, wait_s=60.0, **goal):
        return self.wait_for(self.send(**goal)[1], wait_s).result

    def drive(self):
        """Begin to drive to the end of the way; return the goal when the robot moves."""
        sent = self.send(goal_node="last")
        assert wait_until(lambda: self.around.pace > 2.0, 30.0), "does not drive"
        return sent

    def load(self, path):
        return self.call(LoadMap, "navigator/load_map", LoadMap.Request(path=str(path)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A bundle, a map of the way, and the same map of another model."""
    root = tmp_path_factory.mktemp("navigation")
    noise = np.random.default_rng(3)
    result = {}
    for name in ("way", "other"):
        file = write_navigation_bundle(root / f"{name}_net")
        if name == "other":
            document = file.read_text()
            onnx_file = file.parent / "embed.onnx"
            # The same network by another exporter: other bytes, hence another fingerprint.
            import hashlib

            import onnx

            model = onnx.load(onnx_file)
            before = onnx_file.read_bytes()
            model.producer_name = "another"
            after = model.SerializeToString()
            onnx_file.write_bytes(after)
            for digest in (hashlib.sha256, hashlib.md5):
                document = document.replace(digest(before).hexdigest(), digest(after).hexdigest())
            file.write_text(document)
        model = load_navigation_model(file)
        builder = MapBuilder(model)
        for index in range(STEPS * 4 + 1):
            steps = index / 4
            builder.add(picture(steps, noise), 10.0 + steps / 4, (steps * SPACING_M, 0.0, 0.0))
        builder.name_node("middle", len(builder) // 2)
        save_map(builder.finish(name), root / name)
        result[name] = root / name
        result[f"{name}_net"] = file.parent
    return result


@pytest.fixture
def make_rig(free_domain, files, monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rigs = []

    def make(**parameters):
        parameters = {"bundle": files["way_net"], "map": files["way"], **parameters}
        rigs.append(Rig(free_domain, **{k: v for k, v in parameters.items() if v is not None}))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def beside(free_domain):
    """Makes another node, of another DDS participant as another process has."""

    @contextmanager
    def make(name):
        nodes = SpunNodes(free_domain)
        yield nodes.add(rclpy.create_node(name, context=nodes.context))
        nodes.close()

    return make


def recovers(path):
    """Whether a path leads back or turns on the spot."""
    return bool(path.poses) and path.poses[-1].pose.position.x <= 0.0


def stop_time_s(around, since_s):
    """From `since_s` to the first path that leads nowhere, none but such following."""
    assert wait_until(lambda: around.pace == 0.0, 5.0)
    moving = [t for t, m in around.paths if t >= since_s and m.poses and not recovers(m)]
    return (moving[-1] if moving else since_s) - since_s


def test_drives_to_the_goal_and_says_where_it_is(make_rig):
    rig = make_rig()
    around = rig.around
    around.show()
    around.steps = 20.0
    rig.activate()
    assert wait_until(lambda: any(s.node >= 0 for s in around.statuses), 30.0)
    assert not around.paths, "drove without a goal"
    result = rig.navigate(goal_node="last")
    assert result.reason == Reason.REASON_REACHED, result.message
    assert around.steps == pytest.approx(STEPS, abs=5.0)
    assert result.final_node == around.statuses[-1].node or result.final_node > 8
    assert result.duration_s > 5.0
    assert wait_until(lambda: not around.paths[-1][1].poses)
    path = next(m for _, m in around.paths if m.poses)
    assert path.header.frame_id == "base_link"
    assert len(path.poses) == 5
    # Repeated at 20 Hz, so that receivers see that the navigator is alive.
    driving = [t for t, m in around.paths if m.poses]
    assert len(driving) / (driving[-1] - driving[0]) > 14.0
    nodes = [f.node for f in rig.feedback if f.node >= 0]
    assert nodes == sorted(nodes)
    assert rig.feedback[-1].progress > 0.6
    steps = [f.route_steps for f in rig.feedback if math.isfinite(f.route_steps)]
    assert steps[0] > 20.0 > steps[-1]
    assert around.statuses[-1].map == "way"
    namespaces = {marker.ns for message in around.markers for marker in message.markers}
    assert {"nodes", "edges", "names", "belief", "route", "goal"} <= namespaces
    assert around.annotated[-1].width == 640
    assert rig.transition(DEACTIVATE)
    assert rig.transition(CLEANUP)
    assert "Traceback" not in rig.output()
    assert rig.process.returncode == 0


def test_drives_by_compressed_images(make_rig):
    rig = make_rig(image_transport="compressed")
    rig.around.camera = "compressed"
    rig.activate()
    rig.drive()


def test_goals_by_name_number_and_picture(make_rig):
    rig = make_rig()
    around = rig.around
    rig.activate()
    for start, goal, end in (
        (14.0, {"goal_node": "middle"}, STEPS / 2),
        (2.0, {"goal_node": "2"}, 8.0),
        (30.0, {"goal_image": image_of(picture(40.3, np.random.default_rng(1)))}, 40.0),
    ):
        around.steps = start
        result = rig.navigate(**goal)
        assert result.reason == Reason.REASON_REACHED, (goal, result.message)
        assert around.steps == pytest.approx(end, abs=4.5)


def test_the_topics_of_the_original_deployment(make_rig):
    rig = make_rig(visualnav_topics=True, robot="locobot_visualnav")
    around = rig.around
    waypoints, reached = [], []
    around.create_subscription(
        Float32MultiArray, "/waypoint", lambda m: waypoints.append(list(m.data)), 50
    )
    around.create_subscription(Bool, "/topoplan/reached_goal", lambda m: reached.append(m.data), 50)
    around.steps = 30.0
    rig.activate()
    assert wait_until(lambda: waypoints[-1:] == [[0.0] * 4])
    assert rig.navigate(goal_node="last").reason == Reason.REASON_REACHED
    assert wait_until(lambda: reached[-1])
    # Third waypoint of a straight path, 0.05 m a step.
    driving = [w for w in waypoints if w[0] > 0.0]
    assert max(w[0] for w in driving) <= 0.151
    assert all(w[2:] == pytest.approx([1.0, 0.0], abs=1e-3) for w in driving)
    assert wait_until(lambda: waypoints[-1] == [0.0] * 4)
    ticks = len(reached)
    assert wait_until(lambda: len(reached) > ticks + 2) and reached[-1]
    around.steps = 10.0
    rig.send(goal_node="last")
    assert wait_until(lambda: not reached[-1])


def test_bad_goals_are_refused_by_code(make_rig):
    rig = make_rig()
    rig.activate()
    for goal in (
        {"goal_node": "nowhere"},
        {"goal_node": "99"},
        {},
        {"goal_node": "last", "timeout_s": -1.0},
    ):
        result = rig.navigate(**goal)
        assert result.reason == Reason.REASON_UNKNOWN_GOAL, (goal, result.message)
        assert result.message
    assert not any(m.poses for _, m in rig.around.paths)


def test_without_map_or_activation_goals_fail_by_code(make_rig, files):
    rig = make_rig(map=None)
    assert rig.transition(CONFIGURE)
    assert rig.navigate(goal_node="last").reason == Reason.REASON_INACTIVE
    assert rig.transition(ACTIVATE)
    assert rig.navigate(goal_node="last").reason == Reason.REASON_NO_MAP
    assert rig.load(files["way"]).success
    rig.around.steps = 40.0
    assert rig.navigate(goal_node="last").reason == Reason.REASON_REACHED


@pytest.mark.alone
def test_cancel_timeout_and_a_second_goal(make_rig, files):
    rig = make_rig()
    around = rig.around
    rig.activate()
    handle, result = rig.drive()
    assert rig.navigate(goal_node="2").reason == Reason.REASON_BUSY
    refused = rig.load(files["way"])
    assert not refused.success
    assert "goal" in refused.message
    cancelled_s = time.monotonic()
    rig.wait_for(handle.cancel_goal_async())
    assert rig.wait_for(result).result.reason == Reason.REASON_CANCELLED
    assert stop_time_s(around, cancelled_s) < 0.2
    around.steps = 2.0
    result = rig.navigate(goal_node="last", timeout_s=2.0)
    assert result.reason == Reason.REASON_TIMEOUT
    assert result.duration_s == pytest.approx(2.0, abs=0.5)
    assert stop_time_s(around, time.monotonic()) < 0.2


@pytest.mark.alone
@pytest.mark.parametrize(
    ("camera", "reason", "problem", "limit_s"),
    [
        ("off", Reason.REASON_STALE_CAMERA, "stale", 0.3),
        ("frozen", Reason.REASON_STALE_CAMERA, "frozen", 0.3),
        ("black", Reason.REASON_DARK_CAMERA, "dark", 0.3),
        ("white", Reason.REASON_DARK_CAMERA, "flat", 0.3),
        ("broken", Reason.REASON_STALE_CAMERA, "stale", 0.3),
    ],
)
def test_a_bad_camera_stops_the_robot_and_ends_the_goal(make_rig, camera, reason, problem, limit_s):
    rig = make_rig(camera_grace_s=1.0)
    around = rig.around
    rig.activate()
    _, future = rig.drive()
    around.moves_by_itself = 1.0
    around.camera = camera
    assert stop_time_s(around, time.monotonic()) <= limit_s
    # A frozen picture of a robot that stands is no fault: it coasts, as far as odometry knows.
    result = rig.wait_for(future).result
    assert result.reason == reason, result.message
    # What comes and cannot be read is not reported as what does not come.
    refused = "images arrive and are refused"
    assert (refused in result.message) == (camera == "broken")
    told = [d.message for d in around.diagnostics]
    assert any(refused in message for message in told) == (camera == "broken")
    assert wait_until(
        lambda: any(
            v.key == "camera" and v.value == problem for d in around.diagnostics for v in d.values
        )
    )
    assert any(s.state == NavigationStatus.STATE_WAITING for s in around.statuses)
    # It serves again when the camera does.
    around.camera, around.moves_by_itself, around.steps = "alive", 0.0, 42.0
    assert rig.navigate(goal_node="last").reason == Reason.REASON_REACHED


@pytest.mark.alone
@pytest.mark.parametrize("sees_again", [True, False])
def test_before_something_plain_it_backs_off_and_turns_but_not_for_ever(make_rig, sees_again):
    # On a busy computer this process, whose thread is the camera, may be late by a second.
    rig = make_rig(camera_grace_s=2.0)
    around = rig.around
    rig.activate()
    _, future = rig.drive()
    around.camera = "white"
    seen_s = time.monotonic()
    assert wait_until(lambda: any(recovers(m) for t, m in around.paths if t > seen_s), 5.0)
    if sees_again:
        around.camera = "alive"
    result = rig.wait_for(future, 90.0).result
    expected = Reason.REASON_REACHED if sees_again else Reason.REASON_DARK_CAMERA
    assert result.reason == expected, result.message
    recovering = [t for t, m in around.paths if t > seen_s and recovers(m)]
    if not sees_again:
        # 0.3 m at 0.16 m/s, 1.6 rad at 0.5 rad/s.
        assert 3.5 < recovering[-1] - recovering[0] < 7.0
        assert not around.paths[-1][1].poses


def test_a_short_gap_of_the_camera_is_a_pause(make_rig):
    rig = make_rig()
    around = rig.around
    around.steps = 25.0
    rig.activate()
    _, future = rig.drive()
    around.camera = "off"
    assert wait_until(lambda: around.pace == 0.0, 2.0)
    around.camera = "bgr8"
    result = rig.wait_for(future, 60.0).result
    assert result.reason == Reason.REASON_REACHED, result.message


@pytest.mark.parametrize(
    ("stamps", "said"),
    [
        (lambda now_ns: now_ns - 3 * 10**9, "3.0"),
        (lambda now_ns: now_ns + 3 * 10**9, "ahead of the clock"),
        (lambda now_ns: 0, "no stamp (0)"),
        (lambda now_ns: 10**18, "the stamp of those before"),
    ],
)
def test_stamps_that_are_not_of_now_are_told_and_not_driven_by(make_rig, stamps, said):
    rig = make_rig(camera_grace_s=0.5)
    rig.around.stamp_of = stamps
    rig.activate()

    def told():
        last = rig.around.diagnostics[-1] if rig.around.diagnostics else None
        return last is not None and last.level == last.WARN and said in last.message

    # Before anybody asks for a goal.
    assert wait_until(told)
    result = rig.navigate(goal_node="last")
    assert result.reason == Reason.REASON_STALE_CAMERA and said in result.message
    assert not any(m.poses for _, m in rig.around.paths)


def test_inputs_of_another_type_and_bad_odometry_are_told(make_rig, beside):
    rig = make_rig()
    around = rig.around
    around.odometry_w = 0.0
    rig.activate()

    def told(*texts):
        last = around.diagnostics[-1] if around.diagnostics else None
        return (
            last is not None and last.level == last.WARN and all(t in last.message for t in texts)
        )

    assert wait_until(lambda: told("odometry is not used"))
    around.odometry_w = 1.0
    with beside("localisation") as other:
        other.create_publisher(PoseStamped, "odom", 1)
        said = "/odom is published as geometry_msgs/msg/PoseStamped by /localisation"
        assert wait_until(lambda: told(said))


def test_a_place_off_the_map_is_lost(make_rig):
    rig = make_rig(lost_timeout_s=4.0, turn_rate_rad_s=1.0)
    rig.around.steps = 60.5
    rig.activate()
    result = rig.navigate(goal_node="0")
    assert result.reason in (Reason.REASON_LOST, Reason.REASON_UNREACHABLE), result.message
    assert not any(pose.pose.position.x for _, m in rig.around.paths for pose in m.poses), (
        "drove while lost"
    )


@pytest.mark.alone
def test_failed_inference_ends_the_goal_and_not_the_node(make_rig):
    rig = make_rig()
    around = rig.around
    rig.activate()
    _, future = rig.drive()
    around.steps = 63.0
    failed_s = time.monotonic()
    result = rig.wait_for(future).result
    assert result.reason == Reason.REASON_INFERENCE_FAILED, result.message
    assert stop_time_s(around, failed_s) < 1.0
    around.steps = 40.0
    assert wait_until(lambda: rig.navigate(goal_node="last").reason == Reason.REASON_REACHED)


def test_gnm_cannot_explore(make_rig):
    rig = make_rig()
    rig.activate()
    _, future = rig.send(rig.explorations, duration_s=1.0)
    result = rig.wait_for(future).result
    assert result.reason == Explore.Result.REASON_UNSUPPORTED
    assert "nomad" in result.message


def break_map(path, kind):
    if kind == "image":
        file = path / "network_images.npy"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    elif kind == "header":
        file = path / "map.json"
        file.write_text(file.read_text()[:-20])
    elif kind == "version":
        file = path / "map.json"
        header = json.loads(file.read_text())
        file.write_text(json.dumps({**header, "version": 99, "format_version": 99}))
    else:
        shutil.rmtree(path)


@pytest.mark.parametrize("kind", ["image", "header", "version", "missing"])
def test_a_corrupt_map_is_refused_and_the_old_one_stays(make_rig, files, tmp_path, kind):
    rig = make_rig()
    rig.around.steps = 42.0
    rig.activate()
    broken = tmp_path / "broken"
    shutil.copytree(files["way"], broken)
    break_map(broken, kind)
    answer = rig.load(broken)
    assert not answer.success
    assert "broken" in answer.message
    assert rig.navigate(goal_node="last").reason == Reason.REASON_REACHED


def test_a_map_of_another_model_is_refused(make_rig, files):
    rig = make_rig()
    rig.activate()
    answer = rig.load(files["other"])
    assert not answer.success
    assert "other_model" in answer.message


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"map": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"bundle": "gmn"}, "gmn"),
        ({"robot": "lokobot"}, "locobot"),
    ],
)
def test_configure_is_refused_with_a_reason(make_rig, parameters, named):
    rig = make_rig(**parameters)
    assert not rig.transition(CONFIGURE)
    assert named in rig.output()


def test_a_misspelt_parameter_ends_the_node_with_the_right_name(make_rig):
    rig = make_rig(camera_timeuot_s=1.0)
    output, _ = rig.process.communicate(timeout=40.0)
    assert rig.process.returncode == 2
    assert 'did you mean "camera_timeout_s"' in output


@pytest.mark.alone
def test_deactivation_and_interruption_stop_the_robot(make_rig):
    rig = make_rig()
    around = rig.around
    rig.activate()
    _, future = rig.drive()
    assert rig.transition(DEACTIVATE)
    stopped_s = time.monotonic()
    assert rig.wait_for(future).result.reason == Reason.REASON_INACTIVE
    assert stop_time_s(around, stopped_s) < 0.2
    assert not around.paths[-1][1].poses
    assert rig.transition(ACTIVATE)
    around.steps = 5.0
    _, future = rig.drive()
    rig.process.send_signal(signal.SIGINT)
    assert rig.wait_for(future).result.reason == Reason.REASON_INACTIVE
    rig.process.wait(10.0)
    assert rig.process.returncode == 0
    assert not around.paths[-1][1].poses
