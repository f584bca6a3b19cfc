"""Runs navigation at its rate in a thread of its own: one goal at a time, a coded end for each.

Two threads meet here. The caller's thread (a ROS executor) brings images and asks at every beat
whether the last path still holds; the worker infers. A fault of the camera takes the path away at
the next beat, whatever the worker does at that time.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from base_drivers.velocity import STREAM_TIMEOUT_S
from node_common.pacing import Pacer, TickClock
from numpy.typing import NDArray
from policy_server.episode import Reason as StopReason
from policy_server.episode import StopSignal

from gnm_nav.camera_watch import CameraFault, CameraProblem, CameraWatch
from gnm_nav.navigation import (
    FailureCode,
    NavigationCore,
    NavigationDecision,
    NavigationError,
    NavigationState,
)
from gnm_nav.planar_pose import StampedPose

_PATIENCE_S = 0.5 * STREAM_TIMEOUT_S
"""The follower slows down after so much silence, see `strength`."""
_INBOX_IMAGES = 64
_INBOX_ODOMETRY = 256
_END_WAIT_S = 10.0
_NO_ODOMETRY_S = 1.0
_SET_BACK_S = 0.5
"""A clock that goes back by more was set; by less, two threads have read it in turn."""
_SET_OFF_S = 1.0
"""Without odometry, a robot that is told to drive counts as moving after so long."""


class EndCode(StrEnum):
    """Why a goal ended."""

    REACHED = "reached"
    DURATION = "duration"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    UNKNOWN_GOAL = "unknown_goal"
    UNREACHABLE = "unreachable"
    LOST = "lost"
    NO_MAP = "no_map"
    STALE_CAMERA = "stale_camera"
    DARK_CAMERA = "dark_camera"
    UNSUPPORTED = "unsupported"
    BUSY = "busy"
    INACTIVE = "inactive"
    INFERENCE_FAILED = "inference_failed"


_FAILURES = {
    FailureCode.UNKNOWN_GOAL: EndCode.UNKNOWN_GOAL,
    FailureCode.UNREACHABLE: EndCode.UNREACHABLE,
    FailureCode.LOST: EndCode.LOST,
    FailureCode.NO_MAP: EndCode.NO_MAP,
}


@dataclass(frozen=True)
class GoalEnd:
    """How a goal ended.

    Attributes:
        code: the reason.
        message: for people.
        node: where the robot believed to be, -1: not known.
        distance_steps: predicted distance to that node, NaN: not known.
        duration_s: since the goal was accepted, on the clock of the stamps.
        replans: times that a part of the map was found blocked.
    """

    code: EndCode
    message: str
    node: int = -1
    distance_steps: float = math.nan
    duration_s: float = 0.0
    replans: int = 0


class Goal:
    """A goal that was accepted; `wait` gives its end.

    Args:
        target: id, name or "last"; or a picture of the place, RGB (H, W, 3) uint8; or None: drive
            without a goal.
        timeout_s: time until it is given up, or until driving without a goal has lasted long
            enough; 0: no limit.
        seed: of a diffusion model's noise, for driving without a goal.
    """

    def __init__(
        self, target: str | NDArray[np.uint8] | None, timeout_s: float = 0.0, seed: int = 0
    ) -> None:
        self.target = target
        self.timeout_s = timeout_s
        self.seed = seed
        self.started_s: float | None = None
        self.end: GoalEnd | None = None
        self.cancelled = threading.Event()
        self.ended = threading.Event()


@dataclass(frozen=True)
class PathOut:
    """A path to be followed.

    Attributes:
        waypoints: (T, 3) x forward, y left [m], yaw [rad] in the robot's frame, one model step
            apart; T = 0: stop.
        stamp_s: time of the image behind it.
        blind: it is to be followed although the picture shows nothing.
    """

    waypoints: NDArray[np.float64]
    stamp_s: float
    blind: bool = False


@dataclass(frozen=True)
class TickReport:
    """One tick.

    Attributes:
        decision: what was decided; while the camera is at fault, that the robot waits.
        tick_s: time that deciding took.
        fault: of the camera.
        failure: why inference failed, or empty.
        image: the newest camera image, RGB, or None.
    """

    decision: NavigationDecision
    tick_s: float
    fault: CameraFault | None
    failure: str
    image: NDArray[np.uint8] | None


@dataclass(frozen=True)
class RunnerSettings:
    """How goals are run.

    Attributes:
        period_s: time between ticks.
        horizon: waypoints of a path for turning on the spot.
        camera_grace_s: a fault of the camera stops the robot at once, and ends the goal after this
            time.
        first_image_s: how long to wait for a first image.
        farewell_s: how long "stop" is repeated after the end of a goal.
        path_age_s: age of the image behind a path up to which it is repeated.
    """

    period_s: float
    horizon: int
    camera_grace_s: float = 2.0
    first_image_s: float = 5.0
    farewell_s: float = 0.5
    path_age_s: float = 0.8


class NavigationRunner:
    """See the module. `start` it, feed it, `stop` it.

    Args:
        core: navigation on the loaded map.
        watch: of the camera; only the runner uses it from now on.
        settings: how goals are run.
        make_clock: makes the clock of the stamps, which a signal interrupts.
        publish: sends a path; called from both threads, never at the same time.
        on_tick: told of each tick, in the worker's thread.
        on_error: told of an inference that failed, in the worker's thread.
        on_clock_set: told by how much the clock was set back [s], in either thread.
    """

    def __init__(
        self,
        core: NavigationCore,
        watch: CameraWatch,
        settings: RunnerSettings,
        make_clock: Callable[[StopSignal], TickClock],
        publish: Callable[[PathOut], None],
        on_tick: Callable[[TickReport], None],
        on_error: Callable[[str], None],
        on_clock_set: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self._core = core
        self._watch = watch
        self._make_clock = make_clock
        self._publish = publish
        self._on_tick = on_tick
        self._on_error = on_error
        self._on_clock_set = on_clock_set
        self._lock = threading.RLock()
        self._inbox: deque[tuple[NDArray[np.uint8], float]] = deque(maxlen=_INBOX_IMAGES)
        self._odometry_inbox: deque[StampedPose] = deque(maxlen=_INBOX_ODOMETRY)
        self._image: NDArray[np.uint8] | None = None
        self._goal: Goal | None = None
        self._path: PathOut | None = None
        self._ended_s = -math.inf
        self._fault: CameraFault | None = None
        # Without images, and of images that show nothing: one that is late does not end a goal
        # because nothing was to be seen for long.
        self._missing_since_s = self._blind_since_s = math.inf
        self._odometry_s = -math.inf
        self._now_s = -math.inf
        self._set_back_s = 0.0
        self._decision = NavigationDecision(NavigationState.IDLE)
        self._stop: StopSignal | None = None
        self._closing = False
        self._thread: threading.Thread | None = None

    # --- the caller's thread ---------------------------------------------------------------

    @property
    def core(self) -> NavigationCore:
        """Navigation on the current map."""
        return self._core

    @property
    def busy(self) -> bool:
        """Whether a goal is running."""
        return self._goal is not None

    @property
    def path(self) -> PathOut | None:
        """The path that holds now, None: stand."""
        return self._path

    def start(self) -> None:
        """Forget what was seen before, and begin to tick."""
        with self._lock:
            self._watch.reset()
            self._inbox.clear()
            self._core.forget_frames()
            self._core.forget_place()
            self._core.clear_goal()
            self._path = None
            self._fault = None
            self._missing_since_s, self._blind_since_s = time.monotonic(), math.inf
            self._now_s = -math.inf
            self._set_back_s = 0.0
            self._closing = False
        self._thread = threading.Thread(target=self._run, name="navigation", daemon=True)
        self._thread.start()

    def stop(self, message: str) -> bool:
        """End a running goal and the ticking; return False when the worker does not end."""
        with self._lock:
            self._closing = True
            self._hold()
            if self._stop is not None:
                self._stop.set(StopReason.INACTIVE, message)
        thread = self._thread
        if thread is None:
            return True
        thread.join(_END_WAIT_S)
        with self._lock:
            self._finish(EndCode.INACTIVE, message)
        if thread.is_alive():
            return False
        self._thread = None
        return True

    def begin(self, goal: Goal) -> GoalEnd | None:
        """Take a goal; return why not, None when it was taken."""
        with self._lock:
            if self._closing or self._thread is None:
                return GoalEnd(EndCode.INACTIVE, "the navigator is not active: activate it")
            if self._goal is not None:
                return GoalEnd(EndCode.BUSY, "another goal is running: cancel it first")
            self._goal = goal
            self._missing_since_s = self._blind_since_s = math.inf
            if self._fault is not None:
                self._note_fault(self._fault, time.monotonic())
        return None

    def swap(self, core: NavigationCore) -> bool:
        """Navigate on another map from the next tick on; return False while a goal runs."""
        with self._lock:
            if self._goal is not None:
                return False
            self._core = core
            return True

    def push_image(self, image: NDArray[np.uint8], stamp_s: float) -> None:
        """Take a camera image, RGB (H, W, 3) uint8, with its stamp."""
        with self._lock:
            self._watch.push(image, stamp_s, time.monotonic())
            self._inbox.append((image, stamp_s))
            self._image = image

    def refuse_image(self, reason: str) -> None:
        """Take note of an image that could not be read."""
        with self._lock:
            self._watch.refuse(reason, time.monotonic())

    def look(self, now_s: float) -> None:
        """Look at the camera; a fault takes the path away."""
        with self._lock:
            self._look(now_s, time.monotonic())

    def cancel(self, goal: Goal) -> None:
        """Stand at once, and end the goal at the next tick."""
        with self._lock:
            goal.cancelled.set()
            if self._goal is goal:
                self._hold()

    def push_odometry(self, pose: StampedPose, moves: bool) -> None:
        """Take odometry: the pose, and whether the robot moves, see `CameraWatch.moving`."""
        with self._lock:
            self._odometry_s = time.monotonic()
            self._odometry_inbox.append(pose)
            self._watch.moving(moves, pose[0], self._odometry_s)

    def beat(self, now_s: float) -> None:
        """Look at the camera, and say again what holds: a path, or stop.

        Receivers tell by these repetitions that the navigator is alive.
        """
        with self._lock:
            steady_s = time.monotonic()
            if steady_s - self._odometry_s > _NO_ODOMETRY_S:
                told = self._path is not None and bool(self._path.waypoints.any())
                self._watch.moving(told, now_s + _SET_OFF_S, steady_s + _SET_OFF_S)
            self._look(now_s, steady_s)
            if self._path is not None:
                if now_s - self._path.stamp_s > self.settings.path_age_s:
                    self._hold()
                else:
                    self._say(self._path, steady_s)
            elif self._goal is not None or steady_s - self._ended_s < self.settings.farewell_s:
                self._publish(_STAND)

    # --- shared; the lock is held ------------------------------------------------------------

    def _look(self, now_s: float, steady_s: float) -> CameraFault | None:
        if now_s < self._now_s - _SET_BACK_S:
            # By its old stamp, the path would hold until the clock has caught up.
            self._hold()
            self._set_back_s += now_s - self._now_s
            self._on_clock_set(self._now_s - now_s)
        self._now_s = now_s
        fault = self._watch.check(now_s, steady_s)
        if fault is None:
            self._missing_since_s = self._blind_since_s = math.inf
        else:
            self._note_fault(fault, steady_s)
            if self._path is None or not _may_follow(self._path, fault):
                self._hold()
        self._fault = fault
        return fault

    def _note_fault(self, fault: CameraFault, steady_s: float) -> None:
        if fault.problem.is_picture:
            self._blind_since_s = min(self._blind_since_s, steady_s)
            self._missing_since_s = math.inf
        else:
            self._missing_since_s = min(self._missing_since_s, steady_s)

    def _say(self, path: PathOut, steady_s: float) -> None:
        """Publish a path, unless the next image will be overdue before receivers mind the silence.

        They slow the robot down then, which stands the sooner if the camera is dead.
        """
        if path.blind or not self._watch.is_late(steady_s + _PATIENCE_S):
            self._publish(path)

    def _hold(self) -> None:
        """Take the path away, and say so at once."""
        if self._path is not None:
            self._path = None
            self._publish(_STAND)

    def _finish(self, code: EndCode, message: str, now_s: float | None = None) -> None:
        goal = self._goal
        if goal is None:
            return
        decision = self._decision
        started_s = goal.started_s
        goal.end = GoalEnd(
            code,
            message,
            -1 if decision.node is None else decision.node,
            decision.distance_steps,
            0.0 if started_s is None or now_s is None else max(0.0, now_s - started_s),
            decision.replans,
        )
        self._goal = None
        self._ended_s = time.monotonic()
        self._hold()
        self._core.clear_goal()
        goal.ended.set()

    # --- the worker's thread -----------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            with self._lock:
                if self._closing:
                    return
                stop = self._stop = StopSignal()
            clock = self._make_clock(stop)
            pacer = Pacer(self.settings.period_s, clock)
            try:
                while pacer.wait() and not self._closing:
                    self._tick(clock.now())
            finally:
                close = getattr(clock, "close", None)
                if close is not None:
                    close()
            if stop.reason is StopReason.STALE_CAMERA:
                # A simulated clock that stands; wait for it again.
                with self._lock:
                    self._finish(EndCode.STALE_CAMERA, stop.message)

    def _tick(self, now_s: float) -> None:
        with self._lock:
            core, goal, image = self._core, self._goal, self._image
            images, odometry = list(self._inbox), list(self._odometry_inbox)
            self._inbox.clear()
            self._odometry_inbox.clear()
            fault = self._look(now_s, time.monotonic())
            set_by_s, self._set_back_s = self._set_back_s, 0.0
        if set_by_s:
            core.shift_clock(set_by_s)
            if goal is not None and goal.started_s is not None:
                goal.started_s += set_by_s
        if goal is not None and not self._prepare(core, goal, now_s):
            return
        # What lies ahead of the clock must not be remembered: all that is right would be older.
        latest_s = now_s + self._watch.limits.future_tolerance_s
        for pose in odometry:
            if pose[0] <= latest_s:
                core.push_odometry(*pose)
        for frame, stamp_s in images:
            if stamp_s <= latest_s:
                core.push_frame(frame, stamp_s)
        start_s = time.perf_counter()
        failure = ""
        flat = fault is not None and fault.problem is CameraProblem.FLAT
        recovery = core.recover_sight(now_s) if flat else None
        if recovery is not None:
            decision = recovery
            self._conclude(goal, decision, self._path_of(decision, blind=True), "", now_s)
        elif fault is not None:
            decision = NavigationDecision(
                NavigationState.WAITING, message=fault.message, goal=core.goal
            )
            self._end_by_camera(fault, now_s)
        else:
            try:
                decision = core.tick(now_s)
                path = self._path_of(decision)
            except Exception as error:
                # Whatever a model or a map does: the robot stands, and the node goes on.
                failure = f"{type(error).__name__}: {error}"
                decision, path = NavigationDecision(NavigationState.WAITING, message=failure), None
                self._on_error(failure)
            self._conclude(goal, decision, path, failure, now_s)
        tick_s = time.perf_counter() - start_s
        self._on_tick(TickReport(decision, tick_s, fault, failure, image))

    def _prepare(self, core: NavigationCore, goal: Goal, now_s: float) -> bool:
        """Start a new goal, end one that is over; return whether it goes on."""
        try:
            if goal.started_s is None:
                goal.started_s = now_s
                if goal.target is None:
                    core.set_explore(True, goal.seed)
                elif isinstance(goal.target, str):
                    core.set_goal_node(goal.target)
                else:
                    core.set_goal_image(goal.target)
        except NavigationError as error:
            code, message = _FAILURES[error.code], str(error)
        except ValueError as error:
            code, message = EndCode.UNSUPPORTED, str(error)
        except Exception as error:
            code, message = EndCode.INFERENCE_FAILED, f"{type(error).__name__}: {error}"
            self._on_error(message)
        else:
            if goal.cancelled.is_set():
                code, message = EndCode.CANCELLED, "cancelled by the caller"
            elif goal.timeout_s > 0.0 and now_s - goal.started_s >= goal.timeout_s:
                code = EndCode.DURATION if goal.target is None else EndCode.TIMEOUT
                message = f"after {goal.timeout_s:g} s"
            else:
                return True
        with self._lock:
            if self._goal is goal:
                self._finish(code, message, now_s)
        return False

    def _path_of(self, decision: NavigationDecision, blind: bool = False) -> PathOut | None:
        waypoints = decision.waypoints_m
        if waypoints is None and decision.turn_rate_rad_s is not None:
            waypoints = np.zeros((self.settings.horizon, 3))
            waypoints[:, 2] = (
                decision.turn_rate_rad_s
                * self.settings.period_s
                * np.arange(1, self.settings.horizon + 1)
            )
        if waypoints is None:
            return None
        if not np.isfinite(waypoints).all():
            raise ValueError(f"found waypoints {waypoints.tolist()}, expected finite numbers")
        return PathOut(waypoints, decision.stamp_s, blind)

    def _conclude(
        self,
        goal: Goal | None,
        decision: NavigationDecision,
        path: PathOut | None,
        failure: str,
        now_s: float,
    ) -> None:
        with self._lock:
            self._decision = decision
            # The world may have changed while the worker was inferring.
            if goal is None or self._goal is not goal or self._closing:
                self._hold()
                return
            if path is None or not _may_follow(path, self._fault) or goal.cancelled.is_set():
                self._hold()
            else:
                self._path = path
                self._say(path, time.monotonic())
            if failure:
                self._finish(EndCode.INFERENCE_FAILED, failure, now_s)
            elif decision.reached:
                self._finish(EndCode.REACHED, decision.message, now_s)
            elif decision.code is not None:
                self._finish(_FAILURES[decision.code], decision.message, now_s)

    def _end_by_camera(self, fault: CameraFault, now_s: float) -> None:
        with self._lock:
            self._hold()
            is_picture = fault.problem.is_picture
            since_s = self._blind_since_s if is_picture else self._missing_since_s
            lasting_s = time.monotonic() - since_s
            grace_s = self.settings.camera_grace_s
            if math.isnan(self._decision.stamp_s):
                grace_s = max(grace_s, self.settings.first_image_s)
            if lasting_s > grace_s:
                code = EndCode.DARK_CAMERA if is_picture else EndCode.STALE_CAMERA
                self._finish(code, fault.message, now_s)


def _may_follow(path: PathOut, fault: CameraFault | None) -> bool:
    return fault is None or (path.blind and fault.problem is CameraProblem.FLAT)


_STAND = PathOut(np.zeros((0, 3)), 0.0)
