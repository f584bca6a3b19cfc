"""`CvBridge`, over the conversions that every node of Coxswain uses."""

from __future__ import annotations

import array
from typing import Any

import cv2
import numpy as np
from node_common.image_conversion import ImageError, convert, encoding_of, image_view
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

_DEPTHS = {
    "8U": "uint8",
    "8S": "int8",
    "16U": "uint16",
    "16S": "int16",
    "32S": "int32",
    "32F": "float32",
    "64F": "float64",
}


class CvBridgeError(TypeError):
    """A conversion that is not possible."""


def getCvType(encoding: str) -> int:
    """The OpenCV type of an encoding, such as `cv2.CV_8UC3`.

    Raises:
        RuntimeError: there is no such encoding, or OpenCV has no type for it.
    """
    try:
        layout = encoding_of(encoding)
    except ImageError as error:
        raise RuntimeError(str(error)) from None
    depth = next(name for name, dtype in _DEPTHS.items() if layout.dtype == dtype)
    number: int | None = getattr(cv2, f"CV_{depth}C{layout.channels}", None)
    if number is None:
        raise RuntimeError(f"found the encoding {encoding}, expected one to four channels")
    return number


class CvBridge:
    """Converts between ROS images and OpenCV arrays.

    Attributes:
        cvtype_to_name: OpenCV type to its name, such as "8UC3".
        numpy_type_to_cvtype: NumPy name to OpenCV's depth and back, "uint8" to "8U".
        cvdepth_to_numpy_depth: OpenCV depth to NumPy name.
    """

    def __init__(self) -> None:
        self.cvtype_to_name = {
            getattr(cv2, f"CV_{depth}C{channels}"): f"{depth}C{channels}"
            for depth in _DEPTHS
            for channels in (1, 2, 3, 4)
        }
        self.numpy_type_to_cvtype = _DEPTHS | {name: depth for depth, name in _DEPTHS.items()}
        self.cvdepth_to_numpy_depth = {
            getattr(cv2, f"CV_{depth}"): name for depth, name in _DEPTHS.items()
        }

    def dtype_with_channels_to_cvtype2(self, dtype: np.dtype[Any], n_channels: int) -> str:
        """The name of an OpenCV type, "8UC3" for uint8 and 3."""
        return f"{self.numpy_type_to_cvtype[dtype.name]}C{n_channels}"

    def cvtype2_to_dtype_with_channels(self, cvtype: int) -> tuple[str, int]:
        """The NumPy type and channels of an OpenCV type."""
        depth, _, channels = self.cvtype_to_name[cvtype].partition("C")
        return _DEPTHS[depth], int(channels)

    def encoding_to_cvtype2(self, encoding: str) -> int:
        """The OpenCV type of an encoding.

        Raises:
            CvBridgeError: there is no such encoding.
        """
        try:
            return getCvType(encoding)
        except RuntimeError as error:
            raise CvBridgeError(str(error)) from None

    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        """The NumPy type and channels of an encoding.

        Raises:
            CvBridgeError: there is no such encoding.
        """
        return self.cvtype2_to_dtype_with_channels(self.encoding_to_cvtype2(encoding))

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> NDArray[Any]:
        """The array of an image message.

        Args:
            img_msg: the message.
            desired_encoding: "passthrough" leaves it as it is.

        Returns:
            (H, W) or (H, W, channels), in memory of its own, in the machine's byte order.

        Raises:
            CvBridgeError: no such encoding or conversion, or sizes that do not fit.
        """
        source = img_msg.encoding
        target = source if desired_encoding == "passthrough" else desired_encoding
        try:
            image = convert(image_view(img_msg), source, target)
        except (ImageError, cv2.error) as error:
            raise CvBridgeError(str(error)) from None
        if target != source:
            image = image[: img_msg.height, : img_msg.width]
        return np.array(image, order="C")

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: CompressedImage, desired_encoding: str = "passthrough"
    ) -> NDArray[Any]:
        """The array of a compressed message.

        Args:
            cmprs_img_msg: JPEG, PNG or another format that OpenCV reads.
            desired_encoding: "passthrough" gives what is stored, colours as blue-green-red.

        Raises:
            CvBridgeError: the bytes are no image, or there is no such conversion.
        """
        data = np.frombuffer(bytes(cmprs_img_msg.data), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
        if image is None:
            raise CvBridgeError(f"found {data.size} bytes that are no image")
        stored = np.asarray(image)
        if desired_encoding == "passthrough":
            return stored
        channels = 1 if stored.ndim == 2 else stored.shape[2]
        colour = {1: "mono", 3: "bgr", 4: "bgra"}[channels]
        try:
            return convert(stored, f"{colour}{8 * stored.dtype.itemsize}", desired_encoding)
        except (ImageError, cv2.error) as error:
            raise CvBridgeError(str(error)) from None

    def cv2_to_imgmsg(
        self, cvim: NDArray[Any], encoding: str = "passthrough", header: Header | None = None
    ) -> Image:
        """The message of an array.

        Args:
            cvim: (H, W) or (H, W, channels).
            encoding: of the array; "passthrough" names its generic type.
            header: of the message; None leaves it empty.

        Raises:
            TypeError: `cvim` is no array.
            CvBridgeError: its type is not that of `encoding`.
        """
        self._check_array(cvim)
        name = self.dtype_with_channels_to_cvtype2(
            cvim.dtype, 1 if cvim.ndim < 3 else cvim.shape[2]
        )
        if encoding == "passthrough":
            encoding = name
        elif self.cvtype_to_name[self.encoding_to_cvtype2(encoding)] != name:
            raise CvBridgeError(f"encoding specified as {encoding}, but the image has type {name}")
        message = Image(height=cvim.shape[0], width=cvim.shape[1], encoding=encoding)
        if header is not None:
            message.header = header
        message.is_bigendian = int(cvim.dtype.newbyteorder("<") != cvim.dtype)
        message.data = array.array("B", cvim.tobytes())
        message.step = len(message.data) // message.height
        return message

    def cv2_to_compressed_imgmsg(
        self, cvim: NDArray[Any], dst_format: str = "jpg"
    ) -> CompressedImage:
        """The compressed message of an array, blue-green-red or grey.

        Args:
            cvim: (H, W) or (H, W, channels).
            dst_format: "jpg", "png" or another format that OpenCV writes.

        Raises:
            TypeError: `cvim` is no array.
            CvBridgeError: OpenCV cannot write it so.
        """
        self._check_array(cvim)
        try:
            _, data = cv2.imencode(f".{dst_format}", cvim)
        except cv2.error as error:
            raise CvBridgeError(str(error)) from None
        return CompressedImage(format=dst_format, data=array.array("B", data.tobytes()))

    @staticmethod
    def _check_array(image: object) -> None:
        if not isinstance(image, np.ndarray):
            raise TypeError(f"found {type(image).__name__}, expected a NumPy array")
