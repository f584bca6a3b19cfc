"""A policy that is any pipeline of models whose output is an action or a chunk of actions."""

from __future__ import annotations

import numpy as np
from node_common.strict_yaml import BundleError

from policy_server.bundle import Bundle
from policy_server.deployment import Deployment
from policy_server.engine import EngineOptions, InferenceError, Pipeline
from policy_server.policy import ActionChunk, Observation, ObservationBinder
from policy_server.registry import register_policy


@register_policy("chunked")
class ChunkedPolicy:
    """Runs all models of a bundle; the action is one step (1, A) or a chunk (1, H, A).

    Feedback between models advances once per inference, not once per executed step.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        self._spec = bundle.deployment
        action = self._spec.action
        shape = bundle.output(action.tensor).shape
        self._steps = shape[-2] if len(shape) == 3 else 1
        if len(shape) not in (2, 3) or shape[0] != 1:
            raise BundleError(
                bundle.file, "deployment.action.tensor", list(shape), "a shape [1, A] or [1, H, A]"
            )
        if action.chunk.execute_steps > self._steps:
            raise BundleError(
                bundle.file,
                "deployment.action.chunk.execute_steps",
                action.chunk.execute_steps,
                f"at most the {self._steps} steps of {action.tensor}",
            )
        bound = {t for observation in self._spec.observations for t in observation.tensors}
        unbound = sorted(set(bundle.external_inputs) - bound)
        if unbound:
            raise BundleError(
                bundle.file,
                "deployment.observations",
                f"nothing for {unbound}",
                "an observation for every input",
            )
        self._pipeline = Pipeline(bundle, options)
        self._bind = ObservationBinder(bundle).bind

    @property
    def spec(self) -> Deployment:
        """The bundle's deployment section."""
        return self._spec

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the execution provider in use."""
        return self._pipeline.provider

    def reset(self, seed: int) -> None:
        """Restore the models' memory; `seed` is not needed."""
        self._pipeline.reset()

    def infer(self, observation: Observation, num_samples: int = 1) -> ActionChunk:
        """See `Policy.infer`. Such a policy has one action: more samples are refused."""
        if num_samples != 1:
            raise InferenceError(
                f"found num_samples {num_samples}, expected 1: a chunked policy does not sample"
            )
        outputs = self._pipeline.run(self._bind(observation))
        chunk = outputs[self._spec.action.tensor].reshape(1, self._steps, -1)
        return ActionChunk(chunk.astype(np.float32), stage_times_s=self._pipeline.stage_times_s)
