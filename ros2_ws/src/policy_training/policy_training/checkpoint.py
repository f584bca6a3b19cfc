"""Policies and trainer states on disk, readable without executing code.

A checkpoint is a directory: `policy.safetensors` (weights), `policy.json` (layout, tasks, action
and state spaces) and, for resuming, `trainer.pt` (optimisers; read with `weights_only=True`).
"""

from __future__ import annotations

import dataclasses
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from policy_server.git_lfs import FETCH_ADVICE, is_pointer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from policy_training.networks import Actor, Critic, EncoderConfig, PolicyConfig

SCHEMA_VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint is missing, incomplete or of another version."""


@dataclass(frozen=True)
class PolicySpec:
    """What a policy needs besides its weights.

    Attributes:
        network: Layout of the networks.
        algorithm: `bc`, `cql`, or `untrained`.
        robot: Robot model.
        control_hz: Rate of the actions in Hz.
        horizon: Longest episode in actions.
        task_names: Task names; a task's one-hot index is its position.
        instructions: Task name → language instruction.
        action_names: Action dimensions in order.
        action_low: Smallest value per dimension, physical units.
        action_high: Largest value per dimension, physical units.
        state_names: Proprioceptive dimensions in order.
        step: Training steps done.
        seed: Seed of the run.
        command: Command line of the run.
        trained_on: One sentence about the data.
    """

    network: PolicyConfig
    algorithm: str
    robot: str
    control_hz: float
    horizon: int
    task_names: tuple[str, ...]
    instructions: dict[str, str]
    action_names: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    state_names: tuple[str, ...]
    step: int = 0
    seed: int = 0
    command: str = ""
    trained_on: str = ""


@dataclass
class Policy:
    """Networks and their specification.

    Attributes:
        spec: Layout, tasks and spaces.
        actor: The policy network.
        critic: The Q network, absent in behaviour cloning.
    """

    spec: PolicySpec
    actor: Actor
    critic: Critic | None = field(default=None)

    def act(
        self, image: NDArray[np.uint8], state: NDArray[np.float32], task: str
    ) -> NDArray[np.float32]:
        """Deterministic action, tanh of the mean, as at deployment.

        Args:
            image: uint8 (H, W, 3) RGB of the spec's image size.
            state: float32 (S,), physical units.
            task: Task name.

        Returns:
            float32 (A,), physical units, inside the action limits.

        Raises:
            KeyError: The policy does not know the task.
        """
        if task not in self.spec.task_names:
            raise KeyError(
                f"found task {task!r}, expected one of {', '.join(self.spec.task_names)}"
            )
        one_hot = torch.zeros(1, self.spec.network.tasks)
        one_hot[0, self.spec.task_names.index(task)] = 1.0
        with torch.no_grad():
            mean, _ = self.actor(
                torch.from_numpy(np.ascontiguousarray(image))[None],
                torch.from_numpy(np.asarray(state, dtype=np.float32))[None],
                one_hot,
            )
        return to_physical(torch.tanh(mean), self.spec)[0].numpy()


def to_physical(action: Tensor, spec: PolicySpec) -> Tensor:
    """Affine map from [-1, 1] to the action limits; (…, A) → (…, A)."""
    low = torch.tensor(spec.action_low)
    high = torch.tensor(spec.action_high)
    return (action + 1.0) * 0.5 * (high - low) + low


def save_checkpoint(path: str | Path, policy: Policy, trainer: dict[str, Any] | None) -> None:
    """Write a checkpoint; the directory appears complete or not at all.

    Args:
        path: Directory to create.
        policy: What to save.
        trainer: Trainer state for resuming (tensors and plain values), or None.
    """
    final = Path(path)
    partial = final.with_name(final.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    weights = {f"actor.{key}": value for key, value in policy.actor.state_dict().items()}
    if policy.critic is not None:
        weights |= {f"critic.{key}": value for key, value in policy.critic.state_dict().items()}
    save_file(
        {key: value.detach().contiguous().clone() for key, value in weights.items()},
        partial / "policy.safetensors",
    )
    document = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(policy.spec)}
    (partial / "policy.json").write_text(json.dumps(document, indent=1) + "\n")
    if trainer is not None:
        torch.save(trainer, partial / "trainer.pt")
    if final.exists():
        for file in final.iterdir():
            file.unlink()
        final.rmdir()
    partial.rename(final)


def load_policy(path: str | Path) -> Policy:
    """Read a checkpoint's networks, in evaluation mode.

    Args:
        path: Checkpoint directory.

    Returns:
        The policy.

    Raises:
        CheckpointError: Files are missing, damaged, of another version or do not fit together.
    """
    root = Path(path)
    index = root / "policy.json"
    if not index.is_file():
        raise CheckpointError(f"{index} is missing: {root} is not a checkpoint directory")
    try:
        document = dict(json.loads(index.read_text()))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{index} is damaged: expected a JSON object ({error})") from error
    version = document.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise CheckpointError(f"{index}: found schema_version {version}, expected {SCHEMA_VERSION}")
    file = root / "policy.safetensors"
    if not file.is_file():
        raise CheckpointError(f"{file} is missing: copy the checkpoint directory as a whole")
    try:
        return _policy(document, load_file(file))
    except SafetensorError as error:
        raise unreadable(file, error) from error
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{root}: the network and its weights do not fit: {error}") from error


def unreadable(file: Path, error: Exception) -> CheckpointError:
    """What to raise where a file of weights could not be read because of `error`."""
    with file.open("rb") as stream:
        pointer = is_pointer(stream.read(24))
    found = FETCH_ADVICE if pointer else f"a cut or damaged file ({error}); take an earlier one"
    return CheckpointError(f"{file}: expected a checkpoint's file, found {found}")


def load_state(file: Path) -> dict[str, Any]:
    """What `torch.save` has written, tensors and plain values only.

    Raises:
        CheckpointError: The file is damaged.
        FileNotFoundError: It is missing.
    """
    try:
        state: dict[str, Any] = torch.load(file, weights_only=True)
    except FileNotFoundError:
        raise
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        reason = RuntimeError(str(error).partition("\n")[0])
        raise unreadable(file, reason) from error
    return state


def _policy(document: dict[str, Any], weights: dict[str, Tensor]) -> Policy:
    network = document.pop("network")
    encoder = network.pop("encoder")
    encoder["stages"] = tuple(tuple(stage) for stage in encoder["stages"])
    network["hidden"] = tuple(network["hidden"])
    config = PolicyConfig(encoder=EncoderConfig(**encoder), **network)
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in document.items()
    }
    actor = Actor(config)
    actor.load_state_dict(_part(weights, "actor."))
    actor.eval()
    critic = None
    if any(key.startswith("critic.") for key in weights):
        critic = Critic(config)
        critic.load_state_dict(_part(weights, "critic."))
        critic.eval()
    return Policy(PolicySpec(network=config, **plain), actor, critic)


def load_trainer(path: str | Path) -> dict[str, Any]:
    """Read the trainer state of a checkpoint.

    Raises:
        CheckpointError: The checkpoint was saved without one, or it is damaged.
    """
    file = Path(path) / "trainer.pt"
    if not file.is_file():
        raise CheckpointError(f"{file} is missing: this checkpoint cannot be resumed from")
    return load_state(file)


def latest_checkpoint(run: str | Path) -> Path:
    """The checkpoint of a run directory with the highest step.

    Raises:
        CheckpointError: The run has none.
    """
    found = sorted(
        (path for path in Path(run).glob("checkpoint-*") if (path / "policy.json").is_file()),
        key=lambda path: int(path.name.rsplit("-", 1)[1]),
    )
    if not found:
        raise CheckpointError(f"{run}: no checkpoint-* directory found")
    return found[-1]


def _part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}
