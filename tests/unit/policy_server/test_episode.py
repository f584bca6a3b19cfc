"""One episode on a fake clock: what ends it, what is commanded, what is counted."""

import time

import numpy as np
import pytest
from policy_server.bundle import load_bundle
from policy_server.deployment import ChunkSpec
from policy_server.episode import STALE_TO_END_S, Episode, EpisodeSettings, Reason, StopSignal
from policy_server.observation_buffer import FreshnessLimits, ObservationBuffer, Problem
from policy_server.policy import NO_TASK, ActionChunk, Task

LIMITS = FreshnessLimits(camera_timeout_s=0.2, state_timeout_s=0.1, future_tolerance_s=0.05)
PERIOD_S = 0.2
PUSH_LEFT = Task("push_left")


class Scene:
    """A camera and an arm on a clock that advances while the episode waits."""

    def __init__(self, stop, camera_dies_s=np.inf, state_dies_s=np.inf, stamp_offset_s=0.0):
        self.buffer = ObservationBuffer(("camera", "end_effector_state"), LIMITS)
        self.stop = stop
        self.time_s = 50.0
        self.start_s = self.time_s
        self.camera_dies_s = camera_dies_s
        self.state_dies_s = state_dies_s
        self.stamp_offset_s = stamp_offset_s
        self.waiting_for_first_image = True
        self.feed()

    def feed(self):
        elapsed = self.time_s - self.start_s
        stamp_ns = round((self.time_s + self.stamp_offset_s - 0.02) * 1e9)
        if elapsed < self.camera_dies_s:
            self.buffer.put("camera", {"image": np.zeros((2, 2, 3), np.uint8)}, stamp_ns)
        if elapsed < self.state_dies_s:
            self.buffer.put("end_effector_state", {"state": np.zeros(7, np.float32)}, stamp_ns)

    def now(self):
        return self.time_s

    def observe(self):
        if self.waiting_for_first_image:
            self.time_s += 1 / 30
            self.feed()
        return self.buffer.take(round(self.time_s * 1e9))

    def wait_until(self, time_s):
        self.waiting_for_first_image = False
        while self.time_s < time_s:
            self.time_s = min(self.time_s + 1 / 30, time_s)
            self.feed()
        return not self.stop.event.is_set()


class ScriptedPolicy:
    """Returns what it is told to."""

    def __init__(self, spec, act):
        self.spec = spec
        self.act = act
        self.seeds = []
        self.calls = 0

    def reset(self, seed):
        self.seeds.append(seed)

    def infer(self, observation, num_samples=1):
        self.calls += 1
        return ActionChunk(np.asarray(self.act(self.calls), np.float32)[None, None])


def middle(_call):
    return [0.01, 0, 0, 0, 0, 0, 0.5]


def run(ptr_file, act=middle, max_steps=10, on_step=None, wait_s=0.05, **scene_arguments):
    stop = StopSignal()
    scene = Scene(stop, **scene_arguments)
    policy = ScriptedPolicy(load_bundle(ptr_file).deployment, act)
    published = []
    episode = Episode(
        policy=policy,
        observe=scene.observe,
        clock=scene,
        task=lambda: PUSH_LEFT,
        publish=lambda action, stamp_ns: published.append((scene.time_s, action, stamp_ns)),
        on_step=(lambda step: on_step(step, stop)) if on_step else (lambda step: None),
        stop=stop,
    )
    outcome = episode.run(EpisodeSettings(PERIOD_S, max_steps, 1, 42, wait_s, ChunkSpec()))
    return outcome, published, scene, policy


def test_an_episode_runs_to_its_horizon_at_the_rate(ptr_file):
    outcome, published, _, policy = run(ptr_file, max_steps=25)
    assert outcome.reason is Reason.HORIZON
    assert (outcome.steps, outcome.missed_ticks, len(published)) == (25, 0, 25)
    assert outcome.rate_hz == pytest.approx(5.0)
    # The last command has had its period when the episode ends.
    assert outcome.duration_s == pytest.approx(25 * PERIOD_S)
    assert policy.seeds == [42]
    for time_s, _, stamp_ns in published:
        assert 0.0 <= time_s - stamp_ns * 1e-9 <= 0.06


def test_an_image_that_stays_the_same_starts_nothing(ptr_file):
    outcome, published, _, policy = run(ptr_file, camera_dies_s=0.01)
    assert outcome.reason is Reason.STALE_CAMERA
    assert not published
    assert policy.calls == 0


def test_actions_are_kept_within_the_bounds(ptr_file):
    _, published, _, _ = run(ptr_file, act=lambda _: [9, -9, 0, 0, 0, 0, 3], max_steps=1)
    action = published[0][1]
    assert action.tolist() == [0.05, -0.05, 0, 0, 0, 0, 1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_no_number_is_never_sent(ptr_file, bad):
    def act(call):
        return [bad if call == 4 else 0.0, 0, 0, 0, 0, 0, 0.5]

    outcome, published, _, _ = run(ptr_file, act=act)
    assert outcome.reason is Reason.BAD_ACTION
    assert (outcome.steps, len(published)) == (3, 3)


def test_an_action_of_the_wrong_length_is_never_sent(ptr_file):
    outcome, published, _, _ = run(ptr_file, act=lambda _: [0.0] * 6)
    assert outcome.reason is Reason.BAD_ACTION
    assert not published


def test_a_failing_model_ends_the_episode(ptr_file):
    def act(call):
        raise RuntimeError("out of memory")

    outcome, published, _, _ = run(ptr_file, act=act)
    assert outcome.reason is Reason.INFERENCE_FAILED
    assert "out of memory" in outcome.message
    assert not published


@pytest.mark.parametrize("dies_s", [1.0, 1.01, 1.1, 1.19])
@pytest.mark.parametrize(
    ("source", "reason"),
    [("camera_dies_s", Reason.STALE_CAMERA), ("state_dies_s", Reason.STALE_STATE)],
)
def test_commands_cease_within_two_ticks_of_a_sensor_s_death(ptr_file, source, reason, dies_s):
    outcome, published, scene, _ = run(ptr_file, max_steps=100, **{source: dies_s})
    assert outcome.reason is reason
    assert "old, expected at most" in outcome.message
    last_command_s = published[-1][0] - scene.start_s
    assert last_command_s <= dies_s + 2 * PERIOD_S
    assert outcome.missed_ticks == round(STALE_TO_END_S / PERIOD_S)


@pytest.mark.parametrize(("gap_s", "missed"), [(0.3, 1), (0.7, 3)])
def test_a_gap_in_the_images_costs_ticks_but_not_the_episode(ptr_file, gap_s, missed):
    stop = StopSignal()
    scene = Scene(stop)
    original = scene.feed

    def feed():
        if not 0.85 < scene.time_s - scene.start_s < 0.85 + gap_s:
            original()

    scene.feed = feed
    published = []
    episode = Episode(
        policy=ScriptedPolicy(load_bundle(ptr_file).deployment, middle),
        observe=scene.observe,
        clock=scene,
        task=lambda: NO_TASK,
        publish=lambda action, stamp_ns: published.append(scene.time_s),
        on_step=lambda step: None,
        stop=stop,
    )
    outcome = episode.run(EpisodeSettings(PERIOD_S, 20, 1, 0, 0.05, ChunkSpec()))
    assert outcome.reason is Reason.HORIZON
    assert (outcome.steps, outcome.missed_ticks) == (20, missed)


def test_without_camera_nothing_is_sent(ptr_file):
    outcome, published, _, policy = run(ptr_file, camera_dies_s=0.0)
    assert outcome.reason is Reason.STALE_CAMERA
    assert "no image has arrived" in outcome.message
    assert not published
    assert policy.calls == 0


def test_images_from_the_future_are_a_fault(ptr_file):
    outcome, published, _, _ = run(ptr_file, stamp_offset_s=0.5)
    assert outcome.reason is Reason.STALE_CAMERA
    assert "in the future" in outcome.message
    assert not published


def test_stopping_takes_effect_before_the_next_command(ptr_file):
    def on_step(step, stop):
        if step.index == 3:
            stop.set(Reason.CANCELLED, "enough")
            stop.set(Reason.INACTIVE, "too late to count")

    outcome, published, _, _ = run(ptr_file, on_step=on_step)
    assert outcome.reason is Reason.CANCELLED
    assert outcome.message == "enough"
    assert len(published) == 3


def test_the_buffer_counts_replaced_frames_and_forgets_on_clear():
    buffer = ObservationBuffer(("camera",), LIMITS)
    for index in range(6):
        buffer.put("camera", {"image": np.full((1, 1, 3), index, np.uint8)}, index)
    assert buffer.take(6).values["image"][0, 0, 0] == 5
    buffer.put("camera", {"image": np.zeros((1, 1, 3), np.uint8)}, 7)
    assert (buffer.images_received, buffer.images_dropped) == (7, 5)
    buffer.clear()
    assert isinstance(buffer.take(8), Problem)
    assert (buffer.images_received, buffer.images_dropped) == (0, 0)


NS = 10**9
IMAGE = {"image": np.zeros((2, 2, 3), np.uint8)}
STATE_SOURCE = "end_effector_state"
STATE = {"state": np.zeros(7, np.float32)}


def fed(now_s, camera=True, state=True, buffer=None, **arguments):
    """A buffer into which both sources have put what they see at `now_s`."""
    buffer = buffer or ObservationBuffer(("camera", "end_effector_state"), LIMITS, **arguments)
    stamp_ns = round((now_s - 0.02) * NS)
    # As the node does: the state is read when an image arrives.
    if state:
        buffer.put("end_effector_state", STATE, stamp_ns, round(now_s * NS))
    if camera:
        buffer.put("camera", IMAGE, stamp_ns, round(now_s * NS))
    return buffer


@pytest.mark.parametrize(
    ("source", "reason", "told"),
    [
        ("camera", 'found the encoding "8UC3"', "images arrive and are refused: found the encod"),
        (
            STATE_SOURCE,
            "not finite: found [nan]",
            "end-effector states arrive and are refused: not fin",
        ),
    ],
)
@pytest.mark.parametrize("before", [True, False], ids=["after good ones", "from the start"])
def test_what_was_refused_is_not_reported_as_what_did_not_come(source, reason, told, before):
    buffer = fed(100.0) if before else ObservationBuffer(("camera", "end_effector_state"), LIMITS)
    assert buffer.refusal() == ""
    others = {"camera": source != "camera", "state": source != STATE_SOURCE}
    fed(110.0, buffer=buffer, **others)
    silent = buffer.take(110 * NS)
    assert "arrive and are refused" not in silent.message
    buffer.refuse(source, reason)
    # A policy with one good image and a bad one after it goes on with the good one.
    problem = buffer.take(110 * NS)
    assert problem.source == source
    assert problem.message.startswith(told)
    assert buffer.refusal() == problem.message
    assert not isinstance(fed(110.1, buffer=buffer).take(round(110.11 * NS)), Problem)
    assert buffer.refusal() == ""


def test_a_refusal_of_long_ago_does_not_explain_a_camera_that_died(monkeypatch):
    buffer = fed(100.0)
    buffer.refuse("camera", "once")
    steady_s = time.monotonic() + 5.0
    monkeypatch.setattr("policy_server.observation_buffer.time.monotonic", lambda: steady_s)
    assert "old, expected at most" in buffer.take(105 * NS).message


@pytest.mark.parametrize("age_s", [0.25, 0.5, 0.9, 5.0])
def test_a_slow_camera_is_not_taken_for_a_dead_arm(age_s):
    buffer = fed(100.0)
    problem = buffer.take(round((100.0 + age_s) * NS))
    assert problem.source == "camera"
    buffer.limits = FreshnessLimits(10.0, 0.1, 0.05)
    assert not isinstance(buffer.take(round((100.0 + age_s) * NS)), Problem)
    # The state that a later image comes with is old by itself.
    fed(100.0 + age_s, state=False, buffer=buffer)
    assert buffer.take(round((100.0 + age_s) * NS)).source == STATE_SOURCE


@pytest.mark.parametrize("back_s", [0.2, 30.0, 3600.0])
def test_a_clock_that_goes_back_begins_anew_with_one_warning(back_s):
    told = []
    buffer = fed(5000.0, on_restart=told.append)
    now_s = 5000.0 - back_s
    first = buffer.take(round(now_s * NS))
    assert "no image has arrived" in first.message
    for index in range(1, 4):
        fed(now_s + 0.03 * index, buffer=buffer)
        found = buffer.take(round((now_s + 0.03 * index) * NS))
        assert not isinstance(found, Problem)
    (message,) = told
    assert f"went back by {back_s:.3f} s" in message


@pytest.mark.parametrize("source", ["camera", STATE_SOURCE])
def test_one_stamp_far_ahead_is_refused_and_forgotten(source):
    told = []
    buffer = fed(100.0, on_restart=told.append)
    values = IMAGE if source == "camera" else STATE
    refusal = buffer.put(source, values, 3700 * NS, 100 * NS)
    assert "stamped 3600.000 s in the future" in refusal
    assert not isinstance(buffer.take(100 * NS), Problem)
    fed(100.1, buffer=buffer)
    assert not isinstance(buffer.take(round(100.1 * NS)), Problem)
    # While all are, it is the reason.
    buffer.put(source, values, 3705 * NS, 105 * NS)
    fed(105.0, camera=source != "camera", state=source != STATE_SOURCE, buffer=buffer)
    assert "in the future" in buffer.take(105 * NS).message
    assert not told


def test_a_message_without_a_stamp_is_called_one():
    buffer = ObservationBuffer(("camera",), LIMITS)
    buffer.put("camera", IMAGE, 0, 100 * NS)
    assert "the newest image has no stamp (0)" in buffer.take(100 * NS).message


def test_a_policy_without_camera_waits_for_states(ptr_file):
    buffer = ObservationBuffer(("end_effector_state",), LIMITS)
    buffer.put("end_effector_state", STATE, 100 * NS, 100 * NS)
    stop = StopSignal()
    scene = Scene(stop)
    episode = Episode(
        policy=ScriptedPolicy(load_bundle(ptr_file).deployment, middle),
        observe=lambda: buffer.take(100 * NS),
        clock=scene,
        task=lambda: NO_TASK,
        publish=lambda action, stamp_ns: None,
        on_step=lambda step: None,
        stop=stop,
    )
    outcome = episode.run(EpisodeSettings(PERIOD_S, 1, 1, 0, 0.02, ChunkSpec()))
    assert outcome.reason is Reason.STALE_STATE
    assert "no new end-effector state has arrived" in outcome.message
