"""The interface that every policy has: PTR, chunked, random, and wrappers and planners over them.

A wrapper (re-ranking by another value function) holds a policy, asks it for `num_samples` chunks
and returns an `ActionChunk` with scores and another `chosen`. A planner (subgoals) holds one and
passes it an `Observation` of another task. Neither needs more than what is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from node_common.strict_yaml import did_you_mean
from numpy.typing import NDArray

from policy_server.bundle import Bundle
from policy_server.deployment import (
    Deployment,
    EmbeddingObservation,
    GoalImageObservation,
    StateObservation,
    TaskObservation,
)
from policy_server.preprocessing import RESIZE_RULES
from policy_server.robots import RobotSpec


class TaskError(ValueError):
    """A task that the policy cannot do anything with."""


class UnknownTaskError(TaskError):
    """A task name that the policy does not know."""

    def __init__(self, task: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f'found the task "{task}", expected one of {list(known)}{did_you_mean(task, known)}'
        )


@dataclass(frozen=True, eq=False)
class Task:
    """What the policy is asked to do. Which of it a policy needs, its observations say.

    Attributes:
        name: one of the bundle's, or a label.
        instruction: in words.
        goal_image: uint8 (height, width, 3) RGB, of any size: what the camera shall see.
        embedding: float32 (D,): the instruction, encoded.
    """

    name: str = ""
    instruction: str = ""
    goal_image: NDArray[np.uint8] | None = None
    embedding: NDArray[np.float32] | None = None


NO_TASK = Task()


@dataclass(frozen=True)
class Observation:
    """What the policy sees at one tick.

    Attributes:
        values: name of the observation in the bundle → its value: for a camera uint8
            (height, width, 3) RGB in the network's size, for a state float32 (D,) in the order of
            the bundle's names; with a history, so many of them along a first axis, oldest first.
        task: what to do.
    """

    values: Mapping[str, NDArray[Any]]
    task: Task = NO_TASK


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
    """A policy that can be run at control rate.

    One that holds threads, files or devices may also have a method `close()`, which is called when
    it is not used any more.
    """

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
            observation: with a value for every camera and state of `spec`, and the task that
                its other observations need.
            num_samples: 1: the policy's best chunk. Above: so many samples of its distribution.

        Raises:
            TaskError: the task is not in `spec.tasks`, or lacks what the policy needs.
            InferenceError: a value is missing or has another shape or dtype, or a model failed.
        """


class ObservationBinder:
    """Turns an `Observation` into the tensors of a bundle's models, without copying images."""

    def __init__(self, bundle: Bundle) -> None:
        self._spec = bundle.deployment
        self._task: Task | None = None
        self._task_feed: dict[str, NDArray[Any]] = {}
        self._valued = [
            (observation.name, observation.tensors, len(observation.tensor[1]))
            for observation in self._spec.sensed
        ]

    def bind(self, observation: Observation) -> dict[str, NDArray[Any]]:
        """Return `node/input` → array with a leading axis for the history, or of 1.

        Raises:
            TaskError: the observation's task is not in the bundle, or lacks what the policy needs.
            ValueError: the observation lacks a value.
        """
        if observation.task is not self._task:
            self._task_feed = task_feed(self._spec, observation.task)
            self._task = observation.task
        feed = dict(self._task_feed)
        for name, tensors, axes in self._valued:
            if name not in observation.values:
                raise ValueError(
                    f"found the observations {sorted(observation.values)}, expected also {name}"
                )
            value = observation.values[name]
            for tensor in tensors:
                feed[tensor] = value if value.ndim == axes else value[None]
        return feed


def check_task(spec: Deployment, task: Task) -> None:
    """Refuse a task that a policy cannot run.

    Raises:
        TaskError: the task is not in the bundle, or lacks what the policy needs.
    """
    if spec.tasks and task.name not in spec.tasks:
        raise UnknownTaskError(task.name, tuple(spec.tasks))
    task_feed(spec, task)


def task_feed(spec: Deployment, task: Task) -> dict[str, NDArray[Any]]:
    """Return what of a policy's tensors comes from the task: `node/input` → array.

    Raises:
        TaskError: the task is not in the bundle, or lacks what the policy needs.
    """
    feed: dict[str, NDArray[Any]] = {}
    for observation in spec.observations:
        if isinstance(observation, TaskObservation):
            if task.name not in spec.tasks:
                raise UnknownTaskError(task.name, tuple(spec.tasks))
            value: NDArray[Any] = np.eye(observation.size, dtype=np.float32)
            value = value[spec.tasks[task.name]]
        elif isinstance(observation, GoalImageObservation):
            if task.goal_image is None:
                raise TaskError(
                    "found no goal image, expected one: the policy is told its goal by it"
                )
            value = RESIZE_RULES[observation.resize](task.goal_image, observation.size)
        elif isinstance(observation, EmbeddingObservation):
            size = 0 if task.embedding is None else task.embedding.size
            if task.embedding is None or size != observation.size:
                raise TaskError(
                    f"found an embedding of {size} numbers, expected {observation.size}: the "
                    f"instruction encoded by {observation.encoder}"
                )
            if not np.isfinite(task.embedding).all():
                raise TaskError("found an embedding that is not finite, expected finite numbers")
            value = task.embedding.astype(np.float32)
        else:
            continue
        feed |= dict.fromkeys(observation.tensors, value[None])
    return feed


def example_observation(spec: Deployment, robot: RobotSpec | None = None) -> Observation:
    """A well-formed observation for warming up: images of noise, the robot at its pose `start`.

    Nothing in it is special, as grey images (no contrast) and states of zero (no direction) are.

    Args:
        spec: of the policy.
        robot: None: any one; its end-effector states are small random numbers.
    """
    start = robot.start_state if robot else {}
    random = np.random.default_rng(0)

    def image(size: tuple[int, int], history: int = 1) -> NDArray[np.uint8]:
        shape = (size[1], size[0], 3) if history == 1 else (history, size[1], size[0], 3)
        return random.integers(0, 256, shape, np.uint8)

    def state(observation: StateObservation) -> NDArray[np.float32]:
        now = random.normal(scale=0.1, size=len(observation.names)).astype(np.float32)
        if observation.kind == "end_effector_state" and start:
            now = np.array([start[name] for name in observation.names], np.float32)
        return now if observation.history == 1 else np.tile(now, (observation.history, 1))

    values: dict[str, NDArray[Any]] = {
        camera.name: image(camera.size, camera.history) for camera in spec.cameras
    }
    values |= {observation.name: state(observation) for observation in spec.states}
    goal_image = embedding = None
    for observation in spec.observations:
        if isinstance(observation, GoalImageObservation):
            goal_image = image(observation.size)
        elif isinstance(observation, EmbeddingObservation):
            embedding = random.normal(size=observation.size).astype(np.float32)
    name = next(iter(spec.tasks), "")
    return Observation(values, Task(name, spec.instructions.get(name, ""), goal_image, embedding))
