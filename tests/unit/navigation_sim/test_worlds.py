"""Procedural worlds: connected, drivable, different from each other, equal for equal seeds."""

import numpy as np
import pytest
from robot_sim.navigation import WorldError, indoor, make_world, outdoor
from robot_sim.navigation.route import NoRoute, RouteField, plan_route, sample_route
from robot_sim.navigation.world import RESOLUTION_M

RADIUS_M = 0.3
WORLDS = [("indoor", 3), ("indoor", 41), ("indoor", 10007), ("outdoor", 8), ("outdoor", 10012)]


@pytest.mark.parametrize(("kind", "seed"), WORLDS)
def test_every_opening_can_be_reached(kind, seed):
    world = make_world(kind, seed)
    field = RouteField(world, world.openings[0].centre_m, RADIUS_M)
    for opening in world.openings:
        row, column = world.cell(np.array(opening.centre_m))
        near = field.reachable[row - 2 : row + 3, column - 2 : column + 3]
        assert near.any(), opening


@pytest.mark.parametrize(("kind", "seed"), WORLDS)
def test_routes_keep_clear_of_obstacles_and_are_smooth(kind, seed):
    world = make_world(kind, seed)
    for k in range(3):
        start, goal, route = sample_route(world, k, 8.0, radius_m=RADIUS_M)
        cells = world.cell(route.points_m)
        assert world.clearance_m[cells[:, 0], cells[:, 1]].min() > RADIUS_M - 0.06
        assert np.hypot(*(route.points_m[0] - start[:2])) < 1e-6
        assert np.hypot(*(route.points_m[-1] - goal[:2])) < 1e-6
        turns = np.diff(np.unwrap(route.heading(np.arange(0.3, route.length_m - 0.3, 0.05))))
        assert np.abs(turns).max() < 0.5


@pytest.mark.parametrize("kind", ["indoor", "outdoor"])
def test_a_seed_decides_everything(kind):
    generate = {"indoor": indoor, "outdoor": outdoor}[kind].generate
    first, second, other = generate(77), generate(77), generate(78)
    assert first.geoms == second.geoms
    assert first.files == second.files
    assert first.light == second.light
    assert first.geoms != other.geoms


@pytest.mark.parametrize("seed", [10001, 10004, 10011])
def test_a_blocked_opening_closes_and_leaves_a_detour(seed):
    world = make_world("indoor", seed)
    detours = 0
    tried = world.openings[:: max(1, len(world.openings) // 8)]
    for opening in tried:
        normal = np.array([np.cos(opening.normal_rad), np.sin(opening.normal_rad)])
        before, after = (np.array(opening.centre_m) + s * 0.7 * normal for s in (-1, 1))
        blocked = make_world("indoor", seed, (opening.id,))
        row, column = blocked.cell(np.array(opening.centre_m))
        assert blocked.occupied[row, column]
        try:
            way = plan_route(blocked, before, after, RADIUS_M)
        except NoRoute:
            continue
        direct = np.hypot(*(way.points_m - opening.centre_m).T).min()
        assert direct > RADIUS_M
        detours += 1
    assert detours >= len(tried) // 2


def test_mistakes_are_named():
    with pytest.raises(WorldError, match="'cave', expected one of indoor, outdoor"):
        make_world("cave", 1)
    with pytest.raises(WorldError, match="at least 0"):
        make_world("indoor", -1)
    with pytest.raises(WorldError, match=r"openings \[999\], expected ids of 0"):
        make_world("indoor", 1, (999,))
    world = make_world("indoor", 1)
    with pytest.raises(NoRoute, match="is not free"):
        plan_route(world, (-5.0, -5.0), world.openings[0].centre_m, RADIUS_M)


def test_the_map_agrees_with_what_the_robot_bumps_into():
    """Rays of the physics end where the grid has an obstacle."""
    from base_drivers.robot_config import load_robot
    from robot_sim.navigation import BaseSimulation
    from robot_sim.navigation.route import free_pose

    for kind, seed in WORLDS:
        world = make_world(kind, seed)
        simulation = BaseSimulation(world, load_robot("rc_car"))
        pose = free_pose(world, 0, 0.3)
        simulation.reset(pose)
        angles = np.linspace(-np.pi, np.pi, 90, endpoint=False)
        ranges = simulation.scan(angles, 8.0)
        hit = np.isfinite(ranges)
        heading = angles[hit] + pose[2]
        ends = np.array(pose[:2]) + ranges[hit, None] * np.column_stack(
            [np.cos(heading), np.sin(heading)]
        )
        cells = world.cell(ends)
        assert world.clearance_m[cells[:, 0], cells[:, 1]].max() <= 2 * RESOLUTION_M
        assert hit.mean() > 0.5
