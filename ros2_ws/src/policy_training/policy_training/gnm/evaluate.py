"""Closed-loop success of a navigation network in simulated worlds, in one process, without ROS.

    python -m policy_training.gnm.evaluate --bundle models/gnm_sim --worlds 10 --trials 5
    python -m policy_training.gnm.evaluate --baseline servo --robots locobot

A trial drives a way once with the expert, builds a map of it, and lets the robot drive it again
from another start, in another light. Worlds start at seed 10 000, which no training uses.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from base_drivers.robot_config import MODEL_PERIOD_S, RobotConfig, load_robot
from episode_tools.success_rate import wilson_interval
from gnm_nav.navigation import NavigationConfig, NavigationCore, NavigationDecision, NavigationState
from gnm_nav.path_follower import FollowerSettings, PathFollower
from navigation_trials.courses import (
    FOUND_LIMIT_S,
    FOUND_RADIUS_M,
    FOUND_TICKS,
    GOAL_RADIUS_M,
    TASKS,
    Pose,
    build_map,
    disturbed,
    drive_way,
    map_two_ways,
    minimum_way_m,
)
from numpy.typing import NDArray
from policy_server.navigation_model import NavigationModel, load_navigation_model
from robot_sim.navigation.base_simulation import BaseSimulation
from robot_sim.navigation.route import NoRoute
from robot_sim.navigation.world import FIRST_TEST_SEED, World, make_world

ROBOTS = ("locobot", "turtlebot4", "jackal", "rc_car", "go2", "quadrotor")
CONTROL_S = 0.05


class Pilot(Protocol):
    """What drives in a trial."""

    def decide(self, image: NDArray[np.uint8], odometry: Pose, now_s: float) -> NavigationDecision:
        """Take an image, at 4 Hz, and decide what to do until the next one."""


class MapPilot:
    """The navigation core."""

    def __init__(self, core: NavigationCore) -> None:
        """Take a core that has a goal."""
        self.core = core

    def decide(self, image: NDArray[np.uint8], odometry: Pose, now_s: float) -> NavigationDecision:
        """One tick."""
        self.core.push_odometry(now_s, *odometry)
        self.core.push_frame(image, now_s)
        return self.core.tick(now_s)


class ServoPilot:
    """Baseline without a network: drive towards the most alike image of the map.

    The image is found within a window of nodes by the difference of small grey images; the robot
    steers by the horizontal shift towards the node after it, and stops at the last one.
    """

    _SIZE = (64, 48)
    _WINDOW = 2

    def __init__(self, images: Sequence[NDArray[np.uint8]], robot: RobotConfig) -> None:
        """Take the native images of a chain of nodes; the robot starts at the first one."""
        self._nodes = [self._grey(image) for image in images]
        self._robot = robot
        self._node = 0
        self._hann = cv2.createHanningWindow(self._SIZE, cv2.CV_32F)

    def _grey(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        small = cv2.resize(
            cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), self._SIZE, interpolation=cv2.INTER_AREA
        ).astype(np.float32)
        return np.asarray((small - small.mean()) / (small.std() + 1e-3), np.float32)

    def decide(self, image: NDArray[np.uint8], odometry: Pose, now_s: float) -> NavigationDecision:
        """One tick."""
        view = self._grey(image)
        last = len(self._nodes) - 1
        nodes = range(max(0, self._node - 1), min(self._node + self._WINDOW, last) + 1)
        self._node = min(nodes, key=lambda node: float(np.abs(self._nodes[node] - view).mean()))
        if self._node >= last:
            return NavigationDecision(NavigationState.IDLE, node=last, reached=True)
        subgoal = min(self._node + 1, last)
        (shift, _), _ = cv2.phaseCorrelate(view, self._nodes[subgoal], self._hann)
        # The scene of the subgoal lies `shift` pixels to the right: turn left for a positive one.
        angle = shift / self._SIZE[0] * self._robot.camera.horizontal_fov_rad
        spacing = self._robot.waypoint_spacing_m
        angle = float(np.clip(angle, -0.6, 0.6))
        steps = spacing * np.arange(1, 6)
        bend = angle * np.arange(1, 6) / 5.0
        path = np.column_stack((steps * np.cos(bend), steps * np.sin(bend), bend))
        return NavigationDecision(
            NavigationState.DRIVING, node=self._node, subgoal=subgoal, waypoints_m=path
        )


@dataclass
class _Course:
    """A robot under way: simulation, pilot and follower, tick by tick."""

    sim: BaseSimulation
    pilot: Pilot
    follower: PathFollower

    def tick(self) -> NavigationDecision:
        """Look, decide, and drive for a quarter of a second."""
        now_s = self.sim.time_s
        decision = self.pilot.decide(self.sim.render(), self.sim.odometry.pose, now_s)
        path = decision.waypoints_m
        if path is None and decision.turn_rate_rad_s is not None:
            path = np.zeros((5, 3))
            path[:, 2] = decision.turn_rate_rad_s * MODEL_PERIOD_S * np.arange(1, 6)
        self.follower.set_path(np.empty((0, 3)) if path is None else path, now_s, now_s, now_s)
        for _ in range(round(MODEL_PERIOD_S / CONTROL_S)):
            self.follower.add_odometry(self.sim.time_s, *self.sim.odometry.pose)
            # The path counts as repeated all the time, as the navigator does.
            out = self.follower.update(self.sim.time_s, now_s, CONTROL_S)
            velocity = out.velocity
            command: tuple[float, float, float] = (
                (0.0, 0.0, 0.0) if velocity is None else (velocity.x, velocity.y, velocity.yaw)
            )
            self.sim.step(*command, CONTROL_S)
        return decision


def _course(sim: BaseSimulation, pilot: Pilot) -> _Course:
    robot = sim.robot
    settings = FollowerSettings(robot.drive.controller, robot.drive.waypoint_index)
    return _Course(sim, pilot, PathFollower(robot, settings))


def navigation_config(robot: RobotConfig, **changes: Any) -> NavigationConfig:
    """The configuration of a robot: only its way of turning differs."""
    return NavigationConfig(
        can_turn=robot.kinematics != "ackermann",
        turn_rate_rad_s=min(0.5, robot.max_angular_rad_s),
        **changes,
    )


def _settle(sim: BaseSimulation, pose: Pose, light: int) -> None:
    sim.reset(pose)
    sim.set_light(light)


def run_reach(
    model: NavigationModel | None, world: World, robot: RobotConfig, trials: int, seed: int
) -> list[dict[str, Any]]:
    """Trials in one world: one map, several starts; the goal is at least five horizons away.

    Args:
        model: the network; None: the servo baseline.
        world: where.
        robot: what drives.
        trials: number.
        seed: of routes, starts and light.
    """
    rng = np.random.default_rng([seed, world.seed])
    records = []
    drive = drive_way(world, robot, seed)
    if model is not None:
        topological_map, truth = build_map(model, drive)
    else:
        chosen = np.arange(0, len(drive.images), 4)
        truth = drive.poses[chosen]
    arcs = drive.arcs_m
    with BaseSimulation(world, robot, seed) as sim:
        for trial in range(trials):
            latest = max(0.0, arcs[-1] - minimum_way_m(robot))
            first = int(np.searchsorted(arcs, rng.uniform(0.0, latest)))
            pose = disturbed(world, robot, tuple(drive.poses[first].tolist()), rng)
            goal = truth[-1]
            _settle(sim, pose, int(rng.integers(2**31)))
            pilot: Pilot
            if model is not None:
                core = NavigationCore(
                    model, topological_map, robot.waypoint_spacing_m, navigation_config(robot)
                )
                core.set_goal_node("last")
                pilot = MapPilot(core)
            else:
                images = [drive.images[index] for index in chosen if index >= first]
                pilot = ServoPilot(images, robot)
            record = _drive_to_goal(_course(sim, pilot), goal, arcs[-1] - arcs[first])
            records.append({"trial": trial, "nodes": len(truth), **record})
    return records


def _drive_to_goal(
    course: _Course, goal: NDArray[np.float64], way_m: float, factor: float = 3.0
) -> dict[str, Any]:
    sim = course.sim
    limit_s = factor * way_m / sim.robot.nominal_speed_m_s + 40.0
    states: Counter[str] = Counter()
    decision = NavigationDecision(NavigationState.IDLE)
    while sim.time_s < limit_s:
        decision = course.tick()
        states[decision.state.name] += 1
        if decision.reached or decision.code is not None:
            break
    away_m = math.hypot(sim.pose[0] - goal[0], sim.pose[1] - goal[1])
    return {
        "success": bool(decision.reached and away_m <= GOAL_RADIUS_M),
        "claimed": decision.reached,
        "code": decision.code.value if decision.code else ("" if decision.reached else "timeout"),
        "message": decision.message,
        "way_m": round(float(way_m), 2),
        "away_m": round(away_m, 2),
        "progress": round(decision.progress, 2),
        "driven_m": round(sim.distance_m, 2),
        "time_s": round(sim.time_s, 1),
        "collisions": sim.collisions,
        "replans": decision.replans,
        "states": dict(states),
    }


def run_kidnapped(
    model: NavigationModel, world: World, robot: RobotConfig, trials: int, seed: int
) -> list[dict[str, Any]]:
    """Put the robot elsewhere on the map while it drives; does it notice, and find itself?"""
    rng = np.random.default_rng([seed, world.seed, 1])
    records = []
    drive = drive_way(world, robot, seed)
    topological_map, truth = build_map(model, drive)
    with BaseSimulation(world, robot, seed) as sim:
        for trial in range(trials):
            core = NavigationCore(
                model, topological_map, robot.waypoint_spacing_m, navigation_config(robot)
            )
            core.set_goal_node("last")
            first = int(rng.integers(0, len(drive.poses) // 2))
            course = _course(sim, MapPilot(core))
            light = int(rng.integers(2**31))
            _settle(sim, tuple(drive.poses[first].tolist()), light)
            for _ in range(int(rng.integers(20, 40))):
                course.tick()
            here = np.array(sim.pose)
            far = np.flatnonzero(
                (np.hypot(*(drive.poses[:, :2] - here[:2]).T) > 4.0)
                # Not at the very end, where there is nothing more to see.
                & (np.arange(len(drive.poses)) < len(drive.poses) - 12)
            )
            if not len(far):
                continue
            there = tuple(drive.poses[int(rng.choice(far))].tolist())
            driven_s = sim.time_s
            # A new run of the simulation's clock, as after lifting the robot.
            _settle(sim, disturbed(world, robot, there, rng), light)
            core.forget_frames()
            course = _course(sim, course.pilot)
            found_s, noticed = math.nan, False
            held = 0
            while sim.time_s < FOUND_LIMIT_S:
                decision = course.tick()
                noticed |= decision.state in (NavigationState.LOCALISING, NavigationState.TURNING)
                right = decision.node is not None and (
                    math.hypot(*(truth[decision.node][:2] - np.array(sim.pose[:2])))
                    <= FOUND_RADIUS_M
                )
                held = held + 1 if right else 0
                if held >= FOUND_TICKS or decision.reached:
                    found_s = sim.time_s
                    break
            records.append(
                {
                    "trial": trial,
                    "success": held >= FOUND_TICKS,
                    "noticed": noticed,
                    "found_s": None if math.isnan(found_s) else round(found_s, 2),
                    "code": decision.code.value if decision.code else "",
                    "driven_m": round(sim.distance_m, 2),
                    "collisions": sim.collisions,
                    "before_s": round(driven_s, 1),
                }
            )
    return records


def run_blocked(
    model: NavigationModel, world: World, robot: RobotConfig, trials: int, seed: int
) -> list[dict[str, Any]]:
    """Two mapped ways, driven there and back; the shorter one is then closed by a barrier."""
    rng = np.random.default_rng([seed, world.seed, 2])
    records: list[dict[str, Any]] = []
    for trial in range(trials):
        try:
            mapped = map_two_ways(model, world, robot, seed * 101 + trial)
        except NoRoute:
            continue
        closed = make_world(world.kind, world.seed, (mapped.opening,))
        with BaseSimulation(closed, robot, seed) as sim:
            start: Pose = tuple(mapped.poses[0].tolist())
            _settle(sim, disturbed(closed, robot, start, rng), int(rng.integers(2**31)))
            core = NavigationCore(
                model, mapped.topological_map, robot.waypoint_spacing_m, navigation_config(robot)
            )
            core.set_goal_node(mapped.goal)
            way_m = 2.0 * mapped.short_m + mapped.detour_m
            goal = mapped.truth[mapped.goal]
            record = _drive_to_goal(_course(sim, MapPilot(core)), goal, way_m)
        records.append(
            {
                "trial": trial,
                "opening": mapped.opening,
                "short_m": round(mapped.short_m, 1),
                "detour_m": round(mapped.detour_m, 1),
                "nodes": len(mapped.truth),
                **record,
            }
        )
    return records


def summarise(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Success with its 95 % interval, collisions per kilometre, reasons of failure."""
    if not records:
        return {"trials": 0}
    successes = sum(record["success"] for record in records)
    driven_m = sum(record["driven_m"] for record in records)
    low, high = wilson_interval(successes, len(records))
    return {
        "trials": len(records),
        "successes": successes,
        "success": round(successes / len(records), 4),
        "interval": [round(low, 4), round(high, 4)],
        "driven_m": round(driven_m, 1),
        "collisions_per_km": round(
            1000.0 * sum(record["collisions"] for record in records) / max(driven_m, 1e-9), 1
        ),
        "codes": dict(Counter(r["code"] for r in records if not r["success"])),
    }


def evaluate(
    model: NavigationModel | None,
    robots: Sequence[str],
    worlds: int,
    trials: int,
    seed: int,
    kinds: Sequence[str] = ("indoor", "outdoor"),
    task: str = "reach",
) -> dict[str, Any]:
    """Run a task with several robots in several worlds.

    Args:
        model: the network; None: the servo baseline, for `reach` only.
        robots: names.
        worlds: number of worlds per robot; kinds take turns.
        trials: trials per world.
        seed: first world; at least `FIRST_TEST_SEED`.
        kinds: kinds of worlds.
        task: one of `TASKS`.

    Returns:
        Per robot and over all: see `summarise`; and all records.

    Raises:
        ValueError: the seed is one of training, or the task cannot be had.
    """
    if seed < FIRST_TEST_SEED:
        raise ValueError(f"found seed {seed}, expected at least {FIRST_TEST_SEED}")
    if model is None and task != "reach":
        raise ValueError(f"found task {task!r} for the servo baseline, expected reach")
    report: dict[str, Any] = {"task": task, "robots": {}, "records": []}
    for name in robots:
        robot = load_robot(name)
        records = []
        for index in range(worlds):
            world = make_world(kinds[index % len(kinds)], seed + index)
            began = time.monotonic()
            try:
                if task == "reach":
                    new = run_reach(model, world, robot, trials, seed)
                else:
                    assert model is not None
                    run = run_kidnapped if task == "kidnapped" else run_blocked
                    new = run(model, world, robot, trials, seed)
            except NoRoute as error:
                print(f"{name}, {world.kind} {world.seed}: skipped, {error}", file=sys.stderr)
                continue
            for record in new:
                record |= {"robot": name, "world": world.kind, "world_seed": world.seed}
            records += new
            print(
                f"{name}, {world.kind} {world.seed}: {sum(r['success'] for r in new)}/{len(new)} "
                f"{[r['code'] or 'claimed' for r in new if not r['success']]} "
                f"{time.monotonic() - began:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        report["robots"][name] = summarise(records)
        report["records"] += records
    report["all"] = summarise(report["records"])
    return report


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, default=Path("models/gnm_sim"))
    parser.add_argument("--baseline", choices=("servo",), help="drive without a network")
    parser.add_argument("--task", choices=TASKS, default="reach")
    parser.add_argument("--robots", nargs="+", default=["locobot"], choices=ROBOTS)
    parser.add_argument("--kinds", nargs="+", default=["indoor", "outdoor"])
    parser.add_argument("--worlds", type=int, default=4)
    parser.add_argument("--trials", type=int, default=3, help="per world")
    parser.add_argument("--seed", type=int, default=FIRST_TEST_SEED, help="of the first world")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--provider", default="auto", help="what computes the network")
    parser.add_argument("--out", type=Path, help="JSON report")
    arguments = parser.parse_args()
    model = (
        None
        if arguments.baseline
        else load_navigation_model(arguments.bundle, arguments.threads, arguments.provider)
    )
    report = evaluate(
        model,
        arguments.robots,
        arguments.worlds,
        arguments.trials,
        arguments.seed,
        arguments.kinds,
        arguments.task,
    )
    report["model"] = (
        {"baseline": arguments.baseline}
        if model is None
        else {"name": model.spec.name, "fingerprint": model.spec.fingerprint}
    )
    report["command"] = shlex.join(["python", "-m", "policy_training.gnm.evaluate", *sys.argv[1:]])
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: report[key] for key in ("task", "robots", "all")}, indent=1))


if __name__ == "__main__":
    main()
