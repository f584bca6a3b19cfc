"""Bodies and the expert: every robot gets to the end of its route, and walls stop all of them."""

import math

import numpy as np
import pytest
from base_drivers.robot_config import load_robot, robot_names
from robot_sim.navigation import BaseSimulation, make_world
from robot_sim.navigation.driving import drive
from robot_sim.navigation.route import free_pose, sample_route

ROBOTS = ("locobot", "turtlebot4", "jackal", "rc_car", "go2", "quadrotor")


def test_all_robots_are_tested():
    # A slower driver of the locobot's body.
    assert {*ROBOTS, "locobot_visualnav"} == set(robot_names())


@pytest.mark.parametrize("name", ROBOTS)
@pytest.mark.parametrize(("kind", "seed"), [("indoor", 12), ("outdoor", 10003)])
def test_the_expert_arrives_without_collision_in_the_expected_time(name, kind, seed):
    world, robot = make_world(kind, seed), load_robot(name)
    for k in range(2):
        _, goal, route = sample_route(world, k, 7.0, 16.0)
        result = drive(world, robot, route, k, noise=0.0, render=False)
        assert result.finished
        assert result.collisions == 0
        assert math.dist(result.poses[-1][:2], goal[:2]) < 0.35
        steps = route.length_m / robot.waypoint_spacing_m
        assert 0.9 * steps < len(result.poses) < 1.25 * steps + 12
        assert (np.diff(result.arcs_m) > -0.2).all()


@pytest.mark.parametrize("name", ROBOTS)
def test_disturbed_drives_leave_the_route_and_come_back(name):
    world, robot = make_world("outdoor", 21), load_robot(name)
    _, _, route = sample_route(world, 1, 8.0, 16.0)
    offsets = []
    for seed in range(3):
        result = drive(world, robot, route, seed, noise=1.0, render=False)
        assert result.finished
        on_route = route.at(result.arcs_m)
        offsets += np.hypot(*(result.poses[:, :2] - on_route).T).tolist()
    assert max(offsets) > 0.12
    assert np.median(offsets) < 0.4


@pytest.mark.parametrize("name", ROBOTS)
def test_a_wall_stops_every_body(name):
    world, robot = make_world("indoor", 5), load_robot(name)
    simulation = BaseSimulation(world, robot)
    for k in range(3):
        x, y, yaw = free_pose(world, k, 0.4)
        simulation.reset((x, y, yaw))
        assert not simulation.in_contact
        for _ in range(400):
            simulation.step(robot.max_linear_m_s, 0.0, 0.0, 0.1)
        assert simulation.collisions >= 1
        left, low, right, high = world.bounds_m
        px, py, _ = simulation.pose
        assert left < px < right
        assert low < py < high
        row, column = world.cell(np.array([px, py]))
        assert not world.occupied[row, column]
        assert math.hypot(*simulation.velocity[:2]) < 0.5 * robot.max_linear_m_s


def test_each_kinematics_moves_as_it_can():
    world = make_world("outdoor", 30)
    x, y, yaw = free_pose(world, 3, 0.8)
    for name in ROBOTS:
        robot = load_robot(name)
        simulation = BaseSimulation(world, robot)
        simulation.reset((x, y, yaw))
        simulation.step(0.0, 0.0, robot.max_angular_rad_s, 1.0)
        turned = abs(simulation.pose[2] - yaw)
        assert (turned < 0.05) if robot.kinematics == "ackermann" else (turned > 0.4), name
        simulation.reset((x, y, yaw))
        simulation.step(0.0, 0.2, 0.0, 1.0)
        c, s = math.cos(yaw), math.sin(yaw)
        sideways = c * (simulation.pose[1] - y) - s * (simulation.pose[0] - x)
        expected = 0.08 if robot.kinematics == "holonomic" else -0.02
        assert (sideways > expected) and (expected > 0 or sideways < 0.02), name
        simulation.reset((x, y, yaw))
        simulation.step(99.0, 0.0, math.nan, 1.5)
        assert simulation.velocity[0] < 1.02 * robot.max_linear_m_s
        assert simulation.velocity[0] > 0.8 * robot.max_linear_m_s


def test_odometry_drifts_but_is_good_over_a_few_metres():
    world, robot = make_world("outdoor", 31), load_robot("jackal")
    _, _, route = sample_route(world, 0, 9.0)
    from robot_sim.navigation.driving import RouteDriver

    simulation = BaseSimulation(world, robot, seed=4)
    start = (*route.at(0.0), float(route.heading(0.0)))
    simulation.reset(start)
    driver = RouteDriver(robot, route)
    while not driver.finished(simulation.pose):
        simulation.step(*driver.command(simulation.pose), 0.05)
    ox, oy, _ = simulation.odometry.pose
    c, s = math.cos(start[2]), math.sin(start[2])
    estimate = (start[0] + c * ox - s * oy, start[1] + s * ox + c * oy)
    error = math.dist(estimate, simulation.pose[:2])
    assert 0.001 < error < 0.1 * route.length_m


def test_pictures_show_the_place_and_follow_seed_and_light():
    world, robot = make_world("indoor", 9), load_robot("locobot")
    poses = [free_pose(world, k, 0.4) for k in range(6)]
    with BaseSimulation(world, robot) as first, BaseSimulation(world, robot) as second:
        pictures = []
        for pose in poses:
            first.reset(pose)
            second.reset(pose)
            pictures.append(first.render())
            assert np.array_equal(pictures[-1], second.render())
        assert pictures[0].shape == (120, 160, 3)
        for picture in pictures:
            assert picture.std() > 12.0
            assert 30.0 < picture.mean() < 220.0
        second.reset(poses[0])
        second.set_light(3)
        assert np.abs(second.render().astype(int) - pictures[0]).mean() > 1.0
