"""NoMaD: waypoints to a goal, or without one, by diffusion (Sridhar et al. 2024)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy_server.bundle import Bundle
from policy_server.engine import EngineOptions, check_finite
from policy_server.navigation_model import (
    NAVIGATION_MODELS,
    Match,
    ObservationCode,
    check_index,
    with_path_heading,
)
from policy_server.vint import TOKENS, VintModel


@NAVIGATION_MODELS.register("nomad")
class NomadModel(VintModel):
    """A NoMaD bundle; see `NavigationModel`, and `VintModel` for `observe`, `goal` and `match`.

    `match` returns contexts in place of waypoints. Further roles: `explore`, tokens (F, D) →
    context (1, D); `denoise`, fed with standard normal `start` (S, T, 2) and `noise`
    (S, steps - 1, T, 2) and with contexts (S, D) → waypoints (S, T, 2).
    """

    ROLES = ("observe", "goal", "match", "explore", "denoise")

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        super().__init__(bundle, options)
        self._contexts = self._flow("match", "denoise")
        self._explore_tokens = self._flow("observe", "explore")[1]
        node = self._nodes["denoise"]
        model = next(model for model in bundle.models if model.name == node)
        self._explored = next(m for m in bundle.models if m.name == self._nodes["explore"]).outputs
        self._noise_shapes = {
            f"{node}/{tensor.name}": tensor.shape[1:]
            for tensor in model.inputs
            if f"{node}/{tensor.name}" != self._contexts[1]
        }
        self._generator = np.random.default_rng()

    def waypoints(
        self, match: Match, index: int, *, seed: int | None = None, num_samples: int = 1
    ) -> NDArray[np.float32]:
        """See `NavigationModel.waypoints`."""
        check_index(match, index)
        context = match.tensors[self._contexts[0]][index : index + 1]
        return self._denoise(context, seed, num_samples)

    def explore(
        self, observation: ObservationCode, *, seed: int | None = None, num_samples: int = 1
    ) -> NDArray[np.float32]:
        """See `NavigationModel.explore`."""
        outputs = self._run("explore", {self._explore_tokens: observation.tensors[TOKENS]})
        context = outputs[f"{self._nodes['explore']}/{self._explored[0].name}"]
        return self._denoise(context, seed, num_samples)

    def _denoise(
        self, context: NDArray[np.float32], seed: int | None, num_samples: int
    ) -> NDArray[np.float32]:
        if num_samples < 1:
            raise ValueError(f"found {num_samples} samples, expected at least 1")
        generator = self._generator if seed is None else np.random.default_rng(seed)
        inputs: dict[str, NDArray[Any]] = {
            name: generator.standard_normal((num_samples, *shape), dtype=np.float32)
            for name, shape in self._noise_shapes.items()
        }
        inputs[self._contexts[1]] = np.repeat(context, num_samples, axis=0)
        waypoints = self._run("denoise", inputs)[self._action]
        check_finite("waypoints", waypoints)
        return with_path_heading(waypoints)
