"""Export a checkpoint as a LEAPP bundle: one YAML and one ONNX file per stage.

    python -m policy_training.export --checkpoint runs/x/checkpoint-20000 --out models/x

LEAPP traces the stages and writes models and pipeline; this module then checks every stage against
torch on fresh random inputs, adds the `deployment:` section with the digest of every file, and
removes what must not be shipped. A bundle that fails the check is not left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shlex
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import yaml
from torch import Tensor, nn

from policy_training.checkpoint import CheckpointError, Policy, load_policy, to_physical
from policy_training.networks import Critic
from policy_training.rounding import ExportError, check_outputs, expected_outputs

DEPLOYMENT_SCHEMA_VERSION = 1
VALIDATION_PASSES = 5
ACTION_UNITS = ("m", "m", "m", "rad", "rad", "rad", "opening")
STATE_UNITS = ("m", "m", "m", "rad", "rad", "rad", "opening")


class PolicyStage(nn.Module):
    """Embedding, state, task → physical action, and the Gaussian before the tanh."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.actor = policy.actor
        self.spec = policy.spec

    def forward(
        self, embedding: Tensor, state: Tensor, task: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(1, E), (1, S), (1, N) → action, mean and log-std, (1, A) each."""
        mean, log_std = self.actor.head(embedding, state, task)
        return to_physical(torch.tanh(mean), self.spec), mean, log_std


class CriticStage(nn.Module):
    """Embedding, action in [-1, 1], task → one Q value per head."""

    def __init__(self, critic: Critic) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, embedding: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """(1, E), (1, A), (1, N) → (heads,)."""
        return self.critic.head(embedding, action[:, None, :], task)[:, 0, 0]


def export_bundle(
    policy: Policy, out: str | Path, results: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write the bundle `out/<name>.yaml` with `name` the directory's name.

    Args:
        policy: Networks in evaluation mode.
        out: Directory to create or replace.
        results: Measured results for the card, plain values.

    Returns:
        The `deployment:` section.

    Raises:
        ExportError: ONNX Runtime's outputs differ from the networks' by more than rounding
            explains.
    """
    target = Path(out)
    name = target.name
    if not name.isidentifier():
        raise ExportError(
            f"found bundle name {name!r}, expected an identifier (letters, digits, _)"
        )
    with tempfile.TemporaryDirectory() as scratch:
        _trace(policy, name, Path(scratch))
        bundle = Path(scratch) / name
        document = yaml.safe_load((bundle / f"{name}.yaml").read_text())
        keep = {record["parameters"]["model_path"] for record in document["models"].values()}
        for file in bundle.iterdir():
            if file.name not in keep and file.name != f"{name}.yaml":
                file.unlink()
        error = _validate(policy, bundle, document)
        deployment = _deployment(policy, document, results or {}, error)
        deployment["files"] = {file: _sha256(bundle / file) for file in sorted(keep)}
        with (bundle / f"{name}.yaml").open("a") as stream:
            yaml.safe_dump({"deployment": deployment}, stream, sort_keys=False)
        target.mkdir(parents=True, exist_ok=True)
        for old in [*target.glob("*.onnx"), *target.glob("*.onnx.data"), *target.glob("*.yaml")]:
            old.unlink()
        for file in bundle.iterdir():
            shutil.copyfile(file, target / file.name)
            (target / file.name).chmod(0o644)
    return deployment


def _trace(policy: Policy, name: str, folder: Path) -> None:
    import leapp
    from leapp import GraphConfigs, annotate

    spec = policy.spec
    size = spec.network.encoder.image_size
    generator = torch.Generator().manual_seed(0)
    stages = PolicyStage(policy).eval()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        leapp.start(name, save_path=str(folder))
        for _ in range(VALIDATION_PASSES):
            example = _example(policy, generator, size)
            with torch.no_grad():
                image, task = _node_inputs(
                    annotate, "encoder", policy, image=example["image"], task=example["task"]
                )
                embedding = policy.actor.encoder(image, task)
                annotate.output_tensors("encoder", {"embedding": embedding}, export_with="onnx")
                inputs = {"embedding": embedding, "state": example["state"]}
                embedding, state, task = _node_inputs(
                    annotate, "policy", policy, **inputs, task=example["task"].clone()
                )
                action, mean, log_std = stages(embedding, state, task)
                annotate.output_tensors(
                    "policy",
                    {"action": action, "action_mean": mean, "action_log_std": log_std},
                    export_with="onnx",
                )
                if policy.critic is not None:
                    image, task = _node_inputs(
                        annotate,
                        "critic_encoder",
                        policy,
                        image=example["image"].clone(),
                        task=example["task"].clone(),
                    )
                    embedding = policy.critic.encoder(image, task)
                    annotate.output_tensors(
                        "critic_encoder", {"embedding": embedding}, export_with="onnx"
                    )
                    embedding, candidate, task = _node_inputs(
                        annotate,
                        "critic",
                        policy,
                        embedding=embedding,
                        action=example["action"],
                        task=example["task"].clone(),
                    )
                    q = CriticStage(policy.critic)(embedding, candidate, task)
                    annotate.output_tensors("critic", {"q": q}, export_with="onnx")
        leapp.stop()
        leapp.compile_graph(
            visualize=False,
            # Its tolerance is fixed; `_validate` has one that follows from the network.
            validate=False,
            strict=True,
            graph_configs=GraphConfigs(frequency=spec.control_hz),
        )


def _node_inputs(annotate: Any, node: str, policy: Policy, **tensors: Tensor) -> list[Tensor]:
    """Declare a node's inputs; tensors that the layout does not read are left out of the graph."""
    config = policy.spec.network
    reads_task = config.encoder.film if "image" in tensors else config.task_dim > 0
    used = {key: value for key, value in tensors.items() if key != "task" or reads_task}
    traced = annotate.input_tensors(node, used)
    traced = list(traced) if isinstance(traced, (tuple, list)) else [traced]
    if not reads_task:
        traced.append(tensors["task"])
    return traced


def _example(policy: Policy, generator: torch.Generator, size: int) -> dict[str, Tensor]:
    config = policy.spec.network
    task = torch.zeros(1, config.tasks)
    task[0, int(torch.randint(config.tasks, (1,), generator=generator))] = 1.0
    return {
        "image": torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8, generator=generator),
        "state": torch.randn(1, config.state_dim, generator=generator) * 0.2,
        "task": task,
        "action": torch.rand(1, config.action_dim, generator=generator) * 2.0 - 1.0,
    }


def _validate(policy: Policy, bundle: Path, document: Mapping[str, Any]) -> float:
    """Largest absolute difference to torch over fresh inputs, stage outputs fed on by ONNX."""
    sessions = {
        node: onnxruntime.InferenceSession(
            str(bundle / record["parameters"]["model_path"]), providers=["CPUExecutionProvider"]
        )
        for node, record in document["models"].items()
    }
    generator = torch.Generator().manual_seed(1)
    worst = 0.0
    for _ in range(VALIDATION_PASSES):
        example = _example(policy, generator, policy.spec.network.encoder.image_size)
        values = {key: value.numpy() for key, value in example.items()}
        found = _run(sessions["encoder"], values)
        found = _run(sessions["policy"], values | found)
        inputs = [example[key] for key in ("image", "state", "task")]
        worst = max(worst, *_compared(found, _WholePolicy(policy), inputs).values())
        if policy.critic is not None:
            found = _run(sessions["critic_encoder"], values)
            found = _run(sessions["critic"], values | found)
            inputs = [example[key] for key in ("image", "action", "task")]
            _compared(found, _WholeCritic(policy.critic), inputs)
    return worst


def _compared(
    found: Mapping[str, np.ndarray[Any, Any]], network: nn.Module, inputs: Sequence[Tensor]
) -> dict[str, float]:
    return check_outputs("ONNX Runtime", found, expected_outputs(network, inputs))


class _WholePolicy(nn.Module):
    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.encoder = policy.actor.encoder
        self.stage = PolicyStage(policy)

    def forward(self, image: Tensor, state: Tensor, task: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.stage(self.encoder(image, task), state, task)


class _WholeCritic(nn.Module):
    def __init__(self, critic: Critic) -> None:
        super().__init__()
        self.encoder = critic.encoder
        self.stage = CriticStage(critic)

    def forward(self, image: Tensor, action: Tensor, task: Tensor) -> Tensor:
        return self.stage(self.encoder(image, task), action, task)


def _run(
    session: onnxruntime.InferenceSession, values: Mapping[str, Any]
) -> dict[str, np.ndarray[Any, Any]]:
    feeds = {item.name: values[item.name] for item in session.get_inputs()}
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def _deployment(
    policy: Policy, document: Mapping[str, Any], results: Mapping[str, Any], error: float
) -> dict[str, Any]:
    spec = policy.spec
    size = spec.network.encoder.image_size
    stages = {"encoder": "encoder", "policy": "policy"}
    if policy.critic is not None:
        stages |= {"critic_encoder": "critic_encoder", "critic": "critic"}
    task_tensors = _tensors_named(document, "task")
    observations: list[dict[str, Any]] = [
        {
            "name": "image",
            "tensors": _tensors_named(document, "image"),
            "kind": "camera",
            "camera": "main",
            "size": [size, size],
            "channels": "rgb",
            "resize": "squash",
            "filter": "area",
            "history": 1,
        },
        {
            "name": "state",
            "tensor": "policy/state",
            "kind": "end_effector_state",
            "names": list(spec.state_names),
            "units": list(STATE_UNITS),
            "history": 1,
        },
    ]
    if task_tensors:
        observations.append({"name": "task", "tensors": task_tensors, "kind": "task_one_hot"})
    return {
        "schema_version": DEPLOYMENT_SCHEMA_VERSION,
        "policy": {
            "kind": "ptr",
            "version": "1",
            "licence": "Apache-2.0",
            "algorithm": spec.algorithm,
            "trained_on": spec.trained_on,
            "command": spec.command,
            "results": json.loads(json.dumps(dict(results))),
        },
        "control": {"rate_hz": spec.control_hz, "horizon": spec.horizon},
        "robot": spec.robot,
        "action": {
            "tensor": "policy/action",
            "names": list(spec.action_names),
            "units": list(ACTION_UNITS),
            "low": list(spec.action_low),
            "high": list(spec.action_high),
            "frame": "base_link",
            "space": "end_effector_delta",
            "gripper": {"closed": 0.0, "open": 1.0},
        },
        "observations": observations,
        "tasks": {
            "names": {task: index for index, task in enumerate(spec.task_names)},
            "instructions": dict(spec.instructions),
        },
        "stages": stages,
        "validation": {"passes": VALIDATION_PASSES, "max_abs_error": error},
    }


def _tensors_named(document: Mapping[str, Any], name: str) -> list[str]:
    """Every input of that name, as `node/name`, in order of execution."""
    return [
        f"{node}/{name}"
        for node, record in document["models"].items()
        if any(tensor["name"] == name for tensor in record["inputs"])
    ]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Export a checkpoint as a LEAPP bundle.")
    parser.add_argument("--checkpoint", required=True, help="checkpoint directory")
    parser.add_argument("--out", required=True, help="bundle directory, e.g. models/ptr_widowx_sim")
    parser.add_argument("--results", help="JSON file written by policy_training.evaluate")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {}
    if options.results:
        report = json.loads(Path(options.results).read_text())
        results = {
            "environment": report["environment"],
            "success_rate": report["success_rate"],
            "interval_95": report["interval_95"],
            "episodes": report["episodes"],
        }
    try:
        deployment = export_bundle(load_policy(options.checkpoint), options.out, results)
    except (CheckpointError, ExportError) as error:
        print(f"policy_training.export: {error}", file=sys.stderr)
        return 1
    largest = deployment["validation"]["max_abs_error"]
    print(f"{shlex.quote(options.out)}: largest difference to torch {largest:.1e}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
