"""One tick of navigation: ours against the original method, same weights; and by size of the map.

    ./run python bench/gnm_tick.py

The network has the published layout and random weights (its outputs depend on its inputs; no
published weights are needed to measure time). Both methods see the same 160x120 camera images:

original: what the published deployment does at each tick: every candidate's context and goal image
is resized again, the batch of stacked inputs goes through torch with gradients recorded, the
nearest candidate gives the waypoint.

ours: the navigation core from the camera image on: resize the one new image, encode it once,
localise over as many candidates, plan, choose the subgoal, take its waypoints. With the navigator's
default, `provider:=fastest`, which on CPUs with bfloat16 instructions computes in bfloat16 and
rounds to three digits; and with `provider:=cpu`, ONNX Runtime in single precision.

Each runs in a process of its own, in alternating rounds: idle threads of one library disturb the
other. All of them get as many threads as the machine has cores, and then a single one, which is
what the navigator takes by default. The sizes of the map are measured with the shipped network.
Prints a table and, as its last line, `name=value` pairs; writes `gnm_tick.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from result_files import add_results_option, write_result

ROOT = Path(__file__).resolve().parents[1]
CAMERA = (120, 160, 3)
CONTEXT_FRAMES = 6
PERIOD_S = 0.25
EDGE_STEPS = 3.0
SPACING_M = 0.1
UNIQUE_IMAGES = 512
WARM_UP = 5


def camera_images(count: int, seed: int) -> NDArray[np.uint8]:
    """Smooth random camera images (count, 120, 160, 3)."""
    import cv2

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 8, 10, 3), np.uint8)
    size = (CAMERA[1], CAMERA[0])
    return np.stack([cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) for image in coarse])


def make_network(path: Path) -> None:
    """Write a GNM of the published layout: `weights.pt` for torch and a bundle `gnm_full`."""
    import torch
    from policy_training.gnm.export import export_gnm
    from policy_training.gnm.networks import Gnm, normalise, stack_frames

    torch.manual_seed(0)
    network = Gnm()
    images = torch.from_numpy(
        np.stack([_fit(image) for image in camera_images(32 * (CONTEXT_FRAMES + 1), 1)])
    ).unflatten(0, (32, CONTEXT_FRAMES + 1))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        network.train()
        observation = stack_frames(normalise(images[:, :-1]))
        network(observation, normalise(images[:, -1]))
        network.eval()
        distance, _ = network(observation, normalise(images[:, -1]))
        head = network.dist_predictor[0]
        assert isinstance(head, torch.nn.Linear)
        # So that distances are plausible and differ: the localiser must not think it is lost.
        scale = 0.5 / distance.std()
        head.bias.copy_((head.bias - distance.mean()) * scale + 2.0)
        head.weight.mul_(scale)
    torch.save(network.state_dict(), path / "weights.pt")
    export_gnm(network, str(path / "gnm_full"), {"algorithm": "untrained"})


def _fit(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from policy_server.preprocessing import crop_bicubic

    return crop_bicubic(image, (85, 64))


def run_original(weights: Path, candidates: int, ticks: int, threads: int) -> dict[str, Any]:
    """The published method; see the module's description."""
    import PIL.Image
    import torch
    from policy_training.gnm.networks import IMAGE_MEAN, IMAGE_STD, Gnm
    from torch import Tensor

    torch.set_num_threads(threads)
    network = Gnm()
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.eval()
    mean = torch.tensor(IMAGE_MEAN)[:, None, None]
    std = torch.tensor(IMAGE_STD)[:, None, None]
    frames = [PIL.Image.fromarray(image) for image in camera_images(CONTEXT_FRAMES, 2)]
    goals = [PIL.Image.fromarray(image) for image in camera_images(candidates, 3)]

    def prepared(images: list[PIL.Image.Image]) -> Tensor:
        tensors = []
        for image in images:
            array = np.array(image.resize((85, 64)))
            scaled = torch.from_numpy(array).permute(2, 0, 1).contiguous().float() / 255.0
            tensors.append((scaled - mean) / std)
        return torch.cat(tensors)[None]

    def tick() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        pairs = [(prepared(frames), prepared([goal])) for goal in goals]
        observation = torch.cat([pair[0] for pair in pairs])
        goal = torch.cat([pair[1] for pair in pairs])
        # The layers as published: both encoders on the whole stacked batch, no shared first layer.
        encoding = network.encode_observation(observation)
        stacked = torch.cat([observation, goal], dim=1)
        features = network.goal_mobilenet(stacked).mean((2, 3))
        trunk = network.linear_layers(torch.cat([encoding, network.compress_goal(features)], 1))
        distance = network.dist_predictor(trunk).detach().numpy()[:, 0]
        waypoints = network.waypoints_from(network.action_predictor(trunk)).detach().numpy()
        return distance, waypoints[int(np.argmin(distance))]

    distances = tick()[0]
    return {**_timed(lambda _: tick(), ticks), "distances": distances.tolist()}


def run_ours(
    bundle: Path,
    candidates: int,
    ticks: int,
    threads: int,
    nodes: int,
    check: bool,
    provider: str,
) -> dict[str, Any]:
    """The navigation core on a map of `nodes` nodes; see the module's description."""
    from gnm_nav.localiser import LocaliserConfig
    from gnm_nav.navigation import NavigationConfig, NavigationCore
    from policy_server.navigation_model import load_navigation_model

    process = psutil.Process()
    model = load_navigation_model(bundle, threads, provider)
    frames = camera_images(CONTEXT_FRAMES, 2)
    distances: list[float] = []
    if check:
        code = model.observe([model.preprocess(frame) for frame in frames])
        goals = np.stack([model.preprocess(image) for image in camera_images(candidates, 3)])
        distances = model.match(code, goals).distances.tolist()
    with tempfile.TemporaryDirectory() as folder:
        before = process.memory_info().rss
        topological_map = _chain_map(model, nodes, Path(folder))
        config = NavigationConfig(
            no_progress_s=600.0,
            stuck_change=0.0,
            lost_timeout_s=600.0,
            # Random weights would lose themselves at times; that tick is measured by itself.
            localiser=LocaliserConfig(window=candidates, lost_ticks=1000),
        )
        core = NavigationCore(model, topological_map, SPACING_M, config)
        core.forget_place(nodes // 2)
        core.set_goal_node("last")
        images = camera_images(16, 4)
        compared: list[int] = []

        def tick(index: int) -> None:
            now_s = index * PERIOD_S
            core.push_frame(images[index % len(images)], now_s)
            decision = core.tick(now_s)
            if decision.localisation is not None:
                compared.append(len(decision.localisation.candidates))

        for index in range(CONTEXT_FRAMES + WARM_UP):
            tick(index)
        memory = process.memory_info().rss - before
        mapped = sum(item.rss for item in process.memory_maps() if item.path.startswith(folder))
        compared.clear()
        start = CONTEXT_FRAMES + WARM_UP
        result = _timed(lambda index: tick(start + index), ticks)
        result["candidates"] = statistics.median(compared)
        offset = start + ticks + 2 * WARM_UP

        def lost_tick(index: int) -> None:
            core.forget_place()
            tick(offset + index)

        lost = _timed(lost_tick, max(10, ticks // 5))
        embeddings = topological_map.embeddings
        assert embeddings is not None
        return {
            **result,
            "lost_wall_ms": lost["wall_ms"],
            "distances": distances,
            "nodes": nodes,
            "memory_bytes_per_node": (memory - mapped) / nodes,
            "disk_bytes_per_node": (topological_map.images.nbytes + embeddings.nbytes) / nodes,
        }


def _chain_map(model: Any, nodes: int, folder: Path) -> Any:
    """A map of one long drive with side edges, its images mapped from a file."""
    from gnm_nav.topological_map import EdgeKind, MapModel, TopologicalMap, edge_array

    unique = np.stack([model.preprocess(image) for image in camera_images(UNIQUE_IMAGES, 5)])
    shape = (nodes, *unique.shape[1:])
    file = folder / "images.npy"
    stored = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    for start in range(0, nodes, UNIQUE_IMAGES):
        stored[start : start + UNIQUE_IMAGES] = unique[: nodes - start]
    stored.flush()
    del stored
    vectors = np.tile(model.embed(unique), (-(-nodes // UNIQUE_IMAGES), 1))[:nodes]
    edges = [(node, node + 1, EDGE_STEPS, int(EdgeKind.CHAIN)) for node in range(nodes - 1)]
    edges += [(node, node + 7, 9 * EDGE_STEPS, int(EdgeKind.CLOSURE)) for node in range(nodes - 7)]
    edges += [(node + 3, node, 2 * EDGE_STEPS, int(EdgeKind.CLOSURE)) for node in range(nodes - 3)]
    poses = np.zeros((nodes, 3))
    poses[:, 0] = SPACING_M * EDGE_STEPS * np.arange(nodes)
    return TopologicalMap(
        MapModel.of(model.spec), np.load(file, mmap_mode="r"), edge_array(edges), vectors, poses
    )


def _timed(call: Any, ticks: int) -> dict[str, float]:
    """Median wall and CPU time of calls, and the 90th percentile of the wall time [ms]."""
    for index in range(-WARM_UP, 0):
        call(WARM_UP + index)
    wall, cpu = [], []
    for index in range(ticks):
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        call(WARM_UP + index)
        wall.append((time.perf_counter() - wall_s) * 1e3)
        cpu.append((time.process_time() - cpu_s) * 1e3)
    return {
        "wall_ms": float(np.median(wall)),
        "wall_p90_ms": float(np.percentile(wall, 90)),
        "cpu_ms": float(np.median(cpu)),
    }


def _child(*arguments: str) -> dict[str, Any]:
    """Run this file in another process and return what it printed."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _best(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The round that other programs disturbed least."""
    return min(rounds, key=lambda item: item["wall_ms"])


def _difference(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> float:
    """Largest difference of the distances that two methods find [steps]."""
    return float(np.abs(np.subtract(a[0]["distances"], b[0]["distances"])).max())


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--ticks", type=int, default=60, help="per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 1000, 10_000, 100_000])
    parser.add_argument("--bundle", type=Path, default=ROOT / "models" / "gnm_sim")
    parser.add_argument("--role", choices=["network", "original", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--provider", default="fastest", help=argparse.SUPPRESS)
    add_results_option(parser)
    options = parser.parse_args()
    measured = (options.candidates, options.ticks, options.threads)
    if options.role == "network":
        make_network(options.path)
        print("{}")
        return 0
    if options.role == "original":
        print(json.dumps(run_original(options.path / "weights.pt", *measured)))
        return 0
    if options.role == "ours":
        found = run_ours(options.path, *measured, options.nodes[0], options.check, options.provider)
        print(json.dumps(found))
        return 0
    shared = ["--candidates", str(options.candidates), "--ticks", str(options.ticks)]
    threads = {"": str(options.threads), "_one_thread": "1"}
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    sizes: dict[int, list[dict[str, Any]]] = {nodes: [] for nodes in options.nodes}
    with tempfile.TemporaryDirectory() as scratch:
        _child("--role", "network", "--path", scratch)
        ours = ("--role", "ours", "--path", f"{scratch}/gnm_full", "--nodes", "100", "--check")
        for _ in range(options.rounds):
            for suffix, count in threads.items():
                counted = [*shared, "--threads", count]
                runs["original" + suffix].append(
                    _child("--role", "original", "--path", scratch, *counted)
                )
                runs["ours" + suffix].append(_child(*ours, *counted))
                runs["ours_float32" + suffix].append(_child(*ours, "--provider", "cpu", *counted))
            for nodes in options.nodes:
                arguments = ["--role", "ours", "--path", str(options.bundle), *shared]
                arguments += ["--threads", threads[""], "--nodes", str(nodes)]
                sizes[nodes].append(_child(*arguments))
    difference = _difference(runs["original"], runs["ours_float32"])
    best = {name: _best(rounds) for name, rounds in runs.items()}
    ratios = {
        f"ratio{kind}{suffix}": best["original" + suffix]["wall_ms"]
        / best[f"ours{kind}{suffix}"]["wall_ms"]
        for kind in ("", "_float32")
        for suffix in threads
    }
    best_sizes = {nodes: _best(rounds) for nodes, rounds in sizes.items()}
    cpu_ratio = best["original"]["cpu_ms"] / best["ours"]["cpu_ms"]
    first, last = best_sizes[options.nodes[0]], best_sizes[options.nodes[-1]]
    growth = max(item["wall_ms"] for item in best_sizes.values()) / first["wall_ms"]
    print(f"\n{options.candidates} candidates, {options.threads} threads, median of a tick [ms]")
    print(f"{'method':26} {'wall':>8} {'p90':>8} {'CPU':>8}")
    for name, row in best.items():
        print(f"{name:26} {row['wall_ms']:8.2f} {row['wall_p90_ms']:8.2f} {row['cpu_ms']:8.2f}")
    print(f"\n{'nodes':>8} {'tick':>8} {'lost':>8} {'memory B/node':>14} {'disk B/node':>12}")
    for nodes, row in best_sizes.items():
        print(
            f"{nodes:8d} {row['wall_ms']:8.2f} {row['lost_wall_ms']:8.2f} "
            f"{row['memory_bytes_per_node']:14.0f} {row['disk_bytes_per_node']:12.0f}"
        )
    found = {
        "candidates": options.candidates,
        "threads": options.threads,
        **runs,
        "sizes": {str(nodes): rounds for nodes, rounds in sizes.items()},
        "largest_distance_difference_steps": difference,
        **ratios,
        "cpu_ratio": cpu_ratio,
        "growth": growth,
    }
    write_result("gnm_tick.json", json.dumps(found, indent=1) + "\n", options.update_results)
    shown = {
        **{name: f"{ratio:.1f}" for name, ratio in ratios.items()},
        "cpu_ratio": f"{cpu_ratio:.1f}",
        **{f"{name}_ms": f"{row['wall_ms']:.2f}" for name, row in best.items()},
        "candidates": f"{best['ours']['candidates']:g}",
        "growth": f"{growth:.2f}",
        "tick_largest_map_ms": f"{last['wall_ms']:.2f}",
        "lost_tick_largest_map_ms": f"{last['lost_wall_ms']:.2f}",
        "memory_bytes_per_node": f"{last['memory_bytes_per_node']:.0f}",
        "distance_difference_steps": f"{_difference(runs['original'], runs['ours']):.1e}",
        "distance_difference_float32_steps": f"{difference:.1e}",
    }
    print(" ".join(f"{key}={value}" for key, value in shown.items()))
    return 0 if math.isfinite(ratios["ratio"]) and difference < 1e-2 else 1


if __name__ == "__main__":
    sys.exit(main())
