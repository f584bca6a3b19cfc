"""The navigator: drives over a topological map, from camera images to waypoints."""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import cv2
from base_drivers.robot_config import RobotConfig, load_robot, robot_names
from builtin_interfaces.msg import Time
from nav_msgs.msg import Odometry, Path
from node_common.diagnostics import ERROR, OK, WARN
from node_common.image_conversion import ImageConverter, ImageError
from node_common.image_transport import IMAGE_TRANSPORT, image_source
from node_common.managed_node import ManagedNode
from node_common.pacing import RecentValues, TickClock
from node_common.parameters import NodeParameter
from node_common.ros_clock import SimulatedTickClock
from node_common.running import run_node
from node_common.threaded_action_server import GoalEnd as ActionEnd
from node_common.threaded_action_server import GoalServer
from policy_interfaces.action import Explore, NavigateToGoal
from policy_interfaces.msg import NavigationStatus
from policy_interfaces.srv import LoadMap
from policy_server.bundle import MODEL_PATH_VARIABLE, find_bundle, model_search_path
from policy_server.engine import PROVIDER_NAMES, ProviderWarning
from policy_server.episode import Reason as StopReason
from policy_server.episode import StopSignal
from policy_server.navigation_model import NavigationModel, load_navigation_model
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock, ROSClock
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool, Float32MultiArray
from visualization_msgs.msg import MarkerArray

from gnm_nav.camera_image import image_message
from gnm_nav.camera_watch import CameraLimits, CameraWatch
from gnm_nav.map_directory import load_map
from gnm_nav.navigation import NavigationConfig, NavigationCore, NavigationDecision
from gnm_nav.navigation_runner import (
    EndCode,
    Goal,
    GoalEnd,
    NavigationRunner,
    PathOut,
    RunnerSettings,
    TickReport,
)
from gnm_nav.navigation_view import (
    annotated_image,
    belief_markers,
    graph_markers,
    marker_array,
    route_path,
    waypoint_path,
)
from gnm_nav.odometry_gate import OdometryGate
from gnm_nav.planar_pose import odometry_pose
from gnm_nav.topological_map import MapError, MapModel, TopologicalMap

ROBOT_FRAME = "base_link"
BEAT_HZ = 50.0
_MOVING_M_S = 0.08
_MOVING_RAD_S = 0.2
"""Faster than this, two pictures a tenth of a second apart must differ."""
_GRAPH_PERIOD_S = 5.0
_MAX_ROUTE_NODES = 2000

_DEFAULTS = NavigationConfig()

PARAMETERS = (
    NodeParameter(
        "bundle",
        "gnm_sim",
        "Navigation model: path of a bundle, or its name below "
        f"{MODEL_PATH_VARIABLE} (default: models/ here or above)",
        structural=True,
    ),
    NodeParameter("map", "", "Directory of the map; empty: none yet", structural=True),
    NodeParameter(
        "robot",
        "locobot",
        f"The robot: one of {list(robot_names())}, or the path of a YAML file",
        structural=True,
    ),
    NodeParameter(
        "provider",
        "fastest",
        "ONNX Runtime execution provider, openvino, or fastest; falls back to cpu with a warning",
        choices=PROVIDER_NAMES,
        structural=True,
    ),
    IMAGE_TRANSPORT,
    NodeParameter("threads", 1, "CPU threads per model stage", 1, 64, structural=True),
    NodeParameter("seed", 0, "Seed of a diffusion model's noise", 0, 2**31 - 1, structural=True),
    NodeParameter(
        "num_samples",
        _DEFAULTS.num_samples,
        "Paths that a diffusion model draws per tick",
        1,
        64,
        structural=True,
    ),
    NodeParameter(
        "camera_timeout_s",
        0.2,
        "Largest age of the newest image; the robot stops then",
        0.05,
        5.0,
        structural=True,
    ),
    NodeParameter(
        "camera_grace_s",
        2.0,
        "Real time for which a camera may be at fault before the goal is given up",
        0.0,
        60.0,
        structural=True,
    ),
    NodeParameter(
        "frozen_s",
        0.07,
        "So long the same picture while the robot moves: the camera is frozen",
        0.05,
        10.0,
        structural=True,
    ),
    NodeParameter(
        "close_threshold_steps",
        _DEFAULTS.close_threshold_steps,
        "A node nearer than this is passed over for the next one of the route",
        0.0,
        20.0,
        structural=True,
    ),
    NodeParameter(
        "reach_distance_steps",
        _DEFAULTS.reach_distance_steps,
        "Predicted distance to the goal at which it counts as reached",
        0.1,
        20.0,
        structural=True,
    ),
    NodeParameter(
        "no_progress_s",
        _DEFAULTS.no_progress_s,
        "So long without coming nearer to the goal: recover, then plan around",
        1.0,
        600.0,
        structural=True,
    ),
    NodeParameter(
        "lost_timeout_s",
        _DEFAULTS.lost_timeout_s,
        "So long not found on the map: the goal is given up",
        1.0,
        600.0,
        structural=True,
    ),
    NodeParameter(
        "turn_rate_rad_s",
        _DEFAULTS.turn_rate_rad_s,
        "Speed of turning on the spot; at most the robot's",
        0.05,
        3.0,
        structural=True,
    ),
    NodeParameter(
        "visualnav_topics",
        False,
        "Publish /waypoint and /topoplan/reached_goal, too, as visualnav-transformer does",
        structural=True,
    ),
)

_NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

_NAVIGATE_REASONS = {
    EndCode.REACHED: NavigateToGoal.Result.REASON_REACHED,
    EndCode.CANCELLED: NavigateToGoal.Result.REASON_CANCELLED,
    EndCode.TIMEOUT: NavigateToGoal.Result.REASON_TIMEOUT,
    EndCode.UNKNOWN_GOAL: NavigateToGoal.Result.REASON_UNKNOWN_GOAL,
    EndCode.UNREACHABLE: NavigateToGoal.Result.REASON_UNREACHABLE,
    EndCode.LOST: NavigateToGoal.Result.REASON_LOST,
    EndCode.STALE_CAMERA: NavigateToGoal.Result.REASON_STALE_CAMERA,
    EndCode.DARK_CAMERA: NavigateToGoal.Result.REASON_DARK_CAMERA,
    EndCode.NO_MAP: NavigateToGoal.Result.REASON_NO_MAP,
    EndCode.BUSY: NavigateToGoal.Result.REASON_BUSY,
    EndCode.INACTIVE: NavigateToGoal.Result.REASON_INACTIVE,
    EndCode.INFERENCE_FAILED: NavigateToGoal.Result.REASON_INFERENCE_FAILED,
}
_EXPLORE_REASONS = {
    EndCode.DURATION: Explore.Result.REASON_DURATION,
    EndCode.CANCELLED: Explore.Result.REASON_CANCELLED,
    EndCode.UNSUPPORTED: Explore.Result.REASON_UNSUPPORTED,
    EndCode.STALE_CAMERA: Explore.Result.REASON_STALE_CAMERA,
    EndCode.DARK_CAMERA: Explore.Result.REASON_DARK_CAMERA,
    EndCode.BUSY: Explore.Result.REASON_BUSY,
    EndCode.INACTIVE: Explore.Result.REASON_INACTIVE,
    EndCode.INFERENCE_FAILED: Explore.Result.REASON_INFERENCE_FAILED,
}
_ACTION_ENDS = {
    EndCode.REACHED: ActionEnd.SUCCEEDED,
    EndCode.DURATION: ActionEnd.SUCCEEDED,
    EndCode.CANCELLED: ActionEnd.CANCELED,
}


class _RosTickClock:
    """The node's clock while it is that of the machine."""

    def __init__(self, clock: Clock, stop: StopSignal) -> None:
        self._clock = clock
        self._stop = stop

    def now(self) -> float:
        """The time [s]."""
        return float(self._clock.now().nanoseconds) * 1e-9

    def wait_until(self, time_s: float) -> bool:
        """Block until the time is `time_s`; return False when stopped."""
        return not self._stop.event.wait(max(0.0, time_s - self.now()))


class NavigatorNode(ManagedNode):
    """Lifecycle node `navigator`. See the package's README for its graph interface."""

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("navigator", PARAMETERS, part="navigation", **node_arguments)
        self._model: NavigationModel | None = None
        self._robot: RobotConfig | None = None
        self._runner: NavigationRunner | None = None
        self._report: TickReport | None = None
        self._tick_s = RecentValues(400)
        self._images = 0
        self._bad_images = 0
        self._converter = ImageConverter(self._say_warning)
        self._inference_failures = 0
        self._odometry = OdometryGate()
        self._graph_sent_s = -math.inf
        self._graph_readers = 0
        self._route_sent: list[int] = []
        self._waypoints = self.create_publisher(Path, "waypoints", 1)
        self._status = self.create_publisher(NavigationStatus, "~/status", _LATCHED)
        self._route = self.create_publisher(Path, "~/route", _LATCHED)
        self._markers = self.create_publisher(MarkerArray, "~/markers", 1)
        self._annotated = self.create_publisher(Image, "~/annotated_image", 1)
        self.create_service(LoadMap, "~/load_map", self._on_load_map)
        self._visualnav: tuple[Any, Any] | None = None
        self._reached = False
        self._servers = [
            GoalServer(self, action, name, begin=_goal, execute=execute, cancel=self._cancel_goal)
            for action, name, execute in (
                (NavigateToGoal, "~/navigate_to_goal", self._on_navigate),
                (Explore, "~/explore", self._on_explore),
            )
        ]

    # --- lifecycle -------------------------------------------------------------------------

    def configure(self, values: dict[str, Any]) -> None:
        """Load model, robot and map."""
        self._robot = load_robot(self._parameter("robot"))
        file = find_bundle(self._parameter("bundle"), model_search_path(os.environ, [_here()]))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ProviderWarning)
            self._model = load_navigation_model(
                file, self._parameter("threads"), self._parameter("provider")
            )
        for warning in caught:
            self.get_logger().warning(str(warning.message))
        if self._parameter("visualnav_topics"):
            self._visualnav = (
                self.hold(self.create_publisher(Float32MultiArray, "/waypoint", 1)),
                self.hold(self.create_publisher(Bool, "/topoplan/reached_goal", 1)),
            )
        spec = self._model.spec
        map_path = self._parameter("map")
        loaded = self._load(map_path) if map_path else None
        self._runner = NavigationRunner(
            self._make_core(loaded),
            CameraWatch(
                CameraLimits(
                    timeout_s=self._parameter("camera_timeout_s"),
                    frozen_s=self._parameter("frozen_s"),
                )
            ),
            RunnerSettings(
                period_s=1.0 / spec.rate_hz,
                horizon=spec.horizon,
                camera_grace_s=self._parameter("camera_grace_s"),
            ),
            self._make_clock,
            self._send_path,
            self._on_tick,
            self._on_inference_error,
            self._on_clock_set,
        )
        nodes = f"map {loaded.name} with {len(loaded)} nodes" if loaded else "no map"
        self.get_logger().info(f"{spec.name} ({spec.kind}) for {self._robot.name}, {nodes}")

    def _make_core(self, topological_map: TopologicalMap | None) -> NavigationCore:
        assert self._model is not None and self._robot is not None
        config = replace(
            _DEFAULTS,
            close_threshold_steps=self._parameter("close_threshold_steps"),
            reach_distance_steps=self._parameter("reach_distance_steps"),
            no_progress_s=self._parameter("no_progress_s"),
            lost_timeout_s=self._parameter("lost_timeout_s"),
            turn_rate_rad_s=min(self._parameter("turn_rate_rad_s"), self._robot.max_angular_rad_s),
            can_turn=self._robot.kinematics != "ackermann",
            num_samples=self._parameter("num_samples"),
            seed=self._parameter("seed"),
        )
        return NavigationCore(self._model, topological_map, self._robot.waypoint_spacing_m, config)

    def _load(self, path: str) -> TopologicalMap:
        assert self._model is not None
        return load_map(path, MapModel.of(self._model.spec))

    def activate(self) -> None:
        """Look at the camera with no memory of before; nothing moves until a goal is given."""
        assert self._runner is not None
        self.check_no_contradiction("waypoints")
        self._report = None
        self._images = self._bad_images = self._inference_failures = 0
        self._graph_sent_s = -math.inf
        self._odometry.reset()
        self._runner.start()
        source = image_source(self._parameter("image_transport"))
        images = self.create_subscription(*source, self._on_image, _NEWEST)
        odometry = self.create_subscription(Odometry, "odom", self._on_odometry, _NEWEST)
        hint = "choose another camera_topic, or let the driver publish images as they are"
        self.hold(self.watch.add(images, hint, one_sender=True))
        self.hold(self.watch.add(odometry, one_sender=True))
        self.hold(self.create_timer(1.0 / BEAT_HZ, self._beat, clock=self.steady_clock))

    def rest(self, reason: str) -> None:
        """End a running goal, say stop, and tick no more."""
        assert self._runner is not None
        if not self._runner.stop(reason):
            self.get_logger().error("an inference did not return in time")

    def release(self) -> None:
        """Release model and map."""
        self._visualnav = None
        self._runner = None
        self._model = None
        self._robot = None
        self._report = None

    def _parameter(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _make_clock(self, stop: StopSignal) -> TickClock:
        clock = self.get_clock()
        if isinstance(clock, ROSClock) and clock.ros_time_is_active:
            return SimulatedTickClock(
                clock,
                stop.event,
                self._parameter("camera_grace_s") + 1.0,
                lambda message: stop.set(StopReason.STALE_CAMERA, message),
            )
        return _RosTickClock(clock, stop)

    def _now_s(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    # --- input -----------------------------------------------------------------------------

    def _on_image(self, message: Image | CompressedImage) -> None:
        runner = self._runner
        if runner is None or not self.active:
            return
        try:
            image = self._converter.rgb(message)
        except ImageError as error:
            self._bad_images += 1
            runner.refuse_image(str(error))
            self.get_logger().error(f"image refused: {error}", throttle_duration_sec=5.0)
            return
        self._images += 1
        runner.push_image(image, _seconds(message.header.stamp))
        # At once, not at the next beat: a bad image must not be driven on.
        runner.look(self._now_s())

    def _on_odometry(self, message: Odometry) -> None:
        if self._runner is None or not self.active:
            return
        twist = message.twist.twist
        moves = (
            math.hypot(twist.linear.x, twist.linear.y) > _MOVING_M_S
            or abs(twist.angular.z) > _MOVING_RAD_S
        )
        pose = odometry_pose(message)
        if self._odometry.accept(pose, self._now_s(), time.monotonic()):
            self._runner.push_odometry(pose, moves)

    def _beat(self) -> None:
        if self._runner is not None and self.active:
            self._runner.beat(self._now_s())

    def _on_load_map(self, request: LoadMap.Request, response: LoadMap.Response) -> Any:
        runner = self._runner
        if runner is None:
            response.message = "found the node unconfigured, expected a configured one"
            return response
        if runner.busy:
            response.message = "found a goal running, expected none: cancel it first"
            return response
        try:
            loaded = self._load(request.path)
            core = self._make_core(loaded)
        except (MapError, ValueError) as error:
            response.message = f"{error}; the map before stays"
            self.get_logger().error(f"map refused: {error}")
            return response
        if not runner.swap(core):
            response.message = "a goal was given meanwhile: cancel it first"
            return response
        self._graph_sent_s = -math.inf
        response.success = True
        response.nodes, response.edges = len(loaded), len(loaded.edges)
        response.message = f"map {loaded.name}"
        self.get_logger().info(f"map {loaded.name}: {response.nodes} nodes")
        return response

    # --- goals -----------------------------------------------------------------------------

    def _cancel_goal(self, goal: Goal) -> None:
        if self._runner is not None:
            self._runner.cancel(goal)

    def _on_navigate(
        self, goal_handle: ServerGoalHandle[Any, Any, Any], goal: Goal
    ) -> tuple[ActionEnd, NavigateToGoal.Result]:
        """Run one goal; called in a thread of its own."""
        request = goal_handle.request
        refusal = _time_problem("timeout_s", request.timeout_s)
        if refusal is None and goal.target == "":
            try:
                goal.target = ImageConverter(self._say_warning).rgb(request.goal_image)
            except ImageError as error:
                refusal = GoalEnd(
                    EndCode.UNKNOWN_GOAL,
                    f"found neither goal_node nor a usable goal_image ({error}), expected one",
                )
        end = refusal or self._run_goal(goal_handle, goal, self._navigate_feedback)
        if end.code not in _NAVIGATE_REASONS:
            end = replace(end, code=EndCode.INFERENCE_FAILED)
        return _ACTION_ENDS.get(end.code, ActionEnd.ABORTED), NavigateToGoal.Result(
            reason=_NAVIGATE_REASONS[end.code],
            message=end.message,
            final_node=end.node,
            final_distance_steps=end.distance_steps,
            duration_s=end.duration_s,
            replans=end.replans,
        )

    def _on_explore(
        self, goal_handle: ServerGoalHandle[Any, Any, Any], goal: Goal
    ) -> tuple[ActionEnd, Explore.Result]:
        """Drive without a goal; called in a thread of its own."""
        end = _time_problem("duration_s", goal.timeout_s) or self._run_goal(
            goal_handle, goal, self._explore_feedback
        )
        if end.code not in _EXPLORE_REASONS:
            end = replace(end, code=EndCode.INFERENCE_FAILED)
        return _ACTION_ENDS.get(end.code, ActionEnd.ABORTED), Explore.Result(
            reason=_EXPLORE_REASONS[end.code], message=end.message, duration_s=end.duration_s
        )

    def _run_goal(
        self, goal_handle: ServerGoalHandle[Any, Any, Any], goal: Goal, feedback: Any
    ) -> GoalEnd:
        runner = self._runner
        if runner is None or not self.active:
            return GoalEnd(EndCode.INACTIVE, "the navigator is not active: activate it")
        refusal = runner.begin(goal)
        if refusal is not None:
            return refusal
        last: TickReport | None = None
        start_s = time.monotonic()
        while not goal.ended.wait(0.02):
            report = self._report
            if report is not None and report is not last:
                last = report
                goal_handle.publish_feedback(feedback(report, time.monotonic() - start_s))
        assert goal.end is not None
        end = goal.end
        say: Any = self.get_logger().info
        if end.code not in (EndCode.REACHED, EndCode.DURATION, EndCode.CANCELLED):
            say = self._say_warning
        say(f"goal ended, {end.code}: {end.message}")
        return end

    def _say_warning(self, message: str) -> None:
        self.get_logger().warning(message)

    def _navigate_feedback(self, report: TickReport, elapsed_s: float) -> Any:
        decision = report.decision
        return NavigateToGoal.Feedback(
            node=_node(decision.node),
            subgoal=_node(decision.subgoal),
            distance_steps=float(decision.distance_steps),
            route_steps=float(decision.route_steps),
            confidence=float(decision.confidence),
            progress=float(decision.progress),
            message=decision.message,
        )

    def _explore_feedback(self, report: TickReport, elapsed_s: float) -> Any:
        return Explore.Feedback(elapsed_s=elapsed_s, message=report.decision.message)

    # --- output ----------------------------------------------------------------------------

    def _send_path(self, path: PathOut) -> None:
        stamp_s = path.stamp_s if len(path.waypoints) else self._now_s()
        self._waypoints.publish(waypoint_path(path.waypoints, stamp_s, ROBOT_FRAME))

    def _on_inference_error(self, message: str) -> None:
        self._inference_failures += 1
        self.get_logger().error(f"inference failed: {message}", throttle_duration_sec=2.0)

    def _on_clock_set(self, back_s: float) -> None:
        self.get_logger().warning(
            f"the clock was set back by {back_s:.2f} s: images and odometry begin anew"
        )

    def _on_tick(self, report: TickReport) -> None:
        """Publish what a tick found; called in the worker's thread."""
        self._report = report
        self._tick_s.add(report.tick_s)
        decision, runner = report.decision, self._runner
        if runner is None:
            return
        topological_map, planner = runner.core.map, runner.core.planner
        stamp = self.get_clock().now().to_msg()
        status = NavigationStatus(
            state=int(decision.state),
            map=topological_map.name if topological_map is not None else "",
            node=_node(decision.node),
            subgoal=_node(decision.subgoal),
            goal=_node(decision.goal),
            distance_steps=float(decision.distance_steps),
            route_steps=float(decision.route_steps),
            confidence=float(decision.confidence),
            progress=float(decision.progress),
            message=decision.message,
            tick_ms=report.tick_s * 1e3,
        )
        if self._visualnav is not None:
            self._publish_visualnav(runner.path, decision)
        status.header.stamp = stamp if math.isnan(decision.stamp_s) else _time(decision.stamp_s)
        status.header.frame_id = ROBOT_FRAME
        self._status.publish(status)
        if topological_map is None or planner is None:
            return
        route: list[int] = []
        if decision.goal is not None and decision.node is not None and planner.goal is not None:
            route = planner.route(decision.node, _MAX_ROUTE_NODES)
        if route != self._route_sent:
            self._route_sent = route
            self._route.publish(route_path(topological_map, route, stamp))
        self._publish_markers(topological_map, report, route, stamp)
        if report.image is not None and self._annotated.get_subscription_count() > 0:
            assert self._robot is not None
            picture = annotated_image(
                report.image, self._robot.camera, decision, topological_map, decision.message
            )
            self._annotated.publish(image_message(picture, stamp, "camera"))

    def _publish_visualnav(self, path: PathOut | None, decision: NavigationDecision) -> None:
        """What the original deployment publishes: one waypoint in metres, and whether it arrived.

        Four zeros are its way to say stop; the goal stays reached until there is another.
        """
        assert self._robot is not None and self._visualnav is not None
        data = [0.0] * 4
        if path is not None and len(path.waypoints):
            index = min(self._robot.drive.waypoint_index, len(path.waypoints) - 1)
            x_m, y_m, yaw_rad = (float(value) for value in path.waypoints[index])
            data = [x_m, y_m, math.cos(yaw_rad), math.sin(yaw_rad)]
        self._reached = decision.reached or (self._reached and decision.goal is None)
        waypoints, reached = self._visualnav
        waypoints.publish(Float32MultiArray(data=data))
        reached.publish(Bool(data=self._reached))

    def _publish_markers(
        self, topological_map: TopologicalMap, report: TickReport, route: list[int], stamp: Time
    ) -> None:
        readers = self._markers.get_subscription_count()
        if readers == 0:
            return
        markers = belief_markers(topological_map, report.decision, route, stamp)
        steady_s = time.monotonic()
        # Late readers need the whole graph, and a large one is too much for every tick.
        if readers != self._graph_readers or steady_s - self._graph_sent_s > _GRAPH_PERIOD_S:
            markers = graph_markers(topological_map, stamp) + markers
            self._graph_readers, self._graph_sent_s = readers, steady_s
        self._markers.publish(marker_array(markers))

    def find_problems(self) -> list[str]:
        """Inputs and outputs, and odometry."""
        problems = self.watch.problems() if self.active else []
        if self.active and (problem := self._odometry.problem(time.monotonic())):
            self.get_logger().warning(problem, throttle_duration_sec=10.0)
            problems.append(problem)
        return problems

    def report(self) -> None:
        """Publish the diagnostics."""
        report, runner, model = self._report, self._runner, self._model
        level, message = OK, "unconfigured"
        values: dict[str, object] = {}
        if runner is not None and model is not None:
            message = "inactive"
            topological_map = runner.core.map
            values |= {
                "model": model.spec.name,
                "map": topological_map.name if topological_map is not None else "",
                "map_nodes": len(topological_map) if topological_map is not None else 0,
            }
        if self.active:
            message = "waiting for the first tick"
            ticks = self._tick_s.percentiles()
            values |= {
                "images": self._images,
                "images_refused": self._bad_images,
                "inference_failures": self._inference_failures,
                "tick_p50_ms": ticks.p50 * 1e3,
                "tick_p99_ms": ticks.p99 * 1e3,
            }
            if report is not None:
                message = f"{report.decision.state.name.lower()}: {report.decision.message}"
                values |= {
                    "node": _node(report.decision.node),
                    "goal": _node(report.decision.goal),
                    "confidence": round(report.decision.confidence, 3),
                }
                if report.fault is not None:
                    level = WARN
                    values["camera"] = report.fault.problem.value
                if report.failure:
                    level = ERROR
            values |= {f"odometry_refused_{c}": n for c, n in self._odometry.refused.items()}
        self.publish_health(level, message, values, hardware_id=self._parameter("robot"))


def _here() -> FilePath:
    return FilePath.cwd()


def _goal(request: Any) -> Goal:
    """What a request asks for; an image of the place is read later, and "" stands for it."""
    if isinstance(request, Explore.Goal):
        return Goal(None, request.duration_s, int(request.seed))
    return Goal(request.goal_node.strip(), request.timeout_s)


def _node(node: int | None) -> int:
    return -1 if node is None else node


def _seconds(stamp: Time) -> float:
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9


def _time(seconds: float) -> Time:
    whole, nanoseconds = divmod(round(seconds * 1e9), 1_000_000_000)
    return Time(sec=whole, nanosec=nanoseconds)


def _time_problem(name: str, value_s: float) -> GoalEnd | None:
    if math.isfinite(value_s) and value_s >= 0.0:
        return None
    return GoalEnd(
        EndCode.UNKNOWN_GOAL if name == "timeout_s" else EndCode.UNSUPPORTED,
        f"found {name} {value_s}, expected 0 (no limit) or a positive time",
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is shut down; return the exit status."""
    cv2.setNumThreads(1)
    return run_node(
        "navigator",
        lambda _: NavigatorNode(),
        arguments=arguments,
        on_end=lambda node: node.come_to_rest("the node was interrupted"),
        switches_quickly=True,
    )


if __name__ == "__main__":
    sys.exit(main())
