"""Train a GNM on simulated drives.

    python -m policy_training.gnm.train --dataset datasets/gnm --out runs/gnm --seed 0

The run directory holds `run.json`, `metrics.jsonl` and `checkpoint.pt`, which also holds the state
of the optimiser: started again with `--resume`, a run goes on where it was saved. What is exported
and measured is the moving average of the weights.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from policy_training.algorithms import DivergenceError, clip_gradients
from policy_training.checkpoint import CheckpointError, load_state
from policy_training.dataset import DatasetError
from policy_training.gnm.drives import (
    Augmentation,
    Batch,
    BatchSizes,
    BatchSource,
    DriveDataError,
    Drives,
    load_drives,
)
from policy_training.gnm.networks import IMAGE_MEAN, IMAGE_STD, Gnm, GnmConfig

SMALL = GnmConfig(
    residual_channels=(32, 64, 128),
    observation_encoding=256,
    goal_encoding=256,
    goal_hidden=256,
    trunk=(256, 64),
    last_channels=256,
    place_embedding=64,
)
"""The layout that is shipped: its bundle has 14 MB and a CPU core trains it on 700 pairs/s."""
INITIAL_DISTANCE_STEPS = 10.0


@dataclass(frozen=True)
class TrainingOptions:
    """What is optimised, and how.

    Attributes:
        steps: Batches.
        sizes: Make-up of a batch.
        augmentation: Random changes of images.
        learning_rate: AdamW's largest step size.
        warmup_steps: Steps of linear warm-up; afterwards it falls with a cosine to zero.
        weight_decay: AdamW's.
        gradient_norm: Gradients are clipped to this.
        average: Rate of the moving average of the weights.
        distance_weight, waypoint_weight, heading_weight, place_weight: Of the losses.
        temperature: Of the contrastive loss on place descriptors.
        bfloat16: Whether convolutions are computed in bfloat16.
    """

    steps: int = 11_000
    sizes: BatchSizes = field(default_factory=BatchSizes)
    augmentation: Augmentation = field(default_factory=Augmentation)
    learning_rate: float = 1.5e-3
    warmup_steps: int = 300
    weight_decay: float = 0.02
    gradient_norm: float = 2.0
    average: float = 0.999
    distance_weight: float = 0.1
    waypoint_weight: float = 0.5
    heading_weight: float = 0.5
    place_weight: float = 0.1
    temperature: float = 0.1
    bfloat16: bool = True


class Trainer:
    """Network, its moving average and the optimiser.

    Args:
        config: Layout.
        options: See `TrainingOptions`.
        seed: Of the weights.
    """

    def __init__(self, config: GnmConfig, options: TrainingOptions, seed: int) -> None:
        torch.manual_seed(seed)
        self.options = options
        self.network = Gnm(config).to(  # type: ignore[call-overload]
            memory_format=torch.channels_last
        )
        with torch.no_grad():
            bias = self.network.dist_predictor[0].bias
            assert isinstance(bias, Tensor)
            bias.fill_(INITIAL_DISTANCE_STEPS)
        self.average = copy.deepcopy(self.network).eval()
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), options.learning_rate, weight_decay=options.weight_decay
        )
        self.step = 0

    def update(self, batch: Batch) -> dict[str, float]:
        """One optimiser step; returns the losses and errors of the batch.

        Raises:
            DivergenceError: The loss or a gradient is not finite; the weights are as before.
        """
        options = self.options
        for group in self.optimiser.param_groups:
            group["lr"] = options.learning_rate * _schedule(self.step, options)
        self.network.train()
        loss, metrics = self.loss(batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        clip_gradients(self.network.parameters(), options.gradient_norm, loss, self.step)
        self.optimiser.step()
        self.step += 1
        self._average()
        return metrics

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Sum of the weighted losses, and their values and errors for the log."""
        options, network = self.options, self.network
        context = prepare(batch.context, batch.context_colour)
        goals = prepare(batch.goals, batch.goal_colour)
        places = prepare(batch.places, batch.place_colour)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
            if not options.bfloat16:
                context, goals, places = context.float(), goals.float(), places.float()
            distance, waypoints = network.match(
                network.encode_observation(context),
                network.observation_stem(context),
                network.goal_stem(goals),
            )
            embedding = network.embed(places)
        distance, waypoints = distance.float()[:, 0], waypoints.float()
        target, path = torch.from_numpy(batch.distance), torch.from_numpy(batch.waypoints)
        known = torch.isfinite(target)
        has_path = torch.isfinite(path[:, 0, 0])
        distance_loss = mean_or_zero(
            functional.smooth_l1_loss(distance[known], target[known], reduction="none")
        )
        path, found = path[has_path], waypoints[has_path]
        waypoint_loss = mean_or_zero(
            functional.smooth_l1_loss(found[..., :2], path[..., :2], beta=0.5, reduction="none")
        )
        heading_loss = mean_or_zero(1.0 - (found[..., 2:] * path[..., 2:]).sum(-1))
        place_loss = contrastive_loss(
            embedding, torch.from_numpy(batch.place_near), options.temperature
        )
        loss = (
            options.distance_weight * distance_loss
            + options.waypoint_weight * waypoint_loss
            + options.heading_weight * heading_loss
            + options.place_weight * place_loss
        )
        with torch.no_grad():
            error = (distance - target).abs()
            near = known & (target < 10.0)
            position_error = (found[..., :2] - path[..., :2]).norm(dim=-1)
            metrics = {
                "loss": float(loss),
                "distance_error": float(error[known].mean()),
                "near_distance_error": float(error[near].mean()),
                "waypoint_error": float(position_error.mean()),
                "heading_loss": float(heading_loss),
                "place_loss": float(place_loss),
            }
        return loss, metrics

    def _average(self) -> None:
        rate = min(self.options.average, (1.0 + self.step) / (10.0 + self.step))
        with torch.no_grad():
            own, averaged = self.network.state_dict(), self.average.state_dict()
            for key, value in averaged.items():
                if value.is_floating_point():
                    value.lerp_(own[key], 1.0 - rate)
                else:
                    value.copy_(own[key])


def _schedule(step: int, options: TrainingOptions) -> float:
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    share = (step - options.warmup_steps) / max(1, options.steps - options.warmup_steps)
    return max(0.01, 0.5 * (1.0 + math.cos(math.pi * min(1.0, share))))


def prepare(images: NDArray[np.uint8], colour: NDArray[np.float32]) -> Tensor:
    """Normalised bfloat16 images, channels first, of changed colours.

    Args:
        images: (N, H, W, C) with C a multiple of 3.
        colour: (N, C, 2) gain and offset in grey levels.

    Returns:
        (N, C, H, W), stored channels last.
    """
    count, height, width, channels = images.shape
    mean = np.tile(np.array(IMAGE_MEAN, np.float32) * 255, channels // 3)
    scale = 1 / np.tile(np.array(IMAGE_STD, np.float32) * 255, channels // 3)
    factor = torch.from_numpy(np.tile(colour[..., 0] * scale, width)).to(torch.bfloat16)
    offset = torch.from_numpy(np.tile((colour[..., 1] - mean) * scale, width)).to(torch.bfloat16)
    # Whole image rows at once: loops over three channels would not be vectorised.
    values = torch.from_numpy(images).view(count, height, width * channels).to(torch.bfloat16)
    values = torch.addcmul(offset[:, None], values, factor[:, None])
    return values.view(count, height, width, channels).permute(0, 3, 1, 2)


def mean_or_zero(values: Tensor) -> Tensor:
    """Mean of the elements; 0 of none, as in a batch without a goal of known distance."""
    return values.sum() / max(1, values.numel())


def contrastive_loss(embedding: Tensor, near: Tensor, temperature: float) -> Tensor:
    """InfoNCE both ways between anchors and positives (van den Oord et al. 2018).

    Args:
        embedding: (2·P, D) unit vectors, anchors and then their positives.
        near: (P, P) pairs of the same place; all but the diagonal are left out.
        temperature: Divides the cosine similarities.
    """
    anchors, positives = embedding.chunk(2)
    similarity = anchors @ positives.T / temperature
    own = torch.eye(len(near), dtype=torch.bool)
    similarity = similarity.masked_fill(near & ~own, -math.inf)
    target = torch.arange(len(near))
    return 0.5 * (
        functional.cross_entropy(similarity, target)
        + functional.cross_entropy(similarity.T, target)
    )


@dataclass(frozen=True)
class RunOptions:
    """Paths and switches of one run.

    Attributes:
        datasets: Directories written by `collect`.
        out: Run directory.
        seed: Of weights and batches.
        robots: Robots to train on; empty for all.
        resume: Go on at the run's checkpoint.
        log_every, save_every: Steps.
        command: Command line to record.
    """

    datasets: tuple[Path, ...]
    out: Path
    seed: int = 0
    robots: tuple[str, ...] = ()
    resume: bool = False
    log_every: int = 100
    save_every: int = 500
    command: str = ""


def train(config: GnmConfig, options: TrainingOptions, run: RunOptions) -> Path:
    """Train to the configured number of steps; returns the checkpoint.

    Raises:
        DatasetError: The data cannot be used, or the run directory holds a run already.
        CheckpointError: The checkpoint to go on with is damaged.
        DivergenceError: Training was stopped; the last checkpoint remains.
    """
    drives = load_drives(run.datasets, run.robots)
    source = BatchSource(drives, config.frames, options.sizes, options.augmentation, run.seed)
    trainer = Trainer(config, options, run.seed)
    checkpoint = run.out / "checkpoint.pt"
    if run.resume:
        saved = load_state(checkpoint)
        trainer.network.load_state_dict(saved["network"])
        trainer.average.load_state_dict(saved["average"])
        trainer.optimiser.load_state_dict(saved["optimiser"])
        trainer.step = saved["step"]
    elif checkpoint.exists():
        raise DriveDataError(f"{run.out} already holds a run; add --resume or choose another")
    run.out.mkdir(parents=True, exist_ok=True)
    record = _describe(config, options, run, drives)
    (run.out / "run.json").write_text(json.dumps(record, indent=1) + "\n")
    totals: dict[str, float] = {}
    since = time.perf_counter()
    with (run.out / "metrics.jsonl").open("a") as log:
        while trainer.step < options.steps:
            for key, value in trainer.update(source.batch(trainer.step)).items():
                totals[key] = totals.get(key, 0.0) + value
            if trainer.step % run.log_every == 0:
                row = {key: value / run.log_every for key, value in totals.items()}
                row["step_ms"] = (time.perf_counter() - since) * 1e3 / run.log_every
                log.write(json.dumps({"step": trainer.step, **row}) + "\n")
                log.flush()
                shown = " ".join(f"{key} {value:.3f}" for key, value in row.items())
                print(f"{trainer.step}/{options.steps} {shown}", flush=True)
                totals, since = {}, time.perf_counter()
            if trainer.step % run.save_every == 0 or trainer.step == options.steps:
                _save(trainer, record, checkpoint)
    return checkpoint


def _save(trainer: Trainer, record: dict[str, Any], path: Path) -> None:
    part = path.with_suffix(".part")
    content = {
        "network": trainer.network.state_dict(),
        "average": trainer.average.state_dict(),
        "optimiser": trainer.optimiser.state_dict(),
        "step": trainer.step,
        "record": json.dumps(record),
    }
    torch.save(content, part)
    part.rename(path)


def load_network(path: str | Path) -> tuple[Gnm, dict[str, Any]]:
    """The averaged network of a checkpoint, and the entries for a bundle's `deployment.policy`."""
    saved = load_state(Path(path))
    record = json.loads(saved["record"])
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in record["network"].items()
    }
    network = Gnm(GnmConfig(**plain))
    network.load_state_dict(saved["average"])
    policy = {
        "algorithm": "gnm",
        "trained_on": record["trained_on"],
        "command": record["command"],
        "results": {"steps": saved["step"]},
    }
    return network.eval(), policy


def _describe(
    config: GnmConfig, options: TrainingOptions, run: RunOptions, drives: Drives
) -> dict[str, Any]:
    robots = sorted(set(drives.robots))
    hours = len(drives) / 4 / 3600
    return {
        "command": run.command,
        "seed": run.seed,
        "network": dataclasses.asdict(config),
        "options": dataclasses.asdict(options),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "frames": len(drives),
        "pairs_per_step": options.sizes.observations * options.sizes.goals,
        "trained_on": f"{len(drives)} frames ({hours:.1f} h) of {', '.join(robots)} in "
        f"{drives.world.max() + 1} worlds, made by: {drives.command}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Train a GNM on simulated drives.")
    parser.add_argument("--dataset", required=True, type=Path, nargs="+", help="of `collect`")
    parser.add_argument("--out", required=True, type=Path, help="run directory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=TrainingOptions.steps)
    parser.add_argument("--robots", nargs="+", default=[], help="train on these only")
    parser.add_argument("--resume", action="store_true", help="go on at the run's checkpoint")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--float32", action="store_true", help="for CPUs without bfloat16")
    parsed = parser.parse_args(arguments)
    words = list(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(parsed.threads)
    options = TrainingOptions(steps=parsed.steps, bfloat16=not parsed.float32)
    run = RunOptions(
        tuple(parsed.dataset),
        parsed.out,
        parsed.seed,
        tuple(parsed.robots),
        parsed.resume,
        command=shlex.join(["python", "-m", "policy_training.gnm.train", *words]),
    )
    try:
        print(train(SMALL, options, run))
    except (CheckpointError, DatasetError, DivergenceError, FileNotFoundError) as error:
        print(f"policy_training.gnm.train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
