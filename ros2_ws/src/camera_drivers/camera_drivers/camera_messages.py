"""Images and calibrations as ROS messages."""

from array import array

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from camera_drivers.calibration_file import Calibration, distortion_model


def _bytes(values: NDArray[np.uint8]) -> array:
    # rclpy takes an array.array as it is and checks any other sequence element by element.
    data = array("B")
    data.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return data


def image_message(image: NDArray[np.uint8], stamp: Time, frame_id: str) -> Image:
    """An rgb8 message from a blue-green-red image, uint8 (H, W, 3)."""
    height, width = image.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.data = _bytes(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8))
    return message


def compressed_message(
    image: NDArray[np.uint8], stamp: Time, frame_id: str, quality: int
) -> CompressedImage:
    """A JPEG message from a blue-green-red image, uint8 (H, W, 3); quality 1 … 100."""
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    message = CompressedImage(format="rgb8; jpeg compressed bgr8")
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.data = _bytes(np.asarray(encoded, dtype=np.uint8))
    return message


def camera_info_message(
    calibration: Calibration | None, size: tuple[int, int], stamp: Time, frame_id: str
) -> CameraInfo:
    """The calibration of an image of the given (width, height) [px].

    Without a calibration for this size all matrices are zero, which is how CameraInfo says
    "uncalibrated".
    """
    width, height = size
    message = CameraInfo(width=width, height=height)
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    if calibration is not None and (calibration.width, calibration.height) == size:
        message.distortion_model = calibration.distortion_model
        message.d = calibration.distortion.tolist()
        message.k = calibration.camera_matrix.ravel()
        message.r = calibration.rectification.ravel()
        message.p = calibration.projection.ravel()
    return message


def calibration_from_message(message: CameraInfo, camera_name: str) -> Calibration:
    """The calibration in a message, as a calibration tool sends it.

    Raises:
        CalibrationError: it is not complete.
    """
    return Calibration(
        camera_name=camera_name,
        width=message.width,
        height=message.height,
        distortion_model=distortion_model(message.distortion_model, len(message.d)),
        distortion=np.array(message.d, dtype=np.float64),
        camera_matrix=np.array(message.k).reshape(3, 3),
        rectification=np.array(message.r).reshape(3, 3),
        projection=np.array(message.p).reshape(3, 4),
    )
