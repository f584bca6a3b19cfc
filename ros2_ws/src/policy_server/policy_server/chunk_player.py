"""Which step of which action chunk is executed next.

A policy computes a chunk of steps from one observation. Steps are counted as they are executed, so
a chunk that was computed while others were executed joins where those have got to, however long its
inference took.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PlannedStep:
    """The step to execute now.

    Attributes:
        action: float64, shape (A,), physical units.
        stamp_ns: stamp of the observation that caused it; of several, of the newest [ns].
        index: its place in its chunk; in the newest of several.
        is_first: whether no other step of that chunk was executed before.
    """

    action: NDArray[np.float64]
    stamp_ns: int
    index: int
    is_first: bool


@dataclass(frozen=True)
class _Chunk:
    steps: NDArray[np.float64]
    stamp_ns: int
    begin: int


class ChunkPlayer:
    """Holds the chunks that are being executed; not safe to use from several threads.

    Args:
        execute_steps: after so many steps of a chunk the next one is wanted.
        ensemble_decay: None: the newest chunk alone is executed. Otherwise what several chunks hold
            for the same moment is averaged with the weights exp(-ensemble_decay * i), where i = 0
            is the oldest chunk: the temporal ensemble of Zhao et al., "Learning Fine-Grained
            Bimanual Manipulation with Low-Cost Hardware" (2023), section IV-A.
    """

    def __init__(self, execute_steps: int, ensemble_decay: float | None = None) -> None:
        self._execute_steps = execute_steps
        self._ensemble_decay = ensemble_decay
        self._chunks: list[_Chunk] = []
        self._position = 0
        self._is_first = False

    @property
    def position(self) -> int:
        """How many steps were executed; a chunk begins at that of its observation."""
        return self._position

    @property
    def wants_chunk(self) -> bool:
        """Whether the next chunk should be computed from what is seen now."""
        return not self._chunks or self._position - self._chunks[-1].begin >= self._execute_steps

    @property
    def has_run_out(self) -> bool:
        """Whether a chunk is there, and all its steps were executed."""
        return bool(self._chunks) and self._remaining() == 0

    def add(self, steps: NDArray[np.floating], stamp_ns: int, begin: int) -> None:
        """Take the newest chunk.

        Args:
            steps: shape (H, A), physical units.
            stamp_ns: stamp of the observation that caused it [ns].
            begin: `position` at that observation; the steps that were executed since are left out.
        """
        if self._ensemble_decay is None:
            self._chunks = []
        self._chunks.append(_Chunk(steps.astype(np.float64), stamp_ns, begin))
        self._is_first = True

    def clear(self) -> int:
        """Drop all chunks; return how many steps of the newest are lost by it."""
        dropped = self._remaining()
        self._chunks = []
        return dropped

    def take(self) -> PlannedStep | None:
        """Return the step to execute now, and count it as executed; None when there is none."""
        if self._remaining() == 0:
            return None
        self._chunks = [c for c in self._chunks if self._position - c.begin < len(c.steps)]
        actions = [c.steps[self._position - c.begin] for c in self._chunks]
        action = actions[0]
        if self._ensemble_decay is not None:
            weights = np.exp(-self._ensemble_decay * np.arange(len(actions)))
            action = np.average(actions, axis=0, weights=weights)
        step = PlannedStep(
            action=action,
            stamp_ns=self._chunks[-1].stamp_ns,
            index=self._position - self._chunks[-1].begin,
            is_first=self._is_first,
        )
        self._position += 1
        self._is_first = False
        return step

    def _remaining(self) -> int:
        if not self._chunks:
            return 0
        newest = self._chunks[-1]
        return max(0, newest.begin + len(newest.steps) - self._position)
