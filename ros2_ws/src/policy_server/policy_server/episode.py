"""One episode: observe, infer, check and command at control rate, until something ends it."""

from __future__ import annotations

import enum
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from node_common.pacing import Pacer, Percentiles, RecentValues, TickClock
from numpy.typing import NDArray

from policy_server.chunk_player import ChunkPlayer, PlannedStep
from policy_server.deployment import ChunkSpec
from policy_server.inference import InferenceFault, Inferences
from policy_server.observation_buffer import Problem, Snapshot, is_camera, source_name
from policy_server.observation_history import ObservationHistory
from policy_server.policy import Observation, Policy, Task

STALE_TO_END_S = 1.0
"""So long without a fresh observation ends an episode [s]; no command is sent meanwhile, the arm
holds. A hiccup of a camera or of a busy machine is shorter."""
_START_POLL_S = 0.002
_PHASE_S = 0.005
"""Ticks start so long after an image has arrived [s]. Control periods are often a multiple of the
camera's, so the phase stays: the image is fresh at every tick, and the next one, a millisecond of
work for the same interpreter, does not arrive while a tick is under way."""
_LEAST_INTERVAL = 0.8
"""Commands are never closer than this part of the period, within which the arm's controller makes
the motion of one: after a command that was late the next one would else double the speed."""


class Reason(enum.IntEnum):
    """Why an episode ended; the values of policy_interfaces/action/RunEpisode."""

    NONE = 0
    HORIZON = 1
    CANCELLED = 2
    STALE_CAMERA = 3
    STALE_STATE = 4
    UNKNOWN_TASK = 5
    BUSY = 6
    INACTIVE = 7
    INFERENCE_FAILED = 8
    BAD_ACTION = 9


class StopSignal:
    """Ends an episode from another thread; the first reason given is the one that counts."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._lock = threading.Lock()
        self.reason = Reason.NONE
        self.message = ""

    def set(self, reason: Reason, message: str) -> None:
        """Ask for the end."""
        with self._lock:
            if not self.event.is_set():
                self.reason, self.message = reason, message
                self.event.set()


@dataclass(frozen=True)
class EpisodeSettings:
    """How an episode is run.

    Attributes:
        period_s: time between ticks [s].
        max_steps: commands after which it ends.
        num_samples: action chunks to draw per inference.
        seed: for policies that draw.
        observation_wait_s: real time to wait for the first usable observation [s].
        chunk: how chunks are executed.
    """

    period_s: float
    max_steps: int
    num_samples: int
    seed: int
    observation_wait_s: float
    chunk: ChunkSpec


@dataclass(frozen=True)
class Step:
    """One command that was sent.

    Attributes:
        index: its number in the episode, from 1.
        action: float64, shape (A,), within the bundle's bounds.
        inference_s: duration of the inference whose chunk it is the first executed step of, None
            for the others [s].
        observe_to_publish_s: what the tick took, without the waiting for the step's time [s].
        observation_age_s: age of the observation that caused it, when it was sent [s].
    """

    index: int
    action: NDArray[np.float64]
    inference_s: float | None
    observe_to_publish_s: float
    observation_age_s: float


@dataclass(frozen=True)
class EpisodeOutcome:
    """How an episode went.

    Attributes:
        steps: commands that were sent.
        missed_ticks: see `Episode.missed_ticks`.
        overruns: see `Episode.overruns`.
        rate_hz: over the whole of it, NaN before two ticks.
    """

    reason: Reason
    message: str
    steps: int
    missed_ticks: int
    overruns: int
    duration_s: float
    rate_hz: float
    inference: Percentiles


class Episode:
    """Runs a policy once.

    Args:
        policy: what computes actions.
        observe: returns the newest data, or why it must not be acted upon.
        clock: what the ticks are paced by.
        task: returns the task to run now; another object is another task.
        publish: sends an action (A,) caused by the observation stamped with the given time [ns].
        on_step: called after each command.
        stop: ends the episode from outside.
    """

    def __init__(
        self,
        policy: Policy,
        observe: Callable[[], Snapshot | Problem],
        clock: TickClock,
        task: Callable[[], Task],
        publish: Callable[[NDArray[np.float64], int], None],
        on_step: Callable[[Step], None],
        stop: StopSignal,
    ) -> None:
        self._policy = policy
        self._observe = observe
        self._clock = clock
        self._task = task
        self._publish = publish
        self._on_step = on_step
        self._stop = stop
        self._pacer: Pacer | None = None
        self._player = ChunkPlayer(1)
        self._ready_s = self._sent_s = -math.inf
        self._has_inferred = False
        self._is_waiting = False
        self._is_void = threading.Event()
        self._stale_ticks = 0
        self._ticks_without_step = 0
        self._steps = 0
        self.overruns = 0
        """Inferences that were not ready when their first step was due, without the first one."""
        self.dropped_steps = 0
        """Steps that were not executed because what they were computed for had changed."""

    @property
    def missed_ticks(self) -> int:
        """Ticks that came too late, had no usable observation or no step to execute."""
        late = self._pacer.report().missed_ticks if self._pacer else 0
        return late + self._stale_ticks + self._ticks_without_step

    @property
    def rate_hz(self) -> float:
        """Rate achieved over the last seconds, NaN before two ticks."""
        return self._pacer.report().rate_hz if self._pacer else float("nan")

    def void_chunks(self) -> None:
        """Have the next tick drop what is planned: the robot does not follow. From any thread."""
        self._is_void.set()

    def run(self, settings: EpisodeSettings) -> EpisodeOutcome:
        """Run until the horizon, a fault, or `stop`; never raises for a fault of the policy."""
        inference_s = RecentValues()
        started_s = self._clock.now()
        reason, message = self._wait_for_observation(settings.observation_wait_s)
        if reason is Reason.NONE:
            started_s = self._clock.now()
            reason, message = self._run_ticks(settings, inference_s)
        return EpisodeOutcome(
            reason=reason,
            message=message,
            steps=self._steps,
            missed_ticks=self.missed_ticks,
            overruns=self.overruns,
            duration_s=self._clock.now() - started_s,
            rate_hz=self._pacer.report().mean_rate_hz if self._pacer else float("nan"),
            inference=inference_s.percentiles(),
        )

    def _wait_for_observation(self, timeout_s: float) -> tuple[Reason, str]:
        """Wait until a new image has just arrived."""
        deadline = time.monotonic() + timeout_s
        first_stamp_ns: int | None = None
        while True:
            found = self._observe()
            arrived = False
            if isinstance(found, Snapshot):
                arrived = first_stamp_ns is not None and found.stamp_ns != first_stamp_ns
                first_stamp_ns = found.stamp_ns
            if not arrived and time.monotonic() >= deadline:
                if isinstance(found, Snapshot):
                    found = Problem(found.source, f"no new {source_name(found.source)} has arrived")
                return _reason_of(found), f"{found.message}, after waiting {timeout_s:g} s"
            if self._stop.event.wait(_PHASE_S if arrived else _START_POLL_S):
                return self._stop.reason, self._stop.message
            if arrived:
                return Reason.NONE, ""

    def _run_ticks(
        self, settings: EpisodeSettings, inference_s: RecentValues
    ) -> tuple[Reason, str]:
        self._policy.reset(settings.seed)
        self._pacer = pacer = Pacer(settings.period_s, self._clock)
        self._player = ChunkPlayer(settings.chunk.execute_steps, settings.chunk.ensemble_decay)
        stale_ticks_to_end = max(2, math.ceil(STALE_TO_END_S / settings.period_s))
        stale_in_a_row = 0
        history = ObservationHistory(self._policy.spec)
        task: Task | None = None
        with Inferences(
            self._policy, settings.num_samples, settings.chunk.in_background
        ) as inferences:
            while pacer.wait() and not self._stop.event.is_set():
                if self._steps == settings.max_steps:
                    # One period after the last command: that command has had its time.
                    return Reason.HORIZON, f"{self._steps} steps were run"
                started_s, began_s = time.perf_counter(), self._clock.now()
                task_before, task = task, self._task()
                found = self._observe()
                is_void = self._is_void.is_set()
                if is_void or task is not task_before or isinstance(found, Problem):
                    # It was computed for another task, for a world that was not seen since, or for
                    # a robot that follows.
                    self._is_void.clear()
                    inferences.discard()
                    self.dropped_steps += self._player.clear()
                if isinstance(found, Problem):
                    history.clear()
                    self._stale_ticks += 1
                    stale_in_a_row += 1
                    if stale_in_a_row == stale_ticks_to_end:
                        return _reason_of(found), found.message
                    continue
                stale_in_a_row = 0
                values = history.extend(found.values)
                try:
                    duration_s = self._take_chunk(inferences, began_s, settings)
                    if self._player.wants_chunk:
                        observation = Observation(values, task)
                        inferences.begin(observation, found.stamp_ns, self._player.position)
                        duration_s = self._take_chunk(inferences, began_s, settings) or duration_s
                except InferenceFault as fault:
                    return Reason[fault.code], str(fault)
                if duration_s is not None:
                    inference_s.add(duration_s)
                step = self._player.take()
                self._is_waiting = self._player.has_run_out and step is None
                self._ticks_without_step += self._is_waiting
                if step is None:
                    continue
                worked_s = time.perf_counter() - started_s
                if self._wait_until_due(step, began_s, settings):
                    age_s = found.age_s + (found.stamp_ns - step.stamp_ns) * 1e-9
                    age_s += self._sent_s - began_s
                    self._send(step, duration_s, worked_s, age_s)
                    history.acted(step.action)
        return self._stop.reason, self._stop.message

    def _take_chunk(
        self, inferences: Inferences, began_s: float, settings: EpisodeSettings
    ) -> float | None:
        """Take a chunk if one is ready, in a tick that began at `began_s`.

        Returns:
            The duration of its inference, None without a chunk [s].

        Raises:
            InferenceFault: the policy failed.
        """
        chunk = inferences.collect()
        if chunk is None:
            return None
        self._ready_s = self._clock.now()
        steps = chunk.steps
        if settings.chunk.in_background:
            was_waited_for = self._is_waiting
        else:
            was_waited_for = self._ready_s - began_s > settings.period_s
            steps = steps[: settings.chunk.execute_steps]
        self.overruns += was_waited_for and self._has_inferred
        self._has_inferred = True
        self._player.add(steps, chunk.stamp_ns, chunk.begin)
        return chunk.duration_s

    def _wait_until_due(self, step: PlannedStep, began_s: float, settings: EpisodeSettings) -> bool:
        """Block until a step's time, in a tick that began at `began_s`.

        Returns:
            False when it must not be sent: the episode was stopped, or the clock went back.
        """
        if self._sent_s > began_s:  # the clock went back
            self._sent_s = -math.inf
        due_s = self._sent_s + _LEAST_INTERVAL * settings.period_s
        if not settings.chunk.in_background:
            # The chunk was ready so late after a tick; all its steps are as late.
            due_s = max(due_s, self._ready_s + step.index * settings.period_s)
        if due_s > self._clock.now() and not self._clock.wait_until(due_s):
            return False
        now_s = self._clock.now()
        if self._stop.event.is_set() or now_s < began_s:
            return False
        self._sent_s = now_s
        return True

    def _send(
        self, step: PlannedStep, inference_s: float | None, worked_s: float, age_s: float
    ) -> None:
        started_s = time.perf_counter()
        self._publish(step.action, step.stamp_ns)
        worked_s += time.perf_counter() - started_s
        self._steps += 1
        self._on_step(
            Step(
                index=self._steps,
                action=step.action,
                inference_s=inference_s if step.is_first else None,
                observe_to_publish_s=worked_s,
                observation_age_s=age_s,
            )
        )


def _reason_of(problem: Problem) -> Reason:
    return Reason.STALE_CAMERA if is_camera(problem.source) else Reason.STALE_STATE
