"""Limits keep the shape of the path, and never delay a stop."""

import math

import pytest
from base_drivers.velocity import Velocity, VelocityLimits, limit_acceleration, limit_speed
from hypothesis import given, settings
from hypothesis import strategies as st

LIMITS = VelocityLimits(0.5, 0.3, 1.0, 1.0, 2.0)
numbers = st.floats(-10.0, 10.0)
velocities = st.builds(Velocity, numbers, numbers, numbers)


@settings(deadline=None)
@given(velocities)
def test_speed_is_limited_along_the_same_arc(wanted):
    got = limit_speed(wanted, LIMITS).velocity
    assert abs(got.x) <= 0.5 * 1.00001 + 1e-5
    assert abs(got.y) <= 0.3 * 1.00001 + 1e-5
    assert abs(got.yaw) <= 1.0 * 1.00001 + 1e-5
    assert got.x * wanted.yaw == pytest.approx(got.yaw * wanted.x, abs=1e-6)
    assert got.x * wanted.y == pytest.approx(got.y * wanted.x, abs=1e-6)


@settings(deadline=None)
@given(velocities, velocities, st.floats(0.0, 0.1))
def test_braking_is_never_delayed_and_growth_is_bounded(wanted, before, duration_s):
    got = limit_acceleration(wanted, before, LIMITS, duration_s).velocity
    for target, start, now, growth in (
        (wanted.x, before.x, got.x, 1.0),
        (wanted.y, before.y, got.y, 1.0),
        (wanted.yaw, before.yaw, got.yaw, 2.0),
    ):
        assert abs(now) <= abs(target) + 1e-9
        assert now * target >= 0.0
        if start * target > 0.0 and abs(target) <= abs(start):
            assert now == target
        reach = (abs(start) if start * target > 0.0 else 0.0) + growth * duration_s
        assert abs(now) <= reach + 1e-5


def test_what_the_base_cannot_do_is_taken_away_and_the_rest_stays():
    sideless = VelocityLimits(0.5, 0.0, 1.0, 1.0, 2.0, min_turning_radius_m=0.5)
    got = limit_speed(Velocity(0.4, 0.2, 1.0), sideless)
    assert got.velocity == Velocity(0.4, 0.0, pytest.approx(0.8))
    assert got.changed and not math.isnan(got.limit)
