"""The pacer on a clock of the test's own."""

import math
import random

import pytest
from node_common.pacing import Pacer


class FakeClock:
    """Time that passes only while waiting or working."""

    def __init__(self, start_s=1000.0, wake_late_s=0.0):
        self.time_s = start_s
        self.wake_late_s = wake_late_s
        self.stopped = False

    def now(self):
        return self.time_s

    def wait_until(self, time_s):
        if self.stopped:
            return False
        self.time_s = max(self.time_s, time_s) + self.wake_late_s
        return True


def run(pacer, clock, work_s):
    starts = []
    for duration_s in work_s:
        assert pacer.wait()
        starts.append(clock.time_s)
        clock.time_s += duration_s
    return starts


def test_ticks_lie_on_the_grid_whatever_the_work_takes():
    clock = FakeClock()
    work = random.Random(5)
    pacer = Pacer(0.2, clock)
    starts = run(pacer, clock, [work.uniform(0, 0.19) for _ in range(200)])
    assert starts == pytest.approx([1000.0 + 0.2 * k for k in range(200)])
    report = pacer.report()
    assert (report.ticks, report.missed_ticks, report.overruns) == (200, 0, 0)
    assert report.rate_hz == pytest.approx(5.0)


def test_late_wake_ups_do_not_add_up():
    clock = FakeClock(wake_late_s=0.003)
    pacer = Pacer(0.2, clock)
    starts = run(pacer, clock, [0.01] * 100)
    assert starts[-1] == pytest.approx(1000.0 + 0.2 * 99 + 0.003)
    assert pacer.report().lateness.p50 == pytest.approx(0.003)
    assert pacer.report().missed_ticks == 0


@pytest.mark.parametrize(
    ("work_s", "next_start_s", "missed"),
    [
        (0.25, 0.25, 0),  # a quarter of a period late: a tick, though not on time
        (0.32, 0.32, 1),  # more than half a period late
        (0.45, 0.45, 1),  # the tick at 0.2 is left out, the one at 0.4 is little late
        (0.95, 0.95, 4),  # 0.2, 0.4 and 0.6 are left out, the one at 0.8 is late
    ],
)
def test_an_overrun_counts_and_skips_ticks(work_s, next_start_s, missed):
    clock = FakeClock(start_s=0.0)
    pacer = Pacer(0.2, clock)
    starts = run(pacer, clock, [work_s, 0.0, 0.0])
    assert starts[1] == pytest.approx(next_start_s)
    assert starts[2] == pytest.approx(0.2 * math.floor(next_start_s / 0.2) + 0.2)
    report = pacer.report()
    assert (report.missed_ticks, report.overruns) == (missed, 1)


def test_a_clock_that_jumps_back_starts_a_new_grid():
    clock = FakeClock()
    pacer = Pacer(0.2, clock)
    run(pacer, clock, [0.0] * 5)
    clock.time_s = 3.0
    starts = run(pacer, clock, [0.0] * 3)
    assert starts == pytest.approx([3.0, 3.2, 3.4])
    assert pacer.report().missed_ticks == 0


def test_stopping_ends_the_wait_without_a_tick():
    clock = FakeClock()
    pacer = Pacer(0.2, clock)
    assert pacer.wait()
    clock.stopped = True
    assert not pacer.wait()
    assert pacer.report().ticks == 1
    assert math.isnan(pacer.report().rate_hz)


@pytest.mark.parametrize("period_s", [0.0, -1.0, math.nan, math.inf])
def test_a_period_that_is_no_time_is_refused(period_s):
    with pytest.raises(ValueError, match="found a period"):
        Pacer(period_s, FakeClock())


class JumpingClock(FakeClock):
    """A clock that is set back during one wait, and says so by returning early."""

    def __init__(self, jump_at_s, back_s):
        super().__init__()
        self.jump_at_s = jump_at_s
        self.back_s = back_s

    def wait_until(self, time_s):
        if self.jump_at_s is not None and time_s >= self.jump_at_s:
            self.time_s = self.jump_at_s - self.back_s
            self.jump_at_s = None
            return True
        return super().wait_until(time_s)


@pytest.mark.parametrize("back_s", [0.05, 0.5, 30.0, 900.0])
def test_a_clock_that_is_set_back_during_a_wait_does_not_stop_the_ticks(back_s):
    clock = JumpingClock(1000.9, back_s)
    starts = run(Pacer(0.2, clock), clock, [0.0] * 8)
    assert starts[:5] == pytest.approx([1000.0 + 0.2 * k for k in range(5)])
    if back_s < 0.4:
        # It only takes longer until the next tick: never two for one time.
        assert starts[5:] == pytest.approx([1001.0, 1001.2, 1001.4])
    else:
        first = 1000.9 - back_s
        assert starts[5:] == pytest.approx([first, first + 0.2, first + 0.4])
