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

from policy_server.observation_buffer import SOURCE_NAMES, Problem, Snapshot
from policy_server.policy import Observation, Policy

STALE_TO_END_S = 1.0
"""So long without a fresh observation ends an episode [s]; no command is sent meanwhile, the arm
holds. A hiccup of a camera or of a busy machine is shorter."""
_START_POLL_S = 0.002
_PHASE_S = 0.005
"""Ticks start so long after an image has arrived [s]. Control periods are often a multiple of the
camera's, so the phase stays: the image is fresh at every tick, and the next one, a millisecond of
work for the same interpreter, does not arrive while a tick is under way."""


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
        num_samples: actions to draw per tick.
        seed: for policies that draw.
        observation_wait_s: real time to wait for the first usable observation [s].
    """

    period_s: float
    max_steps: int
    num_samples: int
    seed: int
    observation_wait_s: float


@dataclass(frozen=True)
class Step:
    """One command that was sent. Times in seconds."""

    index: int
    action: NDArray[np.float64]
    inference_s: float
    observe_to_publish_s: float
    observation_age_s: float


@dataclass(frozen=True)
class EpisodeOutcome:
    """How an episode went; `rate_hz` is over the whole of it, NaN before two ticks."""

    reason: Reason
    message: str
    steps: int
    missed_ticks: int
    duration_s: float
    rate_hz: float
    inference: Percentiles


class Episode:
    """Runs a policy once.

    Args:
        policy: what computes actions.
        observe: returns the newest data, or why it must not be acted upon.
        clock: what the ticks are paced by.
        task: returns the task to run now, None for a policy without tasks.
        publish: sends an action (A,) caused by the observation stamped with the given time [ns].
        on_step: called after each command.
        stop: ends the episode from outside.
    """

    def __init__(
        self,
        policy: Policy,
        observe: Callable[[], Snapshot | Problem],
        clock: TickClock,
        task: Callable[[], str | None],
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
        self._stale_ticks = 0
        self._steps = 0

    @property
    def missed_ticks(self) -> int:
        """Ticks that came too late or had no usable observation."""
        late = self._pacer.report().missed_ticks if self._pacer else 0
        return late + self._stale_ticks

    @property
    def rate_hz(self) -> float:
        """Rate achieved over the last seconds, NaN before two ticks."""
        return self._pacer.report().rate_hz if self._pacer else float("nan")

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
                    found = Problem(
                        found.source, f"no new {SOURCE_NAMES[found.source]} has arrived"
                    )
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
        action_spec = self._policy.spec.action
        low, high = action_spec.low, action_spec.high
        stale_ticks_to_end = max(2, math.ceil(STALE_TO_END_S / settings.period_s))
        stale_in_a_row = 0
        while pacer.wait() and not self._stop.event.is_set():
            if self._steps == settings.max_steps:
                # One period after the last command: that command has had its time.
                return Reason.HORIZON, f"{self._steps} steps were run"
            observed_s = time.perf_counter()
            found = self._observe()
            if isinstance(found, Problem):
                self._stale_ticks += 1
                stale_in_a_row += 1
                if stale_in_a_row == stale_ticks_to_end:
                    return _reason_of(found), found.message
                continue
            stale_in_a_row = 0
            try:
                samples = self._policy.infer(
                    Observation(found.values, self._task()), settings.num_samples
                )
            except Exception as error:
                return Reason.INFERENCE_FAILED, f"{type(error).__name__}: {error}"
            inferred_s = time.perf_counter()
            action = samples.action.astype(np.float64)
            if action.shape != low.shape or not np.isfinite(action).all():
                return (
                    Reason.BAD_ACTION,
                    f"found the action {action.tolist()}, expected {low.size} finite numbers",
                )
            action = np.minimum(np.maximum(action, low), high)
            if self._stop.event.is_set():
                break
            self._publish(action, found.stamp_ns)
            published_s = time.perf_counter()
            self._steps += 1
            inference_s.add(inferred_s - observed_s)
            self._on_step(
                Step(
                    index=self._steps,
                    action=action,
                    inference_s=inferred_s - observed_s,
                    observe_to_publish_s=published_s - observed_s,
                    observation_age_s=found.age_s,
                )
            )
        return self._stop.reason, self._stop.message


def _reason_of(problem: Problem) -> Reason:
    return Reason.STALE_CAMERA if problem.source == "camera" else Reason.STALE_STATE
