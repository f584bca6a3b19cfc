"""Shortest routes to one goal. One search per goal or blocking; a look-up per tick."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import rustworkx as rx
from numpy.typing import NDArray

from gnm_nav.topological_map import EdgeKind, TopologicalMap

CLOSURE_PENALTY_STEPS = 1.0
"""Extra cost of a closure: a driven edge is surer, and routes must not weave between two drives."""
DOUBTED_STEPS = 50.0
"""Extra cost of an edge that was blocked once: used where no way without it is about as long."""


class RoutePlanner:
    """Answers "how far, and where next" for every node, towards one goal.

    Setting a goal or blocking an edge runs Dijkstra's algorithm once, on the reversed graph, and
    keeps the length of the way from every node; each question after that costs a look at one node's
    edges, whatever the size of the map.
    """

    def __init__(self, topological_map: TopologicalMap) -> None:
        """No goal, nothing blocked."""
        self._map = topological_map
        self._goal: int | None = None
        self._steps: NDArray[np.float64] = np.full(len(topological_map), math.inf)
        closure = topological_map.edges["kind"] == EdgeKind.CLOSURE
        self._sure_costs = topological_map.edges["steps"] + CLOSURE_PENALTY_STEPS * closure
        self._costs = self._sure_costs
        self._reversed: rx.PyDiGraph | None = None
        self._blocked: set[tuple[int, int]] = set()

    @property
    def goal(self) -> int | None:
        """The goal node, None before `set_goal`."""
        return self._goal

    @property
    def blocked(self) -> frozenset[tuple[int, int]]:
        """Blocked edges."""
        return frozenset(self._blocked)

    def set_goal(self, node: int | None) -> None:
        """Plan from everywhere to this node. Blocked edges stay blocked.

        Raises:
            IndexError: the map has no such node.
        """
        if node is not None and not 0 <= node < len(self._map):
            raise IndexError(f"found the goal {node}, expected a node 0 … {len(self._map) - 1}")
        self._goal = node
        self._plan()

    def block(self, a: int, b: int) -> None:
        """Never use the edge a → b. Unknown edges are ignored."""
        self.block_all([(a, b)])

    def block_all(self, edges: Iterable[tuple[int, int]]) -> None:
        """Never use these edges; one search for all of them."""
        new = {
            (a, b)
            for a, b in edges
            if (a, b) not in self._blocked and self._map.graph.has_edge(a, b)
        }
        if not new:
            return
        self._blocked |= new
        if self._reversed is not None:
            self._reversed.remove_edges_from([(b, a) for a, b in new])
        self._plan()

    def has_way(self, node: int, without: Iterable[tuple[int, int]]) -> bool:
        """Whether a way from a node to the goal would be left if these edges were blocked too."""
        graph = self._reversed
        if self._goal is None or graph is None:
            return False
        gone = [(b, a, graph.get_edge_data(b, a)) for a, b in set(without) if graph.has_edge(b, a)]
        graph.remove_edges_from([(b, a) for b, a, _ in gone])
        try:
            return node == self._goal or rx.has_path(graph, self._goal, node)
        finally:
            graph.add_edges_from(gone)

    def doubt_blocked(self) -> None:
        """Blocked edges can be used again, at an extra cost, which adds up."""
        if not self._blocked:
            return
        self._costs = self._costs.copy()
        for a, b in self._blocked:
            leaving = self._map.out_slice(a)
            self._costs[leaving][self._map.edges["b"][leaving] == b] += DOUBTED_STEPS
        self._blocked.clear()
        self._reversed = None
        self._plan()

    def unblock_all(self) -> None:
        """Every edge can be used again, at its own cost."""
        if self._blocked or self._costs is not self._sure_costs:
            self._blocked.clear()
            self._costs = self._sure_costs
            self._reversed = None
            self._plan()

    def steps_to_goal(self, node: int) -> float:
        """Length of the shortest way to the goal [model steps]; inf: there is none, or no goal."""
        return float(self._steps[node])

    def next_node(self, node: int) -> int | None:
        """The node after this one on the way to the goal; None at the goal or without a way."""
        if node == self._goal or not math.isfinite(self._steps[node]):
            return None
        best, best_steps = None, math.inf
        leaving = self._map.out_slice(node)
        for following, cost in zip(
            self._map.edges["b"][leaving].tolist(), self._costs[leaving].tolist(), strict=True
        ):
            steps = cost + self._steps[following]
            if steps < best_steps and (node, following) not in self._blocked:
                best, best_steps = following, steps
        return best

    def route(self, node: int, max_nodes: int | None = None) -> list[int]:
        """The way from a node to the goal, both included; empty: there is none.

        Args:
            node: where to start.
            max_nodes: stop after so many nodes.
        """
        if not math.isfinite(self._steps[node]):
            return []
        route = [node]
        while max_nodes is None or len(route) < max_nodes:
            following = self.next_node(route[-1])
            if following is None:
                break
            route.append(following)
        return route

    def _plan(self) -> None:
        self._steps = np.full(len(self._map), math.inf)
        if self._goal is None:
            return
        if self._reversed is None:
            edges = self._map.edges
            graph: rx.PyDiGraph = rx.PyDiGraph(multigraph=False)
            graph.add_nodes_from(range(len(self._map)))
            graph.add_edges_from(
                list(
                    zip(edges["b"].tolist(), edges["a"].tolist(), self._costs.tolist(), strict=True)
                )
            )
            graph.remove_edges_from([(b, a) for a, b in self._blocked])
            self._reversed = graph
        lengths = rx.dijkstra_shortest_path_lengths(self._reversed, self._goal, float)
        self._steps[list(lengths.keys())] = list(lengths.values())
        self._steps[self._goal] = 0.0
