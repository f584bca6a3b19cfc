"""The shared preprocessing must give the same pixels for ever: policies are trained on them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from policy_server.preprocessing import squash

GOLDEN = Path(__file__).with_name("golden_squash_128x128.png")


def synthetic_image(seed: int) -> np.ndarray:
    """Camera-sized scene with gradients, hard edges, a fine grating and noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:480, 0:640]
    image = np.stack([columns * 255 // 639, rows * 255 // 479, (rows + columns) % 256], axis=-1)
    image[120:260, 90:310] = (200, 30, 30)
    image[300:420, 400:600] = ((columns[300:420, 400:600] // 3) % 2 * 255)[..., None]
    image = image + rng.integers(-12, 13, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def test_squash_matches_the_golden_image():
    found = squash(synthetic_image(7), (128, 128))
    golden = cv2.cvtColor(cv2.imread(str(GOLDEN)), cv2.COLOR_BGR2RGB)
    assert found.shape == (128, 128, 3)
    np.testing.assert_array_equal(found, golden)


def test_squash_averages_the_area_of_every_pixel():
    image = synthetic_image(11)[:, :512]
    found = squash(np.ascontiguousarray(image), (128, 120))
    mean = image.reshape(120, 4, 128, 4, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(found - mean).max() <= 0.5
