"""The camera watch: each fault in time, none without a cause."""

import numpy as np
import pytest
from gnm_nav.camera_watch import CameraLimits, CameraProblem, CameraWatch


def picture(seed, low=0, high=255):
    return np.random.default_rng(seed).integers(low, high, (120, 160, 3), np.uint8, endpoint=True)


def problem(watch, now, steady=None):
    fault = watch.check(now, now if steady is None else steady)
    return None if fault is None else fault.problem


def test_a_living_camera_is_fine_also_when_the_robot_stands():
    watch = CameraWatch(CameraLimits())
    assert problem(watch, 5.0) is CameraProblem.MISSING
    for index in range(20):
        now = 5.0 + 0.1 * index
        watch.push(picture(1), now, now)
        watch.moving(False, now, now)
        assert problem(watch, now + 0.05) is None


@pytest.mark.parametrize("clock", ["stamp", "arrival"])
def test_an_old_image_is_stale_by_either_clock(clock):
    watch = CameraWatch(CameraLimits(timeout_s=0.2))
    watch.push(picture(1), 5.0, 5.0)
    now, steady = (5.21, 5.0) if clock == "stamp" else (5.0, 5.21)
    assert problem(watch, now - 0.02, steady - 0.02) is None
    assert problem(watch, now, steady) is CameraProblem.STALE


def test_a_stamp_ahead_of_the_clock_is_a_fault():
    watch = CameraWatch(CameraLimits())
    watch.push(picture(1), 5.3, 5.0)
    assert problem(watch, 5.0) is CameraProblem.FUTURE


def test_a_frozen_camera_is_found_while_the_robot_moves_and_forgiven_afterwards():
    watch = CameraWatch(CameraLimits(frozen_s=0.15))
    found = []
    for index in range(12):
        now = 5.0 + 0.1 * index
        watch.moving(True, now, now)
        # Alive until 5.5.
        watch.push(picture(min(index, 5)), now, now)
        found.append(problem(watch, now))
    assert found[:7] == [None] * 7
    assert set(found[7:]) == {CameraProblem.FROZEN}
    watch.push(picture(99), 6.2, 6.2)
    assert problem(watch, 6.2) is None


def test_pictures_that_were_the_same_before_the_robot_moved_do_not_count():
    watch = CameraWatch(CameraLimits(frozen_s=0.15))
    for now in np.arange(5.0, 8.0, 0.1):
        watch.push(picture(1), now, now)
    watch.moving(True, 7.9, 7.9)
    assert problem(watch, 7.9) is None


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.zeros((120, 160, 3), np.uint8), CameraProblem.DARK),
        (picture(3, 0, 12), CameraProblem.DARK),
        (picture(3, 0, 60), None),
        (np.full((120, 160, 3), 255, np.uint8), CameraProblem.FLAT),
        (picture(3, 127, 129), CameraProblem.FLAT),
    ],
)
def test_a_picture_that_shows_nothing(image, expected):
    watch = CameraWatch(CameraLimits())
    watch.push(image, 5.0, 5.0)
    assert problem(watch, 5.0) is expected


@pytest.mark.parametrize(
    ("period_s", "late_after_s"), [(1 / 60, 0.07), (1 / 30, 0.07), (1 / 15, 0.093), (0.1, 0.12)]
)
def test_the_next_image_is_late_by_the_rate_of_the_camera(period_s, late_after_s):
    watch = CameraWatch(CameraLimits(timeout_s=0.2))
    rng = np.random.default_rng(1)
    for index in range(20):
        now = 5.0 + period_s * (index + rng.uniform(0.0, 0.2))
        watch.moving(True, now, now)
        assert index < 3 or not watch.is_late(now)
        watch.push(picture(index), now, now)
    # One that hangs for a moment is not a slow camera.
    now += 0.12
    watch.push(picture(99), now, now)
    assert not watch.is_late(now + 0.85 * late_after_s)
    assert watch.is_late(now + 1.2 * late_after_s)


@pytest.mark.parametrize("moves", [True, False])
def test_the_same_picture_is_late_only_while_the_robot_moves(moves):
    watch = CameraWatch(CameraLimits(timeout_s=0.2))
    for index in range(20):
        now = 5.0 + 0.04 * index
        watch.moving(moves, now, now)
        watch.push(picture(min(index, 17)), now, now)
    assert watch.is_late(now) == moves


@pytest.mark.parametrize(
    ("stamp", "said"),
    [(lambda now: 0.0, "no stamp (0)"), (lambda now: 5.0, "the stamp of those before, 5.000")],
)
def test_stamps_of_zero_and_stamps_that_stand_are_named(stamp, said):
    watch = CameraWatch(CameraLimits(timeout_s=0.2))
    for index in range(10):
        now = 5.0 + 0.1 * index
        watch.push(picture(index), stamp(now), now)
    fault = watch.check(now, now)
    assert fault.problem is CameraProblem.STALE and said in fault.message


def test_a_frozen_camera_is_found_after_the_clock_was_set_back():
    watch = CameraWatch(CameraLimits(frozen_s=0.15))
    watch.push(picture(1), 500.0, 500.0)
    for index in range(8):
        now = 5.0 + 0.1 * index
        watch.moving(True, now, now)
        watch.push(picture(1), now, now)
    assert problem(watch, now) is CameraProblem.FROZEN


@pytest.mark.parametrize("before", [True, False], ids=["after good ones", "from the start"])
def test_images_that_are_refused_are_not_reported_as_missing(before):
    watch = CameraWatch(CameraLimits(timeout_s=0.2))
    if before:
        watch.push(picture(1), 5.0, 5.0)
    for steady in np.arange(5.02, 6.0, 0.1):
        watch.refuse('found the encoding "8UC7"', steady)
    fault = watch.check(6.0, 6.0)
    assert fault.problem is (CameraProblem.STALE if before else CameraProblem.MISSING)
    assert fault.message == 'images arrive and are refused: found the encoding "8UC7"'
    # One bad image among good ones is no fault, and a camera that is silent since is silent.
    watch.push(picture(2), 6.0, 6.0)
    watch.refuse("half an image", 6.1)
    assert problem(watch, 6.15) is None
    assert problem(watch, 12.0) is CameraProblem.STALE
    watch.reset()
    assert problem(watch, 12.0) is CameraProblem.MISSING
