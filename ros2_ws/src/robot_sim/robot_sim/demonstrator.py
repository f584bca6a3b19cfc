"""Scripted demonstrator: a feedback law on the true state, without memory.

Every action is a function of where the gripper, the object and the target are now, so a policy
that sees the scene can imitate it: there are no timers, phases or random choices to guess. A
missed grasp or a dropped object needs no special case.

``python -m robot_sim.demonstrator --episodes 100 --seed 0 --tasks all`` measures its success.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass

import numpy as np
from episode_tools.success_rate import wilson_interval
from numpy.typing import NDArray
from widowx_control.arm_control import ArmControl
from widowx_control.bridge_spaces import ACTION_HIGH, ACTION_LOW, state_from_pose

from robot_sim.environment import WidowXKitchenEnv
from robot_sim.kitchen import Kitchen
from robot_sim.scene_model import CONTAINER_HEIGHT_M, OBJECT_HALF_GRASP_M, OBJECT_HALF_HEIGHT_M
from robot_sim.tasks import TASKS, Task, TaskKind, find_task

_Array = NDArray[np.float64]

POSITION_NOISE_M = 0.008
ROTATION_NOISE_RAD = 0.04

HOVER_M = 0.10
"""Height from which the gripper goes down to an object."""
CARRY_M = 0.105
"""Height at which an object is carried."""
RETREAT_M = 0.13
_GRASP_ABOVE_CENTRE_M = 0.002
_RELEASE_CLEARANCE_M = 0.008
_SLIDE_LIFT_M = 0.003
_FUNNEL_SLOPE = 3.0
_ALIGNED_M = 0.013
_HELD_FINGER_M = OBJECT_HALF_GRASP_M + 0.001
_EMPTY_FINGER_M = OBJECT_HALF_GRASP_M - 0.0015
_DRAWER_GOAL_M = {"open": 0.078, "shut": -0.004}


@dataclass(frozen=True)
class _Scene:
    """What the feedback law looks at; positions in base_link [m]."""

    gripper: _Array
    yaw: float
    finger: float
    thing: _Array
    thing_yaw: float
    target: _Array


@dataclass(frozen=True)
class _Goal:
    """Where the gripper should be next."""

    position: _Array
    yaw: float
    opening: float


class Demonstrator:
    """Feedback law for one task on one environment's kitchen and arm controller."""

    def __init__(self, task: Task, kitchen: Kitchen, arm: ArmControl) -> None:
        """Watch `kitchen` and `arm`; nothing is changed."""
        self._task, self._kitchen, self._arm = task, kitchen, arm

    def action(self) -> NDArray[np.float32]:
        """The clean action for the present state, float32 (7,), inside the action limits."""
        goal = self._goal()
        commanded = state_from_pose(self._arm.commanded_pose, 0.0)
        delta = np.empty(7)
        delta[:3] = goal.position - commanded[:3]
        # A way that is longer than one step keeps its direction.
        horizontal = float(np.hypot(delta[0], delta[1]))
        delta[:2] *= min(1.0, float(ACTION_HIGH[0]) / max(horizontal, 1e-9))
        delta[3:5] = -commanded[3:5]
        delta[5] = _wrapped(goal.yaw - commanded[5])
        delta[6] = goal.opening
        return np.clip(delta, ACTION_LOW, ACTION_HIGH).astype(np.float32)

    def _goal(self) -> _Goal:
        task, kitchen = self._task, self._kitchen
        name = task.object
        drawer = task.kind is TaskKind.DRAWER
        pose = state_from_pose(self._arm.commanded_pose, 0.0)
        thing = kitchen.position_m(name)
        scene = _Scene(
            gripper=pose[:3],
            yaw=pose[5],
            finger=kitchen.finger_m,
            thing=thing,
            thing_yaw=0.0 if drawer else self._grasp_yaw(),
            target=self._drawer_goal() if drawer else kitchen.position_m(task.target),
        )
        if task.succeeded(kitchen):
            return self._retreat(scene)
        if self._arrived(scene):
            return _Goal(self._over_target(scene), 0.0, 1.0)
        if _held(scene):
            return self._transport(scene)
        return self._grasp(scene)

    def _grasp_yaw(self) -> float:
        """Rotation of the fingers that fits the object's sides, nearest to zero."""
        if self._task.object == "green_cylinder":
            return 0.0
        yaw = self._kitchen.yaw_rad(self._task.object)
        period = math.pi if self._task.object == "yellow_block" else math.pi / 2
        return (yaw + period / 2) % period - period / 2

    def _drawer_goal(self) -> _Array:
        shift = _DRAWER_GOAL_M[self._task.target] - self._kitchen.drawer_opening_m
        return self._kitchen.position_m("handle") + np.array([shift, 0.0, 0.0])

    def _retreat(self, scene: _Scene) -> _Goal:
        up = np.array([scene.gripper[0], scene.gripper[1], RETREAT_M])
        return _Goal(up, scene.yaw, 1.0)

    def _grasp_height(self, scene: _Scene) -> float:
        return float(scene.thing[2]) + _GRASP_ABOVE_CENTRE_M

    def _grasp(self, scene: _Scene) -> _Goal:
        """Over the object, down through a funnel as the error shrinks, then close."""
        low = self._grasp_height(scene)
        offset = scene.thing[:2] - scene.gripper[:2]
        error = float(np.hypot(*offset))
        closing = scene.finger < 0.031
        aligned = error < (2.0 if closing else 1.0) * _ALIGNED_M
        near = scene.gripper[2] - low < (0.020 if closing else 0.012)
        position = np.array([scene.thing[0], scene.thing[1], low])
        if aligned and near and scene.finger > _EMPTY_FINGER_M:
            return _Goal(position, scene.thing_yaw, 0.0)
        height = low + _FUNNEL_SLOPE * max(0.0, error - _ALIGNED_M)
        position[2] = min(height, low + HOVER_M - 0.02)
        if scene.gripper[2] < low + 0.04 and error > 0.03:
            position[:2] = scene.gripper[:2]  # straight up, past whatever stands in the way
        return _Goal(position, scene.thing_yaw, 1.0)

    def _over_target(self, scene: _Scene) -> _Array:
        """Gripper position at which the object is let go."""
        task = self._task
        if task.kind is TaskKind.DRAWER:
            height = self._grasp_height(scene)
        elif task.kind is TaskKind.PUSH:
            height = OBJECT_HALF_HEIGHT_M[task.object] + _GRASP_ABOVE_CENTRE_M + _SLIDE_LIFT_M
        else:
            height = (
                CONTAINER_HEIGHT_M[task.target]
                + OBJECT_HALF_HEIGHT_M[task.object]
                + _GRASP_ABOVE_CENTRE_M
                + _RELEASE_CLEARANCE_M
            )
        return np.array([scene.target[0], scene.target[1], height])

    def _arrived(self, scene: _Scene) -> bool:
        """Whether the object hangs where it should be let go."""
        if self._task.kind is TaskKind.DRAWER:
            return False
        error = float(np.hypot(*(scene.thing[:2] - scene.target[:2])))
        loosening = scene.finger > _HELD_FINGER_M
        tolerance = (1.8 if loosening else 1.0) * 0.016
        above = scene.gripper[2] - self._over_target(scene)[2]
        return error < tolerance and above < (0.03 if loosening else 0.014)

    def _transport(self, scene: _Scene) -> _Goal:
        """Lift, carry and lower through a funnel; or slide along the table or the drawer's rail."""
        release = self._over_target(scene)
        error = float(np.hypot(*(release[:2] - scene.gripper[:2])))
        if self._task.kind is not TaskKind.PUT:
            return _Goal(release, 0.0, 0.0)
        position = release.copy()
        height = float(release[2]) + _FUNNEL_SLOPE * max(0.0, error - 0.014)
        position[2] = min(height, CARRY_M)
        if scene.gripper[2] < min(CARRY_M, height) - 0.03:
            position[:2] = scene.gripper[:2]
        return _Goal(position, 0.0, 0.0)


def _held(scene: _Scene) -> bool:
    offset = scene.thing - scene.gripper
    return (
        _EMPTY_FINGER_M < scene.finger < _HELD_FINGER_M
        and float(np.hypot(offset[0], offset[1])) < 0.026
        and abs(float(offset[2])) < 0.024
    )


def _wrapped(angle_rad: float) -> float:
    return (angle_rad + math.pi) % (2 * math.pi) - math.pi


def noisy(
    action: NDArray[np.float32],
    rng: np.random.Generator,
    position_noise_m: float = POSITION_NOISE_M,
    rotation_noise_rad: float = ROTATION_NOISE_RAD,
) -> NDArray[np.float32]:
    """`action` (7,) with Gaussian noise on its motion (not on the gripper), inside the limits."""
    out = action.astype(np.float64)
    out[:3] += rng.normal(0.0, position_noise_m, size=3)
    out[3:6] += rng.normal(0.0, rotation_noise_rad, size=3)
    return np.clip(out, ACTION_LOW, ACTION_HIGH).astype(np.float32)


@dataclass(frozen=True)
class Demonstration:
    """One episode: T actions and T+1 observations."""

    images: NDArray[np.uint8]
    """(T+1, 128, 128, 3) RGB."""
    states: NDArray[np.float32]
    """(T+1, 7)."""
    actions: NDArray[np.float32]
    """(T, 7) clean labels."""
    executed: NDArray[np.float32]
    """(T, 7) what the arm was told."""
    success: bool


def demonstrate(
    env: WidowXKitchenEnv,
    task: str,
    seed: int,
    max_steps: int = 50,
    position_noise_m: float = POSITION_NOISE_M,
    rotation_noise_rad: float = ROTATION_NOISE_RAD,
) -> Demonstration:
    """Run the demonstrator for one episode; equal arguments give equal episodes."""
    observation, _ = env.reset(seed=seed, options={"task": task})
    rng = np.random.default_rng([seed, 2])
    expert = Demonstrator(env.task, env.kitchen, env.arm)
    images, states = [observation["image"]], [observation["state"]]
    actions, executed = [], []
    terminated = False
    for _ in range(max_steps):
        actions.append(expert.action())
        executed.append(noisy(actions[-1], rng, position_noise_m, rotation_noise_rad))
        observation, _, terminated, _, _ = env.step(executed[-1])
        images.append(observation["image"])
        states.append(observation["state"])
        if terminated:
            break
    return Demonstration(
        np.stack(images), np.stack(states), np.stack(actions), np.stack(executed), terminated
    )


def _measure(tasks: list[str], episodes: int, seed: int, noise: bool) -> bool:
    env = WidowXKitchenEnv(render_images=False)
    scale = 1.0 if noise else 0.0
    enough = True
    print(f"{'task':34s} {'success':>12s} {'95 % interval':>16s} {'steps':>6s}  failed seeds")
    for task in tasks:
        lengths, failed = [], []
        for s in range(seed, seed + episodes):
            result = demonstrate(
                env, task, s, 50, scale * POSITION_NOISE_M, scale * ROTATION_NOISE_RAD
            )
            if result.success:
                lengths.append(len(result.actions))
            else:
                failed.append(s)
        low, high = wilson_interval(len(lengths), episodes)
        steps = f"{np.mean(lengths):6.1f}" if lengths else "     -"
        rate = len(lengths) / episodes
        enough = enough and rate >= 0.95
        print(
            f"{task:34s} {len(lengths):4d}/{episodes:<4d}{rate:5.2f}  [{low:.3f}, {high:.3f}]"
            f" {steps}  {' '.join(map(str, failed[:12]))}",
            flush=True,
        )
    env.close()
    return enough


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 1 when a task is below 95 %."""
    parser = argparse.ArgumentParser(prog="robot_sim.demonstrator", description=__doc__)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--tasks", default="all", help="names separated by commas, or all")
    parser.add_argument("--no-noise", action="store_true", help="execute the clean actions")
    options = parser.parse_args(arguments)
    names = list(TASKS) if options.tasks == "all" else options.tasks.split(",")
    try:
        for name in names:
            find_task(name)
    except KeyError as error:
        parser.error(str(error.args[0]))
    if options.episodes < 1 or options.seed < 0:
        parser.error("expected --episodes of at least 1 and a --seed that is not negative")
    enough = _measure(names, options.episodes, options.seed, not options.no_noise)
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
