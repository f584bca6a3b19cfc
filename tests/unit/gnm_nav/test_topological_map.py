"""The graph, its routes, and maps that contradict themselves."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from gnm_nav.route_planner import CLOSURE_PENALTY_STEPS, DOUBTED_STEPS, RoutePlanner
from gnm_nav.topological_map import (
    EdgeKind,
    MapCode,
    MapError,
    MapModel,
    TopologicalMap,
    edge_array,
)
from hypothesis import given, settings
from hypothesis import strategies as st

MODEL = MapModel("gnm", "none", "0", (4, 3), 0)


def graph_map(count, edges, **parts):
    images = np.zeros((count, 3, 4, 3), np.uint8)
    return TopologicalMap(MODEL, images, edge_array(edges), **parts)


def lengths_by_relaxation(count, edges, goal):
    """Bellman and Ford's way, for comparison."""
    lengths = [math.inf] * count
    lengths[goal] = 0.0
    for _ in range(count):
        for a, b, steps, kind in edges:
            cost = steps + CLOSURE_PENALTY_STEPS * (kind == EdgeKind.CLOSURE)
            lengths[a] = min(lengths[a], lengths[b] + cost)
    return lengths


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_routes_are_shortest_also_after_blocking(data):
    count = data.draw(st.integers(2, 12))
    node = st.integers(0, count - 1)
    drawn = data.draw(
        st.lists(st.tuples(node, node, st.floats(0.5, 30.0, width=32), st.integers(0, 2)))
    )
    made = graph_map(count, [edge for edge in drawn if edge[0] != edge[1]])
    edges = made.edges.tolist()
    planner = RoutePlanner(made)
    goal = data.draw(node)
    planner.set_goal(goal)
    blocked = data.draw(st.lists(st.sampled_from(edges), max_size=4)) if edges else []
    for a, b, _, _ in blocked:
        planner.block(a, b)
    left = [edge for edge in edges if (edge[0], edge[1]) not in planner.blocked]
    expected = lengths_by_relaxation(count, left, goal)
    for start in range(count):
        assert planner.steps_to_goal(start) == pytest.approx(expected[start])
        route = planner.route(start)
        if math.isinf(expected[start]):
            assert route == [] and planner.next_node(start) is None
            continue
        assert route[0] == start and route[-1] == goal
        taken = list(itertools.pairwise(route))
        assert not set(taken) & planner.blocked
        costs = {(a, b): s + (k == EdgeKind.CLOSURE) * CLOSURE_PENALTY_STEPS for a, b, s, k in left}
        assert sum(costs[step] for step in taken) == pytest.approx(expected[start], abs=1e-4)
    without = {(a, b) for a, b, _, _ in edges[::2]}
    fewer = lengths_by_relaxation(count, [e for e in left if (e[0], e[1]) not in without], goal)
    for start in range(count):
        assert planner.has_way(start, without) == math.isfinite(fewer[start])
    assert [planner.steps_to_goal(start) for start in range(count)] == pytest.approx(expected)
    doubted = planner.blocked
    planner.doubt_blocked()
    assert not planner.blocked
    dearer = [
        (a, b, steps + DOUBTED_STEPS * ((a, b) in doubted), kind) for a, b, steps, kind in edges
    ]
    expected = lengths_by_relaxation(count, dearer, goal)
    assert [planner.steps_to_goal(start) for start in range(count)] == pytest.approx(expected)
    planner.unblock_all()
    assert planner.steps_to_goal(0) == pytest.approx(lengths_by_relaxation(count, edges, goal)[0])


def test_ahead_stops_at_turns_and_at_the_limit():
    made = graph_map(
        6,
        [
            (0, 1, 4.0, EdgeKind.CHAIN),
            (1, 2, 4.0, EdgeKind.CHAIN),
            (0, 2, 9.0, EdgeKind.CLOSURE),
            (2, 3, 4.0, EdgeKind.TURN),
            (2, 4, 4.0, EdgeKind.CHAIN),
            (4, 5, 4.0, EdgeKind.CHAIN),
        ],
    )
    assert made.ahead(0, 12.5) == {0: 0.0, 1: 4.0, 2: 8.0, 4: 12.0}


def test_names_numbers_and_last():
    made = graph_map(5, [(0, 1, 1.0, 0)], names={"dock": 2})
    assert [made.node(name) for name in ("dock", "3", 3, "last", "-1", " 0 ")] == [2, 3, 3, 4, 4, 0]
    for unknown in ("5", "garage", "-2", ""):
        with pytest.raises(MapError) as caught:
            made.node(unknown)
        assert caught.value.code == MapCode.UNKNOWN_NODE


@pytest.mark.parametrize(
    "parts",
    [
        {"edges": np.array([(0, 9, 1.0, 0)], edge_array([]).dtype)},
        {"edges": edge_array([(1, 1, 1.0, 0)])},
        {"edges": edge_array([(0, 1, 0.0, 0)])},
        {"edges": edge_array([(0, 1, math.inf, 0)])},
        {"edges": edge_array([(0, 1, 1.0, 7)])},
        {"edges": edge_array([(1, 2, 1.0, 0), (0, 1, 1.0, 0)])[::-1].copy()},
        {"images": np.zeros((0, 3, 4, 3), np.uint8)},
        {"images": np.zeros((5, 4, 3, 3), np.uint8)},
        {"poses": np.zeros((4, 3))},
        {"poses": np.full((5, 3), np.nan)},
        {"names": {"dock": 5}},
        {"names": {"17": 1}},
        {"names": {"last": 1}},
        {"pictures": [b""]},
    ],
)
def test_contradictions_are_refused(parts):
    good = graph_map(5, [(0, 1, 1.0, 0)])
    with pytest.raises(MapError) as caught:
        dataclasses.replace(good, **parts)
    assert caught.value.code == MapCode.INVALID
