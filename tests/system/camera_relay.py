"""A camera of its own: passes the simulated camera's images on, so that it can die by itself."""

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node("camera_relay")
qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
publisher = node.create_publisher(Image, "/relay/image_raw", qos)
node.create_subscription(Image, "/camera/image_raw", publisher.publish, qos)
rclpy.spin(node)
