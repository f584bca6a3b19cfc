"""The policy node: runs a policy bundle on a robot, one episode at a time."""

from __future__ import annotations

import array
import contextlib
import functools
import math
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from node_common.cpu_load import CpuLoad
from node_common.diagnostics import OK, WARN
from node_common.image_conversion import ImageConverter, ImageError
from node_common.image_transport import IMAGE_TRANSPORT, image_source
from node_common.managed_node import ManagedNode
from node_common.pacing import Percentiles, RecentValues, SteadyTickClock, TickClock
from node_common.parameters import NodeParameter
from node_common.polled_subscription import PolledSubscription
from node_common.ros_clock import SimulatedTickClock
from node_common.running import run_node
from node_common.strict_yaml import BundleError
from node_common.threaded_action_server import GoalEnd, GoalServer
from numpy.typing import NDArray
from policy_interfaces.action import RunEpisode
from policy_interfaces.msg import EndEffectorDelta, PolicyStatus
from policy_interfaces.srv import SetTask
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import ROSClock
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from policy_server.bundle import (
    MODEL_PATH_VARIABLE,
    Bundle,
    find_bundle,
    load_bundle,
    model_search_path,
)
from policy_server.deployment import INFERENCE, CameraObservation, ChunkSpec, Deployment
from policy_server.engine import (
    PROVIDER_NAMES,
    EngineOptions,
    InferenceError,
    ProviderWarning,
)
from policy_server.episode import (
    Episode,
    EpisodeOutcome,
    EpisodeSettings,
    Reason,
    Step,
    StopSignal,
)
from policy_server.observation_buffer import (
    END_EFFECTOR_STATE,
    FreshnessLimits,
    ObservationBuffer,
    Problem,
    Snapshot,
    camera_source,
)
from policy_server.observation_sources import STATE_SOURCES, Reader
from policy_server.policy import (
    NO_TASK,
    Policy,
    Task,
    TaskError,
    UnknownTaskError,
    check_task,
    example_observation,
)
from policy_server.preprocessing import RESIZE_RULES
from policy_server.registry import create_policy
from policy_server.robots import ActionSpace, RobotSpec, check_robot, load_robot, robot_names

WARM_UP_RUNS = 5
RATE_FACTOR = 2.0
"""A rate_hz that differs from the bundle's by more than this factor is refused."""

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

_SENSOR_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
_COMMAND_QOS = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
"""Commands are deltas: one that is replaced before it was sent is motion that is missing."""
_WATCH_PERIOD_S = 0.5
_CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_GOAL_ENDS = {Reason.HORIZON: GoalEnd.SUCCEEDED, Reason.CANCELLED: GoalEnd.CANCELED}
_LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@dataclass
class _Loaded:
    """Everything that `configure` made."""

    name: str
    """Of the bundle."""
    policy: Policy
    rate_hz: float
    chunk: ChunkSpec
    buffer: ObservationBuffer
    readers: dict[str, dict[str, Reader]]
    """Source of states → observation → what reads it out of a message."""
    sampling_problem: str
    """Why `num_samples` must be 1; empty: it may be more."""


@dataclass
class _Statistics:
    """What happened since activation, over all episodes."""

    ticks: int = 0
    missed_ticks: int = 0
    overruns: int = 0
    dropped_steps: int = 0
    bad_images: int = 0
    bad_states: int = 0
    observation_age_s: float = math.nan
    inference_s: RecentValues = field(default_factory=RecentValues)
    observe_to_publish_s: RecentValues = field(default_factory=RecentValues)


class PolicyNode(ManagedNode):
    """Lifecycle node `policy_node`. See the package's README for its graph interface."""

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("policy_node", PARAMETERS, part="policy", **node_arguments)
        self._loaded: _Loaded | None = None
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
        self._state_subscriptions: dict[str, PolledSubscription] = {}
        self._refused_commands = 0
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
        self._loaded = self._load()
        self._task = _named_task(values["task"], self._loaded.policy.spec)
        self._subscribe(self._loaded)

    def activate(self) -> None:
        """Start with a clean slate; nothing moves until an episode is asked for."""
        self.check_no_contradiction("end_effector_delta")
        assert self._loaded is not None
        self._loaded.buffer.clear()
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
        loaded, self._loaded = self._loaded, None
        self._state_subscriptions = {}
        if loaded is not None:
            _close(loaded.policy)

    def _load(self) -> _Loaded:
        file = find_bundle(self._parameter("model"), model_search_path(os.environ, [Path.cwd()]))
        bundle = load_bundle(file)
        policy = self._create_policy(bundle)
        try:
            return self._fit(bundle, policy)
        except Exception:
            _close(policy)
            raise

    def _fit(self, bundle: Bundle, policy: Policy) -> _Loaded:
        """Make sure that a policy fits robot and parameters, and warm it up."""
        file = bundle.file
        # A wrapper sees and needs other things than the bundle's own kind.
        spec = policy.spec
        robot = load_robot(self._parameter("robot"))
        space = check_robot(file, spec, robot)
        for camera in spec.cameras:
            if not _CAMERA_NAME.fullmatch(camera.camera):
                field_name = f"deployment.observations {camera.name}.camera"
                raise BundleError(file, field_name, camera.camera, "a name of ROS, as wrist_camera")
        task = self._parameter("task")
        if task and spec.tasks and task not in spec.tasks:
            raise UnknownTaskError(task, tuple(spec.tasks))
        rate_hz = self._rate_hz(spec, space, robot.name)
        chunk = self._chunk(spec, rate_hz)
        sampling_problem = self._warm_up(bundle, policy, robot, chunk)
        readers: dict[str, dict[str, Reader]] = {}
        for state in spec.states:
            if source := STATE_SOURCES.get(state.kind):
                readers.setdefault(state.kind, {})[state.name] = source.make_reader(state)
        cameras = list(dict.fromkeys(camera_source(camera.camera) for camera in spec.cameras))
        if not cameras and not readers:
            readers[END_EFFECTOR_STATE] = {}  # whose stamps tell what a command comes from
        return _Loaded(
            name=bundle.name,
            policy=policy,
            rate_hz=rate_hz,
            chunk=chunk,
            buffer=ObservationBuffer(
                (*cameras, *readers), self._limits(), lambda text: self.get_logger().warning(text)
            ),
            readers=readers,
            sampling_problem=sampling_problem,
        )

    def _create_policy(self, bundle: Bundle) -> Policy:
        options = EngineOptions(self._parameter("provider"), self._parameter("threads"))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ProviderWarning)
            policy = create_policy(
                bundle,
                options,
                self._parameter("policy"),
                _mapping(self._parameter("policy_parameters")),
            )
        for warning in caught:
            self.get_logger().warning(str(warning.message))
        return policy

    def _rate_hz(self, spec: Deployment, space: ActionSpace, robot: str) -> float:
        """Return the control rate: the policy's, or the parameter's if both can do it."""
        rate_hz = float(self._parameter("rate_hz") or spec.rate_hz)
        if not spec.rate_hz / RATE_FACTOR <= rate_hz <= spec.rate_hz * RATE_FACTOR:
            raise ValueError(
                f"found rate_hz {rate_hz:g}, expected 0 or {spec.rate_hz / RATE_FACTOR:g} to "
                f"{spec.rate_hz * RATE_FACTOR:g}: the bundle was made for {spec.rate_hz:g}"
            )
        if not space.executes(1 / rate_hz):
            shortest_s, longest_s = space.step_range_s
            raise ValueError(
                f"found a rate of {rate_hz:g} Hz, expected {1 / longest_s:g} to "
                f"{1 / shortest_s:g}, which the controller of {robot} executes"
            )
        if rate_hz != spec.rate_hz:
            self.get_logger().warning(
                f"running at {rate_hz:g} Hz; the bundle was made for {spec.rate_hz:g} Hz"
            )
        return rate_hz

    def _chunk(self, spec: Deployment, rate_hz: float) -> ChunkSpec:
        """Return how chunks are executed: as the bundle says, or as the parameters do."""
        chunk = spec.action.chunk
        if steps := self._parameter("execute_steps"):
            chunk = replace(chunk, execute_steps=steps)
        if inference := self._parameter("inference"):
            in_background = inference == "background"
            decay = chunk.ensemble_decay if in_background else None
            chunk = replace(chunk, in_background=in_background, ensemble_decay=decay)
        longest_s = spec.action.max_observation_age_s
        if (chunk.execute_steps - 1) / rate_hz >= longest_s:
            raise ValueError(
                f"found {chunk.execute_steps} steps of a chunk at {rate_hz:g} Hz, expected at most "
                f"{math.ceil(longest_s * rate_hz)}: later ones would be executed more than "
                f"{longest_s:g} s, the bundle's max_observation_age_s, after their observation"
            )
        return chunk

    def _warm_up(self, bundle: Bundle, policy: Policy, robot: RobotSpec, chunk: ChunkSpec) -> str:
        """Use every model; return why the policy cannot draw actions, "" when it can."""
        observation = example_observation(policy.spec, robot)
        num_samples = self._parameter("num_samples")
        policy.reset(0)
        for _ in range(WARM_UP_RUNS):
            start_s = time.perf_counter()
            steps = policy.infer(observation, num_samples).steps
            last_s = time.perf_counter() - start_s
            shape = (max(1, len(steps)), *policy.spec.action.low.shape)
            if steps.shape != shape or not np.isfinite(steps).all():
                raise BundleError(
                    bundle.file,
                    "warm-up",
                    steps.tolist(),
                    f"steps of finite numbers, shape {list(shape)}",
                )
        # In the background the steps after these are executed while the next chunk is computed.
        most = len(steps) - chunk.in_background
        if chunk.execute_steps > most:
            raise ValueError(
                f"found {chunk.execute_steps} steps to execute of a chunk of {len(steps)}, "
                f"expected at most {most}"
                + (" with inference in the background" if chunk.in_background else "")
            )
        sampling_problem = ""
        try:
            policy.infer(observation, 2)
        except InferenceError as error:
            sampling_problem = str(error)
        policy.reset(0)
        self.get_logger().info(
            f"{bundle.name}: {policy.spec.policy.kind}, {policy.spec.policy.algorithm}, "
            f"{len(policy.spec.tasks)} tasks, {last_s * 1e3:.1f} ms per inference"
        )
        return sampling_problem

    def _end_beside_others(self) -> None:
        """End a running episode when another node begins to command the same arm."""
        stop = self._stop
        if stop is not None and (others := self.contradiction("end_effector_delta")):
            stop.set(Reason.BUSY, others)

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
        problem = self._loaded.sampling_problem if self._loaded is not None else ""
        if problem and values["num_samples"] != 1:
            raise ValueError(f"found num_samples {values['num_samples']}, expected 1: {problem}")

    def values_changed(self, values: dict[str, Any]) -> None:
        """Take the new limits."""
        if self._loaded is not None:
            self._loaded.buffer.limits = self._limits()

    # --- observations ----------------------------------------------------------------------

    def _subscribe(self, loaded: _Loaded) -> None:
        by_camera: dict[str, list[CameraObservation]] = {}
        for camera in loaded.policy.spec.cameras:
            by_camera.setdefault(camera.camera, []).append(camera)
        for name, observations in by_camera.items():
            message_type, topic = image_source(self._parameter("image_transport"), name)
            take = functools.partial(self._on_image, camera_source(name), observations)
            self.hold(self.create_subscription(message_type, topic, take, _SENSOR_QOS))
        for kind in loaded.readers:
            source = STATE_SOURCES[kind]
            self._state_subscriptions[kind] = self.hold(
                PolledSubscription(self, source.message_type, source.topic)
            )

    def _on_image(
        self,
        source: str,
        observations: Sequence[CameraObservation],
        message: Image | CompressedImage,
    ) -> None:
        """Shrink the image when it arrives, so that a tick only has to infer and publish."""
        loaded = self._loaded
        if loaded is None or not self.active:
            return
        try:
            values = {
                camera.name: self._converter.network_image(
                    message, camera.size, RESIZE_RULES[camera.resize]
                )
                for camera in observations
            }
        except ImageError as error:
            loaded.buffer.refuse(source, str(error))
            self._count_bad_image(str(error))
            return
        # The states of the same moment, as in the training data.
        self._poll_states(loaded)
        refusal = loaded.buffer.put(source, values, _nanoseconds(message), self._now_ns())
        if refusal:
            self._count_bad_image(refusal)

    def _count_bad_image(self, reason: str) -> None:
        self._statistics.bad_images += 1
        self.get_logger().error(f"image refused: {reason}", throttle_duration_sec=5.0)

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _poll_states(self, loaded: _Loaded) -> None:
        for kind, subscription in self._state_subscriptions.items():
            message = subscription.take()
            if message is None:
                continue
            if kind == END_EFFECTOR_STATE:
                self._follow_refusals(message.refused_commands)
            try:
                values = {name: read(message) for name, read in loaded.readers[kind].items()}
                bad = [value.tolist() for value in values.values() if not np.isfinite(value).all()]
                if bad:
                    raise ValueError(f"not finite: found {bad[0]}, expected finite numbers")
            except ValueError as error:
                refusal = str(error)
                loaded.buffer.refuse(kind, refusal)
            else:
                now_ns = self._now_ns()
                stamp_ns = _nanoseconds(message) if hasattr(message, "header") else now_ns
                refusal = loaded.buffer.put(kind, values, stamp_ns, now_ns)
            if refusal:
                self._statistics.bad_states += 1
                self.get_logger().error(f"state refused: {refusal}", throttle_duration_sec=5.0)

    def _follow_refusals(self, refused_commands: int) -> None:
        """Give up a plan of which the arm controller has refused a step."""
        before, self._refused_commands = self._refused_commands, refused_commands
        episode = self._episode
        if refused_commands != before and episode is not None:
            episode.void_chunks()

    def _observe(self, loaded: _Loaded) -> Snapshot | Problem:
        if not loaded.policy.spec.cameras:
            self._poll_states(loaded)
        return loaded.buffer.take(self._now_ns())

    # --- episodes --------------------------------------------------------------------------

    def _on_set_task(self, request: SetTask.Request, response: SetTask.Response) -> Any:
        loaded = self._loaded
        if loaded is None:
            response.message = "found the node unconfigured, expected a configured one"
            return response
        spec = loaded.policy.spec
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
            loaded = self._loaded
            if loaded is None or not self.active:
                return Reason.INACTIVE, "found the node not active, expected it to be activated"
            if self._stop is not None:
                return Reason.BUSY, "another episode is running: cancel it first"
            try:
                task = self._asked_task(goal, loaded.policy.spec)
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
        loaded = self._loaded
        assert loaded is not None
        note = _label_note(self._task.name, loaded.policy.spec)
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
            policy=loaded.policy,
            observe=lambda: self._observe(loaded),
            clock=tick_clock,
            task=lambda: self._task,
            publish=self._publisher(loaded),
            on_step=on_step,
            stop=stop,
        )
        with self._lock:
            self._episode = episode
        self.report()
        try:
            outcome = episode.run(
                EpisodeSettings(
                    period_s=1.0 / loaded.rate_hz,
                    max_steps=goal.max_steps or loaded.policy.spec.horizon,
                    num_samples=self._parameter("num_samples"),
                    seed=goal.seed or self._parameter("seed"),
                    observation_wait_s=wait_s,
                    chunk=loaded.chunk,
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

    def _publisher(self, loaded: _Loaded) -> Callable[[NDArray[np.float64], int], None]:
        action = loaded.policy.spec.action
        message = EndEffectorDelta()
        message.header.frame_id = action.frame
        message.names = list(action.names)
        message.step_s = 1.0 / loaded.rate_hz
        message.max_observation_age_s = action.max_observation_age_s
        publisher = self._commands

        def publish(values: NDArray[np.float64], stamp_ns: int) -> None:
            stamp = message.header.stamp
            stamp.sec, stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
            now = message.execute_at
            now.sec, now.nanosec = divmod(self._now_ns(), 1_000_000_000)
            message.values = array.array("d", values.tobytes())
            publisher.publish(message)

        return publish

    # --- status ----------------------------------------------------------------------------

    def report(self) -> None:
        """Publish status and diagnostics."""
        loaded, episode, statistics = self._loaded, self._episode, self._statistics
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
        status.policy = loaded.name if loaded else ""
        status.task = self._task.name or self._task.instruction
        status.reason = self.fault
        status.ticks = statistics.ticks
        status.missed_ticks = missed
        status.overruns = overruns
        status.dropped_steps = dropped_steps
        status.dropped_images = loaded.buffer.images_dropped if loaded else 0
        status.rate_hz = episode.rate_hz if episode else math.nan
        status.inference_p50_ms = inference.p50 * 1e3
        status.inference_p95_ms = inference.p95 * 1e3
        status.inference_p99_ms = inference.p99 * 1e3
        status.observation_age_ms = statistics.observation_age_s * 1e3
        self._status_publisher.publish(status)

        state = "running" if episode else "active" if self.active else "inactive"
        values = {
            "state": state if loaded else "unconfigured",
            "policy": status.policy,
            "task": status.task,
            "ticks": statistics.ticks,
            "missed_ticks": missed,
            "overruns": overruns,
            "dropped_steps": dropped_steps,
            "images_received": loaded.buffer.images_received if loaded else 0,
            "images_dropped": status.dropped_images,
            "images_refused": statistics.bad_images,
            "states_refused": statistics.bad_states,
            "rate_hz": status.rate_hz,
            "observation_age_ms": status.observation_age_ms,
            **_in_ms("inference", inference),
            **_in_ms("observe_to_publish", observe_to_publish),
        }
        refusal = loaded.buffer.refusal() if loaded and self.active else ""
        self._cpu_load.sample()
        level, text = OK, str(values["state"])
        if refusal:
            level, text = WARN, refusal
        elif loaded is not None and missed > self._missed_reported:
            level = WARN
            rate = f": {status.rate_hz:.2f} Hz, expected {loaded.rate_hz:g}" if episode else ""
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


def _close(policy: Policy) -> None:
    close = getattr(policy, "close", None)
    if close is not None:
        close()


def _mapping(text: str) -> dict[str, Any]:
    """Read the parameters of a kind of policy."""
    try:
        parameters = yaml.safe_load(text) if text else {}
    except yaml.YAMLError as error:
        raise ValueError(f"found policy_parameters {text!r}, expected YAML: {error}") from None
    if not isinstance(parameters, dict) or not all(isinstance(name, str) for name in parameters):
        raise ValueError(f"found policy_parameters {text!r}, expected a mapping as {{beta: 1.0}}")
    return parameters


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


def _nanoseconds(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


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
