"""Export a GNM as a bundle of three stages, split where work repeats.

    python -m policy_training.gnm.export --checkpoint runs/gnm/checkpoint.pt --out models/gnm_sim

`observe` runs once per tick, `match` once per tick on a batch of goals, `embed` once per image of a
map and when the robot is lost.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from policy_training.checkpoint import CheckpointError
from policy_training.gnm.bundle_writer import StageExport, write_bundle
from policy_training.gnm.networks import Gnm, normalise
from policy_training.gnm.stages import EmbedStage, MatchStage, ObserveStage, fold_batch_norm
from policy_training.rounding import ExportError, check_outputs, expected_outputs

VALIDATION_PASSES = 3
RATE_HZ = 4.0
MAX_DISTANCE_STEPS = 20.0
WAYPOINT_BOUND = 100.0
"""Bound of each waypoint entry in units of the spacing; far outside what the horizon can reach."""


def export_gnm(
    network: Gnm,
    out: str,
    policy: Mapping[str, Any] | None = None,
    max_distance_steps: float = MAX_DISTANCE_STEPS,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the bundle; see `write_bundle` for what is raised.

    Args:
        network: Any layout of a GNM.
        out: Directory, whose name becomes the bundle's.
        policy: Entries for `deployment.policy`: algorithm, trained_on, command, results, settings.
        max_distance_steps: Largest distance of the training, the label of unrelated goals.
        report: See `write_bundle`.

    Returns:
        The deployment section.
    """
    config = network.config
    folded = fold_batch_norm(network)
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> Tensor:
        return smooth_images(count, config.image_size, generator)

    observe, match, embed = ObserveStage(folded), MatchStage(folded), EmbedStage(folded)
    examples: dict[str, list[dict[str, Tensor]]] = {"observe": [], "match": [], "embed": []}
    for index in range(VALIDATION_PASSES):
        context = images(config.frames)
        with torch.no_grad():
            encoding, stem = observe(context)
        goals = images(index + 2)
        examples["observe"].append({"context": context})
        examples["match"].append({"encoding": encoding, "stem": stem, "goals": goals})
        examples["embed"].append({"images": goals})
    _check_split(network, observe, match, context, goals)
    stages = [
        StageExport("observe", observe, examples["observe"][0], ("encoding", "stem")),
        StageExport(
            "match",
            match,
            examples["match"][0],
            ("distance", "waypoints"),
            frozenset({"goals", "distance", "waypoints"}),
        ),
        StageExport(
            "embed",
            embed,
            examples["embed"][0],
            ("embedding",),
            frozenset({"images", "embedding"}),
        ),
    ]
    camera = camera_observation(config.image_size)
    deployment = {
        "schema_version": 1,
        "policy": {"kind": "gnm", "version": "1", "licence": "Apache-2.0", **(policy or {})},
        "control": {"rate_hz": RATE_HZ, "horizon": config.horizon},
        "robot": "any",
        "action": waypoint_action("match/waypoints", config.waypoint_size),
        "observations": [
            {"name": "context", "tensor": "observe/context", **camera, "history": config.frames},
            {"name": "goals", "tensor": "match/goals", **camera, "history": 1},
            {"name": "places", "tensor": "embed/images", **camera, "history": 1},
        ],
        "navigation": {
            "distance": "match/distance",
            "max_distance_steps": max_distance_steps,
            "embedding": "embed/embedding",
            "can_explore": False,
        },
        "stages": {"observe": "observe", "match": "match", "embed": "embed"},
    }
    data_flow = {"observe/encoding": ["match/encoding"], "observe/stem": ["match/stem"]}
    return write_bundle(out, stages, data_flow, deployment, examples, RATE_HZ, report)


def camera_observation(image_size: tuple[int, int]) -> dict[str, Any]:
    """What all images of a navigation network have in common in the deployment section."""
    return {
        "kind": "camera",
        "camera": "main",
        "size": list(image_size),
        "channels": "rgb",
        "resize": "crop_4_3",
        "filter": "bicubic",
    }


def waypoint_action(tensor: str, size: int) -> dict[str, Any]:
    """The action of the deployment section: waypoints of x, y and, for size 4, the heading."""
    names = ["x", "y", "cos", "sin"][:size]
    return {
        "tensor": tensor,
        "names": names,
        "units": ["1"] * size,
        "low": [-WAYPOINT_BOUND] * size,
        "high": [WAYPOINT_BOUND] * size,
        "frame": "base_link",
        "space": "normalised_waypoints",
    }


def smooth_images(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Random images uint8 (count, H, W, 3) of `size` (width, height).

    White noise would be averaged away by the first layers and test little.
    """
    width, height = size
    coarse = torch.rand(count, 3, 5, 7, generator=generator)
    fine = nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (fine * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


class _Whole(nn.Module):
    """The network on raw images: (frames, H, W, 3), (K, H, W, 3) → what it returns."""

    def __init__(self, network: Gnm) -> None:
        super().__init__()
        self.network = network

    def forward(self, context: Tensor, goals: Tensor) -> tuple[Tensor, Tensor]:
        observation = normalise(context).flatten(0, 1).expand(len(goals), -1, -1, -1)
        return self.network(observation, normalise(goals))


def _check_split(
    network: Gnm, observe: ObserveStage, match: MatchStage, context: Tensor, goals: Tensor
) -> None:
    with torch.no_grad():
        distance, waypoints = match(*observe(context), goals)
    expected = expected_outputs(_Whole(network), [context, goals])
    check_outputs("after splitting", {"distance": distance, "waypoints": waypoints}, expected)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    from policy_training.gnm.train import load_network

    parser = argparse.ArgumentParser(description="Export a trained GNM as a bundle.")
    parser.add_argument("--checkpoint", required=True, help="file written by the training")
    parser.add_argument("--out", required=True, help="bundle directory, e.g. models/gnm_sim")
    options = parser.parse_args(arguments)
    try:
        network, policy = load_network(options.checkpoint)
        deployment = export_gnm(network, options.out, policy)
    except (CheckpointError, ExportError, FileNotFoundError) as error:
        print(f"policy_training.gnm.export: {error}", file=sys.stderr)
        return 1
    largest = deployment["validation"]["max_abs_error"]
    print(f"{shlex.quote(options.out)}: largest difference to torch {largest:.1e}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
