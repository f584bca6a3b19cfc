"""The map builder's node through its topics and services, in its own process."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from gnm_nav.camera_image import image_message
from gnm_nav.map_directory import load_map
from nav_msgs.msg import Odometry
from node_rig import NodeRig, wait_until
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from spun_nodes import SpunNodes
from std_msgs.msg import String
from std_srvs.srv import Trigger

BUNDLE = Path(__file__).parents[2] / "models" / "gnm_sim"


def corridor(seed, metres):
    """Pictures of a drive towards a wall with random patches."""
    rng = np.random.default_rng(seed)
    wall = cv2.resize(rng.integers(0, 256, (24, 32, 3), np.uint8), (640, 480))
    for metre in np.linspace(0.0, metres, 60):
        width = int(640 / (1.0 + 0.35 * metre))
        x, y = (640 - width) // 2, (480 - width * 3 // 4) // 2
        yield cv2.resize(wall[y : y + width * 3 // 4, x : x + width], (160, 120))


class Drive(Node):
    """A camera and odometry with stamps of its own."""

    def __init__(self, context):
        super().__init__("drive", context=context, use_global_arguments=False)
        self.images = self.create_publisher(Image, "camera/image_raw", 20)
        self.compressed = self.create_publisher(CompressedImage, "camera/image_raw/compressed", 20)
        self.odometry = self.create_publisher(Odometry, "odom", 20)
        self.names = self.create_publisher(String, "map_builder/name_node", 10)
        self.encoding = "rgb8"
        self.values = {}
        self.level = None
        self.message = ""
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_diagnostics(self, message):
        for status in message.status:
            if status.name.startswith("map_builder"):
                self.level, self.message = status.level, status.message
                self.values = {value.key: value.value for value in status.values}

    def show(self, picture, stamp_s, x=0.0):
        odometry = Odometry()
        odometry.header.stamp.sec = int(stamp_s)
        odometry.header.stamp.nanosec = round((stamp_s % 1.0) * 1e9)
        odometry.pose.pose.position.x = x
        odometry.pose.pose.orientation.w = 1.0
        self.odometry.publish(odometry)
        image = image_message(picture, odometry.header.stamp, "camera")
        if self.encoding == "yuv422_yuy2":
            image.encoding, image.step = self.encoding, 2 * image.width
            image.data = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_YUY2).tobytes()
        self.images.publish(image)
        jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
        self.compressed.publish(
            CompressedImage(header=odometry.header, format="jpeg", data=jpeg.tobytes())
        )

    def count(self, key):
        return int(self.values.get(key, -1))


@pytest.fixture
def make_rig(free_domain, monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rigs = []

    def make(**parameters):
        rigs.append(
            NodeRig(free_domain, "gnm_nav.map_builder_node", "map_builder", Drive, **parameters)
        )
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


def drive(rig, seed=0):
    """Send a drive as a camera does, only faster; the builder takes the newest image."""
    around = rig.around
    publishers = (around.images, around.compressed)
    assert wait_until(lambda: any(p.get_subscription_count() > 0 for p in publishers), 60.0)
    assert wait_until(lambda: around.odometry.get_subscription_count() > 0, 60.0)
    assert wait_until(lambda: around.values, 60.0)
    for index, picture in enumerate(corridor(seed, 6.0)):
        around.show(picture, 100.0 + 0.25 * index, 0.1 * index)
        time.sleep(0.06)
    assert wait_until(lambda: around.count("images taken") >= 40, 60.0), around.values


@pytest.mark.parametrize(
    ("transport", "encoding"), [("raw", "rgb8"), ("compressed", "rgb8"), ("raw", "yuv422_yuy2")]
)
def test_a_live_drive_is_saved_as_a_map(make_rig, tmp_path, transport, encoding):
    rig = make_rig(map=tmp_path / "office", bundle=BUNDLE, image_transport=transport)
    rig.around.encoding = encoding
    drive(rig)
    rig.around.names.publish(String(data="wall"))
    assert wait_until(lambda: rig.around.values.get("unsaved") == "True", 30.0)
    answer = rig.call(Trigger, "map_builder/save", Trigger.Request(), 60.0)
    assert answer.success, answer.message
    made = load_map(tmp_path / "office")
    assert len(made) >= 5 and made.poses is not None and made.frame_id == "odom"
    assert len(made.pictures) == len(made)
    assert np.all(np.diff(made.stamps_s) > 0.0)


def test_the_map_is_written_when_the_node_is_stopped(make_rig, tmp_path):
    rig = make_rig(map=tmp_path / "office", bundle=BUNDLE)
    drive(rig, seed=1)
    assert not (tmp_path / "office").exists()
    rig.process.terminate()
    assert rig.process.wait(60.0) == 0
    assert len(load_map(tmp_path / "office")) >= 5


def test_bad_images_are_counted_and_harm_nothing(make_rig, tmp_path):
    rig = make_rig(map=tmp_path / "office", bundle=BUNDLE)
    around = rig.around
    assert wait_until(lambda: around.images.get_subscription_count() > 0, 60.0)
    broken = Image(height=120, width=160, encoding="rgb8", step=480)

    def counted():
        # Best effort: the first ones may be lost.
        around.images.publish(broken)
        around.images.publish(Image(height=1, width=1, encoding="32FC1", step=4))
        return wait_until(lambda: around.count("bad images") >= 1, 2.0)

    assert wait_until(counted, 60.0)
    empty = rig.call(Trigger, "map_builder/save", Trigger.Request(), 60.0)
    assert not empty.success and "no image" in empty.message
    drive(rig)
    assert around.count("nodes") >= 5


def test_stamps_that_stand_are_told_at_once(make_rig, tmp_path):
    rig = make_rig(map=tmp_path / "office", bundle=BUNDLE)
    around = rig.around
    assert wait_until(lambda: around.images.get_subscription_count() > 0, 60.0)
    pictures = list(corridor(0, 6.0))
    began_s = time.monotonic()
    told_s = None
    for index in range(400):
        around.show(pictures[index % len(pictures)], 0.0)
        if told_s is None and "no newer stamp (0.000)" in around.message:
            told_s = time.monotonic()
        if told_s is not None and around.count("images without newer stamp") > 20:
            break
        time.sleep(0.05)
    assert told_s is not None and told_s - began_s < 5.0, around.values
    assert around.level == DiagnosticStatus.WARN and around.count("images taken") == 1


def test_what_cannot_be_heard_is_told(make_rig, free_domain, tmp_path):
    rig = make_rig(map=tmp_path / "office", bundle=BUNDLE)
    around = rig.around
    # One DDS participant publishes a topic with one type only.
    others = SpunNodes(free_domain)
    phone = others.add(rclpy.create_node("phone", context=others.context))
    phone.create_publisher(CompressedImage, "camera/image_raw", 1)
    phone.create_publisher(Odometry, "odom", 20)
    said = ("published as sensor_msgs/msg/CompressedImage by /phone", "set image_transport")
    try:
        assert wait_until(lambda: all(text in around.message for text in said), 60.0)
        assert "/odom has 2 senders" in around.message
        assert around.level == DiagnosticStatus.WARN
    finally:
        others.close()
    drive(rig)
    assert wait_until(lambda: "senders" not in around.message, 20.0), around.message


@pytest.mark.parametrize("there", [False, True])
def test_it_does_not_start_on_a_map_that_is_there_or_on_none(make_rig, tmp_path, there):
    parameters = {"bundle": BUNDLE}
    if there:
        (tmp_path / "office").mkdir()
        (tmp_path / "office" / "map.json").write_text("{}")
        parameters["map"] = tmp_path / "office"
    rig = make_rig(**parameters)
    output, _ = rig.process.communicate(timeout=60.0)
    assert rig.process.returncode == 2
    assert ("overwrite" if there else "parameter map") in output
