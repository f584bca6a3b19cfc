"""The interface of ROS's cv_bridge, as a user's own node uses it."""

import cv2
import numpy as np
import pytest
from cv_bridge import CvBridge, CvBridgeError, getCvType
from sensor_msgs.msg import Image
from std_msgs.msg import Header

bridge = CvBridge()


def noise(seed, *shape, dtype=np.uint8):
    high = 256 if np.dtype(dtype).itemsize == 1 else 60000
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


@pytest.mark.parametrize(
    ("encoding", "channels", "dtype"),
    [
        ("bgr8", 3, "uint8"),
        ("rgba8", 4, "uint8"),
        ("mono8", 1, "uint8"),
        ("mono16", 1, "uint16"),
        ("rgb16", 3, "uint16"),
        ("32FC1", 1, "float32"),
        ("64FC2", 2, "float64"),
        ("16SC1", 1, "int16"),
        ("bayer_rggb8", 1, "uint8"),
        ("yuv422_yuy2", 2, "uint8"),
    ],
)
def test_arrays_survive_the_way_through_a_message(encoding, channels, dtype):
    for seed in range(3):
        shape = (7 + seed, 10 + seed * 2, channels) if channels > 1 else (7 + seed, 10 + seed * 2)
        image = noise(seed, *shape, dtype=dtype)
        header = Header(frame_id="camera")
        message = bridge.cv2_to_imgmsg(image, encoding, header)
        assert (message.height, message.width) == shape[:2]
        assert message.encoding == encoding and message.header.frame_id == "camera"
        assert message.step == shape[1] * channels * np.dtype(dtype).itemsize
        found = bridge.imgmsg_to_cv2(message)
        np.testing.assert_array_equal(found, image)
        assert found.flags.writeable and found.dtype == dtype
    assert bridge.encoding_to_dtype_with_channels(encoding) == (dtype, channels)
    name = bridge.dtype_with_channels_to_cvtype2(np.dtype(dtype), channels)
    assert bridge.cvtype_to_name[bridge.encoding_to_cvtype2(encoding)] == name
    assert bridge.cv2_to_imgmsg(image).encoding == name
    assert getCvType(encoding) == getattr(cv2, f"CV_{name}")
    assert bridge.cvdepth_to_numpy_depth[getattr(cv2, f"CV_{name.partition('C')[0]}")] == dtype


def test_colours_are_converted_on_request():
    bgr = noise(1, 9, 14, 3)
    message = bridge.cv2_to_imgmsg(bgr, "bgr8")
    for target, code in (
        ("rgb8", cv2.COLOR_BGR2RGB),
        ("bgra8", cv2.COLOR_BGR2BGRA),
        ("mono8", cv2.COLOR_BGR2GRAY),
    ):
        np.testing.assert_array_equal(
            bridge.imgmsg_to_cv2(message, target), cv2.cvtColor(bgr, code)
        )
    np.testing.assert_array_equal(
        bridge.imgmsg_to_cv2(message, "rgb16"), bgr[..., ::-1].astype(np.uint16) * 257
    )
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(message, "8UC3"), bgr)


def test_sixteen_bits_are_scaled_and_rounded():
    image = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    message = bridge.cv2_to_imgmsg(image, "mono16")
    assert bridge.imgmsg_to_cv2(message, "mono8").tolist() == [[0, 0, 1, 1, 128, 255]]


def test_big_endian_and_padded_rows_are_read():
    image = noise(2, 5, 6, dtype=np.uint16)
    message = bridge.cv2_to_imgmsg(image.astype(">u2"), "mono16")
    assert message.is_bigendian
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(message), image)
    padded = Image(height=5, width=6, encoding="rgb8", step=23)
    padded.data = noise(3, 5, 23).tobytes()[:-5]
    expected = noise(3, 5, 23)[:, :18].reshape(5, 6, 3)
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(padded), expected)


@pytest.mark.parametrize("encoding", ["yuv422_yuy2", "uyvy", "nv12", "nv21", "bayer_grbg8"])
def test_what_cameras_send_becomes_bgr(encoding):
    rows = 12 if encoding.startswith("nv") else 8
    data = noise(4, rows, 10, 2) if "yuv" in encoding or encoding == "uyvy" else noise(4, rows, 10)
    message = Image(height=8, width=10, encoding=encoding, step=data[0].size)
    message.data = data.tobytes()
    code = {
        "yuv422_yuy2": cv2.COLOR_YUV2BGR_YUY2,
        "uyvy": cv2.COLOR_YUV2BGR_UYVY,
        "nv12": cv2.COLOR_YUV2BGR_NV12,
        "nv21": cv2.COLOR_YUV2BGR_NV21,
        "bayer_grbg8": cv2.COLOR_BayerGB2BGR,
    }[encoding]
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(message, "bgr8"), cv2.cvtColor(data, code))


def test_compressed_messages():
    bgr = noise(5, 12, 17, 3)
    message = bridge.cv2_to_compressed_imgmsg(bgr, "png")
    assert message.format == "png"
    np.testing.assert_array_equal(bridge.compressed_imgmsg_to_cv2(message), bgr)
    np.testing.assert_array_equal(bridge.compressed_imgmsg_to_cv2(message, "rgb8"), bgr[..., ::-1])
    grey = bridge.cv2_to_compressed_imgmsg(bgr[..., 0], "png")
    assert bridge.compressed_imgmsg_to_cv2(grey).shape == (12, 17)
    smooth = np.full((12, 17, 3), 90, np.uint8)
    decoded = bridge.compressed_imgmsg_to_cv2(bridge.cv2_to_compressed_imgmsg(smooth), "mono8")
    assert np.abs(decoded.astype(int) - 90).max() < 3


def test_what_cannot_be_converted_is_refused():
    image = noise(6, 4, 6, 3)
    with pytest.raises(CvBridgeError, match="8UC3"):
        bridge.cv2_to_imgmsg(image, "mono8")
    with pytest.raises(CvBridgeError, match="no_such"):
        bridge.encoding_to_cvtype2("no_such")
    with pytest.raises(RuntimeError, match="no_such"):
        getCvType("no_such")
    with pytest.raises(TypeError):
        bridge.cv2_to_imgmsg([[1, 2]], "mono8")
    # A generic type does not say what its channels are.
    message = bridge.cv2_to_imgmsg(image)
    with pytest.raises(CvBridgeError, match="8UC3 to rgb8"):
        bridge.imgmsg_to_cv2(message, "rgb8")
    with pytest.raises(CvBridgeError, match="8UC1"):
        bridge.imgmsg_to_cv2(message, "8UC1")
    message.height = 40
    with pytest.raises(CvBridgeError, match="bytes"):
        bridge.imgmsg_to_cv2(message)
    empty = bridge.cv2_to_compressed_imgmsg(image, "png")
    empty.data = []
    with pytest.raises(CvBridgeError, match="0 bytes"):
        bridge.compressed_imgmsg_to_cv2(empty)
    with pytest.raises(CvBridgeError):
        bridge.cv2_to_compressed_imgmsg(image, "nothing")
