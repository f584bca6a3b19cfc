"""Which episodes are run: tasks, their order, and the seed of each scene."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

EVALUATION_SEED_START = 1_000_000
"""First scene seed of an evaluation. Demonstrations and training use seeds below it only, so no
evaluation scene was ever seen in training."""

TRIALS_PER_SEED = 1_000_000
"""Scene seeds that one evaluation seed owns; two evaluation seeds never share a scene."""

MAX_EVALUATION_SEED = 999
"""Largest evaluation seed: keeps every scene seed below 2**31."""

ALL_TASKS = "all"


class PlanError(ValueError):
    """The requested episodes cannot be run; the message says why and what would work."""


@dataclass(frozen=True)
class PlannedEpisode:
    """One episode to run.

    Attributes:
        task: task name.
        trial: how many episodes of the same task come before it.
        seed: scene seed, at least `EVALUATION_SEED_START`.
    """

    task: str
    trial: int
    seed: int


def evaluation_seed(seed: int, trial: int) -> int:
    """Scene seed of a trial.

    It does not depend on the task, so tasks and policies are compared on the same sequence of
    seeds.

    Args:
        seed: evaluation seed, 0..`MAX_EVALUATION_SEED`.
        trial: 0..`TRIALS_PER_SEED` - 1.

    Raises:
        PlanError: an argument is out of range.
    """
    if not 0 <= seed <= MAX_EVALUATION_SEED:
        raise PlanError(f"seed is {seed}; it must be in 0..{MAX_EVALUATION_SEED}")
    if not 0 <= trial < TRIALS_PER_SEED:
        raise PlanError(f"trial is {trial}; it must be in 0..{TRIALS_PER_SEED - 1}")
    return EVALUATION_SEED_START + seed * TRIALS_PER_SEED + trial


def unknown_name_message(kind: str, name: str, known: Sequence[str]) -> str:
    """Say that `name` is not a known `kind`, name the nearest known one, and list all of them."""
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return f"unknown {kind} '{name}'.{hint} Known: {', '.join(known) or 'none'}"


def runnable_tasks(policy: Sequence[str], scene: Sequence[str] | None) -> list[str] | None:
    """The tasks that can be run, in the order in which `all` runs them; None: any label.

    Args:
        policy: tasks that the policy knows; none for a policy that was made for one task only,
            which is run whatever the task is called.
        scene: tasks that the simulator can set up; None on a real arm.
    """
    if scene is None:
        return list(policy) or None
    return [task for task in scene if not policy or task in policy]


def select_tasks(request: str, known: Sequence[str] | None) -> list[str]:
    """Read a task request.

    Args:
        request: one task name, several separated by commas, or `all`.
        known: from `runnable_tasks`.

    Returns:
        the names, in the order asked for.

    Raises:
        PlanError: empty request, unknown or repeated name, or no task can be run.
    """
    names = [name.strip() for name in request.split(",")]
    if names == [ALL_TASKS] and known is not None:
        if not known:
            raise PlanError("no task can be run: the policy and the simulator have none in common")
        return list(known)
    for name in names:
        if not name:
            raise PlanError(
                f"task is '{request}'; expected a task name, several separated by commas, or "
                f"'{ALL_TASKS}'. Known: {', '.join(known or ['any label'])}"
            )
        if known is not None and name not in known:
            raise PlanError(unknown_name_message("task", name, known))
        if names.count(name) > 1:
            raise PlanError(f"task '{name}' is listed twice")
    return names


def plan_episodes(tasks: Sequence[str], episodes: int, seed: int) -> list[PlannedEpisode]:
    """Deal `episodes` episodes to the tasks in turn.

    Args:
        tasks: task names, at least one.
        episodes: how many episodes in all, at least 1.
        seed: evaluation seed, see `evaluation_seed`.

    Raises:
        PlanError: an argument is out of range.
    """
    if not tasks:
        raise PlanError("no task was given")
    if episodes < 1:
        raise PlanError(f"episodes is {episodes}; it must be at least 1")
    planned = []
    for index in range(episodes):
        trial, task = divmod(index, len(tasks))
        planned.append(PlannedEpisode(tasks[task], trial, evaluation_seed(seed, trial)))
    return planned
