from episode_tools.success_judge import SuccessJudge, TaskObservation

HOLD_S = 0.6


def observe(judge, time_s, success_s, *, task="open_drawer", seed=7, scene=4):
    success = success_s is not None
    judge.update(TaskObservation(time_s, task, seed, scene, success, success_s or 0.0))


def new_judge():
    return SuccessJudge("open_drawer", 7, after_scene=3, hold_s=HOLD_S)


def test_a_success_must_hold_long_enough_and_still_hold_at_the_end():
    judge = new_judge()
    observe(judge, 10.0, None)
    observe(judge, 10.5, 0.5)
    assert not judge.sustained
    observe(judge, 10.7, 0.7)
    assert judge.sustained and judge.success
    assert judge.sustained_since_s == 10.0
    observe(judge, 10.8, None)
    assert judge.sustained and not judge.success


def test_a_broken_success_does_not_add_up():
    judge = new_judge()
    for time_s, success_s in [(1.0, 0.4), (1.1, None), (1.5, 0.4)]:
        observe(judge, time_s, success_s)
    assert not judge.sustained


def test_ignores_other_scenes_tasks_and_seeds():
    judge = new_judge()
    observe(judge, 1.0, 5.0, scene=3)
    observe(judge, 1.1, 5.0, task="close_drawer")
    observe(judge, 1.2, 5.0, seed=8)
    assert judge.last_time_s is None and judge.scene_age_s < 0 and not judge.success
    observe(judge, 2.0, None)
    observe(judge, 2.25, None)
    assert judge.scene_age_s == 0.25
