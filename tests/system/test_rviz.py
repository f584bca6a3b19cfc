"""What RViz shows is published with `use_rviz:=true`, also where there is no RViz."""

from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def test_frames_and_markers_of_an_episode(start, watcher):
    parents, markers = {}, set()

    def note_frames(message):
        parents.update({t.child_frame_id: t.header.frame_id for t in message.transforms})

    def note_markers(message):
        markers.update((marker.ns, marker.header.frame_id) for marker in message.markers)

    watcher.create_subscription(TFMessage, "/tf", note_frames, 100)
    watcher.create_subscription(TFMessage, "/tf_static", note_frames, LATCHED)
    watcher.create_subscription(MarkerArray, "/policy_markers", note_markers, 10)
    launch = start(
        *("launch", "widowx_bringup", "ptr.launch.py"),
        *("episodes:=1", "max_steps:=10", "rtf:=0.5", "use_rviz:=true"),
    )
    assert launch.wait(100.0) == 0, launch.output
    launch.assert_nothing_left()

    chain = ["ee_gripper_link"]
    while chain[-1] in parents:
        chain.append(parents[chain[-1]])
    assert chain[-1] == "base_link", parents
    assert {"shoulder_link", "upper_arm_link", "gripper_link"} <= set(chain)
    shown = {"action", "commanded_pose", "workspace", "status"}
    assert {(name, "base_link") for name in shown} <= markers
    assert "Traceback" not in launch.output
