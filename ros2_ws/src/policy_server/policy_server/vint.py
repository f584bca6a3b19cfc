"""ViNT: a token per image, distance and waypoints by regression (Shah et al. 2023)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from node_common.strict_yaml import BundleError
from numpy.typing import NDArray

from policy_server.bundle import Bundle
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
)

TOKENS = "tokens"
CURRENT = "current"
_CACHED_GOALS = 256


@NAVIGATION_MODELS.register("vint")
class VintModel:
    """A ViNT bundle; see `NavigationModel`.

    Roles: `observe` with the input of the observation `context`, images (N, h, w, 3) → tokens
    (N, D), N free; `goal` with that of `goals` (K, h, w, 3) and, unless the network fuses late, of
    `current` (1, h, w, 3) → goal tokens (K, D); `match`, fed by both, → distances (K, 1) and the
    action (K, T, 4). Every image passes `observe` once: its token is kept while it stays in the
    context. Goal tokens are kept when they depend on the goal alone.
    """

    ROLES: tuple[str, ...] = ("observe", "goal", "match")

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        self._spec = navigation_spec(bundle)
        deployment = bundle.deployment
        assert deployment.navigation is not None
        require_roles(bundle, self.ROLES)
        self._nodes = dict(deployment.stages)
        self._context = camera_named(bundle, "context")
        self._context_tensor = self._context.tensors[0]
        self._goals_tensor = camera_named(bundle, "goals").tensors[0]
        currents = [camera for camera in deployment.cameras if camera.name == CURRENT]
        self._current_tensor = currents[0].tensors[0] if currents else ""
        self._distance = deployment.navigation.distance
        self._embedding = deployment.navigation.embedding
        self._action = deployment.action.tensor
        self._bundle = bundle
        self._pipeline = Pipeline(bundle, options)
        self._tokens = self._flow("observe", "match")
        self._goal_tokens = self._flow("goal", "match")
        require_free_batch(bundle, self._pipeline, (self._context_tensor, self._goals_tensor))
        self._frame_cache: dict[bytes, NDArray[np.float32]] = {}
        self._goal_cache: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()

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
        keys = [frame.tobytes() for frame in frames]
        new = {
            key: frame
            for key, frame in zip(keys, frames, strict=True)
            if key not in self._frame_cache
        }
        known = self._frame_cache
        if new:
            inputs = {self._context_tensor: np.stack(list(new.values()))}
            tokens = self._run("observe", inputs)[self._tokens[0]]
            known = known | dict(zip(new, tokens, strict=True))
        self._frame_cache = {key: known[key] for key in keys}
        return ObservationCode(
            {TOKENS: np.stack([known[key] for key in keys]), CURRENT: frames[-1][None]}
        )

    def match(self, observation: ObservationCode, goals: NDArray[np.uint8]) -> Match:
        """See `NavigationModel.match`."""
        check_goals(goals)
        goals = np.ascontiguousarray(goals)
        outputs = self._run(
            "match",
            {
                self._tokens[1]: observation.tensors[TOKENS],
                self._goal_tokens[1]: self._encode_goals(observation, goals),
            },
        )
        distances = outputs.pop(self._distance)[:, 0]
        return Match(distances, outputs)

    def waypoints(
        self, match: Match, index: int, *, seed: int | None = None, num_samples: int = 1
    ) -> NDArray[np.float32]:
        """See `NavigationModel.waypoints`. Nothing is sampled: S is 1."""
        check_index(match, index)
        trajectory: NDArray[np.float32] = match.tensors[self._action][index : index + 1]
        return trajectory.copy()

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `NavigationModel.embed`: the token of each image as a unit vector."""
        if not self._embedding:
            raise NotSupportedError(f"the bundle {self._spec.name} has no place descriptors")
        if not len(images):
            return np.empty((0, self._spec.embedding_size), np.float32)
        inputs = {self._context_tensor: np.ascontiguousarray(images)}
        embedding = self._run("observe", inputs)[self._embedding]
        check_finite("embedding", embedding)
        return embedding

    def explore(
        self, observation: ObservationCode, *, seed: int | None = None, num_samples: int = 1
    ) -> NDArray[np.float32]:
        """ViNT needs a goal: always raises NotSupportedError."""
        raise NotSupportedError("a ViNT cannot explore: it has no mode without a goal")

    def _encode_goals(
        self, observation: ObservationCode, goals: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        if self._current_tensor:
            inputs = {
                self._current_tensor: observation.tensors[CURRENT],
                self._goals_tensor: goals,
            }
            return self._run("goal", inputs)[self._goal_tokens[0]]
        keys = [goal.tobytes() for goal in goals]
        new = {k: g for k, g in zip(keys, goals, strict=True) if k not in self._goal_cache}
        if new:
            inputs = {self._goals_tensor: np.stack(list(new.values()))}
            tokens = self._run("goal", inputs)[self._goal_tokens[0]]
            self._goal_cache.update(zip(new, tokens, strict=True))
        result = np.stack([self._goal_cache[key] for key in keys])
        for key in keys:
            self._goal_cache.move_to_end(key)
        while len(self._goal_cache) > max(_CACHED_GOALS, len(keys)):
            self._goal_cache.popitem(last=False)
        return result

    def _run(self, role: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        return self._pipeline.run(inputs, (self._nodes[role],))

    def _flow(self, source_role: str, destination_role: str) -> tuple[str, str]:
        """The tensor that goes from one stage to another, under its name at each."""
        bundle = self._bundle
        source_node, destination_node = self._nodes[source_role], self._nodes[destination_role]
        found = [
            (source, destination)
            for source, destinations in bundle.data_flow.items()
            for destination in destinations
            if source.split("/")[0] == source_node and destination.split("/")[0] == destination_node
        ]
        if len(found) != 1:
            raise BundleError(
                bundle.file,
                "pipeline.data_flow",
                f"{len(found)} tensors from {source_node} to {destination_node}",
                "exactly one",
            )
        return found[0]
