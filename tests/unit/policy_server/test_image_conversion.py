"""From the bytes of an image message to the network's image."""

import array

import cv2
import numpy as np
import pytest
from policy_server.image_conversion import (
    CHANNELS,
    ImageError,
    image_view,
    network_image,
    network_image_from_compressed,
)
from policy_server.preprocessing import squash

SIZE = (32, 24)


def picture(seed=0, height=48, width=100):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def message_bytes(rgb, encoding, padding):
    to_encoding = {
        "rgb8": lambda image: image,
        "bgr8": lambda image: image[..., ::-1],
        "rgba8": lambda image: np.dstack([image, np.full(image.shape[:2], 7, np.uint8)]),
        "bgra8": lambda image: np.dstack([image[..., ::-1], np.full(image.shape[:2], 7, np.uint8)]),
    }
    rows = to_encoding[encoding](rgb).reshape(len(rgb), -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    return array.array("B", padded.tobytes()), padded.shape[1]


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_every_encoding_gives_the_same_rgb_image(encoding, padding):
    rgb = picture(1)
    data, step = message_bytes(rgb, encoding, padding)
    found = network_image(data, 48, 100, step, encoding, SIZE)
    np.testing.assert_array_equal(found, squash(rgb, SIZE))
    assert found.flags.c_contiguous


def test_grey_becomes_three_equal_channels():
    grey = picture(2)[..., 0]
    found = network_image(grey.tobytes(), 48, 100, 100, "mono8", SIZE)
    expected = squash(np.repeat(grey[..., None], 3, axis=2), SIZE)
    np.testing.assert_array_equal(found, expected)


def test_viewing_copies_nothing():
    data, step = message_bytes(picture(3), "rgb8", 3)
    view = image_view(data, 48, 100, step, "rgb8")
    assert np.shares_memory(view, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_an_image_of_the_right_size_does_not_stay_tied_to_the_message(encoding):
    rgb = picture(4, SIZE[1], SIZE[0])
    data, step = message_bytes(rgb, encoding, 0)
    found = network_image(data, SIZE[1], SIZE[0], step, encoding, SIZE)
    for index in range(len(data)):
        data[index] = 0
    np.testing.assert_array_equal(found, rgb)


@pytest.mark.parametrize(
    ("length", "height", "width", "step", "encoding"),
    [
        (299, 10, 10, 30, "rgb8"),
        (300, 10, 10, 29, "rgb8"),
        (300, 10, 10, 30, "rgba8"),
        (300, 0, 10, 30, "rgb8"),
        (300, 10, 0, 30, "rgb8"),
        (300, 10, 10, 30, "yuv422"),
    ],
)
def test_messages_that_do_not_fit_together_are_refused(length, height, width, step, encoding):
    with pytest.raises(ImageError, match="found"):
        network_image(bytes(length), height, width, step, encoding, SIZE)
    assert "yuv422" not in CHANNELS


def test_compressed_images_keep_their_channel_order():
    rgb = np.zeros((48, 100, 3), np.uint8)
    rgb[:, :, 0] = 200
    rgb[:24, :, 2] = 100
    ok, encoded = cv2.imencode(".png", rgb[..., ::-1])
    assert ok
    found = network_image_from_compressed(encoded.tobytes(), SIZE)
    np.testing.assert_array_equal(found, squash(rgb, SIZE))
    with pytest.raises(ImageError, match="JPEG or PNG"):
        network_image_from_compressed(b"not an image", SIZE)
