"""The interface of networks that drive to a goal image: GNM, ViNT, NoMaD.

All of them see the last images of one camera, oldest first and a fixed time apart, and judge goal
images against them. Distances are in model steps (of `1/rate_hz` seconds at the robot's nominal
speed); waypoints are in units of the robot's waypoint spacing, x forward and y left of the pose at
the newest image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from node_common.strict_yaml import BundleError
from numpy.typing import NDArray

from policy_server.bundle import Bundle, load_bundle
from policy_server.deployment import CameraObservation
from policy_server.engine import EngineOptions, InferenceError, Pipeline, check_finite
from policy_server.kinds import Kinds
from policy_server.preprocessing import RESIZE_RULES


class NotSupportedError(RuntimeError):
    """The network cannot do what was asked of it."""


@dataclass(frozen=True)
class NavigationSpec:
    """What a navigation network sees and returns.

    Attributes:
        kind: gnm, vint or nomad.
        name: the bundle's name.
        fingerprint: hexadecimal digest of the bundle's model files; maps remember it, because
            embeddings and edge lengths of one network mean nothing to another.
        image_size: (width, height) of the network's images in pixels.
        context_size: past images beside the current one.
        rate_hz: rate of the context, and of the waypoints.
        horizon: number of waypoints.
        max_distance_steps: largest distance it was trained on.
        has_heading: whether waypoints have a heading of their own.
        embedding_size: size of place descriptors, 0 when it has none.
        can_explore: whether it can drive without a goal.
    """

    kind: str
    name: str
    fingerprint: str
    image_size: tuple[int, int]
    context_size: int
    rate_hz: float
    horizon: int
    max_distance_steps: float
    has_heading: bool
    embedding_size: int
    can_explore: bool


@dataclass(frozen=True)
class ObservationCode:
    """An encoded observation; `tensors` belongs to the network that made it."""

    tensors: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Match:
    """Goals judged against one observation.

    Attributes:
        distances: float32, shape (K,), model steps. A plain regression: it may leave the range
            of training a little at both ends.
        tensors: whatever `waypoints` needs, with K as first axis; belongs to the network.
    """

    distances: NDArray[np.float32]
    tensors: dict[str, NDArray[Any]]

    def __post_init__(self) -> None:
        """Raise InferenceError unless all numbers are finite."""
        for name, values in {"distances": self.distances, **self.tensors}.items():
            check_finite(name, values)


@runtime_checkable
class NavigationModel(Protocol):
    """A network that drives to a goal image. Not safe for use by several threads at once."""

    @property
    def spec(self) -> NavigationSpec:
        """What the network sees and returns."""

    def preprocess(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fit a camera image, uint8 RGB (H, W, 3), to the network's size: (h, w, 3)."""

    def observe(self, frames: Sequence[NDArray[np.uint8]]) -> ObservationCode:
        """Encode the last `context_size` + 1 preprocessed images, oldest first.

        Raises:
            ValueError: another number of images.
            InferenceError: an image has another shape or dtype.
        """

    def match(self, observation: ObservationCode, goals: NDArray[np.uint8]) -> Match:
        """Judge preprocessed goal images, uint8 (K, h, w, 3) with K ≥ 1, in one batch."""

    def waypoints(
        self, match: Match, index: int, *, seed: int | None = None, num_samples: int = 1
    ) -> NDArray[np.float32]:
        """Trajectories to goal `index`: float32 (S, T, 4) of x, y, cos, sin of the yaw.

        S is `num_samples` for networks that sample and 1 for others. Networks without heading get
        it from the direction of the path. `seed` decides what is sampled; None draws on.
        """

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Place descriptors of preprocessed images (N, h, w, 3): unit vectors (N, D).

        Raises:
            NotSupportedError: the network has none.
        """

    def explore(
        self, observation: ObservationCode, *, seed: int | None = None, num_samples: int = 1
    ) -> NDArray[np.float32]:
        """Trajectories (S, T, 4) without a goal.

        Raises:
            NotSupportedError: the network needs a goal.
        """


NAVIGATION_MODELS: Kinds[NavigationModel] = Kinds(
    "navigation model", "coxswain.navigation_models", ("gnm", "vint", "nomad")
)


def load_navigation_model(
    bundle_dir: str | Path, threads: int = 1, provider: str = "auto"
) -> NavigationModel:
    """Read, verify and load a navigation bundle.

    Args:
        bundle_dir: the bundle's directory, or its YAML file.
        threads: CPU threads per stage. One is enough for the rate of these networks and leaves
            the robot's other nodes their cores.
        provider: see `EngineOptions`.

    Raises:
        BundleError: the bundle is damaged or is not one of a navigation network.
    """
    path = Path(bundle_dir)
    file = path / f"{path.resolve().name}.yaml" if path.is_dir() else path
    return create_navigation_model(
        load_bundle(file), EngineOptions(provider=provider, threads=threads, fuse=True)
    )


def create_navigation_model(bundle: Bundle, options: EngineOptions) -> NavigationModel:
    """Make the network that a verified bundle holds, and warm it up.

    Raises:
        BundleError: its kind is unknown, or what it computes from images cannot be used.
    """
    model = NAVIGATION_MODELS.create(bundle, options)
    try:
        _warm_up(model)
    except InferenceError as error:
        raise BundleError(bundle.file, "warm-up", error, "finite numbers") from None
    return model


def _warm_up(model: NavigationModel) -> None:
    """Use every stage once, on images with structure."""
    spec = model.spec
    width, height = spec.image_size
    shape = (spec.context_size + 1, height, width, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    observation = model.observe(list(frames))
    check_finite("waypoints", model.waypoints(model.match(observation, frames[:2]), 0, seed=0))
    if spec.embedding_size:
        check_finite("embedding", model.embed(frames[:1]))
    if spec.can_explore:
        check_finite("waypoints", model.explore(observation, seed=0))


def navigation_spec(bundle: Bundle) -> NavigationSpec:
    """The specification out of a bundle's deployment section.

    Raises:
        BundleError: the observation named `context` is missing, or the action is not waypoints.
    """
    deployment = bundle.deployment
    navigation = deployment.navigation
    assert navigation is not None
    context = camera_named(bundle, "context")
    names = deployment.action.names
    if names not in (("x", "y"), ("x", "y", "cos", "sin")):
        raise BundleError(
            bundle.file, "deployment.action.names", list(names), "[x, y] or [x, y, cos, sin]"
        )
    digests = "".join(f"{file}:{deployment.files[file]}" for file in sorted(deployment.files))
    return NavigationSpec(
        kind=deployment.policy.kind,
        name=bundle.name,
        fingerprint=hashlib.sha256(digests.encode()).hexdigest(),
        image_size=context.size,
        context_size=context.history - 1,
        rate_hz=deployment.rate_hz,
        horizon=deployment.horizon,
        max_distance_steps=navigation.max_distance_steps,
        has_heading=len(names) == 4,
        embedding_size=bundle.output(navigation.embedding).shape[-1] if navigation.embedding else 0,
        can_explore=navigation.can_explore,
    )


def camera_named(bundle: Bundle, name: str) -> CameraObservation:
    """The camera observation of that name. Raises BundleError when there is none."""
    for camera in bundle.deployment.cameras:
        if camera.name == name:
            return camera
    raise BundleError(
        bundle.file, "deployment.observations", "no such camera", f"one with the name {name}"
    )


def require_roles(bundle: Bundle, roles: Sequence[str]) -> None:
    """Raise BundleError unless the bundle has a stage for every role."""
    stages = bundle.deployment.stages
    for role in roles:
        if role not in stages:
            raise BundleError(
                bundle.file,
                f"deployment.stages.{role}",
                sorted(stages),
                f"a stage with the role {role}",
            )


def require_free_batch(bundle: Bundle, pipeline: Pipeline, tensors: Sequence[str]) -> None:
    """Raise BundleError unless the first axis of every input, "stage/name", is free."""
    for tensor in tensors:
        node, name = tensor.split("/")
        if not pipeline.stages[node].symbolic_batch(name):
            raise BundleError(bundle.file, f"models.{tensor}", "a fixed batch", "a free first axis")


def check_context(context: CameraObservation, frames: Sequence[NDArray[np.uint8]]) -> None:
    """Raise ValueError unless there are as many images as the network's context has."""
    if len(frames) != context.history:
        raise ValueError(f"found {len(frames)} images, expected {context.history}, oldest first")


def check_goals(goals: NDArray[np.uint8]) -> None:
    """Raise InferenceError unless there is a goal."""
    if not len(goals):
        raise InferenceError("found no goal image, expected at least one")


def check_index(match: Match, index: int) -> None:
    """Raise IndexError unless `index` names a goal of `match`."""
    if not 0 <= index < len(match.distances):
        raise IndexError(f"found the index {index}, expected 0 to {len(match.distances) - 1}")


def fit_image(camera: CameraObservation, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fit a camera image to the network's size by the rule that the bundle names."""
    return RESIZE_RULES[camera.resize](image, camera.size)


def with_path_heading(positions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give waypoints (..., T, 2) the direction of the path as heading: (..., T, 4).

    A waypoint's direction is that from the one before it, the first's from the robot; where the
    path stands still, the direction before it holds.
    """
    steps = np.diff(positions, axis=-2, prepend=np.zeros_like(positions[..., :1, :]))
    lengths = np.linalg.norm(steps, axis=-1)
    result = np.empty((*positions.shape[:-1], 4), np.float32)
    result[..., :2] = positions
    direction = np.broadcast_to(np.array([1.0, 0.0], np.float32), (*positions.shape[:-2], 2)).copy()
    for index in range(positions.shape[-2]):
        moved = lengths[..., index] > 1e-6
        direction[moved] = steps[..., index, :][moved] / lengths[..., index][moved][..., None]
        result[..., index, 2:] = direction
    return result
