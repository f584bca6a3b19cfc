"""The image preprocessing used for recording, training, evaluation and deployment."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import PIL.Image
from node_common.image_conversion import Resize
from numpy.typing import NDArray

NAVIGATION_ASPECT = 4 / 3
"""Width over height of what navigation networks see of an image."""


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
    _check_image(image)
    if (image.shape[1], image.shape[0]) == size:
        return np.ascontiguousarray(image)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def crop_bicubic(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Centre-crop an image to 4:3 and resize it with an anti-aliased bicubic filter.

    It is what the training of GNM, ViNT and NoMaD does to each image. Their own deployment leaves
    the crop out, which squashes images of wider cameras. The filter is Pillow's, whose support
    grows with the scale; a plain bilinear one differs by about 7 grey levels on average.

    Args:
        image: RGB image, uint8, shape (height, width, 3). Where it is wider than high but less
            than 4:3, black columns are added at both sides, as in training.
        size: (width, height) of the result in pixels.

    Returns:
        RGB image, uint8, C-contiguous, shape (size[1], size[0], 3).

    Raises:
        ValueError: `image` is not a uint8 array of shape (height, width, 3).
    """
    _check_image(image)
    height, width = image.shape[:2]
    if width > height:
        crop_height, crop_width = height, int(height * NAVIGATION_ASPECT)
    else:
        crop_height, crop_width = int(width / NAVIGATION_ASPECT), width
    if crop_width > width:
        missing = crop_width - width
        image = np.pad(image, ((0, 0), (missing // 2, (missing + 1) // 2), (0, 0)))
        width = crop_width
    top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
    cropped = image[top : top + crop_height, left : left + crop_width]
    if (crop_width, crop_height) == size:
        return np.ascontiguousarray(cropped)
    resized = PIL.Image.fromarray(cropped).resize(size, PIL.Image.Resampling.BICUBIC)
    return np.array(resized)


RESIZE_RULES: Mapping[str, Resize] = {"squash": squash, "crop_4_3": crop_bicubic}
"""The rules of `policy_server.deployment.RESIZE_FILTERS` → what does it."""


def _check_image(image: NDArray[np.uint8]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"found an image of dtype {image.dtype} and shape {image.shape}, "
            "expected uint8 (height, width, 3) in RGB order"
        )
