import random

import pytest
from episode_tools.attempt_health import AttemptHealth

CODES = ["wrong_names", "bad_step", "stale", "future_stamp", "out_of_order", "other_commander"]


def control(**counters):
    values = {"commands": 0, "accepted": 0, "refused_unreachable": 0, "lost": 0, **counters}
    values = {f"refused_{code}": 0 for code in CODES} | {"joint_states_fault": 0} | values
    return {key: str(value) for key, value in values.items()} | {"mode": "tracking"}


def simulation(**counters):
    return {
        key: str(value) for key, value in {"late_s": 0.0, "images_skipped": 0, **counters}.items()
    }


def attempt(before=None, after=None, sim_before=None, sim_after=None, real_time=True):
    health = AttemptHealth(real_time)
    health.update("control", control(**(before or {})), 1.0)
    health.update("simulation", simulation(**(sim_before or {})), 1.0)
    health.begin()
    health.update("control", control(**(after or before or {})), 9.0)
    health.update("simulation", simulation(**(sim_after or sim_before or {})), 9.0)
    return health


@pytest.mark.parametrize("seed", range(5))
def test_only_what_grew_meanwhile_spoils_an_attempt(seed):
    rng = random.Random(seed)
    before = {f"refused_{code}": rng.randrange(50) for code in CODES}
    before |= {"accepted": rng.randrange(50), "lost": rng.randrange(5)}
    sim = {"late_s": rng.random(), "images_skipped": rng.randrange(100)}
    assert attempt(before, None, sim).reasons(0) == ()
    code, count = rng.choice(CODES), rng.randrange(1, 40)
    after = before | {f"refused_{code}": before[f"refused_{code}"] + count, "last_refusal": "why"}
    (reason,) = attempt(before, after, sim).reasons(0)
    assert f"{code} {count}" in reason and "why" in reason


@pytest.mark.parametrize(
    ("missed", "after", "sim_after", "expected"),
    [
        (1, {}, {}, "1 tick was late"),
        (4, {}, {}, "4 ticks were late"),
        (0, {"lost": 2}, {}, "2 commands did not reach"),
        (0, {"joint_states_fault": 1}, {}, "without joint states"),
        (0, {}, {"late_s": 0.31}, "0.31 s behind real time"),
        (0, {}, {"images_skipped": 7}, "7 camera images were lost"),
    ],
)
def test_each_counter_spoils_by_itself(missed, after, sim_after, expected):
    (reason,) = attempt({}, after, {}, sim_after).reasons(missed)
    assert expected in reason


def test_a_slow_simulation_is_no_fault_where_everything_waits_for_its_clock():
    assert attempt(sim_after={"late_s": 9.0}, real_time=False).reasons(0) == ()
    assert attempt(sim_after={"images_skipped": 1}, real_time=False).reasons(0)


def test_what_the_arm_cannot_do_is_the_fault_of_the_policy():
    assert attempt({}, {"refused_unreachable": 30, "accepted": 10}).reasons(0) == ()


@pytest.mark.parametrize(
    ("after", "lasting"),
    [
        ({"refused_wrong_names": 5}, True),
        ({"refused_bad_step": 5}, True),
        ({"refused_bad_step": 5, "accepted": 3}, False),
        ({"refused_stale": 5}, False),
        ({"refused_stale": 5, "refused_other_commander": 1}, True),
    ],
)
def test_refusals_of_everything_last_unless_load_explains_them(after, lasting):
    health = attempt({}, after)
    assert health.reasons(0) and health.is_lasting == lasting


def test_commands_refused_for_a_second_are_noticed_while_it_runs():
    health = attempt({}, {"refused_bad_step": 3, "refusing_s": 0.6})
    assert not health.refused_for_a_second
    health.update("control", control(refused_bad_step=6, refusing_s=1.2), 9.5)
    assert health.refused_for_a_second


def test_a_node_that_is_first_heard_in_the_middle_counts_from_there():
    health = AttemptHealth(real_time=True)
    health.begin()
    health.update("control", control(refused_stale=12), 1.0)
    assert health.reasons(0) == () and health.counters == {}
    health.update("control", control(refused_stale=13), 2.0)
    assert health.counters == {"control.refused_stale": 1.0}


def test_a_node_that_was_started_again_counts_from_zero():
    assert "stale 2" in attempt({"refused_stale": 40}, {"refused_stale": 2}).reasons(0)[0]


def test_counters_are_current_once_every_node_has_published():
    health = attempt()
    assert health.is_current(9.0) and not health.is_current(9.1)
    health.update("control", control(), 9.2)
    assert not health.is_current(9.1)
    health.update("simulation", simulation(), 9.3)
    assert health.is_current(9.1)
