"""From a ROS image's fields to the network's image, without importing ROS."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from policy_server.preprocessing import squash

CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_BGR = ("bgr8", "bgra8")


class ImageError(ValueError):
    """An image message that cannot be understood."""


def image_view(
    data: bytes | bytearray | memoryview | NDArray[np.uint8],
    height: int,
    width: int,
    step: int,
    encoding: str,
) -> NDArray[np.uint8]:
    """View an image's bytes as an array, without a copy.

    Args:
        data: the rows, each `step` bytes long; any object with the buffer protocol.
        height, width: size in pixels.
        step: length of a row in bytes, padding included.
        encoding: a key of `CHANNELS`.

    Returns:
        uint8, shape (height, width, channels), in the channel order of `encoding`; it shares
        memory with `data`.

    Raises:
        ImageError: the encoding is unknown or the sizes do not fit together.
    """
    channels = CHANNELS.get(encoding)
    if channels is None:
        raise ImageError(f'found the encoding "{encoding}", expected one of {list(CHANNELS)}')
    buffer = np.frombuffer(data, np.uint8)
    if height < 1 or width < 1 or step < width * channels or buffer.size < height * step:
        raise ImageError(
            f"found {buffer.size} bytes for {height} rows of {step} bytes and {width} pixels, "
            f"expected at least {height}·{max(step, width * channels)} bytes"
        )
    return np.lib.stride_tricks.as_strided(
        buffer, (height, width, channels), (step, channels, 1), writeable=False
    )


def network_image(
    data: bytes | bytearray | memoryview | NDArray[np.uint8],
    height: int,
    width: int,
    step: int,
    encoding: str,
    size: tuple[int, int],
) -> NDArray[np.uint8]:
    """Make the network's image from an image message's fields.

    Args:
        data, height, width, step, encoding: see `image_view`.
        size: (width, height) of the result.

    Returns:
        RGB image, uint8, C-contiguous, shape (size[1], size[0], 3), in memory of its own.

    Raises:
        ImageError: the message cannot be understood.
    """
    view = image_view(data, height, width, step, encoding)
    if encoding == "mono8":
        small = squash(np.repeat(view, 3, axis=2), size)
    else:
        # Averaging treats channels alike: reordering the small image gives the same result.
        small = squash(view[..., :3], size)
    if encoding in _BGR:
        small = small[..., ::-1]
    owns = small.flags.c_contiguous and not np.shares_memory(small, view)
    return small if owns else np.array(small, order="C")


def network_image_from_compressed(
    data: bytes | bytearray | memoryview | NDArray[np.uint8], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Make the network's image from JPEG or PNG bytes. See `network_image`."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_BGR)
    if image is None:
        raise ImageError("found bytes that are not an image, expected JPEG or PNG")
    bgr = np.asarray(image, np.uint8)
    return np.array(squash(bgr, size)[..., ::-1], order="C")
