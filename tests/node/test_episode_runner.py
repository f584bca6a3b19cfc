"""The episode runner against stand-ins for the arm controller, the policy and the simulator."""

import json
import signal
import subprocess
import sys
import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from policy_interfaces.action import MoveToNamedPose, RunEpisode
from policy_interfaces.msg import TaskStatus
from policy_interfaces.srv import ResetScene, SetTask
from process_output import read_until
from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from spun_nodes import SpunNodes
from std_srvs.srv import SetBool

TASKS = ["put_red_cube_in_pot", "open_drawer"]
STEP_S = 0.02
RESULT = RunEpisode.Result


class StandIns(Node):
    """Arm, policy and simulator in one node; keeps a log of what was asked of it."""

    def __init__(self, context, *, succeed_at_step, simulated=True):
        super().__init__("stand_ins", context=context)
        self.log = []
        self.succeed_at_step = succeed_at_step
        self.end_reason = RESULT.REASON_HORIZON
        self.steps = 25
        self._step = 0
        self._scene = ("none", 0)
        self._scenes = 0
        self._success_since_s = None
        self.policy_tasks = [*reversed(TASKS), "only_in_the_policy"]
        # What happens in each attempt: a function of the result, and of the counters below.
        self.faults = []
        self.accepts = True
        self.control = {"accepted": 0, "refused_bad_step": 0, "refused_stale": 0, "lost": 0}
        self.simulation = {"late_s": 0.0, "images_skipped": 0}
        group = ReentrantCallbackGroup()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(0.1, self._publish_counters, callback_group=group)
        ActionServer(
            self,
            MoveToNamedPose,
            "/wx250s/move_to_named_pose",
            self._move,
            callback_group=group,
        )
        ActionServer(
            self,
            RunEpisode,
            "/policy_node/run_episode",
            self._run_episode,
            cancel_callback=lambda _goal: CancelResponse.ACCEPT,
            callback_group=group,
        )
        self.create_service(SetTask, "/policy_node/set_task", self._set_task)
        if simulated:
            self.create_service(ResetScene, "/robot_sim/reset_scene", self._reset_scene)
            self._status = self.create_publisher(TaskStatus, "/robot_sim/task_status", 10)
            self.create_timer(0.02, self._publish_status, callback_group=group)

    def _move(self, goal):
        self.log.append(("move", goal.request.pose, goal.request.open_gripper))
        goal.succeed()
        return MoveToNamedPose.Result(code=MoveToNamedPose.Result.CODE_REACHED)

    def _run_episode(self, goal):
        self.log.append(("run", goal.request.task, goal.request.seed))
        self._step = 0
        result = RESULT(inference_p50_ms=3.0, inference_p95_ms=4.0, rate_hz=5.0)
        result.termination_reason = self.end_reason
        if self.faults:
            self.faults.pop(0)(self, result)
        if result.termination_reason != self.end_reason:
            goal.abort()
            return result
        while self._step < self.steps:
            time.sleep(STEP_S)
            self._step += 1
            self.control["accepted"] += self.accepts
            goal.publish_feedback(RunEpisode.Feedback(step=self._step))
            if goal.is_cancel_requested:
                self.log.append(("cancelled", self._step))
                result.termination_reason = RESULT.REASON_CANCELLED
                goal.canceled()
                break
        else:
            goal.succeed()
        result.steps = self._step
        return result

    def _set_task(self, _request, response):
        response.known_tasks = self.policy_tasks
        return response

    def _reset_scene(self, request, response):
        response.known_tasks = [*TASKS, "only_in_the_simulator"]
        response.success = request.task in response.known_tasks
        if response.success:
            self.log.append(("reset", request.task, request.seed))
            self._scene = (request.task, request.seed)
            self._scenes += 1
            self._success_since_s = None
            self._step = 0
        return response

    def _publish_counters(self):
        stamp = self.get_clock().now().to_msg()
        array = DiagnosticArray()
        array.header.stamp = stamp
        for name, counters in (
            ("wx250s/arm_controller: control", self.control),
            ("robot_sim: simulation", self.simulation),
        ):
            values = [KeyValue(key=key, value=str(value)) for key, value in counters.items()]
            array.status.append(DiagnosticStatus(name=name, values=values))
        self._diagnostics.publish(array)

    def _publish_status(self):
        now_s = self.get_clock().now().nanoseconds * 1e-9
        succeeds = self.succeed_at_step is not None and self._step >= self.succeed_at_step
        if succeeds and self._success_since_s is None:
            self._success_since_s = now_s
        message = TaskStatus(task=self._scene[0], seed=self._scene[1], episode=self._scenes)
        message.header.stamp = self.get_clock().now().to_msg()
        message.success = succeeds
        message.success_s = now_s - (self._success_since_s or now_s) if succeeds else 0.0
        self._status.publish(message)


@pytest.fixture
def graph(free_domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(free_domain))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    nodes = SpunNodes(free_domain)

    def start(**options):
        executor = MultiThreadedExecutor(num_threads=4, context=nodes.context)
        return nodes.add(StandIns(nodes.context, **options), executor)

    yield start
    nodes.close()


def start_runner(**parameters):
    arguments = []
    for name, value in {"ready_timeout_s": 10.0, "success_hold_s": 0.2, **parameters}.items():
        arguments += ["-p", f"{name}:={value}"]
    return subprocess.Popen(
        [sys.executable, "-m", "episode_tools.episode_runner", "--ros-args", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(runner, timeout_s=40):
    output, errors = runner.communicate(timeout=timeout_s)
    return runner.returncode, output, errors


def test_successful_episodes_are_cancelled_judged_and_reported(graph, tmp_path):
    node = graph(succeed_at_step=4)
    report = tmp_path / "report.json"
    code, output, errors = finish(start_runner(tasks="all", episodes=3, seed=5, report=report))
    assert code == 0, errors
    written = json.loads(report.read_text())
    assert written["complete"] and written["tasks"] == TASKS
    rows = written["episodes"]
    assert [row["task"] for row in rows] == [TASKS[0], TASKS[1], TASKS[0]]
    assert all(row["success"] and row["steps"] < node.steps for row in rows)
    # Order within an episode: arm to its start, then the scene, then the policy on that scene.
    for index, row in enumerate(rows):
        move, reset, run, cancelled = node.log[4 * index : 4 * index + 4]
        assert move == ("move", "start", True)
        assert reset == ("reset", row["task"], row["seed"])
        assert run == ("run", row["task"], row["seed"]) and cancelled[0] == "cancelled"
    assert output.count("success  steps") == 3 and "3/3" in output.splitlines()[-2]
    assert "3 trials say little" in output


def test_failed_episodes_run_to_the_horizon_and_still_exit_zero(graph, tmp_path):
    node = graph(succeed_at_step=None)
    report = tmp_path / "report.json"
    code, _, errors = finish(start_runner(tasks="open_drawer", episodes=2, report=report))
    assert code == 0, errors
    rows = json.loads(report.read_text())["episodes"]
    assert [row["success"] for row in rows] == [False, False]
    assert [row["termination"] for row in rows] == ["horizon", "horizon"]
    assert not any(entry[0] == "cancelled" for entry in node.log)


def test_a_fault_of_the_policy_ends_the_run_and_is_not_counted_as_a_failure(graph, tmp_path):
    node = graph(succeed_at_step=None)
    node.end_reason = RESULT.REASON_INFERENCE_FAILED
    report = tmp_path / "report.json"
    code, _, errors = finish(start_runner(tasks="open_drawer", episodes=2, report=report))
    assert code == 1 and "inference_failed" in errors
    written = json.loads(report.read_text())
    assert not written["complete"] and "inference_failed" in written["error"]
    assert written["summary"]["overall"]["trials"] == 0


def starve(_node, result):
    result.termination_reason = RESULT.REASON_STALE_CAMERA
    result.message = "the newest image is 1.2 s old"


def miss_ticks(_node, result):
    result.missed_ticks = 2


def lose_images(node, _result):
    node.simulation["images_skipped"] += 5


def fall_behind(node, _result):
    node.simulation["late_s"] += 0.4


def refuse_some(node, _result):
    node.control["refused_stale"] += 3
    node.control["last_refusal"] = "the observation is 0.7 s old"


def refuse_all(node, _result):
    node.control["refused_bad_step"] += 9
    node.control["refusing_s"] = 1.5
    node.accepts = False
    node.control["last_refusal"] = "step_s is 0.016, expected 0.02 .. 2 s"


def nothing(_node, _result):
    pass


@pytest.mark.parametrize("succeed_at_step", [8, None])
def test_spoiled_attempts_are_no_trials_and_are_repeated(graph, tmp_path, succeed_at_step):
    node = graph(succeed_at_step=succeed_at_step)
    node.faults = [starve, miss_ticks, nothing, lose_images, fall_behind, refuse_some]
    report = tmp_path / "report.json"
    code, output, errors = finish(
        start_runner(tasks="open_drawer", episodes=2, seed=7, report=report)
    )
    assert code == 0, errors
    written = json.loads(report.read_text())
    assert written["complete"] and written["summary"]["overall"]["trials"] == 2
    assert [row["attempt"] for row in written["episodes"]] == [3, 4]
    assert {row["success"] for row in written["episodes"]} == {succeed_at_step is not None}
    spoiled = written["spoiled_attempts"]
    causes = ["1.2 s old", "2 ticks", "5 camera images", "0.40 s behind", "stale 3"]
    for row, cause, attempt in zip(spoiled, causes, [1, 2, 1, 2, 3], strict=True):
        assert any(cause in text for text in row["spoiled_by"]) and row["attempt"] == attempt
        assert row["success"] is None
        assert f"attempt {attempt}: {row['spoiled_by'][0]}" in output
    # Every attempt at an episode is at the same scene.
    seeds = [row["seed"] for row in written["episodes"]]
    runs = [entry[2] for entry in node.log if entry[0] == "run"]
    assert runs == [seeds[0]] * 3 + [seeds[1]] * 4
    assert "5 of 7 attempts" in output


def test_an_episode_is_not_repeated_more_often_than_asked_for(graph, tmp_path):
    node = graph(succeed_at_step=None)
    node.steps = 5
    node.faults = [miss_ticks] * 3
    report = tmp_path / "report.json"
    code, _, errors = finish(
        start_runner(tasks="open_drawer", episodes=1, max_repeats=2, report=report)
    )
    assert code == 1 and "3 attempts (max_repeats is 2)" in errors and "2 ticks" in errors
    written = json.loads(report.read_text())
    assert not written["complete"] and len(written["spoiled_attempts"]) == 3
    # The same command goes on, and now it succeeds.
    code, _, errors = finish(
        start_runner(tasks="open_drawer", episodes=1, max_repeats=2, report=report)
    )
    assert code == 0, errors
    written = json.loads(report.read_text())
    assert written["complete"] and len(written["spoiled_attempts"]) == 3


def test_a_policy_whose_commands_are_all_refused_is_not_repeated_for_ever(graph, tmp_path):
    node = graph(succeed_at_step=None)
    node.faults = [refuse_all] * 10
    report = tmp_path / "report.json"
    code, _, errors = finish(
        start_runner(tasks="open_drawer", episodes=2, max_repeats=0, report=report)
    )
    assert code == 1 and "arm controller" in errors and "step_s is 0.016" in errors
    written = json.loads(report.read_text())
    assert written["summary"]["overall"]["trials"] == 0
    assert len(written["spoiled_attempts"]) == 3
    # Commands that are refused for a second end the attempt early.
    assert all(row["steps"] < node.steps for row in written["spoiled_attempts"])


def test_a_camera_that_is_dead_ends_the_run_without_many_repetitions(graph, tmp_path):
    node = graph(succeed_at_step=None)
    node.faults = [starve] * 10
    report = tmp_path / "report.json"
    code, _, errors = finish(
        start_runner(tasks="open_drawer", episodes=2, max_repeats=0, report=report)
    )
    assert code == 1 and "stale_camera" in errors and "1.2 s old" in errors
    assert len(json.loads(report.read_text())["spoiled_attempts"]) == 3


def test_an_interrupted_run_is_continued_by_the_same_command(graph, tmp_path):
    node = graph(succeed_at_step=3)
    report = tmp_path / "report.json"
    options = {"episodes": 4, "seed": 11, "report": report}
    runner = start_runner(**options)
    read_until(runner, runner.stdout, "episode 2/4")
    runner.send_signal(signal.SIGINT)
    code, _, errors = finish(runner)
    assert code == 130, errors
    written = json.loads(report.read_text())
    done = len(written["episodes"])
    assert 2 <= done < 4 and written["error"] == "interrupted" and not written["complete"]
    runs = [entry for entry in node.log if entry[0] == "run"]

    code, _, errors = finish(start_runner(**{**options, "seed": 12}))
    assert code == 1 and "seed is 11 there, 12 now" in errors
    assert json.loads(report.read_text()) == written

    code, output, errors = finish(start_runner(**options))
    assert code == 0, errors
    assert f"has {done} of 4 episodes" in output and f"running {4 - done} episode" in output
    continued = json.loads(report.read_text())
    assert continued["episodes"][:done] == written["episodes"] and continued["complete"]
    assert len(continued["episodes"]) == 4 and continued["created"] == written["created"]
    more = [entry for entry in node.log if entry[0] == "run"][len(runs) :]
    assert len(more) == 4 - done

    code, output, errors = finish(start_runner(**options))
    assert code == 0 and "running" not in output and "4/4" in output, errors
    assert len([entry for entry in node.log if entry[0] == "run"]) == len(runs) + len(more)


def test_a_policy_without_tasks_runs_under_those_of_the_scene(graph, tmp_path):
    node = graph(succeed_at_step=3)
    node.policy_tasks = []
    report = tmp_path / "report.json"
    code, _, errors = finish(start_runner(tasks="all", episodes=3, report=report))
    assert code == 0, errors
    rows = json.loads(report.read_text())["episodes"]
    assert [row["task"] for row in rows] == [*TASKS, "only_in_the_simulator"]
    assert [entry[1] for entry in node.log if entry[0] == "run"] == [row["task"] for row in rows]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"tasks": "open_draw"}, "Did you mean 'open_drawer'"),
        ({"tasks": "only_in_the_simulator"}, TASKS[0]),
        ({"episodes": 0}, "episodes"),
        ({"seed": 1000}, "seed"),
        ({"episode": 3}, 'did you mean "episodes"'),
        ({"report": "/"}, "directory"),
    ],
)
def test_bad_input_is_refused_before_anything_moves(graph, parameters, expected):
    node = graph(succeed_at_step=None)
    code, _, errors = finish(start_runner(**parameters))
    assert code == 1 and expected in errors and "Traceback" not in errors
    assert node.log == []


def test_a_missing_node_is_named(graph):
    code, _, errors = finish(start_runner(ready_timeout_s=0.5))
    assert code == 1 and "arm controller" in errors


def test_interrupt_cancels_the_episode(graph):
    node = graph(succeed_at_step=None)
    node.steps = 10_000
    runner = start_runner(tasks="open_drawer")
    deadline_s = time.monotonic() + 20
    while not any(entry[0] == "run" for entry in node.log):
        assert time.monotonic() < deadline_s and runner.poll() is None
        time.sleep(0.02)
    runner.send_signal(signal.SIGINT)
    code, _, errors = finish(runner)
    assert code == 130 and "Traceback" not in errors
    assert node.log[-1][0] == "cancelled"


def test_on_a_real_arm_the_operator_judges(graph, tmp_path):
    node = graph(succeed_at_step=None, simulated=False)
    node.steps = 3
    report = tmp_path / "report.json"
    runner = start_runner(
        tasks="open_drawer", episodes=2, simulated=False, ask_operator=True, report=report
    )
    client = node.create_client(SetBool, "/episode_runner/judge_episode")
    assert client.wait_for_service(timeout_sec=20)
    for verdict in (True, False):
        read_until(runner, runner.stdout, "judge_episode")
        client.call(SetBool.Request(data=verdict))
    code, _, errors = finish(runner)
    assert code == 0, errors
    rows = json.loads(report.read_text())["episodes"]
    assert [row["success"] for row in rows] == [True, False]
