"""Which joint states are published, whatever the clocks do."""

import pytest
from robot_state_publisher.publish_schedule import PublishSchedule

S = 1_000_000_000
ARM = ["waist", "elbow"]


def published(stamps_s, nows_s=None, frequency_hz=50.0, names=ARM):
    schedule = PublishSchedule(frequency_hz, ignore_timestamp=False)
    due = []
    for stamp_s, now_s in zip(stamps_s, nows_s or stamps_s, strict=True):
        schedule.clock_went_back(round(now_s * S))
        due.append(schedule.is_due(names, round(stamp_s * S), round(now_s * S)))
    return due, schedule.notice


def times(n, start_s=1000.0, period_s=0.05):
    return [start_s + period_s * k for k in range(n)]


@pytest.mark.parametrize("off_s", [0.2, 5.0, 3600.0, 1e6])
def test_one_stamp_ahead_or_behind_mutes_nothing(off_s):
    for sign in (1, -1):
        stamps_s = times(400)
        stamps_s[1] += sign * min(off_s, 900.0 if sign < 0 else off_s)
        due, notice = published(stamps_s, times(400))
        assert due == [k != 1 for k in range(400)]
        assert not notice


@pytest.mark.parametrize("clock", [True, False])
def test_a_bag_that_loops_goes_on_also_after_a_late_message(clock):
    stamps_s = times(100) + times(2) + [1004.95] + times(98, 1000.1)
    nows_s = times(100) + times(2) + [1000.08] + times(98, 1000.1)
    due, notice = published(stamps_s, nows_s if clock else times(201, 1e6))
    # Without the bag's clock a loop is told by three stamps in a row, then a late one is not.
    assert sum(due[100:]) >= 98 - 4
    assert all(due[110:])
    assert bool(notice) is not clock


@pytest.mark.parametrize("ahead_s", [0.5, 300.0])
def test_a_robot_whose_clock_is_ahead_throughout_is_published(ahead_s):
    due, _ = published([t + ahead_s for t in times(50)], times(50))
    assert due == [False, False] + [True] * 48


def test_sources_of_different_joints_do_not_disturb_each_other():
    schedule = PublishSchedule(20.0, ignore_timestamp=False)
    for k in range(100):
        t = round((1000 + 0.05 * k) * S)
        assert schedule.is_due(["waist"], t, t)
        assert schedule.is_due(["wheel"], t - 30_000_000, t)


def test_a_simulated_clock_that_has_not_begun_delays_nothing_for_long():
    due, _ = published(times(20, 1000.0), [0.0] * 20)
    assert all(due[2:])
