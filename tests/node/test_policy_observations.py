"""Every kind of observation that an arm has, through the graph: topics, pairing, task, history."""

import bundle_builder
import numpy as np
import pytest
from node_rig import wait_until
from policy_interfaces.action import RunEpisode
from policy_interfaces.srv import SetTask
from policy_rig import EMBEDDING, RobotWithTwoCameras, grey, rigs, seconds
from sensor_msgs.msg import Image

GOAL_GREY = 90
BROKEN = Image(height=2, width=2, encoding="8UC9", data=[0] * 36)


@pytest.fixture
def rig(free_domain, monkeypatch, tmp_path):
    file = bundle_builder.write_all_kinds_bundle(tmp_path / "all")
    with rigs(free_domain, monkeypatch) as start:
        rig = start(model=file.parent, robot_type=RobotWithTwoCameras, camera_timeout_s=0.5)
        rig.activate()
        yield rig


def run(rig, **goal):
    goal = {"goal_image": grey(GOAL_GREY), "embedding": EMBEDDING, **goal}
    return rig.run_episode(task="", max_steps=8, **goal)


def test_every_kind_of_observation_reaches_the_policy(rig):
    result = run(rig)
    assert result.termination_reason == RunEpisode.Result.REASON_HORIZON, result.message
    assert wait_until(lambda: len(rig.robot.commands) == 8)
    messages = [message for _, message in rig.robot.commands]
    found = np.array([message.values for message in messages]) / bundle_builder.ALL_KINDS_SCALE
    seen, by_wrist, wanted, moved, bent, acted, told = found.T
    # Both cameras show the same moment, although one is slow, and the command says which.
    numbers = np.round(by_wrist).astype(int)
    np.testing.assert_allclose(by_wrist, numbers, atol=1e-3)
    stamps_s = [seconds(message.header.stamp) for message in messages]
    expected_s = [rig.robot.stamps_s[number] for number in numbers]
    np.testing.assert_allclose(stamps_s, expected_s, atol=1e-6)
    # The history of the other camera is that of the ticks; it begins anew after one without images.
    before = np.concatenate([numbers[:1], numbers[:-1]])
    remembered = np.abs(seen - (numbers + before) / 2) < 1e-3
    assert np.all(remembered | (np.abs(seen - numbers) < 1e-3))
    assert np.count_nonzero(remembered) > len(numbers) / 2
    np.testing.assert_allclose(wanted, GOAL_GREY, atol=1e-3)
    np.testing.assert_allclose(moved, 3 * (0.2 + rig.robot.z_m + 1.0), rtol=1e-4)
    np.testing.assert_allclose(bent, 0.75, rtol=1e-4)
    np.testing.assert_allclose(told, sum(EMBEDDING), rtol=1e-4)
    last = np.array([0.0, *(message.values[0] + message.values[6] for message in messages[:-1])])
    np.testing.assert_allclose(acted, last, atol=1e-5)


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ({"goal_image": Image()}, "found no goal image"),
        ({"embedding": [1.0]}, "found an embedding of 1 numbers, expected 5"),
        (
            {"goal_image": Image(height=2, width=2, encoding="8UC9", data=[0] * 36)},
            "goal image ref",
        ),
    ],
)
def test_a_task_that_lacks_something_is_refused(rig, goal, said):
    result = run(rig, **goal)
    assert result.termination_reason == RunEpisode.Result.REASON_UNKNOWN_TASK
    assert said in result.message
    assert not rig.robot.commands


def test_the_goal_may_be_set_before_and_replaced_while_an_episode_runs(rig):
    def set_task(value):
        request = SetTask.Request(
            instruction="like this", goal_image=grey(value), embedding=EMBEDDING
        )
        return rig.call(SetTask, "policy_node/set_task", request)

    assert set_task(30).success
    assert wait_until(lambda: rig.robot.statuses[-1].task == "like this")
    _, future = rig.start_episode(task="", max_steps=12)
    assert wait_until(lambda: len(rig.robot.commands) >= 4)
    assert set_task(200).success
    assert rig.wait_for(future).result.steps == 12
    assert wait_until(lambda: len(rig.robot.commands) == 12)
    wanted = [round(message.values[2] / 1e-4) for _, message in rig.robot.commands]
    assert wanted == sorted(wanted) and set(wanted) == {30, 200}


def test_a_camera_that_is_missing_stops_the_robot_and_is_named(rig):
    _, future = rig.start_episode(
        task="", max_steps=100, goal_image=grey(GOAL_GREY), embedding=EMBEDDING
    )
    assert wait_until(lambda: len(rig.robot.commands) >= 3)
    rig.robot.wrist_on = False
    result = rig.wait_for(future).result
    assert result.termination_reason == RunEpisode.Result.REASON_STALE_CAMERA
    assert "image of camera wrist_camera" in result.message
