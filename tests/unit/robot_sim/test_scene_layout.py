import itertools
import math

import numpy as np
import pytest
from robot_sim.scene_layout import sample_layout
from robot_sim.scene_model import CONTAINER_RADIUS_M, CONTAINERS, HANDLE_OFFSET_M, REGIONS
from robot_sim.tasks import TASKS
from widowx_control.bridge_spaces import pose_from_state
from widowx_control.kinematics import NAMED_POSES, ArmKinematics

SEEDS = range(60)


def test_equal_seeds_give_equal_scenes_and_others_differ():
    one, same, other = sample_layout(5), sample_layout(5), sample_layout(6)
    assert one.objects == same.objects
    assert one.fixtures == same.fixtures
    assert np.array_equal(one.camera_position_m, same.camera_position_m)
    assert one.objects != other.objects


def test_nothing_overlaps():
    for seed in SEEDS:
        layout = sample_layout(seed)
        things = layout.objects | layout.distractors
        for a, b in itertools.combinations(things.values(), 2):
            assert math.dist(a[:2], b[:2]) > 0.060
        for name in CONTAINERS:
            for place in things.values():
                gap = math.dist(place[:2], layout.fixtures[name][:2])
                assert gap > CONTAINER_RADIUS_M[name] + 0.045
        for one, two in itertools.combinations([*CONTAINERS, *REGIONS], 2):
            assert math.dist(layout.fixtures[one][:2], layout.fixtures[two][:2]) > 0.10


def test_every_fixture_changes_sides():
    layouts = [sample_layout(seed) for seed in SEEDS]
    for name in ("pot", "plate", "bowl", "stove", "sink", "cabinet"):
        left = sum(layout.fixtures[name][1] > 0 for layout in layouts)
        assert 0.25 * len(layouts) < left < 0.75 * len(layouts)


@pytest.mark.parametrize("seed", [0, 7, 23, 41])
def test_the_gripper_reaches_everything_pointing_down(seed):
    kinematics = ArmKinematics()
    layout = sample_layout(seed, drawer_open=True)
    cabinet = layout.fixtures["cabinet"]
    handle = (cabinet[0] + HANDLE_OFFSET_M[0] + layout.drawer_opening_m, cabinet[1], 0.0)
    shut = (cabinet[0] + HANDLE_OFFSET_M[0], cabinet[1], 0.0)
    places = [*layout.objects.values(), *layout.fixtures.values(), handle, shut]
    places.remove(cabinet)
    for x, y, _ in places:
        joints = np.array(NAMED_POSES["start"])
        for height in (0.12, 0.02):
            pose = pose_from_state([x, y, height, 0.0, 0.0, 0.0])
            result = kinematics.inverse(pose, joints, limit_margin_rad=0.02)
            assert result.converged, (x, y, height, result)
            joints = result.joint_positions_rad


def test_no_task_starts_solved():
    from robot_sim.kitchen import Kitchen

    kitchen = Kitchen()
    for task, seed in itertools.product(TASKS.values(), (3, 14)):
        kitchen.set_layout(task.layout(seed))
        kitchen.advance(20)
        assert not task.succeeded(kitchen), (task.name, seed)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="-1"):
        sample_layout(-1)
