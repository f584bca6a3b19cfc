"""Images as ROS messages."""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import Image


def image_message(picture: NDArray[np.uint8], stamp: Time, frame_id: str) -> Image:
    """A message of an RGB picture, (H, W, 3) uint8."""
    height, width = picture.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.data = array.array("B", np.ascontiguousarray(picture).tobytes())
    return message
