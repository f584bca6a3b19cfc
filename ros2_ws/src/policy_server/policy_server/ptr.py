"""PTR: a task-conditioned tanh-Gaussian actor, with its critic when the bundle has one.

Kumar et al., "Pre-Training for Robots: Offline RL Enables Learning New Tasks from a Handful of
Trials" (2022). The action for evaluation is the squashed mean; with several samples the one with
the highest minimum over the critic's heads is executed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from node_common.strict_yaml import BundleError
from numpy.typing import NDArray

from policy_server.bundle import Bundle, TensorSpec
from policy_server.deployment import Deployment
from policy_server.engine import EngineOptions, Pipeline
from policy_server.policy import ActionChunk, Observation, ObservationBinder
from policy_server.registry import register_policy

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


@register_policy("ptr")
class PtrPolicy:
    """The PTR actor.

    The bundle's roles: `policy` with the outputs `action_mean` and `action_log_std` (1, A), those
    of the Gaussian before tanh; `encoder` when the image is encoded by itself; `critic` with an
    input `action` (B, A) in [-1, 1] and one output of 2·B values, and `critic_encoder`, if
    actions are to be scored.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        self._spec = bundle.deployment
        stages = self._spec.stages
        if "policy" not in stages:
            raise _role_error(bundle, "policy", sorted(stages), "a stage with the role policy")
        self._actor = tuple(stages[role] for role in ("encoder", "policy") if role in stages)
        self._critic = stages.get("critic")
        self._critic_encoder = stages.get("critic_encoder")
        node = stages["policy"]
        self._mean_key, self._log_std_key = f"{node}/action_mean", f"{node}/action_log_std"
        width = len(self._spec.action.names)
        for key in (self._spec.action.tensor, self._mean_key, self._log_std_key):
            _require_output(bundle, key, TensorSpec(key.split("/")[1], "float32", (1, width)))
        if self._critic_encoder and not self._critic:
            raise _role_error(bundle, "critic_encoder", self._critic_encoder, "a critic beside it")
        self._check_inputs(bundle)
        self._pipeline = Pipeline(bundle, options)
        self._bind = ObservationBinder(bundle).bind
        action = self._spec.action
        self._low = action.low.astype(np.float32)
        self._high = action.high.astype(np.float32)
        self._critic_batch: int | None = None
        if self._critic and not self._pipeline.stages[self._critic].symbolic_batch("action"):
            self._critic_batch = bundle.input(f"{self._critic}/action").shape[0]
        self._random = np.random.default_rng(0)

    @property
    def spec(self) -> Deployment:
        """The bundle's deployment section."""
        return self._spec

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the execution provider in use."""
        return self._pipeline.provider

    def reset(self, seed: int) -> None:
        """Restart the random numbers for sampling."""
        self._pipeline.reset()
        self._random = np.random.default_rng(seed)

    def infer(self, observation: Observation, num_samples: int = 1) -> ActionChunk:
        """See `Policy.infer`. Samples are drawn after `reset`'s seed."""
        feed = self._bind(observation)
        actor_feed = {k: v for k, v in feed.items() if k.split("/", 1)[0] in self._actor}
        outputs = self._pipeline.run(actor_feed, self._actor)
        if num_samples == 1:
            action = outputs[self._spec.action.tensor]
            return ActionChunk(action[:, None], stage_times_s=self._times(self._actor))
        log_std = np.clip(outputs[self._log_std_key], LOG_STD_MIN, LOG_STD_MAX)
        noise = self._random.standard_normal((num_samples, self._low.size), dtype=np.float32)
        squashed = np.tanh(outputs[self._mean_key] + np.exp(log_std) * noise)
        actions = self._low + (squashed + 1.0) * 0.5 * (self._high - self._low)
        if self._critic is None:
            return ActionChunk(actions[:, None], stage_times_s=self._times(self._actor))
        scores = self._score(feed, squashed)
        return ActionChunk(
            actions[:, None],
            chosen=int(np.argmax(scores)),
            scores=scores,
            stage_times_s=self._times((*self._actor, *self._critic_nodes)),
        )

    @property
    def _critic_nodes(self) -> tuple[str, ...]:
        return tuple(node for node in (self._critic_encoder, self._critic) if node)

    def _times(self, nodes: tuple[str, ...]) -> dict[str, float]:
        times = self._pipeline.stage_times_s
        return {node: times[node] for node in nodes}

    def _score(
        self, feed: dict[str, NDArray[Any]], squashed: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Minimum over the critic's two heads, shape (K,), of actions (K, A) in [-1, 1]."""
        assert self._critic is not None
        head = {k: v for k, v in feed.items() if k.split("/", 1)[0] == self._critic}
        if self._critic_encoder:
            encoder_feed = {
                k: v for k, v in feed.items() if k.split("/", 1)[0] == self._critic_encoder
            }
            embedded = self._pipeline.run(encoder_feed, (self._critic_encoder,))
            for key, value in embedded.items():
                for tensor in self._pipeline.bundle.data_flow.get(key, ()):
                    if tensor.split("/", 1)[0] == self._critic:
                        head[tensor] = value
        count = len(squashed)
        batch = self._critic_batch or count
        padded = np.concatenate([squashed, np.repeat(squashed[-1:], -count % batch, axis=0)])
        if self._critic_batch is None:
            head = {key: np.repeat(value, count, axis=0) for key, value in head.items()}
        scores = []
        for start in range(0, len(padded), batch):
            head[f"{self._critic}/action"] = padded[start : start + batch]
            (q_values,) = self._pipeline.run(head, (self._critic,)).values()
            scores.append(q_values.reshape(2, batch).min(axis=0))
        return np.concatenate(scores)[:count].astype(np.float32)

    def _check_inputs(self, bundle: Bundle) -> None:
        bound = {t for observation in self._spec.observations for t in observation.tensors}
        if self._critic:
            key = f"{self._critic}/action"
            width = len(self._spec.action.names)
            try:
                found = bundle.input(key)
            except KeyError:
                found = None
            if found is None or found.dtype != "float32" or found.shape[1:] != (width,):
                shown = f"{found.dtype} {list(found.shape)}" if found else "no such input"
                raise _role_error(bundle, "critic", shown, f"an input {key} float32 [B, {width}]")
            bound.add(key)
        for tensor in bundle.external_inputs:
            if tensor not in bound:
                raise BundleError(
                    bundle.file,
                    "deployment.observations",
                    f"nothing for {tensor}",
                    "an observation for every input",
                )


def _role_error(bundle: Bundle, role: str, found: object, expected: str) -> BundleError:
    return BundleError(bundle.file, f"deployment.stages.{role}", found, expected)


def _require_output(bundle: Bundle, key: str, expected: TensorSpec) -> None:
    try:
        found: TensorSpec | None = bundle.output(key)
    except KeyError:
        found = None
    if found != expected:
        raise BundleError(
            bundle.file,
            f"models.{key}",
            f"{found.dtype} {list(found.shape)}" if found else "no such output",
            f"an output {expected.dtype} {list(expected.shape)}",
        )
