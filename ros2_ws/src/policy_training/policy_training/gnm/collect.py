"""Drives through procedural worlds as training data: ``python -m policy_training.gnm.collect``.

Writes one safetensors shard per world and robot, and `dataset.json`, which is renewed after every
world, so that a reader can start before the collection ends. See `README.md` of the package.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCHEMA_VERSION = 1
TRAINING_ROBOTS = ("locobot", "turtlebot4", "jackal", "rc_car")
IMAGE_SIZE = (85, 64)
"""Width and height."""
RENDER_SIZE = (160, 120)
RATE_HZ = 4.0
_ROUTE_RADIUS_M = 0.33


def world_kind(seed: int) -> str:
    """Three indoor worlds for every two outdoor ones."""
    return "outdoor" if seed % 5 in (1, 3) else "indoor"


def _collect_world(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Drive all robots through one world; writes their shards and returns their descriptions."""
    from base_drivers.robot_config import load_robot
    from policy_server.preprocessing import crop_bicubic
    from policy_server.safetensors_file import write_safetensors
    from robot_sim.navigation import BaseSimulation, make_world
    from robot_sim.navigation.driving import drive
    from robot_sim.navigation.route import NoRoute, sample_route

    world = make_world(job["kind"], job["seed"])
    routes = []
    for k in range(job["pool"]):
        try:
            routes.append(sample_route(world, k, 7.0, job["max_length_m"], _ROUTE_RADIUS_M)[2])
        except NoRoute:
            continue
    if not routes:
        return []
    described = []
    for number, name in enumerate(job["robots"]):
        robot = load_robot(name)
        rng = np.random.default_rng([job["seed"], number])
        chosen = rng.permutation(len(routes))[: job["routes"]]
        columns: dict[str, list[NDArray[Any]]] = {
            key: [] for key in ("image", "pose", "action", "arc_m", "route", "drive", "step")
        }
        drives: list[dict[str, Any]] = []
        with BaseSimulation(world, robot, job["seed"], RENDER_SIZE) as simulation:
            for index, choice in enumerate(chosen):
                for repeat in range(job["drives"]):
                    seed = int(rng.integers(2**31))
                    # The first drive of a route is nearly clean, as when somebody shows the way.
                    noise = 0.3 if repeat == 0 else 1.0
                    result = drive(world, robot, routes[choice], seed, noise, simulation)
                    n = len(result.poses)
                    images = [crop_bicubic(image, IMAGE_SIZE) for image in result.images]
                    columns["image"].append(np.stack(images))
                    columns["pose"].append(result.poses.astype(np.float32))
                    columns["action"].append(result.actions.astype(np.float32))
                    columns["arc_m"].append(result.arcs_m.astype(np.float32))
                    columns["route"].append(np.full(n, index, np.int32))
                    columns["drive"].append(np.full(n, len(drives), np.int32))
                    columns["step"].append(np.arange(n, dtype=np.int32))
                    drives.append(
                        {
                            "route": index,
                            "seed": seed,
                            "noise": noise,
                            "length": n,
                            "finished": result.finished,
                            "collisions": result.collisions,
                        }
                    )
        lines = [routes[choice].points_m for choice in chosen]
        tensors = {key: np.concatenate(values) for key, values in columns.items()}
        tensors["route_points_m"] = np.concatenate(lines).astype(np.float32)
        tensors["route_offsets"] = np.cumsum([0, *map(len, lines)]).astype(np.int64)
        file = f"{job['kind']}-{job['seed']:05d}-{name}.safetensors"
        path = Path(job["out"]) / file
        part = path.with_suffix(".part")
        write_safetensors(part, tensors)
        digest = hashlib.sha256(part.read_bytes()).hexdigest()
        part.rename(path)
        described.append(
            {
                "file": file,
                "sha256": digest,
                "world": {"kind": job["kind"], "seed": job["seed"]},
                "robot": name,
                "spacing_m": robot.waypoint_spacing_m,
                "max_turn_rad": robot.max_angular_rad_s / RATE_HZ,
                "turns_on_the_spot": robot.kinematics != "ackermann",
                "frames": len(tensors["pose"]),
                "routes": [{"length_m": routes[choice].length_m} for choice in chosen],
                "drives": drives,
            }
        )
    return described


def _write_index(path: Path, index: dict[str, Any]) -> None:
    part = path / "dataset.json.part"
    part.write_text(json.dumps(index, indent=1) + "\n")
    part.rename(path / "dataset.json")


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    from robot_sim.navigation import FIRST_TEST_SEED
    from robot_sim.navigation.route import STEP_M

    parser = argparse.ArgumentParser(prog="policy_training.gnm.collect", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--worlds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first world")
    parser.add_argument("--robots", nargs="+", default=list(TRAINING_ROBOTS))
    parser.add_argument("--routes", type=int, default=3, help="routes per world and robot")
    parser.add_argument("--drives", type=int, default=2, help="drives per route")
    parser.add_argument("--max-length-m", type=float, default=16.0, help="of a route")
    parser.add_argument("--resume", action="store_true", help="add the worlds that are missing")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    options = parser.parse_args(arguments)
    if min(options.worlds, options.routes, options.drives, options.workers) < 1:
        parser.error("expected --worlds, --routes, --drives and --workers of at least 1")
    if options.seed < 0 or options.seed + options.worlds > FIRST_TEST_SEED:
        parser.error(
            f"expected world seeds of 0 .. {FIRST_TEST_SEED - 1}: the others are for tests"
        )
    index: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "image_size": list(IMAGE_SIZE),
        "rate_hz": RATE_HZ,
        "route_step_m": STEP_M,
        "command": " ".join(
            ["python -m policy_training.gnm.collect", *(arguments or sys.argv[1:])]
        ),
        "complete": False,
        "shards": [],
    }
    if (options.out / "dataset.json").exists():
        if not options.resume:
            parser.error(
                f"{options.out} holds a dataset already; expected a new directory, or --resume"
            )
        index = json.loads((options.out / "dataset.json").read_text())
        if index["schema_version"] != SCHEMA_VERSION:
            parser.error(f"{options.out} is of schema version {index['schema_version']}")
    options.out.mkdir(parents=True, exist_ok=True)
    present = {shard["world"]["seed"] for shard in index["shards"]}
    # One software renderer per process: its own threads only get into each other's way.
    os.environ["LP_NUM_THREADS"] = "1"
    jobs = [
        {
            "kind": world_kind(seed),
            "seed": seed,
            "pool": 2 * options.routes,
            "routes": options.routes,
            "drives": options.drives,
            "robots": options.robots,
            "max_length_m": options.max_length_m,
            "out": str(options.out),
        }
        for seed in range(options.seed, options.seed + options.worlds)
        if seed not in present
    ]
    # An interrupted collection must not leave its workers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    start, frames = time.monotonic(), sum(shard["frames"] for shard in index["shards"])
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for done, shards in enumerate(pool.imap_unordered(_collect_world, jobs), start=1):
            index["shards"] += shards
            frames += sum(shard["frames"] for shard in shards)
            index["shards"].sort(key=lambda shard: shard["file"])
            index["complete"] = done == len(jobs)
            _write_index(options.out, index)
            bumps = sum(d["collisions"] for s in index["shards"] for d in s["drives"])
            print(
                f"{done}/{len(jobs)} worlds, {frames} frames, {bumps} collisions, "
                f"{time.monotonic() - start:.0f} s",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
