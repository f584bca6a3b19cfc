"""Navigation over a topological map by camera alone: from camera images to waypoints.

Per tick: encode the observation once, localise, look up the route, choose the subgoal, take the
network's waypoints towards it. What the original deployment lacks is here: a start anywhere, a goal
test that needs evidence, replanning when nothing moves, turning to find itself, coded failures.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gnm_nav.dead_reckoning import DeadReckoning
from gnm_nav.frame_context import FrameContext
from gnm_nav.journey import Journey, Nudge, Trouble, Turn
from gnm_nav.localiser import Localisation, Localiser
from gnm_nav.navigation_types import (
    FailureCode,
    NavigationConfig,
    NavigationDecision,
    NavigationError,
    NavigationState,
)
from gnm_nav.planar_pose import Pose
from gnm_nav.route_planner import RoutePlanner
from gnm_nav.topological_map import Edge, EdgeKind, MapError, TopologicalMap

if TYPE_CHECKING:
    from policy_server.navigation_model import NavigationModel, ObservationCode


_BEND_RAD = 0.3
"""A route that turns by less is straight."""
_PASSED_STEPS = 2.0
"""By so much the distance to a goal grows when it is passed."""
_SLOWEST = 0.3
"""Part of the usual speed at which a robot goes on that sees no node near."""
_LOOK_APART_STEPS = 2.0
"""Way between two looks of a lost robot that cannot turn."""
_SURE = 0.7
"""Confidence from which a node that the robot sees tells where it is."""
_SEARCHED_M = 1.0
"""Views of places this near to where the robot should be are looked for."""
_DOUBT_RAD = 3.6
"""A lost robot that has turned by so much would have seen a view of where it should be."""
_GOAL_M = 0.8
"""A goal cannot be reached further away than this, by how the robot has moved."""
_SURE_SIGHTINGS = 6
"""Of nodes, before a goal can count as reached."""
_AT_M = 0.25
"""A robot is at a place that is not further away than this, by how it has moved."""
_KNOWN_SIGMA_M = 0.4
"""Standard deviation up to which a pose is good enough to act on it alone."""
_FACED_RAD = 0.25
_ASIDE_RAD = 1.6
"""A view between these angles is turned to, where nothing looks near."""
_POSSIBLE = 0.02
"""Probability from which the robot may be at a node."""
_SEEN_NODES = 12
"""As far ahead along the route may lie what is seen to block it."""
_DRIVEN_TURN_RAD = 0.6
"""The network steers through turns up to this one."""


class NavigationCore:
    """One robot on one map. Feed it images with `push_frame`, call `tick` at 4 Hz."""

    def __init__(
        self,
        model: NavigationModel,
        topological_map: TopologicalMap | None,
        waypoint_spacing_m: float,
        config: NavigationConfig | None = None,
    ) -> None:
        """Stand without a goal.

        Args:
            model: the network; `topological_map` must have been made with the same one.
            topological_map: None: only exploration is possible.
            waypoint_spacing_m: metres per unit of the network's waypoints, for this robot.
            config: parameters.

        Raises:
            ValueError: the spacing is not positive.
        """
        if not waypoint_spacing_m > 0.0:
            raise ValueError(f"found waypoint_spacing_m {waypoint_spacing_m}, expected above 0")
        self._model = model
        self._config = config or NavigationConfig()
        self._spacing_m = waypoint_spacing_m
        self._period_s = 1.0 / model.spec.rate_hz
        self._context = FrameContext(model.preprocess, model.spec.context_size + 1, self._period_s)
        self._map = topological_map
        self._planner = RoutePlanner(topological_map) if topological_map is not None else None
        self._localiser = (
            Localiser(model, topological_map, self._config.localiser)
            if topological_map is not None
            else None
        )
        self._reckoning = DeadReckoning()
        self._journey: Journey | None = None
        self._exploring = False
        self._seed = self._config.seed
        self._last_tick_s: float | None = None
        self._last: NavigationDecision = NavigationDecision(NavigationState.IDLE)

    @property
    def map(self) -> TopologicalMap | None:
        """The map."""
        return self._map

    @property
    def planner(self) -> RoutePlanner | None:
        """The planner, for drawing; None without a map."""
        return self._planner

    @property
    def goal(self) -> int | None:
        """The goal node, None: no goal."""
        return self._journey.goal if self._journey else None

    @property
    def exploring(self) -> bool:
        """Whether it drives without a goal."""
        return self._exploring

    def push_frame(self, image: NDArray[np.uint8], stamp_s: float) -> bool:
        """Take a camera image at any rate; see `FrameContext.push`."""
        return self._context.push(image, stamp_s)

    def push_odometry(self, stamp_s: float, x_m: float, y_m: float, yaw_rad: float) -> None:
        """Take a pose of the robot in any frame that stands still, on the clock of the images.

        Optional: without it the robot counts as moving as it is told to.
        """
        self._reckoning.add_odometry(stamp_s, x_m, y_m, yaw_rad)

    def forget_frames(self) -> None:
        """Start a new context, e.g. after the camera failed."""
        self._context.clear()

    def forget_place(self, node: int | None = None) -> None:
        """Be lost; or believe to be at a node that somebody names."""
        self._reckoning.forget()
        if self._localiser is not None:
            if node is None:
                self._localiser.forget()
            else:
                self._localiser.start_at(node)

    def set_goal_node(self, goal: int | str) -> int:
        """Drive to a node.

        Args:
            goal: id, name, or "last".

        Returns:
            The node.

        Raises:
            NavigationError: NO_MAP or UNKNOWN_GOAL; an earlier goal stays.
        """
        if self._map is None:
            raise NavigationError(FailureCode.NO_MAP, "found no map; load one before the goal")
        try:
            node = self._map.node(goal)
        except MapError as error:
            raise NavigationError(FailureCode.UNKNOWN_GOAL, str(error)) from None
        self._start(node)
        return node

    def set_goal_image(self, image: NDArray[np.uint8]) -> int:
        """Drive to the place that a picture shows.

        Nodes that look like it are retrieved, then the network says from which of them the
        picture lies nearest ahead.

        Args:
            image: native RGB, (H, W, 3) uint8.

        Returns:
            The node.

        Raises:
            NavigationError: NO_MAP; or UNKNOWN_GOAL: no node is near enough. An earlier goal stays.
        """
        if self._map is None or self._localiser is None:
            raise NavigationError(FailureCode.NO_MAP, "found no map; load one before the goal")
        picture = self._model.preprocess(image)
        nodes, similarity = self._localiser.retrieve(picture, self._config.localiser.retrieved)
        frames = self._model.spec.context_size + 1
        # Both ways, as each alone errs: from the picture to the nodes and from the nodes to it.
        forth = np.asarray(
            self._model.match(
                self._model.observe([picture] * frames), np.asarray(self._map.images[nodes])
            ).distances,
            np.float64,
        )
        nearest = np.argsort(forth)[: max(4, len(nodes) // 4)]
        best, best_steps = -1, math.inf
        for index in dict.fromkeys([*nearest.tolist(), 0]):
            observation = self._model.observe([np.asarray(self._map.images[nodes[index]])] * frames)
            back = float(self._model.match(observation, picture[None]).distances[0])
            steps = min(max(back, 0.0), max(float(forth[index]), 0.0))
            if steps < best_steps:
                best, best_steps = int(nodes[index]), steps
        if best_steps > self._config.goal_image_distance_steps:
            raise NavigationError(
                FailureCode.UNKNOWN_GOAL,
                f"found no place like the goal image: node {best} is the nearest, "
                f"{best_steps:.1f} model steps away (similarity {float(similarity[0]):.2f}), "
                f"expected at most {self._config.goal_image_distance_steps:g}",
            )
        self._start(best)
        return best

    def set_explore(self, explore: bool, seed: int | None = None) -> None:
        """Drive without a goal, or stop doing so.

        Args:
            explore: whether to drive.
            seed: of the noise from now on; None: go on as before.

        Raises:
            ValueError: the model cannot.
        """
        if explore and not self._model.spec.can_explore:
            raise ValueError(
                f"found a model of kind {self._model.spec.kind}, expected one that can explore "
                "(nomad)"
            )
        self._journey = None
        self._exploring = explore
        if seed is not None:
            self._seed = seed

    def clear_goal(self) -> None:
        """Stand. What is known about the place stays."""
        self._journey = None
        self._exploring = False
        if self._planner is not None:
            self._planner.unblock_all()
            self._planner.set_goal(None)

    def _start(self, node: int) -> None:
        assert self._planner is not None
        self._exploring = False
        self._planner.unblock_all()
        self._planner.set_goal(node)
        self._journey = Journey(node)

    def tick(self, now_s: float) -> NavigationDecision:
        """Decide what to do now.

        Args:
            now_s: current time on the clock of the image stamps [s].
        """
        self._last = self._decide(now_s, self._elapsed_s(now_s))
        if self._journey is not None:
            self._journey.blind_rad = 0.0
        return self._last

    def turn_blind(self, now_s: float) -> NavigationDecision | None:
        """Instead of a tick where the picture shows nothing: turn until it does, but not far.

        A robot that drove up to something plain sees nothing else; that it is not covered instead
        shows only so.

        Args:
            now_s: current time on the clock of the image stamps [s].

        Returns:
            The turn; None: it has no goal, had seen nothing before, or has turned far enough.
        """
        elapsed_s = self._elapsed_s(now_s)
        journey = self._journey
        if journey is None or journey.last_node is None or not self._config.can_turn:
            return None
        rate = self._config.turn_rate_rad_s
        if self._last.state == NavigationState.TURNING:
            journey.blind_rad += rate * elapsed_s
        if journey.blind_rad >= self._config.blind_turn_rad:
            return None
        self._last = NavigationDecision(
            NavigationState.TURNING,
            message="something plain fills the picture: turning to see again",
            goal=journey.goal,
            turn_rate_rad_s=math.copysign(rate, -journey.last_lateral_m),
            stamp_s=now_s,
            replans=journey.replans,
        )
        return self._last

    def _elapsed_s(self, now_s: float) -> float:
        """Time since the last tick; a gap counts as no more than four periods."""
        elapsed_s = 0.0 if self._last_tick_s is None else max(0.0, now_s - self._last_tick_s)
        self._last_tick_s = now_s
        return min(elapsed_s, 4.0 * self._period_s)

    def _decide(self, now_s: float, elapsed_s: float) -> NavigationDecision:
        goal = self.goal
        newest_s = self._context.newest_s
        if newest_s is None or now_s - newest_s > self._config.image_timeout_s:
            age = "none yet" if newest_s is None else f"{now_s - newest_s:.2f} s old"
            return NavigationDecision(
                NavigationState.WAITING, message=f"no fresh image ({age})", goal=goal
            )
        frames = self._context.frames()
        if frames is None:
            return NavigationDecision(
                NavigationState.WAITING,
                message=f"collecting {self._model.spec.context_size + 1} frames",
                goal=goal,
                stamp_s=newest_s,
            )
        if self._localiser is None and not self._exploring:
            return NavigationDecision(NavigationState.IDLE, message="no map", stamp_s=newest_s)
        observation = self._model.observe(frames)
        if self._exploring:
            return self._explore(observation, newest_s)
        return self._navigate(observation, frames, newest_s, now_s, elapsed_s)

    def _explore(self, observation: ObservationCode, stamp_s: float) -> NavigationDecision:
        self._seed += 1
        samples = self._model.explore(
            observation, seed=self._seed, num_samples=self._config.num_samples
        )
        return NavigationDecision(
            NavigationState.EXPLORING,
            message="driving without a goal",
            waypoints_m=self._metres(samples),
            stamp_s=stamp_s,
        )

    def _navigate(
        self,
        observation: ObservationCode,
        frames: list[NDArray[np.uint8]],
        stamp_s: float,
        now_s: float,
        elapsed_s: float,
    ) -> NavigationDecision:
        assert self._localiser is not None and self._planner is not None
        before = self._last
        also: list[int] = []
        if self._journey is not None and before.node is not None and not self._localiser.lost:
            also = self._planner.route(before.node, self._config.lookahead_nodes)
            if self._journey.turn is not None:
                also.insert(0, self._journey.turn.target)
        motion = self._reckoning.advance(frames[-1], stamp_s, self._told_motion(before, elapsed_s))
        here = self._localiser.update(
            observation,
            frames[-1],
            moved_steps=max(motion[0], 0.0) / self._spacing_m,
            turning=before.turn_rate_rad_s is not None,
            also=also,
            expected=self._reckoning.expected,
        )
        if here.elsewhere:
            self._reckoning.forget()
        if before.turn_rate_rad_s is None:
            self._sight(here)
        seen = NavigationDecision(
            NavigationState.IDLE,
            message="no goal",
            node=here.node if not here.lost else None,
            goal=self.goal,
            distance_steps=here.distance_steps,
            confidence=here.confidence,
            progress=before.progress,
            stamp_s=stamp_s,
            localisation=here,
            replans=self._journey.replans if self._journey else 0,
        )
        if self._journey is None:
            return seen
        return self._pursue(self._journey, seen, here, frames, now_s, motion)

    def _told_motion(self, before: NavigationDecision, elapsed_s: float) -> Pose:
        """What the last decision made the robot do, if it did as it was told."""
        if before.turn_rate_rad_s is not None:
            return 0.0, 0.0, before.turn_rate_rad_s * elapsed_s
        if before.waypoints_m is None:
            return 0.0, 0.0, 0.0
        share = elapsed_s / self._period_s / len(before.waypoints_m)
        x_m, y_m, yaw_rad = (share * float(value) for value in before.waypoints_m[-1])
        reach_m = math.hypot(x_m, y_m)
        return min(reach_m, 1.5 * self._spacing_m * elapsed_s / self._period_s), 0.0, yaw_rad

    def _sight(self, here: Localisation) -> None:
        """Where the robot is, by the node that it sees."""
        poses = self._map.poses if self._map is not None else None
        if (
            poses is None
            or here.lost
            or here.confidence < _SURE
            or here.distance_steps > self._model.spec.horizon
        ):
            return
        if self._model.spec.can_explore:
            # Its waypoints are sampled, which costs as much as all the rest of a tick.
            ahead = np.array([here.distance_steps * self._spacing_m, 0.0, 0.0])
        else:
            path = self._path(here, here.node)
            ahead = path[min(max(round(here.distance_steps), 1), len(path)) - 1]
        node = poses[here.node]
        self._reckoning.sight(
            (float(node[0]), float(node[1]), float(node[2])),
            (float(ahead[0]), float(ahead[1]), float(ahead[2])),
        )

    def _pursue(
        self,
        journey: Journey,
        seen: NavigationDecision,
        here: Localisation,
        frames: list[NDArray[np.uint8]],
        now_s: float,
        motion: Pose,
    ) -> NavigationDecision:
        assert self._planner is not None
        turned_rad = abs(motion[2]) if self._last.turn_rate_rad_s is not None else 0.0
        if journey.turn is not None:
            journey.turn.turned_rad += turned_rad
            if not self._has_turned(journey.turn, here):
                return self._keep_turning(journey.turn, seen)
            turn, journey.turn = journey.turn, None
            seen, here = self._arrived(turn, seen, here)
            arrived = turn.target == journey.goal and self._may_be_near(journey.goal)
            if turn.sure and (arrived or self._at_goal_place(here)):
                # A goal is a place, and that view of it may not be found again from here.
                return self._end(journey, seen)
        elif journey.nudge is None:
            journey.searched_rad += turned_rad
        if here.lost:
            journey.crept_steps += max(motion[0], 0.0) / self._spacing_m
            return self._search(journey, seen, here, now_s)
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
                answer = self._recover(journey, seen, journey.last_node, Trouble.LOST, now_s)
                if answer is not None:
                    return answer
        if here.far_ticks >= self._config.doubt_ticks:
            # Driving on would lead away from what is still near.
            return self._face_route(seen, here) or replace(
                seen, state=NavigationState.LOCALISING, message="nothing of the map looks near"
            )
        place = self._place(here)
        if place != here.node:
            here = replace(here, node=place, distance_steps=here.distance_to(place) or 0.0)
            seen = replace(seen, node=place, distance_steps=here.distance_steps)
        journey.last_node = here.node
        steps = self._planner.steps_to_goal(here.node)
        if not math.isfinite(steps):
            return self._turn_to_other_route(journey, seen, here)
        if self._reached(journey, here):
            return self._end(journey, seen)
        remaining = steps + min(here.distance_steps, self._model.spec.max_distance_steps)
        progress = journey.measure_progress(remaining, now_s, self._config)
        seen = replace(seen, route_steps=steps, progress=progress)
        path = self._last.waypoints_m
        driving = path is not None and float(path[-1, 0]) >= self._spacing_m
        trouble = journey.trouble(frames, driving, now_s, self._period_s, self._config)
        if trouble is not None:
            answer = self._recover(journey, seen, here.node, trouble, now_s)
            if answer is not None:
                return answer
        if journey.nudge is not None:
            nudged = self._nudged(journey, journey.nudge, seen, now_s)
            if nudged is not None:
                return nudged
        return self._drive(journey, seen, here)

    def _end(self, journey: Journey, seen: NavigationDecision) -> NavigationDecision:
        self._journey = None
        return replace(
            seen,
            state=NavigationState.IDLE,
            message=f"reached node {journey.goal}",
            route_steps=0.0,
            progress=1.0,
            reached=True,
        )

    def _at_goal_place(self, here: Localisation) -> bool:
        """Whether it sees a view of the place that the goal is a view of."""
        near = here.distance_steps <= self._config.localiser.found_distance_steps
        return (
            near
            and not here.lost
            and self._way_steps(here.node) == 0.0
            and self._may_be_near(self._goal_node())
        )

    def _place(self, here: Localisation) -> int:
        """The node to go on from: where no way leads on ahead, another view of the same place.

        Two drives through one place give nodes that look alike from it. Between those that the
        robot may be at, the one from where it can drive on is chosen.
        """
        assert self._planner is not None
        following = self._planner.next_node(here.node)
        if here.node == self.goal or (
            following is not None and not self._turn_rad(here.node, following)
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
        assert self._planner is not None and self._map is not None
        route = self._planner.route(here.node, self._config.lookahead_nodes + 1)
        if not route:
            return self._turn_to_other_route(journey, seen, here)
        # Several turns on end are one; if they cancel out, the network steers through them.
        turns = list(
            itertools.takewhile(lambda pair: self._edge(*pair).is_turn, itertools.pairwise(route))
        )
        straight = [route[0]]
        if turns and self._turn_rad(*turns[0]):
            target = turns[-1][1]
            if not self._config.can_turn:
                self._planner.block(*turns[0])
                return replace(
                    seen, state=NavigationState.LOCALISING, message="cannot turn: planning again"
                )
            if abs(self._angle_rad(route[0], target)) <= _DRIVEN_TURN_RAD:
                route = route[len(turns) :]
                straight.append(target)
            elif here.distance_steps <= self._config.turn_distance_steps:
                return self._turn_along_route(journey, seen, route[0], target)
        for a, b in itertools.pairwise(route):
            if self._turn_rad(a, b):
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
        path = self._path(here, subgoal)
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

    def _path(self, here: Localisation, subgoal: int) -> NDArray[np.float64]:
        """The network's waypoints to a node that was compared: (T, 3) metres and radians."""
        index = here.index(subgoal)
        assert index is not None
        self._seed += 1
        samples = self._model.waypoints(
            here.match, index, seed=self._seed, num_samples=self._config.num_samples
        )
        return self._metres(samples)

    def _metres(self, samples: NDArray[np.float32]) -> NDArray[np.float64]:
        """(S, T, 4) normalised samples → the medoid, (T, 3) metres and radians."""
        paths = np.asarray(samples, np.float64)
        chosen = 0
        if len(paths) > 1:
            flat = paths[:, :, :2].reshape(len(paths), -1)
            apart = np.linalg.norm(flat[:, None] - flat[None], axis=2)
            chosen = int(apart.sum(axis=1).argmin())
        path = paths[chosen]
        yaw = np.arctan2(path[:, 3], path[:, 2])
        return np.column_stack((path[:, :2] * self._spacing_m, yaw))

    def _edge(self, a: int, b: int) -> Edge:
        assert self._map is not None
        return next(edge for edge in self._map.out_edges(a) if edge.b == b)

    def _turn_rad(self, a: int, b: int) -> float:
        """Turn on the spot along an edge; 0: it is driven, as small turns are, too."""
        assert self._map is not None
        if not self._edge(a, b).is_turn:
            return 0.0
        angle = self._angle_rad(a, b)
        return angle if abs(angle) > _DRIVEN_TURN_RAD else 0.0

    def _angle_rad(self, a: int, b: int) -> float:
        """By how much a robot that sees a turns to see b."""
        assert self._map is not None
        poses = self._map.poses
        if poses is None:
            return math.pi
        return math.remainder(float(poses[b, 2] - poses[a, 2]), 2.0 * math.pi)

    def _reached(self, journey: Journey, here: Localisation) -> bool:
        assert self._planner is not None
        config = self._config
        distance = here.distance_to(journey.goal)
        # Near along the map as well: one picture that looks like the goal is not enough.
        near = self._way_steps(here.node) <= max(2.0 * config.close_threshold_steps, 4.0)
        if near and self._is_at(journey.goal):
            journey.reach_ticks += 1
            return journey.reach_ticks >= config.reach_ticks
        if distance is None or not near or not self._may_be_near(journey.goal):
            # It was near, and is on the way that leads on from the goal.
            left = not near and journey.nearest_goal_steps <= config.passed_distance_steps
            journey.reach_ticks = 0
            journey.nearest_goal_steps = math.inf
            return left and self._may_be_near(journey.goal)
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

    def _may_be_near(self, node: int) -> bool:
        """Whether the robot can be at a node's place, by how it has moved.

        Not where it was found a moment ago: that may be a place that only looks alike.
        """
        poses = self._map.poses if self._map is not None else None
        if poses is None:
            return True
        expected = self._reckoning.expected
        return (
            expected is not None
            and expected.sightings >= _SURE_SIGHTINGS
            and expected.apart_m(poses[node]) <= _GOAL_M + expected.sigma_m
        )

    def _is_at(self, node: int) -> bool:
        """Whether the robot is at a node's place, by how it has moved since it last knew."""
        poses = self._map.poses if self._map is not None else None
        expected = self._reckoning.expected
        return (
            poses is not None
            and expected is not None
            and expected.sightings >= _SURE_SIGHTINGS
            and expected.sigma_m <= _KNOWN_SIGMA_M
            and expected.apart_m(poses[node]) <= _AT_M
        )

    def _face_route(
        self, seen: NavigationDecision, here: Localisation
    ) -> NavigationDecision | None:
        """Turn to where the route's next view should be seen; None: it looks there already."""
        assert self._planner is not None
        poses = self._map.poses if self._map is not None else None
        expected = self._reckoning.expected
        if (
            poses is None
            or expected is None
            or expected.sigma_m > _KNOWN_SIGMA_M
            or not self._config.can_turn
        ):
            return None
        route = self._planner.route(here.node, 2)
        if not route:
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

    def _way_steps(self, node: int) -> float:
        """Length of the route to the goal without its turns; infinite beyond the next few nodes."""
        assert self._planner is not None
        route = self._planner.route(node, self._config.lookahead_nodes + 1)
        if not route or route[-1] != self._goal_node():
            return math.inf
        steps = 0.0
        for a, b in itertools.pairwise(route):
            edge = self._edge(a, b)
            steps += 0.0 if edge.is_turn else edge.steps
        return steps

    def _recover(
        self,
        journey: Journey,
        seen: NavigationDecision,
        place: int,
        trouble: Trouble,
        now_s: float,
    ) -> NavigationDecision | None:
        """Try again a few times at a place, then plan around; None: go on driving."""
        assert self._localiser is not None and self._map is not None
        journey.progress_at_s = now_s
        if trouble == Trouble.STUCK:
            # It did not move as it was told to.
            self._reckoning.forget()
        again = sum(self._near(place, other) for other in journey.troubles)
        journey.troubles.append(place)
        if again >= self._config.recoveries:
            journey.troubles.clear()
            return self._block(journey, seen, place, trouble)
        if trouble == Trouble.STUCK and self._config.can_turn:
            waypoints = self._last.waypoints_m
            lateral = 0.0 if waypoints is None else float(waypoints[-1, 1])
            # Away from where it was steering; the second time to the other side.
            sign = (-1.0 if lateral > 0.0 else 1.0) * (1.0 if again % 2 == 0 else -1.0)
            turned_s = now_s + self._config.nudge_rad / self._config.turn_rate_rad_s
            journey.nudge = Nudge(
                sign * self._config.turn_rate_rad_s, turned_s, turned_s + self._config.nudge_s
            )
        elif trouble == Trouble.NO_PROGRESS:
            self._localiser.forget()
            return replace(seen, state=NavigationState.LOCALISING, node=None, message=trouble)
        return None

    def _near(self, a: int, b: int) -> bool:
        """Whether two nodes are of one place, whatever they look at."""
        assert self._map is not None
        reach = self._config.block_steps
        if b in self._map.ahead(a, reach) or a in self._map.ahead(b, reach):
            return True
        poses = self._map.poses
        return poses is not None and bool(
            math.hypot(*(poses[a] - poses[b])[:2]) <= reach * self._spacing_m
        )

    def _nudged(
        self, journey: Journey, nudge: Nudge, seen: NavigationDecision, now_s: float
    ) -> NavigationDecision | None:
        if now_s < nudge.turn_until_s:
            return replace(
                seen,
                state=NavigationState.TURNING,
                message="stuck: turning away",
                turn_rate_rad_s=nudge.rate_rad_s,
            )
        if now_s < nudge.drive_until_s:
            ahead = np.zeros((self._model.spec.horizon, 3))
            ahead[:, 0] = self._spacing_m * np.arange(1, len(ahead) + 1)
            return replace(
                seen,
                state=NavigationState.DRIVING,
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
        assert self._planner is not None
        place, edges = self._blockade(place)
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

    def _blockade(self, place: int) -> tuple[int, set[tuple[int, int]]]:
        """The stretch of the route to block: the node before it, and its edges.

        What blocks the way may be seen from afar, with the other way beginning in between. So the
        nearest stretch is blocked that leaves a way; the one right ahead if there is no such.
        """
        assert self._planner is not None
        for before in self._planner.route(place, _SEEN_NODES):
            edges = self._edges_ahead(before)
            if edges and self._planner.has_way(place, edges):
                return before, edges
        return place, self._edges_ahead(place)

    def _edges_ahead(self, place: int) -> set[tuple[int, int]]:
        """Edges that something right ahead of a node blocks, and that are not blocked yet."""
        assert self._map is not None and self._planner is not None
        ahead = {
            (edge.a, edge.b)
            for node in self._blocked_nodes(place)
            for edge in self._map.in_edges(node)
        }
        return ahead - self._planner.blocked

    def _blocked_nodes(self, node: int) -> set[int]:
        """Nodes of the route ahead, and other views of the same way."""
        assert self._planner is not None and self._map is not None
        ahead: set[int] = set()
        driven_from: float | None = None
        for before, following in itertools.pairwise(self._planner.route(node, 32)):
            # Turns on the spot lead to where the robot stands, and that is free.
            if driven_from is None:
                if self._turn_rad(before, following):
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
        return (ahead | twins) - {node, self._goal_node()}

    def _goal_node(self) -> int:
        assert self._journey is not None
        return self._journey.goal

    def _search(
        self, journey: Journey, seen: NavigationDecision, here: Localisation, now_s: float
    ) -> NavigationDecision:
        """Lost: look, then turn, or drive on slowly where that cannot be; then give up."""
        assert self._planner is not None
        if journey.lost_since_s is None:
            journey.lost_since_s = now_s
            journey.crept_steps = journey.looked_at_steps = 0.0
            journey.nudge = None
        lost_s = now_s - journey.lost_since_s
        if journey.searched_rad > _DOUBT_RAD:
            # What should be seen from here was not: the robot was carried away.
            self._reckoning.forget()
        turned_out = journey.searched_rad >= self._config.search_turns * 2.0 * math.pi
        if lost_s > self._config.lost_timeout_s or (turned_out and lost_s > self._config.look_s):
            if journey.last_node is not None and not math.isfinite(
                self._planner.steps_to_goal(journey.last_node)
            ):
                return self._no_way(journey, seen, journey.last_node)
            return self._give_up(
                journey,
                seen,
                FailureCode.LOST,
                f"not found on the map within {lost_s:.0f} s and "
                f"{journey.searched_rad / (2 * math.pi):.1f} turns",
            )
        creeps = not self._config.can_turn and journey.crept_steps < self._config.creep_steps
        if self._looks(journey, here, lost_s, now_s) or not (creeps or self._config.can_turn):
            return replace(
                seen, state=NavigationState.LOCALISING, node=None, message="lost: looking around"
            )
        if creeps:
            return self._creep(seen, here)
        return replace(
            seen,
            state=NavigationState.TURNING,
            node=None,
            message="lost: turning to see more",
            turn_rate_rad_s=self._search_rate(journey),
        )

    def _creep(self, seen: NavigationDecision, here: Localisation) -> NavigationDecision:
        """Instead of turning: on towards the most probable node, for another view."""
        path = self._path(here, here.node)
        path[:, :2] *= _SLOWEST
        return replace(
            seen,
            state=NavigationState.LOCALISING,
            node=None,
            message="lost: driving on slowly to see more",
            waypoints_m=path,
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
        new = (
            journey.searched_rad - journey.looked_at_rad >= self._config.look_apart_rad
            or journey.crept_steps - journey.looked_at_steps >= _LOOK_APART_STEPS
        )
        if near and new:
            journey.looking_since_s = now_s
            journey.looked_at_rad = journey.searched_rad
            journey.looked_at_steps = journey.crept_steps
            return True
        return False

    def _search_rate(self, journey: Journey) -> float:
        """To one side throughout a search, whatever it is for at the moment: else it never ends."""
        if journey.search_side is None:
            journey.search_side = self._search_side(journey)
        return journey.search_side * self._config.turn_rate_rad_s

    def _search_side(self, journey: Journey) -> float:
        """+1 to turn left, −1 to turn right: to a known view, or to where the route goes on."""
        assert self._map is not None and self._planner is not None
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

    def _turn_to_other_route(
        self, journey: Journey, seen: NavigationDecision, here: Localisation
    ) -> NavigationDecision:
        """No way leads from this view to the goal; one may from another view of this place."""
        turned_out = journey.searched_rad >= self._config.search_turns * 2.0 * math.pi
        if turned_out or not self._config.can_turn:
            return self._no_way(journey, seen, here.node)
        return replace(
            seen,
            state=NavigationState.TURNING,
            message=f"no way from node {here.node}: turning to find another",
            turn_rate_rad_s=self._search_rate(journey),
        )

    def _no_way(self, journey: Journey, seen: NavigationDecision, node: int) -> NavigationDecision:
        """No way is left. One that was blocked may be free by now, or was never in the way."""
        assert self._planner is not None
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
        angle = self._angle_rad(a, b)
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
        assert self._localiser is not None
        distance = here.distance_to(turn.target)
        if distance is None or distance > self._config.localiser.found_distance_steps:
            return seen, here
        self._localiser.start_at(turn.target)
        here = replace(here, node=turn.target, distance_steps=distance, lost=False)
        return replace(seen, node=turn.target, distance_steps=distance), here

    def _give_up(
        self, journey: Journey, seen: NavigationDecision, code: FailureCode, message: str
    ) -> NavigationDecision:
        self.clear_goal()
        return replace(
            seen, state=NavigationState.IDLE, code=code, message=message, goal=journey.goal
        )
