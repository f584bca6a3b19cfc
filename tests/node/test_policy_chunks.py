"""Action chunks through the policy node: played by time, joined, and dropped when they are void."""

import contextlib
import os
import subprocess
import sys
import time

import bundle_builder
import numpy as np
import pytest
from node_rig import wait_until
from policy_interfaces.action import RunEpisode
from policy_interfaces.srv import SetTask
from policy_rig import PERIOD_S, install_policy, rigs, seconds

COUNTING = """
import time
import numpy as np
from policy_server.policy import ActionChunk

class Counting:
    "Computes chunks of eight steps, each for {work_s} s; dy says for which task."

    def __init__(self, bundle, options):
        self.spec = bundle.deployment
        self.calls = 0

    def reset(self, seed):
        self.calls = 0

    def infer(self, observation, num_samples=1):
        end_s = time.monotonic() + {work_s}
        matrix = np.eye(300)
        while time.monotonic() < end_s:
            matrix = matrix @ matrix
        self.calls += 1
        steps = np.zeros((1, 8, 7), np.float32)
        steps[0, :, 0] = 1e-3 * self.calls + 1e-4 * np.arange(8)
        steps[0, :, 1] = -0.01 if observation.task.name == "push_left" else 0.01
        return ActionChunk(steps)
"""


@pytest.fixture
def make_slow_rig(free_domain, tmp_path, monkeypatch):
    """The rig with a policy of another, installed package, that works 2.5 periods per inference."""
    with rigs(free_domain, monkeypatch) as start:

        def make(inference, work_s=2.5 * PERIOD_S):
            code = COUNTING.format(work_s=work_s)
            install_policy(tmp_path / "site", monkeypatch, "counting", code, "Counting")
            monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
            bundle = bundle_builder.with_chunks(
                bundle_builder.write_ptr_bundle(tmp_path / "slow"),
                execute_steps=4,
                inference=inference,
            )
            rig = start(model=bundle.parent, policy="counting")
            rig.activate()
            return rig

        yield make


@pytest.fixture
def other_work():
    """Work on every core that has no claim to it: it must hold nobody up."""
    command = [sys.executable, "-c", "while True: pass"]
    with contextlib.ExitStack() as running:
        for _ in range(os.cpu_count()):
            process = running.enter_context(subprocess.Popen(command))
            running.callback(process.kill)
            os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
        yield


@pytest.mark.alone
@pytest.mark.usefixtures("other_work")
@pytest.mark.parametrize("inference", ["between_steps", "background"])
def test_steps_of_a_slow_policy_are_played_by_time(make_slow_rig, inference):
    """Three steps meant for 0.6 s were sent within 0.11 s."""
    rig = make_slow_rig(inference)
    result = rig.run_episode(max_steps=20)
    assert result.termination_reason == RunEpisode.Result.REASON_HORIZON, result.message
    assert wait_until(lambda: len(rig.robot.commands) == 20)
    messages = [message for _, message in rig.robot.commands]
    chunks = [round(message.values[0] * 1e3 - 0.4) for message in messages]
    steps = [round((m.values[0] - 1e-3 * n) * 1e4) for m, n in zip(messages, chunks, strict=True)]
    stamps_s = [seconds(message.header.stamp) for message in messages]
    intervals_s = np.diff([time_s for time_s, _ in rig.robot.commands])
    assert intervals_s.min() > 0.75 * PERIOD_S
    begins = np.flatnonzero(np.diff(chunks)) + 1
    if inference == "background":
        # Each chunk joins where the one before has got to, and nobody waits for it.
        assert result.overruns == 0
        assert intervals_s.max() < 1.25 * PERIOD_S
        assert all(3 <= steps[k] <= 5 for k in begins), steps
    else:
        assert result.overruns == len(begins) == 4
        assert steps == [0, 1, 2, 3] * 5
        assert np.delete(intervals_s, begins - 1).max() < 1.25 * PERIOD_S
    # One observation caused all steps of a chunk; when each is due is another matter.
    assert len(set(stamps_s)) == len(begins) + 1
    for message, caused_s in zip(messages, stamps_s, strict=True):
        assert message.max_observation_age_s == 1.9
        assert 0.0 < seconds(message.execute_at) - caused_s < 1.9
    executed_s = np.diff([seconds(message.execute_at) for message in messages])
    np.testing.assert_allclose(executed_s, intervals_s, atol=0.25 * PERIOD_S)


@pytest.mark.alone
@pytest.mark.parametrize("inference", ["between_steps", "background"])
def test_a_new_task_makes_the_chunk_of_the_old_one_void(make_slow_rig, inference):
    """Five more steps of the old task were commanded (F3)."""
    rig = make_slow_rig(inference, work_s=0.05)
    _, future = rig.start_episode(task="push_left", max_steps=20)
    assert wait_until(lambda: len(rig.robot.commands) >= 6)
    assert rig.call(SetTask, "policy_node/set_task", SetTask.Request(task="push_right")).success
    changed_s = time.monotonic()
    assert rig.wait_for(future).result.steps == 20
    # A tick that had begun before may still send what it was computing.
    after = [(t, m.values[1]) for t, m in rig.robot.commands if t > changed_s + 0.75 * PERIOD_S]
    assert after and all(dy > 0 for _, dy in after)
    assert after[0][0] - changed_s < 4 * PERIOD_S
    assert wait_until(lambda: rig.robot.statuses[-1].dropped_steps > 0)


@pytest.mark.alone
def test_a_camera_that_dies_stops_a_chunk_while_the_next_one_is_computed(make_slow_rig):
    rig = make_slow_rig("background")
    _, future = rig.start_episode(max_steps=200)
    assert wait_until(lambda: len(rig.robot.commands) >= 6)
    rig.robot.camera_on = False
    died_s = time.monotonic()
    result = rig.wait_for(future).result
    assert result.termination_reason == RunEpisode.Result.REASON_STALE_CAMERA
    assert rig.robot.commands[-1][0] - died_s <= 2 * PERIOD_S


@pytest.mark.alone
def test_a_refused_step_makes_the_rest_of_its_chunk_void(make_slow_rig):
    rig = make_slow_rig("between_steps", work_s=0.02)
    _, future = rig.start_episode(max_steps=12)
    # The second of the four steps that are executed of each chunk.
    assert wait_until(lambda: len(rig.robot.commands) == 6)
    rig.robot.refused_commands += 1
    assert rig.wait_for(future).result.steps == 12
    assert wait_until(lambda: len(rig.robot.commands) == 12)
    stamps_s = [seconds(message.header.stamp) for _, message in rig.robot.commands]
    begins = [0, *(np.flatnonzero(np.diff(stamps_s)) + 1)]
    lengths = np.diff(begins)
    # The chunk in which it was refused, and no other, ends before its four steps.
    assert sorted(lengths)[1:] == [4] * (len(lengths) - 1)
    dropped = 4 - min(lengths)
    assert dropped in (1, 2)
    assert wait_until(lambda: rig.robot.statuses[-1].dropped_steps == dropped)
