"""ROS images and arrays."""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from policy_server.image_conversion import image_view
from sensor_msgs.msg import Image


def rgb_of(message: Image) -> NDArray[np.uint8]:
    """The picture of a message as RGB, whatever its encoding and row padding.

    Returns:
        (H, W, 3) uint8 in memory of its own.

    Raises:
        policy_server.image_conversion.ImageError: the message cannot be understood.
    """
    view = image_view(message.data, message.height, message.width, message.step, message.encoding)
    if message.encoding == "mono8":
        return np.repeat(view, 3, axis=2)
    if message.encoding in ("bgr8", "bgra8"):
        return np.ascontiguousarray(view[..., 2::-1])
    return np.array(view[..., :3], order="C")


def image_message(picture: NDArray[np.uint8], stamp: Time, frame_id: str) -> Image:
    """A message of an RGB picture, (H, W, 3) uint8."""
    height, width = picture.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.data = array.array("B", np.ascontiguousarray(picture).tobytes())
    return message
