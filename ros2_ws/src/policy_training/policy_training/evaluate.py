"""Closed-loop success of a policy in simulation, per task and with confidence intervals.

    python -m policy_training.evaluate --checkpoint runs/x/checkpoint-20000 --episodes 50
    python -m policy_training.evaluate --random --episodes 50

Scenes start at seed 1 000 000, which no demonstration may use.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from episode_tools.success_rate import wilson_interval
from numpy.typing import NDArray

from policy_training.checkpoint import CheckpointError, Policy, load_policy
from policy_training.collect import EVALUATION_SEED

ENVIRONMENT = "coxswain/WidowXKitchen-v0"
HORIZON = 40

Act = Callable[[NDArray[np.uint8], NDArray[np.float32], str], NDArray[np.float32]]


def run_episodes(
    act: Act, task: str, seeds: Sequence[int], horizon: int = HORIZON
) -> list[dict[str, Any]]:
    """Run episodes of one task in this process.

    Args:
        act: Policy: image uint8 (128, 128, 3), state float32 (7,), task → action float32 (7,).
        task: Task name.
        seeds: Scene seeds.
        horizon: Longest episode in actions.

    Returns:
        One record per episode: seed, success, steps.
    """
    from robot_sim.environment import WidowXKitchenEnv

    env = WidowXKitchenEnv(task=task)
    records = []
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        success = False
        steps = 0
        while steps < horizon and not success:
            action = act(observation["image"], observation["state"], task)
            observation, _, success, _, _ = env.step(action)
            steps += 1
        records.append({"seed": seed, "success": bool(success), "steps": steps})
    env.close()
    return records


def random_policy(seed: int) -> Act:
    """Uniform actions inside the action limits."""
    from widowx_control.bridge_spaces import ACTION_HIGH, ACTION_LOW

    rng = np.random.default_rng(seed)

    def act(image: NDArray[np.uint8], state: NDArray[np.float32], task: str) -> NDArray[np.float32]:
        return rng.uniform(ACTION_LOW, ACTION_HIGH).astype(np.float32)

    return act


def evaluate_in_process(policy: Policy, episodes: int) -> dict[str, Any]:
    """Evaluate a policy in memory on all its tasks; see `summarise` for the result."""
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + episodes)
    return summarise(
        {task: run_episodes(policy.act, task, seeds) for task in policy.spec.task_names}
    )


def evaluate(
    checkpoint: Path | None, tasks: Sequence[str], episodes: int, seed: int, workers: int
) -> dict[str, Any]:
    """Evaluate a checkpoint, or random actions when there is none, with several processes.

    Args:
        checkpoint: Checkpoint directory or None.
        tasks: Task names.
        episodes: Episodes per task.
        seed: First scene seed, at least 1 000 000.
        workers: Processes.

    Returns:
        See `summarise`.
    """
    seeds = list(range(seed, seed + episodes))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        pending = {task: pool.submit(_evaluate_task, checkpoint, task, seeds) for task in tasks}
        records = {}
        for task, future in pending.items():
            records[task] = future.result()
            successes = sum(record["success"] for record in records[task])
            print(f"{task:34s} {successes:3d}/{episodes}", file=sys.stderr, flush=True)
    return summarise(records)


def summarise(records: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Success rates with 95 % Wilson intervals.

    Args:
        records: Task → records of `run_episodes`.

    Returns:
        `success_rate` (mean over tasks), `interval_95` (of all episodes pooled), `episodes` per
        task, `environment`, and per task `success_rate`, `interval_95`, `mean_steps`, `failed`
        (seeds).
    """
    rows: dict[str, Any] = {}
    for task, episodes in records.items():
        wins = [record for record in episodes if record["success"]]
        rows[task] = {
            "successes": len(wins),
            "episodes": len(episodes),
            "success_rate": len(wins) / len(episodes),
            "interval_95": list(wilson_interval(len(wins), len(episodes))),
            "mean_steps": float(np.mean([r["steps"] for r in wins])) if wins else None,
            "failed": [record["seed"] for record in episodes if not record["success"]],
        }
    successes = sum(row["successes"] for row in rows.values())
    trials = sum(row["episodes"] for row in rows.values())
    return {
        "environment": ENVIRONMENT,
        "success_rate": float(np.mean([row["success_rate"] for row in rows.values()])),
        "interval_95": list(wilson_interval(successes, trials)),
        "episodes": max(row["episodes"] for row in rows.values()),
        "tasks": rows,
    }


def _evaluate_task(
    checkpoint: Path | None, task: str, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    act = random_policy(seeds[0]) if checkpoint is None else load_policy(checkpoint).act
    return run_episodes(act, task, seeds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Closed-loop success of a policy in simulation.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", help="checkpoint directory")
    source.add_argument("--random", action="store_true", help="uniform random actions")
    parser.add_argument("--tasks", default="all", help="task names separated by commas, or all")
    parser.add_argument("--episodes", type=int, default=50, help="episodes per task")
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED, help="first scene seed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", help="JSON file to write")
    options = parser.parse_args(arguments)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if options.seed < EVALUATION_SEED:
        parser.error(f"found --seed {options.seed}, expected at least {EVALUATION_SEED}")
    if options.episodes < 1:
        parser.error(f"found --episodes {options.episodes}, expected at least 1")
    try:
        tasks = _tasks(options.tasks, options.checkpoint)
        report = evaluate(
            Path(options.checkpoint) if options.checkpoint else None,
            tasks,
            options.episodes,
            options.seed,
            options.workers,
        )
    except (CheckpointError, KeyError) as error:
        print(f"policy_training.evaluate: {error.args[0]}", file=sys.stderr)
        return 1
    report["command"] = shlex.join(["python", "-m", "policy_training.evaluate", *words])
    if options.report:
        Path(options.report).write_text(json.dumps(report, indent=1) + "\n")
    low, high = report["interval_95"]
    print(f"success {report['success_rate']:.3f}, 95 % interval {low:.3f} … {high:.3f}")
    return 0


def _tasks(names: str, checkpoint: str | None) -> list[str]:
    from robot_sim.tasks import TASKS

    known = load_policy(checkpoint).spec.task_names if checkpoint else tuple(TASKS)
    if names == "all":
        return list(known)
    chosen = names.split(",")
    for name in chosen:
        if name not in known:
            raise KeyError(f"found task {name!r}, expected one of {', '.join(known)}")
    return chosen


if __name__ == "__main__":
    raise SystemExit(main())
