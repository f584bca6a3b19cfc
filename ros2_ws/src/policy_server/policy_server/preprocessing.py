"""The one image preprocessing used for recording, training, evaluation and deployment."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def squash(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize an image to the network's input size without keeping its aspect ratio.

    Area averaging is used: unlike a plain bilinear filter it does not alias when shrinking, and it
    is the same function on every platform, which the Lanczos / anti-aliased pair of the original
    PTR pipeline was not (its training and robot images differed by 3 grey levels on average).

    Args:
        image: RGB image, uint8, shape (height, width, 3).
        size: (width, height) of the result in pixels.

    Returns:
        RGB image, uint8, C-contiguous, shape (size[1], size[0], 3).

    Raises:
        ValueError: `image` is not a uint8 array of shape (height, width, 3).
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"found an image of dtype {image.dtype} and shape {image.shape}, "
            "expected uint8 (height, width, 3) in RGB order"
        )
    if (image.shape[1], image.shape[0]) == size:
        return np.ascontiguousarray(image)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
