"""Gymnasium environment: drive a mobile base to a goal picture in a procedural world."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from base_drivers.robot_config import MODEL_PERIOD_S, load_robot
from numpy.typing import NDArray

from robot_sim.navigation.base_simulation import BaseSimulation
from robot_sim.navigation.driving import RouteDriver
from robot_sim.navigation.route import Route, sample_route
from robot_sim.navigation.world import make_world

GOAL_RADIUS_M = 0.5


class NavigationEnv(gymnasium.Env[Any, Any]):
    """One step is 0.25 s of a velocity command; the reward is the progress along the route [m].

    Action: float32 (3,) forward, left [m/s], yaw rate [rad/s] within the robot's limits.
    Observation: `image` and `goal`, uint8 (120, 160, 3) RGB from the start, the present place and
    the goal's; `velocity` float32 (3,) forward, left [m/s], yaw rate [rad/s].
    An episode terminates within 0.5 m of the goal; `info` has the true `pose`, `success`,
    `collisions`, `distance_m`, `route_m` and what the `expert` would do.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        world: str = "indoor",
        robot: str = "locobot",
        first_seed: int = 0,
        worlds: int = 1000,
        min_length_m: float = 8.0,
        render_mode: str | None = None,
    ) -> None:
        """Choose what `reset` draws from: worlds `first_seed` .. `first_seed + worlds - 1`."""
        self.render_mode = render_mode
        self._kind, self._robot = world, load_robot(robot)
        self._first_seed, self._worlds, self._min_length_m = first_seed, worlds, min_length_m
        limits = np.array(
            [
                self._robot.max_linear_m_s,
                self._robot.max_lateral_m_s,
                self._robot.max_angular_rad_s,
            ],
            dtype=np.float32,
        )
        self.action_space = gymnasium.spaces.Box(-limits, limits, dtype=np.float32)
        picture = gymnasium.spaces.Box(0, 255, (120, 160, 3), dtype=np.uint8)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "image": picture,
                "goal": picture,
                "velocity": gymnasium.spaces.Box(-np.inf, np.inf, (3,), dtype=np.float32),
            }
        )
        self._simulation: BaseSimulation | None = None
        self._route: Route
        self._driver: RouteDriver
        self._goal: NDArray[np.uint8]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Draw a world and a route; option `world_seed` names the world."""
        super().reset(seed=seed)
        world_seed = (options or {}).get("world_seed")
        if world_seed is None:
            world_seed = self._first_seed + int(self.np_random.integers(self._worlds))
        world = make_world(self._kind, int(world_seed))
        if self._simulation is None or self._simulation.world is not world:
            self.close()
            self._simulation = BaseSimulation(world, self._robot, world_seed, (160, 120))
        start, goal, self._route = sample_route(
            world, int(self.np_random.integers(2**31)), self._min_length_m
        )
        self._driver = RouteDriver(self._robot, self._route)
        self._simulation.reset(goal)
        self._goal = self._simulation.render()
        self._simulation.reset(start)
        return self._observation(), self._info()

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Drive for 0.25 s."""
        assert self._simulation is not None, "reset comes first"
        before = self._driver.arc_m
        v, vy, w = (float(value) for value in action)
        self._simulation.step(v, vy, w, MODEL_PERIOD_S)
        info = self._info()
        reward = self._driver.arc_m - before
        return self._observation(), reward, info["success"], False, info

    def _observation(self) -> dict[str, NDArray[Any]]:
        assert self._simulation is not None
        velocity = np.array(self._simulation.velocity, dtype=np.float32)
        return {"image": self._simulation.render(), "goal": self._goal.copy(), "velocity": velocity}

    def _info(self) -> dict[str, Any]:
        assert self._simulation is not None
        pose = self._simulation.pose
        expert = np.array(self._driver.command(pose), dtype=np.float32)
        away = math.dist(pose[:2], self._route.points_m[-1])
        return {
            "pose": pose,
            "success": away < GOAL_RADIUS_M,
            "collisions": self._simulation.collisions,
            "distance_m": self._simulation.distance_m,
            "route_m": self._route.length_m,
            "expert": expert,
        }

    def render(self) -> NDArray[np.uint8] | None:
        """The present picture, with `render_mode="rgb_array"`."""
        if self.render_mode != "rgb_array" or self._simulation is None:
            return None
        return self._simulation.render()

    def close(self) -> None:
        """Free the rendering context."""
        if self._simulation is not None:
            self._simulation.close()
            self._simulation = None
