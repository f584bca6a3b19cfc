"""Labels against drives of the simulated expert, which they shall predict."""

import numpy as np
import pytest
from base_drivers.robot_config import load_robot
from policy_training.gnm.labels import RouteTable, label
from robot_sim.navigation import make_world
from robot_sim.navigation.driving import drive
from robot_sim.navigation.route import STEP_M, sample_route

ROBOTS = ("locobot", "turtlebot4", "jackal", "rc_car")


def _drive(name, kind, seed, noise):
    world, robot = make_world(kind, seed), load_robot(name)
    _, _, route = sample_route(world, seed, 8.0, 16.0)
    result = drive(world, robot, route, seed, noise, render=False)
    table = RouteTable(route.points_m, np.array([0, len(route.points_m)]), STEP_M)
    return robot, result, table


def _labels(robot, result, table, frames, goals):
    return label(
        result.poses[frames],
        result.arcs_m[frames],
        np.zeros(len(frames), int),
        result.arcs_m[goals],
        robot.waypoint_spacing_m,
        table,
        robot.max_angular_rad_s / 4,
        robot.kinematics != "ackermann",
    )


@pytest.mark.parametrize("name", ROBOTS)
@pytest.mark.parametrize(("kind", "seed"), [("indoor", 51), ("outdoor", 52)])
def test_distances_and_waypoints_are_those_of_the_undisturbed_expert(name, kind, seed):
    robot, result, table = _drive(name, kind, seed, 0.0)
    frames = np.arange(8, len(result.poses) - 20)
    for ahead in (3, 8, 15):
        distance, waypoints = _labels(robot, result, table, frames, frames + ahead)
        assert np.median(np.abs(distance - ahead)) < 1.0
        assert np.abs(distance - ahead).max() < 5.0
        if ahead < 8:
            continue
        for k in range(5):
            delta = result.poses[frames + k + 1, :2] - result.poses[frames, :2]
            yaw = result.poses[frames, 2]
            x = (np.cos(yaw) * delta[:, 0] + np.sin(yaw) * delta[:, 1]) / robot.waypoint_spacing_m
            y = (np.cos(yaw) * delta[:, 1] - np.sin(yaw) * delta[:, 0]) / robot.waypoint_spacing_m
            assert np.median(np.hypot(waypoints[:, k, 0] - x, waypoints[:, k, 1] - y)) < 0.6


def test_waypoints_lead_back_to_the_route():
    """From beside the route, or turned away from it, the way ahead ends nearer to it."""
    points = np.column_stack([np.arange(0, 10, 0.05), np.zeros(200)])
    table = RouteTable(points, np.array([0, 200]), 0.05)
    rng = np.random.default_rng(0)
    poses = np.column_stack(
        [np.full(50, 2.0), rng.uniform(-0.5, 0.5, 50), rng.uniform(-0.6, 0.6, 50)]
    )
    distance, waypoints = label(poses, np.full(50, 2.0), np.zeros(50, int), 5.0, 0.15, table)
    assert (distance >= 19.9).all()
    c, s = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    last = waypoints[:, -1]
    end_y = poses[:, 1] + 0.15 * (s * last[:, 0] + c * last[:, 1])
    off = np.abs(poses[:, 1]) > 0.25
    assert (np.abs(end_y[off]) < np.abs(poses[off, 1])).all()
    np.testing.assert_allclose(np.hypot(last[:, 2], last[:, 3]), 1.0, atol=1e-6)


def test_goals_behind_are_far_and_the_way_ends_at_the_goal():
    points = np.column_stack([np.arange(0, 10, 0.05), np.zeros(200)])
    table = RouteTable(points, np.array([0, 200]), 0.05)
    pose = np.array([[4.0, 0.0, 0.0]] * 4)
    goals = np.array([3.0, 4.0, 4.3, 6.0])
    distance, waypoints = label(pose, np.full(4, 4.0), np.zeros(4, int), goals, 0.15, table)
    np.testing.assert_allclose(distance, [20.0, 0.0, 2.0, 13.333], atol=0.02)
    np.testing.assert_allclose(waypoints[:, -1, 0], [0.0, 0.0, 2.0, 5.0], atol=0.05)
    assert np.abs(waypoints[..., 1]).max() < 0.01


def test_several_routes_in_one_call():
    first = np.column_stack([np.arange(0, 5, 0.05), np.zeros(100)])
    second = np.column_stack([np.zeros(60), np.arange(0, 3, 0.05)])
    table = RouteTable(np.concatenate([first, second]), np.array([0, 100, 160]), 0.05)
    pose = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, np.pi / 2], [0.0, 1.0, 0.0]])
    distance, waypoints = label(
        pose, np.array([1.0, 1.0, 1.0]), np.array([0, 1, 1]), np.full(3, 2.0), 0.1, table
    )
    np.testing.assert_allclose(waypoints[0], waypoints[1], atol=1e-5)
    assert distance[2] > distance[1]
    assert waypoints[2, -1, 3] > 0.8
