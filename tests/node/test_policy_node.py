"""The policy node through its own topics, services, action and parameters, in its own process."""

import array
import os
import shutil
import time

import bundle_builder
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State
from node_rig import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, NodeRig, wait_until
from policy_interfaces.action import RunEpisode
from policy_interfaces.msg import EndEffectorDelta, EndEffectorState, PolicyStatus
from policy_interfaces.srv import SetTask
from policy_server.episode import STALE_TO_END_S
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.clock import Clock
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image

PERIOD_S = 0.2


class Robot(Node):
    """A camera at 30 Hz, an arm's state at 50 Hz, and an ear on what the policy commands."""

    def __init__(self, context, simulated_rate=None):
        super().__init__("robot", context=context, use_global_arguments=False)
        self.camera_on = True
        self.camera_offset_s = 0.0
        self.state_on = True
        self.z_m = 0.1
        self.clock_offset_s = 0.0
        self.diagnostics = []
        self.commands = []  # (receive time [s], message)
        self.statuses = []
        self.simulated_rate = simulated_rate
        self.simulated_start_s = time.monotonic()
        self.images = self.create_publisher(
            Image,
            "camera/image_raw",
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
        )
        self.states = self.create_publisher(EndEffectorState, "end_effector_state", 1)
        self.create_subscription(EndEffectorDelta, "end_effector_delta", self._on_command, 10)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(PolicyStatus, "policy_node/status", self.statuses.append, latched)
        self.create_subscription(
            DiagnosticArray, "/diagnostics", lambda m: self.diagnostics.extend(m.status), 10
        )
        self.image = Image(height=24, width=32, encoding="bgr8", step=96)
        self.image.data = array.array("B", bytes(range(256)) * 9)
        self.create_timer(1 / 30, self._send_image)
        self.create_timer(1 / 50, self._send_state)
        if simulated_rate:
            self.clock_publisher = self.create_publisher(ClockMessage, "/clock", 10)
            self.create_timer(1 / 200, self._send_clock)

    def now_ns(self):
        if self.simulated_rate:
            elapsed_s = time.monotonic() - self.simulated_start_s
            return round((1.0 + self.clock_offset_s + elapsed_s * self.simulated_rate) * 1e9)
        return Clock().now().nanoseconds

    def _stamp(self, message, offset_s=0.0):
        stamp_ns = self.now_ns() + round(offset_s * 1e9)
        stamp = message.header.stamp
        stamp.sec, stamp.nanosec = divmod(stamp_ns, 10**9)
        return message

    def _send_image(self):
        if self.camera_on:
            self.images.publish(self._stamp(self.image, self.camera_offset_s))

    def _send_state(self):
        if self.state_on:
            message = self._stamp(EndEffectorState())
            message.state = [0.2, 0.0, self.z_m, 0.0, 0.0, 0.0, 1.0]
            self.states.publish(message)

    def _send_clock(self):
        message = ClockMessage()
        message.clock.sec, message.clock.nanosec = divmod(self.now_ns(), 10**9)
        self.clock_publisher.publish(message)

    def _on_command(self, message):
        self.commands.append((time.monotonic(), message))


class Rig(NodeRig):
    """The policy node's process and the robot around it."""

    def __init__(self, domain, simulated_rate=None, **parameters):
        def robot(context):
            return Robot(context, simulated_rate)

        super().__init__(domain, "policy_server.policy_node", "policy_node", robot, **parameters)
        self.robot = self.around
        self.episodes = ActionClient(self.robot, RunEpisode, "policy_node/run_episode")
        self.feedback = []

    def start_episode(self, **goal):
        goal = {"task": "push_left", "max_steps": 5, "seed": 1, **goal}
        assert self.episodes.wait_for_server(20.0)
        future = self.episodes.send_goal_async(
            RunEpisode.Goal(**goal),
            feedback_callback=lambda message: self.feedback.append(message.feedback),
        )
        handle = self.wait_for(future)
        assert handle.accepted
        return handle, handle.get_result_async()

    def set_parameter(self, name, value):
        kinds = {int: ("integer_value", ParameterType.PARAMETER_INTEGER)}
        field, kind = kinds[type(value)]
        parameter = Parameter(name=name, value=ParameterValue(type=kind, **{field: value}))
        request = SetParameters.Request(parameters=[parameter])
        return self.call(SetParameters, "policy_node/set_parameters", request).results[0]

    def run_episode(self, **goal):
        _, future = self.start_episode(**goal)
        return self.wait_for(future).result


@pytest.fixture
def bundle(tmp_path):
    return bundle_builder.write_ptr_bundle(tmp_path / "tiny").parent


@pytest.fixture
def make_rig(bundle, free_domain, monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rigs = []

    def make(**arguments):
        rigs.append(Rig(free_domain, **{"model": bundle, **arguments}))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


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


@pytest.mark.parametrize(
    ("parameters", "part"),
    [
        ({"model": "nowhere"}, "no such bundle"),
        ({"task": "fly"}, "push_left"),
        ({"rate_hz": 15.0}, "the bundle was made for 5"),
        ({"rate_hz": 60.0, "bundle_rate_hz": 60.0}, "60 Hz, expected 0.5 to 50"),
        ({"bundle_rate_hz": 0.4}, "0.4 Hz, expected 0.5 to 50"),
        ({"policy": "rando"}, 'did you mean "random"'),
        ({"execute_steps": 2}, "found 2 steps to execute of a chunk of 1, expected at most 1"),
        ({"inference": "background"}, "at most 0 with inference in the background"),
        ({"execute_steps": 4}, "0.4 s, the bundle's max_observation_age_s, after their observ"),
    ],
)
def test_bad_parameters_refuse_the_configuration(make_rig, bundle, tmp_path, parameters, part):
    parameters = dict(parameters)
    if rate_hz := parameters.pop("bundle_rate_hz", None):
        folder = shutil.copytree(bundle, tmp_path / "other" / bundle.name)
        file = next(folder.glob("*.yaml"))
        file.write_text(file.read_text().replace("rate_hz: 5.0", f"rate_hz: {rate_hz}"))
        parameters["model"] = folder
    rig = make_rig(**parameters)
    assert not rig.transition(CONFIGURE)
    assert rig.state() == State.PRIMARY_STATE_UNCONFIGURED
    output = rig.output()
    assert "configure refused" in output
    assert part in output
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


COUNTING = """
import time
import numpy as np
from policy_server.policy import ActionChunk

class Counting:
    "Computes chunks of eight steps, each for {work_s} s; dy says for which task."

    def __init__(self, bundle, options):
        self.spec = bundle.deployment
        self.calls = 0

    def reset(self, seed):
        self.calls = 0

    def infer(self, observation, num_samples=1):
        end_s = time.monotonic() + {work_s}
        matrix = np.eye(300)
        while time.monotonic() < end_s:
            matrix = matrix @ matrix
        self.calls += 1
        steps = np.zeros((1, 8, 7), np.float32)
        steps[0, :, 0] = 1e-3 * self.calls + 1e-4 * np.arange(8)
        steps[0, :, 1] = -0.01 if observation.task == "push_left" else 0.01
        return ActionChunk(steps)
"""


@pytest.fixture
def make_slow_rig(make_rig, tmp_path, monkeypatch):
    """The rig with a policy of another, installed package, that works 2.5 periods per inference."""

    def make(inference, work_s=2.5 * PERIOD_S):
        site = tmp_path / "site"
        information = site / "counting_policy-1.0.dist-info"
        information.mkdir(parents=True)
        (site / "counting_policy.py").write_text(COUNTING.format(work_s=work_s))
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: counting-policy\n")
        (information / "entry_points.txt").write_text(
            "[coxswain.policies]\ncounting = counting_policy:Counting\n"
        )
        paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
        bundle = bundle_builder.with_chunks(
            bundle_builder.write_ptr_bundle(tmp_path / "slow"),
            execute_steps=4,
            inference=inference,
        )
        rig = make_rig(model=bundle.parent, policy="counting")
        rig.activate()
        return rig

    return make


def stamp_s(stamp):
    return stamp.sec + 1e-9 * stamp.nanosec


@pytest.mark.alone
@pytest.mark.parametrize("inference", ["between_steps", "background"])
def test_steps_of_a_slow_policy_are_played_by_time(make_slow_rig, inference):
    """Three steps meant for 0.6 s were sent within 0.11 s."""
    rig = make_slow_rig(inference)
    result = rig.run_episode(max_steps=20)
    assert result.termination_reason == RunEpisode.Result.REASON_HORIZON, result.message
    assert wait_until(lambda: len(rig.robot.commands) == 20)
    messages = [message for _, message in rig.robot.commands]
    chunks = [round(message.values[0] * 1e3 - 0.4) for message in messages]
    steps = [round((m.values[0] - 1e-3 * n) * 1e4) for m, n in zip(messages, chunks, strict=True)]
    stamps_s = [stamp_s(message.header.stamp) for message in messages]
    intervals_s = np.diff([time_s for time_s, _ in rig.robot.commands])
    assert intervals_s.min() > 0.75 * PERIOD_S
    begins = np.flatnonzero(np.diff(chunks)) + 1
    if inference == "background":
        # Each chunk joins where the one before has got to, and nobody waits for it.
        assert result.overruns == 0
        assert intervals_s.max() < 1.25 * PERIOD_S
        assert [steps[k] for k in begins] == [3] * len(begins)
    else:
        assert result.overruns == len(begins) == 4
        assert steps == [0, 1, 2, 3] * 5
        assert np.delete(intervals_s, begins - 1).max() < 1.25 * PERIOD_S
    # One observation caused all steps of a chunk; when each is due is another matter.
    assert len(set(stamps_s)) == len(begins) + 1
    for message, caused_s in zip(messages, stamps_s, strict=True):
        assert message.max_observation_age_s == 1.9
        assert 0.0 < stamp_s(message.execute_at) - caused_s < 1.9
    executed_s = np.diff([stamp_s(message.execute_at) for message in messages])
    np.testing.assert_allclose(executed_s, intervals_s, atol=0.25 * PERIOD_S)


@pytest.mark.alone
@pytest.mark.parametrize("inference", ["between_steps", "background"])
def test_a_new_task_makes_the_chunk_of_the_old_one_void(make_slow_rig, inference):
    """Five more steps of the old task were commanded (F3)."""
    rig = make_slow_rig(inference, work_s=0.05)
    _, future = rig.start_episode(task="push_left", max_steps=20)
    assert wait_until(lambda: len(rig.robot.commands) >= 6)
    assert rig.call(SetTask, "policy_node/set_task", SetTask.Request(task="push_right")).success
    changed_s = time.monotonic()
    assert rig.wait_for(future).result.steps == 20
    after = [(t, m.values[1]) for t, m in rig.robot.commands if t > changed_s + 0.05]
    assert after and all(dy > 0 for _, dy in after)
    assert after[0][0] - changed_s < 3 * PERIOD_S
    assert wait_until(lambda: rig.robot.statuses[-1].dropped_steps > 0)


@pytest.mark.alone
def test_a_camera_that_dies_stops_a_chunk_while_the_next_one_is_computed(make_slow_rig):
    rig = make_slow_rig("background")
    _, future = rig.start_episode(max_steps=200)
    assert wait_until(lambda: len(rig.robot.commands) >= 6)
    rig.robot.camera_on = False
    died_s = time.monotonic()
    result = rig.wait_for(future).result
    assert result.termination_reason == RunEpisode.Result.REASON_STALE_CAMERA
    assert rig.robot.commands[-1][0] - died_s <= 2 * PERIOD_S


def test_a_bundle_whose_observations_may_be_older_than_the_robot_allows_is_refused(
    make_rig, tmp_path
):
    file = bundle_builder.write_ptr_bundle(tmp_path / "patient")
    rig = make_rig(model=bundle_builder.with_chunks(file, max_observation_age_s=2.1).parent)
    assert not rig.transition(CONFIGURE)
    assert "max_observation_age_s: found 2.1, expected at most 2" in rig.output()
