"""Training labels from the poses of a simulation: how far a goal is, and where an expert would go.

The expert knows the route. From wherever a frame was taken it returns to the route by pure pursuit
at the robot's nominal speed (R. C. Coulter, CMU-RI-TR-92-01, 1992), as
`robot_sim.navigation.driving.RouteDriver` does with the simulated body.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Array = NDArray[np.float64]
MAX_DISTANCE_STEPS = 20.0
HORIZON = 5
BEHIND_STEPS = 2.0
"""A goal that was passed by more than this counts as elsewhere."""
_SUBSTEPS = 5
_SPOT_TURN_RAD = 0.9
"""From this angle to the route on, a robot that can turn on the spot does."""


@dataclass(frozen=True, eq=False)
class RouteTable:
    """Routes one after another, each as points a fixed step apart.

    Attributes:
        points_m: (p, 2) x, y of all routes.
        offsets: (routes + 1,) where each route's points begin, and the end.
        step_m: distance of neighbouring points along a route.
    """

    points_m: _Array
    offsets: NDArray[np.int64]
    step_m: float

    def length_m(self, route: NDArray[np.integer]) -> _Array:
        """(n,) lengths of routes (n,)."""
        return np.asarray((self.offsets[route + 1] - self.offsets[route] - 1) * self.step_m)

    def at(self, route: NDArray[np.integer], arc_m: _Array) -> _Array:
        """(n, 2) positions at lengths (n,) of routes (n,), clipped to the ends."""
        last = self.offsets[route + 1] - self.offsets[route] - 1
        index = np.clip(arc_m / self.step_m, 0, last)
        low = np.minimum(index.astype(np.int64), last - 1)
        share = (index - low)[:, None]
        base = self.offsets[route] + low
        return np.asarray(self.points_m[base] * (1 - share) + self.points_m[base + 1] * share)

    def heading(self, route: NDArray[np.integer], arc_m: _Array) -> _Array:
        """(n,) directions [rad] of the routes at lengths (n,)."""
        ahead = np.minimum(arc_m + 0.15, self.length_m(route))
        delta = self.at(route, ahead) - self.at(route, ahead - 0.3)
        return np.asarray(np.arctan2(delta[:, 1], delta[:, 0]))


def _wrap(angle: _Array) -> _Array:
    return np.asarray((angle + np.pi) % (2 * np.pi) - np.pi)


def label(
    frame_pose: ArrayLike,
    frame_arc_m: ArrayLike,
    route: ArrayLike,
    goal_arc_m: ArrayLike,
    spacing_m: ArrayLike,
    table: RouteTable,
    max_turn_rad: ArrayLike = 0.3,
    turns_on_the_spot: ArrayLike = True,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distances and waypoints of an expert towards goals on the routes of the frames.

    Args:
        frame_pose: (n, 3) x, y [m], yaw [rad] where each frame was taken.
        frame_arc_m: (n,) length of the route at that pose.
        route: (n,) route of each frame in `table`.
        goal_arc_m: (n,) length of the same route at the goal's pose.
        spacing_m: (n,) or scalar: metres per model step at nominal speed.
        table: the routes.
        max_turn_rad: (n,) or scalar: most yaw per model step.
        turns_on_the_spot: (n,) or scalar: False for Ackermann steering.

    Returns:
        distance: (n,) float32 model steps to the goal, 0..20; 20 if it lies behind.
        waypoints: (n, 5, 4) float32 x forward, y left in units of the spacing, cosine and sine of
            the yaw, all relative to the frame's pose. They end at the goal.
    """
    pose = np.array(frame_pose, dtype=np.float64)
    count = len(pose)
    route = np.broadcast_to(np.asarray(route, dtype=np.int64), count)
    goal = np.minimum(np.broadcast_to(np.asarray(goal_arc_m, float), count), table.length_m(route))
    spacing = np.broadcast_to(np.asarray(spacing_m, float), count)
    max_turn = np.broadcast_to(np.asarray(max_turn_rad, float), count) / _SUBSTEPS
    spot = np.broadcast_to(np.asarray(turns_on_the_spot, bool), count)
    lookahead = np.clip(4.0 * spacing, 0.4, 0.7)
    arc = np.array(np.broadcast_to(np.asarray(frame_arc_m, float), count))
    distance = _distance(pose, arc, route, goal, spacing, table, max_turn * _SUBSTEPS, lookahead)
    xy, yaw = pose[:, :2].copy(), pose[:, 2].copy()
    end = table.at(route, goal)
    out = np.empty((count, HORIZON, 4))
    cos0, sin0 = np.cos(pose[:, 2]), np.sin(pose[:, 2])
    for k in range(HORIZON):
        for _ in range(_SUBSTEPS):
            # Aim beyond the goal, or the last bit of the way would be steered at random.
            delta = table.at(route, arc + lookahead) - xy
            length = np.hypot(delta[:, 0], delta[:, 1])
            alpha = _wrap(np.arctan2(delta[:, 1], delta[:, 0]) - yaw)
            left = np.minimum(np.hypot(*(end - xy).T), np.maximum(goal - arc, 0.0))
            arrived = left < 0.02
            factor = np.where(
                spot,
                np.where(np.abs(alpha) > _SPOT_TURN_RAD, 0.0, np.minimum(1, 1.3 - np.abs(alpha))),
                np.where(np.abs(alpha) < 0.5, 1.0, 0.7),
            )
            move = np.minimum(spacing / _SUBSTEPS * factor, left)
            turn = 2.0 * move * np.sin(alpha) / np.maximum(length, 0.2)
            turn = np.where(spot & (np.abs(alpha) > _SPOT_TURN_RAD), alpha, turn)
            turn = np.where(arrived, 0.0, np.clip(turn, -max_turn, max_turn))
            middle = yaw + turn / 2
            xy += move[:, None] * np.column_stack([np.cos(middle), np.sin(middle)])
            yaw += turn
            along = np.cos(middle - table.heading(route, arc))
            arc += np.maximum(move * along, 0.0)
        d = xy - pose[:, :2]
        out[:, k, 0] = (cos0 * d[:, 0] + sin0 * d[:, 1]) / spacing
        out[:, k, 1] = (cos0 * d[:, 1] - sin0 * d[:, 0]) / spacing
        out[:, k, 2] = np.cos(yaw - pose[:, 2])
        out[:, k, 3] = np.sin(yaw - pose[:, 2])
    return distance.astype(np.float32), out.astype(np.float32)


def _distance(
    pose: _Array,
    arc: _Array,
    route: NDArray[np.int64],
    goal: _Array,
    spacing: _Array,
    table: RouteTable,
    max_turn: _Array,
    lookahead: _Array,
) -> _Array:
    """Model steps: the way back to the route, the way along it, and the turning before that."""
    xy, yaw = pose[:, :2], pose[:, 2]
    rest = goal - arc
    join = np.minimum(arc + lookahead, np.maximum(goal, arc))
    delta = table.at(route, join) - xy
    way = np.hypot(delta[:, 0], delta[:, 1]) + np.maximum(goal - join, 0.0)
    aim = table.at(route, arc + lookahead) - xy
    alpha = np.abs(_wrap(np.arctan2(aim[:, 1], aim[:, 0]) - yaw))
    turning = np.maximum(alpha - 0.6, 0.0) / max_turn
    # A goal just passed is still near, as places are not told apart more finely.
    behind = rest < -BEHIND_STEPS * spacing
    return np.where(behind, MAX_DISTANCE_STEPS, np.minimum(way / spacing + turning, 20.0))
