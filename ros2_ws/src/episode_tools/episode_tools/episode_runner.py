"""Node that runs a policy for a number of episodes, judges them, and reports.

For each episode it moves the arm to the start pose with the gripper open, sets up the simulated
scene, runs the policy, judges the result, and prints a line. All decisions are in `episode_plan`,
`success_judge` and `report`; this module only talks to the other nodes.
"""

from __future__ import annotations

import datetime
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from policy_interfaces.action import MoveToNamedPose, RunEpisode
from policy_interfaces.msg import TaskStatus
from policy_interfaces.srv import ResetScene, SetTask
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.client import Client
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from episode_tools.episode_plan import (
    MAX_EVALUATION_SEED,
    PlanError,
    PlannedEpisode,
    plan_episodes,
    select_tasks,
    unknown_name_message,
)
from episode_tools.report import (
    EpisodeRecord,
    Report,
    ReportError,
    bundle_identity,
    closing_table,
    episode_line,
    prepare_report_path,
    software_versions,
)
from episode_tools.success_judge import SuccessJudge, TaskObservation

_NEW_SCENE_AGE_S = 0.1
"""A scene is used once the simulator has judged it for this long: the camera (30 Hz) has then sent
several images of it, so the policy does not act on one of the scene before."""

_POLL_S = 0.05
_MOVE_ATTEMPTS = 3
"""A move that ended because joint states paused is asked for again: the arm holds meanwhile."""
_IMAGE_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_EPISODE_REASONS = {
    getattr(RunEpisode.Result, name): name.removeprefix("REASON_").lower()
    for name in dir(RunEpisode.Result)
    if name.startswith("REASON_")
}
_POLICY_FINISHED = (RunEpisode.Result.REASON_HORIZON, RunEpisode.Result.REASON_CANCELLED)


class RunnerError(RuntimeError):
    """The run cannot go on; the message says why and what to do."""


class Interrupted(Exception):
    """The user asked the run to stop."""


@dataclass(frozen=True)
class _ParameterSpec:
    default: Any
    description: str
    low: float | None = None
    high: float | None = None


_PARAMETERS = {
    "tasks": _ParameterSpec("all", "Task names separated by commas, or 'all'."),
    "episodes": _ParameterSpec(5, "Episodes in all, dealt to the tasks in turn.", 1, 1_000_000),
    "seed": _ParameterSpec(0, "Evaluation seed; decides every scene.", 0, MAX_EVALUATION_SEED),
    "max_steps": _ParameterSpec(
        0, "Policy steps per episode; 0: the horizon of the policy.", 0, 100_000
    ),
    "simulated": _ParameterSpec(True, "The scene is simulated: set it up and ask for its verdict."),
    "ask_operator": _ParameterSpec(
        False, "Without a simulator: wait after each episode for a call of ~/judge_episode."
    ),
    "arm_namespace": _ParameterSpec("/wx250s", "Namespace of the arm controller."),
    "policy_node": _ParameterSpec("/policy_node", "Full name of the policy node."),
    "simulator_node": _ParameterSpec("/robot_sim", "Where the simulator's task interface is."),
    "camera_topic": _ParameterSpec(
        "", "Images that must be there before the arm moves; empty: do not look."
    ),
    "start_pose": _ParameterSpec("start", "Named pose of the arm at the start of an episode."),
    "success_hold_s": _ParameterSpec(
        0.6, "How long the success condition must hold without a break [s].", 0.0, 60.0
    ),
    "settle_s": _ParameterSpec(
        0.4, "Time after an episode for the scene to come to rest [s].", 0.0, 60.0
    ),
    "ready_timeout_s": _ParameterSpec(60.0, "How long to wait for the other nodes [s].", 0.1, 3600),
    "silence_timeout_s": _ParameterSpec(
        10.0, "How long a node that works for us may say nothing [s].", 0.1, 3600
    ),
    "report": _ParameterSpec("", "Path of the JSON report; empty: none."),
    "model": _ParameterSpec("", "Bundle directory, named in the report."),
    "policy": _ParameterSpec("", "What drives the arm, named in the report: e.g. ptr, random."),
    "rtf": _ParameterSpec(1.0, "Real-time factor of the simulation, for the report.", 0.01, 100.0),
    "command_line": _ParameterSpec("", "Command that started the run, for the report."),
}


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
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
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
        for name in self._parameter_overrides:
            if name not in _PARAMETERS and name != "use_sim_time":
                raise RunnerError(unknown_name_message("parameter", name, sorted(_PARAMETERS)))
        values = {}
        for name, spec in _PARAMETERS.items():
            descriptor = ParameterDescriptor(description=spec.description, read_only=True)
            if spec.low is not None and spec.high is not None:
                if isinstance(spec.default, float):
                    descriptor.floating_point_range = [
                        FloatingPointRange(from_value=float(spec.low), to_value=float(spec.high))
                    ]
                else:
                    descriptor.integer_range = [
                        IntegerRange(from_value=int(spec.low), to_value=int(spec.high))
                    ]
            try:
                values[name] = self.declare_parameter(name, spec.default, descriptor).value
            except (InvalidParameterTypeException, InvalidParameterValueException) as error:
                limits = "" if spec.low is None else f" in {spec.low}..{spec.high}"
                raise RunnerError(
                    f"parameter '{name}' must be {type(spec.default).__name__}{limits}: {error}"
                ) from error
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
        known = self._known_tasks()
        tasks = select_tasks(self._values["tasks"], known)
        self._planned = plan_episodes(tasks, self._values["episodes"], self._values["seed"])
        tasks = list(dict.fromkeys(planned.task for planned in self._planned))
        self._report = Report(context=self._report_context(tasks))
        total = len(self._planned)
        if self._values["camera_topic"]:
            self._wait_for_camera(self._values["camera_topic"])
        self._say(f"running {total} episode{'s' * (total > 1)} of {', '.join(tasks)}")
        try:
            for number, planned in enumerate(self._planned, start=1):
                self._current = planned
                record = self._run_episode(planned)
                self._report.episodes.append(record)
                self._say(episode_line(number, total, record))
                self._write_report()
                self._publish_progress()
            self._report.complete = True
        except (RunnerError, Interrupted) as error:
            self._report.error = str(error) or "interrupted"
            raise
        finally:
            if self._report.episodes:
                for line in closing_table(self._report):
                    self._say(line)
            self._write_report()

    # --- one episode -----------------------------------------------------------------------------

    def _run_episode(self, planned: PlannedEpisode) -> EpisodeRecord:
        self._move_to_start()
        if self._values["simulated"]:
            self._set_up_scene(planned)
        started_s = self._judge.last_time_s if self._judge else None
        result = self._run_policy(planned)
        if result.termination_reason not in _POLICY_FINISHED:
            reason = _EPISODE_REASONS.get(result.termination_reason, "unknown")
            raise RunnerError(f"the policy node ended the episode ({reason}): {result.message}")
        success = self._verdict(result)
        since_s = self._judge.sustained_since_s if self._judge and success else None
        return EpisodeRecord(
            task=planned.task,
            trial=planned.trial,
            seed=planned.seed,
            success=success,
            success_time_s=None if since_s is None or started_s is None else since_s - started_s,
            termination=_EPISODE_REASONS[result.termination_reason],
            steps=result.steps,
            missed_ticks=result.missed_ticks,
            duration_s=result.duration_s,
            rate_hz=result.rate_hz,
            inference_p50_ms=result.inference_p50_ms,
            inference_p95_ms=result.inference_p95_ms,
            inference_p99_ms=result.inference_p99_ms,
        )

    def _move_to_start(self) -> None:
        goal = MoveToNamedPose.Goal(pose=self._values["start_pose"], open_gripper=True)
        for _ in range(_MOVE_ATTEMPTS):
            result = self._run_goal(self._move_client, goal, "the arm controller")
            if result.code == MoveToNamedPose.Result.CODE_REACHED:
                return
            if result.code != MoveToNamedPose.Result.CODE_STALE_JOINT_STATES:
                break
        raise RunnerError(
            f"the arm did not reach its pose '{goal.pose}' (code {result.code}): {result.message}"
        )

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
        judge = self._judge
        return self._run_goal(
            self._episode_client,
            goal,
            "the policy node",
            feedback=self._on_episode_feedback,
            finished=(lambda: judge.sustained) if judge else None,
        )

    def _verdict(self, result: RunEpisode.Result) -> bool | None:
        """Success of the episode that just ended; None: nobody knows."""
        judge = self._judge
        if judge is not None:
            ended_s = judge.last_time_s or 0.0
            wait_s = self._values["settle_s"]
            if not judge.sustained:
                wait_s += self._values["success_hold_s"]
            self._wait_until(
                lambda: (judge.last_time_s or 0.0) >= ended_s + wait_s,
                self._values["silence_timeout_s"] + wait_s,
                "the simulator stopped sending task status",
            )
            return judge.success
        if not self._values["ask_operator"]:
            return None
        self._answer = None
        self._say(
            f"the policy took {result.steps} steps. Did it succeed? Put the scene in order, then: "
            f"ros2 service call {self.get_fully_qualified_name()}/judge_episode "
            'std_srvs/srv/SetBool "{data: true}"'
        )
        self._wait_until(lambda: self._answer is not None, math.inf, "")
        return self._answer

    # --- the other nodes -------------------------------------------------------------------------

    def _known_tasks(self) -> list[str]:
        """Tasks that the policy and, if there is one, the simulator know, in the latter's order."""
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
            self._set_task_client, SetTask.Request(task=""), "the policy node"
        ).known_tasks
        if not self._values["simulated"]:
            return list(policy_tasks)
        scene_tasks = self._call(
            self._reset_client, ResetScene.Request(task=""), "the simulator"
        ).known_tasks
        return [task for task in scene_tasks if task in policy_tasks]

    def _wait_for_camera(self, topic: str) -> None:
        received: list[Image] = []
        subscription = self.create_subscription(Image, topic, received.append, _IMAGE_QOS)
        self._wait_until(
            lambda: bool(received),
            self._values["silence_timeout_s"],
            f"no image on {topic}: is the camera running, and is this its topic?",
        )
        self.destroy_subscription(subscription)

    def _call(self, client: Client, request: Any, who: str) -> Any:
        self._wait_until(
            client.service_is_ready,
            self._values["ready_timeout_s"],
            f"{who} does not offer the service {client.srv_name}: is the node running?",
        )
        future = client.call_async(request)
        self._wait_until(
            future.done,
            self._values["ready_timeout_s"],
            f"{who} does not answer on {client.srv_name}",
        )
        return future.result()

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
            "seed": parameters["seed"],
            "tasks": tasks,
            "episodes_planned": len(self._planned),
            "max_steps": parameters["max_steps"],
            "success_hold_s": parameters["success_hold_s"],
            "settle_s": parameters["settle_s"],
            "versions": software_versions(),
        }

    def _publish_progress(self) -> None:
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
        }
        status = DiagnosticStatus(
            level=DiagnosticStatus.ERROR if self._report.error else DiagnosticStatus.OK,
            name="episode_runner: episodes",
            message=self._report.error or "running",
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


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
    except (RunnerError, PlanError, ReportError) as error:
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
