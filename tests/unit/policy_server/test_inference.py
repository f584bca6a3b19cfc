"""The priority with which a policy is run by a thread that ticks in real time."""

import os
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from policy_server.inference import Inferences
from policy_server.policy import ActionChunk


class Recording:
    """Takes a while, and notes with which priority it is run."""

    spec = SimpleNamespace(action=SimpleNamespace(low=np.full(1, -1.0), high=np.ones(1)))

    def __init__(self):
        self.work_s = 0.0
        self.schedulers = []

    def infer(self, observation, num_samples=1):
        self.schedulers.append(os.sched_getscheduler(0))
        time.sleep(self.work_s)
        return ActionChunk(np.zeros((1, 1, 1), np.float32))


@pytest.mark.parametrize("in_background", [False, True])
def test_only_short_inferences_keep_the_real_time_priority(in_background):
    policy, after = Recording(), []

    def tick():
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError:
            return
        with Inferences(policy, 1, in_background) as inferences:
            for policy.work_s in (0.0, 0.0, 0.05, 0.0, 0.0):
                inferences.begin(None, 0, 0)
                while inferences.collect() is None:
                    time.sleep(0.001)
                after.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=tick)
    thread.start()
    thread.join()
    if not after:
        pytest.skip("this system allows no real-time priority")
    assert after == [os.SCHED_FIFO] * 5
    other, fifo = os.SCHED_OTHER, os.SCHED_FIFO
    # The first one may take long, and one after a long one, too.
    expected = [other] * 5 if in_background else [other, fifo, fifo, other, fifo]
    assert policy.schedulers == expected
