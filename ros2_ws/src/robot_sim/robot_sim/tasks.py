"""The tasks of the kitchen: name, instruction in words, and success judged on physics state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np

from robot_sim.kitchen import Kitchen
from robot_sim.scene_layout import SceneLayout, sample_layout
from robot_sim.scene_model import (
    CONTAINER_RADIUS_M,
    CONTAINERS,
    OBJECT_HALF_HEIGHT_M,
    OBJECTS,
    REGION_HALF_SIZE_M,
)

HOLD_S = 0.6
"""How long success must hold before an episode counts as solved."""
RELEASED_FINGER_M = 0.024
"""Fingers at least this far from the centre line do not hold anything."""
DRAWER_OPEN_M = 0.060
DRAWER_SHUT_M = 0.012
_REST_HEIGHT_M = {"pot": 0.004, "plate": 0.006, "bowl": 0.006}
_REST_TOLERANCE_M = 0.014
_INSIDE_MARGIN_M = {"pot": 0.008, "plate": 0.012, "bowl": 0.012}
_REST_SPEED_M_S = 0.05


class TaskKind(Enum):
    """What has to be done."""

    PUT = "put"
    PUSH = "push"
    DRAWER = "drawer"


@dataclass(frozen=True)
class Task:
    """One task; `object` and `target` are names of bodies of the scene."""

    name: str
    instruction: str
    kind: TaskKind
    object: str
    target: str

    def layout(self, seed: int) -> SceneLayout:
        """A scene in which the task is not solved yet and can be solved."""
        drawer_open = None
        if self.kind is TaskKind.DRAWER:
            drawer_open = self.target == "shut"
        paths = ((self.object, self.target),) if self.kind is TaskKind.PUSH else ()
        return sample_layout(seed, drawer_open, paths)

    def succeeded(self, kitchen: Kitchen) -> bool:
        """Whether the goal holds now, from physics state alone."""
        if self.kind is TaskKind.DRAWER:
            opening = kitchen.drawer_opening_m
            return opening >= DRAWER_OPEN_M if self.target == "open" else opening <= DRAWER_SHUT_M
        if kitchen.finger_m < RELEASED_FINGER_M:
            return False
        if kitchen.object_speed_m_s(self.object) > _REST_SPEED_M_S:
            return False
        position = kitchen.position_m(self.object)
        offset = position[:2] - kitchen.position_m(self.target)[:2]
        height = float(position[2]) - OBJECT_HALF_HEIGHT_M[self.object]
        if self.kind is TaskKind.PUT:
            inside = CONTAINER_RADIUS_M[self.target] - _INSIDE_MARGIN_M[self.target]
            low = height <= _REST_HEIGHT_M[self.target] + _REST_TOLERANCE_M
            return low and float(np.hypot(*offset)) <= inside
        return height <= 0.006 and float(np.abs(offset).max()) <= REGION_HALF_SIZE_M - 0.012


_PREPOSITION = {"pot": "in", "plate": "on", "bowl": "in"}


def _words(name: str) -> str:
    return name.replace("_", " ")


def _all_tasks() -> Iterator[Task]:
    for container in CONTAINERS:
        for thing in OBJECTS:
            where = f"{_PREPOSITION[container]}_{container}"
            yield Task(
                f"put_{thing}_{where}",
                f"put the {_words(thing)} {_PREPOSITION[container]} the {container}",
                TaskKind.PUT,
                thing,
                container,
            )
    for thing, region in (("yellow_block", "stove"), ("red_cube", "sink")):
        name = f"push_{thing}_to_{region}"
        words = f"push the {_words(thing)} to the {region}"
        yield Task(name, words, TaskKind.PUSH, thing, region)
    yield Task("open_drawer", "open the drawer", TaskKind.DRAWER, "handle", "open")
    yield Task("close_drawer", "close the drawer", TaskKind.DRAWER, "handle", "shut")


TASKS: dict[str, Task] = {task.name: task for task in _all_tasks()}
"""Every task by name."""


def find_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        KeyError: no such task; the message lists the known ones.
    """
    if name not in TASKS:
        raise KeyError(f"found the task {name!r}; expected one of: {', '.join(TASKS)}")
    return TASKS[name]


class SuccessTimer:
    """For how long a task's goal has held without a break."""

    def __init__(self) -> None:
        """Start at zero."""
        self.held_s = 0.0
        self.success = False

    def reset(self) -> None:
        """Forget everything, for a new scene or task."""
        self.held_s, self.success = 0.0, False

    def update(self, succeeded: bool, dt_s: float) -> None:
        """Account for `dt_s` of time that ended in a state that is (not) a success."""
        self.held_s = self.held_s + dt_s if succeeded and self.success else 0.0
        self.success = succeeded
