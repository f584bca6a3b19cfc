"""The policy node through its own topics, services, action and parameters, in its own process."""

import shutil
import time

import bundle_builder
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import State
from node_rig import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, wait_until
from policy_interfaces.action import RunEpisode
from policy_interfaces.msg import EndEffectorDelta, PolicyStatus
from policy_interfaces.srv import SetTask
from policy_rig import PERIOD_S, rigs
from policy_server.episode import STALE_TO_END_S
from rclpy.clock import Clock


@pytest.fixture
def bundle(tmp_path):
    return bundle_builder.write_ptr_bundle(tmp_path / "tiny").parent


@pytest.fixture
def make_rig(bundle, free_domain, monkeypatch):
    with rigs(free_domain, monkeypatch) as start:
        yield lambda **arguments: start(**{"model": bundle, **arguments})


def test_an_episode_commands_at_the_rate_with_the_stamps_of_its_images(make_rig):
    rig = make_rig()
    rig.activate()
    time_before_s = time.monotonic()
    assert not rig.robot.commands, "a node moved by itself"
    result = rig.run_episode(task="push_right", max_steps=10)
    assert result.termination_reason == RunEpisode.Result.REASON_HORIZON
    assert result.steps == 10
    assert wait_until(lambda: len(rig.robot.commands) == 10)
    for _, message in rig.robot.commands:
        assert list(message.names) == bundle_builder.NAMES
        assert message.step_s == pytest.approx(PERIOD_S)
        assert message.header.frame_id == "base_link"
        age_s = (Clock().now().nanoseconds * 1e-9) - (
            message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        )
        assert 0.0 <= age_s <= time.monotonic() - time_before_s + 1.0
    stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for _, m in rig.robot.commands]
    assert len(set(stamps)) == 10
    assert [step.step for step in rig.feedback] == list(range(1, 11))
    assert list(rig.feedback[-1].action) == list(rig.robot.commands[-1][1].values)
    assert wait_until(lambda: rig.robot.statuses[-1].state == PolicyStatus.STATE_IDLE)
    status = rig.robot.statuses[-1]
    assert (status.policy, status.task, status.ticks) == ("tiny", "push_right", 10)
    assert rig.process.poll() is None
    assert rig.transition(DEACTIVATE)
    assert rig.transition(CLEANUP)
    assert "Traceback" not in rig.output()
    assert rig.process.returncode == 0


@pytest.mark.alone
def test_the_tick_follows_simulated_time(make_rig):
    rig = make_rig(
        simulated_rate=2.0, use_sim_time="true", camera_timeout_s=2.0, state_timeout_s=2.0
    )
    rig.activate()
    assert wait_until(lambda: rig.robot.statuses[-1].header.stamp.sec > 0)
    start_s = time.monotonic()
    result = rig.run_episode(max_steps=20)
    elapsed_s = time.monotonic() - start_s
    assert result.termination_reason == RunEpisode.Result.REASON_HORIZON, result.message
    assert result.duration_s == pytest.approx(20 * PERIOD_S, abs=0.4)
    assert elapsed_s < 20 * PERIOD_S * 0.8


def test_without_camera_the_episode_ends_and_nothing_is_sent(make_rig):
    rig = make_rig(observation_wait_s=0.5)
    rig.robot.camera_on = False
    rig.activate()
    result = rig.run_episode()
    assert result.termination_reason == RunEpisode.Result.REASON_STALE_CAMERA
    assert "no image has arrived" in result.message
    assert not rig.robot.commands
    assert wait_until(lambda: rig.robot.statuses[-1].state == PolicyStatus.STATE_FAULT)
    assert "STALE_CAMERA" in rig.robot.statuses[-1].reason
    rig.robot.camera_on = True
    assert rig.run_episode().termination_reason == RunEpisode.Result.REASON_HORIZON


@pytest.mark.parametrize("offset_s", [-1.0, 0.5])
def test_old_and_future_images_are_not_acted_upon(make_rig, offset_s):
    rig = make_rig(observation_wait_s=0.5)
    rig.robot.camera_offset_s = offset_s
    rig.activate()
    result = rig.run_episode()
    assert result.termination_reason == RunEpisode.Result.REASON_STALE_CAMERA
    assert ("future" if offset_s > 0 else "old") in result.message
    assert not rig.robot.commands


@pytest.mark.alone
@pytest.mark.parametrize(
    ("sensor", "reason"),
    [
        ("camera_on", RunEpisode.Result.REASON_STALE_CAMERA),
        ("state_on", RunEpisode.Result.REASON_STALE_STATE),
    ],
)
def test_a_sensor_that_dies_stops_the_commands_within_two_ticks(make_rig, sensor, reason):
    rig = make_rig()
    rig.activate()
    _, future = rig.start_episode(max_steps=200)
    assert wait_until(lambda: len(rig.robot.commands) >= 5)
    setattr(rig.robot, sensor, False)
    died_s = time.monotonic()
    result = rig.wait_for(future).result
    assert result.termination_reason == reason
    assert time.monotonic() - died_s < STALE_TO_END_S + 4 * PERIOD_S
    assert rig.robot.commands[-1][0] - died_s <= 2 * PERIOD_S


def test_cancelling_stops_within_one_tick(make_rig):
    rig = make_rig()
    rig.activate()
    handle, future = rig.start_episode(max_steps=200)
    assert wait_until(lambda: len(rig.robot.commands) >= 3)
    cancelled_s = time.monotonic()
    rig.wait_for(handle.cancel_goal_async())
    result = rig.wait_for(future).result
    assert result.termination_reason == RunEpisode.Result.REASON_CANCELLED
    assert rig.robot.commands[-1][0] - cancelled_s <= PERIOD_S
    assert result.steps == len(rig.robot.commands)


def test_a_second_episode_is_refused_while_one_runs(make_rig):
    rig = make_rig()
    rig.activate()
    handle, future = rig.start_episode(max_steps=200)
    assert wait_until(lambda: rig.robot.commands)
    second = rig.run_episode()
    assert second.termination_reason == RunEpisode.Result.REASON_BUSY
    assert second.steps == 0
    assert not future.done()
    rig.wait_for(handle.cancel_goal_async())
    rig.wait_for(future)


def test_deactivation_ends_the_episode_and_a_new_activation_starts_clean(make_rig):
    rig = make_rig()
    assert rig.transition(CONFIGURE)
    inactive = rig.run_episode()
    assert inactive.termination_reason == RunEpisode.Result.REASON_INACTIVE
    assert not rig.robot.commands
    assert rig.transition(ACTIVATE)
    _, future = rig.start_episode(max_steps=200)
    assert wait_until(lambda: len(rig.robot.commands) >= 3)
    assert rig.transition(DEACTIVATE)
    deactivated_s = time.monotonic()
    result = rig.wait_for(future).result
    assert result.termination_reason == RunEpisode.Result.REASON_INACTIVE
    assert rig.robot.commands[-1][0] <= deactivated_s
    assert rig.transition(ACTIVATE)
    assert wait_until(lambda: rig.robot.statuses[-1].ticks == 0)
    assert rig.run_episode(max_steps=2).steps == 2


def test_tasks_are_chosen_by_name(make_rig):
    rig = make_rig()
    rig.activate()
    result = rig.run_episode(task="push_lft")
    assert result.termination_reason == RunEpisode.Result.REASON_UNKNOWN_TASK
    assert "push_right" in result.message
    assert 'did you mean "push_left"' in result.message
    refused = rig.call(SetTask, "policy_node/set_task", SetTask.Request(task="fly"))
    assert not refused.success
    assert list(refused.known_tasks) == ["push_left", "push_right"]
    no_task = rig.run_episode(task="")
    assert no_task.termination_reason == RunEpisode.Result.REASON_UNKNOWN_TASK
    assert rig.call(SetTask, "policy_node/set_task", SetTask.Request(task="push_left")).success
    assert rig.run_episode(task="", max_steps=1).steps == 1
    # The action's fourth entry holds the first entry of the one-hot vector.
    left = rig.robot.commands[-1][1].values[3]
    assert rig.run_episode(task="push_right", max_steps=1).steps == 1
    assert rig.robot.commands[-1][1].values[3] < left


def test_an_action_that_is_no_number_is_not_sent(make_rig):
    rig = make_rig()
    rig.robot.z_m = 11.0
    rig.activate()
    result = rig.run_episode()
    assert result.termination_reason == RunEpisode.Result.REASON_BAD_ACTION
    assert not rig.robot.commands


def test_a_corrupt_bundle_is_refused_and_a_repaired_one_accepted(make_rig, bundle, tmp_path):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(bundle, spoilt)
    (spoilt / "tiny.yaml").rename(spoilt / "spoilt.yaml")
    model = spoilt / "policy.onnx"
    content = model.read_bytes()
    model.write_bytes(content[:-1])
    rig = make_rig(model=spoilt)
    assert not rig.transition(CONFIGURE)
    assert rig.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert wait_until(lambda: "policy.onnx: SHA-256" in rig.robot.statuses[-1].reason)
    model.write_bytes(content)
    rig.activate()
    assert wait_until(lambda: rig.robot.statuses[-1].reason == "")


def test_what_does_not_fit_refuses_the_configuration(make_rig):
    rig = make_rig(rate_hz=15.0)
    assert not rig.transition(CONFIGURE)
    assert rig.state() == State.PRIMARY_STATE_UNCONFIGURED
    output = rig.output()
    assert "configure refused: found rate_hz 15" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("parameters", "part"),
    [
        ({"camera_timout_s": 0.1}, 'did you mean "camera_timeout_s"'),
        ({"threads": 1000}, "threads"),
        ({"camera_timeout_s": -1.0}, "camera_timeout_s"),
        ({"provider": "cudaa"}, 'did you mean "cuda"'),
    ],
)
def test_values_out_of_range_end_the_process_with_a_message(make_rig, parameters, part):
    rig = make_rig(**parameters)
    output, _ = rig.process.communicate(timeout=20.0)
    assert rig.process.returncode == 2
    assert part in output
    assert "Traceback" not in output


def test_a_second_source_of_commands_is_refused(make_rig):
    rig = make_rig()
    assert rig.transition(CONFIGURE)
    publisher = rig.robot.create_publisher(EndEffectorDelta, "end_effector_delta", 1)
    assert wait_until(lambda: rig.robot.count_publishers("end_effector_delta") == 2)
    assert not rig.transition(ACTIVATE)
    told = "/robot publishing /end_effector_delta too"
    assert wait_until(lambda: told in rig.robot.statuses[-1].reason)
    rig.robot.destroy_publisher(publisher)
    assert wait_until(lambda: rig.transition(ACTIVATE))
    publisher = rig.robot.create_publisher(EndEffectorDelta, "end_effector_delta", 1)
    assert wait_until(
        lambda: rig.run_episode(max_steps=1).termination_reason == RunEpisode.Result.REASON_BUSY
    )


@pytest.mark.alone
def test_an_episode_ends_when_a_second_source_of_commands_comes(make_rig):
    rig = make_rig()
    rig.activate()
    _, future = rig.start_episode(max_steps=500)
    assert wait_until(lambda: len(rig.robot.commands) >= 2)
    publisher = rig.robot.create_publisher(EndEffectorDelta, "end_effector_delta", 1)
    came_s = time.monotonic()
    result = rig.wait_for(future).result
    assert result.termination_reason == RunEpisode.Result.REASON_BUSY
    assert "/robot publishing /end_effector_delta too" in result.message
    assert rig.robot.commands[-1][0] - came_s < 1.5
    rig.robot.destroy_publisher(publisher)


@pytest.mark.parametrize(
    ("spoil", "reason", "part"),
    [
        (
            lambda robot: setattr(robot.image, "encoding", "16SC3"),
            RunEpisode.Result.REASON_STALE_CAMERA,
            'images arrive and are refused: found the encoding "16SC3"',
        ),
        (
            lambda robot: setattr(robot, "z_m", float("nan")),
            RunEpisode.Result.REASON_STALE_STATE,
            "end-effector states arrive and are refused: not finite",
        ),
    ],
    ids=["image", "state"],
)
def test_data_that_is_refused_is_told_as_such(make_rig, spoil, reason, part):
    rig = make_rig(observation_wait_s=0.5)
    spoil(rig.robot)
    rig.activate()
    # Without an episode, too: whoever looks at the diagnostics sees it before.
    assert wait_until(
        lambda: any(
            status.message.startswith(part) and status.level == DiagnosticStatus.WARN
            for status in rig.robot.diagnostics
        )
    )
    result = rig.run_episode()
    assert result.termination_reason == reason
    assert part in result.message
    assert not rig.robot.commands
    assert wait_until(lambda: part in rig.robot.diagnostics[-1].message)
    assert rig.robot.diagnostics[-1].level == DiagnosticStatus.ERROR
    output = rig.output()
    assert "refused:" in output


def test_a_policy_without_tasks_runs_under_any_label(make_rig, tmp_path):
    bundle = bundle_builder.write_recurrent_bundle(tmp_path / "single").parent
    rig = make_rig(model=bundle, task="open_drawer", camera_timeout_s=1)
    rig.activate()
    for task in ("", "pick up the cup"):
        result = rig.run_episode(task=task, max_steps=2)
        assert result.termination_reason == RunEpisode.Result.REASON_HORIZON
        assert f'"{task or "open_drawer"}" is a label that changes nothing' in result.message
    answer = rig.call(SetTask, "policy_node/set_task", SetTask.Request(task="another"))
    assert answer.success
    assert '"another" is a label' in answer.message
    assert wait_until(lambda: rig.robot.statuses[-1].task == "another")
    # Whole numbers are real ones, at start and while it runs.
    assert rig.set_parameter("state_timeout_s", 1).successful
    assert not rig.set_parameter("state_timeout_s", 11).successful
    refused = rig.set_parameter("num_samples", 4)
    assert not refused.successful
    assert refused.reason.startswith("found num_samples 4, expected 1")
    assert rig.set_parameter("num_samples", 1).successful


@pytest.mark.alone
@pytest.mark.parametrize("back_s", [2.0, 60.0])
def test_a_clock_that_goes_back_does_not_mute_an_episode(make_rig, back_s):
    rig = make_rig(
        simulated_rate=1.0, use_sim_time="true", camera_timeout_s=1.0, state_timeout_s=1.0
    )
    rig.robot.clock_offset_s = 100.0
    rig.activate()
    assert wait_until(lambda: rig.robot.statuses[-1].header.stamp.sec > 0)
    _, future = rig.start_episode(max_steps=200)
    assert wait_until(lambda: len(rig.robot.commands) >= 3)
    rig.robot.clock_offset_s -= back_s
    count = len(rig.robot.commands)
    set_back_s = time.monotonic()
    assert wait_until(lambda: len(rig.robot.commands) >= count + 10 or future.done())
    assert not future.done(), future.result().result.message
    # Ten periods and what a busy machine adds, not the time by which the clock was off.
    assert time.monotonic() - set_back_s < 10 * PERIOD_S + min(0.8 * back_s, 10.0)
    assert rig.output().count("the clock went back by") == 1


def test_the_random_baseline_runs_from_a_parameter(make_rig):
    rig = make_rig(policy="random")
    rig.activate()
    actions = []
    for seed in (3, 3, 4):
        assert rig.run_episode(max_steps=3, seed=seed).steps == 3
        assert wait_until(lambda: len(rig.robot.commands) == 3)
        actions.append([tuple(message.values) for _, message in rig.robot.commands])
        rig.robot.commands.clear()
    assert actions[0] == actions[1] != actions[2]
