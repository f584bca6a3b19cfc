import pytest
from episode_tools.episode_plan import (
    EVALUATION_SEED_START,
    MAX_EVALUATION_SEED,
    TRIALS_PER_SEED,
    PlanError,
    evaluation_seed,
    plan_episodes,
    runnable_tasks,
    select_tasks,
)
from hypothesis import given
from hypothesis import strategies as st

KNOWN = ["put_red_cube_in_pot", "put_red_cube_on_plate", "open_drawer"]

seeds = st.integers(0, MAX_EVALUATION_SEED)
trials = st.integers(0, TRIALS_PER_SEED - 1)


@given(seeds, trials, seeds, trials)
def test_scene_seeds_are_unique_and_disjoint_from_training(seed, trial, other_seed, other_trial):
    scene = evaluation_seed(seed, trial)
    assert EVALUATION_SEED_START <= scene < 2**31
    same = (seed, trial) == (other_seed, other_trial)
    assert (scene == evaluation_seed(other_seed, other_trial)) == same


@given(st.integers(1, 7), st.integers(1, 60), seeds)
def test_episodes_are_dealt_evenly_and_every_task_sees_the_same_seeds(tasks, episodes, seed):
    names = [f"task_{index}" for index in range(tasks)]
    plan = plan_episodes(names, episodes, seed)
    counts = [sum(episode.task == name for episode in plan) for name in names]
    assert sum(counts) == episodes and max(counts) - min(counts) <= 1
    for episode in plan:
        assert episode.seed == evaluation_seed(seed, episode.trial)
    assert len({(episode.task, episode.seed) for episode in plan}) == episodes


def test_selects_one_several_and_all_in_the_order_asked_for():
    assert select_tasks("all", KNOWN) == KNOWN
    assert select_tasks("open_drawer, put_red_cube_in_pot", KNOWN) == [KNOWN[2], KNOWN[0]]


@pytest.mark.parametrize("request_text", ["", "open_drawer,", "open_drawer,open_drawer", "all,x"])
def test_refuses_a_malformed_request(request_text):
    with pytest.raises(PlanError):
        select_tasks(request_text, KNOWN)


def test_unknown_task_names_the_nearest_and_all_known():
    with pytest.raises(PlanError, match="Did you mean 'open_drawer'") as error:
        select_tasks("open_draw", KNOWN)
    assert all(name in str(error.value) for name in KNOWN)


@pytest.mark.parametrize(("seed", "trial"), [(-1, 0), (MAX_EVALUATION_SEED + 1, 0), (0, 10**6)])
def test_refuses_seeds_out_of_range(seed, trial):
    with pytest.raises(PlanError):
        evaluation_seed(seed, trial)


def test_a_policy_without_tasks_runs_under_those_of_the_scene_or_any_label():
    scene = ["open_drawer", "close_drawer"]
    assert select_tasks("all", runnable_tasks([], scene)) == scene
    assert select_tasks("close_drawer", runnable_tasks([], scene)) == ["close_drawer"]
    with pytest.raises(PlanError, match="Did you mean 'open_drawer'"):
        select_tasks("open_drawr", runnable_tasks([], scene))
    for request, tasks in (("all", ["all"]), ("fold, pour", ["fold", "pour"])):
        assert select_tasks(request, runnable_tasks([], None)) == tasks
    with pytest.raises(PlanError, match="listed twice"):
        select_tasks("fold,fold", runnable_tasks([], None))


def test_with_tasks_those_are_run_that_policy_and_scene_share_in_the_order_of_the_scene():
    assert runnable_tasks(["a", "b", "c"], ["c", "x", "a"]) == ["c", "a"]
    assert runnable_tasks(["a", "b"], None) == ["a", "b"]
    with pytest.raises(PlanError, match="in common"):
        select_tasks("all", runnable_tasks(["a"], ["b"]))
