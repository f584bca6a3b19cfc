"""Navigation over a topological map by camera alone: from camera images to waypoints.

Per tick: encode the observation once, localise, look up the route, choose the subgoal, take the
network's waypoints towards it. What the original deployment lacks is here: a start anywhere, a goal
test that needs evidence, replanning when nothing moves, turning to find itself, coded failures.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gnm_nav.dead_reckoning import DeadReckoning
from gnm_nav.frame_context import FrameContext
from gnm_nav.journey import Journey
from gnm_nav.localiser import Localisation, Localiser
from gnm_nav.navigation_types import (
    FailureCode,
    NavigationConfig,
    NavigationDecision,
    NavigationError,
    NavigationState,
)
from gnm_nav.planar_pose import Pose
from gnm_nav.pursuit import Pursuit
from gnm_nav.route_planner import RoutePlanner
from gnm_nav.topological_map import MapError, TopologicalMap

if TYPE_CHECKING:
    from policy_server.navigation_model import NavigationModel, ObservationCode


_SURE = 0.7
"""Confidence from which a node that the robot sees tells where it is."""


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
        self._reckoning = DeadReckoning()
        self._planner: RoutePlanner | None = None
        self._localiser: Localiser | None = None
        self._pursuit: Pursuit | None = None
        if topological_map is not None:
            self._planner = RoutePlanner(topological_map)
            self._localiser = Localiser(model, topological_map, self._config.localiser)
            self._pursuit = Pursuit(
                topological_map,
                self._planner,
                self._localiser,
                self._reckoning,
                self._path,
                model.spec,
                waypoint_spacing_m,
                self._config,
            )
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

    def shift_clock(self, by_s: float) -> None:
        """The clock of the image stamps was set by so much; the frames before are forgotten."""
        self._context.clear()
        if self._last_tick_s is not None:
            self._last_tick_s += by_s
        if self._journey is not None:
            self._journey.shift_clock(by_s)

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
            self._journey.blind_back_m = self._journey.blind_rad = 0.0
        return self._last

    def recover_sight(self, now_s: float) -> NavigationDecision | None:
        """Instead of a tick where the picture shows nothing: back and turn until it does.

        A robot that drove up to something plain sees nothing else; that it is not covered instead
        shows only so. Neither goes far.

        Args:
            now_s: current time on the clock of the image stamps [s].

        Returns:
            What to do; None: it has no goal, had seen nothing before, or has done enough.
        """
        elapsed_s = self._elapsed_s(now_s)
        journey, config = self._journey, self._config
        if self._pursuit is None or journey is None or journey.last_node is None:
            return None
        if self._last.state == NavigationState.RECOVERING:
            x_m, _, yaw_rad = self._told_motion(self._last, elapsed_s)
            journey.blind_back_m += abs(x_m)
            journey.blind_rad += abs(yaw_rad)
        decision = NavigationDecision(
            NavigationState.RECOVERING, goal=journey.goal, stamp_s=now_s, replans=journey.replans
        )
        if journey.blind_back_m < config.back_m:
            self._last = replace(
                decision,
                message="something plain fills the picture: driving back",
                waypoints_m=self._pursuit.back,
            )
        elif journey.blind_rad < config.blind_turn_rad and config.can_turn:
            self._last = replace(
                decision,
                message="something plain fills the picture: turning to see again",
                turn_rate_rad_s=math.copysign(config.turn_rate_rad_s, -journey.last_lateral_m),
            )
        else:
            return None
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
        if self._journey is None or self._pursuit is None:
            return seen
        decision = self._pursuit.step(self._journey, before, seen, here, frames, now_s, motion)
        if decision.reached:
            self._journey = None
        elif decision.code is not None:
            self.clear_goal()
        return decision

    def _told_motion(self, before: NavigationDecision, elapsed_s: float) -> Pose:
        """What the last decision made the robot do, if it did as it was told."""
        if before.turn_rate_rad_s is not None:
            return 0.0, 0.0, before.turn_rate_rad_s * elapsed_s
        if before.waypoints_m is None:
            return 0.0, 0.0, 0.0
        share = elapsed_s / self._period_s / len(before.waypoints_m)
        x_m, y_m, yaw_rad = (share * float(value) for value in before.waypoints_m[-1])
        reach_m = math.hypot(x_m, y_m)
        reach_m = min(reach_m, 1.5 * self._spacing_m * elapsed_s / self._period_s)
        return math.copysign(reach_m, x_m), 0.0, yaw_rad

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
