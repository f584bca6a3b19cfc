"""Odometry that is no measurement of now is refused, named, and not remembered."""

import math

import pytest
from gnm_nav.odometry_gate import OdometryGate


def drive(gate, start_s, steps=20):
    taken = []
    for index in range(steps):
        now_s = start_s + 0.1 * index
        taken.append(gate.accept((now_s - 0.01, 0.05 * index, 0.0, 0.0), now_s, now_s))
    return taken


@pytest.mark.parametrize(
    ("pose", "code", "said"),
    [
        ((1000.0, math.nan, 0.0, 0.0), "not_finite", "no number"),
        ((1000.0, 0.0, math.inf, 0.0), "not_finite", "no number"),
        ((1000.0, 0.0, 0.0, math.nan), "not_finite", "quaternion"),
        ((0.0, 0.0, 0.0, 0.0), "stale", "no stamp (0)"),
        ((900.0, 0.0, 0.0, 0.0), "stale", "old"),
        ((1e9, 0.0, 0.0, 0.0), "future", "ahead"),
        ((1002.2, 0.0, 0.0, 0.0), "future", "ahead"),
        ((1001.89, 0.0, 0.0, 0.0), "not_newer", "not newer"),
    ],
)
def test_one_bad_message_is_refused_and_the_next_good_one_taken(pose, code, said):
    gate = OdometryGate()
    assert all(drive(gate, 1000.0))
    assert not gate.accept(pose, 1001.95, 1001.95)
    assert gate.refused == {code: 1} and said in gate.problem(1002.0)
    assert all(drive(gate, 1002.0))
    assert gate.problem(1006.0) == ""


def test_a_clock_that_goes_back_begins_anew():
    gate = OdometryGate()
    assert all(drive(gate, 1000.0))
    assert all(drive(gate, 1.0))
    assert not gate.refused


def test_stamps_that_stand_are_told():
    gate = OdometryGate()
    taken = [gate.accept((5.0, 0.1 * n, 0.0, 0.0), 5.0 + 0.05 * n, 5.0) for n in range(10)]
    assert taken == [True] + [False] * 9
    assert "not newer" in gate.problem(5.0)
