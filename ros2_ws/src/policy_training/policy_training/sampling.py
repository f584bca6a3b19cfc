"""Batches of transitions: task-balanced sampling, reward labels, two-phase mixing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policy_training.augmentation import augment
from policy_training.config import TrainingConfig
from policy_training.dataset import Dataset, DatasetError
from policy_training.hindsight import hindsight_labels

ACTION_CLIP = 0.99
"""Scaled actions stay inside the range that tanh can reach with a finite argument."""


@dataclass
class Batch:
    """Transitions (s, a, r, s') as tensors.

    Attributes:
        image: uint8 (B, H, W, 3) at s.
        next_image: uint8 (B, H, W, 3) at s'.
        state: float32 (B, S) at s.
        next_state: float32 (B, S) at s'.
        task: float32 one-hot (B, tasks).
        label: Noise-free action scaled to [-0.99, 0.99], float32 (B, A).
        executed: Executed action, same scale.
        reward: float32 (B,).
        bootstrap: float32 (B,), 0 where the transition ends the task.
        auxiliary: float32 (B, 4) hindsight labels.
        auxiliary_weight: float32 (B, 4).
    """

    image: Tensor
    next_image: Tensor
    state: Tensor
    next_state: Tensor
    task: Tensor
    label: Tensor
    executed: Tensor
    reward: Tensor
    bootstrap: Tensor
    auxiliary: Tensor
    auxiliary_weight: Tensor


def task_index(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """Task names over all datasets, sorted; a task's position is its one-hot index.

    Target tasks get their index before pre-training starts, so that fine-tuning changes no layer.
    """
    return tuple(sorted({name for dataset in datasets for name in dataset.spec.task_names}))


def scale_action(
    action: NDArray[np.float32], low: Sequence[float], high: Sequence[float]
) -> NDArray[np.float32]:
    """Affine map of physical actions (N, A) to [-1, 1], clipped to ±0.99; NaN stays NaN.

    Where both limits are the same the value is 0.
    """
    lower = np.asarray(low, dtype=np.float32)
    upper = np.asarray(high, dtype=np.float32)
    half = 0.5 * (upper - lower)
    scaled = (action - 0.5 * (upper + lower)) / np.where(half > 0.0, half, np.inf)
    return np.clip(scaled, -ACTION_CLIP, ACTION_CLIP).astype(np.float32)


def label_rewards(
    steps_to_end: NDArray[np.int32], positive_steps: int, scale: float, bias: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rewards of successful demonstrations (PTR: +10 on the last three transitions, else -1).

    Args:
        steps_to_end: Actions left including the transition's own, (N,), at least 1.
        positive_steps: Transitions at the end that count as success.
        scale: Reward = success * scale + bias.
        bias: See `scale`.

    Returns:
        reward (N,) and bootstrap mask (N,), 0 on each of the positive transitions.
    """
    success = (steps_to_end <= positive_steps).astype(np.float32)
    return success * np.float32(scale) + np.float32(bias), 1.0 - success


class TransitionPool:
    """The transitions of one dataset that training may draw from."""

    def __init__(
        self, dataset: Dataset, tasks: Sequence[str], config: TrainingConfig, validation: bool
    ) -> None:
        """Prepare labels.

        Args:
            dataset: Demonstrations; failed ones are left out, for the reward labels assume success.
            tasks: Task names in one-hot order.
            config: Share of validation episodes, rewards, augmentation.
            validation: Draw from the held-out episodes instead of the training ones.

        Raises:
            DatasetError: No transition is left.
        """
        spec = dataset.spec
        self._config = config
        self._tasks = len(tasks)
        count = len(dataset.episodes)
        held_out = _held_out(count, config.validation_share)
        wanted = np.array([e.success for e in dataset.episodes]) & (held_out == validation)
        rows = dataset.transition_rows()
        rows = rows[wanted[dataset.episode[rows]]]
        if len(rows) == 0:
            kind = "validation" if validation else "training"
            raise DatasetError(f"found no successful {kind} episode among {count}")
        ids = np.array([tasks.index(name) for name in spec.task_names], dtype=np.int64)
        task = ids[dataset.task]
        self.rows_by_task = [rows[task[rows] == index] for index in np.unique(task[rows])]
        self.transitions = len(rows)
        reward, bootstrap = label_rewards(
            dataset.steps_to_end(),
            config.cql.positive_steps,
            config.cql.reward_scale,
            config.cql.reward_bias,
        )
        labels = hindsight_labels(dataset)
        self._image = torch.from_numpy(dataset.image)
        self._state = torch.from_numpy(dataset.state)
        self._task = torch.from_numpy(task)
        self._label = torch.from_numpy(
            scale_action(dataset.action, spec.action_low, spec.action_high)
        )
        self._executed = torch.from_numpy(
            scale_action(dataset.executed_action, spec.action_low, spec.action_high)
        )
        self._reward = torch.from_numpy(reward)
        self._bootstrap = torch.from_numpy(bootstrap)
        self._auxiliary = torch.from_numpy(labels.target)
        self._auxiliary_weight = torch.from_numpy(labels.weight)

    def state_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (at least 0.01) of the proprioceptive state, (S,) each."""
        rows = torch.from_numpy(np.concatenate(self.rows_by_task))
        states = self._state[rows]
        return states.mean(dim=0), states.std(dim=0).clamp_min(0.01)

    def draw(
        self, count: int, rng: np.random.Generator, generator: torch.Generator | None
    ) -> Batch:
        """Draw transitions with equal probability per task, then per transition.

        Args:
            count: Transitions.
            rng: Chooses the transitions.
            generator: Augments the images; None leaves them unchanged.

        Returns:
            The batch.
        """
        groups = rng.integers(len(self.rows_by_task), size=count)
        chosen = [self.rows_by_task[g][rng.integers(len(self.rows_by_task[g]))] for g in groups]
        rows = torch.from_numpy(np.asarray(chosen))
        image = self._image[rows]
        next_image = self._image[rows + 1]
        if generator is not None:
            image = augment(image, self._config.augmentation, generator)
            if self._config.algorithm != "bc":  # cloning never looks at the next image
                next_image = augment(next_image, self._config.augmentation, generator)
        one_hot = torch.nn.functional.one_hot(self._task[rows], self._tasks).float()
        return Batch(
            image=image,
            next_image=next_image,
            state=self._state[rows],
            next_state=self._state[rows + 1],
            task=one_hot,
            label=self._label[rows],
            executed=self._executed[rows],
            reward=self._reward[rows],
            bootstrap=self._bootstrap[rows],
            auxiliary=self._auxiliary[rows],
            auxiliary_weight=self._auxiliary_weight[rows],
        )


class BatchSource:
    """Batches of one dataset, or of prior and target data in PTR's two phases."""

    def __init__(
        self,
        prior: TransitionPool,
        target: TransitionPool | None,
        config: TrainingConfig,
        seed: int,
    ) -> None:
        """Combine pools.

        Args:
            prior: Pre-training data, or the only data.
            target: Data of the target tasks, or None.
            config: Batch size and mixing schedule.
            seed: Batches depend on it and on the step alone, so a resumed run sees the same ones.
        """
        self._prior = prior
        self._target = target
        self._config = config
        self._seed = seed

    def split(self, step: int) -> tuple[int, int]:
        """Transitions of prior and target data in the batch of a step."""
        size = self._config.optimisation.batch_size
        if self._target is None:
            return size, 0
        mixing = self._config.mixing
        ratio = (
            mixing.prior_ratio_before
            if step < mixing.target_start_step
            else mixing.prior_ratio_after
        )
        prior = int(ratio * size)
        return prior, size - prior

    def batch(self, step: int) -> Batch:
        """The augmented batch of a step."""
        rng = np.random.default_rng([self._seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        prior, target = self.split(step)
        parts = []
        if prior:
            parts.append(self._prior.draw(prior, rng, generator))
        if target and self._target is not None:
            parts.append(self._target.draw(target, rng, generator))
        if len(parts) == 1:
            return parts[0]
        return Batch(
            **{
                key: torch.cat([getattr(part, key) for part in parts])
                for key in Batch.__dataclass_fields__
            }
        )


def _held_out(count: int, share: float) -> NDArray[np.bool_]:
    """Every k-th episode is held out; fixed by position so that runs are comparable."""
    if share == 0.0:
        return np.zeros(count, dtype=bool)
    period = max(2, round(1.0 / share))
    return np.arange(count) % period == period - 1
