"""Runs a policy on one observation at a time, while the robot waits or in the background."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from policy_server.policy import Observation, Policy

ResultT = TypeVar("ResultT")

_SHORT_S: Final = 0.02
"""A longer inference in real time would hold up what runs on the same core: also the thread of the
middleware that delivers the command before it, by as much as 65 ms."""


class InferenceFault(Exception):
    """A policy that failed, or an action that must not be sent; `code` names the `Reason`."""

    def __init__(self, code: Literal["INFERENCE_FAILED", "BAD_ACTION"], message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class InferredChunk:
    """What one inference returned.

    Attributes:
        steps: float64, shape (H, A), finite, within the bundle's bounds.
        stamp_ns: stamp of the observation [ns].
        begin: see `Inferences.begin`.
        duration_s: of the inference [s].
    """

    steps: NDArray[np.float64]
    stamp_ns: int
    begin: int
    duration_s: float


class CallingThread(Executor):
    """An executor that has done its work when `submit` returns."""

    def submit(self, fn: Callable[..., ResultT], /, *args: Any, **kwargs: Any) -> Future[ResultT]:
        """Call `fn` and return its result, or what it raised."""
        future: Future[ResultT] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _take_normal_priority() -> None:
    """A thread inherits the priority of the one that ticks, and would hold up all others."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def _normal_priority() -> Iterator[None]:
    """Run without the real-time priority that the calling thread has."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    _take_normal_priority()
    try:
        yield
    finally:
        with suppress(PermissionError):
            os.sched_setscheduler(0, policy, parameters)


class Inferences:
    """The inferences of one episode; a context manager, which waits at its end for the last one.

    Args:
        policy: what computes actions.
        num_samples: action chunks to draw per inference.
        in_background: whether `begin` returns at once; otherwise when the result is there.
    """

    def __init__(self, policy: Policy, num_samples: int, in_background: bool) -> None:
        self._policy = policy
        self._num_samples = num_samples
        self._executor: Executor = (
            ThreadPoolExecutor(1, "inference", _take_normal_priority)
            if in_background
            else CallingThread()
        )
        self._running: Future[InferredChunk] | None = None
        self._is_wanted = False
        self._duration_s = math.inf

    def __enter__(self) -> Inferences:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(wait=True)

    def begin(self, observation: Observation, stamp_ns: int, begin: int) -> None:
        """Run the policy, unless it still runs.

        Args:
            observation: what it sees.
            stamp_ns: stamp of the observation [ns].
            begin: how many steps were executed by then; handed on.
        """
        if self._running is None:
            self._is_wanted = True
            self._running = self._executor.submit(self._infer, observation, stamp_ns, begin)

    def collect(self) -> InferredChunk | None:
        """Return the result once, None when there is none yet, or nobody wants it any more.

        Raises:
            InferenceFault: the policy failed.
        """
        if self._running is None or not self._running.done():
            return None
        finished, self._running = self._running, None
        if not self._is_wanted:
            return None
        return finished.result()

    def discard(self) -> None:
        """Have the result of the inference that runs now forgotten."""
        self._is_wanted = False

    def _infer(self, observation: Observation, stamp_ns: int, begin: int) -> InferredChunk:
        began_s = time.perf_counter()
        try:
            with nullcontext() if self._duration_s < _SHORT_S else _normal_priority():
                chunk = self._policy.infer(observation, self._num_samples)
            steps = chunk.steps.astype(np.float64)
        except Exception as error:
            raise InferenceFault("INFERENCE_FAILED", f"{type(error).__name__}: {error}") from error
        self._duration_s = duration_s = time.perf_counter() - began_s
        action = self._policy.spec.action
        if steps.shape[1:] != action.low.shape or not len(steps) or not np.isfinite(steps).all():
            raise InferenceFault(
                "BAD_ACTION",
                f"found the action {steps.tolist()}, expected {action.low.size} finite numbers "
                "per step",
            )
        return InferredChunk(np.clip(steps, action.low, action.high), stamp_ns, begin, duration_s)
