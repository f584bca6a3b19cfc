"""Driving over maps in a synthetic world: from images alone, with noise, in varied seeds."""

import dataclasses
import math

import numpy as np
import pytest
from gnm_nav.dead_reckoning import ExpectedPose
from gnm_nav.localiser import Localiser
from gnm_nav.map_building import MapBuilder
from gnm_nav.navigation import (
    FailureCode,
    NavigationConfig,
    NavigationCore,
    NavigationError,
    NavigationState,
)
from gnm_nav.path_follower import leads_back
from gnm_nav.topological_map import EdgeKind
from synthetic_world import (
    SPACING_M,
    Robot,
    SyntheticModel,
    build,
    driven,
    navigate,
    render,
    wrap,
)

LOOP = [(0.5, 0), (6, 0), (6, 6), (0, 6), (0, 0), (6, 0), (6, 3)]


@pytest.fixture(scope="module")
def loop():
    return build(SyntheticModel(), driven(LOOP), with_poses=False)


def away(robot, pose):
    return math.hypot(*(robot.pose[:2] - pose[:2]))


def test_a_closed_loop_is_found(loop):
    made, truth = loop
    closures = made.edges[made.edges["kind"] == EdgeKind.CLOSURE]
    assert len(closures) >= 6
    for edge in closures:
        a, b = truth[edge["a"]], truth[edge["b"]]
        assert math.hypot(*(a - b)[:2]) < 8 * SPACING_M and abs(wrap(a[2] - b[2])) < 1.0


@pytest.mark.parametrize("seed", range(10))
def test_it_drives_from_anywhere_to_anywhere(loop, seed):
    made, truth = loop
    rng = np.random.default_rng(seed)
    model = SyntheticModel(seed)
    core = NavigationCore(model, made, SPACING_M)
    # Both on the loop proper, from where everything can be reached.
    start, goal = rng.integers(0, len(made) - 10, 2)
    robot = Robot(truth[start] + rng.normal(0.0, 0.1, 3), seed)
    core.set_goal_node(int(goal))
    decisions = navigate(core, robot, 900)
    assert decisions[-1].reached, decisions[-1].message
    assert away(robot, truth[goal]) < 0.4
    assert decisions[-1].progress == 1.0 and core.goal is None
    drove = [d.progress for d in decisions if d.state == NavigationState.DRIVING]
    assert not drove or drove[-1] > 0.5 or len(drove) < 20


def test_one_encoding_and_one_batch_of_ten_per_tick(loop):
    made, truth = loop
    model = SyntheticModel()
    core = NavigationCore(model, made, SPACING_M)
    robot = Robot(truth[3], 0)
    core.set_goal_node(30)
    navigate(core, robot, 20)
    model.observed = 0
    model.batches.clear()
    decisions = navigate(core, robot, 30, started_s=5.0)
    assert all(decision.state == NavigationState.DRIVING for decision in decisions)
    assert model.observed == len(decisions) == len(model.batches)
    assert max(model.batches) <= 10


@pytest.mark.parametrize("seed", range(5))
def test_a_kidnapped_robot_finds_itself_and_goes_on(loop, seed):
    made, truth = loop
    rng = np.random.default_rng(seed)
    core = NavigationCore(SyntheticModel(seed), made, SPACING_M)
    robot = Robot(truth[2], seed)
    core.set_goal_node(30)
    navigate(core, robot, 25)
    there = int(rng.integers(18, 27))
    assert away(robot, truth[there]) > 2.0
    robot.pose = truth[there] + rng.normal(0.0, 0.1, 3)
    decisions = navigate(core, robot, 300, started_s=25 * 0.25)
    assert any(decision.node is None for decision in decisions)
    assert decisions[-1].reached, decisions[-1].message
    assert away(robot, truth[30]) < 0.4


@pytest.mark.parametrize("corridor", [0, 1])
def test_of_two_places_that_look_the_same_a_robot_is_where_it_should_be(corridor):
    """Two corridors with the same pictures, mapped in one drive, 20 m apart."""
    model = SyntheticModel()
    rng = np.random.default_rng(0)
    way = driven([(0, 0), (8, 0)])
    builder = MapBuilder(model)
    poses = []
    for index, (x, y, yaw) in enumerate(np.concatenate((way, way))):
        pose = (x, y + 20.0 * (index >= len(way)), yaw)
        if builder.add(render((x, y, yaw), rng), 0.25 * index, pose) is not None:
            poses.append(pose)
    # No base drives 20 m between two images: what the builder makes of that is another matter.
    made = dataclasses.replace(builder.finish(), poses=np.array(poses))
    assert builder.closures == 0
    localiser = Localiser(model, made)
    for index in range(8, 30):
        image = model.preprocess(render(way[index], rng))
        expected = ExpectedPose(float(way[index][0]), 20.0 * corridor, 0.0, 0.3, 0.25)
        here = localiser.update(model.observe([image] * 6), image, expected=expected)
    assert not here.lost and not here.elsewhere
    assert made.poses[here.node, 1] == 20.0 * corridor


def test_without_embeddings_small_images_retrieve(loop):
    model = SyntheticModel(1, embedding_size=0)
    made, truth = build(model, driven(LOOP), with_poses=False)
    assert made.embeddings is None
    core = NavigationCore(model, made, SPACING_M)
    robot = Robot(truth[20], 1)
    core.set_goal_node(28)
    assert navigate(core, robot, 200)[-1].reached


def two_ways(seed=0, parting_m=2):
    """A short way through a door at (5, 0) and a long one around, from the same start to one end.

    They part at (`parting_m`, 0). Both are also driven back, so that the robot can turn round.
    """
    short = [(0, 0), (10, 0)]
    long = [(0, 0), (parting_m, 0), (parting_m, 5), (8, 5), (8, 0.2), (10, 0.2)]
    model = SyntheticModel(seed)
    drives = [driven(way) for way in (short, short[::-1], long, long[::-1])]
    return model, *build(model, *drives, seed=seed)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("parting_m", "door_m"), [(2, 5.0), (4, 4.5)])
def test_a_blocked_way_is_noticed_and_another_one_taken(parting_m, door_m, seed):
    model, made, truth = two_ways(seed, parting_m)
    goal = int(np.flatnonzero((np.abs(truth[:, 0] - 9.5) < 0.4) & (truth[:, 2] < 1.0))[0])

    def door(x, y):
        return abs(y) < 1.5 and door_m < x < door_m + 0.6

    robot = Robot(truth[1], seed, walls=[door])
    core = NavigationCore(model, made, SPACING_M, NavigationConfig(stuck_change=9.0))
    core.set_goal_node(goal)
    decisions = navigate(core, robot, 2000)
    assert decisions[-1].reached, decisions[-1].message
    assert decisions[-1].replans >= 1 or max(d.replans for d in decisions) >= 1
    assert away(robot, truth[goal]) < 0.5


def test_a_goal_that_is_only_turns_on_the_spot_away_is_reached():
    model = SyntheticModel()
    made, truth = build(model, driven([(0, 0), (6, 0)]), driven([(6, 0), (0, 0)]))
    goal = int(np.flatnonzero((np.abs(truth[:, 0] - 3.0) < 0.4) & (np.cos(truth[:, 2]) < 0))[0])
    robot = Robot(truth[1])
    core = NavigationCore(model, made, SPACING_M)
    core.set_goal_node(goal)
    decisions = navigate(core, robot, 600)
    assert decisions[-1].reached, decisions[-1].message
    # Views of one place may lie 0.4 m apart, and it turns from where it sees the other one near.
    assert away(robot, truth[goal]) < 0.9


def before_a_wall(seed):
    """A core whose goal is the end of the only way, a robot before a wall across it, that end."""
    model = SyntheticModel(seed)
    made, truth = build(model, driven([(0, 0), (10, 0)]), seed=seed)
    robot = Robot(truth[1], seed, walls=[lambda x, y: x > 5.0])
    core = NavigationCore(model, made, SPACING_M, NavigationConfig(stuck_change=9.0))
    core.set_goal_node("last")
    return core, robot, truth[-1]


@pytest.mark.parametrize("seed", range(3))
def test_without_another_way_the_goal_is_unreachable(seed):
    core, robot, _ = before_a_wall(seed)
    decisions = navigate(core, robot, 2000)
    assert decisions[-1].code == FailureCode.UNREACHABLE, decisions[-1].message
    assert decisions[-1].waypoints_m is None and core.goal is None


def test_the_only_way_is_tried_again_after_it_was_blocked():
    reached = []
    for seed in range(6):
        core, robot, end = before_a_wall(seed)
        ticks = 0
        while core.planner.blocked == frozenset():
            assert ticks < 1000
            navigate(core, robot, 1, started_s=0.25 * ticks)
            ticks += 1
        robot.walls.clear()
        decisions = navigate(core, robot, 1000, started_s=0.25 * ticks)
        assert not decisions[-1].reached or away(robot, end) < 0.5
        reached.append(decisions[-1].reached)
    # In this noise a search may find the way from a view to the side, and lose it again.
    assert sum(reached) >= 4, reached


def test_no_way_in_the_map_is_unreachable_too():
    model = SyntheticModel()
    made, truth = build(model, driven([(0, 0), (6, 0)]), driven([(-10, 0), (-10, 6)]))
    core = NavigationCore(model, made, SPACING_M)
    robot = Robot(truth[1])
    core.set_goal_node("last")
    decisions = navigate(core, robot, 400)
    assert decisions[-1].code == FailureCode.UNREACHABLE
    assert not any(decision.waypoints_m is not None for decision in decisions)


@pytest.mark.parametrize("seed", range(3))
def test_a_robot_off_the_map_says_that_it_is_lost(loop, seed):
    made, _ = loop
    core = NavigationCore(SyntheticModel(seed), made, SPACING_M)
    robot = Robot((-15.0, 12.0, 0.3), seed)
    core.set_goal_node(10)
    decisions = navigate(core, robot, 400)
    assert decisions[-1].code == FailureCode.LOST
    assert not any(decision.waypoints_m is not None for decision in decisions)
    # It looked around before it gave up.
    assert sum(decision.turn_rate_rad_s is not None for decision in decisions) > 40


def test_a_robot_that_cannot_turn_drives_on_a_little_instead(loop):
    made, _ = loop
    config = NavigationConfig(can_turn=False, lost_timeout_s=20.0, creep_steps=6.0)
    core = NavigationCore(SyntheticModel(), made, SPACING_M, config)
    core.set_goal_node(10)
    start = (-15.0, 12.0, 0.3)
    robot = Robot(start)
    decisions = navigate(core, robot, 400)
    assert decisions[-1].code == FailureCode.LOST and len(decisions) < 100
    assert not any(decision.turn_rate_rad_s for decision in decisions)
    driven_m = math.hypot(robot.pose[0] - start[0], robot.pose[1] - start[1])
    assert 1.0 * SPACING_M < driven_m < 8.0 * SPACING_M


@pytest.mark.parametrize("carried", [False, True])
def test_one_that_cannot_turn_first_drives_back_to_where_it_knew_its_place(loop, carried):
    # Only with poses it notices that it was carried away, by a picture that nothing explains.
    made, truth = build(SyntheticModel(), driven(LOOP)) if carried else loop
    config = NavigationConfig(can_turn=False, lost_timeout_s=60.0, creep_steps=6.0)
    core = NavigationCore(SyntheticModel(), made, SPACING_M, config)
    core.set_goal_node(30)
    robot = Robot(truth[3], 0)
    navigate(core, robot, 20)
    robot.pose = np.array([-15.0, 12.0, 0.3])
    lost = [
        decision.waypoints_m
        for decision in navigate(core, robot, 250, started_s=5.0)
        if decision.state == NavigationState.LOCALISING and decision.waypoints_m is not None
    ]
    back = [leads_back(path) for path in lost]
    if carried:
        assert back and not any(back)
        return
    # At 0.4 of its speed, 8 steps; then on.
    assert 18 <= sum(back) <= 22 and all(back[: sum(back)])
    assert len(back) > sum(back)


@pytest.mark.parametrize("seed", range(5))
def test_it_turns_round_when_it_faces_the_wrong_way(seed):
    model, made, truth = two_ways(seed)
    facing_back = np.array([5.0, 0.0, math.pi])
    goal = int(np.flatnonzero((np.abs(truth[:, 0] - 9.0) < 0.4) & (truth[:, 2] < 1.0))[0])
    core = NavigationCore(model, made, SPACING_M)
    robot = Robot(facing_back, seed)
    core.set_goal_node(goal)
    decisions = navigate(core, robot, 600)
    assert decisions[-1].reached, decisions[-1].message
    assert away(robot, truth[goal]) < 0.5


@pytest.mark.parametrize("seed", range(5))
def test_a_picture_of_a_place_is_a_goal(loop, seed):
    made, truth = loop
    rng = np.random.default_rng(seed)
    core = NavigationCore(SyntheticModel(seed), made, SPACING_M)
    place = truth[int(rng.integers(8, 40))] + np.array([0.1, 0.05, 0.1])
    node = core.set_goal_image(render(place, rng))
    assert math.hypot(*(truth[node] - place)[:2]) < 0.8
    assert abs(wrap(truth[node][2] - place[2])) < 0.8


def test_a_picture_of_no_place_is_refused_and_the_goal_stays(loop):
    made, _ = loop
    core = NavigationCore(SyntheticModel(), made, SPACING_M)
    core.set_goal_node(5)
    with pytest.raises(NavigationError) as caught:
        core.set_goal_image(render((-17.0, 13.0, 2.0), np.random.default_rng(0)))
    assert caught.value.code == FailureCode.UNKNOWN_GOAL
    with pytest.raises(NavigationError) as caught:
        core.set_goal_node("garage")
    assert caught.value.code == FailureCode.UNKNOWN_GOAL
    assert core.goal == 5


def test_goals_need_a_map():
    core = NavigationCore(SyntheticModel(), None, SPACING_M)
    for call in (lambda: core.set_goal_node(0), lambda: core.set_goal_image(render((0, 0, 0)))):
        with pytest.raises(NavigationError) as caught:
            call()
        assert caught.value.code == FailureCode.NO_MAP
    core.push_frame(render((0, 0, 0)), 0.0)
    assert core.tick(0.0).waypoints_m is None


def test_blind_it_backs_off_and_turns_away_and_no_further_than_it_may(loop):
    made, truth = loop
    config = NavigationConfig(back_m=0.2, blind_turn_rad=1.0)
    core = NavigationCore(SyntheticModel(), made, SPACING_M, config)
    assert core.recover_sight(0.0) is None
    core.set_goal_node(30)
    assert core.recover_sight(0.1) is None, "it has seen nothing of the way yet"
    robot = Robot(truth[3], 0)
    lateral = navigate(core, robot, 20, started_s=1.0)[-1].waypoints_m[-1, 1]
    backed_m, turned_rad, now_s = 0.0, 0.0, 6.0
    while (decision := core.recover_sight(now_s)) is not None:
        assert decision.state == NavigationState.RECOVERING
        if decision.waypoints_m is not None:
            assert turned_rad == 0.0 and leads_back(decision.waypoints_m)
            backed_m -= decision.waypoints_m[0, 0]
        else:
            assert decision.turn_rate_rad_s * lateral <= 0.0
            turned_rad += 0.25 * abs(decision.turn_rate_rad_s)
        now_s += 0.25
        assert turned_rad < 2.0
    assert backed_m == pytest.approx(0.2, abs=0.06)
    assert turned_rad == pytest.approx(1.0, abs=0.2)
    assert core.goal == 30


def test_it_stands_while_images_are_old(loop):
    made, truth = loop
    core = NavigationCore(SyntheticModel(), made, SPACING_M)
    robot = Robot(truth[3])
    core.set_goal_node(30)
    assert navigate(core, robot, 30)[-1].state == NavigationState.DRIVING
    late = core.tick(30 * 0.25 + 1.0)
    assert late.state == NavigationState.WAITING and late.waypoints_m is None
    decisions = navigate(core, robot, 12, started_s=10.0)
    assert decisions[0].state == NavigationState.WAITING
    assert decisions[-1].state == NavigationState.DRIVING


def test_the_belief_stays_small(loop):
    made, truth = loop
    model = SyntheticModel()
    localiser = Localiser(model, made)
    rng = np.random.default_rng(0)
    for pose in driven(LOOP)[:120]:
        frame = model.preprocess(render(pose, rng))
        here = localiser.update(model.observe([frame] * 6), frame)
        assert len(here.belief) <= 30
        assert sum(here.belief.values()) == pytest.approx(1.0, abs=1e-3)
    assert not here.lost and here.confidence > 0.8
    assert math.hypot(*(truth[here.node] - pose)[:2]) < 0.8
