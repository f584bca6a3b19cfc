"""Judges an episode from a simulator's task status."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TaskObservation:
    """What a simulator says about the current task at one instant.

    Attributes:
        time_s: stamp of the judgement, on the simulator's clock [s].
        task: task name.
        seed: scene seed.
        scene: number of scenes set up before and including this one.
        success: the success condition holds now.
        success_s: for how long it has held without a break [s].
    """

    time_s: float
    task: str
    seed: int
    scene: int
    success: bool
    success_s: float


class SuccessJudge:
    """Success of one episode: the condition held for `hold_s` without a break, and still holds.

    Observations of another task, seed or earlier scene are ignored, so a late message about the
    episode before cannot be taken for a success of this one.
    """

    def __init__(self, task: str, seed: int, after_scene: int, hold_s: float) -> None:
        """
        Args:
            task: task name.
            seed: scene seed.
            after_scene: `TaskObservation.scene` of the scene before this episode's.
            hold_s: how long the condition must hold [s].
        """
        self._task = task
        self._seed = seed
        self._after_scene = after_scene
        self._hold_s = hold_s
        self._first: TaskObservation | None = None
        self._last: TaskObservation | None = None
        self._sustained_since_s: float | None = None
        self._end_s = math.inf

    def end(self, time_s: float) -> None:
        """Ignore what comes after the first observation at or behind `time_s` [s]."""
        self._end_s = time_s

    @property
    def ended(self) -> bool:
        """The scene was observed until the time given to `end`."""
        return self._last is not None and self._last.time_s >= self._end_s

    def update(self, observation: TaskObservation) -> None:
        """Take one observation into account."""
        if (
            observation.task != self._task
            or observation.seed != self._seed
            or observation.scene <= self._after_scene
            or self.ended
        ):
            return
        self._first = self._first or observation
        self._last = observation
        if (
            self._sustained_since_s is None
            and observation.success
            and observation.success_s >= self._hold_s
        ):
            self._sustained_since_s = observation.time_s - observation.success_s

    @property
    def last_time_s(self) -> float | None:
        """Stamp of the last observation that counted [s]; None before the first."""
        return self._last.time_s if self._last else None

    @property
    def scene_age_s(self) -> float:
        """Time from the first observation that counted to the last [s]; -1 before the first."""
        if self._first is None or self._last is None:
            return -1.0
        return self._last.time_s - self._first.time_s

    @property
    def sustained(self) -> bool:
        """The condition has held for `hold_s` without a break at some time."""
        return self._sustained_since_s is not None

    @property
    def sustained_since_s(self) -> float | None:
        """Stamp at which the first sustained success began [s]."""
        return self._sustained_since_s

    @property
    def success(self) -> bool:
        """The verdict as of now: sustained once, and holding at the last observation."""
        return self.sustained and self._last is not None and self._last.success
