"""The expert that knows the route, and drives recorded with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from base_drivers.robot_config import MODEL_PERIOD_S, RobotConfig
from numpy.typing import NDArray

from robot_sim.navigation.base_simulation import BaseSimulation
from robot_sim.navigation.route import Route
from robot_sim.navigation.world import World

CONTROL_PERIOD_S = 0.05
_Array = NDArray[np.float64]
_STUCK_S = 6.0


def lookahead_m(spacing_m: float) -> float:
    """How far along the route the expert aims, by its speed."""
    return min(max(4.0 * spacing_m, 0.4), 0.7)


class RouteDriver:
    """Pure pursuit of a route; turns on the spot where the robot can and must.

    Distances of the law: R. C. Coulter, "Implementation of the Pure Pursuit Path Tracking
    Algorithm", CMU-RI-TR-92-01, 1992: curvature 2 sin(alpha) / L.
    """

    def __init__(self, robot: RobotConfig, route: Route) -> None:
        """Start at the beginning of the route."""
        self._robot, self._route = robot, route
        self._lookahead_m = lookahead_m(robot.waypoint_spacing_m)
        self.arc_m = 0.0
        """Length of the route that has been driven."""

    def finished(self, pose: tuple[float, float, float]) -> bool:
        """Whether the robot stands at the route's end."""
        rest = math.hypot(*(self._route.points_m[-1] - pose[:2]))
        return self.arc_m >= self._route.length_m - 0.1 or (
            rest < 0.15 and self.arc_m > self._route.length_m - 0.5
        )

    def command(
        self, pose: tuple[float, float, float], offset_m: float = 0.0
    ) -> tuple[float, float, float]:
        """Forward and lateral speed [m/s] and yaw rate [rad/s] for a true pose.

        Args:
            pose: x, y [m], yaw [rad] in the world.
            offset_m: aim this far to the left of the route.
        """
        xy = np.array(pose[:2])
        self.arc_m = self._route.project(xy, self.arc_m - 0.3, self.arc_m + 1.0)
        ahead = self.arc_m + self._lookahead_m
        target = self._route.at(ahead)
        direction = float(self._route.heading(ahead))
        target = target + offset_m * np.array([-math.sin(direction), math.cos(direction)])
        delta = target - xy
        alpha = math.remainder(math.atan2(delta[1], delta[0]) - pose[2], 2 * math.pi)
        robot = self._robot
        speed = robot.nominal_speed_m_s
        if robot.kinematics == "ackermann":
            speed *= 1.0 if abs(alpha) < 0.5 else 0.7
        elif abs(alpha) > 0.9:
            turn = math.copysign(min(robot.max_angular_rad_s, 2.0 * abs(alpha)), alpha)
            return 0.0, 0.0, turn
        else:
            speed *= min(1.0, 1.3 - abs(alpha))
        distance = max(0.2, math.hypot(delta[0], delta[1]))
        turn = 2.0 * speed * math.sin(alpha) / distance
        turn = min(max(turn, -robot.max_angular_rad_s), robot.max_angular_rad_s)
        return speed, 0.0, turn


@dataclass(frozen=True)
class Drive:
    """What was seen and done at 4 Hz along a route.

    Attributes:
        images: (n, height, width, 3) uint8 RGB.
        stamps_s: (n,) simulated time.
        poses: (n, 3) true x, y [m], yaw [rad].
        arcs_m: (n,) length of the route at each pose.
        actions: (n, 3) mean commanded forward, left [m/s], yaw rate [rad/s] of the step after.
        finished: whether the end of the route was reached.
        collisions: contacts begun.
    """

    images: NDArray[np.uint8]
    stamps_s: _Array
    poses: _Array
    arcs_m: _Array
    actions: _Array
    finished: bool
    collisions: int


class _Wobble:
    """Disturbances that make a driver show how it returns to the route."""

    def __init__(
        self, world: World, robot: RobotConfig, route: Route, rng: np.random.Generator, noise: float
    ) -> None:
        self._rng, self._noise, self._radius_m = rng, noise, robot.radius_m
        self._world = world
        knots = np.arange(0.0, route.length_m + 4.0, 2.0)
        self._knots = knots
        self._offsets = noise * rng.uniform(-0.5, 0.5, len(knots))
        self._max_turn = robot.max_angular_rad_s
        self._drift = 0.0
        self._kick = 0.0
        self._kick_steps = 0

    def room_m(self, xy: _Array) -> float:
        """Free distance around a place beyond the robot's own size."""
        row, column = self._world.cell(xy)
        return float(self._world.clearance_m[row, column]) - self._radius_m

    def offset_m(self, arc_m: float, room_m: float) -> float:
        wish = float(np.interp(arc_m, self._knots, self._offsets))
        most = max(0.0, room_m - 0.1)
        return min(max(wish, -most), most)

    def turn(self, room_m: float) -> tuple[float, bool]:
        """Extra yaw rate [rad/s], and whether it replaces the driver's."""
        self._drift += -0.1 * self._drift + self._rng.normal(0.0, 0.05)
        if self._kick_steps > 0:
            self._kick_steps -= 1
            if room_m > 0.12:
                return self._kick, True
            self._kick_steps = 0
        elif room_m > 0.25 and self._rng.random() < 0.012:
            self._kick_steps = int(self._rng.integers(6, 14))
            angle = self._noise * self._rng.uniform(0.2, 0.6) * self._rng.choice((-1, 1))
            rate = angle / (self._kick_steps * CONTROL_PERIOD_S)
            self._kick = min(max(rate, -self._max_turn), self._max_turn)
        return self._noise * self._drift, False


def drive(
    world: World,
    robot: RobotConfig,
    route: Route,
    seed: int,
    noise: float = 1.0,
    simulation: BaseSimulation | None = None,
    render: bool = True,
) -> Drive:
    """Let the expert drive a route and record it at 4 Hz.

    Args:
        world: where.
        robot: what drives.
        route: along which line.
        seed: of noise and light.
        noise: 0 for none; 1: sideways by up to 0.5 m and 0.6 rad where there is room, with light
            that varies from drive to drive.
        simulation: one of this world and robot, to save compiling the scene again.
        render: False records images of shape (n, 0, 0, 3).
    """
    own = simulation is None
    sim = simulation or BaseSimulation(world, robot, seed)
    rng = np.random.default_rng([seed, 7])
    sim.set_light(int(rng.integers(2**31)) if noise > 0 else None)
    wobble = _Wobble(world, robot, route, rng, noise)
    heading = float(route.heading(0.0))
    start = route.at(0.0)
    room = max(0.0, wobble.room_m(start) - 0.1)
    shift = noise * rng.uniform(-1, 1) * min(0.4, room)
    x, y = start + shift * np.array([-math.sin(heading), math.cos(heading)])
    sim.reset((float(x), float(y), heading + noise * float(rng.uniform(-0.5, 0.5))))
    driver = RouteDriver(robot, route)
    steps = round(MODEL_PERIOD_S / CONTROL_PERIOD_S)
    images, stamps, poses, arcs, actions = [], [], [], [], []
    progress_m, progress_s = 0.0, 0.0
    limit_s = 3.0 * route.length_m / robot.nominal_speed_m_s + 20.0
    while True:
        driver.command(sim.pose)
        images.append(sim.render() if render else np.empty((0, 0, 3), dtype=np.uint8))
        stamps.append(sim.time_s)
        poses.append(sim.pose)
        arcs.append(driver.arc_m)
        done = driver.finished(sim.pose)
        if driver.arc_m > progress_m + 0.1:
            progress_m, progress_s = driver.arc_m, sim.time_s
        if done or sim.time_s - progress_s > _STUCK_S or sim.time_s > limit_s:
            actions.append((0.0, 0.0, 0.0))
            break
        commands = []
        for _ in range(steps):
            room = wobble.room_m(np.array(sim.pose[:2])) if noise > 0 else 0.0
            v, vy, w = driver.command(sim.pose, wobble.offset_m(driver.arc_m, room))
            if noise > 0:
                extra, instead = wobble.turn(room)
                w = extra if instead else w + extra
            sim.step(v, vy, w, CONTROL_PERIOD_S)
            commands.append((v, vy, w))
        actions.append(tuple(np.mean(commands, axis=0)))
    result = Drive(
        np.stack(images),
        np.array(stamps),
        np.array(poses),
        np.array(arcs),
        np.array(actions),
        done,
        sim.collisions,
    )
    if own:
        sim.close()
    return result
