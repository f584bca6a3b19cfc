"""The interface that every policy has: PTR, chunked, random, and wrappers and planners over them.

A wrapper (re-ranking by another value function) holds a policy, asks it for `num_samples` chunks
and returns an `ActionChunk` with scores and another `chosen`. A planner (subgoals) holds one and
passes it an `Observation` with one value more. Neither needs more than what is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from node_common.strict_yaml import did_you_mean
from numpy.typing import NDArray

from policy_server.bundle import Bundle
from policy_server.deployment import Deployment, TaskObservation
from policy_server.robots import ROBOTS


class UnknownTaskError(ValueError):
    """A task name that the policy does not know."""

    def __init__(self, task: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f'found the task "{task}", expected one of {list(known)}{did_you_mean(task, known)}'
        )


@dataclass(frozen=True)
class Observation:
    """What the policy sees at one tick.

    Attributes:
        values: name of the observation in the bundle → its value: for a camera uint8
            (height, width, 3) RGB in the network's size, for a state float32 (D,) in the order of
            the bundle's names.
        task: name of the task, None for a policy without tasks.
    """

    values: Mapping[str, NDArray[Any]]
    task: str | None = None


@dataclass(frozen=True)
class ActionChunk:
    """What the policy would do from one observation on.

    Attributes:
        actions: float32, shape (K, H, A): K samples of H steps, one control period apart, physical
            units, in the order of the bundle's names.
        chosen: index of the sample to execute.
        scores: float32, shape (K,), larger is better, or None when nothing scored them.
        stage_times_s: model → duration of its run in this call [s].
    """

    actions: NDArray[np.float32]
    chosen: int = 0
    scores: NDArray[np.float32] | None = None
    stage_times_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def steps(self) -> NDArray[np.float32]:
        """The steps to execute, shape (H, A)."""
        steps: NDArray[np.float32] = self.actions[self.chosen]
        return steps

    @property
    def action(self) -> NDArray[np.float32]:
        """The first step to execute, shape (A,)."""
        action: NDArray[np.float32] = self.steps[0]
        return action


@runtime_checkable
class Policy(Protocol):
    """A policy that can be run at control rate."""

    @property
    def spec(self) -> Deployment:
        """What the policy sees and commands, its rate and its tasks."""

    def reset(self, seed: int) -> None:
        """Forget the past; `seed` decides everything random until the next reset."""

    def infer(self, observation: Observation, num_samples: int = 1) -> ActionChunk:
        """Compute what to do from one observation on.

        How many of the steps are executed, and when the next call comes, is the episode's matter:
        calls come one at a time, not always from the same thread.

        Args:
            observation: with a value for every camera and state of `spec`.
            num_samples: 1: the policy's best chunk. Above: so many samples of its distribution.

        Raises:
            UnknownTaskError: the observation's task is not in `spec.tasks`.
            InferenceError: a value is missing or has another shape or dtype, or a model failed.
        """


class ObservationBinder:
    """Turns an `Observation` into the tensors of a bundle's models, without copying images."""

    def __init__(self, bundle: Bundle) -> None:
        spec = bundle.deployment
        self._tasks = tuple(spec.tasks)
        self._one_hot = np.eye(len(spec.tasks), dtype=np.float32)[:, None, :]
        self._ids = dict(spec.tasks)
        self._valued: list[tuple[str, tuple[str, ...]]] = []
        self._task_tensors: list[str] = []
        for observation in spec.observations:
            if isinstance(observation, TaskObservation):
                self._task_tensors += observation.tensors
            else:
                self._valued.append((observation.name, observation.tensors))

    def bind(self, observation: Observation) -> dict[str, NDArray[Any]]:
        """Return `node/input` → array with a leading batch axis of 1.

        Raises:
            UnknownTaskError: the policy has tasks and the observation names none of them.
            ValueError: the observation lacks a value.
        """
        feed = {}
        for name, tensors in self._valued:
            if name not in observation.values:
                raise ValueError(
                    f"found the observations {sorted(observation.values)}, expected also {name}"
                )
            batched = observation.values[name][None]
            for tensor in tensors:
                feed[tensor] = batched
        if self._task_tensors:
            if observation.task not in self._ids:
                raise UnknownTaskError(observation.task or "", self._tasks)
            row = self._one_hot[self._ids[observation.task]]
            for tensor in self._task_tensors:
                feed[tensor] = row
        return feed


def example_observation(spec: Deployment) -> Observation:
    """A well-formed observation for warming up: images of noise, the robot at its pose `start`.

    Nothing in it is special, as grey images (no contrast) and states of zero (no direction) are.
    """
    robot = ROBOTS.get(spec.robot)
    start = dict(zip(robot.state_names, robot.start_state, strict=True)) if robot else {}
    random = np.random.default_rng(0)
    values: dict[str, NDArray[Any]] = {
        camera.name: random.integers(0, 256, (camera.size[1], camera.size[0], 3), np.uint8)
        for camera in spec.cameras
    }
    values |= {
        state.name: np.array([start.get(name, 0.0) for name in state.names], np.float32)
        for state in spec.states
    }
    return Observation(values, next(iter(spec.tasks), None))
