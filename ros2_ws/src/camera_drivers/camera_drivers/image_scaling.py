"""Scaling and rotating images before they are published."""

import cv2
import numpy as np
from numpy.typing import NDArray

_ROTATIONS = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}


def scale_to(image: NDArray[np.uint8], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Scales an image, area-averaged when it shrinks; the aspect ratio is not kept.

    Args:
        image: uint8 (H, W, 3).
        size: (width, height) [px]; None leaves the image as it is.
    """
    height, width = image.shape[:2]
    if size is None or size == (width, height):
        return image
    shrinks = size[0] <= width and size[1] <= height
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), dtype=np.uint8)


def rotate(image: NDArray[np.uint8], rotation_deg: int) -> NDArray[np.uint8]:
    """Rotates an image (H, W, 3) clockwise by 0, 90, 180 or 270 degrees."""
    if rotation_deg == 0:
        return image
    return np.asarray(cv2.rotate(image, _ROTATIONS[rotation_deg]), dtype=np.uint8)
