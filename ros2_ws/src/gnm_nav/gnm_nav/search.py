"""How a robot looks for itself, or for another view of its place: looking, turning, creeping on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gnm_nav.dead_reckoning import DeadReckoning
from gnm_nav.journey import Journey
from gnm_nav.localiser import Localisation
from gnm_nav.navigation_types import NavigationConfig, NavigationDecision, NavigationState
from gnm_nav.route_planner import RoutePlanner
from gnm_nav.topological_map import TopologicalMap

_BEND_RAD = 0.3
"""A route that turns by less is straight."""
_LOOK_APART_STEPS = 2.0
"""Way between two looks of a lost robot that cannot turn."""
_RETURNED_STEPS = 4.0
"""So far at least it drives back once it does."""
_SEARCHED_M = 1.0
"""Views of places this near to where the robot should be are looked for."""
_DOUBT_RAD = 3.6
"""A lost robot that has turned by so much would have seen a view of where it should be."""
_FACED_RAD = 0.25
_ASIDE_RAD = 1.6
"""A view between these angles is turned to, where nothing looks near."""
_CREEPING = 0.3
"""Part of the usual speed at which a robot drives on that does not know where it is."""


class Search:
    """Decides what a robot does that does not see what it should. What it has done is kept in the
    journey."""

    def __init__(
        self,
        topological_map: TopologicalMap,
        planner: RoutePlanner,
        reckoning: DeadReckoning,
        path_to: Callable[[Localisation, int], NDArray[np.float64]],
        back: NDArray[np.float64],
        config: NavigationConfig,
    ) -> None:
        """Search on a map.

        Args:
            topological_map: the map.
            planner: of the route that the robot was on.
            reckoning: where it should be.
            path_to: gives the waypoints to a node that was compared, (T, 3) metres and radians.
            back: the path (T, 3) straight back.
            config: how long and how far.
        """
        self._map = topological_map
        self._planner = planner
        self._reckoning = reckoning
        self._path_to = path_to
        self._back = back
        self._config = config

    def turned_out(self, journey: Journey) -> bool:
        """Whether it has turned as far as it may."""
        return journey.searched_rad >= self._config.search_turns * 2.0 * math.pi

    def returning(self, journey: Journey) -> bool:
        """Whether it drives back and has not gone far enough yet, even if it knows its place again:
        from there it got lost."""
        return (
            not self._config.can_turn
            and journey.lost_since_s is not None
            and 0.0 < journey.returned_steps < _RETURNED_STEPS
        )

    def exhausted(self, journey: Journey, now_s: float) -> bool:
        """Whether a lost robot has done what it can."""
        if journey.lost_since_s is None:
            return False
        lost_s = now_s - journey.lost_since_s
        return lost_s > self._config.lost_timeout_s or (
            self.turned_out(journey) and lost_s > self._config.look_s
        )

    def look_around(
        self,
        journey: Journey,
        seen: NavigationDecision,
        here: Localisation,
        now_s: float,
    ) -> NavigationDecision:
        """Lost: look, then turn, or drive back and on where that cannot be.

        Args:
            journey: it notes how far the search has gone.
            seen: what is known in this tick.
            here: the most probable place.
            now_s: the time.
        """
        if journey.lost_since_s is None:
            journey.lost_since_s = now_s
            journey.returned_steps = journey.crept_steps = journey.looked_at_steps = 0.0
            journey.nudge = None
        if journey.searched_rad > _DOUBT_RAD:
            # What should be seen from here was not: the robot was carried away.
            self._reckoning.forget()
        can_turn = self._config.can_turn
        # Only where it has just come from: not one that was lost from the start, or carried away.
        carried = self._map.poses is not None and self._reckoning.expected is None
        returns = (
            not can_turn
            and journey.last_node is not None
            and not carried
            and journey.returned_steps < self._config.return_steps
        )
        creeps = not can_turn and journey.crept_steps < self._config.creep_steps
        looks = not self.returning(journey) and self._looks(
            journey, here, now_s - journey.lost_since_s, now_s
        )
        seen = replace(seen, state=NavigationState.LOCALISING, node=None)
        if looks or not (returns or creeps or can_turn):
            return replace(seen, message="lost: looking around")
        if returns:
            return replace(
                seen,
                message="lost: driving back to where it knew its place",
                waypoints_m=self._back,
            )
        if creeps:
            # Towards the most probable node, for another view.
            path = self._path_to(here, here.node)
            path[:, :2] *= _CREEPING
            return replace(seen, message="lost: driving on slowly to see more", waypoints_m=path)
        return replace(
            seen,
            state=NavigationState.TURNING,
            message="lost: turning to see more",
            turn_rate_rad_s=self._turn_rate(journey),
        )

    def turn_to_other_way(
        self, journey: Journey, seen: NavigationDecision, node: int
    ) -> NavigationDecision | None:
        """No way leads on from this view; one may from another view of its place.

        Returns:
            The turn; None: it has turned far enough, or cannot.
        """
        if self.turned_out(journey) or not self._config.can_turn:
            return None
        return replace(
            seen,
            state=NavigationState.TURNING,
            message=f"no way from node {node}: turning to find another",
            turn_rate_rad_s=self._turn_rate(journey),
        )

    def face_route(self, seen: NavigationDecision, node: int) -> NavigationDecision | None:
        """Turn to where the route's next view should be seen; None: it looks there already."""
        poses, expected = self._map.poses, self._reckoning.expected
        route = self._planner.route(node, 2)
        if (
            not self._config.can_turn
            or poses is None
            or expected is None
            or not expected.is_known
            or not route
        ):
            return None
        angle = math.remainder(float(poses[route[-1], 2]) - expected.yaw_rad, 2.0 * math.pi)
        if not _FACED_RAD < abs(angle) < _ASIDE_RAD:
            return None
        return replace(
            seen,
            state=NavigationState.TURNING,
            message=f"turning to where node {route[-1]} should be seen",
            turn_rate_rad_s=math.copysign(self._config.turn_rate_rad_s, angle),
        )

    def _looks(self, journey: Journey, here: Localisation, lost_s: float, now_s: float) -> bool:
        """Whether a lost robot stands to look: at first, and where something looks near."""
        if lost_s <= self._config.look_s:
            return True
        if journey.looking_since_s is not None:
            if now_s - journey.looking_since_s <= self._config.look_s:
                return True
            journey.looking_since_s = None
        near = here.distance_steps <= self._config.localiser.found_distance_steps
        driven_steps = journey.returned_steps + journey.crept_steps
        new = (
            journey.searched_rad - journey.looked_at_rad >= self._config.look_apart_rad
            or driven_steps - journey.looked_at_steps >= _LOOK_APART_STEPS
        )
        if near and new:
            journey.looking_since_s = now_s
            journey.looked_at_rad = journey.searched_rad
            journey.looked_at_steps = driven_steps
            return True
        return False

    def _turn_rate(self, journey: Journey) -> float:
        """To one side throughout a search, whatever it is for at the moment: else it never ends."""
        if journey.search_side is None:
            journey.search_side = self._side(journey)
        return journey.search_side * self._config.turn_rate_rad_s

    def _side(self, journey: Journey) -> float:
        """+1 to turn left, −1 to turn right: to a known view, or to where the route goes on."""
        turn = journey.last_lateral_m
        poses = self._map.poses
        expected = self._reckoning.expected
        if poses is not None and expected is not None:
            near = np.hypot(poses[:, 0] - expected.x_m, poses[:, 1] - expected.y_m) <= _SEARCHED_M
            ways = [
                math.remainder(float(poses[node, 2]) - expected.yaw_rad, 2.0 * math.pi)
                for node in np.flatnonzero(near).tolist()
                if math.isfinite(self._planner.steps_to_goal(node))
            ]
            # What lies ahead is seen, or hidden.
            aside = [angle for angle in ways if abs(angle) > _BEND_RAD]
            if aside:
                return math.copysign(1.0, min(aside, key=abs))
        if poses is not None and journey.last_node is not None:
            route = self._planner.route(journey.last_node, self._config.lookahead_nodes)
            before = self._map.in_edges(journey.last_node)
            start = before[0].a if before else journey.last_node
            if route:
                bend = math.remainder(poses[route[-1], 2] - poses[start, 2], 2.0 * math.pi)
                turn = bend if abs(bend) > _BEND_RAD else turn
        return math.copysign(1.0, turn)
