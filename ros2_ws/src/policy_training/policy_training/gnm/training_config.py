"""Settings of a published network's training: what its YAML says, applied or refused by name.

Some settings change what a network computes without showing in its weights, above all the number of
attention heads: with a wrong one, the weights load and other waypoints come out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from policy_training.gnm.checkpoint import Checkpoint, CheckpointError
from policy_training.gnm.networks import Gnm, GnmConfig
from policy_training.gnm.nomad import Nomad, NomadConfig
from policy_training.gnm.vint import Vint, VintConfig

KINDS = ("gnm", "vint", "vint_late_fusion", "nomad")
_GROUPS = 8
"""Channels per normalised group in NoMaD's noise network: its widths are multiples."""

_ATTENTION = {
    "mha_num_attention_heads": 4,
    "mha_num_attention_layers": 4,
    "mha_ff_dim_factor": 4,
}
_APPLIED: dict[str, dict[str, Any]] = {
    "gnm": {
        "context_size": 5,
        "len_traj_pred": 5,
        "learn_angle": True,
        "obs_encoding_size": 1024,
        "goal_encoding_size": 1024,
        "image_size": [85, 64],
    },
    "vint": {
        "context_size": 5,
        "len_traj_pred": 5,
        "learn_angle": True,
        "obs_encoding_size": 512,
        "late_fusion": False,
        "image_size": [85, 64],
        **_ATTENTION,
    },
    "nomad": {
        "context_size": 3,
        "len_traj_pred": 8,
        "encoding_size": 256,
        "image_size": [96, 96],
        "down_dims": [64, 128, 256],
        "num_diffusion_iters": 10,
        **_ATTENTION,
    },
}
"""Settings that are applied, with the published networks' values."""
_FIXED: dict[str, dict[str, Any]] = {
    "gnm": {},
    "vint": {"obs_encoder": "efficientnet-b0"},
    "nomad": {
        "vision_encoder": "nomad_vint",
        "cond_predict_scale": False,
        "attn_unet": False,
        "learn_angle": False,
    },
}
_FIXED_FOR_ALL = {
    # Without it, waypoints are in metres and not in the robot's spacing.
    "normalize": True,
    "context_type": "temporal",
    "goal_type": "image",
    "obs_type": "image",
}
"""Settings with one value that this package knows."""
TRAINING_ONLY = frozenset(
    {
        "project_name",
        "run_name",
        "project_folder",
        "load_run",
        "use_wandb",
        "train",
        "batch_size",
        "eval_batch_size",
        "epochs",
        "gpu_ids",
        "num_workers",
        "lr",
        "optimizer",
        "seed",
        "clipping",
        "max_norm",
        "train_subset",
        "scheduler",
        "warmup",
        "warmup_epochs",
        "cyclic_period",
        "plateau_patience",
        "plateau_factor",
        "alpha",
        "beta",
        "action",
        "goal_mask_prob",
        "clip_goals",
        "close_far_threshold",
        "print_log_freq",
        "image_log_freq",
        "num_images_log",
        "pairwise_test_freq",
        "eval_fraction",
        "wandb_log_freq",
        "eval_freq",
    }
)
"""Settings that change how a network was trained and not what it computes."""
_ELSEWHERE = {"model_type", "datasets", "distance"}
_MAX_DISTANCE = "distance.max_dist_cat"
_ACTION_STATS = "action_stats"


@dataclass(frozen=True)
class TrainingSettings:
    """What a checkpoint was trained with.

    Attributes:
        kind: `gnm`, `vint` or `nomad`.
        values: Setting → value, by the names of the training's YAML.
        assumed: Settings that nobody told: the published networks' values were taken.
    """

    kind: str
    values: Mapping[str, Any]
    assumed: tuple[str, ...] = field(default=())

    @property
    def max_distance_steps(self) -> float:
        """The label of unrelated goals."""
        return float(self.values[_MAX_DISTANCE])

    def network(self) -> Gnm | Vint | Nomad:
        """The network, with random weights."""
        v = self.values
        shared: dict[str, Any] = {
            "context_size": v["context_size"],
            "horizon": v["len_traj_pred"],
            "image_size": tuple(v["image_size"]),
        }
        if self.kind == "gnm":
            return Gnm(
                GnmConfig(
                    **shared,
                    learn_angle=v["learn_angle"],
                    observation_encoding=v["obs_encoding_size"],
                    goal_encoding=v["goal_encoding_size"],
                )
            )
        shared |= {
            "heads": v["mha_num_attention_heads"],
            "layers": v["mha_num_attention_layers"],
            "feedforward_factor": v["mha_ff_dim_factor"],
        }
        if self.kind == "vint":
            return Vint(
                VintConfig(
                    **shared,
                    token_size=v["obs_encoding_size"],
                    learn_angle=v["learn_angle"],
                    late_fusion=v["late_fusion"],
                )
            )
        stats = v[_ACTION_STATS]
        return Nomad(
            NomadConfig(
                **shared,
                token_size=v["encoding_size"],
                noise_widths=tuple(v["down_dims"]),
                denoising_steps=v["num_diffusion_iters"],
                delta_low=(stats["min"][0], stats["min"][1]),
                delta_high=(stats["max"][0], stats["max"][1]),
            )
        )


def read_settings(
    kind: str | None,
    files: Sequence[str | Path] = (),
    data_config: str | Path | None = None,
    checkpoint: Checkpoint | None = None,
) -> TrainingSettings:
    """Settings from the training's YAML files, the checkpoint and the published values.

    Args:
        kind: One of `KINDS`; None for what the YAML's `model_type` says.
        files: `gnm.yaml`, `vint.yaml`, …; a later file goes before an earlier one, so that the
            training's `defaults.yaml` may come first.
        data_config: `data_config.yaml`, for NoMaD's `action_stats`.
        checkpoint: A pickled module tells some of its settings itself.

    Raises:
        CheckpointError: A file cannot be read; a setting is unknown, or has a value that is not
            supported or that the checkpoint contradicts.
    """
    told: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for file in files:
        content = _read(file)
        told |= content
        origin |= dict.fromkeys(content, str(file))
    where = ", ".join(map(str, files)) or "settings"
    model_type = told.get("model_type")
    base = kind.removesuffix("_late_fusion") if kind else model_type
    if base not in _APPLIED or (kind is not None and kind not in KINDS):
        raise CheckpointError(
            f"{where}: found model_type {model_type!r} and kind {kind!r}, expected one of {KINDS}"
        )
    if model_type not in (None, base):
        raise CheckpointError(f"{where}: found model_type {model_type!r}, expected {base!r}")
    published = dict(_APPLIED[base])
    fixed = _FIXED_FOR_ALL | _FIXED[base]
    if kind == "vint_late_fusion":
        published["context_size"] = 0
        if told.setdefault("late_fusion", True) is not True:
            raise CheckpointError(f"{where}: found late_fusion False, expected True")
    _refuse_unknown(told, origin, fixed)
    values: dict[str, Any] = {}
    assumed: list[str] = []
    of_module = checkpoint.settings if checkpoint else {}
    for name, default in (published | fixed).items():
        if name in told:
            values[name] = _checked(name, told[name], default, origin.get(name, where))
            if name in of_module and of_module[name] != values[name]:
                raise CheckpointError(
                    f"{where}: found {name} {values[name]}, but the module in the checkpoint was "
                    f"made with {of_module[name]}"
                )
        elif name in of_module:
            values[name] = _checked(name, of_module[name], default, "checkpoint")
        else:
            values[name] = default
            assumed.append(name)
    for name, only in fixed.items():
        if values[name] != only:
            raise CheckpointError(
                f"{where}: found {name} {values[name]!r}, expected {only!r}: this network cannot "
                "be imported with another one"
            )
    _take_distance(told, values, assumed, where)
    _check_datasets(told.get("datasets"), where)
    if base == "nomad":
        _take_action_stats(data_config, values, assumed)
    _check_sizes(base, values, where)
    return TrainingSettings(base, values, tuple(assumed))


def _read(file: str | Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(file).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{file}: cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: found {type(content).__name__}, expected a mapping")
    return {str(name): value for name, value in content.items()}


def _refuse_unknown(told: Mapping[str, Any], origin: Mapping[str, str], fixed: Any) -> None:
    of_any = {name for table in (*_APPLIED.values(), *_FIXED.values()) for name in table}
    for name in told:
        if name not in of_any | TRAINING_ONLY | _ELSEWHERE | set(fixed):
            raise CheckpointError(
                f"{origin.get(name)}: found the setting {name}, which this package does not know: "
                "it may change what the network computes. Remove it if it does not"
            )


def _checked(name: str, value: Any, example: Any, where: str) -> Any:
    """The value, if it is of the kind of `example`."""
    if isinstance(example, bool):
        right, kind = isinstance(value, bool), "true or false"
    elif isinstance(example, int):
        least = 0 if name == "context_size" else 1
        right = isinstance(value, int) and not isinstance(value, bool) and value >= least
        kind = f"a whole number of at least {least}"
    elif isinstance(example, list):
        right = (
            isinstance(value, list)
            and bool(value)
            and all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in value)
        )
        right = right and (name != "image_size" or len(value) == len(example))
        kind = f"a list like {example}"
    else:
        right, kind = isinstance(value, type(example)), repr(example)
    if not right:
        raise CheckpointError(f"{where}: found {name} {value!r}, expected {kind}")
    return value


def _take_distance(
    told: Mapping[str, Any], values: dict[str, Any], assumed: list[str], where: str
) -> None:
    distance = told.get("distance", {})
    if not isinstance(distance, dict):
        raise CheckpointError(f"{where}: found distance {distance!r}, expected a mapping")
    if "max_dist_cat" not in distance:
        assumed.append(_MAX_DISTANCE)
    values[_MAX_DISTANCE] = _checked(_MAX_DISTANCE, distance.get("max_dist_cat", 20), 20, where)


def _check_datasets(datasets: Any, where: str) -> None:
    for name, dataset in (datasets or {}).items():
        spacing = dataset.get("waypoint_spacing", 1) if isinstance(dataset, dict) else 1
        if spacing != 1:
            raise CheckpointError(
                f"{where}: found datasets.{name}.waypoint_spacing {spacing}, expected 1: this "
                "network's steps are not a quarter of a second"
            )


def _take_action_stats(file: str | Path | None, values: dict[str, Any], assumed: list[str]) -> None:
    stats: Any
    if file is None:
        assumed.append(_ACTION_STATS)
        default = NomadConfig()
        stats = {"min": list(default.delta_low), "max": list(default.delta_high)}
    else:
        stats = _read(file).get(_ACTION_STATS)
        rows = [stats.get(key) for key in ("min", "max")] if isinstance(stats, dict) else []
        good = len(rows) == 2 and all(
            isinstance(row, list)
            and len(row) == 2
            and all(isinstance(v, int | float) and not isinstance(v, bool) for v in row)
            for row in rows
        )
        if not good or not all(low < high for low, high in zip(*rows, strict=True)):
            raise CheckpointError(
                f"{file}: found {_ACTION_STATS} {stats!r}, expected min and max of two numbers "
                "each, min below max"
            )
        stats = {key: [float(v) for v in stats[key]] for key in ("min", "max")}
    values[_ACTION_STATS] = stats


def _check_sizes(base: str, values: Mapping[str, Any], where: str) -> None:
    if base == "gnm":
        return
    size_name = "obs_encoding_size" if base == "vint" else "encoding_size"
    size, heads = values[size_name], values["mha_num_attention_heads"]
    if size % heads or size % 2:
        raise CheckpointError(
            f"{where}: found {size_name} {size}, expected an even multiple of the {heads} heads"
        )
    if base == "nomad":
        widths, horizon = values["down_dims"], values["len_traj_pred"]
        halvings = 2 ** (len(widths) - 1)
        if horizon % halvings or any(width % _GROUPS for width in widths):
            raise CheckpointError(
                f"{where}: found len_traj_pred {horizon} and down_dims {widths}, expected "
                f"multiples of {halvings} and of {_GROUPS}"
            )
