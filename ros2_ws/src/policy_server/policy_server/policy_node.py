"""The policy node: runs a policy bundle on a robot, one episode at a time."""

from __future__ import annotations

import array
import contextlib
import math
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from node_common.cpu_load import CpuLoad
from node_common.diagnostics import OK, WARN
from node_common.image_conversion import ImageConverter, ImageError
from node_common.image_transport import IMAGE_TRANSPORT
from node_common.managed_node import ManagedNode
from node_common.pacing import Percentiles, RecentValues, SteadyTickClock, TickClock
from node_common.parameters import NodeParameter
from node_common.ros_clock import SimulatedTickClock
from node_common.running import run_node
from node_common.threaded_action_server import GoalEnd, GoalServer
from numpy.typing import NDArray
from policy_interfaces.action import RunEpisode
from policy_interfaces.msg import EndEffectorDelta, PolicyStatus
from policy_interfaces.srv import SetTask
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import ROSClock
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from policy_server.bundle import MODEL_PATH_VARIABLE, model_search_path
from policy_server.deployment import INFERENCE, Deployment
from policy_server.engine import PROVIDER_NAMES
from policy_server.episode import (
    Episode,
    EpisodeOutcome,
    EpisodeSettings,
    Reason,
    Step,
    StopSignal,
)
from policy_server.observation_buffer import FreshnessLimits
from policy_server.observer import Observer
from policy_server.policy import NO_TASK, Task, TaskError, check_task
from policy_server.ready_policy import PolicySettings, ReadyPolicy, prepare_policy
from policy_server.robots import robot_names

PARAMETERS = (
    NodeParameter(
        "model",
        "",
        "Bundle: path of its directory or YAML, or a name below "
        f"{MODEL_PATH_VARIABLE} (default: models/ here or above)",
        structural=True,
    ),
    NodeParameter(
        "policy", "", 'Kind of policy in place of the bundle\'s, e.g. "random"', structural=True
    ),
    NodeParameter(
        "policy_parameters",
        "",
        "Parameters of the kind of policy as YAML, e.g. {beta: 1.0}",
        structural=True,
    ),
    NodeParameter(
        "robot",
        "wx250s",
        f"The connected robot: {', '.join(robot_names())}, or the path of a YAML file",
        structural=True,
    ),
    NodeParameter(
        "provider",
        "auto",
        "ONNX Runtime execution provider, or openvino; falls back to cpu with a warning",
        choices=PROVIDER_NAMES,
        structural=True,
    ),
    NodeParameter(
        "threads", 0, "CPU threads per model; 0: half of the cores", 0, 64, structural=True
    ),
    NodeParameter(
        "rate_hz",
        0.0,
        "Control rate; 0: the bundle's; at most a factor of 2 away from it",
        0.0,
        200.0,
        structural=True,
    ),
    IMAGE_TRANSPORT,
    NodeParameter("task", "", "Task at configure; empty: none", structural=True),
    NodeParameter(
        "realtime_priority",
        1,
        "SCHED_FIFO priority of the thread that ticks, where the system allows it; 0: normal",
        0,
        50,
    ),
    NodeParameter("seed", 0, "Seed of episodes whose goal has seed 0", 0, 2**31 - 1),
    NodeParameter(
        "num_samples", 1, "Action chunks drawn per inference; 1: the best one only", 1, 1024
    ),
    NodeParameter(
        "inference",
        "",
        "When the next chunk is computed; empty: as the bundle says",
        choices=("", *INFERENCE),
        structural=True,
    ),
    NodeParameter(
        "execute_steps",
        0,
        "Steps of a chunk after which the next one is computed; 0: the bundle's",
        0,
        1000,
        structural=True,
    ),
    NodeParameter("camera_timeout_s", 0.3, "Largest age of an image by its stamp", 0.01, 10.0),
    NodeParameter("state_timeout_s", 0.3, "Largest age of a state by its stamp", 0.01, 10.0),
    NodeParameter(
        "pairing_tolerance_s",
        0.05,
        "How far apart the stamps of several cameras' images may be",
        0.001,
        1.0,
    ),
    NodeParameter(
        "future_tolerance_s", 0.1, "How far a stamp may lie ahead of the clock", 0.0, 1.0
    ),
    NodeParameter(
        "observation_wait_s",
        3.0,
        "Real time to wait for the first observation, and for a simulated clock that stands",
        0.1,
        60.0,
    ),
)

_COMMAND_QOS = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
"""Commands are deltas: one that is replaced before it was sent is motion that is missing."""
_WATCH_PERIOD_S = 0.5
_GOAL_ENDS = {Reason.HORIZON: GoalEnd.SUCCEEDED, Reason.CANCELLED: GoalEnd.CANCELED}
_LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@dataclass
class _Statistics:
    """What happened since activation, over all episodes."""

    ticks: int = 0
    missed_ticks: int = 0
    overruns: int = 0
    dropped_steps: int = 0
    observation_age_s: float = math.nan
    inference_s: RecentValues = field(default_factory=RecentValues)
    observe_to_publish_s: RecentValues = field(default_factory=RecentValues)


class PolicyNode(ManagedNode):
    """Lifecycle node `policy_node`. See the package's README for its graph interface."""

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("policy_node", PARAMETERS, part="policy", **node_arguments)
        self._ready: ReadyPolicy | None = None
        self._observer: Observer | None = None
        self._converter = ImageConverter(lambda text: self.get_logger().warning(text))
        self._statistics = _Statistics()
        self._cpu_load = CpuLoad()
        self._missed_reported = 0
        self._task = NO_TASK
        self._lock = threading.Lock()
        self._stop: StopSignal | None = None
        self._episode: Episode | None = None
        self._idle = threading.Event()
        self._idle.set()
        self._commands = self.create_lifecycle_publisher(
            EndEffectorDelta, "end_effector_delta", _COMMAND_QOS
        )
        self._status_publisher = self.create_publisher(PolicyStatus, "~/status", _LATCHED_QOS)
        self.create_service(SetTask, "~/set_task", self._on_set_task)
        self._action_server = GoalServer(
            self,
            RunEpisode,
            "~/run_episode",
            begin=lambda _: StopSignal(),
            execute=self._on_goal,
            cancel=lambda stop: stop.set(Reason.CANCELLED, "cancelled by the caller"),
        )
        self.create_timer(_WATCH_PERIOD_S, self._end_beside_others, clock=self.steady_clock)

    # --- lifecycle -------------------------------------------------------------------------

    def configure(self, values: dict[str, Any]) -> None:
        """Load, verify and warm up the bundle."""
        names = [entry.name for entry in fields(PolicySettings)]
        log = self.get_logger()
        self._ready = prepare_policy(
            PolicySettings(**{name: values[name] for name in names}),
            model_search_path(os.environ, [Path.cwd()]),
            tell=lambda text: log.info(text),
            warn=lambda text: log.warning(text),
        )
        spec = self._ready.policy.spec
        self._task = _named_task(values["task"], spec)
        self._observer = Observer(
            self, spec, values["image_transport"], self._limits(), self._void_chunks
        )

    def activate(self) -> None:
        """Start with a clean slate; nothing moves until an episode is asked for."""
        self.check_no_contradiction("end_effector_delta")
        assert self._observer is not None
        self._observer.clear()
        self._statistics = _Statistics()

    def rest(self, reason: str) -> None:
        """End a running episode; the arm controller holds when commands cease."""
        with self._lock:
            stop = self._stop
        if stop is not None:
            stop.set(Reason.INACTIVE, reason)
        if not self._idle.wait(10.0):
            self.get_logger().error("an inference did not return within 10 s")

    def release(self) -> None:
        """Release the models."""
        ready, self._ready = self._ready, None
        self._observer = None
        if ready is not None:
            ready.close()

    def _end_beside_others(self) -> None:
        """End a running episode when another node begins to command the same arm."""
        stop = self._stop
        if stop is not None and (others := self.contradiction("end_effector_delta")):
            stop.set(Reason.BUSY, others)

    def _void_chunks(self) -> None:
        """Give up a plan of which the arm controller has refused a step."""
        episode = self._episode
        if episode is not None:
            episode.void_chunks()

    # --- parameters ------------------------------------------------------------------------

    def _parameter(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _limits(self) -> FreshnessLimits:
        return FreshnessLimits(
            camera_timeout_s=self._parameter("camera_timeout_s"),
            state_timeout_s=self._parameter("state_timeout_s"),
            future_tolerance_s=self._parameter("future_tolerance_s"),
            pairing_tolerance_s=self._parameter("pairing_tolerance_s"),
        )

    def check_values(self, values: dict[str, Any]) -> None:
        """Refuse to sample from a policy that cannot."""
        problem = self._ready.sampling_problem if self._ready is not None else ""
        if problem and values["num_samples"] != 1:
            raise ValueError(f"found num_samples {values['num_samples']}, expected 1: {problem}")

    def values_changed(self, values: dict[str, Any]) -> None:
        """Take the new limits."""
        if self._observer is not None:
            self._observer.buffer.limits = self._limits()

    # --- episodes --------------------------------------------------------------------------

    def _on_set_task(self, request: SetTask.Request, response: SetTask.Response) -> Any:
        ready = self._ready
        if ready is None:
            response.message = "found the node unconfigured, expected a configured one"
            return response
        spec = ready.policy.spec
        response.known_tasks = list(spec.tasks)
        try:
            self._task = self._asked_task(request, spec)
        except TaskError as error:
            response.message = str(error)
            return response
        response.message = _label_note(request.task, spec)
        response.success = True
        self.report()
        return response

    def _asked_task(self, request: RunEpisode.Goal | SetTask.Request, spec: Deployment) -> Task:
        """Return the task of a request: the current one if it has none, or the same again.

        Raises:
            TaskError: it is not known, lacks what the policy needs, or its image cannot be read.
        """
        current = self._task
        goal_image: NDArray[np.uint8] | None = None
        if len(request.goal_image.data):
            try:
                goal_image = self._converter.rgb(request.goal_image)
            except ImageError as error:
                raise TaskError(f"goal image refused: {error}") from error
        embedding = np.asarray(request.embedding, np.float32) if len(request.embedding) else None
        if goal_image is None and embedding is None:
            name = request.task or current.name
            words = request.instruction or spec.instructions.get(request.task, "")
            same = (name, words or current.instruction) == (current.name, current.instruction)
            task = current if same else Task(name, words)
        else:
            task = Task(request.task or current.name, request.instruction, goal_image, embedding)
        check_task(spec, task)
        return task

    def _on_goal(
        self, goal_handle: ServerGoalHandle[Any, Any, Any], stop: StopSignal
    ) -> tuple[GoalEnd, RunEpisode.Result]:
        """Run one goal; called in a thread of its own."""
        refusal = self._claim(goal_handle.request, stop)
        if refusal is not None:
            outcome = EpisodeOutcome(
                *refusal, 0, 0, 0, 0.0, math.nan, Percentiles(math.nan, math.nan, math.nan)
            )
        else:
            try:
                outcome = self._run_episode(goal_handle, stop)
            finally:
                with self._lock:
                    self._stop = None
                    self._episode = None
                    self._idle.set()
            self.report()
        return _GOAL_ENDS.get(outcome.reason, GoalEnd.ABORTED), RunEpisode.Result(
            termination_reason=int(outcome.reason),
            message=outcome.message,
            steps=outcome.steps,
            missed_ticks=outcome.missed_ticks,
            overruns=outcome.overruns,
            duration_s=outcome.duration_s,
            rate_hz=outcome.rate_hz,
            inference_p50_ms=outcome.inference.p50 * 1e3,
            inference_p95_ms=outcome.inference.p95 * 1e3,
            inference_p99_ms=outcome.inference.p99 * 1e3,
        )

    def _claim(self, goal: RunEpisode.Goal, stop: StopSignal) -> tuple[Reason, str] | None:
        """Take the only episode slot; return why not."""
        with self._lock:
            ready = self._ready
            if ready is None or not self.active:
                return Reason.INACTIVE, "found the node not active, expected it to be activated"
            if self._stop is not None:
                return Reason.BUSY, "another episode is running: cancel it first"
            try:
                task = self._asked_task(goal, ready.policy.spec)
            except TaskError as error:
                return Reason.UNKNOWN_TASK, str(error)
            others = self.contradiction("end_effector_delta")
            if others:
                return Reason.BUSY, others
            self._task = task
            self.fault = ""
            self._stop = stop
            self._idle.clear()
        return None

    def _run_episode(
        self, goal_handle: ServerGoalHandle[Any, Any, Any], stop: StopSignal
    ) -> EpisodeOutcome:
        ready, observer = self._ready, self._observer
        assert ready is not None and observer is not None
        note = _label_note(self._task.name, ready.policy.spec)
        if note:
            self.get_logger().info(note)
        _ask_for_priority(self._parameter("realtime_priority"))
        goal = goal_handle.request
        clock = self.get_clock()
        wait_s = self._parameter("observation_wait_s")
        simulated = isinstance(clock, ROSClock) and clock.ros_time_is_active
        tick_clock: TickClock = (
            SimulatedTickClock(
                clock, stop.event, wait_s, lambda text: stop.set(Reason.STALE_CAMERA, text)
            )
            if simulated
            else SteadyTickClock(stop.event)
        )
        feedback = RunEpisode.Feedback()

        def on_step(step: Step) -> None:
            statistics = self._statistics
            statistics.ticks += 1
            statistics.observation_age_s = step.observation_age_s
            if step.inference_s is not None:
                statistics.inference_s.add(step.inference_s)
            statistics.observe_to_publish_s.add(step.observe_to_publish_s)
            feedback.step = step.index
            feedback.action = step.action
            feedback.inference_ms = (step.inference_s or 0.0) * 1e3
            feedback.observation_age_ms = step.observation_age_s * 1e3
            goal_handle.publish_feedback(feedback)

        episode = Episode(
            policy=ready.policy,
            observe=observer.observe,
            clock=tick_clock,
            task=lambda: self._task,
            publish=self._publisher(ready),
            on_step=on_step,
            stop=stop,
        )
        with self._lock:
            self._episode = episode
        self.report()
        try:
            outcome = episode.run(
                EpisodeSettings(
                    period_s=1.0 / ready.rate_hz,
                    max_steps=goal.max_steps or ready.policy.spec.horizon,
                    num_samples=self._parameter("num_samples"),
                    seed=goal.seed or self._parameter("seed"),
                    observation_wait_s=wait_s,
                    chunk=ready.chunk,
                )
            )
        finally:
            if isinstance(tick_clock, SimulatedTickClock):
                tick_clock.close()
        self._statistics.missed_ticks += outcome.missed_ticks
        self._statistics.overruns += outcome.overruns
        self._statistics.dropped_steps += episode.dropped_steps
        if outcome.reason not in (Reason.HORIZON, Reason.CANCELLED, Reason.INACTIVE):
            if outcome.reason in (Reason.STALE_CAMERA, Reason.STALE_STATE) and outcome.steps:
                outcome = replace(outcome, message=outcome.message + self._cpu_load.note)
            self.fault = f"{outcome.reason.name}: {outcome.message}"
            self.get_logger().error(f"episode ended, {self.fault}")
        return replace(outcome, message=f"{outcome.message}; {note}") if note else outcome

    def _publisher(self, ready: ReadyPolicy) -> Callable[[NDArray[np.float64], int], None]:
        action = ready.policy.spec.action
        message = EndEffectorDelta()
        message.header.frame_id = action.frame
        message.names = list(action.names)
        message.step_s = 1.0 / ready.rate_hz
        message.max_observation_age_s = action.max_observation_age_s
        publisher = self._commands

        def publish(values: NDArray[np.float64], stamp_ns: int) -> None:
            stamp = message.header.stamp
            stamp.sec, stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
            now = message.execute_at
            now.sec, now.nanosec = divmod(self.get_clock().now().nanoseconds, 1_000_000_000)
            message.values = array.array("d", values.tobytes())
            publisher.publish(message)

        return publish

    # --- status ----------------------------------------------------------------------------

    def report(self) -> None:
        """Publish status and diagnostics."""
        ready, episode, statistics = self._ready, self._episode, self._statistics
        observer = self._observer
        buffer = observer.buffer if observer else None
        inference = statistics.inference_s.percentiles()
        observe_to_publish = statistics.observe_to_publish_s.percentiles()
        missed = statistics.missed_ticks + (episode.missed_ticks if episode else 0)
        overruns = statistics.overruns + (episode.overruns if episode else 0)
        dropped_steps = statistics.dropped_steps + (episode.dropped_steps if episode else 0)
        status = PolicyStatus()
        status.header.stamp = self.get_clock().now().to_msg()
        if episode is not None:
            status.state = PolicyStatus.STATE_RUNNING
        else:
            status.state = PolicyStatus.STATE_FAULT if self.fault else PolicyStatus.STATE_IDLE
        status.policy = ready.name if ready else ""
        status.task = self._task.name or self._task.instruction
        status.reason = self.fault
        status.ticks = statistics.ticks
        status.missed_ticks = missed
        status.overruns = overruns
        status.dropped_steps = dropped_steps
        status.dropped_images = buffer.images_dropped if buffer else 0
        status.rate_hz = episode.rate_hz if episode else math.nan
        status.inference_p50_ms = inference.p50 * 1e3
        status.inference_p95_ms = inference.p95 * 1e3
        status.inference_p99_ms = inference.p99 * 1e3
        status.observation_age_ms = statistics.observation_age_s * 1e3
        self._status_publisher.publish(status)

        state = "running" if episode else "active" if self.active else "inactive"
        values = {
            "state": state if ready else "unconfigured",
            "policy": status.policy,
            "task": status.task,
            "ticks": statistics.ticks,
            "missed_ticks": missed,
            "overruns": overruns,
            "dropped_steps": dropped_steps,
            "images_received": buffer.images_received if buffer else 0,
            "images_dropped": status.dropped_images,
            "images_refused": observer.bad_images if observer else 0,
            "states_refused": observer.bad_states if observer else 0,
            "rate_hz": status.rate_hz,
            "observation_age_ms": status.observation_age_ms,
            **_in_ms("inference", inference),
            **_in_ms("observe_to_publish", observe_to_publish),
        }
        refusal = buffer.refusal() if buffer and self.active else ""
        self._cpu_load.sample()
        level, text = OK, str(values["state"])
        if refusal:
            level, text = WARN, refusal
        elif ready is not None and missed > self._missed_reported:
            level = WARN
            rate = f": {status.rate_hz:.2f} Hz, expected {ready.rate_hz:g}" if episode else ""
            text += (
                f"; {missed - self._missed_reported} ticks were late or had no fresh observation"
                f"{rate}{self._cpu_load.note}"
            )
        self._missed_reported = missed
        self.publish_health(
            level,
            text,
            values,
            hardware_id=self._parameter("robot"),
            stamp=status.header.stamp,
        )


def _ask_for_priority(priority: int) -> None:
    """Give the calling thread a real-time priority, if the system lets it have one.

    Publishing wakes the receivers of a command; on a busy machine they would be run before the
    publisher gets to its end, and a tick would take as long as they do.
    """
    if priority > 0:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))


def _named_task(name: str, spec: Deployment) -> Task:
    return Task(name, spec.instructions.get(name, "")) if name else NO_TASK


def _label_note(task: str, spec: Deployment) -> str:
    """What to say of a task that is given to a policy for a single one."""
    if spec.tasks or not task:
        return ""
    return f'the policy has no tasks: "{task}" is a label that changes nothing'


def _in_ms(name: str, percentiles: Percentiles) -> dict[str, float]:
    return {
        f"{name}_p50_ms": percentiles.p50 * 1e3,
        f"{name}_p95_ms": percentiles.p95 * 1e3,
        f"{name}_p99_ms": percentiles.p99 * 1e3,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is shut down; return the exit status."""
    cv2.setNumThreads(1)
    return run_node(
        "policy_node",
        lambda _: PolicyNode(),
        arguments=arguments,
        on_end=lambda node: node.come_to_rest("the node was interrupted"),
        switches_quickly=True,
    )


if __name__ == "__main__":
    sys.exit(main())
