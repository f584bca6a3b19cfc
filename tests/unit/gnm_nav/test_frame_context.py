"""Context frames at 4 Hz by stamps, whatever the camera does."""

import numpy as np
import pytest
from gnm_nav.frame_context import FrameContext


def numbered(number):
    return np.full((2, 2, 3), number % 256, np.uint8)


@pytest.mark.parametrize("rate_hz", [4.0, 7.0, 9.0, 10.0, 15.0, 30.0, 60.0])
@pytest.mark.parametrize("seed", range(3))
def test_frames_are_a_quarter_of_a_second_apart(rate_hz, seed):
    rng = np.random.default_rng(seed)
    jitter_s = min(0.01, 0.4 / rate_hz)
    count = int(4 * rate_hz)
    stamps = 1e9 + np.arange(count) / rate_hz + rng.uniform(-jitter_s, jitter_s, count)
    context = FrameContext(lambda image: image, 6)
    ticks = 0
    for index, stamp_s in enumerate(stamps):
        assert context.push(numbered(index), stamp_s)
        frames = context.frames()
        if frames is None:
            assert stamp_s - stamps[0] < 1.3
            continue
        ticks += 1
        chosen = stamps[[int(frame[0, 0, 0]) for frame in frames]]
        assert chosen[-1] == stamp_s
        wanted = stamp_s - 0.25 * np.arange(5, -1, -1)
        assert np.abs(chosen - wanted).max() <= 0.13
    assert ticks > 5


def test_each_frame_is_preprocessed_once_and_only_if_used():
    done = []

    def preprocess(image):
        done.append(int(image[0, 0, 0]))
        return image

    context = FrameContext(preprocess, 6)
    for index in range(120):
        context.push(numbered(index), index / 30.0)
        if index % 8 == 0:
            context.frames()
    assert len(done) == len(set(done))
    assert len(done) < 30


def test_a_gap_gives_no_context_until_it_is_past():
    context = FrameContext(lambda image: image, 6)
    stamps = [*np.arange(0.0, 2.0, 0.1), *np.arange(3.0, 5.0, 0.1)]
    whole = []
    for index, stamp_s in enumerate(stamps):
        context.push(numbered(index), stamp_s)
        if context.frames() is not None:
            whole.append(stamp_s)
        padded = context.frames(pad=True)
        assert len(padded) == 6
        numbers = [int(frame[0, 0, 0]) for frame in padded]
        assert numbers == sorted(numbers) and numbers[-1] == index
    assert not [stamp_s for stamp_s in whole if 3.0 <= stamp_s < 4.0]
    assert whole[-1] == stamps[-1]


def test_old_stamps_are_dropped_and_a_clock_set_back_begins_anew():
    context = FrameContext(lambda image: image, 6)
    for index in range(20):
        context.push(numbered(index), 10.0 + 0.1 * index)
    assert not context.push(numbered(50), 11.9)
    assert not context.push(numbered(51), 11.0)
    assert context.newest_s == pytest.approx(11.9)
    assert context.push(numbered(52), 0.0)
    assert context.newest_s == 0.0
    assert context.frames() is None
