"""From images as messages and files hold them to RGB arrays, without importing ROS."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Resize = Callable[[NDArray[np.uint8], tuple[int, int]], NDArray[np.uint8]]
"""Makes an image (height, width, 3) another one of a size (width, height)."""

# Decoders stop where the end marker of a JPEG is missing, as it is in what some webcams send. So
# many zeros let them finish the last block of a whole image, and are too few to fill a cut one.
_JPEG_PADDING = bytes(32)
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
# How many of 16 bits cameras use.
_SENSOR_BITS = (10, 12, 14, 16)


class ImageError(ValueError):
    """An image that cannot be understood."""


@dataclass(frozen=True)
class Encoding:
    """How one of the encodings of `sensor_msgs/image_encodings.hpp` lays out its pixels.

    Attributes:
        dtype: of one value, in the machine's byte order.
        channels: values of a pixel.
        colour: as in the names of OpenCV's conversion codes; empty for the generic types
            ("32FC1"), which do not say what they hold.
    """

    dtype: np.dtype[Any]
    channels: int
    colour: str = ""


_BY_NAME = {
    f"{name}{bits}": Encoding(np.dtype(f"u{bits // 8}"), channels, colour)
    for bits in (8, 16)
    for name, channels, colour in (
        ("rgb", 3, "RGB"),
        ("bgr", 3, "BGR"),
        ("rgba", 4, "RGBA"),
        ("bgra", 4, "BGRA"),
        ("mono", 1, "GRAY"),
        ("bayer_rggb", 1, "BayerRGGB"),
        ("bayer_bggr", 1, "BayerBGGR"),
        ("bayer_gbrg", 1, "BayerGBRG"),
        ("bayer_grbg", 1, "BayerGRBG"),
    )
} | {
    name: Encoding(np.dtype(np.uint8), channels, f"YUV_{layout}")
    for name, channels, layout in (
        ("yuv422", 2, "UYVY"),
        ("uyvy", 2, "UYVY"),
        ("yuv422_yuy2", 2, "YUY2"),
        ("yuyv", 2, "YUY2"),
        ("nv12", 1, "NV12"),
        ("nv21", 1, "NV21"),
        ("nv24", 3, "NV24"),
    )
}
_GENERIC = re.compile(r"(8U|8S|16U|16S|32S|32F|64F)C(\d*)")
# What OpenCV's users put into generic types, and RViz shows.
_GENERIC_COLOURS = {1: "mono", 3: "bgr", 4: "bgra"}


def encoding_of(name: str) -> Encoding:
    """Look up an encoding.

    Raises:
        ImageError: there is none of this name.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    generic = _GENERIC.fullmatch(name)
    if generic is None:
        raise ImageError(f'found the encoding "{name}", expected one of {", ".join(_BY_NAME)}')
    depth, channels = generic.groups()
    kind = {"U": "u", "S": "i", "F": "f"}[depth[-1]]
    return Encoding(np.dtype(f"{kind}{int(depth[:-1]) // 8}"), int(channels or 1))


def image_view(message: Any) -> NDArray[Any]:
    """View the pixels of an image message as its encoding lays them out.

    Args:
        message: `sensor_msgs/Image`; rows may be padded, the last one need not be.

    Returns:
        (H, W), or (H, W, channels) where the encoding has more than one, without a copy where the
        layout allows. `nv12` and `nv21`: (H·3/2, W), colours below brightness; `nv24`: (H, W, 3).
        An odd width of a 4:2:2 or 4:2:0 encoding, and an odd height of 4:2:0, are one larger.

    Raises:
        ImageError: the encoding is unknown or the sizes do not fit together.
    """
    encoding = encoding_of(message.encoding)
    height, width, step = int(message.height), int(message.width), int(message.step)
    channels, size = encoding.channels, encoding.dtype.itemsize
    dtype = encoding.dtype.newbyteorder(">" if message.is_bigendian else "<")
    is_444 = encoding.colour == "YUV_NV24"
    rows, columns = height, width
    if is_444:
        # A row of colours is as long as two of brightness.
        rows, channels = 3 * height, 1
    elif encoding.colour.startswith("YUV"):
        columns += width % 2
        rows += (height + 1) // 2 if channels == 1 else 0
    row_bytes = columns * channels * size
    padding = (step - row_bytes) * (2 if is_444 else 1)
    data = np.frombuffer(message.data, np.uint8) if len(message.data) else np.empty(0, np.uint8)
    if height < 1 or width < 1 or step < row_bytes or data.size < rows * step - padding:
        raise ImageError(
            f"found {data.size} bytes for {height} rows of {step} bytes and {width} pixels "
            f'"{message.encoding}", expected at least {rows}·{max(step, row_bytes)} bytes'
        )
    if is_444:
        luma = np.ndarray((height, width), dtype, data, 0, (step, 1))
        chroma = np.ndarray((height, width, 2), dtype, data, height * step, (2 * step, 2, 1))
        return np.dstack([luma, chroma])
    shape, strides = (rows, columns, channels), (step, channels * size, size)
    view: NDArray[Any] = np.ndarray(shape, dtype, data, 0, strides)
    view.flags.writeable = False
    if channels == 1:
        view = view[..., 0]
    if rows > height and height % 2:
        view = np.concatenate([view[:height], view[height - 1 :]])
    return view if dtype.isnative else view.astype(encoding.dtype)


def convert(image: NDArray[Any], source: str, target: str) -> NDArray[Any]:
    """Convert colours and depth as `cv_bridge` does: 8 and 16 bits are scaled to each other.

    Args:
        image: of the shape that `image_view` gives.
        source, target: encodings. Generic types have no colour: from and to them only the depth
            changes.

    Returns:
        The image in the target encoding; `image` itself where nothing is to be done.

    Raises:
        ImageError: an encoding is unknown, or there is no conversion between the two.
    """
    before, after = encoding_of(source), encoding_of(target)
    if source == target:
        return image
    if before.colour and after.colour:
        image = _convert_colour(image, before.colour, after.colour, f"{source} to {target}")
    elif after.colour or before.channels != after.channels:
        raise ImageError(
            f"found no conversion from {source} to {target}: generic types say nothing of colours; "
            f"expected {'a colour encoding as source' if after.colour else 'the same channels'}"
        )
    return _convert_depth(image, after.dtype)


def _convert_colour(image: NDArray[Any], source: str, target: str, what: str) -> NDArray[Any]:
    if source == target:
        return image
    if source == "YUV_NV24":
        # Twice the size, it is NV12.
        height, width = image.shape[:2]
        luma = image[..., 0].repeat(2, axis=0).repeat(2, axis=1)
        chroma = image[..., 1:].reshape(height, 2 * width)
        doubled = _convert_colour(np.vstack([luma, chroma]), "YUV_NV12", target, what)
        return doubled[::2, ::2]
    family, _, layout = source.partition("_")
    code = getattr(cv2, f"COLOR_{family}2{target}" + (f"_{layout}" if layout else ""), None)
    if code is None:
        raise ImageError(f"found no conversion from {what}")
    if image.dtype.itemsize > 2:
        raise ImageError(f"found {image.dtype} for the conversion from {what}")
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), code))


def _convert_depth(image: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if image.dtype == dtype:
        return image
    if image.dtype == np.uint16 and dtype == np.uint8:
        return _scaled_to_8_bit(image, 16)
    if image.dtype == np.uint8 and dtype == np.uint16:
        return image.astype(np.uint16) * np.uint16(257)
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        image = np.clip(np.rint(image), limits.min, limits.max)
    return image.astype(dtype)


def _scaled_to_8_bit(image: NDArray[np.uint16], bits: int) -> NDArray[np.uint8]:
    scaled = cv2.convertScaleAbs(np.ascontiguousarray(image), alpha=255.0 / (2**bits - 1))
    return np.asarray(scaled, np.uint8).reshape(image.shape)


def _decoded(
    content: bytes | bytearray | memoryview | NDArray[np.uint8], flags: int
) -> NDArray[Any]:
    data = bytes(content)
    if data.startswith(_JPEG_START) and _JPEG_END not in data.rstrip(b"\0")[-4:]:
        data += _JPEG_PADDING
    image = None
    with contextlib.suppress(cv2.error):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None or image.dtype.kind != "u":
        raise ImageError(
            f"found {len(content)} bytes that are not a whole image, expected JPEG or PNG"
        )
    return np.asarray(image)


class ImageConverter:
    """Turns the images of one camera, recording or file into 8-bit RGB.

    Generic types are taken as OpenCV's users mean them: 8UC1 and 16UC1 are grey, 8UC3 is
    blue-green-red, 8UC4 has alpha behind. Of 16 bits, cameras use 10, 12, 14 or all: the fewest
    that hold the largest value so far are scaled to 8, and a change is told.
    """

    def __init__(self, warn: Callable[[str], object] = warnings.warn) -> None:
        """Make a converter.

        Args:
            warn: told in a sentence what was assumed of the images.
        """
        self._warn = warn
        self._bits = 0

    def rgb(self, message: Any) -> NDArray[np.uint8]:
        """The image of a message.

        Args:
            message: `sensor_msgs/Image` in any encoding of pictures, or `CompressedImage`.

        Returns:
            RGB image, uint8, C-contiguous, shape (H, W, 3), in memory of its own.

        Raises:
            ImageError: the message cannot be understood, or is no whole picture.
        """
        if hasattr(message, "format"):
            return self._compressed(message)
        view, encoding = self._picture(message)
        rgb = convert(view, encoding, "rgb8")[: message.height, : message.width]
        return (
            np.array(rgb, order="C") if np.shares_memory(rgb, view) else np.ascontiguousarray(rgb)
        )

    def network_image(
        self, message: Any, size: tuple[int, int], resize: Resize
    ) -> NDArray[np.uint8]:
        """The image of a message in the size of a network's input.

        Args:
            message: see `rgb`.
            size: (width, height) of the result.
            resize: makes it that size, each channel like the others.

        Returns:
            RGB image, uint8, C-contiguous, shape (size[1], size[0], 3), in memory of its own.

        Raises:
            ImageError: the message cannot be understood, or is no whole picture.
        """
        if getattr(message, "encoding", "") not in ("rgb8", "bgr8", "rgba8", "bgra8"):
            return resize(self.rgb(message), size)
        view, encoding = self._picture(message)
        # As channels are treated alike, reordering the small image gives the same result.
        small = resize(view[..., :3], size)
        if encoding.startswith("bgr"):
            small = small[..., ::-1]
        owns = small.flags.c_contiguous and not np.shares_memory(small, view)
        return small if owns else np.array(small, order="C")

    def decode(
        self, content: bytes | bytearray | memoryview | NDArray[np.uint8], order: str = "rgb"
    ) -> NDArray[np.uint8]:
        """The image in the bytes of a file or of a compressed message.

        Args:
            content: JPEG, PNG, or another format that OpenCV reads.
            order: of the result's channels, "rgb" or "bgr".

        Returns:
            Image, uint8, C-contiguous, shape (H, W, 3).

        Raises:
            ImageError: the bytes are no image, or only a part of one.
        """
        colour = cv2.IMREAD_COLOR_RGB if order == "rgb" else cv2.IMREAD_COLOR_BGR
        return self._to_8_bit(_decoded(content, colour | cv2.IMREAD_ANYDEPTH))

    def _compressed(self, message: Any) -> NDArray[np.uint8]:
        # Bayer images are compressed as grey ones; the format says what was compressed.
        name = message.format.partition(";")[0].strip()
        if not name.startswith("bayer") or name not in _BY_NAME:
            return self.decode(message.data)
        image = self._to_8_bit(_decoded(message.data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH))
        mosaic = name.removesuffix("16").removesuffix("8") + "8"
        return convert(image, mosaic if image.ndim == 2 else "bgr8", "rgb8")

    def _picture(self, message: Any) -> tuple[NDArray[np.uint8], str]:
        encoding = encoding_of(message.encoding)
        name = str(message.encoding)
        if not encoding.colour:
            colour = _GENERIC_COLOURS.get(encoding.channels)
            if encoding.dtype.kind != "u" or encoding.dtype.itemsize > 2 or colour is None:
                raise ImageError(
                    f'found the encoding "{name}", which holds no picture, expected one of '
                    + ", ".join(_BY_NAME)
                )
            name = f"{colour}{8 * encoding.dtype.itemsize}"
        view = image_view(message)
        if view.dtype == np.uint16:
            return self._to_8_bit(view), name.removesuffix("16") + "8"
        return view, name

    def _to_8_bit(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        if image.dtype == np.uint8:
            return image
        largest = int(image.max())
        bits = max(self._bits, next(bits for bits in _SENSOR_BITS if largest < 2**bits))
        if bits != self._bits:
            self._bits = bits
            if bits < 16:
                self._warn(
                    f"found 16-bit images with values up to {largest}: they are taken as {bits}-bit"
                )
        return _scaled_to_8_bit(image, bits)
