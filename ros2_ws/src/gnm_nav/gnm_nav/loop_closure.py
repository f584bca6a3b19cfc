"""Finding views of the same way: retrieval proposes, the network's distances decide, both ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gnm_nav.topological_map import EdgeKind

if TYPE_CHECKING:
    from policy_server.navigation_model import NavigationModel, ObservationCode

Edge = tuple[int, int, float, int]
MIN_CLOSURE_STEPS = 0.5


@dataclass(frozen=True)
class ClosureConfig:
    """When two nodes count as views of the same way.

    Raises:
        ValueError: a value is outside its range; the message names it.
    """

    similarity: float = 0.6
    """Least cosine similarity of the embeddings."""
    proposals: int = 4
    """Most nodes that are verified per node."""
    max_steps: float = 4.0
    """Largest distance to the other node."""
    tolerance_steps: float = 4.0
    """By how much the distance to the node after it may differ from the map."""
    run: int = 2
    """Nodes on end of which each must find a place near that of the one before."""
    same_view_steps: float = 3.0
    """Largest distance, there and back, between two views that count as the same."""
    apart_steps: float = 20.0
    """Nodes nearer along the same drive are no loop."""
    drift: float = 0.05
    """Assumed error of poses, per distance driven in between."""
    radius_m: float = 1.0
    """Poses of the two may differ by this and the drift."""
    heading_rad: float = 0.8
    """And in direction by this and the drift, in radians per metre × 0.2."""

    def __post_init__(self) -> None:
        """Check ranges."""
        bounds: dict[str, tuple[float, float]] = {
            "similarity": (-1.0, 1.0),
            "proposals": (1, 64),
            "max_steps": (0.5, 20.0),
            "tolerance_steps": (0.1, 20.0),
            "run": (1, 10),
            "same_view_steps": (0.0, 20.0),
            "apart_steps": (1.0, 1000.0),
            "drift": (0.0, 1.0),
            "radius_m": (0.0, 100.0),
            "heading_rad": (0.0, 3.2),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must be within [{low:g}, {high:g}]")


@dataclass(frozen=True)
class Sighting:
    """A node found ahead of another view, and the node before it.

    Attributes:
        view: the node that looked.
        ahead: the nearest node ahead of it.
        ahead_steps: distance to it.
        behind: the node before `ahead` from which `view` lies ahead.
        behind_steps: distance from `behind` to `view`.
    """

    view: int
    ahead: int
    ahead_steps: float
    behind: int
    behind_steps: float

    def edges(self) -> list[Edge]:
        """The two closure edges."""
        return [
            (self.view, self.ahead, self.ahead_steps, EdgeKind.CLOSURE),
            (self.behind, self.view, self.behind_steps, EdgeKind.CLOSURE),
        ]


def standing_observation(model: NavigationModel, image: NDArray[np.uint8]) -> ObservationCode:
    """The observation of a robot that has stood at a view: its image in every place."""
    return model.observe([np.asarray(image)] * (model.spec.context_size + 1))


def find_sighting(
    model: NavigationModel,
    observation: ObservationCode,
    view: int,
    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    proposals: Sequence[int],
    following: Callable[[int], tuple[int, float] | None],
    preceding: Callable[[int], tuple[int, float] | None],
    config: ClosureConfig,
) -> Sighting | None:
    """Verify proposals with the network.

    Args:
        model: the network.
        observation: of the view.
        view: the node that looks.
        images: of all nodes, in the network's size.
        proposals: nodes that look like the view; their neighbours along the chain are tested too.
        following, preceding: the next or previous node of a chain and the steps between.
        config: thresholds.

    Returns:
        The best sighting; None where the network does not agree in both directions.
    """
    nodes: dict[int, None] = {}
    for proposal in proposals:
        for neighbour in (preceding(proposal), (proposal, 0.0), following(proposal)):
            if neighbour is not None:
                nodes[neighbour[0]] = None
        after = following(proposal)
        if after is not None and (second := following(after[0])) is not None:
            nodes[second[0]] = None
    tested = [node for node in nodes if node != view]
    if not tested:
        return None
    goals = np.stack([np.asarray(images[node]) for node in tested])
    distances = dict(
        zip(tested, map(float, model.match(observation, goals).distances), strict=True)
    )
    for node in sorted(distances, key=distances.__getitem__):
        steps = max(distances[node], MIN_CLOSURE_STEPS)
        if steps > config.max_steps:
            return None
        after, before = following(node), preceding(node)
        if before is None or before[0] == view:
            continue
        if after is not None and after[0] in distances:
            expected = steps + after[1]
            if abs(distances[after[0]] - expected) > config.tolerance_steps:
                continue
        back = model.match(
            standing_observation(model, images[before[0]]), np.asarray(images[view])[None]
        )
        back_steps = max(float(back.distances[0]), MIN_CLOSURE_STEPS)
        if back_steps > before[1] + config.tolerance_steps or back_steps > 2.5 * config.max_steps:
            continue
        return Sighting(view, node, steps, before[0], back_steps)
    return None


def find_same_view(
    model: NavigationModel,
    view: int,
    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    proposals: Sequence[int],
    config: ClosureConfig,
) -> tuple[int, float] | None:
    """A node that shows what another one shows: each lies right ahead of the other.

    Unlike a way, a single view needs both distances to be small. It is what joins drives that
    cross, or begin and end, at one place.

    Args:
        model: the network.
        view: the node that looks.
        images: of all nodes, in the network's size.
        proposals: nodes that look like the view.
        config: thresholds.

    Returns:
        The node and the larger of both distances [model steps]; None: there is none.
    """
    if not proposals:
        return None
    here = np.asarray(images[view])
    goals = np.stack([np.asarray(images[node]) for node in proposals])
    forth = model.match(standing_observation(model, here), goals).distances
    for index in np.argsort(forth):
        if forth[index] > config.same_view_steps:
            return None
        back = model.match(standing_observation(model, goals[index]), here[None]).distances[0]
        if back <= config.same_view_steps:
            return proposals[index], max(float(forth[index]), float(back), MIN_CLOSURE_STEPS)
    return None


class ClosureRun:
    """Accepts sightings only when several nodes on end find places that follow each other.

    A single place may look like another one; a whole way hardly does.
    """

    def __init__(self, config: ClosureConfig) -> None:
        """Nothing seen yet."""
        self._config = config
        self._run: list[Sighting] = []

    def add(
        self, sighting: Sighting | None, following: Callable[[int], tuple[int, float] | None]
    ) -> list[Edge]:
        """Take the sighting of the next node along a drive, or that there is none.

        Returns:
            Edges that are accepted now.
        """
        if sighting is None:
            self._run = []
            return []
        if self._run and not self._follows(self._run[-1].ahead, sighting.ahead, following):
            self._run = []
        self._run.append(sighting)
        if len(self._run) < self._config.run:
            return []
        fresh = self._run if len(self._run) == self._config.run else self._run[-1:]
        return [edge for accepted in fresh for edge in accepted.edges()]

    @staticmethod
    def _follows(
        earlier: int, later: int, following: Callable[[int], tuple[int, float] | None]
    ) -> bool:
        node: int | None = earlier
        for _ in range(4):
            if node == later:
                return True
            after = following(node) if node is not None else None
            node = after[0] if after else None
        return False


def may_be_same_place(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    driven_m: float,
    config: ClosureConfig,
) -> bool:
    """Whether two poses (x, y, yaw) can be one place, given how far was driven in between."""
    apart = math.hypot(float(a[0] - b[0]), float(a[1] - b[1]))
    turned = abs(math.remainder(float(a[2] - b[2]), 2.0 * math.pi))
    return apart <= config.radius_m + config.drift * driven_m and turned <= (
        config.heading_rad + 0.2 * config.drift * driven_m
    )
