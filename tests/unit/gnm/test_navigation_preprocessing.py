"""Navigation images are cropped and resized exactly as when the published weights were trained."""

import numpy as np
import pytest
import torch
from policy_server.preprocessing import crop_bicubic
from policy_training.gnm.networks import normalise


def _pattern():
    y, x = np.mgrid[0:120, 0:160]
    return np.stack([x * 255 // 159, y * 255 // 119, (7 * x + 13 * y) % 256], -1).astype(np.uint8)


def test_golden_vectors_of_the_training_pipeline():
    # Made with Pillow 13.0 and torchvision's transforms, outside this project.
    image = crop_bicubic(_pattern(), (85, 64))
    assert image.shape == (64, 85, 3)
    assert image.reshape(-1, 3).sum(0, dtype=int).tolist() == [691008, 691305, 693205]
    assert image[0, 0].tolist() == [1, 1, 9]
    assert image[32, 42].tolist() == [127, 129, 63]
    assert image[63, 84].tolist() == [254, 254, 91]
    network_input = normalise(torch.from_numpy(image))
    assert network_input[:, 32, 42].tolist() == pytest.approx(
        [0.056940, 0.222689, -0.706405], abs=1e-5
    )
    assert float(network_input.mean()) == pytest.approx(0.220966, abs=1e-5)
    constant = normalise(torch.tensor([128, 64, 32], dtype=torch.uint8).expand(2, 2, 3))
    assert constant[:, 0, 0].tolist() == pytest.approx([0.074065, -0.915266, -1.246710], abs=1e-5)


@pytest.mark.parametrize(
    ("width", "height", "left", "top"), [(1280, 720, 160, 0), (480, 640, 0, 140), (640, 480, 0, 0)]
)
def test_other_aspects_are_cropped_to_the_middle(width, height, left, top):
    image = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    middle = np.ascontiguousarray(image[top : height - top, left : width - left])
    np.testing.assert_array_equal(crop_bicubic(image, (85, 64)), crop_bicubic(middle, (85, 64)))


def test_nearly_square_images_get_black_sides():
    image = crop_bicubic(np.full((100, 110, 3), 200, np.uint8), (85, 64))
    assert image[:, 0].max() == 0
    assert image[:, -1].max() == 0
    assert image[:, 42].min() == 200


def test_grey_images_are_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 4\)"):
        crop_bicubic(np.zeros((4, 4), np.uint8), (85, 64))
