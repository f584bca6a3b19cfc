"""Free way before a base, for straight, curved and turning motion."""

import math

import numpy as np
import pytest
from base_drivers.scan_watch import Footprint, ScanMount, free_distance, points_from_ranges
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
