"""One tick of the way to a goal over a map: drive on, turn, recover, search, or end.

What is remembered from tick to tick is in the journey; what ends the goal is said in the decision.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gnm_nav.dead_reckoning import DeadReckoning
from gnm_nav.journey import Journey, Nudge, Trouble, Turn
from gnm_nav.localiser import Localisation, Localiser
from gnm_nav.navigation_types import (
    FailureCode,
    NavigationConfig,
    NavigationDecision,
    NavigationState,
)
from gnm_nav.path_follower import straight_back
from gnm_nav.planar_pose import Pose
from gnm_nav.route_geometry import DRIVEN_TURN_RAD, RouteGeometry
from gnm_nav.route_planner import RoutePlanner
from gnm_nav.search import Search
from gnm_nav.topological_map import TopologicalMap

if TYPE_CHECKING:
    from policy_server.navigation_model import NavigationSpec

_PASSED_STEPS = 2.0
"""By so much the distance to a goal grows when it is passed."""
_SLOWEST = 0.3
"""Part of the usual speed at which a robot goes on that sees no node near."""
_SLIP = 0.5
"""Part of the way that a stuck robot was told to drive by which its wheels may have slipped."""
_BACK_SHARE = 0.4
"""Part of the usual speed at which it drives back."""
_POSSIBLE = 0.02
"""Probability from which the robot may be at a node."""


class Pursuit:
    """Pursues goals on one map.

    Attributes:
        back: the path (T, 3) on which a robot drives back from what it is stuck at; read only.
    """

    def __init__(
        self,
        topological_map: TopologicalMap,
        planner: RoutePlanner,
        localiser: Localiser,
        reckoning: DeadReckoning,
        path_to: Callable[[Localisation, int], NDArray[np.float64]],
        spec: NavigationSpec,
        waypoint_spacing_m: float,
        config: NavigationConfig,
    ) -> None:
        """Take what knows the map.

        Args:
            topological_map: the map.
            planner: of routes to the goal.
            localiser: where the robot is.
            reckoning: where it should be, by how it has moved.
            path_to: gives the waypoints to a node that was compared, (T, 3) metres and radians.
            spec: of the network.
            waypoint_spacing_m: metres per unit of its waypoints, for this robot.
            config: parameters.
        """
        self._map = topological_map
        self._planner = planner
        self._localiser = localiser
        self._reckoning = reckoning
        self._path_to = path_to
        self._spec = spec
        self._spacing_m = waypoint_spacing_m
        self._config = config
        self.back = straight_back(_BACK_SHARE * waypoint_spacing_m, spec.horizon)
        self.back.flags.writeable = False
        self._geometry = RouteGeometry(topological_map, planner, self._spacing_m, config)
        self._search = Search(topological_map, planner, reckoning, path_to, self.back, config)

    def step(
        self,
        journey: Journey,
        before: NavigationDecision,
        seen: NavigationDecision,
        here: Localisation,
        frames: list[NDArray[np.uint8]],
        now_s: float,
        motion: Pose,
    ) -> NavigationDecision:
        """Decide what to do until the next tick.

        Args:
            journey: the way to the goal so far; changed.
            before: the last decision.
            seen: what is known in this tick, for the decision to be filled in.
            here: where the robot is.
            frames: context, oldest first, (h, w, 3) uint8 each.
            now_s: current time.
            motion: x, y [m], yaw [rad] since the last tick, in the robot's frame then.

        Returns:
            The decision; `reached` or `code` say that the goal has ended.
        """
        turned_rad = abs(motion[2]) if before.turn_rate_rad_s is not None else 0.0
        if journey.turn is not None:
            journey.turn.turned_rad += turned_rad
            if not self._has_turned(journey.turn, here):
                return self._keep_turning(journey.turn, seen)
            turn, journey.turn = journey.turn, None
            seen, here = self._arrived(turn, seen, here)
            arrived = turn.target == journey.goal and self._may_be_at(journey.goal)
            if turn.sure and (arrived or self._at_goal_place(journey, here)):
                # A goal is a place, and that view of it may not be found again from here.
                return self._end(journey, seen)
        elif journey.nudge is None:
            journey.searched_rad += turned_rad
        if here.lost or self._search.returning(journey):
            journey.returned_steps += max(-motion[0], 0.0) / self._spacing_m
            journey.crept_steps += max(motion[0], 0.0) / self._spacing_m
            return self._lost(journey, seen, here, now_s)
        if journey.lost_since_s is not None:
            # Wherever it is now: progress counts from here.
            journey.lost_since_s = None
            journey.looking_since_s = None
            journey.best_steps = math.inf
            if journey.last_node is not None and math.isfinite(
                self._planner.steps_to_goal(here.node)
            ):
                # Bounded all the same: getting lost here again and again blocks the way.
                journey.end_search()
                answer = self._recover(
                    journey, before, seen, journey.last_node, Trouble.LOST, now_s
                )
                if answer is not None:
                    return answer
        if here.far_ticks >= self._config.doubt_ticks:
            # Driving on would lead away from what is still near.
            return self._search.face_route(seen, here.node) or replace(
                seen, state=NavigationState.LOCALISING, message="nothing of the map looks near"
            )
        place = self._place(journey, here)
        if place != here.node:
            here = replace(here, node=place, distance_steps=here.distance_to(place) or 0.0)
            seen = replace(seen, node=place, distance_steps=here.distance_steps)
        journey.last_node = here.node
        steps = self._planner.steps_to_goal(here.node)
        if not math.isfinite(steps):
            return self._other_way(journey, seen, here.node)
        if self._reached(journey, here):
            return self._end(journey, seen)
        remaining = steps + min(here.distance_steps, self._spec.max_distance_steps)
        progress = journey.measure_progress(remaining, now_s, self._config)
        seen = replace(seen, route_steps=steps, progress=progress)
        path = before.waypoints_m
        driving = path is not None and float(path[-1, 0]) >= self._spacing_m
        trouble = journey.trouble(frames, driving, now_s, 1.0 / self._spec.rate_hz, self._config)
        if trouble is not None:
            answer = self._recover(journey, before, seen, here.node, trouble, now_s)
            if answer is not None:
                return answer
        if journey.nudge is not None:
            nudged = self._nudged(journey, journey.nudge, seen, now_s)
            if nudged is not None:
                return nudged
        return self._drive(journey, seen, here)

    def _end(self, journey: Journey, seen: NavigationDecision) -> NavigationDecision:
        return replace(
            seen,
            state=NavigationState.IDLE,
            message=f"reached node {journey.goal}",
            route_steps=0.0,
            progress=1.0,
            reached=True,
        )

    def _at_goal_place(self, journey: Journey, here: Localisation) -> bool:
        """Whether it sees a view of the place that the goal is a view of."""
        near = here.distance_steps <= self._config.localiser.found_distance_steps
        return (
            near
            and not here.lost
            and self._geometry.driven_steps(here.node) == 0.0
            and self._may_be_at(journey.goal)
        )

    def _place(self, journey: Journey, here: Localisation) -> int:
        """The node to go on from: where no way leads on ahead, another view of the same place.

        Two drives through one place give nodes that look alike from it. Between those that the
        robot may be at, the one from where it can drive on is chosen.
        """
        following = self._planner.next_node(here.node)
        if here.node == journey.goal or (
            following is not None and not self._geometry.turn_rad(here.node, following)
        ):
            return here.node
        best, least = here.node, self._planner.steps_to_goal(here.node) + here.distance_steps
        for node, probability in here.belief.items():
            distance = here.distance_to(node)
            if (
                probability < _POSSIBLE
                or distance is None
                or distance > self._config.localiser.found_distance_steps
            ):
                continue
            steps = self._planner.steps_to_goal(node) + distance
            if steps < least:
                best, least = node, steps
        return best

    def _drive(
        self, journey: Journey, seen: NavigationDecision, here: Localisation
    ) -> NavigationDecision:
        """Waypoints towards the subgoal, or the turn that the route begins with."""
        route = self._planner.route(here.node, self._config.lookahead_nodes + 1)
        if not route:
            return self._other_way(journey, seen, here.node)
        # Several turns on end are one; if they cancel out, the network steers through them.
        turns = list(
            itertools.takewhile(
                lambda pair: self._geometry.edge(*pair).is_turn, itertools.pairwise(route)
            )
        )
        straight = [route[0]]
        if turns and self._geometry.turn_rad(*turns[0]):
            target = turns[-1][1]
            if not self._config.can_turn:
                self._planner.block(*turns[0])
                return replace(
                    seen, state=NavigationState.LOCALISING, message="cannot turn: planning again"
                )
            if abs(self._geometry.angle_rad(route[0], target)) <= DRIVEN_TURN_RAD:
                route = route[len(turns) :]
                straight.append(target)
            elif here.distance_steps <= self._config.turn_distance_steps:
                return self._turn_along_route(journey, seen, route[0], target)
        for a, b in itertools.pairwise(route):
            if self._geometry.turn_rad(a, b):
                break
            straight.append(b)
        compared = [
            (node, distance)
            for node in straight
            if (distance := here.distance_to(node)) is not None
        ]
        chosen = 0
        while chosen + 1 < len(compared):
            near = compared[chosen][1] <= self._config.close_threshold_steps
            # A node that was just passed looks far, the one after it does not.
            passed = (
                compared[chosen + 1][1] + self._config.passed_margin_steps < (compared[chosen][1])
            )
            if not near and not passed:
                break
            chosen += 1
        subgoal = compared[chosen][0]
        path = self._path_to(here, subgoal)
        journey.last_lateral_m = float(path[-1, 1])
        # Distance and direction become unsure together: a missed turn is best missed slowly.
        sure = 2.0 * self._config.close_threshold_steps
        path[:, :2] *= np.clip(sure / max(compared[chosen][1], 1e-6), _SLOWEST, 1.0)
        return replace(
            seen,
            state=NavigationState.DRIVING,
            message=f"driving to node {self._map.label(journey.goal)}",
            subgoal=subgoal,
            waypoints_m=path,
        )

    def _reached(self, journey: Journey, here: Localisation) -> bool:
        config = self._config
        distance = here.distance_to(journey.goal)
        # Near along the map as well: one picture that looks like the goal is not enough.
        near = self._geometry.driven_steps(here.node) <= max(
            2.0 * config.close_threshold_steps, 4.0
        )
        if near and self._is_at(journey.goal):
            journey.reach_ticks += 1
            return journey.reach_ticks >= config.reach_ticks
        if distance is None or not near or not self._may_be_at(journey.goal):
            # It was near, and is on the way that leads on from the goal.
            left = not near and journey.nearest_goal_steps <= config.passed_distance_steps
            journey.reach_ticks = 0
            journey.nearest_goal_steps = math.inf
            return left and self._may_be_at(journey.goal)
        journey.reach_ticks = (
            journey.reach_ticks + 1 if distance <= config.reach_distance_steps else 0
        )
        nearest = journey.nearest_goal_steps
        passed = (
            nearest <= config.passed_distance_steps and distance > nearest + _PASSED_STEPS
        ) or (
            # It was at the edge of the view, and has left it.
            here.node == journey.goal
            and nearest <= config.passed_distance_steps + _PASSED_STEPS
            and distance > nearest + 2.0 * _PASSED_STEPS
        )
        journey.nearest_goal_steps = min(nearest, distance)
        return journey.reach_ticks >= config.reach_ticks or passed

    def _recover(
        self,
        journey: Journey,
        before: NavigationDecision,
        seen: NavigationDecision,
        place: int,
        trouble: Trouble,
        now_s: float,
    ) -> NavigationDecision | None:
        """Try again a few times at a place, then plan around; None: go on driving."""
        journey.progress_at_s = now_s
        usual_m_s = self._spacing_m * self._spec.rate_hz
        if trouble == Trouble.STUCK:
            # Its wheels may have turned all the time.
            self._reckoning.slipped(_SLIP * self._config.stuck_s * usual_m_s)
        again = sum(self._geometry.near(place, other) for other in journey.troubles)
        journey.troubles.append(place)
        if again >= self._config.recoveries:
            journey.troubles.clear()
            return self._block(journey, seen, place, trouble)
        if trouble == Trouble.STUCK:
            waypoints = before.waypoints_m
            lateral = 0.0 if waypoints is None else float(waypoints[-1, 1])
            # Away from where it was steering; the second time to the other side.
            sign = (-1.0 if lateral > 0.0 else 1.0) * (1.0 if again % 2 == 0 else -1.0)
            backed_s = now_s + self._config.back_m / (_BACK_SHARE * usual_m_s)
            turned_s = passed_s = backed_s
            if self._config.can_turn:
                turned_s += self._config.nudge_rad / self._config.turn_rate_rad_s
                passed_s = turned_s + self._config.nudge_s
            journey.nudge = Nudge(sign * self._config.turn_rate_rad_s, backed_s, turned_s, passed_s)
        elif trouble == Trouble.NO_PROGRESS:
            self._localiser.forget()
            return replace(seen, state=NavigationState.LOCALISING, node=None, message=trouble)
        return None

    def _nudged(
        self, journey: Journey, nudge: Nudge, seen: NavigationDecision, now_s: float
    ) -> NavigationDecision | None:
        if now_s < nudge.back_until_s:
            return replace(
                seen,
                state=NavigationState.RECOVERING,
                message="stuck: driving back",
                waypoints_m=self.back,
            )
        if now_s < nudge.turn_until_s:
            return replace(
                seen,
                state=NavigationState.RECOVERING,
                message="stuck: turning away",
                turn_rate_rad_s=nudge.rate_rad_s,
            )
        if now_s < nudge.drive_until_s:
            ahead = np.zeros((self._spec.horizon, 3))
            ahead[:, 0] = self._spacing_m * np.arange(1, len(ahead) + 1)
            return replace(
                seen,
                state=NavigationState.RECOVERING,
                message="stuck: driving past",
                waypoints_m=ahead,
            )
        journey.nudge = None
        return None

    def _block(
        self,
        journey: Journey,
        seen: NavigationDecision,
        place: int,
        trouble: Trouble,
    ) -> NavigationDecision:
        """Take what lies ahead off the map for this goal, and plan again."""
        place, edges = self._geometry.blockade(place)
        self._planner.block_all(edges)
        journey.replans += 1
        journey.best_steps = math.inf
        journey.end_search()
        message = f"{trouble}; {len(edges)} edges after node {place} are blocked, planning again"
        return replace(
            seen,
            state=NavigationState.LOCALISING,
            message=message,
            replans=journey.replans,
            route_steps=math.nan,
        )

    def _lost(
        self, journey: Journey, seen: NavigationDecision, here: Localisation, now_s: float
    ) -> NavigationDecision:
        """Look for itself, then give up, or try what was blocked."""
        if not self._search.exhausted(journey, now_s):
            return self._search.look_around(journey, seen, here, now_s)
        if journey.last_node is not None and not math.isfinite(
            self._planner.steps_to_goal(journey.last_node)
        ):
            return self._no_way(journey, seen, journey.last_node)
        assert journey.lost_since_s is not None
        return self._give_up(
            journey,
            seen,
            FailureCode.LOST,
            f"not found on the map within {now_s - journey.lost_since_s:.0f} s and "
            f"{journey.searched_rad / (2 * math.pi):.1f} turns",
        )

    def _other_way(
        self, journey: Journey, seen: NavigationDecision, node: int
    ) -> NavigationDecision:
        """No way leads from this view to the goal; one may from another view of this place."""
        return self._search.turn_to_other_way(journey, seen, node) or self._no_way(
            journey, seen, node
        )

    def _no_way(self, journey: Journey, seen: NavigationDecision, node: int) -> NavigationDecision:
        """No way is left. One that was blocked may be free by now, or was never in the way."""
        if self._planner.blocked and journey.second_tries < self._config.second_tries:
            journey.second_tries += 1
            journey.end_search()
            journey.troubles.clear()
            journey.best_steps = math.inf
            journey.lost_since_s = None
            self._planner.doubt_blocked()
            return replace(
                seen,
                state=NavigationState.LOCALISING,
                message=f"no way from node {node} but blocked ones: trying them again",
            )
        return self._give_up(
            journey,
            seen,
            FailureCode.UNREACHABLE,
            f"the map has no way from node {node} to {journey.goal}"
            + (" other than the blocked ones" if journey.replans > 0 else ""),
        )

    def _turn_along_route(
        self, journey: Journey, seen: NavigationDecision, a: int, b: int
    ) -> NavigationDecision:
        """The route begins with a turn on the spot."""
        angle = self._geometry.angle_rad(a, b)
        rate = math.copysign(self._config.turn_rate_rad_s, angle)
        sure = seen.distance_steps <= self._config.passed_distance_steps
        journey.turn = Turn(b, rate, abs(angle), sure)
        return self._keep_turning(journey.turn, seen)

    def _keep_turning(self, turn: Turn, seen: NavigationDecision) -> NavigationDecision:
        return replace(
            seen,
            state=NavigationState.TURNING,
            subgoal=turn.target,
            message=f"turning by {math.degrees(turn.angle_rad):.0f} degrees to node {turn.target}",
            turn_rate_rad_s=turn.rate_rad_s,
        )

    def _has_turned(self, turn: Turn, here: Localisation) -> bool:
        """Whether the view after the turn is there, or should have been by now."""
        if turn.turned_rad >= turn.angle_rad + 0.1:
            return True
        if here.lost or turn.turned_rad < 0.8 * turn.angle_rad:
            return False
        distance = here.distance_to(turn.target)
        return distance is not None and distance <= self._config.close_threshold_steps

    def _arrived(
        self, turn: Turn, seen: NavigationDecision, here: Localisation
    ) -> tuple[NavigationDecision, Localisation]:
        """After a turn the robot is where it turned to, if that looks near.

        Other views of the same place look as near, and from one of them the route may begin with
        the next turn.
        """
        distance = here.distance_to(turn.target)
        if distance is None or distance > self._config.localiser.found_distance_steps:
            return seen, here
        self._localiser.start_at(turn.target)
        here = replace(here, node=turn.target, distance_steps=distance, lost=False)
        return replace(seen, node=turn.target, distance_steps=distance), here

    def _give_up(
        self, journey: Journey, seen: NavigationDecision, code: FailureCode, message: str
    ) -> NavigationDecision:
        return replace(
            seen, state=NavigationState.IDLE, code=code, message=message, goal=journey.goal
        )

    def _may_be_at(self, node: int) -> bool:
        """Whether the robot can be at a node's place, by how it has moved."""
        poses, expected = self._map.poses, self._reckoning.expected
        return poses is None or (expected is not None and expected.may_be_at(poses[node]))

    def _is_at(self, node: int) -> bool:
        """Whether the robot is at a node's place, by how it has moved since it last knew."""
        poses, expected = self._map.poses, self._reckoning.expected
        return poses is not None and expected is not None and expected.is_at(poses[node])
