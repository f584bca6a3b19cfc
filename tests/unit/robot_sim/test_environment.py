import warnings

import gymnasium
import mujoco
import numpy as np
import pytest
import robot_sim
from gymnasium.utils.env_checker import check_env
from robot_sim.demonstrator import Demonstrator, demonstrate, noisy
from robot_sim.environment import WidowXKitchenEnv
from robot_sim.scene_model import CONTAINER_HEIGHT_M, OBJECT_HALF_HEIGHT_M
from robot_sim.tasks import TASKS, find_task


@pytest.fixture(scope="module")
def blind():
    env = WidowXKitchenEnv(render_images=False)
    yield env
    env.close()


def put(kitchen, name, position):
    start = int(kitchen.model.joint(name).qposadr[0])
    kitchen.data.qpos[start : start + 3] = position
    kitchen.data.qpos[start + 3 : start + 7] = [1, 0, 0, 0]
    mujoco.mj_forward(kitchen.model, kitchen.data)


def test_gymnasium_accepts_the_environment():
    env = gymnasium.make(robot_sim.ENVIRONMENT_ID, task="put_red_cube_in_pot")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_same_seed_and_actions_give_the_same_states_and_images():
    rng = np.random.default_rng(1)
    actions = rng.uniform(-0.03, 0.03, size=(6, 7)).astype(np.float32)
    runs: list[list[dict]] = []
    for _ in range(2):
        env = WidowXKitchenEnv(task="put_green_cylinder_on_plate")
        # What happened before in the same environment must not leak into an episode.
        env.reset(seed=len(runs))
        env.step(actions[0])
        observations = [env.reset(seed=17)[0]]
        observations += [env.step(action)[0] for action in actions]
        runs.append(observations)
        env.close()
    for a, b in zip(*runs, strict=True):
        assert np.array_equal(a["state"], b["state"])
        assert np.array_equal(a["image"], b["image"])


def test_the_action_moves_the_end_effector_by_its_delta(blind):
    blind.reset(seed=3, options={"task": "open_drawer"})
    before = blind.kitchen.end_effector_m()
    for _ in range(3):
        blind.step(np.array([0.02, -0.03, -0.01, 0, 0, 0, 1], dtype=np.float32))
    blind.step(np.array([0, 0, 0, 0, 0, 0, 1], dtype=np.float32))
    moved = blind.kitchen.end_effector_m() - before
    assert moved == pytest.approx([0.06, -0.09, -0.03], abs=0.005)


@pytest.mark.parametrize("target", ["pot", "plate", "bowl"])
@pytest.mark.parametrize("thing", ["red_cube", "green_cylinder", "yellow_block"])
def test_put_succeeds_only_for_the_right_object_at_rest_and_released(blind, thing, target):
    task = next(t for t in TASKS.values() if (t.object, t.target) == (thing, target))
    blind.reset(seed=11, options={"task": task.name})
    kitchen = blind.kitchen
    inside = kitchen.position_m(target)
    inside[2] = 0.005 + OBJECT_HALF_HEIGHT_M[thing]
    above = inside + np.array([0, 0, CONTAINER_HEIGHT_M[target] + 0.05])
    put(kitchen, thing, above)
    assert not task.succeeded(kitchen), "above the container"
    other = "red_cube" if thing != "red_cube" else "yellow_block"
    put(kitchen, other, inside)
    assert not task.succeeded(kitchen), "another object is inside"
    put(kitchen, other, [0.9, 0.9, 0.02])
    put(kitchen, thing, inside)
    kitchen.advance(60)
    assert task.succeeded(kitchen)
    kitchen.set_arm(kitchen.arm_positions_rad, 0.018)
    assert not task.succeeded(kitchen), "the gripper is closed"


def test_an_object_held_over_the_pot_is_no_success(blind):
    blind.reset(seed=2, options={"task": "put_red_cube_in_pot"})
    expert = Demonstrator(blind.task, blind.kitchen, blind.arm)
    for _ in range(40):
        action = expert.action()
        offset = blind.kitchen.position_m("red_cube") - blind.kitchen.position_m("pot")
        if np.hypot(*offset[:2]) < 0.03 and offset[2] > 0.05:
            break
        blind.step(action)
    else:
        pytest.fail("the demonstrator never held the cube over the pot")
    for _ in range(5):
        *_, terminated, _, info = blind.step(np.array([0, 0, 0, 0, 0, 0, 0], dtype=np.float32))
        assert not info["success"]
        assert not terminated


def test_success_must_last(blind):
    """Terminated comes 0.6 s after success began, not before."""
    _, info = blind.reset(seed=4, options={"task": "open_drawer"})
    kitchen = blind.kitchen
    kitchen.data.qpos[kitchen.model.joint("drawer").qposadr[0]] = 0.08
    mujoco.mj_forward(kitchen.model, kitchen.data)
    still = np.array([0, 0, 0, 0, 0, 0, 1], dtype=np.float32)
    ends = []
    for _ in range(4):
        *_, terminated, _, info = blind.step(still)
        assert info["success"]
        ends.append(terminated)
    assert ends == [False, False, False, True]


@pytest.mark.parametrize("task", list(TASKS))
def test_the_demonstrator_solves_every_task(blind, task):
    results = [demonstrate(blind, task, seed) for seed in (21, 22, 23)]
    assert sum(r.success for r in results) >= 2
    shortest = min(results, key=lambda r: len(r.actions))
    assert len(shortest.actions) <= 30
    assert shortest.images.shape[0] == len(shortest.actions) + 1 == len(shortest.states)
    assert all(blind.action_space.contains(a) for a in [*shortest.actions, *shortest.executed])


def test_noise_leaves_the_gripper_and_the_limits_alone():
    action = np.array([0.05, 0, 0, 0, 0, 0.25, 1.0], dtype=np.float32)
    rng = np.random.default_rng(0)
    executed = np.array([noisy(action, rng) for _ in range(200)])
    assert (executed[:, 6] == 1.0).all()
    assert executed[:, 0].max() <= np.float32(0.05)
    assert 0.006 < executed[:, 1].std() < 0.010


@pytest.mark.parametrize(
    "arguments",
    [
        {"observation_delay_s": (0.05, 0.01)},
        {"observation_delay_s": (0.0, 0.3)},
        {"start_noise_rad": -1.0},
        {"render_mode": "human"},
    ],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        WidowXKitchenEnv(**arguments)


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(KeyError, match="put_red_cube_in_pot"):
        find_task("fold_towel")


def test_a_non_finite_action_is_refused(blind):
    blind.reset(seed=1)
    with pytest.raises(ValueError, match="nan"):
        blind.step(np.full(7, np.nan, dtype=np.float32))
