"""Where on the map the robot is: a Bayes filter over nodes, and retrieval when it is lost.

A hypothesis is a node: the nearest one ahead of the robot. Belief moves along directed edges as the
robot drives, and is weighed by how well the network's distances to the nodes of a small window
agree with the map. Only nodes with belief are kept, so a tick costs the same on every map.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from gnm_nav.dead_reckoning import ExpectedPose
from gnm_nav.topological_map import Edge, TopologicalMap

if TYPE_CHECKING:
    from policy_server.navigation_model import Match, NavigationModel, ObservationCode

_CACHED_NODES = 4096
"""Nodes whose surroundings are remembered."""
_THUMBNAIL = (16, 12)
_MIN_BELIEF = 1e-6
_FITS = 1.0
"""Misfit up to which a robot may well be at a node, by how it has moved [nats]."""
_LOST_MISFIT = 2.5
"""Largest weight of a misfit while lost [nats]."""


@dataclass(frozen=True)
class LocaliserConfig:
    """Parameters of the filter.

    Raises:
        ValueError: a value is outside its range; the message names it.
    """

    window: int = 10
    """Nodes that are compared with the camera per tick."""
    retrieved: int = 20
    """Nodes that retrieval proposes per tick while lost."""
    distance_sigma_steps: float = 3.0
    """Standard deviation of the network's distances [model steps]."""
    outlier_sigmas: float = 2.5
    """A single distance never counts as further off than this."""
    agreement_weight: float = 0.35
    """Weight of the distances to the nodes ahead of a hypothesis, against that to its own node."""
    stay: float = 0.05
    """Least probability per tick of not having reached the next node, however short the edge."""
    back: float = 0.02
    """Probability per tick that the robot is one node further back than believed."""
    lost_distance_steps: float = 12.0
    """The robot may be lost where the smallest distance around its node is larger than this."""
    lost_ticks: int = 7
    """For so many ticks on end."""
    found_distance_steps: float = 7.0
    """Distance to its node below which a robot may be found again."""
    found_confidence: float = 0.5
    found_ticks: int = 3
    """Ticks on end for which one place must hold out before the robot counts as found."""
    found_elsewhere_steps: float = 3.0
    """The same two for a place where the robot should not be, by how it has moved."""
    found_elsewhere_ticks: int = 6
    similarity_scale: float = 0.05
    """Cosine similarity by which retrieval ranks a node e times higher."""

    def __post_init__(self) -> None:
        """Check ranges."""
        bounds: dict[str, tuple[float, float]] = {
            "window": (2, 64),
            "retrieved": (1, 256),
            "distance_sigma_steps": (0.1, 20.0),
            "outlier_sigmas": (0.5, 10.0),
            "agreement_weight": (0.0, 1.0),
            "stay": (0.0, 0.9),
            "back": (0.0, 0.5),
            "lost_distance_steps": (1.0, 20.0),
            "lost_ticks": (1, 1000),
            "found_distance_steps": (0.5, 20.0),
            "found_confidence": (0.05, 1.0),
            "found_ticks": (1, 100),
            "found_elsewhere_steps": (0.5, 20.0),
            "found_elsewhere_ticks": (1, 100),
            "similarity_scale": (1e-3, 10.0),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must be within [{low:g}, {high:g}]")


@dataclass(frozen=True)
class Localisation:
    """Result of one tick.

    Attributes:
        node: the most probable node, also while lost.
        distance_steps: predicted distance to it.
        confidence: probability of it and its neighbours, 0 … 1; 0 while lost.
        lost: whether the robot does not know where it is.
        elsewhere: it was found in this tick, where it should not be by how it has moved.
        far_ticks: ticks on end in which everything around the node was far; the robot is lost
            when they are too many.
        candidates: (K,) nodes that were compared, in the order of `match`.
        match: the network's answer for them; its `distances` are (K,) float32.
        belief: node → probability, all that is kept.
    """

    node: int
    distance_steps: float
    confidence: float
    lost: bool
    elsewhere: bool
    far_ticks: int
    candidates: NDArray[np.int64]
    match: Match
    belief: dict[int, float]

    @cached_property
    def _indices(self) -> dict[int, int]:
        return {node: index for index, node in enumerate(self.candidates.tolist())}

    def index(self, node: int) -> int | None:
        """Index of a node in `candidates`, None where it was not compared."""
        return self._indices.get(node)

    def distance_to(self, node: int) -> float | None:
        """Predicted distance to a node, None where it was not compared."""
        index = self.index(node)
        return None if index is None else float(self.match.distances[index])


@dataclass(frozen=True)
class _Surroundings:
    """What the filter needs of the map around a node.

    Attributes:
        ahead: `TopologicalMap.ahead` within the network's range.
        leaving, entering: the node's edges.
        longest_entering_steps: 0.0 without any.
        around: the node and those one edge away, without turns.
    """

    ahead: dict[int, float]
    leaving: list[Edge]
    entering: list[Edge]
    longest_entering_steps: float
    around: frozenset[int]


def place_descriptors(model: NavigationModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Vectors whose product says how alike two views are.

    The network's embedding where it has one, otherwise small grey images without their mean.

    Args:
        model: the network.
        images: (N, h, w, 3) uint8.

    Returns:
        (N, D) float32 unit vectors.
    """
    if model.spec.embedding_size:
        return model.embed(images)
    small = np.stack(
        [
            cv2.resize(
                cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), _THUMBNAIL, interpolation=cv2.INTER_AREA
            )
            for image in images
        ]
    ).astype(np.float32)
    flat = small.reshape(len(small), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


class Localiser:
    """Tracks one robot on one map. Starts lost."""

    def __init__(
        self,
        model: NavigationModel,
        topological_map: TopologicalMap,
        config: LocaliserConfig | None = None,
    ) -> None:
        """Know nothing yet; the first updates retrieve."""
        self._model = model
        self._map = topological_map
        self._config = config or LocaliserConfig()
        self._descriptors: NDArray[np.float32] | None = topological_map.embeddings
        self._known: OrderedDict[int, _Surroundings] = OrderedDict()
        self._max_steps = float(model.spec.max_distance_steps)
        self.forget()

    @property
    def lost(self) -> bool:
        """Whether the robot does not know where it is."""
        return self._lost

    def forget(self) -> None:
        """Be lost."""
        self._belief: dict[int, float] = {}
        self._lost = True
        self._far_ticks = 0
        self._held_ticks = 0
        self._held_node: int | None = None

    def start_at(self, node: int) -> None:
        """Believe to be at a node, because somebody says so."""
        self.forget()
        self._belief = {node: 1.0}
        self._lost = False

    def update(
        self,
        observation: ObservationCode,
        frame: NDArray[np.uint8],
        *,
        moved_steps: float = 1.0,
        turning: bool = False,
        also: Sequence[int] = (),
        expected: ExpectedPose | None = None,
    ) -> Localisation:
        """Take one observation into account.

        Args:
            observation: the encoded context.
            frame: its newest frame (h, w, 3) uint8; read only while lost.
            moved_steps: how far the robot was told to drive since the last update, in model steps;
                0: it stood or turned.
            turning: it turned on the spot.
            also: nodes to compare too, e.g. those that the route leads to; at most the window.
            expected: where the robot should be, by how it has moved; only for maps with poses.

        Returns:
            The new belief. One batch of the network, of `window` nodes, or while lost of
            `window` + `retrieved` nodes at most.
        """
        belief = self._move(moved_steps, turning)
        if self._lost:
            belief = self._with_retrieved(belief, frame, expected)
        candidates = self._candidates(belief, also)
        match = self._model.match(observation, np.asarray(self._map.images[candidates]))
        distances = np.clip(np.asarray(match.distances, np.float64), 0.0, self._max_steps)
        self._belief = self._weigh(belief, candidates, distances, expected)
        return self._conclude(candidates, match, distances, expected)

    def retrieve(
        self, image: NDArray[np.uint8], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The nodes that look most like an image. The one step that grows with the map.

        Args:
            image: (h, w, 3) uint8 in the network's size.
            count: how many.

        Returns:
            (count,) nodes, best first, and their similarity −1 … 1.
        """
        if self._descriptors is None:
            self._descriptors = np.concatenate(
                [
                    place_descriptors(
                        self._model, np.asarray(self._map.images[start : start + 256])
                    )
                    for start in range(0, len(self._map), 256)
                ]
            )
        similarity = self._descriptors @ place_descriptors(self._model, image[None])[0]
        count = min(count, len(similarity))
        best = np.argpartition(-similarity, count - 1)[:count]
        best = best[np.argsort(-similarity[best])]
        return best.astype(np.int64), similarity[best]

    def _move(self, moved_steps: float, turning: bool) -> dict[int, float]:
        """Prediction: probability flows along the edges."""
        config = self._config
        moved: dict[int, float] = {}

        def add(node: int, probability: float) -> None:
            if probability > 0.0:
                moved[node] = moved.get(node, 0.0) + probability

        for node, probability in self._belief.items():
            surroundings = self._surroundings(node)
            edges = [edge for edge in surroundings.leaving if edge.is_turn == turning]
            left = probability
            if edges and (moved_steps > 0.0 or turning):
                share = probability / len(edges)
                for edge in edges:
                    advance = 1.0 if turning else moved_steps
                    flow = share * min(1.0 - config.stay, advance / max(edge.steps, 0.1))
                    add(edge.b, flow)
                    left -= flow
            if moved_steps > 0.0:
                before = [edge.a for edge in surroundings.entering if edge.is_chain]
                for previous in before:
                    add(previous, config.back * probability / len(before))
                left -= config.back * probability if before else 0.0
            add(node, left)
        return moved

    def _with_retrieved(
        self, belief: dict[int, float], frame: NDArray[np.uint8], expected: ExpectedPose | None
    ) -> dict[int, float]:
        """Mix proposals from all over the map into the belief, and those where it should be."""
        nodes, similarity = self.retrieve(frame, self._config.retrieved)
        weights = np.exp((similarity - similarity[0]) / self._config.similarity_scale)
        weights /= weights.sum()
        poses = self._map.poses
        if poses is not None and expected is not None:
            near = np.flatnonzero(expected.misfit(poses) <= _FITS)
            apart = np.hypot(poses[near, 0] - expected.x_m, poses[near, 1] - expected.y_m)
            near = near[np.argsort(apart)][: self._config.retrieved // 2]
            kept = len(nodes) - len(near)
            nodes = np.concatenate((near, nodes[:kept]))
            weights = np.concatenate(
                (np.full(len(near), 0.5 / max(len(near), 1)), 0.5 * weights[:kept])
            )
        # As much as the belief itself: a wrong first guess must not outvote what is seen now.
        scale = 0.5 if belief else 1.0
        mixed = {node: (1.0 - scale) * probability for node, probability in belief.items()}
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            mixed[node] = mixed.get(node, 0.0) + scale * weight
        return mixed

    def _candidates(self, belief: dict[int, float], also: Sequence[int]) -> NDArray[np.int64]:
        """Nodes to compare: the most probable ones, and those asked for."""
        config = self._config
        size = config.window + (config.retrieved if self._lost else 0)
        wanted = dict.fromkeys(list(also)[: config.window])
        for node in sorted(belief, key=belief.__getitem__, reverse=True):
            if len(wanted) >= size:
                break
            wanted[node] = None
        if not self._lost:
            # Fill up with what lies ahead, so that each hypothesis is tested on several nodes.
            for node in list(wanted):
                for following in self._surroundings(node).ahead:
                    if len(wanted) >= size:
                        break
                    wanted[following] = None
        return np.fromiter(wanted, np.int64, len(wanted))

    def _weigh(
        self,
        belief: dict[int, float],
        candidates: NDArray[np.int64],
        distances: NDArray[np.float64],
        expected: ExpectedPose | None,
    ) -> dict[int, float]:
        """Correction: posterior of the compared nodes."""
        config = self._config
        nodes = candidates.tolist()
        misfit = self._misfit(candidates, expected)
        log_posterior = np.empty(len(nodes))
        cap = 0.5 * config.outlier_sigmas**2
        sigma_steps = config.distance_sigma_steps
        seen_steps = list(zip(nodes, distances.tolist(), strict=True))
        for index, (node, own) in enumerate(seen_steps):
            prior = belief.get(node, _MIN_BELIEF)
            surroundings = self._surroundings(node)
            ahead = surroundings.ahead
            # The robot is at most one edge before the node; the rest of the distance is an error.
            before = min(own, surroundings.longest_entering_steps)
            score = min(0.5 * (own / sigma_steps) ** 2, 2.0 * cap)
            others = []
            for other, found in seen_steps:
                way = ahead.get(other)
                if way is not None and other != node:
                    error = (found - min(way + before, self._max_steps)) / sigma_steps
                    others.append(min(0.5 * error * error, cap))
            # The mean: a hypothesis must not suffer from having more nodes to be tested on. One
            # without any counts as an average one.
            mean = sum(others) / len(others) if others else 0.5
            agreement = 2.0 * config.agreement_weight * mean
            log_posterior[index] = math.log(max(prior, _MIN_BELIEF)) - score - agreement
        # Who is lost may have been carried away: where it should be counts for less then.
        log_posterior -= np.minimum(misfit, _LOST_MISFIT) if self._lost else misfit
        posterior = np.exp(log_posterior - log_posterior.max())
        posterior /= posterior.sum()
        return {
            node: float(probability)
            for node, probability in zip(nodes, posterior, strict=True)
            if probability > _MIN_BELIEF
        }

    def _misfit(
        self, nodes: NDArray[np.int64], expected: ExpectedPose | None
    ) -> NDArray[np.float64]:
        """How much nodes speak against being where the robot should be, see `ExpectedPose`."""
        poses = self._map.poses
        if poses is None or expected is None:
            return np.zeros(len(nodes))
        return expected.misfit(poses[nodes])

    def _conclude(
        self,
        candidates: NDArray[np.int64],
        match: Match,
        distances: NDArray[np.float64],
        expected: ExpectedPose | None,
    ) -> Localisation:
        config = self._config
        node = max(self._belief, key=self._belief.__getitem__)
        around = self._surroundings(node).around
        confidence = sum(self._belief.get(near, 0.0) for near in around)
        of_node = {int(c): float(d) for c, d in zip(candidates, distances, strict=True)}
        distance = of_node[node]
        nearest = min(of_node.get(near, math.inf) for near in around)
        elsewhere = False
        if self._lost:
            held = self._held_node is not None and self._held_node in around
            fits = self._misfit(np.array([node]), expected)[0] <= _FITS
            enough_steps = config.found_distance_steps if fits else config.found_elsewhere_steps
            good = distance <= enough_steps and confidence >= config.found_confidence
            self._held_ticks = (self._held_ticks + 1 if held else 1) if good else 0
            self._held_node = node if good else None
            if self._held_ticks >= (config.found_ticks if fits else config.found_elsewhere_ticks):
                self._lost, self._far_ticks, elsewhere = False, 0, not fits
        else:
            self._far_ticks = self._far_ticks + 1 if nearest > config.lost_distance_steps else 0
            if self._far_ticks >= config.lost_ticks:
                kept = self._belief
                self.forget()
                self._belief = kept
        return Localisation(
            node=node,
            distance_steps=distance,
            confidence=0.0 if self._lost else min(confidence, 1.0),
            lost=self._lost,
            elsewhere=elsewhere,
            far_ticks=self._far_ticks,
            candidates=candidates,
            match=match,
            belief=dict(self._belief),
        )

    def _surroundings(self, node: int) -> _Surroundings:
        known = self._known.get(node)
        if known is None:
            known = self._known[node] = self._look_up(node)
            if len(self._known) > _CACHED_NODES:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(node)
        return known

    def _look_up(self, node: int) -> _Surroundings:
        leaving, entering = self._map.out_edges(node), self._map.in_edges(node)
        return _Surroundings(
            ahead=self._map.ahead(node, self._max_steps),
            leaving=leaving,
            entering=entering,
            longest_entering_steps=max((edge.steps for edge in entering), default=0.0),
            around=frozenset(
                [
                    node,
                    *(edge.b for edge in leaving if not edge.is_turn),
                    *(edge.a for edge in entering if not edge.is_turn),
                ]
            ),
        )
