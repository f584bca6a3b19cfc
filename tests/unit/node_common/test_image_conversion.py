"""From image messages and files to RGB and to the network's image."""

import array
import re
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from node_common.image_conversion import ImageConverter, ImageError, image_view
from policy_server.preprocessing import squash

SIZE = (32, 24)
BAYER_ROWS = {"rggb": "RG GB", "bggr": "BG GR", "gbrg": "GB RG", "grbg": "GR BG"}


def scene(seed, height, width):
    """A smooth RGB image: encodings that share colours between pixels lose little of it."""
    coarse = np.random.default_rng(seed).integers(20, 236, (3, 4, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def mosaic(rgb, pattern):
    channel = {"R": 0, "G": 1, "B": 2}
    raw = np.empty(rgb.shape[:2], rgb.dtype)
    for row, letters in enumerate(BAYER_ROWS[pattern].split()):
        for column, letter in enumerate(letters):
            raw[row::2, column::2] = rgb[row::2, column::2, channel[letter]]
    return raw


def yuv_planes(rgb):
    """Brightness and the two colours of video (BT.601, 16 ... 235), as float."""
    matrix = np.array([[66, 129, 25], [-38, -74, 112], [112, -94, -18]]) / 256
    return [
        plane + offset
        for plane, offset in zip(
            np.moveaxis(rgb.astype(float) @ matrix.T, 2, 0), (16, 128, 128), strict=True
        )
    ]


def even(plane):
    height, width = plane.shape
    return np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")


def packed_422(rgb, order):
    y, u, v = (np.pad(p, ((0, 0), (0, p.shape[1] % 2)), mode="edge") for p in yuv_planes(rgb))
    pair = {
        "y": y[:, 0::2],
        "Y": y[:, 1::2],
        "u": (u[:, 0::2] + u[:, 1::2]) / 2,
        "v": (v[:, 0::2] + v[:, 1::2]) / 2,
    }
    return np.rint(np.stack([pair[letter] for letter in order], axis=2)).astype(np.uint8)


def semi_planar(rgb, first, second, subsampled):
    planes = dict(zip("yuv", yuv_planes(rgb), strict=True))
    colours = [planes[first], planes[second]]
    if subsampled:
        colours = [
            cv2.resize(even(c), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for c in colours
        ]
        luma = np.pad(planes["y"], ((0, 0), (0, planes["y"].shape[1] % 2)), mode="edge")
    else:
        luma = planes["y"]
    colour = np.stack(colours, axis=2)
    return [np.rint(luma).astype(np.uint8), np.rint(colour).astype(np.uint8)]


def with_alpha(image):
    return np.dstack([image, np.full(image.shape[:2], 7, image.dtype)])


def wide(image, bits=16):
    return np.rint(image.astype(float) * ((2**bits - 1) / 255)).astype(np.uint16)


def wide_mosaic(rgb, pattern):
    return wide(mosaic(rgb, pattern))


def grey(rgb):
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


ENCODERS = {
    "rgb8": lambda rgb: rgb,
    "bgr8": lambda rgb: rgb[..., ::-1],
    "rgba8": with_alpha,
    "bgra8": lambda rgb: with_alpha(rgb[..., ::-1]),
    "8UC3": lambda rgb: rgb[..., ::-1],
    "8UC4": lambda rgb: with_alpha(rgb[..., ::-1]),
    "mono8": grey,
    "8UC1": grey,
    "8UC": grey,
    "rgb16": wide,
    "bgr16": lambda rgb: wide(rgb[..., ::-1]),
    "rgba16": lambda rgb: wide(with_alpha(rgb)),
    "bgra16": lambda rgb: wide(with_alpha(rgb[..., ::-1])),
    "16UC3": lambda rgb: wide(rgb[..., ::-1]),
    "mono16": lambda rgb: wide(grey(rgb)),
    "16UC1": lambda rgb: wide(grey(rgb)),
    "yuv422": lambda rgb: packed_422(rgb, "uyvY"),
    "uyvy": lambda rgb: packed_422(rgb, "uyvY"),
    "yuv422_yuy2": lambda rgb: packed_422(rgb, "yuYv"),
    "yuyv": lambda rgb: packed_422(rgb, "yuYv"),
    "nv12": lambda rgb: semi_planar(rgb, "u", "v", True),
    "nv21": lambda rgb: semi_planar(rgb, "v", "u", True),
    "nv24": lambda rgb: semi_planar(rgb, "u", "v", False),
}
for _pattern in BAYER_ROWS:
    ENCODERS[f"bayer_{_pattern}8"] = partial(mosaic, pattern=_pattern)
    ENCODERS[f"bayer_{_pattern}16"] = partial(wide_mosaic, pattern=_pattern)
GREY = {"mono8", "8UC1", "8UC", "mono16", "16UC1"}


def message_of(rgb, encoding, padding=0, big_endian=False, last_row_padded=True):
    """An image message as a driver fills it."""
    planes = ENCODERS[encoding](rgb)
    planes = planes if isinstance(planes, list) else [planes]
    step, data = 0, b""
    for index, plane in enumerate(planes):
        values = plane.astype(plane.dtype.newbyteorder(">" if big_endian else "<"))
        rows = values.reshape(len(plane), -1).view(np.uint8)
        step = step or rows.shape[1] + padding
        # The colour rows of nv24 are twice as long as those of brightness, their padding too.
        row_bytes = step * 2 if index and encoding == "nv24" else step
        data += np.pad(
            rows, ((0, 0), (0, row_bytes - rows.shape[1])), constant_values=255
        ).tobytes()
        tail = row_bytes - rows.shape[1]
    if tail and not last_row_padded:
        data = data[:-tail]
    height, width = rgb.shape[:2]
    return SimpleNamespace(
        height=height,
        width=width,
        step=step,
        encoding=encoding,
        is_bigendian=int(big_endian),
        data=array.array("B", data),
    )


@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_encoding_gives_the_picture(encoding, seed):
    random = np.random.default_rng([seed, *encoding.encode()])
    for _ in range(6):
        height, width = (int(random.integers(60, 140)) for _ in range(2))
        if encoding.startswith("bayer"):
            height, width = height // 2 * 2, width // 2 * 2
        padding = int(random.integers(0, 20)) * (2 if encoding.endswith("16") else 1)
        rgb = scene(int(random.integers(1000)), height, width)
        message = message_of(
            rgb, encoding, padding, bool(random.integers(2)), bool(random.integers(2))
        )
        expected = cv2.cvtColor(grey(rgb), cv2.COLOR_GRAY2RGB) if encoding in GREY else rgb
        case = (encoding, height, width, padding)
        found = ImageConverter().rgb(message)
        assert found.shape == rgb.shape and found.dtype == np.uint8, case
        assert found.flags.c_contiguous and found.flags.writeable, case
        assert np.abs(found.astype(int) - expected).mean() < 3, case
        small = ImageConverter().network_image(message, SIZE, squash)
        assert np.abs(small.astype(int) - squash(expected, SIZE)).mean() < 3, case


def test_lossless_encodings_lose_nothing():
    rgb = scene(3, 41, 57)
    for encoding in ("rgb8", "bgr8", "rgba8", "bgra8", "8UC3", "8UC4", "rgb16", "bgra16", "16UC3"):
        found = ImageConverter().rgb(message_of(rgb, encoding, 6, True))
        np.testing.assert_array_equal(found, rgb)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_the_networks_image_is_the_squashed_image(encoding):
    rgb = np.random.default_rng(1).integers(0, 256, (48, 100, 3), np.uint8)
    found = ImageConverter().network_image(message_of(rgb, encoding, 5), SIZE, squash)
    np.testing.assert_array_equal(found, squash(rgb, SIZE))
    assert found.flags.c_contiguous


def test_viewing_copies_nothing():
    message = message_of(scene(3, 48, 100), "rgb8", 3)
    assert np.shares_memory(image_view(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8", "yuv422_yuy2"])
def test_an_image_does_not_stay_tied_to_the_message(encoding):
    message = message_of(scene(4, SIZE[1], SIZE[0]), encoding)
    converter = ImageConverter()
    found = [converter.rgb(message), converter.network_image(message, SIZE, squash)]
    before = [image.copy() for image in found]
    np.frombuffer(message.data, np.uint8)[:] = 0
    np.testing.assert_array_equal(found, before)


@pytest.mark.parametrize(
    ("length", "height", "width", "step", "encoding"),
    [
        (299, 10, 10, 30, "rgb8"),
        (300, 10, 10, 29, "rgb8"),
        (300, 10, 10, 30, "rgba8"),
        (300, 0, 10, 30, "rgb8"),
        (300, 10, 0, 30, "rgb8"),
        (149, 10, 10, 10, "nv12"),
        (299, 10, 10, 10, "nv24"),
        (300, 10, 15, 30, "yuv422_yuy2"),
        (0, 10, 10, 30, "rgb8"),
        (300, 10, 10, 30, "32FC1"),
        (300, 10, 10, 30, "8UC2"),
        (300, 10, 10, 30, "16SC1"),
        (300, 10, 10, 30, "h264"),
        (300, 10, 10, 30, ""),
    ],
)
def test_messages_that_do_not_fit_together_are_refused(length, height, width, step, encoding):
    message = SimpleNamespace(
        height=height,
        width=width,
        step=step,
        encoding=encoding,
        is_bigendian=0,
        data=array.array("B", bytes(length)),
    )
    with pytest.raises(ImageError, match=r"found .*expected"):
        ImageConverter().network_image(message, SIZE, squash)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["rgb16", "mono16", "bayer_grbg16", "png"])
def test_sensor_bits_are_scaled_to_eight_with_a_warning(bits, kind):
    rgb = scene(bits, 40, 60)
    rgb[:2, :2] = 255
    warnings = []
    converter = ImageConverter(warnings.append)
    expected = cv2.cvtColor(grey(rgb), cv2.COLOR_GRAY2RGB) if kind == "mono16" else rgb
    if kind == "png":
        encoded = cv2.imencode(".png", wide(rgb[..., ::-1], bits))[1]
        message = SimpleNamespace(format="png", data=array.array("B", encoded.tobytes()))
    else:
        message = message_of(rgb, kind)
        values = np.frombuffer(message.data, np.uint16)
        values[:] = np.rint(values * ((2**bits - 1) / 65535))
    found = converter.rgb(message)
    assert np.abs(found.astype(int) - expected).mean() < 3
    assert len(warnings) == (bits < 16)
    if warnings:
        assert f"{2**bits - 1}: they are taken as {bits}-bit" in warnings[0]
        # A darker image of the same camera keeps its scale.
        if kind != "png":
            values[:] //= 8
            dark = converter.rgb(message)
            assert np.abs(dark.astype(int) - expected / 8).mean() < 3
            assert len(warnings) == 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff"])
def test_encoded_images_are_whole_or_refused(suffix):
    rgb = scene(5, 48, 100)
    content = cv2.imencode(suffix, rgb[..., ::-1])[1].tobytes()
    found = ImageConverter().decode(content)
    assert np.abs(found.astype(int) - rgb).mean() < 3
    message = SimpleNamespace(format="", data=array.array("B", content))
    np.testing.assert_array_equal(
        ImageConverter().network_image(message, SIZE, squash), squash(found, SIZE)
    )
    for part in (0.9, 0.5, 0.1):
        with pytest.raises(ImageError, match="whole image"):
            ImageConverter().decode(content[: int(part * len(content))])


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", bytes(500), b"not an image", b"\x89PNG"])
def test_bytes_that_are_no_image_are_refused(content):
    with pytest.raises(ImageError, match=f"{len(content)} bytes"):
        ImageConverter().decode(content)


def test_a_jpeg_may_lack_its_end_marker_or_have_bytes_behind_it():
    rgb = scene(6, 96, 128)
    content = cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()
    expected = ImageConverter().decode(content)
    for variant in (content[:-2], content + bytes(700)):
        np.testing.assert_array_equal(ImageConverter().decode(variant), expected)


@pytest.mark.parametrize("pattern", BAYER_ROWS)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_compressed_bayer_images_have_colours(pattern, suffix):
    rgb = scene(7, 96, 128)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 98] if suffix == ".jpg" else []
    grey_file = cv2.imencode(suffix, mosaic(rgb, pattern), quality)[1].tobytes()
    colour_file = cv2.imencode(suffix, rgb[..., ::-1], quality)[1].tobytes()
    for content in (grey_file, colour_file):
        message = SimpleNamespace(
            format=f"bayer_{pattern}8; {suffix[1:]} compressed ", data=array.array("B", content)
        )
        found = ImageConverter().rgb(message)
        assert np.abs(found.astype(int) - rgb).mean() < 3
        small = ImageConverter().network_image(message, SIZE, squash)
        assert np.abs(small.astype(int) - squash(rgb, SIZE)).mean() < 3


def test_bytes_too_many_before_a_jpegs_markers_do_no_harm():
    rgb = scene(8, 96, 128)
    content = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 4])[1].tobytes()
    parts = re.split(rb"(?=\xff[\xd0-\xd7])", content)
    assert len(parts) > 5
    webcam = b"".join(part + bytes(n % 5) for n, part in enumerate(parts[:-1])) + parts[-1]
    found = ImageConverter().decode(webcam)
    assert np.abs(found.astype(int) - rgb).mean() < 3


def test_a_webcams_jpeg_without_huffman_tables_is_decoded():
    rgb = scene(9, 96, 128)
    content = cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()
    kept, start = content[:2], 2
    while content[start + 1] != 0xDA:
        end = start + 2 + int.from_bytes(content[start + 2 : start + 4], "big")
        kept += b"" if content[start + 1] == 0xC4 else content[start:end]
        start = end
    assert b"\xff\xc4" not in kept
    found = ImageConverter().decode(kept + content[start:])
    np.testing.assert_array_equal(found, ImageConverter().decode(content))
