"""Node that runs a policy for a number of episodes, judges them, and reports.

For each episode it moves the arm to the start pose with the gripper open, sets up the simulated
scene, runs the policy, judges the result, and prints a line. An attempt that was spoiled by the
computer or the arm controller is no trial, and is repeated. All decisions are in `episode_plan`,
`attempt_health`, `success_judge` and `report`; this module only talks to the other nodes.
"""

from __future__ import annotations

import datetime
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from node_common.cpu_load import CpuLoad
from node_common.declared_parameters import declare_parameters
from node_common.diagnostics import ERROR, OK, WARN, Diagnostics
from node_common.parameters import NodeParameter, ParameterError
from policy_interfaces.action import MoveToNamedPose, RunEpisode
from policy_interfaces.msg import PolicyStatus, TaskStatus
from policy_interfaces.srv import ResetScene, SetTask
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool

from episode_tools.attempt_health import AttemptHealth
from episode_tools.episode_plan import (
    MAX_EVALUATION_SEED,
    PlanError,
    PlannedEpisode,
    plan_episodes,
    runnable_tasks,
    select_tasks,
)
from episode_tools.report import (
    EpisodeRecord,
    Report,
    ReportError,
    bundle_identity,
    closing_table,
    continue_report,
    episode_line,
    prepare_report_path,
    software_versions,
    spoiled_line,
)
from episode_tools.success_judge import SuccessJudge, TaskObservation

_NEW_SCENE_AGE_S = 0.1
"""A scene is used once the simulator has judged it for this long: the camera (30 Hz) has then sent
several images of it, so the policy does not act on one of the scene before."""

_POLL_S = 0.05
_ASK_AGAIN_S = 2.0
_LASTING_ATTEMPTS = 3
"""So many attempts in a row that failed for a cause which load does not explain end the run."""

_SPOILED_S = 1.0
"""An attempt goes on for so long after it was spoiled, so that its counters show the cause [s]."""

_COUNTERS_TIMEOUT_S = 3.0
"""How long to wait after an episode for the counters of the other nodes; they come every second."""

_CALM_S = 1.0
_CALM_TIMEOUT_S = 10.0
"""How long to wait before a repetition for a time `_CALM_S` in which nothing came late [s]."""

_IMAGE_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_EPISODE_REASONS = {
    getattr(RunEpisode.Result, name): name.removeprefix("REASON_").lower()
    for name in dir(RunEpisode.Result)
    if name.startswith("REASON_")
}
_POLICY_FINISHED = (RunEpisode.Result.REASON_HORIZON, RunEpisode.Result.REASON_CANCELLED)
_POLICY_STARVED = (RunEpisode.Result.REASON_STALE_CAMERA, RunEpisode.Result.REASON_STALE_STATE)


class RunnerError(RuntimeError):
    """The run cannot go on; the message says why and what to do."""


class Interrupted(Exception):
    """The user asked the run to stop."""


_PARAMETERS = (
    NodeParameter("tasks", "all", "Task names separated by commas, or 'all'."),
    NodeParameter("episodes", 5, "Episodes in all, dealt to the tasks in turn.", 1, 1_000_000),
    NodeParameter("seed", 0, "Evaluation seed; decides every scene.", 0, MAX_EVALUATION_SEED),
    NodeParameter(
        "max_steps", 0, "Policy steps per episode; 0: the horizon of the policy.", 0, 100_000
    ),
    NodeParameter("simulated", True, "The scene is simulated: set it up and ask for its verdict."),
    NodeParameter(
        "ask_operator",
        False,
        "Without a simulator: wait after each episode for a call of ~/judge_episode.",
    ),
    NodeParameter("arm_namespace", "/wx250s", "Namespace of the arm controller."),
    NodeParameter("policy_node", "/policy_node", "Full name of the policy node."),
    NodeParameter("simulator_node", "/robot_sim", "Where the simulator's task interface is."),
    NodeParameter(
        "camera_topic",
        "",
        "Images that must be there before the arm moves, compressed where it ends in /compressed; "
        "empty: do not look.",
    ),
    NodeParameter("start_pose", "start", "Named pose of the arm at the start of an episode."),
    NodeParameter(
        "max_repeats",
        10,
        "How often an episode that the computer or the arm controller spoiled is repeated; "
        "0: as often as it takes.",
        0,
        1_000_000,
    ),
    NodeParameter(
        "success_hold_s",
        0.6,
        "How long the success condition must hold without a break [s].",
        0.0,
        60.0,
    ),
    NodeParameter(
        "settle_s", 0.4, "Time after an episode for the scene to come to rest [s].", 0.0, 60.0
    ),
    NodeParameter("ready_timeout_s", 60.0, "How long to wait for the other nodes [s].", 0.1, 3600),
    NodeParameter(
        "silence_timeout_s",
        10.0,
        "How long a node that works for us may say nothing [s].",
        0.1,
        3600,
    ),
    NodeParameter("report", "", "Path of the JSON report, continued if it is there; empty: none."),
    NodeParameter("model", "", "Bundle directory, named in the report."),
    NodeParameter("policy", "", "What drives the arm, named in the report: e.g. ptr, random."),
    NodeParameter("rtf", 1.0, "Real-time factor of the simulation, for the report.", 0.01, 100.0),
    NodeParameter("command_line", "", "Command that started the run, for the report."),
    NodeParameter(
        "launch_arguments",
        "{}",
        "Launch arguments that decide the result, as a JSON object, for the report.",
    ),
)


class EpisodeRunner(Node):
    """Runs episodes; `run` is called from the main thread, which also spins the node.

    Raises:
        RunnerError: a parameter is unknown, of the wrong type or out of range.
    """

    def __init__(self) -> None:
        super().__init__("episode_runner")
        self._spinner = SingleThreadedExecutor()
        self._spinner.add_node(self)
        self._stop_requested = False
        self._values = self._declare_parameters()

        arm = str(self._values["arm_namespace"]).rstrip("/")
        policy = str(self._values["policy_node"]).rstrip("/")
        simulator = str(self._values["simulator_node"]).rstrip("/")
        self._move_client: ActionClient = ActionClient(
            self, MoveToNamedPose, f"{arm}/move_to_named_pose"
        )
        self._episode_client: ActionClient = ActionClient(self, RunEpisode, f"{policy}/run_episode")
        self._set_task_client: Client = self.create_client(SetTask, f"{policy}/set_task")
        self._diagnostics = Diagnostics(self, "episodes", name="episode_runner")
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self.create_subscription(PolicyStatus, f"{policy}/status", self._on_policy_status, 10)
        self._health = AttemptHealth(real_time=not self.get_parameter("use_sim_time").value)
        self._counting_nodes = {
            f"{arm.lstrip('/')}/arm_controller: control": "control",
            f"{simulator.lstrip('/')}: simulation": "simulation",
        }
        self._load = CpuLoad()
        self._lasting = False
        self._observation_ages_ms: list[float] = []
        self._missed_ticks = 0
        self._missed_before = 0
        self._spoiled_since_s = math.inf
        self.create_timer(1.0, self._publish_progress)

        self._judge: SuccessJudge | None = None
        self._scene = 0
        self._answer: bool | None = None
        self._heard_s = time.monotonic()
        self._step = 0
        self._planned: list[PlannedEpisode] = []
        self._current: PlannedEpisode | None = None
        self._report = Report(context={})
        self._report_path = (
            Path(self._values["report"]).expanduser() if self._values["report"] else None
        )
        if self._values["simulated"]:
            self._reset_client: Client = self.create_client(ResetScene, f"{simulator}/reset_scene")
            self.create_subscription(
                TaskStatus, f"{simulator}/task_status", self._on_task_status, 10
            )
        elif self._values["ask_operator"]:
            self.create_service(SetBool, "~/judge_episode", self._on_judge_episode)

    def _declare_parameters(self) -> dict[str, Any]:
        values = declare_parameters(self, _PARAMETERS, read_only=True)
        try:
            values["launch_arguments"] = dict(json.loads(values["launch_arguments"]))
        except (ValueError, TypeError) as error:
            raise RunnerError(f"parameter 'launch_arguments' is no JSON object: {error}") from error
        return values

    def request_stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Ask `run` to stop at the next chance (safe in a signal handler)."""
        self._stop_requested = True

    def run(self) -> None:
        """Run all episodes, print their lines and the closing table, and write the report.

        Raises:
            RunnerError: another node is missing, refused, failed or fell silent.
            PlanError: unknown task or a bad number.
            ReportError: the report cannot be written.
            Interrupted: `request_stop` was called.
        """
        if self._report_path:
            prepare_report_path(self._report_path)
        tasks = select_tasks(self._values["tasks"], self._known_tasks())
        self._planned = plan_episodes(tasks, self._values["episodes"], self._values["seed"])
        context = self._report_context(tasks)
        self._report = Report(context=context)
        if self._report_path:
            self._report = continue_report(self._report_path, context, self._planned)
        done, total = len(self._report.episodes), len(self._planned)
        if done:
            self._say(f"{self._report_path} has {done} of {total} episodes: going on with it")
        if self._values["camera_topic"]:
            self._wait_for_camera(self._values["camera_topic"])
        run_now = list(dict.fromkeys(planned.task for planned in self._planned[done:]))
        if run_now:
            number = total - done
            rtf = self._values["rtf"]
            pace = f", at {rtf:g} times real time" if rtf != 1.0 else ""
            self._say(f"running {number} episode{'s' * (number > 1)} of {', '.join(run_now)}{pace}")
        try:
            for planned in self._planned[done:]:
                self._current = planned
                record = self._run_until_trial(planned)
                self._report.episodes.append(record)
                self._say(episode_line(len(self._report.episodes), total, record))
                self._write_report()
                self._publish_progress()
            self._report.complete = True
        except (RunnerError, Interrupted) as error:
            self._report.error = str(error) or "interrupted"
            if self._report_path:
                self._say(
                    f"{len(self._report.episodes)} of {total} episodes are in {self._report_path}; "
                    "the same command goes on with them"
                )
            raise
        finally:
            if self._report.episodes:
                for line in closing_table(self._report):
                    self._say(line)
            self._write_report()

    # --- one episode -----------------------------------------------------------------------------

    def _run_until_trial(self, planned: PlannedEpisode) -> EpisodeRecord:
        """Repeat an episode until an attempt at it is a trial."""
        limit = self._values["max_repeats"]
        attempt = lasting = 0
        while True:
            attempt += 1
            record = self._run_attempt(planned, attempt)
            if not record.spoiled_by:
                return record
            self._report.spoiled.append(record)
            self._say(spoiled_line(len(self._report.episodes) + 1, len(self._planned), record))
            self._write_report()
            self._publish_progress()
            cause = "; ".join(record.spoiled_by)
            lasting = lasting + 1 if self._lasting else 0
            if lasting == _LASTING_ATTEMPTS:
                raise RunnerError(
                    f"no trial in {lasting} attempts in a row, and repeating does not help: {cause}"
                )
            if limit and attempt > limit:
                raise RunnerError(
                    f"no trial in {attempt} attempts (max_repeats is {limit}): {cause}. "
                    + self._advice()
                )
            self._prepare_repetition()

    def _run_attempt(self, planned: PlannedEpisode, attempt: int) -> EpisodeRecord:
        self._health.begin()
        self._lasting = False
        result = RunEpisode.Result(termination_reason=RunEpisode.Result.REASON_NONE)
        for name in ("rate_hz", "inference_p50_ms", "inference_p95_ms", "inference_p99_ms"):
            setattr(result, name, math.nan)
        spoiled_by = list(self._move_to_start())
        started_s: float | None = None
        factor = math.nan
        if not spoiled_by:
            if self._values["simulated"]:
                self._set_up_scene(planned)
            started_s = self._judge.last_time_s if self._judge else None
            start = (self._now_s(), time.monotonic())
            result = self._run_policy(planned)
            factor = (self._now_s() - start[0]) / (time.monotonic() - start[1])
            self._end_judgement()
            spoiled_by = self._spoiled_by(result)
        if spoiled_by and self._load.busy and not self._lasting:
            spoiled_by.append(f"the computer is busy: {self._load.figures}")
        # Only now does anybody look at whether it succeeded.
        success = None if spoiled_by else self._verdict(result)
        since_s = self._judge.sustained_since_s if self._judge and success else None
        return EpisodeRecord(
            task=planned.task,
            trial=planned.trial,
            seed=planned.seed,
            success=success,
            success_time_s=None if since_s is None or started_s is None else since_s - started_s,
            termination=_EPISODE_REASONS.get(result.termination_reason, "unknown"),
            steps=result.steps,
            missed_ticks=result.missed_ticks,
            duration_s=result.duration_s,
            rate_hz=result.rate_hz,
            inference_p50_ms=result.inference_p50_ms,
            inference_p95_ms=result.inference_p95_ms,
            inference_p99_ms=result.inference_p99_ms,
            attempt=attempt,
            spoiled_by=tuple(spoiled_by),
            counters=self._health.counters,
            observation_age_p50_ms=float(np.median(self._observation_ages_ms or [math.nan])),
            observation_age_max_ms=max(self._observation_ages_ms, default=math.nan),
            real_time_factor=factor,
            cpu_percent=self._load.cpu_percent,
        )

    def _spoiled_by(self, result: RunEpisode.Result) -> list[str]:
        """Why the attempt that just ended is no trial; empty: it is one."""
        ended_s = self._now_s()
        deadline_s = time.monotonic() + _COUNTERS_TIMEOUT_S
        while not self._health.is_current(ended_s) and time.monotonic() < deadline_s:
            self._spin_once()
        reasons = list(self._health.reasons(result.missed_ticks))
        if not self._health.is_current(ended_s):
            reasons.append(f"a node has not published its counters for {_COUNTERS_TIMEOUT_S:g} s")
        self._lasting = self._health.is_lasting
        if self._spoiled_since_s < math.inf and not reasons:
            reasons.append("it was given up because of a missed tick or a refused command")
        name = _EPISODE_REASONS.get(result.termination_reason, "unknown")
        ended = f"the policy node ended the episode ({name}): {result.message}"
        if result.termination_reason in _POLICY_STARVED:
            reasons.insert(0, ended)
            # Not one image or state in all the time that the policy node waits: that is no load.
            self._lasting = self._lasting or result.steps == 0
        elif result.termination_reason == RunEpisode.Result.REASON_BUSY:
            reasons.insert(0, ended)
            self._lasting = True
        elif result.termination_reason not in _POLICY_FINISHED:
            raise RunnerError(ended)
        return reasons

    def _advice(self) -> str:
        advice = "End other programs"
        if self._values["simulated"]:
            advice += ", or let the simulation wait for the computer (real_time:=false, rtf:=0.5)"
        advice += ", or repeat without limit (max_repeats:=0)"
        if self._report_path:
            advice += ". The same command goes on with this report; another pace needs a new one"
        return f"{advice}. {self._load.figures}"

    def _prepare_repetition(self) -> None:
        """Let a hiccup pass; where it lasts, go on after a while all the same."""
        if self._values["ask_operator"]:
            self._ask_operator("The episode is repeated. Put the scene in order, then:")
        deadline_s = time.monotonic() + _CALM_TIMEOUT_S
        while time.monotonic() < deadline_s:
            calm_since_s = self._now_s()
            self._health.begin()
            while not self._health.reasons(0) and time.monotonic() < deadline_s:
                if self._health.is_current(calm_since_s + _CALM_S):
                    return
                self._spin_once()

    def _move_to_start(self) -> list[str]:
        """Move the arm; why that was spoiled by something that may pass, or nothing."""
        goal = MoveToNamedPose.Goal(pose=self._values["start_pose"], open_gripper=True)
        result = self._run_goal(self._move_client, goal, "the arm controller")
        if result.code == MoveToNamedPose.Result.CODE_REACHED:
            return []
        failure = (
            f"the arm did not reach its pose '{goal.pose}' (code {result.code}): {result.message}"
        )
        if result.code == MoveToNamedPose.Result.CODE_STALE_JOINT_STATES:
            return [failure]
        if result.code == MoveToNamedPose.Result.CODE_TIMEOUT and self._health.reasons(0):
            return [failure, *self._health.reasons(0)]
        raise RunnerError(failure)

    def _set_up_scene(self, planned: PlannedEpisode) -> None:
        judge = SuccessJudge(
            planned.task, planned.seed, self._scene, self._values["success_hold_s"]
        )
        self._judge = judge
        request = ResetScene.Request(task=planned.task, seed=planned.seed)
        response = self._call(self._reset_client, request, "the simulator")
        if not response.success:
            raise RunnerError(f"the simulator refused the scene: {response.message}")
        self._wait_until(
            lambda: judge.scene_age_s >= _NEW_SCENE_AGE_S,
            self._values["silence_timeout_s"],
            "the simulator set up a scene but sends no task status about it",
        )

    def _run_policy(self, planned: PlannedEpisode) -> RunEpisode.Result:
        goal = RunEpisode.Goal(
            task=planned.task, max_steps=self._values["max_steps"], seed=planned.seed
        )
        self._step = 0
        self._observation_ages_ms.clear()
        self._missed_before = self._missed_ticks
        self._spoiled_since_s = math.inf
        judge = self._judge
        return self._run_goal(
            self._episode_client,
            goal,
            "the policy node",
            feedback=self._on_episode_feedback,
            finished=lambda: (judge is not None and judge.sustained) or self._is_spoiled(),
        )

    def _is_spoiled(self) -> bool:
        """Whether nothing is gained by going on: it is known to be no trial, for a while now."""
        now_s = time.monotonic()
        missed = self._missed_ticks - self._missed_before
        if self._spoiled_since_s == math.inf and self._health.reasons(missed):
            self._spoiled_since_s = now_s
        return self._health.refused_for_a_second or now_s - self._spoiled_since_s > _SPOILED_S

    def _end_judgement(self) -> None:
        """Judge the scene as it is a little after the policy has stopped, and not later."""
        judge = self._judge
        if judge is not None:
            hold_s = 0.0 if judge.sustained else self._values["success_hold_s"]
            judge.end((judge.last_time_s or 0.0) + self._values["settle_s"] + hold_s)

    def _verdict(self, result: RunEpisode.Result) -> bool | None:
        """Success of the episode that just ended; None: nobody knows."""
        judge = self._judge
        if judge is not None:
            self._wait_until(
                lambda: judge.ended,
                self._values["silence_timeout_s"],
                "the simulator stopped sending task status",
            )
            return judge.success
        if not self._values["ask_operator"]:
            return None
        return self._ask_operator(
            f"the policy took {result.steps} steps. Did it succeed? Put the scene in order, then:"
        )

    def _ask_operator(self, question: str) -> bool | None:
        self._answer = None
        self._say(
            f"{question} ros2 service call {self.get_fully_qualified_name()}/judge_episode "
            'std_srvs/srv/SetBool "{data: true}"'
        )
        self._wait_until(lambda: self._answer is not None, math.inf, "")
        return self._answer

    # --- the other nodes -------------------------------------------------------------------------

    def _known_tasks(self) -> list[str] | None:
        """Tasks that can be run, see `runnable_tasks`."""
        for client, node in (
            (self._move_client, f"arm controller in {self._values['arm_namespace']}"),
            (self._episode_client, f"policy node {self._values['policy_node']}"),
        ):
            self._wait_until(
                client.server_is_ready,
                self._values["ready_timeout_s"],
                f"no action server of the {node}: is the node running and active?",
            )
        # An empty name is no task: both answer with the names that they know and change nothing.
        policy_tasks = self._call(
            self._set_task_client, SetTask.Request(task=""), "the policy node", is_question=True
        ).known_tasks
        if not self._values["simulated"]:
            return runnable_tasks(policy_tasks, None)
        scene_tasks = self._call(
            self._reset_client, ResetScene.Request(task=""), "the simulator", is_question=True
        ).known_tasks
        return runnable_tasks(policy_tasks, scene_tasks)

    def _wait_for_camera(self, topic: str) -> None:
        received: list[Any] = []
        kind = CompressedImage if topic.endswith("/compressed") else Image
        subscription = self.create_subscription(kind, topic, received.append, _IMAGE_QOS)
        self._wait_until(
            lambda: bool(received),
            self._values["silence_timeout_s"],
            f"no image on {topic}: is the camera running, and is this its topic?",
        )
        self.destroy_subscription(subscription)

    def _call(self, client: Client, request: Any, who: str, is_question: bool = False) -> Any:
        """Call a service.

        One that has not discovered this client yet drops its answer, so the first request is a
        question, which is asked again and changes nothing.
        """
        self._wait_until(
            client.service_is_ready,
            self._values["ready_timeout_s"],
            f"{who} does not offer the service {client.srv_name}: is the node running?",
        )
        futures = [client.call_async(request)]
        asked_s = time.monotonic()

        def answered() -> bool:
            nonlocal asked_s
            if is_question and time.monotonic() - asked_s > _ASK_AGAIN_S:
                asked_s = time.monotonic()
                futures.append(client.call_async(request))
            return any(future.done() for future in futures)

        self._wait_until(
            answered,
            self._values["ready_timeout_s"],
            f"{who} does not answer on {client.srv_name}",
        )
        return next(future for future in futures if future.done()).result()

    def _run_goal(
        self,
        client: ActionClient,
        goal: Any,
        who: str,
        feedback: Callable[[Any], None] | None = None,
        finished: Callable[[], bool] | None = None,
    ) -> Any:
        """Run an action to its end; cancel it when `finished` says so or when the run stops."""
        sent = client.send_goal_async(goal, feedback_callback=feedback or self._on_move_feedback)
        self._wait_until(
            sent.done, self._values["silence_timeout_s"], f"{who} does not answer to a goal"
        )
        handle = sent.result()
        if handle is None or not handle.accepted:
            raise RunnerError(f"{who} rejected the goal: is it active, and not already busy?")
        result: Future = handle.get_result_async()
        self._heard_s = time.monotonic()
        cancelled = False
        with self._cancel_on_error(handle, result):
            while not result.done():
                self._spin_once()
                if finished and not cancelled and finished():
                    handle.cancel_goal_async()
                    cancelled = True
                if time.monotonic() - self._heard_s > self._values["silence_timeout_s"]:
                    raise RunnerError(
                        f"{who} has said nothing for {self._values['silence_timeout_s']:g} s "
                        "while it worked on a goal"
                    )
        finished_goal = result.result()
        assert finished_goal is not None
        return finished_goal.result

    @contextmanager
    def _cancel_on_error(self, handle: ClientGoalHandle, result: Future) -> Iterator[None]:
        try:
            yield
        except (RunnerError, Interrupted):
            handle.cancel_goal_async()
            deadline_s = time.monotonic() + 1.0
            while not result.done() and time.monotonic() < deadline_s:
                self._spinner.spin_once(timeout_sec=_POLL_S)
            raise

    def _wait_until(self, condition: Callable[[], bool], timeout_s: float, failure: str) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise RunnerError(f"{failure} (waited {timeout_s:g} s)")
            self._spin_once()

    def _spin_once(self) -> None:
        if self._stop_requested:
            raise Interrupted
        self._spinner.spin_once(timeout_sec=_POLL_S)

    # --- callbacks -------------------------------------------------------------------------------

    def _now_s(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        stamp_s = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        for status in message.status:
            source = self._counting_nodes.get(status.name)
            if source is not None:
                values = {value.key: value.value for value in status.values}
                self._health.update(source, values, stamp_s)

    def _on_policy_status(self, message: PolicyStatus) -> None:
        self._missed_ticks = message.missed_ticks

    def _on_task_status(self, message: TaskStatus) -> None:
        if self._judge is not None:
            self._judge.update(
                TaskObservation(
                    time_s=message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec,
                    task=message.task,
                    seed=message.seed,
                    scene=message.episode,
                    success=message.success,
                    success_s=message.success_s,
                )
            )
        self._scene = message.episode

    def _on_judge_episode(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        self._answer = bool(request.data)
        response.success = True
        return response

    def _on_move_feedback(self, _message: Any) -> None:
        self._heard_s = time.monotonic()

    def _on_episode_feedback(self, message: Any) -> None:
        self._heard_s = time.monotonic()
        self._step = message.feedback.step
        self._observation_ages_ms.append(message.feedback.observation_age_ms)

    # --- output ----------------------------------------------------------------------------------

    def _say(self, line: str) -> None:
        print(line, flush=True)

    def _write_report(self) -> None:
        if self._report_path:
            self._report.write(self._report_path)

    def _report_context(self, tasks: list[str]) -> dict[str, Any]:
        parameters = self._values
        return {
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": parameters["command_line"] or " ".join(sys.argv),
            "policy": parameters["policy"],
            "model": bundle_identity(parameters["model"]),
            "simulated": parameters["simulated"],
            "rtf": parameters["rtf"],
            "simulated_clock": self.get_parameter("use_sim_time").value,
            "seed": parameters["seed"],
            "tasks": tasks,
            "episodes_planned": len(self._planned),
            "max_steps": parameters["max_steps"],
            "success_hold_s": parameters["success_hold_s"],
            "settle_s": parameters["settle_s"],
            "max_repeats": parameters["max_repeats"],
            "launch_arguments": parameters["launch_arguments"],
            "versions": software_versions(),
        }

    def _publish_progress(self) -> None:
        self._load.sample()
        rate = self._report.overall()
        current = self._current
        values = {
            "task": current.task if current else "",
            "seed": current.seed if current else "",
            "step": self._step,
            "episodes_done": len(self._report.episodes),
            "episodes": len(self._planned),
            "successes": rate.successes,
            "trials": rate.trials,
            "spoiled_attempts": len(self._report.spoiled),
            "cpu_percent": f"{self._load.cpu_percent:.0f}",
        }
        level, text = OK, "running"
        if self._report.error:
            level, text = ERROR, self._report.error
        elif self._load.busy:
            level, text = WARN, f"running{self._load.note}"
        self._diagnostics.publish(level, text, values)


def main(args: list[str] | None = None) -> int:
    """Run the node; exit status 0 when all episodes were run, 1 on an error, 130 when stopped."""
    # rclpy's own handlers would end the context at once: no goal could be cancelled any more.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        runner = EpisodeRunner()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, runner.request_stop)
        try:
            runner.run()
        finally:
            runner.destroy_node()
    except (ParameterError, RunnerError, PlanError, ReportError) as error:
        print(f"episode_runner: {error}", file=sys.stderr, flush=True)
        return 1
    except Interrupted:
        print("episode_runner: stopped", file=sys.stderr, flush=True)
        return 130
    finally:
        rclpy.try_shutdown()
        # A launch passes on the interruption that the terminal has sent already.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
