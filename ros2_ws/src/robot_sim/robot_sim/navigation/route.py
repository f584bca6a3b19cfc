"""Routes through a world: planned on its grid with the obstacles known, and smooth."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_sim.navigation.world import RESOLUTION_M, World

STEP_M = 0.05
"""Spacing of a route's points."""
_Array = NDArray[np.float64]
_COMFORT_M = 0.65
_SMOOTHING = 80


class NoRoute(ValueError):
    """There is no way for a robot of this size."""


@dataclass(frozen=True, eq=False)
class Route:
    """A line to drive, as points `STEP_M` apart.

    Attributes:
        points_m: (n, 2) x, y.
    """

    points_m: _Array

    @property
    def length_m(self) -> float:
        """Along the line."""
        return (len(self.points_m) - 1) * STEP_M

    def at(self, arc_m: ArrayLike) -> _Array:
        """(…, 2) positions at lengths (…) from the start, clipped to the ends."""
        index = np.clip(np.asarray(arc_m, dtype=np.float64) / STEP_M, 0, len(self.points_m) - 1)
        low = np.minimum(index.astype(np.intp), len(self.points_m) - 2)
        share = (index - low)[..., None]
        return np.asarray(self.points_m[low] * (1 - share) + self.points_m[low + 1] * share)

    def heading(self, arc_m: ArrayLike) -> _Array:
        """(…) direction [rad] of the line at lengths (…)."""
        arc = np.asarray(arc_m, dtype=np.float64)
        ahead = np.minimum(arc + 0.15, self.length_m)
        delta = self.at(ahead) - self.at(ahead - 0.3)
        return np.asarray(np.arctan2(delta[..., 1], delta[..., 0]))

    def project(self, xy: _Array, low_m: float = 0.0, high_m: float = math.inf) -> float:
        """Length at which the line is nearest to a point, searched in an interval."""
        first = min(max(int(low_m / STEP_M), 0), len(self.points_m) - 1)
        last = (
            len(self.points_m) if math.isinf(high_m) else max(first + 1, int(high_m / STEP_M) + 2)
        )
        part = self.points_m[first:last]
        return (first + int(np.argmin(((part - xy) ** 2).sum(axis=1)))) * STEP_M


class RouteField:
    """Cheapest ways from one place to all others: keeps off obstacles, and on paths outdoors."""

    def __init__(self, world: World, start: ArrayLike, radius_m: float) -> None:
        """Search the whole reachable world.

        Raises:
            NoRoute: the start is not free for this radius.
        """
        self._world, self._radius_m = world, radius_m
        clearance = world.clearance_m
        rows, columns = clearance.shape
        near = np.clip((_COMFORT_M - clearance) / _COMFORT_M, 0.0, 1.0)
        cost = (1.0 + 4.0 * near**2) * np.where(world.path_grid, 1.0, 3.0)
        free = clearance > radius_m
        begin = self._snap(free, np.asarray(start, dtype=np.float64))
        costs: list[float] = np.where(free, cost, math.inf).ravel().tolist()
        best = [math.inf] * (rows * columns)
        parent = [-1] * (rows * columns)
        origin = int(begin[0] * columns + begin[1])
        best[origin] = 0.0
        queue = [(0.0, origin)]
        diagonal = math.sqrt(2.0)
        moves = [(1, 1.0), (-1, 1.0), (columns, 1.0), (-columns, 1.0)]
        moves += [(s * columns + d, diagonal) for s in (1, -1) for d in (1, -1)]
        while queue:
            value, cell = heapq.heappop(queue)
            if value > best[cell]:
                continue
            for offset, length in moves:
                # The border is never free, so offsets cannot wrap round a row.
                other = cell + offset
                through = value + length * costs[other]
                if through < best[other]:
                    best[other] = through
                    parent[other] = cell
                    heapq.heappush(queue, (through, other))
        self._free, self._parent, self._columns, self._origin = free, parent, columns, origin
        self.reachable = np.isfinite(np.array(best)).reshape(rows, columns)
        """(rows, columns) cells that have a way from the start."""

    def _snap(self, free: NDArray[np.bool_], xy: _Array) -> NDArray[np.intp]:
        cell = self._world.cell(xy)
        if not free[cell[0], cell[1]]:
            options = np.argwhere(free)
            distance = np.hypot(*(self._world.position(options) - xy).T)
            if len(options) == 0 or distance.min() > 0.4:
                raise NoRoute(
                    f"({xy[0]:.2f}, {xy[1]:.2f}) m is not free for a robot of "
                    f"{self._radius_m:.2f} m radius"
                )
            cell = options[int(distance.argmin())]
        return np.asarray(cell, dtype=np.intp)

    def route_to(self, goal: ArrayLike) -> Route:
        """The smooth route to a place.

        Raises:
            NoRoute: the goal is not free, or cannot be reached.
        """
        end = self._snap(self._free, np.asarray(goal, dtype=np.float64))
        if not self.reachable[end[0], end[1]]:
            raise NoRoute(f"no way from the start to {np.asarray(goal)}")
        cells, at = [], int(end[0] * self._columns + end[1])
        while at >= 0:
            cells.append((at // self._columns, at % self._columns))
            at = self._parent[at]
        points = self._world.position(np.array(cells[::-1], dtype=np.intp))
        if len(points) < 2:
            raise NoRoute("the goal is where the start is")
        return Route(_smooth(self._world, points, self._radius_m))


def _resample(points: _Array, step: float) -> _Array:
    arc = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    count = max(2, round(arc[-1] / step) + 1)
    # Whole steps, so that a length along the line is an index.
    samples = np.minimum(np.arange(count) * step, arc[-1])
    return np.column_stack([np.interp(samples, arc, points[:, k]) for k in range(2)])


def _smooth(world: World, points: _Array, radius_m: float) -> _Array:
    """Round off the corners of a path over grid cells where that keeps it clear of obstacles."""
    line = _resample(points, 2 * STEP_M)
    clearance = world.clearance_m
    gradient_row = np.asarray(np.gradient(clearance, RESOLUTION_M, axis=0))
    gradient_column = np.asarray(np.gradient(clearance, RESOLUTION_M, axis=1))
    for _ in range(_SMOOTHING):
        moved = line.copy()
        moved[1:-1] += 0.5 * (0.5 * (line[:-2] + line[2:]) - line[1:-1])
        cells = world.cell(moved)
        row, column = cells[:, 0], cells[:, 1]
        push = np.clip(radius_m + 0.15 - clearance[row, column], 0.0, 0.1)[1:-1, None]
        slope = np.column_stack([gradient_column[row, column], gradient_row[row, column]])[1:-1]
        moved[1:-1] += push * slope
        cells = world.cell(moved)
        keep = clearance[cells[:, 0], cells[:, 1]] > radius_m - 0.02
        line[keep] = moved[keep]
    return _resample(_resample(line, STEP_M), STEP_M)


def plan_route(world: World, start: ArrayLike, goal: ArrayLike, radius_m: float) -> Route:
    """The route from a place to another for a robot of a radius; positions as x, y [m].

    Raises:
        NoRoute: one of them is not free, or there is no way.
    """
    return RouteField(world, start, radius_m).route_to(goal)


def free_position(world: World, rng: np.random.Generator, radius_m: float) -> _Array:
    """A random x, y with room around it, on a path where the world has paths."""
    clearance = world.clearance_m
    # Mostly in the middle of the way, as somebody would stop there.
    for margin in (0.25, 0.1, 0.0):
        options = np.argwhere((clearance > radius_m + margin) & world.path_grid)
        if len(options):
            return world.position(options[int(rng.integers(len(options)))])
    raise NoRoute(f"no free place for a robot of {radius_m:.2f} m radius")


def free_pose(world: World, seed: int, radius_m: float) -> tuple[float, float, float]:
    """A random x, y [m] with room around it, and the yaw [rad] with the longest free view.

    Raises:
        NoRoute: the world has no place for such a robot.
    """
    rng = np.random.default_rng([seed, world.seed])
    x, y = free_position(world, rng, radius_m)
    yaws = rng.uniform(-math.pi, math.pi) + np.arange(8) * math.pi / 4
    reach = np.arange(0.2, 6.0, RESOLUTION_M)
    line = np.stack([x + np.cos(yaws)[:, None] * reach, y + np.sin(yaws)[:, None] * reach], axis=-1)
    cells = world.cell(line)
    blocked = world.occupied[cells[..., 0], cells[..., 1]]
    free = np.where(blocked.any(axis=1), blocked.argmax(axis=1), len(reach))
    return float(x), float(y), float(math.remainder(yaws[int(free.argmax())], 2 * math.pi))


def sample_route(
    world: World,
    seed: int,
    min_length_m: float,
    max_length_m: float = math.inf,
    radius_m: float = 0.32,
) -> tuple[tuple[float, float, float], tuple[float, float, float], Route]:
    """A random start pose, goal pose and the route between them.

    Args:
        world: where.
        seed: of the choice.
        min_length_m, max_length_m: of the route.
        radius_m: of the robot that shall pass.

    Raises:
        NoRoute: no route of such a length was found.
    """
    rng = np.random.default_rng([seed, world.seed])
    longest = 0.0
    for _ in range(12):
        field = RouteField(world, free_position(world, rng, radius_m), radius_m)
        for _ in range(12):
            goal = free_position(world, rng, radius_m)
            cell = world.cell(goal)
            if not field.reachable[cell[0], cell[1]]:
                continue
            try:
                route = field.route_to(goal)
            except NoRoute:
                continue
            longest = max(longest, route.length_m)
            if min_length_m <= route.length_m <= max_length_m:
                return _pose(route, 0.0), _pose(route, route.length_m), route
    raise NoRoute(
        f"found no route of {min_length_m:.1f} .. {max_length_m:.1f} m, the longest of those tried "
        f"has {longest:.1f} m"
    )


def _pose(route: Route, arc_m: float) -> tuple[float, float, float]:
    x, y = route.at(arc_m)
    return float(x), float(y), float(route.heading(arc_m))
