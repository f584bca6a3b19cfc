"""What the ways of a map look like on the ground: turns, lengths, and what something in the way
blocks."""

from __future__ import annotations

import itertools
import math

import numpy as np

from gnm_nav.navigation_types import NavigationConfig
from gnm_nav.route_planner import RoutePlanner
from gnm_nav.topological_map import Edge, EdgeKind, TopologicalMap

DRIVEN_TURN_RAD = 0.6
"""The network steers through turns up to this one."""
_CURVE_RAD = 1.7
"""Through turns up to this one where the robot cannot turn on the spot: they were its curves."""
_SEEN_NODES = 12
"""As far ahead along the route may lie what is seen to block it."""


class RouteGeometry:
    """Questions about the routes of a planner, on a map with or without poses."""

    def __init__(
        self,
        topological_map: TopologicalMap,
        planner: RoutePlanner,
        waypoint_spacing_m: float,
        config: NavigationConfig,
    ) -> None:
        """Look at a map.

        Args:
            topological_map: the map.
            planner: of routes on it.
            waypoint_spacing_m: metres per model step.
            config: how far what is in the way blocks.
        """
        self._map = topological_map
        self._planner = planner
        self._spacing_m = waypoint_spacing_m
        self._config = config

    def edge(self, a: int, b: int) -> Edge:
        """The edge a → b. Raises StopIteration when there is none."""
        return next(edge for edge in self._map.out_edges(a) if edge.b == b)

    def turn_rad(self, a: int, b: int) -> float:
        """Turn on the spot along an edge; 0: it is driven, as small turns are, too."""
        if not self.edge(a, b).is_turn:
            return 0.0
        angle = self.angle_rad(a, b)
        driven_rad = DRIVEN_TURN_RAD if self._config.can_turn else _CURVE_RAD
        return angle if abs(angle) > driven_rad else 0.0

    def angle_rad(self, a: int, b: int) -> float:
        """By how much a robot that sees a turns to see b; π on maps without poses."""
        poses = self._map.poses
        if poses is None:
            return math.pi
        return math.remainder(float(poses[b, 2] - poses[a, 2]), 2.0 * math.pi)

    def driven_steps(self, node: int) -> float:
        """Length of the route to the goal without its turns; infinite beyond the next few nodes."""
        route = self._planner.route(node, self._config.lookahead_nodes + 1)
        if not route or route[-1] != self._planner.goal:
            return math.inf
        edges = (self.edge(a, b) for a, b in itertools.pairwise(route))
        return math.fsum(0.0 if edge.is_turn else edge.steps for edge in edges)

    def near(self, a: int, b: int) -> bool:
        """Whether two nodes are of one place, whatever they look at."""
        reach = self._config.block_steps
        if b in self._map.ahead(a, reach) or a in self._map.ahead(b, reach):
            return True
        poses = self._map.poses
        return poses is not None and bool(
            math.hypot(*(poses[a] - poses[b])[:2]) <= reach * self._spacing_m
        )

    def blockade(self, place: int) -> tuple[int, set[tuple[int, int]]]:
        """The stretch of the route to block: the node before it, and its edges.

        What blocks the way may be seen from afar, with the other way beginning in between. So the
        nearest stretch is blocked that leaves a way; the one right ahead if there is no such.
        """
        for before in self._planner.route(place, _SEEN_NODES):
            edges = self._edges_ahead(before)
            if edges and self._planner.has_way(place, edges):
                return before, edges
        return place, self._edges_ahead(place)

    def _edges_ahead(self, place: int) -> set[tuple[int, int]]:
        """Edges that something right ahead of a node blocks, and that are not blocked yet."""
        ahead = {
            (edge.a, edge.b)
            for node in self._blocked_nodes(place)
            for edge in self._map.in_edges(node)
        }
        return ahead - self._planner.blocked

    def _blocked_nodes(self, node: int) -> set[int]:
        """Nodes of the route ahead, and other views of the same way."""
        ahead: set[int] = set()
        driven_from: float | None = None
        for before, following in itertools.pairwise(self._planner.route(node, 32)):
            # Turns on the spot lead to where the robot stands, and that is free.
            if driven_from is None:
                if self.turn_rad(before, following):
                    continue
                driven_from = self._planner.steps_to_goal(before)
            ahead.add(following)
            if driven_from - self._planner.steps_to_goal(following) >= self._config.block_steps:
                break
        twins = {
            edge.a if edge.b == place else edge.b
            for place in ahead
            for edge in (*self._map.out_edges(place), *self._map.in_edges(place))
            if edge.kind == EdgeKind.CLOSURE and edge.steps <= 2.0
        }
        poses = self._map.poses
        if poses is not None and ahead:
            places = poses[sorted(ahead), :2]
            apart = np.linalg.norm(poses[:, None, :2] - places[None], axis=2).min(axis=1)
            here = np.linalg.norm(poses[:, :2] - poses[node, :2], axis=1)
            twins |= set(np.flatnonzero(apart <= self._config.block_radius_m).tolist())
            # Views from where the robot stands are free: it has to turn back there.
            twins -= set(np.flatnonzero(here <= apart).tolist())
        return (ahead | twins) - {node, self._planner.goal}
