"""gymnasium environment of the kitchen: Bridge actions at 5 Hz, one camera, 7-D proprioception.

Every step runs the arm controller of the ROS graph against the servo model at the same rates, and
the image goes through the same resize as in the policy node.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray
from policy_server.preprocessing import squash
from widowx_control.arm_control import ArmControl, ArmControlConfig
from widowx_control.bridge_spaces import ACTION_HIGH, ACTION_LOW, CONTROL_PERIOD_S
from widowx_control.kinematics import NAMED_POSES, ArmKinematics

from robot_sim.kitchen import OPEN_FINGER_M, CameraRenderer, Kitchen
from robot_sim.scene_model import TIMESTEP_S
from robot_sim.tasks import HOLD_S, TASKS, SuccessTimer, Task, find_task

OBSERVATION_SIZE = (128, 128)
"""Width and height of the image that the policy sees."""
UPDATE_PERIOD_S = 0.02
_UPDATES = round(CONTROL_PERIOD_S / UPDATE_PERIOD_S)
_STEPS_PER_UPDATE = round(UPDATE_PERIOD_S / TIMESTEP_S)
_STATE_BOUND = np.array([1.0, 1.0, 1.0, 3.2, 3.2, 3.2, 2.0], dtype=np.float32)
_MAX_SEED = 2**31 - 1


class WidowXKitchenEnv(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """`coxswain/WidowXKitchen-v0`.

    Action: float32 (7,), `dx dy dz` [m], `droll dpitch dyaw` [rad], gripper 0 closed .. 1 open.
    Observation: `image` uint8 (128, 128, 3) RGB, `state` float32 (7,).
    Reward: 1 in a step that ends in success, else 0. Terminated when success held for 0.6 s.
    `info`: success, success_s, task, instruction, seed.
    `reset(seed=s)` makes the scene of seed `s`; without a seed the next one is drawn.
    `reset(options={"task": name})` changes the task.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

    def __init__(
        self,
        task: str | None = None,
        render_mode: str | None = None,
        observation_delay_s: tuple[float, float] = (0.0, 0.06),
        start_noise_rad: float = 0.015,
        render_images: bool = True,
    ) -> None:
        """Make the environment.

        Args:
            task: name of the task; None draws one in every episode.
            render_mode: None or "rgb_array" (the 640x480 camera image).
            observation_delay_s: range from which each episode draws how long before the end of a
                step image and state are taken; within [0, 0.1].
            start_noise_rad: largest deviation of each joint from the start pose.
            render_images: False leaves the image of every observation black, which is faster.

        Raises:
            KeyError: unknown task.
            ValueError: an argument is out of range.
        """
        low, high = observation_delay_s
        if not 0.0 <= low <= high <= 0.1:
            raise ValueError(
                f"found observation_delay_s={observation_delay_s}; expected 0 <= low <= high <= 0.1"
            )
        if not 0.0 <= start_noise_rad <= 0.1:
            raise ValueError(f"found start_noise_rad={start_noise_rad}; expected 0 .. 0.1")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"found render_mode={render_mode!r}; expected None or 'rgb_array'")
        self.render_mode = render_mode
        self.action_space = gymnasium.spaces.Box(
            ACTION_LOW.astype(np.float32), ACTION_HIGH.astype(np.float32), dtype=np.float32
        )
        width, height = OBSERVATION_SIZE
        self.observation_space = gymnasium.spaces.Dict(
            {
                "image": gymnasium.spaces.Box(0, 255, (height, width, 3), np.uint8),
                "state": gymnasium.spaces.Box(-_STATE_BOUND, _STATE_BOUND, dtype=np.float32),
            }
        )
        self._fixed_task = None if task is None else find_task(task)
        self._delay_range_s = observation_delay_s
        self._start_noise_rad = start_noise_rad
        self._render_images = render_images
        self.kitchen = Kitchen()
        self.arm = ArmControl(ArmControlConfig(), ArmKinematics())
        self.task: Task = self._fixed_task or next(iter(TASKS.values()))
        self.timer = SuccessTimer()
        self._renderer: CameraRenderer | None = None
        self._seed = 0
        self._delay_steps = 0
        self._observation: dict[str, NDArray[Any]] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Start an episode; see the class."""
        super().reset(seed=seed)
        self._seed = int(self.np_random.integers(_MAX_SEED)) if seed is None else int(seed)
        rng = np.random.default_rng([self._seed, 1])
        wanted = (options or {}).get("task")
        if wanted is not None:
            self.task = find_task(wanted)
        elif self._fixed_task is not None:
            self.task = self._fixed_task
        else:
            self.task = find_task(str(rng.choice(list(TASKS))))
        self._delay_steps = round(rng.uniform(*self._delay_range_s) / TIMESTEP_S)
        noise = rng.uniform(-self._start_noise_rad, self._start_noise_rad, size=6)
        kitchen = self.kitchen
        mujoco.mj_resetData(kitchen.model, kitchen.data)
        kitchen.gripper_pwm = 0.0
        kitchen.set_arm(np.array(NAMED_POSES["start"]) + noise, OPEN_FINGER_M)
        kitchen.set_layout(self.task.layout(self._seed))
        kitchen.advance(round(0.1 / TIMESTEP_S))
        self.arm.reset(kitchen.arm_positions_rad, kitchen.finger_m)
        self.timer.reset()
        self._observe()
        return self._observation, self._info()

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Run one 0.2 s tick.

        Raises:
            ValueError: the action is not seven finite numbers.
        """
        verdict = self.arm.command(action)
        if not verdict.accepted and verdict.code in ("non_finite", "wrong_length"):
            raise ValueError(verdict.reason)
        kitchen = self.kitchen
        observe_at = _UPDATES * _STEPS_PER_UPDATE - self._delay_steps
        done = 0
        for _ in range(_UPDATES):
            command = self.arm.update(UPDATE_PERIOD_S, kitchen.arm_positions_rad, kitchen.finger_m)
            if command.arm_positions_rad is not None:
                kitchen.set_goal(command.arm_positions_rad)
            kitchen.gripper_pwm = command.gripper_pwm
            left = _STEPS_PER_UPDATE
            if done < observe_at < done + left:
                kitchen.advance(observe_at - done)
                self._observe()
                left -= observe_at - done
                done = observe_at
            kitchen.advance(left)
            done += left
            if done == observe_at:
                self._observe()
            self.timer.update(self.task.succeeded(kitchen), UPDATE_PERIOD_S)
        terminated = self.timer.success and self.timer.held_s >= HOLD_S - 1e-9
        reward = 1.0 if self.timer.success else 0.0
        return self._observation, reward, terminated, False, self._info()

    def render(self) -> NDArray[np.uint8]:
        """The camera image now, uint8 (480, 640, 3)."""
        if self._renderer is None:
            self._renderer = CameraRenderer(self.kitchen.model)
        return self._renderer.render(self.kitchen.data)

    def close(self) -> None:
        """Free the rendering context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _observe(self) -> None:
        self.arm.observe(self.kitchen.arm_positions_rad, self.kitchen.finger_m)
        width, height = OBSERVATION_SIZE
        self._observation = {
            "image": squash(self.render(), OBSERVATION_SIZE)
            if self._render_images
            else np.zeros((height, width, 3), dtype=np.uint8),
            "state": self.arm.state.astype(np.float32),
        }

    def _info(self) -> dict[str, Any]:
        return {
            "success": self.timer.success,
            "success_s": self.timer.held_s,
            "task": self.task.name,
            "instruction": self.task.instruction,
            "seed": self._seed,
        }
