"""Train a policy from demonstrations.

    python -m policy_training.train --config configs/ptr_widowx_sim_bc.yaml \\
        --dataset datasets/kitchen --out runs/bc --seed 0

The run directory holds `config.yaml`, `run.json` (command, datasets, seeds), `metrics.jsonl`,
TensorBoard events and `checkpoint-<step>/`. Started again on the same directory with `--resume`, a
run continues at its last checkpoint and sees the batches that it would have seen.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from policy_training.algorithms import (
    Algorithm,
    BehaviourCloning,
    ConservativeQLearning,
    DivergenceError,
)
from policy_training.checkpoint import (
    CheckpointError,
    Policy,
    PolicySpec,
    latest_checkpoint,
    load_policy,
    load_trainer,
    save_checkpoint,
)
from policy_training.config import ConfigError, TrainingConfig, config_to, load_config
from policy_training.dataset import Dataset, DatasetError, load_dataset
from policy_training.hindsight import AUXILIARY_DIM
from policy_training.networks import Actor, Critic, PolicyConfig
from policy_training.sampling import BatchSource, TransitionPool, task_index

HORIZON = 40
VALIDATION_BATCHES = 8


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Paths and switches of one run.

    Attributes:
        out: Run directory.
        datasets: Training data; the second, if any, holds the target tasks.
        seed: Seed of weights, batches and sampling.
        init: Checkpoint whose actor (and image encoder) to start from, or None.
        resume: Continue at the run's last checkpoint.
        threads: Threads of torch; 0 leaves torch's choice.
        command: Command line to record.
    """

    out: Path
    datasets: tuple[Path, ...]
    seed: int
    init: Path | None = None
    resume: bool = False
    threads: int = 0
    command: str = ""


def train(config: TrainingConfig, options: RunOptions) -> Path:
    """Train to the configured number of steps.

    Args:
        config: What to train.
        options: Where and on what.

    Returns:
        The last checkpoint.

    Raises:
        CheckpointError: The run directory is in use, or the initial policy does not fit.
        DatasetError: The data cannot be used.
        DivergenceError: Training was stopped; earlier checkpoints remain.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    size = config.network.encoder.image_size // config.network.encoder.average_pool
    data = [load_dataset(path, (size, size)) for path in options.datasets]
    tasks = task_index(data)
    pools = [TransitionPool(dataset, tasks, config, validation=False) for dataset in data]
    validation = (
        TransitionPool(data[-1], tasks, config, validation=True)
        if config.validation_share > 0.0
        else None
    )
    source = BatchSource(pools[0], pools[1] if len(pools) > 1 else None, config, options.seed)
    policy = _new_policy(config, options, data, tasks)
    algorithm = _algorithm(config, policy, pools[0], options)
    policy.actor, policy.critic = algorithm.actor, algorithm.critic
    start = 0
    if options.resume:
        last = latest_checkpoint(options.out)
        saved = load_policy(last)
        policy.actor.load_state_dict(saved.actor.state_dict())
        if policy.critic is not None and saved.critic is not None:
            policy.critic.load_state_dict(saved.critic.state_dict())
        algorithm.restore(load_trainer(last))
        start = saved.spec.step
    elif options.out.exists() and any(options.out.glob("checkpoint-*")):
        raise CheckpointError(
            f"{options.out} already holds checkpoints; add --resume to continue or choose another"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    _describe_run(config, options, data, pools)
    if start == 0:
        _save(options, policy, algorithm, 0)
    log = RunLog(options.out)
    try:
        _loop(config, options, policy, algorithm, source, validation, log, start)
    finally:
        log.close()
    return latest_checkpoint(options.out)


class RunLog:
    """Metrics as JSON lines and TensorBoard events."""

    def __init__(self, out: Path) -> None:
        self._file = (out / "metrics.jsonl").open("a")
        self._board = SummaryWriter(str(out))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Record values of a step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for key, value in values.items():
            self._board.add_scalar(key, value, step)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        self._board.close()


def _loop(
    config: TrainingConfig,
    options: RunOptions,
    policy: Policy,
    algorithm: Algorithm,
    source: BatchSource,
    validation: TransitionPool | None,
    log: RunLog,
    start: int,
) -> None:
    totals: dict[str, float] = {}
    since = time.perf_counter()
    steps = config.optimisation.steps
    bar = tqdm(range(start, steps), initial=start, total=steps, mininterval=2.0, unit="step")
    for index in bar:
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + index)
        for key, value in algorithm.update(source.batch(index), index, generator).items():
            totals[key] = totals.get(key, 0.0) + value
        step = index + 1
        if step % config.log_every == 0:
            means = {key: value / config.log_every for key, value in totals.items()}
            means["time/step_ms"] = (time.perf_counter() - since) * 1e3 / config.log_every
            if validation is not None and step % (10 * config.log_every) == 0:
                means |= _validation_loss(config, policy.actor, validation)
            log.write(step, means)
            shown = ("bc/action_error", "cql/action_error", "cql/q_data", "cql/q_policy")
            bar.set_postfix({k.split("/")[1]: f"{means[k]:.3f}" for k in shown if k in means})
            totals, since = {}, time.perf_counter()
        if step % config.checkpoint_every == 0 or step == steps:
            _save(options, policy, algorithm, step)
        if config.evaluate_every and step % config.evaluate_every == 0:
            log.write(step, _closed_loop(config, policy))
            since = time.perf_counter()


def _validation_loss(
    config: TrainingConfig, actor: Actor, pool: TransitionPool
) -> dict[str, float]:
    """Cloning loss on the same held-out batches every time."""
    rng = np.random.default_rng(0)
    cloning = BehaviourCloning(actor, config)
    totals: dict[str, float] = {}
    with torch.no_grad():
        for _ in range(VALIDATION_BATCHES):
            batch = pool.draw(config.optimisation.batch_size, rng, None)
            for key, value in cloning.loss(batch)[1].items():
                name = f"validation/{key.split('/')[1]}"
                totals[name] = totals.get(name, 0.0) + value / VALIDATION_BATCHES
    return totals


def _closed_loop(config: TrainingConfig, policy: Policy) -> dict[str, float]:
    from policy_training.evaluate import evaluate_in_process

    policy.actor.eval()
    report = evaluate_in_process(policy, config.evaluation_episodes)
    policy.actor.train()
    rates = {f"success/{task}": row["success_rate"] for task, row in report["tasks"].items()}
    return {"success/mean": report["success_rate"], **rates}


def _new_policy(
    config: TrainingConfig, options: RunOptions, data: Sequence[Dataset], tasks: tuple[str, ...]
) -> Policy:
    spec = data[0].spec
    for dataset in data[1:]:
        for name in ("action_names", "action_low", "action_high", "state_names", "control_hz"):
            found, expected = getattr(dataset.spec, name), getattr(spec, name)
            if found != expected:
                raise DatasetError(f"target data: found {name} {found}, expected {expected}")
    network = PolicyConfig(
        encoder=config.network.encoder,
        tasks=len(tasks),
        state_dim=len(spec.state_names),
        action_dim=len(spec.action_names),
        hidden=config.network.hidden,
        critic_heads=config.network.critic_heads,
        auxiliary_dim=AUXILIARY_DIM if config.auxiliary_weight > 0.0 else 0,
    )
    instructions: dict[str, str] = {}
    for dataset in data:
        instructions |= dataset.spec.instructions
    episodes = sum(episode.success for dataset in data for episode in dataset.episodes)
    return Policy(
        PolicySpec(
            network=network,
            algorithm=config.algorithm,
            robot=spec.robot,
            control_hz=spec.control_hz,
            horizon=HORIZON,
            task_names=tasks,
            instructions=instructions,
            action_names=spec.action_names,
            action_low=spec.action_low,
            action_high=spec.action_high,
            state_names=spec.state_names,
            seed=options.seed,
            command=options.command,
            trained_on=f"{episodes} demonstrations of {len(tasks)} tasks, made by: "
            + "; ".join(dataset.spec.command_line for dataset in data),
        ),
        Actor(network),
    )


def _algorithm(
    config: TrainingConfig, policy: Policy, pool: TransitionPool, options: RunOptions
) -> Algorithm:
    actor = policy.actor
    if config.network.normalise_state:
        actor.set_state_normalisation(*pool.state_statistics())
    if options.init is not None:
        initial = load_policy(options.init)
        if initial.spec.network != policy.spec.network:
            raise CheckpointError(
                f"{options.init}: found layout {initial.spec.network}, "
                f"expected {policy.spec.network}"
            )
        if initial.spec.task_names != policy.spec.task_names:
            raise CheckpointError(
                f"{options.init}: found tasks {initial.spec.task_names}, "
                f"expected {policy.spec.task_names}"
            )
        actor.load_state_dict(initial.actor.state_dict())
    if config.algorithm == "bc":
        return BehaviourCloning(actor, config)
    learner = ConservativeQLearning(actor, Critic(policy.spec.network), config)
    if options.init is not None:
        learner.warm_start()
    return learner


def _save(options: RunOptions, policy: Policy, algorithm: Algorithm, step: int) -> None:
    algorithm_name = policy.spec.algorithm if step > 0 else "untrained"
    snapshot = Policy(
        dataclasses.replace(policy.spec, step=step, algorithm=algorithm_name),
        policy.actor,
        policy.critic,
    )
    save_checkpoint(options.out / f"checkpoint-{step}", snapshot, algorithm.state())


def _describe_run(
    config: TrainingConfig,
    options: RunOptions,
    data: Sequence[Dataset],
    pools: Sequence[TransitionPool],
) -> None:
    (options.out / "config.yaml").write_text(yaml.safe_dump(config_to(config), sort_keys=False))
    record: dict[str, Any] = {
        "command": options.command,
        "seed": options.seed,
        "init": str(options.init) if options.init else None,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "datasets": [
            {
                "path": str(path),
                "command": dataset.spec.command_line,
                "episodes": len(dataset.episodes),
                "successes": sum(e.success for e in dataset.episodes),
                "training_transitions": pool.transitions,
                "seed_min": min(e.seed for e in dataset.episodes),
                "seed_max": max(e.seed for e in dataset.episodes),
            }
            for path, dataset, pool in zip(options.datasets, data, pools, strict=True)
        ],
    }
    (options.out / "run.json").write_text(json.dumps(record, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Train a policy from demonstrations.")
    parser.add_argument("--config", required=True, help="YAML training configuration")
    parser.add_argument("--dataset", required=True, help="directory written by a collector")
    parser.add_argument("--target-dataset", help="data of the target tasks, mixed in later")
    parser.add_argument("--out", required=True, help="run directory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", help="checkpoint to start the actor and the encoders from")
    parser.add_argument("--steps", type=int, help="override the configured number of steps")
    parser.add_argument("--resume", action="store_true", help="continue at the last checkpoint")
    parser.add_argument("--threads", type=int, default=0, help="torch threads, 0 = default")
    parsed = parser.parse_args(arguments)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        config = load_config(parsed.config)
        if parsed.steps is not None:
            config = dataclasses.replace(
                config, optimisation=dataclasses.replace(config.optimisation, steps=parsed.steps)
            )
        datasets = [Path(p) for p in (parsed.dataset, parsed.target_dataset) if p]
        last = train(
            config,
            RunOptions(
                out=Path(parsed.out),
                datasets=tuple(datasets),
                seed=parsed.seed,
                init=Path(parsed.init) if parsed.init else None,
                resume=parsed.resume,
                threads=parsed.threads,
                command=shlex.join(["python", "-m", "policy_training.train", *words]),
            ),
        )
    except (
        ConfigError,
        DatasetError,
        CheckpointError,
        DivergenceError,
        FileNotFoundError,
    ) as error:
        print(f"policy_training.train: {error}", file=sys.stderr)
        return 1
    print(last)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
