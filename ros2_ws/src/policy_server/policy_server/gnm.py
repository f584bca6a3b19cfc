"""GNM: distance and waypoints to goal images by regression (Shah et al. 2023).

Stages: `observe` encodes the context once per tick and computes the share that it has in the first
convolution of the goal encoder; `match` does the rest for a batch of goals; `embed` describes
places.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from node_common.strict_yaml import BundleError
from numpy.typing import NDArray

from policy_server.bundle import Bundle, TensorSpec
from policy_server.engine import EngineOptions, Pipeline, check_finite
from policy_server.navigation_model import (
    NAVIGATION_MODELS,
    Match,
    NavigationSpec,
    NotSupportedError,
    ObservationCode,
    camera_named,
    check_context,
    check_goals,
    check_index,
    fit_image,
    navigation_spec,
    require_free_batch,
    require_roles,
    with_path_heading,
)

_ROLES = ("observe", "match")


@NAVIGATION_MODELS.register("gnm")
class GnmModel:
    """A GNM bundle; see `NavigationModel`.

    Roles: `observe` with the input of the observation `context` (frames, h, w, 3); `match` with the
    input of the observation `goals` (K, h, w, 3), K free in the graph, fed by all outputs of
    `observe`, whose outputs are the distances (K, 1) and the action (K, T, 2 or 4); optionally
    `embed`, with the input of the observation `places` (N, h, w, 3), N free, and the embedding.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        self._spec = navigation_spec(bundle)
        deployment = bundle.deployment
        assert deployment.navigation is not None
        require_roles(bundle, _ROLES)
        self._observe, self._match = (deployment.stages[role] for role in _ROLES)
        self._embed = deployment.stages.get("embed", "")
        self._context = camera_named(bundle, "context")
        self._context_tensor = self._context.tensors[0]
        self._goals_tensor = camera_named(bundle, "goals").tensors[0]
        self._distance = deployment.navigation.distance
        self._action = deployment.action.tensor
        self._embedding = deployment.navigation.embedding
        width = len(deployment.action.names)
        _require_output(bundle, self._distance, (1, 1))
        _require_output(bundle, self._action, (1, deployment.horizon, width))
        self._pipeline = Pipeline(bundle, options)
        batched = [self._goals_tensor]
        if self._embed:
            self._places_tensor = camera_named(bundle, "places").tensors[0]
            batched.append(self._places_tensor)
        require_free_batch(bundle, self._pipeline, batched)
        self._code_flow = {
            source: destinations
            for source, destinations in bundle.data_flow.items()
            if source.split("/")[0] == self._observe
        }

    @property
    def spec(self) -> NavigationSpec:
        """What the network sees and returns."""
        return self._spec

    def preprocess(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `NavigationModel.preprocess`."""
        return fit_image(self._context, image)

    def observe(self, frames: Sequence[NDArray[np.uint8]]) -> ObservationCode:
        """See `NavigationModel.observe`."""
        check_context(self._context, frames)
        inputs = {self._context_tensor: np.stack(list(frames))}
        outputs = self._pipeline.run(inputs, (self._observe,))
        return ObservationCode(
            {
                destination: outputs[source]
                for source, destinations in self._code_flow.items()
                for destination in destinations
            }
        )

    def match(self, observation: ObservationCode, goals: NDArray[np.uint8]) -> Match:
        """See `NavigationModel.match`."""
        check_goals(goals)
        inputs = {**observation.tensors, self._goals_tensor: np.ascontiguousarray(goals)}
        outputs = self._pipeline.run(inputs, (self._match,))
        return Match(outputs[self._distance][:, 0], {"waypoints": outputs[self._action]})

    def waypoints(
        self, match: Match, index: int, *, seed: int | None = None, num_samples: int = 1
    ) -> NDArray[np.float32]:
        """See `NavigationModel.waypoints`. Nothing is sampled: S is 1."""
        check_index(match, index)
        trajectory: NDArray[np.float32] = match.tensors["waypoints"][index : index + 1]
        return trajectory.copy() if self._spec.has_heading else with_path_heading(trajectory)

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `NavigationModel.embed`."""
        if not self._embed:
            raise NotSupportedError(f"the bundle {self._spec.name} has no place descriptors")
        if not len(images):
            return np.empty((0, self._spec.embedding_size), np.float32)
        inputs = {self._places_tensor: np.ascontiguousarray(images)}
        embedding = self._pipeline.run(inputs, (self._embed,))[self._embedding]
        check_finite("embedding", embedding)
        return embedding

    def explore(
        self, observation: ObservationCode, *, seed: int | None = None, num_samples: int = 1
    ) -> NDArray[np.float32]:
        """GNM needs a goal: always raises NotSupportedError."""
        raise NotSupportedError("a GNM cannot explore: it has no mode without a goal")


def _require_output(bundle: Bundle, key: str, shape: tuple[int, ...]) -> None:
    expected = TensorSpec(key.split("/")[1], "float32", shape)
    found = bundle.output(key)
    if found != expected:
        raise BundleError(
            bundle.file,
            f"models.{key}",
            f"{found.dtype} {list(found.shape)}",
            f"{expected.dtype} {list(expected.shape)}",
        )
