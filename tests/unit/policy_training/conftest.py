from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from policy_training.dataset import DatasetSpec, DatasetWriter

TASKS = ("open_drawer", "put_red_cube_in_pot", "put_red_cube_on_plate")


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    """Tiny networks run fastest on one thread, above all on a busy machine."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


@pytest.fixture
def spec() -> DatasetSpec:
    return DatasetSpec(
        robot="wx250s",
        control_hz=5.0,
        image_size=(32, 32),
        action_names=("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"),
        action_low=(-0.05,) * 3 + (-0.25,) * 3 + (0.0,),
        action_high=(0.05,) * 3 + (0.25,) * 3 + (1.0,),
        state_names=("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
        task_names=TASKS,
        instructions={name: name.replace("_", " ") for name in TASKS},
        command_line="made by a test",
    )


@pytest.fixture
def make_dataset(tmp_path: Path, spec: DatasetSpec) -> Callable[..., Path]:
    """Write episodes whose first image pixel is (episode, step, task)."""

    def make(
        name: str = "data",
        episodes: int = 12,
        seed: int = 0,
        tasks: tuple[str, ...] = TASKS,
        spec: DatasetSpec = spec,
    ) -> Path:
        rng = np.random.default_rng(seed)
        low, high = np.array(spec.action_low), np.array(spec.action_high)
        with DatasetWriter(tmp_path / name, spec) as writer:
            for index in range(episodes):
                length = int(rng.integers(6, 12))
                task = tasks[index % len(tasks)]
                images = rng.integers(0, 256, (length + 1, 32, 32, 3), dtype=np.uint8)
                images[:, 0, 0, 0] = index
                images[:, 0, 0, 1] = np.arange(length + 1)
                images[:, 0, 0, 2] = TASKS.index(task)
                actions = rng.uniform(low, high, (length, 7)).astype(np.float32)
                actions[:, 6] = [1.0] * 3 + [0.0] * (length - 4) + [1.0]
                states = rng.normal(0.0, 0.1, (length + 1, 7)).astype(np.float32)
                writer.add_episode(images, states, actions, actions * 0.5, task, index, True)
        return tmp_path / name

    return make
