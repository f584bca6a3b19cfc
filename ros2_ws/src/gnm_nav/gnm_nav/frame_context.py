"""Frames at the network's rate, chosen by stamps, whatever the camera's rate."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_KEEP_FACTOR = 1.5
_REUSE_BONUS = 0.2
_SLOT_TOLERANCE = 0.5
"""Parts of the period: a frame that was already used is preferred when it is that much worse, and
a frame this far from its slot leaves a gap."""


@dataclass
class _Frame:
    stamp_s: float
    native: NDArray[np.uint8] | None
    network: NDArray[np.uint8] | None = None


class FrameContext:
    """The last frames of a camera at a fixed period.

    Preprocessing runs only on frames that are used, and once for each; a frame that was used in one
    tick is preferred in the next, so that networks that cache tokens per frame profit.
    """

    def __init__(
        self,
        preprocess: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
        size: int,
        period_s: float = 0.25,
    ) -> None:
        """Hold no frame.

        Args:
            preprocess: native RGB image → the network's image.
            size: frames in a context, the current one included.
            period_s: time between two of them.
        """
        self._preprocess = preprocess
        self._size = size
        self._period_s = period_s
        self._frames: deque[_Frame] = deque()

    @property
    def newest_s(self) -> float | None:
        """Stamp of the newest frame."""
        return self._frames[-1].stamp_s if self._frames else None

    def clear(self) -> None:
        """Forget all frames."""
        self._frames.clear()

    def push(self, image: NDArray[np.uint8], stamp_s: float) -> bool:
        """Take a camera image.

        A stamp that is not newer than the last one is dropped; when it is older by more than the
        whole context (a clock that was set back), everything before is forgotten.

        Args:
            image: native RGB, (H, W, 3) uint8.
            stamp_s: time of exposure [s].

        Returns:
            Whether it was taken.
        """
        newest = self.newest_s
        if newest is not None and stamp_s <= newest:
            if newest - stamp_s < self._size * self._period_s:
                return False
            self.clear()
        self._frames.append(_Frame(stamp_s, image))
        horizon_s = stamp_s - self._period_s * (self._size - 1 + _KEEP_FACTOR)
        while self._frames[0].stamp_s < horizon_s:
            self._frames.popleft()
        return True

    def frames(self, *, pad: bool = False) -> list[NDArray[np.uint8]] | None:
        """The context, oldest first, the newest frame last.

        Args:
            pad: where it has a gap, repeat the frame after the gap, as if the robot had stood.

        Returns:
            `size` images of the network's size; None without a frame, or while there are gaps.
        """
        if not self._frames:
            return None
        newest = self._frames[-1]
        chosen = [newest]
        for slot in range(1, self._size):
            target_s = newest.stamp_s - slot * self._period_s
            best = min(
                self._frames,
                key=lambda frame: (
                    abs(frame.stamp_s - target_s)
                    - (_REUSE_BONUS * self._period_s if frame.network is not None else 0.0)
                ),
            )
            if abs(best.stamp_s - target_s) > _SLOT_TOLERANCE * self._period_s:
                if not pad:
                    return None
                chosen += chosen[-1:] * (self._size - len(chosen))
                break
            chosen.append(best)
        return [self._network(frame) for frame in reversed(chosen)]

    def _network(self, frame: _Frame) -> NDArray[np.uint8]:
        if frame.network is None:
            assert frame.native is not None
            frame.network = self._preprocess(frame.native)
            frame.native = None
        return frame.network
