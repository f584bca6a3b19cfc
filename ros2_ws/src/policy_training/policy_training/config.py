"""Training configuration: dataclasses read from YAML, unknown keys and wrong types refused."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from policy_training.networks import EncoderConfig


class ConfigError(ValueError):
    """A configuration file holds an unknown key, a wrong type or an impossible value."""


@dataclass(frozen=True)
class NetworkOptions:
    """Layout of the networks; what follows from the data (task count, dimensions) is not here.

    Attributes:
        encoder: Layout of the image encoders.
        hidden: Widths of the dense layers of actor and critic.
        critic_heads: Number of Q functions.
        normalise_state: Normalise proprioception inside the actor by the data's mean and spread
            (PTR does not).
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    hidden: tuple[int, ...] = (256, 256, 256)
    critic_heads: int = 2
    normalise_state: bool = False


@dataclass(frozen=True)
class AugmentationOptions:
    """Image augmentation; defaults are PTR's at 128 pixels.

    Attributes:
        shift_px: Largest random shift in pixels of the network's own image size.
        colour_probability: Share of images that get colour jitter.
        brightness: Largest relative change.
        contrast: Largest relative change.
        saturation: Largest relative change.
        hue: Largest rotation of the hue as a share of a full turn.
    """

    shift_px: int = 4
    colour_probability: float = 0.8
    brightness: float = 0.2
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 0.03


@dataclass(frozen=True)
class MixingOptions:
    """Share of the prior ("bridge") data in every batch, in two phases (PTR's schedule).

    Used only when a target dataset is given.

    Attributes:
        target_start_step: Step from which target data are mixed in.
        prior_ratio_before: Share of prior data before that step.
        prior_ratio_after: Share of prior data from that step on; the prior part of a batch is
            floor(ratio * batch).
    """

    target_start_step: int = 160_000
    prior_ratio_before: float = 1.0
    prior_ratio_after: float = 0.9


@dataclass(frozen=True)
class OptimisationOptions:
    """Optimisers and schedule; defaults are PTR's.

    Attributes:
        steps: Training steps.
        batch_size: Transitions per step.
        actor_learning_rate: Adam's step size for the actor.
        critic_learning_rate: Adam's step size for the critic.
        temperature_learning_rate: Adam's step size for the entropy temperature.
        weight_decay: AdamW's weight decay.
        warmup_steps: Steps of linear warm-up.
        schedule: `constant`, or `cosine` down to 2 % of the step size at the last step.
        precision: `float32`, or `bfloat16` for autocast with float32 weights.
    """

    steps: int = 200_000
    batch_size: int = 64
    actor_learning_rate: float = 1e-4
    critic_learning_rate: float = 3e-4
    temperature_learning_rate: float = 3e-4
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class CqlOptions:
    """Conservative Q-learning (Kumar et al. 2020) as PTR uses it; defaults are PTR's.

    Attributes:
        alpha: Weight of the conservative term.
        policy_samples: Policy actions in the conservative term and in the backup.
        random_samples: Uniform actions in the conservative term.
        discount: Discount per step.
        target_rate: Rate of the moving average of the target critic.
        initial_temperature: Entropy temperature at the start.
        target_entropy: Entropy that the temperature is steered to.
        positive_steps: Last transitions of a demonstration that count as success.
        reward_scale: Reward = base reward * scale + bias.
        reward_bias: See `reward_scale`.
        clip_target: Clip targets to the values that the rewards allow (PTR does not).
        critic_action: Which action of the data the critic sees: the `executed` one or its
            noise-free `label`.
        bc_weight: Weight of the behaviour-cloning term in the actor's loss (PTR: 0).
        q_weight: Weight of -Q in the actor's loss.
        q_start_step: Step from which the actor follows Q and entropy; before it a warm-started
            actor is held by the cloning term alone, for an untrained critic would spoil it.
        normalise_q: Divide -Q in the actor's loss by the mean magnitude of Q (Fujimoto and Gu,
            "A Minimalist Approach to Offline RL", 2021).
        divergence_margin: Training stops when the averaged Q of the data leaves the feasible range
            by more than this.
    """

    alpha: float = 10.0
    policy_samples: int = 4
    random_samples: int = 4
    discount: float = 0.96
    target_rate: float = 0.005
    initial_temperature: float = 1.0
    target_entropy: float = -7.0
    positive_steps: int = 3
    reward_scale: float = 11.0
    reward_bias: float = -1.0
    clip_target: bool = False
    critic_action: Literal["executed", "label"] = "executed"
    bc_weight: float = 0.0
    q_weight: float = 1.0
    q_start_step: int = 0
    normalise_q: bool = False
    divergence_margin: float = 10.0

    @property
    def value_floor(self) -> float:
        """Smallest feasible Q: the failure reward for ever."""
        return self.reward_bias / (1.0 - self.discount)

    @property
    def value_ceiling(self) -> float:
        """Largest feasible Q: success at once."""
        return self.reward_scale + self.reward_bias


@dataclass(frozen=True)
class BcOptions:
    """Behaviour cloning.

    Attributes:
        huber_delta: Transition of the Huber loss on actions scaled to [-1, 1].
        likelihood_weight: Weight of the negative log-likelihood that fits the spread of the
            Gaussian (its mean is detached).
    """

    huber_delta: float = 0.1
    likelihood_weight: float = 0.01


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that a training run is made of, except data paths, output and seed.

    Attributes:
        algorithm: `bc` or `cql`.
        auxiliary_weight: Weight of the hindsight localisation loss; 0 removes the head.
        validation_share: Share of episodes kept out of training for validation loss.
        log_every: Steps between log lines.
        checkpoint_every: Steps between checkpoints.
        evaluate_every: Steps between closed-loop evaluations in simulation; 0 for none.
        evaluation_episodes: Episodes per task in each of them.
    """

    algorithm: Literal["bc", "cql"] = "cql"
    network: NetworkOptions = field(default_factory=NetworkOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    mixing: MixingOptions = field(default_factory=MixingOptions)
    optimisation: OptimisationOptions = field(default_factory=OptimisationOptions)
    cql: CqlOptions = field(default_factory=CqlOptions)
    bc: BcOptions = field(default_factory=BcOptions)
    auxiliary_weight: float = 0.0
    validation_share: float = 0.05
    log_every: int = 100
    checkpoint_every: int = 1000
    evaluate_every: int = 0
    evaluation_episodes: int = 10


def load_config(path: str | Path) -> TrainingConfig:
    """Read a training configuration.

    Args:
        path: YAML file; missing keys keep their defaults.

    Returns:
        The configuration.

    Raises:
        ConfigError: Unknown key, wrong type or impossible value; the message names the key.
    """
    document = yaml.safe_load(Path(path).read_text()) or {}
    return config_from(document, str(path))


def config_from(document: dict[str, Any], where: str = "configuration") -> TrainingConfig:
    """Build a configuration from plain values; see `load_config`."""
    config: TrainingConfig = _build(TrainingConfig, document, where)
    if config.cql.discount >= 1.0 or config.cql.discount <= 0.0:
        raise ConfigError(f"{where}: found discount {config.cql.discount}, expected 0 < x < 1")
    if not 0.0 <= config.validation_share < 1.0:
        raise ConfigError(
            f"{where}: found validation_share {config.validation_share}, expected 0 <= x < 1"
        )
    return config


def config_to(config: TrainingConfig) -> dict[str, Any]:
    """Plain values (dicts, lists, numbers, strings) of a configuration."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(config))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _build(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: found {value!r}, expected a mapping")
        hints = typing.get_type_hints(kind)
        known = {item.name for item in dataclasses.fields(kind)}
        unknown = sorted(set(value) - known)
        if unknown:
            raise ConfigError(
                f"{where}: unknown key {unknown[0]!r}; known keys: {', '.join(sorted(known))}"
            )
        return kind(  # type: ignore[operator]
            **{key: _build(hints[key], item, f"{where}: {key}") for key, item in value.items()}
        )
    if origin is Literal:
        if value not in typing.get_args(kind):
            raise ConfigError(
                f"{where}: found {value!r}, expected one of {', '.join(typing.get_args(kind))}"
            )
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: found {value!r}, expected a list")
        members = typing.get_args(kind)
        if members[-1] is Ellipsis:
            return tuple(_build(members[0], item, where) for item in value)
        if len(members) != len(value):
            raise ConfigError(f"{where}: found {len(value)} values, expected {len(members)}")
        return tuple(_build(m, item, where) for m, item in zip(members, value, strict=True))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{where}: found {value!r}, expected {kind.__name__}")
    return value
