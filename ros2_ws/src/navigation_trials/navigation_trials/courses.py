"""Ways through simulated worlds: driven once by the expert for a map, then to be driven again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from base_drivers.robot_config import MODEL_PERIOD_S, RobotConfig
from gnm_nav.map_building import BuilderConfig, MapBuilder
from gnm_nav.topological_map import TopologicalMap
from numpy.typing import NDArray
from policy_server.navigation_model import NavigationModel
from robot_sim.navigation.base_simulation import BaseSimulation
from robot_sim.navigation.driving import RouteDriver
from robot_sim.navigation.route import NoRoute, Route, RouteField, sample_route
from robot_sim.navigation.world import World, make_world

TASKS = ("reach", "kidnapped", "blocked")
"""What trials try: drive to a goal; the same after being put elsewhere; with a way closed."""
GOAL_RADIUS_M = 0.75
"""The goal counts as reached within this distance of where it was mapped."""
FOUND_RADIUS_M = 1.0
"""A kidnapped robot has found itself when the node it names is this near,"""
FOUND_TICKS = 4
"""for so many ticks on end,"""
FOUND_LIMIT_S = 30.0
"""within this time."""
HORIZON_STEPS = 20
"""Distances that the networks tell apart."""
MIN_HORIZONS = 5.0
"""Ways are at least so many horizons long."""
_CONTROL_S = 0.05
_ROOM_M = 0.1

Pose = tuple[float, float, float]
Proceed = Callable[[], None]
"""Called at every model step of a drive; what it raises ends the drive."""


@dataclass(frozen=True)
class ExpertDrive:
    """A drive of the expert, a record per model step.

    Attributes:
        images: n pictures, RGB (H, W, 3) uint8.
        poses: (n, 3) true x, y [m], yaw [rad].
        odometry: (n, 3) the same as the base measures it.
        stamps_s: (n,) simulated time.
    """

    images: list[NDArray[np.uint8]]
    poses: NDArray[np.float64]
    odometry: NDArray[np.float64]
    stamps_s: NDArray[np.float64]

    @property
    def arcs_m(self) -> NDArray[np.float64]:
        """(n,) way driven until each record."""
        return np.concatenate(([0.0], np.cumsum(np.hypot(*np.diff(self.poses[:, :2], axis=0).T))))


@dataclass(frozen=True)
class MappedWorld:
    """A world with a map of a way through it.

    Attributes:
        kind, seed: of the world.
        robot: name of the robot that drove.
        topological_map: what was built.
        truth: (N, 3) true pose of each node.
        poses: (n, 3) true poses of the drive, in order.
        opening: id of an opening on the shorter of two mapped ways, -1: there is one way.
        goal: node that trials drive to by default.
        short_m, detour_m: lengths of the two ways; 0 where there is one.
    """

    kind: str
    seed: int
    robot: str
    topological_map: TopologicalMap
    truth: NDArray[np.float64]
    poses: NDArray[np.float64]
    opening: int
    goal: int
    short_m: float = 0.0
    detour_m: float = 0.0

    @property
    def arcs_m(self) -> NDArray[np.float64]:
        """(n,) way driven until each pose."""
        return np.concatenate(([0.0], np.cumsum(np.hypot(*np.diff(self.poses[:, :2], axis=0).T))))

    def remaining_m(self, pose: Pose, goal: int) -> float:
        """Way along the drive from the place nearest to a pose to that nearest to a node."""
        arcs = self.arcs_m
        first = int(np.hypot(*(self.poses[:, :2] - np.array(pose[:2])).T).argmin())
        last = int(np.hypot(*(self.poses[:, :2] - self.truth[goal, :2]).T).argmin())
        return abs(float(arcs[last] - arcs[first]))


def minimum_way_m(robot: RobotConfig) -> float:
    """The shortest way of a trial: `MIN_HORIZONS` horizons of the network, for this robot."""
    return MIN_HORIZONS * HORIZON_STEPS * robot.waypoint_spacing_m


def record_drive(
    sim: BaseSimulation,
    route: Route,
    start: Pose | None = None,
    proceed: Proceed = lambda: None,
) -> ExpertDrive:
    """Drive a route with the expert.

    Args:
        sim: world and robot.
        route: line to drive.
        start: where the robot is put; None: it goes on from where it stands.
        proceed: see `Proceed`.
    """
    if start is not None:
        sim.reset(start)
    driver = RouteDriver(sim.robot, route)
    images, poses, odometry, stamps = [], [], [], []
    limit_s = sim.time_s + 3.0 * route.length_m / sim.robot.nominal_speed_m_s + 20.0
    while sim.time_s < limit_s:
        proceed()
        images.append(sim.render())
        poses.append(sim.pose)
        odometry.append(sim.odometry.pose)
        stamps.append(sim.time_s)
        if driver.finished(sim.pose):
            break
        for _ in range(round(MODEL_PERIOD_S / _CONTROL_S)):
            sim.step(*driver.command(sim.pose), _CONTROL_S)
    return ExpertDrive(images, np.array(poses), np.array(odometry), np.array(stamps))


def joined(drives: Sequence[ExpertDrive]) -> ExpertDrive:
    """Drives of one simulation, one after the other, as one."""
    return ExpertDrive(
        [image for drive in drives for image in drive.images],
        np.concatenate([drive.poses for drive in drives]),
        np.concatenate([drive.odometry for drive in drives]),
        np.concatenate([drive.stamps_s + 0.01 * k for k, drive in enumerate(drives)]),
    )


def build_map(
    model: NavigationModel, drive: ExpertDrive, config: BuilderConfig | None = None
) -> tuple[TopologicalMap, NDArray[np.float64]]:
    """A map of a drive, and the true pose of each node (N, 3)."""
    builder = MapBuilder(model, config)
    truth = []
    for image, stamp_s, pose, odometry in zip(
        drive.images, drive.stamps_s, drive.poses, drive.odometry, strict=True
    ):
        if builder.add(image, float(stamp_s), tuple(odometry.tolist())) is not None:
            truth.append(pose)
    return builder.finish(frame_id="odom"), np.array(truth)


def drive_way(
    world: World, robot: RobotConfig, seed: int, proceed: Proceed = lambda: None
) -> ExpertDrive:
    """Drive one way through a world, at least `minimum_way_m` long.

    Raises:
        NoRoute: the world has no such way.
    """
    minimum_m = minimum_way_m(robot)
    with BaseSimulation(world, robot, seed) as sim:
        start, _, route = sample_route(
            world, seed, 1.15 * minimum_m, 2.5 * minimum_m, robot.radius_m + _ROOM_M
        )
        return record_drive(sim, route, start, proceed)


def map_way(
    model: NavigationModel,
    world: World,
    robot: RobotConfig,
    seed: int,
    proceed: Proceed = lambda: None,
) -> MappedWorld:
    """Map one way through a world, at least `minimum_way_m` long.

    Raises:
        NoRoute: the world has no such way.
    """
    drive = drive_way(world, robot, seed, proceed)
    topological_map, truth = build_map(model, drive)
    return MappedWorld(
        world.kind,
        world.seed,
        robot.name,
        topological_map,
        truth,
        drive.poses,
        -1,
        len(truth) - 1,
    )


def map_two_ways(
    model: NavigationModel,
    world: World,
    robot: RobotConfig,
    seed: int,
    proceed: Proceed = lambda: None,
) -> MappedWorld:
    """Map two ways to one goal, there and back; the shorter one has an opening to be closed.

    Raises:
        NoRoute: the world has no two such ways.
    """
    opening, short, detour = _two_ways(world, robot, seed)
    with BaseSimulation(world, robot, seed) as sim:
        drives = []
        for index, way in enumerate((short, detour)):
            start = (*way.at(0.0).tolist(), float(way.heading(0.0)))
            back = Route(way.points_m[::-1].copy())
            drives.append(record_drive(sim, way, start if index == 0 else None, proceed))
            drives.append(record_drive(sim, back, None, proceed))
        drive = joined(drives)
    topological_map, truth = build_map(model, drive)
    heading = float(short.heading(short.length_m))
    turned = np.abs((truth[:, 2] - heading + math.pi) % (2 * math.pi) - math.pi)
    apart = np.hypot(*(truth[:, :2] - short.at(short.length_m)).T) + 0.3 * turned
    return MappedWorld(
        world.kind,
        world.seed,
        robot.name,
        topological_map,
        truth,
        drive.poses,
        opening,
        int(apart.argmin()),
        short.length_m,
        detour.length_m,
    )


def _two_ways(world: World, robot: RobotConfig, seed: int) -> tuple[int, Route, Route]:
    """An opening, the way through it, and the way around it when it is closed."""
    rng = np.random.default_rng([seed, world.seed, 3])
    radius_m = robot.radius_m + _ROOM_M
    for index in rng.permutation(len(world.openings)):
        opening = world.openings[int(index)]
        closed = make_world(world.kind, world.seed, (opening.id,))
        for _ in range(6):
            try:
                start, goal, short = sample_route(
                    world, int(rng.integers(2**31)), 5.0, 14.0, radius_m
                )
                near = np.hypot(*(short.points_m - np.array(opening.centre_m)).T)
                at = int(near.argmin())
                if near[at] > 0.6 or not 40 < at < len(short.points_m) - 40:
                    continue
                detour = RouteField(closed, start[:2], radius_m).route_to(goal[:2])
            except NoRoute:
                continue
            if 1.2 * short.length_m < detour.length_m < 30.0:
                return opening.id, short, detour
    raise NoRoute(f"{world.kind} world {world.seed} has no way with another one around it")


def disturbed(world: World, robot: RobotConfig, pose: Pose, rng: np.random.Generator) -> Pose:
    """A pose near another one: up to 0.3 m to the side where there is room, and 0.3 rad."""
    x, y, yaw = pose
    row, column = world.cell(np.array([x, y]))
    room = max(0.0, float(world.clearance_m[row, column]) - robot.radius_m - _ROOM_M)
    shift = rng.uniform(-1.0, 1.0) * min(0.3, room)
    return (
        x - shift * math.sin(yaw),
        y + shift * math.cos(yaw),
        yaw + float(rng.uniform(-0.3, 0.3)),
    )


def truth_file(map_path: Path) -> Path:
    """Where the truth about a map of a simulated world is kept: beside it, not in it."""
    return map_path.with_name(f"{map_path.name}.simulation.json")


def save_truth(mapped: MappedWorld, map_path: Path) -> None:
    """Write what only the simulation knows of a map."""
    values: dict[str, Any] = {
        "world": mapped.kind,
        "seed": mapped.seed,
        "robot": mapped.robot,
        "opening": mapped.opening,
        "goal": mapped.goal,
        "short_m": mapped.short_m,
        "detour_m": mapped.detour_m,
        "truth": np.round(mapped.truth, 4).tolist(),
        "poses": np.round(mapped.poses, 4).tolist(),
    }
    truth_file(map_path).write_text(json.dumps(values) + "\n")


def load_truth(topological_map: TopologicalMap, map_path: Path) -> MappedWorld:
    """Read what `save_truth` wrote.

    Raises:
        ValueError: there is none, or it is of another map.
    """
    file = truth_file(map_path)
    try:
        values = json.loads(file.read_text())
        mapped = MappedWorld(
            values["world"],
            int(values["seed"]),
            values["robot"],
            topological_map,
            np.array(values["truth"], np.float64).reshape(-1, 3),
            np.array(values["poses"], np.float64).reshape(-1, 3),
            int(values["opening"]),
            int(values["goal"]),
            float(values["short_m"]),
            float(values["detour_m"]),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: {error}; expected the file that is written with a map of a simulated world"
        ) from None
    if len(mapped.truth) != len(topological_map):
        raise ValueError(
            f"{file}: found {len(mapped.truth)} poses, expected {len(topological_map)}: it belongs "
            "to another map"
        )
    return mapped
