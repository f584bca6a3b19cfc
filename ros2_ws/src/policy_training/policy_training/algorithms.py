"""Learning rules: behaviour cloning and PTR's conservative Q-learning."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from policy_training.config import OptimisationOptions, TrainingConfig
from policy_training.losses import (
    action_huber,
    conservative_term,
    localisation_loss,
    sample_tanh_gaussian,
    tanh_gaussian_log_prob,
    td_target,
)
from policy_training.networks import Actor, Critic
from policy_training.sampling import Batch

FINAL_LEARNING_RATE_SHARE = 0.02
GRADIENT_NORM_LIMIT = 10.0


class DivergenceError(RuntimeError):
    """Training left the range in which its results can mean anything."""


class Algorithm(Protocol):
    """One learning rule with its networks and optimisers."""

    actor: Actor

    @property
    def critic(self) -> Critic | None:
        """The Q network, if the rule has one."""

    def update(self, batch: Batch, step: int, generator: torch.Generator) -> dict[str, float]:
        """Do one step and return what to log."""

    def state(self) -> dict[str, Any]:
        """Everything but the networks of `actor` and `critic`, for resuming."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a `state`."""


def learning_rate_share(options: OptimisationOptions, step: int) -> float:
    """Share of the full learning rate at a step: linear warm-up, then constant or cosine."""
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    if options.schedule == "constant":
        return 1.0
    span = max(1, options.steps - options.warmup_steps)
    progress = min(1.0, (step - options.warmup_steps) / span)
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return FINAL_LEARNING_RATE_SHARE + (1.0 - FINAL_LEARNING_RATE_SHARE) * cosine


class BehaviourCloning:
    """Huber regression of tanh(mean) on the noise-free actions, plus a fit of the spread."""

    def __init__(self, actor: Actor, config: TrainingConfig) -> None:
        self.actor = actor
        self.critic: Critic | None = None
        self._config = config
        self._optimiser = _adam(
            actor.parameters(), config.optimisation.actor_learning_rate, config.optimisation
        )

    def update(self, batch: Batch, step: int, generator: torch.Generator) -> dict[str, float]:
        """One step on one batch."""
        loss, metrics = self.loss(batch)
        _step(self._optimiser, loss, self._config.optimisation, step)
        return metrics

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Loss and its parts on a batch, without a step."""
        config = self._config
        embedding = _embed(self.actor, batch.image, batch.task, config)
        mean, log_std = self.actor.head(embedding, batch.state, batch.task)
        huber = action_huber(mean, batch.label, config.bc.huber_delta)
        likelihood = -tanh_gaussian_log_prob(mean.detach(), log_std, batch.label).mean()
        total = huber + config.bc.likelihood_weight * likelihood
        metrics = {
            "bc/huber": float(huber.detach()),
            "bc/negative_log_likelihood": float(likelihood.detach()),
            "bc/action_error": float((torch.tanh(mean) - batch.label).abs().mean().detach()),
        }
        auxiliary = _auxiliary(self.actor, embedding, batch)
        if auxiliary is not None:
            total = total + config.auxiliary_weight * auxiliary
            metrics["bc/localisation"] = float(auxiliary.detach())
        return total, metrics

    def state(self) -> dict[str, Any]:
        """Optimiser state."""
        return {"actor_optimiser": self._optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a `state`."""
        self._optimiser.load_state_dict(state["actor_optimiser"])


class ConservativeQLearning:
    """CQL on a SAC backbone as in PTR, with the options that `CqlOptions` adds to it."""

    def __init__(self, actor: Actor, critic: Critic, config: TrainingConfig) -> None:
        self.actor = actor
        self.critic: Critic = critic
        self._config = config
        self._target = copy.deepcopy(critic).requires_grad_(False)
        self._log_temperature = nn.Parameter(torch.tensor(math.log(config.cql.initial_temperature)))
        options = config.optimisation
        self._actor_optimiser = _adam(actor.parameters(), options.actor_learning_rate, options)
        self._critic_optimiser = _adam(critic.parameters(), options.critic_learning_rate, options)
        self._temperature_optimiser = torch.optim.Adam(
            [self._log_temperature], options.temperature_learning_rate
        )
        self._temperature_optimiser.param_groups[0]["full_lr"] = options.temperature_learning_rate
        self._q_data_average: float | None = None

    def warm_start(self) -> None:
        """Copy the actor's image encoder into the critic and its target.

        A random critic encoder would have to find the objects from the value signal alone.
        """
        for critic in (self.critic, self._target):
            critic.encoder.load_state_dict(self.actor.encoder.state_dict())
            if critic.localiser is not None and self.actor.localiser is not None:
                critic.localiser.load_state_dict(self.actor.localiser.state_dict())

    def update(self, batch: Batch, step: int, generator: torch.Generator) -> dict[str, float]:
        """One step of critic, actor, temperature and target critic.

        Raises:
            DivergenceError: The averaged Q of the data is NaN or far outside the feasible range.
        """
        config, options = self._config, self._config.cql
        embedding = _embed(self.actor, batch.image, batch.task, config)
        mean, log_std = self.actor.head(embedding, batch.state, batch.task)
        actions, log_prob = sample_tanh_gaussian(mean, log_std, options.policy_samples, generator)

        metrics = self._update_critic(batch, actions.detach(), log_prob.detach(), step, generator)

        with torch.no_grad():
            critic_embedding = _embed(self.critic, batch.image, batch.task, config)
        self.critic.requires_grad_(False)
        q = self.critic.head(critic_embedding, actions, batch.task).min(dim=0).values
        self.critic.requires_grad_(True)
        temperature = self._log_temperature.exp().detach()
        scale = q.detach().abs().mean().clamp_min(1.0) if options.normalise_q else 1.0
        if step < options.q_start_step:
            likelihood = tanh_gaussian_log_prob(mean.detach(), log_std, batch.label)
            loss = -config.bc.likelihood_weight * likelihood.mean()
        else:
            loss = (temperature * log_prob - options.q_weight * q / scale).mean()
        if options.bc_weight > 0.0:
            huber = action_huber(mean, batch.label, config.bc.huber_delta)
            loss = loss + options.bc_weight * huber
        auxiliary = _auxiliary(self.actor, embedding, batch)
        if auxiliary is not None:
            loss = loss + config.auxiliary_weight * auxiliary
            metrics["cql/localisation"] = float(auxiliary.detach())
        _step(self._actor_optimiser, loss, config.optimisation, step)

        entropy = -log_prob.detach().mean()
        if step >= options.q_start_step:
            _step(
                self._temperature_optimiser,
                self._log_temperature.exp() * (entropy - options.target_entropy),
                config.optimisation,
                step,
            )
        self._move_target()
        metrics |= {
            "cql/q_policy": float(q.detach().mean()),
            "cql/entropy": float(entropy),
            "cql/temperature": float(temperature),
            "cql/action_error": float((torch.tanh(mean) - batch.label).abs().mean().detach()),
            "cql/floor": options.value_floor,
        }
        self._check(metrics["cql/q_data"], step)
        return metrics

    def _update_critic(
        self,
        batch: Batch,
        actions: Tensor,
        log_prob: Tensor,
        step: int,
        generator: torch.Generator,
    ) -> dict[str, float]:
        config, options = self._config, self._config.cql
        with torch.no_grad():
            next_embedding = _embed(self.actor, batch.next_image, batch.task, config)
            next_mean, next_log_std = self.actor.head(next_embedding, batch.next_state, batch.task)
            next_actions, _ = sample_tanh_gaussian(
                next_mean, next_log_std, options.policy_samples, generator
            )
            next_embedding = _embed(self._target, batch.next_image, batch.task, config)
            next_q = self._target.head(next_embedding, next_actions, batch.task)
            limits = (options.value_floor, options.value_ceiling) if options.clip_target else None
            target = td_target(batch.reward, batch.bootstrap, next_q, options.discount, limits)
        size, dimension = batch.label.shape
        random = torch.rand(size, options.random_samples, dimension, generator=generator) * 2.0 - 1
        data = batch.executed if options.critic_action == "executed" else batch.label
        embedding = _embed(self.critic, batch.image, batch.task, config)
        q = self.critic.head(
            embedding, torch.cat([data[:, None], random, actions], dim=1), batch.task
        )
        q_data, q_random, q_policy = q.split([1, random.shape[1], actions.shape[1]], dim=-1)
        q_data = q_data[..., 0]
        error = (q_data - target).square().mean()
        conservative = conservative_term(q_random, q_policy, log_prob, q_data, dimension)
        loss = error + options.alpha * conservative
        auxiliary = _auxiliary(self.critic, embedding, batch)
        if auxiliary is not None:
            loss = loss + config.auxiliary_weight * auxiliary
        _step(self._critic_optimiser, loss, config.optimisation, step)
        return {
            "cql/td_error": float(error.detach()),
            "cql/conservative": float(conservative.detach()),
            "cql/q_data": float(q_data.detach().mean()),
            "cql/q_random": float(q_random.detach().mean()),
            "cql/target": float(target.mean()),
        }

    def _move_target(self) -> None:
        rate = self._config.cql.target_rate
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self._target.parameters()), list(self.critic.parameters()), rate
            )

    def _check(self, q_data: float, step: int) -> None:
        options = self._config.cql
        average = self._q_data_average
        average = q_data if average is None else 0.99 * average + 0.01 * q_data
        self._q_data_average = average
        low = options.value_floor - options.divergence_margin
        high = options.value_ceiling + options.divergence_margin
        if not low <= average <= high:
            raise DivergenceError(
                f"step {step}: found an average Q of {average:.1f} on the data, expected "
                f"{low:.1f} … {high:.1f}; clip the targets, lower alpha or the critic's step size"
            )

    def state(self) -> dict[str, Any]:
        """Optimisers, temperature and target critic."""
        return {
            "actor_optimiser": self._actor_optimiser.state_dict(),
            "critic_optimiser": self._critic_optimiser.state_dict(),
            "temperature_optimiser": self._temperature_optimiser.state_dict(),
            "log_temperature": self._log_temperature.detach().clone(),
            "target_critic": self._target.state_dict(),
            "q_data_average": self._q_data_average,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a `state`."""
        self._actor_optimiser.load_state_dict(state["actor_optimiser"])
        self._critic_optimiser.load_state_dict(state["critic_optimiser"])
        self._temperature_optimiser.load_state_dict(state["temperature_optimiser"])
        self._log_temperature.data.copy_(state["log_temperature"])
        self._target.load_state_dict(state["target_critic"])
        self._q_data_average = state["q_data_average"]


def _embed(network: Actor | Critic, image: Tensor, task: Tensor, config: TrainingConfig) -> Tensor:
    """Embedding in float32; only the image encoder runs in reduced precision.

    Q values need more than bfloat16's three digits, and the heads cost little.
    """
    reduced = config.optimisation.precision == "bfloat16"
    with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
        embedding: Tensor = network.encoder(image, task)
    return embedding.float()


def _auxiliary(network: Actor | Critic, embedding: Tensor, batch: Batch) -> Tensor | None:
    if network.localiser is None:
        return None
    prediction = network.localiser(torch.cat([embedding, batch.task], dim=-1))
    return localisation_loss(prediction, batch.auxiliary, batch.auxiliary_weight)


def _adam(
    parameters: Iterable[nn.Parameter], rate: float, options: OptimisationOptions
) -> torch.optim.AdamW:
    optimiser = torch.optim.AdamW(parameters, rate, weight_decay=options.weight_decay)
    optimiser.param_groups[0]["full_lr"] = rate
    return optimiser


def _step(
    optimiser: torch.optim.Optimizer, loss: Tensor, options: OptimisationOptions, step: int
) -> None:
    for group in optimiser.param_groups:
        group["lr"] = group["full_lr"] * learning_rate_share(options, step)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for group in optimiser.param_groups:
        clip_gradients(group["params"], GRADIENT_NORM_LIMIT, loss, step)
    optimiser.step()


def clip_gradients(
    parameters: Iterable[nn.Parameter], limit: float, loss: Tensor, step: int
) -> None:
    """Scale the gradients so that their norm is `limit` at most.

    Raises:
        DivergenceError: The loss or a gradient is not finite: the step would spoil all weights.
    """
    norm = nn.utils.clip_grad_norm_(parameters, limit)
    if not (torch.isfinite(norm) and torch.isfinite(loss)):
        raise DivergenceError(
            f"step {step}: found a loss of {float(loss.detach())} and gradients of norm "
            f"{float(norm)}, expected finite ones; the checkpoints before remain"
        )
