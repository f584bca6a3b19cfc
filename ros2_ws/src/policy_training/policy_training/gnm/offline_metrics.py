"""Accuracy of a navigation bundle on drives that it was not trained on.

    python -m policy_training.gnm.offline_metrics --bundle models/gnm_sim \\
        --dataset datasets/gnm_heldout --report runs/gnm/offline.json

Measured with the exported graphs, as the robot runs them: how well distances and waypoints agree
with those of the expert who knows the route, and whether place descriptors find the right place.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from policy_server.navigation_model import NavigationModel, load_navigation_model

from policy_training.gnm.drives import (
    NO_AUGMENTATION,
    BatchSizes,
    BatchSource,
    Drives,
    load_drives,
    same_place,
)
from policy_training.gnm.labels import MAX_DISTANCE_STEPS

RANKING_GAP_STEPS = 3.0
"""Two goals whose distances differ by more than this must be ordered right."""
DATABASE_STEP = 4
"""Every so many frames of the clean drives are in the database of places."""
TOP = 5
_SIZES = BatchSizes(observations=1, ahead=10, far=3, elsewhere=3, other_world=3, places=0)


def measure(
    model: NavigationModel, drives: Drives, observations: int, seed: int
) -> dict[str, dict[str, float]]:
    """Robot → figures; see `_figures` and `retrieval_recall`.

    Args:
        model: The network.
        drives: Frames of worlds that it has not seen.
        observations: Per robot.
        seed: Of the observations and goals.
    """
    source = BatchSource(drives, model.spec.context_size + 1, _SIZES, NO_AUGMENTATION, seed)
    rng = np.random.default_rng(seed)
    results = {}
    names = np.array(drives.robots)
    for robot in sorted(set(drives.robots)):
        rows = np.flatnonzero(names[drives.shard] == robot)
        pairs: dict[str, list[NDArray[Any]]] = {}
        for row in rng.choice(rows, observations):
            goals = source.goal_rows(int(row), rng)
            distance, waypoints = source.label_pairs(np.full(len(goals), row), goals)
            frames = drives.context_rows(np.array([row]), model.spec.context_size + 1)[0]
            code = model.observe([drives.image[frame] for frame in frames])
            match = model.match(code, drives.image[goals])
            found = np.concatenate([model.waypoints(match, k) for k in range(len(goals))])
            for key, value in (
                ("distance", distance),
                ("found_distance", match.distances),
                ("waypoints", waypoints),
                ("found_waypoints", found),
            ):
                pairs.setdefault(key, []).append(value)
        stacked = {key: np.stack(values) for key, values in pairs.items()}
        results[robot] = _figures(**stacked) | {
            "recall_at_5": retrieval_recall(model, drives, robot)
        }
    return results


def _figures(
    distance: NDArray[np.float32],
    found_distance: NDArray[np.float32],
    waypoints: NDArray[np.float32],
    found_waypoints: NDArray[np.float32],
) -> dict[str, float]:
    """Errors over (observations, goals).

    distance_mae: of goals nearer than the largest distance, in steps; near_distance_mae: of those
    within 10. ranking: share of goal pairs of one observation ordered right, of those that
    differ by more than 3 steps. rejection: share of (goal within 10, unrelated goal) pairs in which
    the unrelated one is judged further. waypoint_error: mean distance of waypoints in units of the
    spacing, goals within 10 steps. direction_error_deg: of the third waypoint, median.
    """
    found = np.clip(found_distance, 0.0, MAX_DISTANCE_STEPS)
    known = np.isfinite(distance)
    ahead = known & (distance < MAX_DISTANCE_STEPS)
    near: NDArray[np.bool_] = known & (distance < 10.0)
    error = np.abs(found - distance)
    ordered = distance[:, :, None] - distance[:, None, :] > RANKING_GAP_STEPS
    right = found_distance[:, :, None] > found_distance[:, None, :]
    far: NDArray[np.bool_] = known & (distance >= MAX_DISTANCE_STEPS)
    against = np.expand_dims(near, 1) & np.expand_dims(far, 2)
    has_path = np.isfinite(waypoints[..., 0, 0]) & near
    path, ours = waypoints[has_path][..., :2], found_waypoints[has_path][..., :2]
    offset = np.linalg.norm(path - ours, axis=-1)
    moving = np.linalg.norm(path[:, 2], axis=-1) > 1.0
    angle = np.arctan2(ours[:, 2, 1], ours[:, 2, 0]) - np.arctan2(path[:, 2, 1], path[:, 2, 0])
    angle = np.abs((angle + np.pi) % (2 * np.pi) - np.pi)[moving]
    return {
        "distance_mae": float(error[ahead].mean()),
        "near_distance_mae": float(error[near].mean()),
        "ranking": float(right[ordered].mean()),
        "rejection": float(right[against].mean()),
        "waypoint_error": float(offset.mean()),
        "direction_error_deg": float(np.degrees(np.median(angle))),
    }


def retrieval_recall(model: NavigationModel, drives: Drives, robot: str) -> float:
    """Share of frames of noisy drives whose place is among the 5 best of the robot's clean drives
    in the same world; NaN for a network without place descriptors."""
    if not model.spec.embedding_size:
        return float("nan")
    hits: list[bool] = []
    for shard, name in enumerate(drives.robots):
        if name != robot:
            continue
        rows = np.arange(drives.shard_rows[shard], drives.shard_rows[shard + 1])
        clean = drives.clean[drives.drive[rows]]
        database, queries = rows[clean][::DATABASE_STEP], rows[~clean][::DATABASE_STEP]
        if not len(database) or not len(queries):
            continue
        known = model.embed(drives.image[database])
        similarity = model.embed(drives.image[queries]) @ known.T
        best = database[np.argsort(-similarity, axis=1)[:, :TOP]]
        present = same_place(drives, queries[:, None], database[None]).any(axis=1)
        found = same_place(drives, queries[:, None], best).any(axis=1)
        hits += list(np.asarray(found)[np.asarray(present)])
    return float(np.mean(hits)) if hits else float("nan")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Accuracy of a navigation bundle on drives.")
    parser.add_argument("--bundle", required=True, type=Path)
    parser.add_argument("--dataset", required=True, type=Path, nargs="+", help="of `collect`")
    parser.add_argument("--observations", type=int, default=400, help="per robot")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    words = list(sys.argv[1:] if arguments is None else arguments)
    model = load_navigation_model(options.bundle)
    drives = load_drives(options.dataset)
    results = measure(model, drives, options.observations, options.seed)
    keys = list(next(iter(results.values())))
    print(f"{'robot':12} " + " ".join(f"{key:>19}" for key in keys))
    for robot, row in results.items():
        print(f"{robot:12} " + " ".join(f"{row[key]:19.3f}" for key in keys))
    if options.report:
        report = {
            "command": shlex.join(["python", "-m", "policy_training.gnm.offline_metrics", *words]),
            "bundle": model.spec.name,
            "fingerprint": model.spec.fingerprint,
            "data": drives.command,
            "worlds": int(drives.world.max() + 1),
            "robots": results,
        }
        options.report.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
