"""Collect demonstrations in simulation with several processes.

    python -m policy_training.collect --out datasets/kitchen --episodes-per-task 250 --seed 0

Episode i of a task uses seed `seed + i * tasks + task index`. The result does not depend on the
number of workers. Failed demonstrations are kept and marked; training leaves them out. One that
ends with an error is left out and told. A collection that ends early keeps what it has.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

from tqdm import tqdm

from policy_training.dataset import DatasetError, DatasetSpec, DatasetWriter

if TYPE_CHECKING:
    from robot_sim.demonstrator import Demonstration
    from robot_sim.environment import WidowXKitchenEnv

ROBOT = "wx250s"
EVALUATION_SEED = 1_000_000
"""Seeds from here on are kept for evaluation; no demonstration may use them."""
_IN_FLIGHT_PER_WORKER = 4
_FAILURES_IN_A_ROW = 3
"""So many demonstrations in a row that end with an error end the collection."""

_environment: WidowXKitchenEnv | None = None


def collect(
    out: str,
    tasks: Sequence[str],
    episodes_per_task: int,
    seed: int,
    workers: int,
    max_steps: int,
    command_line: str,
) -> dict[str, int]:
    """Write a dataset of demonstrations.

    Args:
        out: Directory to create.
        tasks: Task names of `robot_sim.tasks.TASKS`, or empty for all.
        episodes_per_task: Episodes of each task.
        seed: First scene seed.
        workers: Processes.
        max_steps: Longest episode in actions.
        command_line: Recorded in the dataset.

    Returns:
        Successful episodes by task.

    Raises:
        DatasetError: The seeds would reach those kept for evaluation, `out` is in use, or
            demonstrations fail one after another; `out` then has those before.
        KeyError: Unknown task.
    """
    from robot_sim.environment import OBSERVATION_SIZE
    from robot_sim.tasks import TASKS, find_task
    from widowx_control.bridge_spaces import (
        ACTION_HIGH,
        ACTION_LOW,
        ACTION_NAMES,
        CONTROL_PERIOD_S,
        STATE_NAMES,
    )

    names = tuple(find_task(name).name for name in tasks) or tuple(TASKS)
    last_seed = seed + episodes_per_task * len(names) - 1
    if not 0 <= seed <= last_seed < EVALUATION_SEED:
        raise DatasetError(
            f"found seeds {seed} … {last_seed}, expected them inside 0 … {EVALUATION_SEED - 1} "
            "(later ones are kept for evaluation)"
        )
    spec = DatasetSpec(
        robot=ROBOT,
        control_hz=1.0 / CONTROL_PERIOD_S,
        image_size=OBSERVATION_SIZE,
        action_names=tuple(ACTION_NAMES),
        action_low=tuple(float(value) for value in ACTION_LOW),
        action_high=tuple(float(value) for value in ACTION_HIGH),
        state_names=tuple(STATE_NAMES),
        task_names=names,
        instructions={name: TASKS[name].instruction for name in names},
        command_line=command_line,
    )
    jobs = [
        (name, seed + index * len(names) + position, max_steps)
        for index in range(episodes_per_task)
        for position, name in enumerate(names)
    ]
    with DatasetWriter(out, spec) as writer:
        bar = tqdm(_demonstrations(jobs, workers), total=len(jobs), unit="episode", mininterval=2.0)
        return write_demonstrations(writer, names, bar)


def write_demonstrations(
    writer: DatasetWriter,
    tasks: Sequence[str],
    demonstrations: Iterable[tuple[tuple[str, int, int], Future[Demonstration]]],
) -> dict[str, int]:
    """Write what was demonstrated; successful episodes by task.

    Args:
        writer: Takes the episodes.
        tasks: Task names.
        demonstrations: (task, seed, longest episode) and what became of it.

    Raises:
        DatasetError: `_FAILURES_IN_A_ROW` demonstrations failed one after another.
    """
    successes = dict.fromkeys(tasks, 0)
    failures = 0
    for (name, scene, _), future in demonstrations:
        try:
            result = future.result()
            writer.add_episode(
                result.images,
                result.states,
                result.actions,
                result.executed,
                name,
                scene,
                result.success,
            )
        except OSError:
            raise  # the disk: no later episode could be written either
        except Exception as error:  # whatever a simulation that went wrong raises
            failures += 1
            message = f"{name} with seed {scene} failed: {type(error).__name__}: {error}"
            if failures == _FAILURES_IN_A_ROW or isinstance(error, BrokenProcessPool):
                raise DatasetError(
                    f"{message}. It is one of {failures} in a row, so the collection ends; "
                    f"{writer.episode_count} episodes before are kept"
                ) from error
            tqdm.write(f"policy_training.collect: {message}; it is left out", file=sys.stderr)
        else:
            failures = 0
            successes[name] += int(result.success)
    return successes


def _demonstrations(
    jobs: Sequence[tuple[str, int, int]], workers: int
) -> Iterator[tuple[tuple[str, int, int], Future[Demonstration]]]:
    """Results in the order of the jobs, with a bounded number in memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        ahead = workers * _IN_FLIGHT_PER_WORKER
        pending = [pool.submit(_demonstrate, *job) for job in jobs[:ahead]]
        for index, job in enumerate(jobs):
            future = pending.pop(0)
            yield job, future
            if index + ahead < len(jobs):
                pending.append(pool.submit(_demonstrate, *jobs[index + ahead]))


def _demonstrate(task: str, seed: int, max_steps: int) -> Demonstration:
    from robot_sim.demonstrator import demonstrate
    from robot_sim.environment import WidowXKitchenEnv

    global _environment
    if _environment is None:
        _environment = WidowXKitchenEnv()
    return demonstrate(_environment, task, seed, max_steps)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Collect demonstrations in simulation.")
    parser.add_argument("--out", required=True, help="dataset directory to create")
    parser.add_argument("--episodes-per-task", type=int, default=250)
    parser.add_argument("--tasks", default="all", help="task names separated by commas, or all")
    parser.add_argument("--seed", type=int, default=0, help="first scene seed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--max-steps", type=int, default=50, help="longest episode in actions")
    options = parser.parse_args(arguments)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        successes = collect(
            options.out,
            [] if options.tasks == "all" else options.tasks.split(","),
            options.episodes_per_task,
            options.seed,
            options.workers,
            options.max_steps,
            shlex.join(["python", "-m", "policy_training.collect", *words]),
        )
    except (DatasetError, KeyError) as error:
        print(f"policy_training.collect: {error.args[0]}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"policy_training.collect: stopped; {options.out} has the episodes before")
        return 130
    for name, count in successes.items():
        print(f"{name:34s} {count}/{options.episodes_per_task}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
