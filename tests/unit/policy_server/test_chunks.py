"""Action chunks: which step is executed when, for any inference time, and what makes them void."""

from concurrent.futures import Executor, Future

import numpy as np
import pytest
from policy_server import inference
from policy_server.bundle import load_bundle
from policy_server.chunk_player import ChunkPlayer
from policy_server.deployment import ChunkSpec
from policy_server.episode import Episode, EpisodeSettings, Reason, StopSignal
from policy_server.observation_buffer import Problem, Snapshot
from policy_server.policy import ActionChunk, Task

CALLING_THREAD = inference.CallingThread
LEFT, RIGHT = Task("push_left"), Task("push_right")
SCALE = 5e-4
"""The scripted policy's action is the number of a step times this, within the bundle's bounds."""


def chunk_of(first, length):
    return np.arange(first, first + length, dtype=float)[:, None]


# --- the player ---------------------------------------------------------------------------------


def test_a_chunk_joins_where_the_one_before_has_got_to():
    player = ChunkPlayer(execute_steps=3)
    assert player.wants_chunk and player.take() is None and not player.has_run_out
    player.add(chunk_of(0, 6), stamp_ns=10, begin=0)
    taken = [player.take() for _ in range(3)]
    assert [step.action[0] for step in taken] == [0, 1, 2]
    assert player.wants_chunk
    # Its inference takes the time of two steps, which the chunk before supplies.
    begin = player.position
    taken += [player.take(), player.take()]
    player.add(chunk_of(3, 6), stamp_ns=20, begin=begin)
    assert not player.wants_chunk
    taken += [player.take() for _ in range(4)]
    assert [step.action[0] for step in taken] == list(range(9))
    assert [step.stamp_ns for step in taken] == [10] * 5 + [20] * 4
    assert [step.index for step in taken] == [0, 1, 2, 3, 4, 2, 3, 4, 5]
    assert [step.is_first for step in taken] == [True] + [False] * 4 + [True] + [False] * 3
    assert player.has_run_out and player.take() is None
    assert player.position == 9


def test_clearing_tells_how_many_steps_are_lost():
    player = ChunkPlayer(execute_steps=2)
    assert player.clear() == 0
    player.add(chunk_of(0, 5), 1, begin=0)
    player.take()
    assert player.clear() == 4
    assert player.wants_chunk and not player.has_run_out
    player.add(chunk_of(1, 5), 2, begin=player.position)
    assert player.take().action[0] == 1


@pytest.mark.parametrize("decay", [0.0, 0.01, 0.7])
def test_the_ensemble_weighs_the_oldest_chunk_most(decay):
    player = ChunkPlayer(execute_steps=1, ensemble_decay=decay)
    values = [5.0, -1.0, 2.0, 7.0]
    for begin, value in enumerate(values):
        player.add(np.full((3, 2), value), stamp_ns=begin, begin=begin)
        step = player.take()
        held = values[
            max(0, begin - 2) : begin + 1
        ]  # those that are not at their end, oldest first
        weights = np.exp(-decay * np.arange(len(held)))
        np.testing.assert_allclose(step.action, np.dot(weights, held) / weights.sum())
        assert (step.stamp_ns, step.index, step.is_first) == (begin, 0, True)


# --- episodes -----------------------------------------------------------------------------------


class World:
    """A clock that advances while somebody waits for it, and a camera that sees what was done."""

    def __init__(self, stop, blind=lambda time_s: False):
        self.stop, self.blind = stop, blind
        self.time_s = 100.0
        self.commands = []  # (time [s], number, stamp [s])
        self.work = []  # (time when it is done [s], what finishes it)
        self.starting = True

    def observe(self):
        if self.starting:
            self.time_s += 0.03
        if self.blind(self.time_s):
            return Problem("camera", "the newest image is old, expected at most 0 s")
        stamp_ns = round(self.time_s * 1e9)
        done = {"state": np.full(7, len(self.commands), np.float32)}
        return Snapshot(done, stamp_ns, 0.0)

    def now(self):
        return self.time_s

    def wait_until(self, time_s):
        for done_s, finish in sorted(self.work, key=lambda item: item[0]):
            if done_s <= time_s:
                self.time_s = max(self.time_s, done_s)
                finish()
        self.work = [item for item in self.work if item[0] > time_s]
        self.time_s = max(self.time_s, time_s)
        return not self.stop.event.is_set()

    def publish(self, action, stamp_ns):
        self.commands.append((self.time_s, round(action[0] / SCALE), stamp_ns * 1e-9))


class Counting:
    """Plans the next `horizon` numbers after those that it sees done; thinking takes a while."""

    def __init__(self, spec, world, horizon, latency_s):
        self.spec, self.world, self.horizon = spec, world, horizon
        self.latency_s = latency_s  # of the call with a number
        self.calls = 0
        self.tasks = []

    def reset(self, seed):
        pass

    def infer(self, observation, num_samples=1):
        self.calls += 1
        self.tasks.append(observation.task)
        steps = np.zeros((1, self.horizon, 7), np.float32)
        done = int(observation.values["state"][0])
        steps[0, :, 0] = (done + np.arange(self.horizon)) * SCALE
        return ActionChunk(steps)


class WorkingExecutor(Executor):
    """Finishes what it is given when the world's clock has advanced by the policy's latency."""

    def __init__(self, policy):
        self.policy = policy

    def submit(self, fn, /, *args):
        future, done = Future(), CALLING_THREAD().submit(fn, *args)
        done_s = self.policy.world.time_s + self.policy.latency_s(self.policy.calls)

        def finish():
            if done.exception():
                future.set_exception(done.exception())
            else:
                future.set_result(done.result())

        self.policy.world.work.append((done_s, finish))
        return future


class ThinkingExecutor(WorkingExecutor):
    """The same, while the caller waits."""

    def submit(self, fn, /, *args):
        future = super().submit(fn, *args)
        self.policy.world.wait_until(self.policy.world.work[-1][0])
        return future


def run(
    monkeypatch,
    ptr_file,
    chunk,
    horizon,
    latency_s=lambda call: 0.01,
    period_s=0.2,
    max_steps=60,
    task=lambda world: LEFT,
    blind=lambda time_s: False,
):
    stop = StopSignal()
    world = World(stop, blind)
    policy = Counting(load_bundle(ptr_file).deployment, world, horizon, latency_s)
    monkeypatch.setattr(inference, "ThreadPoolExecutor", lambda *_: WorkingExecutor(policy))
    monkeypatch.setattr(inference, "CallingThread", lambda: ThinkingExecutor(policy))
    steps = []

    def current_task():
        world.starting = False
        return task(world)

    episode = Episode(
        policy=policy,
        observe=world.observe,
        clock=world,
        task=current_task,
        publish=world.publish,
        on_step=steps.append,
        stop=stop,
    )
    outcome = episode.run(EpisodeSettings(period_s, max_steps, 1, 0, 1.0, chunk))
    return outcome, world, policy, steps, episode


def intervals_s(world):
    return np.diff([time_s for time_s, _, _ in world.commands])


@pytest.mark.parametrize("rate_hz", [5, 50])
@pytest.mark.parametrize("periods", [0.05, 0.45, 0.95, 1.3, 2.5, 3.0])
@pytest.mark.parametrize("execute_steps", [1, 3, 8])
def test_steps_are_played_by_time_whatever_inference_takes(
    monkeypatch, ptr_file, rate_hz, periods, execute_steps
):
    """A 0.5 s inference at 5 Hz sent three steps meant for 0.6 s within 0.11 s."""
    period_s = 1 / rate_hz
    outcome, world, policy, steps, _ = run(
        monkeypatch,
        ptr_file,
        ChunkSpec(execute_steps),
        horizon=8,
        latency_s=lambda call: periods * period_s,
        period_s=period_s,
        max_steps=24,
    )
    assert outcome.reason is Reason.HORIZON
    assert [number for _, number, _ in world.commands] == list(range(24))
    found = intervals_s(world) / period_s
    within = np.delete(found, np.arange(execute_steps - 1, len(found), execute_steps))
    np.testing.assert_allclose(within, 1.0, atol=1e-6)
    between = found[execute_steps - 1 :: execute_steps]
    np.testing.assert_allclose(between, max(1.0, periods), atol=1e-6)
    assert policy.calls == 24 // execute_steps
    # All steps of a chunk carry the stamp of the one observation that caused it.
    stamps = [stamp_s for _, _, stamp_s in world.commands]
    assert len(set(stamps)) == policy.calls
    for step, (time_s, _, stamp_s) in zip(steps, world.commands, strict=True):
        assert step.observation_age_s == pytest.approx(time_s - stamp_s, abs=1e-6)
    assert [step.inference_s is not None for step in steps] == [
        k % execute_steps == 0 for k in range(24)
    ]
    # The first inference is no overrun, however cold the models are.
    assert outcome.overruns == (policy.calls - 1 if periods > 1 else 0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ensemble", [None, 0.1])
def test_in_the_background_nothing_is_left_out_or_done_twice(monkeypatch, ptr_file, seed, ensemble):
    random = np.random.default_rng(seed)
    horizon = int(random.integers(4, 20))
    execute_steps = int(random.integers(1, horizon - 1))
    slack = horizon - execute_steps
    longest = random.uniform(0.1, 0.95) * slack
    outcome, world, policy, _, _ = run(
        monkeypatch,
        ptr_file,
        ChunkSpec(execute_steps, in_background=True, ensemble_decay=ensemble),
        horizon,
        latency_s=lambda call: 0.2 * random.uniform(0.05, longest),
    )
    assert outcome.reason is Reason.HORIZON
    assert [number for _, number, _ in world.commands] == list(range(60))
    # No jerks: every command a period after the one before, while inferences run.
    np.testing.assert_allclose(intervals_s(world), 0.2, atol=1e-6)
    assert outcome.overruns == 0
    assert policy.calls >= 60 / (execute_steps + longest + 1)


def test_an_inference_that_is_too_slow_makes_the_robot_wait_and_is_counted(monkeypatch, ptr_file):
    outcome, world, policy, _, _ = run(
        monkeypatch,
        ptr_file,
        ChunkSpec(4, in_background=True),
        horizon=6,
        latency_s=lambda call: 3.0 if call == 1 else 0.7,
        max_steps=24,
    )
    assert outcome.reason is Reason.HORIZON
    assert [number for _, number, _ in world.commands] == list(range(24))
    gaps = np.flatnonzero(intervals_s(world) > 0.3)
    # Four steps are executed before an inference begins, and two more, 0.4 s, while it runs.
    assert len(gaps) == outcome.overruns == policy.calls - 1 - (policy.world.work != [])
    assert outcome.missed_ticks == round(sum(intervals_s(world)[gaps] / 0.2 - 1))
    assert np.all(intervals_s(world) > 0.8 * 0.2 - 1e-9)


@pytest.mark.parametrize("in_background", [False, True])
def test_a_new_task_is_commanded_at_the_next_inference(monkeypatch, ptr_file, in_background):
    """A chunk of eight steps went on for five more after the third (F3)."""
    outcome, world, policy, _, episode = run(
        monkeypatch,
        ptr_file,
        ChunkSpec(7, in_background),
        horizon=8,
        task=lambda world: LEFT if len(world.commands) < 3 else RIGHT,
        max_steps=10,
    )
    assert outcome.reason is Reason.HORIZON
    changed = policy.tasks.index(RIGHT)
    assert policy.tasks[changed:] == [RIGHT] * (len(policy.tasks) - changed)
    stamps = [stamp_s for _, _, stamp_s in world.commands]
    assert stamps[3] > world.commands[2][0]
    assert episode.dropped_steps == (5 if in_background else 4)
    # In the background the robot waits for what suits the new task.
    assert intervals_s(world)[2] == pytest.approx(0.4 if in_background else 0.2, abs=0.02)


def test_what_was_inferred_for_the_task_before_is_not_executed(monkeypatch, ptr_file):
    """The task changes while an inference runs."""
    _, world, policy, _, _ = run(
        monkeypatch,
        ptr_file,
        ChunkSpec(2, in_background=True),
        horizon=8,
        latency_s=lambda call: 0.5,
        task=lambda world: LEFT if world.time_s < 101.35 else RIGHT,
        max_steps=20,
    )
    right_s = min(stamp_s for time_s, _, stamp_s in world.commands if stamp_s > 101.35)
    for time_s, _, stamp_s in world.commands:
        assert (time_s > 101.35) == (stamp_s >= right_s)
    assert RIGHT in policy.tasks


@pytest.mark.parametrize("in_background", [False, True])
@pytest.mark.parametrize("gap_s", [0.1, 0.5])
def test_a_gap_in_the_observations_ends_the_chunk(monkeypatch, ptr_file, in_background, gap_s):
    outcome, world, _, _, episode = run(
        monkeypatch,
        ptr_file,
        ChunkSpec(6, in_background),
        horizon=8,
        blind=lambda time_s: 100.5 < time_s < 100.65 + gap_s,
        max_steps=20,
    )
    assert outcome.reason is Reason.HORIZON
    for time_s, _, stamp_s in world.commands:
        if time_s > 100.65 + gap_s:
            assert stamp_s >= 100.65 + gap_s
    assert episode.dropped_steps > 0


@pytest.mark.parametrize("in_background", [False, True])
def test_what_the_robot_does_not_follow_is_not_gone_on_with(monkeypatch, ptr_file, in_background):
    original = Episode.run

    def run_and_refuse(self, settings):
        publish = self._publish

        def published(action, stamp_ns):
            publish(action, stamp_ns)
            if self._steps == 2:  # the third one is refused
                self.void_chunks()

        self._publish = published
        return original(self, settings)

    monkeypatch.setattr(Episode, "run", run_and_refuse)
    outcome, world, _, _, episode = run(
        monkeypatch, ptr_file, ChunkSpec(7, in_background), horizon=8, max_steps=10
    )
    assert outcome.reason is Reason.HORIZON
    stamps = [stamp_s for _, _, stamp_s in world.commands]
    assert len(set(stamps[:3])) == 1 and stamps[3] > world.commands[2][0]
    assert episode.dropped_steps == (5 if in_background else 4)


@pytest.mark.parametrize("in_background", [False, True])
def test_stopping_ends_a_chunk(monkeypatch, ptr_file, in_background):
    def task(world):
        if len(world.commands) == 3:
            world.stop.set(Reason.CANCELLED, "enough")
        return LEFT

    outcome, world, *_ = run(
        monkeypatch, ptr_file, ChunkSpec(7, in_background), horizon=8, task=task
    )
    assert outcome.reason is Reason.CANCELLED
    assert len(world.commands) == 3


@pytest.mark.parametrize("in_background", [False, True])
@pytest.mark.parametrize("bad_step", [0, 3, 7])
def test_a_chunk_with_a_bad_step_is_not_begun(monkeypatch, ptr_file, in_background, bad_step):
    original = Counting.infer

    def infer(self, observation, num_samples=1):
        chunk = original(self, observation, num_samples)
        if self.calls == 2:
            chunk.actions[0, bad_step, 4] = np.nan
        return chunk

    monkeypatch.setattr(Counting, "infer", infer)
    outcome, world, policy, *_ = run(monkeypatch, ptr_file, ChunkSpec(4, in_background), horizon=8)
    assert outcome.reason is Reason.BAD_ACTION
    assert policy.calls == 2
    assert len({stamp_s for _, _, stamp_s in world.commands}) == 1
