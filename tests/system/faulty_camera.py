"""A camera of its own: passes the simulated camera's images on, until it is told to fail.

SIGUSR1: it freezes, the last picture comes again and again with new stamps. SIGUSR2: it goes black.
SIGHUP: it is well again.
"""

import array
import signal

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
node = rclpy.create_node("faulty_camera")
qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
publisher = node.create_publisher(Image, "/faulty/image_raw", qos)
fault = ""
last = None


def fail(name):
    global fault
    fault = name


for number, name in (
    (signal.SIGUSR1, "frozen"),
    (signal.SIGUSR2, "black"),
    (signal.SIGHUP, ""),
):
    signal.signal(number, lambda *_, name=name: fail(name))


def on_image(message):
    global last
    if fault == "black":
        message.data = array.array("B", bytes(len(message.data)))
    elif fault == "frozen" and last is not None:
        message.data = last
    last = message.data
    publisher.publish(message)


node.create_subscription(Image, "/camera/image_raw", on_image, qos)
while True:
    rclpy.spin_once(node, timeout_sec=0.1)
