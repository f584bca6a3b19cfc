"""Where a demonstration acted, seen in hindsight: labels of the auxiliary localisation loss.

The labels come from proprioception alone, so they exist for demonstrations on real robots too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy_training.dataset import Dataset

AUXILIARY_DIM = 4
"""x and y of the point of contact, x and y of the point of release."""
_CLOSED_BELOW = 0.5
_LOW_BAND_M = 0.01


@dataclass(frozen=True)
class HindsightLabels:
    """Labels per row of a dataset.

    Attributes:
        target: float32 (N, 4), contact x y and release x y in the robot's frame, standardised by
            the data's mean and spread.
        weight: float32 (N, 4), 1 while the point still lies ahead, else 0: once an object has been
            grasped or released, the image no longer shows where that happened.
    """

    target: NDArray[np.float32]
    weight: NDArray[np.float32]


def hindsight_labels(dataset: Dataset) -> HindsightLabels:
    """Find contact and release of every episode.

    Contact is the observation at which the gripper is first told to close, release the one at which
    it is next told to open. An episode without such commands (a push) contributes the first and the
    last observation within 1 cm of its lowest point.

    Args:
        dataset: Demonstrations whose state has x, y, z and whose action has a gripper.

    Returns:
        Labels for every row.
    """
    names = dataset.spec.state_names
    xy = dataset.state[:, [names.index("x"), names.index("y")]]
    height = dataset.state[:, names.index("z")]
    gripper = dataset.action[:, dataset.spec.action_names.index("gripper")]
    target = np.zeros((len(xy), AUXILIARY_DIM), dtype=np.float32)
    weight = np.zeros_like(target)
    first_rows = np.flatnonzero(dataset.step == 0)
    for first, episode in zip(first_rows, dataset.episodes, strict=True):
        rows = slice(first, first + episode.length)
        contact, release = _key_steps(gripper[rows], height[rows])
        target[first : first + episode.length + 1] = np.concatenate(
            [xy[first + contact], xy[first + release]]
        )
        weight[first : first + contact + 1, :2] = 1.0
        weight[first : first + release + 1, 2:] = 1.0
    spread = target.std(axis=0)
    spread[spread < 1e-3] = 1.0
    return HindsightLabels((target - target.mean(axis=0)) / spread, weight)


def _key_steps(gripper: NDArray[np.float32], height: NDArray[np.float32]) -> tuple[int, int]:
    closed = gripper < _CLOSED_BELOW
    if closed.any() and not closed[0]:
        contact = int(np.argmax(closed))
        opened = np.flatnonzero(~closed[contact:])
        release = contact + int(opened[0]) if len(opened) else len(gripper) - 1
        return contact, release
    low = np.flatnonzero(height <= height.min() + _LOW_BAND_M)
    return int(low[0]), int(low[-1])
