"""The baseline that looks at nothing: uniform random actions."""

from __future__ import annotations

import numpy as np

from policy_server.bundle import Bundle
from policy_server.deployment import Deployment
from policy_server.engine import EngineOptions
from policy_server.policy import ActionChunk, Observation
from policy_server.registry import register_policy


@register_policy("random")
class RandomPolicy:
    """Draws each entry of the action uniformly within the bundle's bounds; runs no model."""

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        self._spec = bundle.deployment
        self._random = np.random.default_rng(0)

    @property
    def spec(self) -> Deployment:
        """The bundle's deployment section."""
        return self._spec

    def reset(self, seed: int) -> None:
        """Restart the random numbers."""
        self._random = np.random.default_rng(seed)

    def infer(self, observation: Observation, num_samples: int = 1) -> ActionChunk:
        """See `Policy.infer`."""
        action = self._spec.action
        shape = (num_samples, 1, len(action.names))
        actions = self._random.uniform(action.low, action.high, shape)
        return ActionChunk(actions.astype(np.float32))
