"""The runner on a clock that is set, and with stamps that lie ahead of it."""

import threading
import time

import numpy as np
import pytest
from gnm_nav.camera_watch import CameraLimits, CameraWatch
from gnm_nav.navigation import NavigationCore, NavigationState
from gnm_nav.navigation_runner import Goal, NavigationRunner, RunnerSettings
from synthetic_world import SPACING_M, Robot, SyntheticModel, build, driven

PERIOD_S = 0.25


class SetClock:
    """Real time from an origin that the test sets."""

    def __init__(self):
        self.origin_s = 1000.0 - time.monotonic()
        self.stop = threading.Event()

    def now(self):
        return time.monotonic() + self.origin_s

    def wait_until(self, time_s):
        while self.now() < time_s and time_s - self.now() < 1.0:
            if self.stop.wait(0.005):
                return False
        return not self.stop.is_set()


class Rig:
    """A robot that stands on the way and looks along it."""

    def __init__(self):
        made, truth = build(SyntheticModel(), driven([(0, 0), (6, 0)]))
        self.robot = Robot(truth[2], 0)
        self.clock = SetClock()
        self.paths, self.reports, self.clock_set = [], [], []
        core = NavigationCore(SyntheticModel(), made, SPACING_M)
        self.runner = NavigationRunner(
            core,
            CameraWatch(CameraLimits(timeout_s=1.0)),
            RunnerSettings(PERIOD_S, horizon=5),
            lambda stop: self.clock,
            self.paths.append,
            self.reports.append,
            self.reports.append,
            self.clock_set.append,
        )

    def run(self, until, ahead_s=(), timeout_s=20.0):
        """Push images at 20 Hz until something is true; the first ones with stamps ahead."""
        deadline_s, ahead_s = time.monotonic() + timeout_s, list(ahead_s)
        while not until():
            assert time.monotonic() < deadline_s
            now_s = self.clock.now()
            stamp_s = now_s + (ahead_s.pop(0) if ahead_s else 0.0)
            self.runner.push_image(self.robot.image(), stamp_s)
            self.runner.look(self.clock.now())
            self.runner.push_odometry((stamp_s, *self.robot.pose), False)
            time.sleep(0.05)
            self.runner.beat(self.clock.now())

    def drives(self):
        state = self.reports[-1].decision.state if self.reports else None
        return state == NavigationState.DRIVING and self.runner.path is not None


@pytest.fixture
def rig():
    rig = Rig()
    rig.runner.start()
    assert rig.runner.begin(Goal("last", 60.0)) is None
    yield rig
    rig.clock.stop.set()
    rig.runner.stop("the test is over")


@pytest.mark.parametrize("back_s", [0.9, 100.0])
def test_a_clock_that_goes_back_begins_anew_with_one_warning(rig, back_s):
    rig.run(rig.drives)
    before = len(rig.reports)
    rig.clock.origin_s -= back_s
    rig.runner.beat(rig.clock.now())
    # The path of the time before does not hold until the clock has caught up.
    assert rig.runner.path is None
    set_s = time.monotonic()
    rig.run(lambda: len(rig.reports) > before + 3 and rig.drives())
    # Six frames at 4 Hz, and what a busy machine takes.
    assert time.monotonic() - set_s < 8.0
    assert rig.clock_set == [pytest.approx(back_s, abs=0.2)]


@pytest.mark.parametrize("ahead_s", [1.2, 3600.0])
def test_one_image_stamped_ahead_does_not_mute_those_after_it(rig, ahead_s):
    rig.run(rig.drives)
    pushed = len(rig.reports)
    rig.run(lambda: len(rig.reports) > pushed + 3, ahead_s=[ahead_s])
    assert rig.drives()
    assert rig.reports[-1].decision.stamp_s <= rig.clock.now()
    assert not rig.clock_set


def test_a_late_image_amid_dark_ones_is_counted_by_itself(rig):
    """Black for less than the grace, then no image for a moment: neither has lasted too long."""
    rig.run(rig.drives)
    seen = rig.robot.image
    rig.robot.image = lambda: np.zeros_like(seen())
    dark_s = time.monotonic()
    rig.run(lambda: time.monotonic() - dark_s > 0.6)
    silent_s = time.monotonic()
    while time.monotonic() - silent_s < 1.8:
        rig.runner.beat(rig.clock.now())
        time.sleep(0.05)
    rig.robot.image = seen
    pushed = len(rig.reports)
    rig.run(lambda: len(rig.reports) > pushed + 8 and (rig.drives() or not rig.runner.busy))
    assert rig.runner.busy
