"""The capture loop around a source that fails on command."""

import threading
import time

import numpy as np
import pytest
from camera_drivers.camera_diagnostics import Level, judge
from camera_drivers.capture_loop import Backoff, CaptureLoop, CaptureState
from camera_drivers.image_source import Frame, SourceError, SourceReport


class ScriptedSource:
    """Gives frames that the test puts in, and fails when told to."""

    def __init__(self, stop):
        self.stop = stop
        self.frames = []
        self.failure = None
        self.openings = self.closings = 0
        self.lock = threading.Condition()

    def open(self):
        self.openings += 1
        if isinstance(self.failure, OSError):
            raise SourceError("no device")
        return SourceReport(8, 8, 30.0)

    def read(self):
        with self.lock:
            self.lock.wait_for(lambda: self.frames or self.failure or self.stop.is_set())
            if self.failure:
                raise self.failure
            return self.frames.pop(0) if self.frames else None

    def set_controls(self, controls):
        return SourceReport(8, 8, 30.0, {"gain": str(controls.gain)})

    def close(self):
        self.closings += 1

    def give(self, *values):
        with self.lock:
            self.frames += [frame(value) for value in values]
            self.lock.notify_all()

    def fail(self, failure):
        with self.lock:
            self.failure = failure
            self.lock.notify_all()


def frame(value):
    return Frame(np.full((8, 8, 3), value, np.uint8), time.monotonic())


def wait_until(condition, timeout_s=5.0):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "the condition did not come true"
        time.sleep(0.002)


@pytest.fixture
def made():
    loops = []

    def make(**options):
        stop = threading.Event()
        source = ScriptedSource(stop)
        loop = CaptureLoop(source, stop, Backoff(0.01, 0.04), **options)
        loop.start()
        loops.append((loop, source))
        return loop, source

    yield make
    for loop, source in loops:
        loop._stop.set()
        source.fail(None)
        assert loop.stop(5.0)
        assert source.closings >= source.openings


def test_taker_gets_the_latest_frame_and_drops_are_counted(made):
    loop, source = made()
    source.give(1, 2, 3)
    wait_until(lambda: loop.status().frames == 3)
    taken = loop.take(1.0)
    assert taken.image[0, 0, 0] == 3
    assert loop.status().drops == 2
    assert loop.take(0.01) is None, "the same frame is not given twice"


@pytest.mark.parametrize("failure", [SourceError("unplugged"), ValueError("a bug in a codec")])
def test_reconnects_after_any_failure_and_never_gives_the_frame_from_before(made, failure):
    loop, source = made()
    source.give(1)
    wait_until(lambda: loop.status().frames == 1)
    source.fail(failure)
    wait_until(lambda: loop.status().failed_attempts >= 2)
    assert loop.take(0.01) is None
    condition = judge(loop.status(), max_age_s=1.0, frozen_limit_frames=0, notes=())
    assert condition.level is Level.ERROR
    assert str(failure) in condition.message
    source.fail(None)
    source.give(2)
    assert loop.take(5.0).image[0, 0, 0] == 2
    status = loop.status()
    assert status.state is CaptureState.STREAMING
    assert status.reconnects >= 1


def test_waits_double_up_to_the_longest_and_start_short_again():
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next() == 0.5


def test_frozen_device_counts_as_broken(made):
    loop, source = made(frozen_limit_frames=4)
    source.give(7, 7, 7, 7)
    wait_until(lambda: loop.status().frames == 4)
    assert loop.status().failed_attempts == 0
    source.give(7)
    wait_until(lambda: loop.status().reconnects == 1)
    assert loop.status().frames == 4
    source.give(7)
    assert loop.take(5.0) is not None, "after the new start the picture counts anew"


def test_old_image_and_low_rate_show_in_the_judgement(made):
    loop, source = made()

    def condition(max_age_s=0.05):
        return judge(loop.status(), max_age_s=max_age_s, frozen_limit_frames=0, notes=())

    assert condition().level is not Level.OK
    source.give(1)
    wait_until(lambda: "s old, expected less" in condition().message)
    assert condition().level is Level.ERROR
    source.give(2)
    wait_until(lambda: loop.status().frames == 2)
    slow = condition(max_age_s=60.0)
    assert slow.level is Level.WARN
    assert "expected 30.0 Hz" in slow.message
