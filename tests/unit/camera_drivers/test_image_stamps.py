"""Stamps of images on the node's clock."""

import numpy as np
import pytest
from camera_drivers.image_stamps import ImageStamps

SECOND = 1_000_000_000


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_stamps_rise_and_are_never_in_the_future(seed):
    random = np.random.default_rng(seed)
    stamps = ImageStamps()
    now_ns, last_ns = 1_700_000_000 * SECOND, 0
    for _ in range(300):
        now_ns += int(random.uniform(0.001, 0.05) * SECOND)
        # Ages that jump make a stamp earlier than the one before; a negative one lies ahead.
        stamp_ns, set_back_s = stamps.stamp(now_ns, random.uniform(-0.1, 0.3))
        assert last_ns < stamp_ns <= now_ns
        assert set_back_s == 0.0
        last_ns = stamp_ns


def test_a_clock_that_is_set_back_is_followed_and_told():
    stamps = ImageStamps()
    stamps.stamp(100 * SECOND, 0.01)
    stamp_ns, set_back_s = stamps.stamp(70 * SECOND, 0.01)
    assert stamp_ns == 70 * SECOND - SECOND // 100
    assert set_back_s == pytest.approx(29.99)
    assert stamps.stamp(70 * SECOND + SECOND // 30, 0.01)[1] == 0.0


def test_a_clock_that_stands_or_has_not_begun():
    stamps = ImageStamps()
    assert stamps.stamp(0, 0.1) == (0, 0.0)
    assert stamps.stamp(0, 0.1) == (0, 0.0)
    found = [stamps.stamp(5 * SECOND, 0.01) for _ in range(50)]
    assert all(set_back_s == 0.0 for _, set_back_s in found)
    assert np.all(np.diff([stamp_ns for stamp_ns, _ in found]) > 0)
