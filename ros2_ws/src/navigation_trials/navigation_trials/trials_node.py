"""Node `navigation_trials`: maps simulated worlds, lets the navigator drive there, and judges it.

The expert drives each way once, in a simulation of this process; the map is built from that drive.
Then the navigator, the path follower, the guard and the simulated base drive it again through the
ROS graph, from other starts. Judged is by the truth of the simulation, never by what the robot
believes.
"""

from __future__ import annotations

import datetime
import math
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from base_drivers.robot_config import RobotConfig, RobotConfigError, load_robot
from episode_tools.report import software_versions
from geometry_msgs.msg import Pose2D
from gnm_nav.map_directory import load_map, save_map
from gnm_nav.topological_map import MapError
from node_common.declared_parameters import declare_parameters
from node_common.parameters import NodeParameter
from node_common.strict_yaml import BundleError
from policy_interfaces.action import NavigateToGoal
from policy_interfaces.msg import BaseSimStatus, NavigationStatus
from policy_interfaces.srv import LoadMap, ResetWorld
from policy_server.bundle import find_bundle, model_search_path
from policy_server.navigation_model import NavigationModel, load_navigation_model
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from robot_sim.navigation.route import NoRoute
from robot_sim.navigation.world import FIRST_TEST_SEED, KINDS, make_world

from navigation_trials.courses import (
    FOUND_LIMIT_S,
    FOUND_RADIUS_M,
    FOUND_TICKS,
    GOAL_RADIUS_M,
    HORIZON_STEPS,
    TASKS,
    MappedWorld,
    Pose,
    disturbed,
    load_truth,
    map_two_ways,
    map_way,
    minimum_way_m,
    save_truth,
)
from navigation_trials.trial_report import TrialRecord, line, summary, write_report

_KIDNAP_AFTER_S = (5.0, 10.0)
_KIDNAP_FAR_M = 4.0
_SERVICE_WAIT_S = 120.0
_SETTLE_S = 3.0
_STILL_M = 0.01
_STILL_WINDOW_S = 0.3
_REASONS = {
    getattr(NavigateToGoal.Result, name): name.removeprefix("REASON_").lower()
    for name in dir(type(NavigateToGoal.Result))
    if name.startswith("REASON_")
}

PARAMETERS = (
    NodeParameter("robot", "locobot", "The robot that drives, as in the rest of the graph"),
    NodeParameter("bundle", "gnm_sim", "Navigation model: path of a bundle, or its name"),
    NodeParameter(
        "map", "", "Map of a simulated world that was kept by keep_map; empty: drive and build one"
    ),
    NodeParameter("keep_map", "", "Where to keep the maps that are built; empty: nowhere"),
    NodeParameter("goal", "", 'Node, name or "last"; empty: the end of the mapped way'),
    NodeParameter("task", "reach", "What is tried", choices=TASKS),
    NodeParameter("world", "indoor", "Kind of worlds", choices=(*KINDS, "both")),
    NodeParameter(
        "seed", FIRST_TEST_SEED, "Seed of the first world", FIRST_TEST_SEED, 2**31 - 1001
    ),
    NodeParameter("worlds", 1, "Number of worlds", 1, 1000),
    NodeParameter("trials", 1, "Trials per world", 1, 1000),
    NodeParameter("report", "", "JSON report to write; empty: none"),
    NodeParameter("required_success", 0.0, "Rate below which the exit status is 1", 0.0, 1.0),
    NodeParameter("rtf", 1.0, "Of the simulation, for the report", 0.1, 20.0),
    NodeParameter("command_line", "", "For the report; empty: of this process"),
)


class TrialError(RuntimeError):
    """The graph does not do what the trials need."""


class Interrupted(RuntimeError):
    """Somebody wants the trials to end."""


class NavigationTrials(Node):
    """Runs all trials in the calling thread, and the node's callbacks in another one."""

    def __init__(self) -> None:
        super().__init__("navigation_trials")
        self._values = declare_parameters(self, PARAMETERS)
        self._stop = threading.Event()
        self._truth: deque[BaseSimStatus] = deque(maxlen=200)
        self._statuses: deque[NavigationStatus] = deque(maxlen=200)
        self.records: list[TrialRecord] = []
        self._robot: RobotConfig = load_robot(self._values["robot"])
        self._reset: Any = self.create_client(ResetWorld, "/robot_sim/reset_world")
        self._load: Any = self.create_client(LoadMap, "navigator/load_map")
        self._goals: Any = ActionClient(self, NavigateToGoal, "navigator/navigate_to_goal")
        self.create_subscription(
            BaseSimStatus, "/robot_sim/base_status", self._on_truth, QoSProfile(depth=20)
        )
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(NavigationStatus, "navigator/status", self._on_status, latched)

    # rclpy looks at a callback's signature, which a method of a deque does not have.

    def _on_truth(self, message: BaseSimStatus) -> None:
        self._truth.append(message)

    def _on_status(self, message: NavigationStatus) -> None:
        self._statuses.append(message)

    def interrupt(self, *_: object) -> None:
        """End the trials soon; what was measured is written."""
        self._stop.set()

    # --- all trials ------------------------------------------------------------------------

    def run(self) -> float:
        """Run all trials; return the rate of success.

        Raises:
            TrialError, Interrupted, BundleError, MapError: nothing more can be tried.
        """
        values = self._values
        file = find_bundle(values["bundle"], model_search_path(os.environ, [Path.cwd()]))
        model = load_navigation_model(file)
        for client in (self._reset, self._load):
            self._until(client.service_is_ready, _SERVICE_WAIT_S, f"service {client.srv_name}")
        self._until(self._goals.server_is_ready, _SERVICE_WAIT_S, "action navigate_to_goal")
        kept = Path(values["keep_map"]).expanduser() if values["keep_map"] else None
        kinds = KINDS if values["world"] == "both" else (values["world"],)
        with tempfile.TemporaryDirectory(prefix="navigation_trials_") as scratch:
            for index in range(values["worlds"]):
                kind, seed = kinds[index % len(kinds)], values["seed"] + index
                try:
                    mapped, path = self._mapped(model, kind, seed, kept or Path(scratch))
                except NoRoute as error:
                    self._say(f"{kind} world {seed} is left out: {error}")
                    continue
                self._run_world(mapped, path, model)
        rate = sum(record.success for record in self.records) / max(len(self.records), 1)
        self._say_summary()
        return rate

    def _mapped(
        self, model: NavigationModel, kind: str, seed: int, folder: Path
    ) -> tuple[MappedWorld, Path]:
        """The map of a world: the given one, or one that the expert drives now."""
        if self._values["map"]:
            path = Path(self._values["map"]).expanduser()
            return load_truth(load_map(path), path), path
        world = make_world(kind, seed)
        self._say(f"driving through {kind} world {seed} for a map ...")
        begin_s = time.monotonic()
        make = map_two_ways if self._values["task"] == "blocked" else map_way
        mapped = make(model, world, self._robot, seed, self._proceed)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._robot.name}_{kind}_{seed}"
        save_map(mapped.topological_map, path)
        save_truth(mapped, path)
        self._say(
            f"map with {len(mapped.truth)} nodes of {mapped.arcs_m[-1]:.1f} m "
            f"({time.monotonic() - begin_s:.0f} s)"
        )
        return mapped, path

    def _proceed(self) -> None:
        if self._stop.is_set():
            raise Interrupted

    def _run_world(self, mapped: MappedWorld, path: Path, model: NavigationModel) -> None:
        goal = mapped.goal
        if self._values["goal"]:
            goal = mapped.topological_map.node(self._values["goal"])
        rng = np.random.default_rng([mapped.seed, TASKS.index(self._values["task"])])
        world = make_world(mapped.kind, mapped.seed)
        for trial in range(self._values["trials"]):
            if mapped.opening >= 0:
                start: Pose = tuple(mapped.poses[0].tolist())
            else:
                start = self._start(mapped, goal, rng)
            way_m = mapped.remaining_m(start, goal)
            start = disturbed(world, self._robot, start, rng)
            self._reset_world(mapped, start)
            self._load_map(path)
            record = self._run_trial(mapped, goal, trial, way_m, start, rng)
            self.records.append(record)
            self._say(line(record))
            if self._values["report"]:
                self._write_report(model)

    def _start(self, mapped: MappedWorld, goal: int, rng: np.random.Generator) -> Pose:
        """A pose of the mapped drive from which the goal is far enough."""
        arcs = mapped.arcs_m
        end = int(np.hypot(*(mapped.poses[:, :2] - mapped.truth[goal, :2]).T).argmin())
        latest_m = max(0.0, float(arcs[end]) - minimum_way_m(self._robot))
        first = int(np.searchsorted(arcs, rng.uniform(0.0, latest_m)))
        x, y, yaw = mapped.poses[first]
        return float(x), float(y), float(yaw)

    # --- one trial -------------------------------------------------------------------------

    def _run_trial(
        self,
        mapped: MappedWorld,
        goal: int,
        trial: int,
        way_m: float,
        start: Pose,
        rng: np.random.Generator,
    ) -> TrialRecord:
        speed = self._robot.nominal_speed_m_s
        blocked = mapped.opening >= 0
        longest_m = 2.0 * mapped.short_m + mapped.detour_m if blocked else way_m
        limit_s = 3.0 * longest_m / speed + 40.0
        request = NavigateToGoal.Goal(goal_node=str(goal), timeout_s=limit_s)
        handle = self._answer(self._goals.send_goal_async(request), 30.0, "navigate_to_goal")
        if not handle.accepted:
            raise TrialError("the navigator did not accept a goal")
        future = handle.get_result_async()
        before = self._truth[-1]
        driven_m, collisions = 0.0, 0
        relocalised: bool | None = None
        relocalised_s = math.nan
        try:
            if self._values["task"] == "kidnapped":
                wait_s = float(rng.uniform(*_KIDNAP_AFTER_S))
                self._until(
                    lambda: future.done() or self._elapsed_s(before) > wait_s, 600.0, "driving"
                )
                if not future.done():
                    # A reset begins the simulation's counts anew.
                    driven_m = self._truth[-1].distance_m
                    collisions = self._truth[-1].collisions
                    found_s = self._kidnap(mapped, rng, future)
                    relocalised, relocalised_s = math.isfinite(found_s), found_s
            self._until(future.done, 20.0 * limit_s + 60.0, "the end of the drive")
        except Interrupted:
            handle.cancel_goal_async()
            self._stop.clear()
            self._until(future.done, 10.0, "the end of the cancelled goal")
            self._stop.set()
            raise
        result = future.result().result
        stopped = self._stands()
        truth = self._truth[-1]
        x, y, _ = mapped.truth[goal]
        away_m = math.hypot(truth.pose.position.x - x, truth.pose.position.y - y)
        reached = result.reason == NavigateToGoal.Result.REASON_REACHED
        reason = _REASONS.get(result.reason, str(result.reason))
        if reached and not (stopped and away_m <= GOAL_RADIUS_M):
            reason = "elsewhere" if stopped else "not_stopped"
        return TrialRecord(
            robot=self._robot.name,
            world=mapped.kind,
            world_seed=mapped.seed,
            trial=trial,
            task=self._values["task"],
            success=reached and stopped and away_m <= GOAL_RADIUS_M,
            reason=reason,
            message=result.message,
            way_m=way_m,
            horizons=way_m / (HORIZON_STEPS * self._robot.waypoint_spacing_m),
            away_m=away_m,
            stopped=stopped,
            driven_m=driven_m + truth.distance_m,
            time_s=result.duration_s,
            collisions=collisions + truth.collisions,
            replans=result.replans,
            nodes=len(mapped.truth),
            relocalised=relocalised,
            relocalised_s=relocalised_s,
        )

    def _kidnap(self, mapped: MappedWorld, rng: np.random.Generator, future: Any) -> float:
        """Put the driving robot elsewhere; return when it knew where, NaN: never [s]."""
        here = self._truth[-1].pose.position
        poses = mapped.poses
        far = np.flatnonzero(
            (np.hypot(poses[:, 0] - here.x, poses[:, 1] - here.y) > _KIDNAP_FAR_M)
            # Not at the very end, where there is nothing more to see.
            & (np.arange(len(poses)) < len(poses) - 12)
        )
        if not len(far):
            far = np.array([0])
        x, y, yaw = poses[int(rng.choice(far))]
        self._reset_world(mapped, (float(x), float(y), float(yaw)))
        begin = self._truth[-1]
        self._statuses.clear()
        held = 0

        def found() -> bool:
            nonlocal held
            while self._statuses:
                status = self._statuses.popleft()
                truth = self._truth[-1].pose.position
                right = 0 <= status.node < len(mapped.truth) and (
                    math.hypot(*(mapped.truth[status.node][:2] - (truth.x, truth.y)))
                    <= FOUND_RADIUS_M
                )
                held = held + 1 if right else 0
            return held >= FOUND_TICKS

        self._until(
            lambda: future.done() or found() or self._elapsed_s(begin) > FOUND_LIMIT_S,
            600.0,
            "relocalisation",
        )
        reached = (
            future.done() and future.result().result.reason == NavigateToGoal.Result.REASON_REACHED
        )
        return self._elapsed_s(begin) if held >= FOUND_TICKS or reached else math.nan

    def _elapsed_s(self, since: BaseSimStatus) -> float:
        return _seconds(self._truth[-1]) - _seconds(since)

    def _stands(self) -> bool:
        """Whether the robot comes to rest within `_SETTLE_S`."""
        begin = self._truth[-1]

        def still() -> bool:
            truths = list(self._truth)
            recent = [t for t in truths if _seconds(truths[-1]) - _seconds(t) < _STILL_WINDOW_S]
            if _seconds(recent[-1]) - _seconds(begin) < _STILL_WINDOW_S:
                return False
            a, b = recent[0].pose.position, recent[-1].pose.position
            return math.hypot(a.x - b.x, a.y - b.y) < _STILL_M

        self._until(lambda: still() or self._elapsed_s(begin) > _SETTLE_S, 60.0, "rest")
        return still()

    # --- the graph -------------------------------------------------------------------------

    def _reset_world(self, mapped: MappedWorld, start: Pose) -> None:
        request = ResetWorld.Request(
            world=mapped.kind,
            seed=mapped.seed,
            robot=self._values["robot"],
            start=Pose2D(x=start[0], y=start[1], theta=start[2]),
            use_start=True,
            blocked=[mapped.opening] if mapped.opening >= 0 else [],
        )
        episode = self._truth[-1].episode if self._truth else -1
        answer = self._answer(self._reset.call_async(request), _SERVICE_WAIT_S, "reset_world")
        if not answer.success:
            raise TrialError(f"reset_world: {answer.message}")
        self._until(
            lambda: bool(self._truth) and self._truth[-1].episode != episode, 30.0, "the new world"
        )
        while self._truth[0].episode != self._truth[-1].episode:
            self._truth.popleft()

    def _load_map(self, path: Path) -> None:
        """Load the map for every trial: the navigator must not know where it was before."""
        request = LoadMap.Request(path=str(path.absolute()))
        answer = self._answer(self._load.call_async(request), _SERVICE_WAIT_S, "load_map")
        if not answer.success:
            raise TrialError(f"load_map: {answer.message}")

    def _answer(self, future: Any, timeout_s: float, what: str) -> Any:
        self._until(future.done, timeout_s, f"an answer of {what}")
        return future.result()

    def _until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait in real time.

        Raises:
            TrialError: `what` did not come.
            Interrupted: the trials are to end.
        """
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if self._stop.is_set():
                raise Interrupted
            if time.monotonic() > deadline_s:
                raise TrialError(f"waited {timeout_s:g} s for {what} in vain")
            time.sleep(0.01)

    # --- output ----------------------------------------------------------------------------

    def _write_report(self, model: NavigationModel) -> None:
        values = self._values
        context = {
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": values["command_line"] or shlex.join(sys.argv),
            "model": {"name": model.spec.name, "fingerprint": model.spec.fingerprint},
            "through": "ROS graph",
            "rtf": values["rtf"],
            "task": values["task"],
            "robot": values["robot"],
            "goal_radius_m": GOAL_RADIUS_M,
            "versions": software_versions(),
        }
        write_report(Path(values["report"]).expanduser(), context, self.records)

    def _say(self, text: str) -> None:
        print(text, flush=True)

    def _say_summary(self) -> None:
        result = summary(self.records)
        if not self.records:
            self._say("no trial was run")
            return
        low, high = (100.0 * bound for bound in result["interval"])
        self._say(
            f"{result['successes']} of {result['trials']} goals reached "
            f"({100.0 * result['success']:.0f} %, 95 % interval {low:.0f} .. {high:.0f} %) "
            f"in {result['worlds']} worlds, {result['collisions']} collisions on "
            f"{result['driven_m']:.0f} m"
        )


def _seconds(message: BaseSimStatus) -> float:
    return float(message.header.stamp.sec) + float(message.header.stamp.nanosec) * 1e-9


def main(arguments: list[str] | None = None) -> int:
    """Run all trials; 0: enough of them succeeded, 1: not, 130: interrupted."""
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = NavigationTrials()
    except (ValueError, RobotConfigError) as error:
        print(f"navigation_trials: {error}", file=sys.stderr, flush=True)
        rclpy.try_shutdown()
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, node.interrupt)
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        rate = node.run()
        required = node.get_parameter("required_success").value
        return 0 if node.records and rate >= required else 1
    except (TrialError, BundleError, MapError, ValueError) as error:
        print(f"navigation_trials: {error}", file=sys.stderr, flush=True)
        return 1
    except Interrupted:
        print("navigation_trials: stopped", file=sys.stderr, flush=True)
        return 130
    finally:
        executor.shutdown()
        thread.join(2.0)
        node.destroy_node()
        rclpy.try_shutdown()
        # A launch passes on the interruption that the terminal has sent already.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
