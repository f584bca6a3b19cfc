"""Maps of recorded drives by the launch file, as the README says."""

import cv2
import numpy as np
import pytest
from gnm_nav.map_directory import load_map
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_KILTED)
IMAGE = "sensor_msgs/msg/Image"
INCLUDED = """
from launch import LaunchDescription
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import PushROSNamespace, SetParameter, SetRemap
from launch_ros.substitutions import FindPackageShare

def generate_launch_description():
    file = PathJoinSubstitution([FindPackageShare("gnm_nav"), "launch", "map.launch.py"])
    arguments = {"map": "MAP", "bag": "BAG"}
    return LaunchDescription([GroupAction([
        PushROSNamespace("robot"),
        SetRemap("camera/image_raw", "/front/image"),
        SetParameter("use_sim_time", True),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(file), launch_arguments=arguments.items()),
    ])])
"""


@pytest.fixture
def bag(tmp_path):
    """A drive towards a wall with random patches, at 10 Hz."""
    wall = cv2.resize(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8), (640, 480))
    types = TYPES.types
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection("/camera/image_raw", IMAGE, typestore=TYPES)
        for index in range(100):
            width = int(640 / (1.0 + 0.035 * index))
            x, y = (640 - width) // 2, (480 - width * 3 // 4) // 2
            pixels = cv2.resize(wall[y : y + width * 3 // 4, x : x + width], (160, 120))
            stamp_ns = 10**11 + 10**8 * index
            stamp = types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
            message = types[IMAGE](
                header=types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera"),
                height=120,
                width=160,
                encoding="rgb8",
                is_bigendian=0,
                step=480,
                data=pixels.ravel(),
            )
            writer.write(topic, stamp_ns, TYPES.serialize_cdr(message, IMAGE))
    return tmp_path / "bag"


def test_a_bag_becomes_a_map_by_the_launch_file(start, bag, tmp_path):
    by_launch, by_program, included = (tmp_path / name for name in ("one", "two", "three"))
    launch = start("launch", "gnm_nav", "map.launch.py", f"map:={by_launch}", f"bag:={bag}")
    assert launch.wait(120.0) == 0, launch.output
    made = load_map(by_launch)
    assert len(made) >= 5
    program = start("run", "gnm_nav", "build_map", "--bag", str(bag), "--out", str(by_program))
    assert program.wait(120.0) == 0, program.output
    np.testing.assert_array_equal(made.images, load_map(by_program).images)
    # Where a launch around it sets parameters, a namespace and remappings of all nodes.
    file = tmp_path / "robot.launch.py"
    file.write_text(INCLUDED.replace("MAP", str(included)).replace("BAG", str(bag)))
    launch = start("launch", str(file))
    assert launch.wait(120.0) == 0, launch.output
    np.testing.assert_array_equal(made.images, load_map(included).images)
    launch.assert_nothing_left()


def test_a_bag_that_makes_no_map_fails_the_launch(start, tmp_path):
    launch = start("launch", "gnm_nav", "map.launch.py", f"map:={tmp_path}/m", "bag:=/no/bag")
    assert launch.wait(60.0) == 1
    assert "found nothing there" in launch.output and "no map was built" in launch.output
