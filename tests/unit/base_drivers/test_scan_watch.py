"""Free way before a base, for straight, curved and turning motion."""

import math

import numpy as np
import pytest
from base_drivers.scan_watch import (
    BlindScanError,
    Footprint,
    ScanMount,
    free_distance,
    points_from_ranges,
)
from base_drivers.static_transforms import StaticTransforms
from base_drivers.velocity import Velocity

FOOTPRINT = Footprint(front_m=0.2, rear_m=0.3, half_width_m=0.25)


def way(points, velocity, horizon_m=1.0):
    return free_distance(np.array(points, float), velocity, FOOTPRINT, 0.03, horizon_m)


@pytest.mark.parametrize("speed", [0.05, 0.5, 2.0])
def test_the_way_is_measured_from_the_edge_in_the_direction_of_travel(speed):
    assert way([(0.7, 0.0)], Velocity(speed)) == pytest.approx(0.5, abs=0.02)
    assert way([(-0.7, 0.2)], Velocity(-speed)) == pytest.approx(0.4, abs=0.02)
    assert way([(0.1, 0.65)], Velocity(y=speed)) == pytest.approx(0.4, abs=0.02)


def test_only_what_lies_in_the_swept_way_counts():
    wall = [(x, 0.3) for x in np.linspace(-1.0, 3.0, 200)]
    assert math.isinf(way(wall, Velocity(0.5)))
    assert way(wall, Velocity(0.5, 0.0, 0.5)) < 0.4
    assert math.isinf(way([(-0.4, 0.0)], Velocity(0.5)))


def test_a_curve_meets_what_stands_on_the_curve():
    radius = 1.0
    angle = 0.8
    on_arc = [(radius * math.sin(angle), radius * (1.0 - math.cos(angle)))]
    assert way(on_arc, Velocity(0.5, 0.0, 0.5)) == pytest.approx(angle * radius - 0.2, abs=0.1)
    assert math.isinf(way(on_arc, Velocity(0.5, 0.0, -0.5)))


def test_turning_on_the_spot_sees_what_the_corners_sweep():
    reach = FOOTPRINT.reach_m
    between = [(0.0, 0.5 * (0.25 + reach))]
    assert way(between, Velocity(yaw=0.5)) < 1.0
    assert math.isinf(way([(0.0, reach + 0.05)], Velocity(yaw=0.5)))


def test_touching_blocks_only_what_moves_deeper():
    touching = [(0.19, 0.0)]
    assert way(touching, Velocity(0.3)) == 0.0
    assert math.isinf(way(touching, Velocity(-0.3)))


def test_points_follow_the_mount_and_rep_117():
    ranges = np.array([1.0, np.inf, -np.inf, np.nan, 9.0, 2.0], np.float32)
    mount = ScanMount(0.1, 0.0, math.pi / 2)
    points = points_from_ranges(ranges, -math.pi / 2, math.pi / 10, 0.2, 5.0, mount)
    assert points[0] == pytest.approx((1.1, 0.0), abs=1e-6)
    assert len(points) == 3
    assert np.hypot(points[1, 0] - 0.1, points[1, 1]) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("ranges", "increment", "low", "high"),
    [([], 0.1, 0.1, 5.0), ([1.0], 0.0, 0.1, 5.0), ([1.0], 0.1, 0.0, 0.0), ([1.0], math.nan, 0, 1)],
)
def test_a_senseless_scan_is_not_free_space(ranges, increment, low, high):
    with pytest.raises(ValueError, match=r"beams|increment"):
        points_from_ranges(np.array(ranges, np.float32), 0.0, increment, low, high, ScanMount())


def thing_at_front_left(upside_down):
    """Ranges of a scanner with 360 beams that sees one thing at 45 degrees to the left, 0.45 m."""
    ranges = np.full(360, np.inf, np.float32)
    ranges[(315 if upside_down else 45) + np.arange(-3, 4)] = 0.45
    return ranges


@pytest.mark.parametrize("upside_down", [False, True])
def test_a_scanner_upside_down_guards_the_side_where_the_thing_is(upside_down):
    mount = ScanMount(roll_rad=math.pi if upside_down else 0.0)
    ranges = thing_at_front_left(upside_down)
    points = points_from_ranges(ranges, 0.0, math.radians(1.0), 0.1, 8.0, mount)
    assert way(points, Velocity(0.3, 0.0, 0.8)) < 0.35
    assert math.isinf(way(points, Velocity(0.3, 0.0, -0.8)))


def test_the_mount_turns_about_fixed_axes():
    beam = np.array([2.0], np.float32)

    def seen(angle, **mount):
        return points_from_ranges(beam, angle, 0.1, 0.1, 8.0, ScanMount(**mount))[0]

    assert seen(0.5 * math.pi, roll_rad=math.pi) == pytest.approx((0.0, -2.0), abs=1e-6)
    assert seen(0.5 * math.pi, roll_rad=math.pi, yaw_rad=0.5 * math.pi) == pytest.approx((2.0, 0.0))
    assert seen(0.0, pitch_rad=math.pi) == pytest.approx((-2.0, 0.0), abs=1e-6)
    # Looking down by 60 degrees, a beam of 2 m ends 1 m ahead.
    assert seen(0.0, pitch_rad=math.pi / 3.0) == pytest.approx((1.0, 0.0), abs=1e-6)
    # Upside down, and told so by angles that run the other way.
    reversed_scan = points_from_ranges(
        np.array([1.0, 2.0], np.float32), 0.1, -0.2, 0.1, 8.0, ScanMount(), -0.1
    )
    assert reversed_scan[1, 1] == pytest.approx(-2.0 * math.sin(0.1))


@pytest.mark.parametrize("seed", range(5))
def test_a_mount_is_read_from_static_transforms(seed):
    random = np.random.default_rng(seed)
    roll, yaw = random.uniform(-math.pi, math.pi, 2)
    pitch = random.uniform(-1.5, 1.5)
    x, y, z = random.uniform(-1.0, 1.0, 3)
    transforms = StaticTransforms()
    transforms.add("base_footprint", "base_link", (0.0, 0.0, 0.2), (0.0, 0.0, 0.0, 1.0))
    transforms.add("/base_footprint", "tower", (x, y, z + 0.2), (0.0, 0.0, *half(yaw)))
    transforms.add("tower", "tilt", (0.0, 0.0, 0.0), (0.0, half(pitch)[0], 0.0, half(pitch)[1]))
    # A quaternion of another length is the same rotation.
    transforms.add(
        "tilt", "laser", (0.0, 0.0, 0.0), (3.0 * half(roll)[0], 0, 0, 3.0 * half(roll)[1])
    )
    mount = ScanMount.from_transform(transforms.pose("laser", "base_link"))
    expected = ScanMount(x, y, yaw, roll, pitch)
    assert (mount.x_m, mount.y_m) == pytest.approx((x, y))
    assert mount.axes == pytest.approx(expected.axes)
    assert transforms.pose("elsewhere", "base_link") is None


def half(angle):
    return math.sin(0.5 * angle), math.cos(0.5 * angle)


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (math.nan, 0, 0, 1), (math.inf, 0, 0, 1)])
def test_a_rotation_that_is_none_is_refused(quaternion):
    transforms = StaticTransforms()
    with pytest.raises(ValueError, match="quaternion"):
        transforms.add("base_link", "laser", (0, 0, 0), quaternion)
    with pytest.raises(ValueError, match="translation"):
        transforms.add("base_link", "laser", (math.nan, 0, 0), (0, 0, 0, 1))
    assert transforms.pose("laser", "base_link") is None


def test_frames_in_a_circle_end():
    transforms = StaticTransforms()
    transforms.add("b", "a", (0, 0, 0), (0, 0, 0, 1))
    transforms.add("a", "b", (0, 0, 0), (0, 0, 0, 1))
    assert transforms.pose("a", "base_link") is None


@pytest.mark.parametrize("nothing", [0.0, math.nan, 0.01, -1.0])
def test_a_scan_without_a_measurement_is_not_free_space(nothing):
    ranges = np.full(360, nothing, np.float32)
    with pytest.raises(BlindScanError, match="no beam of 360"):
        points_from_ranges(ranges, -math.pi, 0.0175, 0.1, 8.0, ScanMount())
    # Nothing within reach is a measurement, whichever way a driver says it.
    for free in (math.inf, 8.5):
        ranges[7] = free
        assert len(points_from_ranges(ranges, -math.pi, 0.0175, 0.1, 8.0, ScanMount())) == 0


@pytest.mark.parametrize(
    ("low", "high", "increment", "problem"),
    [
        (-1.0, 1.0, -0.02, "increment from the first to the last"),
        (1.0, -1.0, 0.02, "increment from the first to the last"),
        (0.0, 360.0, 1.0, "degrees"),
        (-180.0, 180.0, 1.0, "degrees"),
    ],
)
def test_angles_that_contradict_each_other_are_refused(low, high, increment, problem):
    beams = round(abs((high - low) / increment)) + 1
    with pytest.raises(ValueError, match=problem):
        points_from_ranges(np.ones(beams), low, increment, 0.1, 5.0, ScanMount(), high)
