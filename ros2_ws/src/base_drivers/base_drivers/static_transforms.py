"""Poses of frames that do not move against each other, as /tf_static tells them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_LONGEST_CHAIN = 100


class StaticTransforms:
    """Knows each frame by its parent, and joins them."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, NDArray[np.float64]]] = {}

    def add(
        self,
        parent: str,
        child: str,
        translation_m: Sequence[float],
        quaternion_xyzw: Sequence[float],
    ) -> None:
        """Take a transform; a newer one of the same child takes the place of the one before.

        Args:
            parent, child: names of frames; a leading slash does not count.
            translation_m: origin of the child in the parent: x, y, z.
            quaternion_xyzw: rotation of the child in the parent; of any length but 0.

        Raises:
            ValueError: a number is not finite, or the quaternion has no length.
        """
        matrix = np.eye(4)
        matrix[:3, :3] = rotation_matrix(quaternion_xyzw)
        matrix[:3, 3] = translation_m
        if not np.isfinite(matrix).all():
            raise ValueError(f"found the translation {list(translation_m)}, expected numbers")
        self._parents[child.lstrip("/")] = (parent.lstrip("/"), matrix)

    def pose(self, frame: str, base: str) -> NDArray[np.float64] | None:
        """The pose of a frame in another.

        Returns:
            (4, 4) homogeneous transform from `frame` to `base`; None where none is known.
        """
        of_base = dict(self._ancestors(base.lstrip("/")))
        for ancestor, matrix in self._ancestors(frame.lstrip("/")):
            if ancestor in of_base:
                return np.asarray(np.linalg.inv(of_base[ancestor]) @ matrix)
        return None

    def _ancestors(self, frame: str) -> list[tuple[str, NDArray[np.float64]]]:
        """The frame itself and those above it, each with the pose of the frame in it."""
        found = [(frame, np.eye(4))]
        while frame in self._parents and len(found) < _LONGEST_CHAIN:
            frame, matrix = self._parents[frame]
            found.append((frame, matrix @ found[-1][1]))
        return found


def rotation_matrix(quaternion_xyzw: Sequence[float]) -> NDArray[np.float64]:
    """The (3, 3) matrix of a quaternion of any length but 0.

    Raises:
        ValueError: it has no length, or is not finite.
    """
    length = math.hypot(*quaternion_xyzw)
    if not 1e-6 < length < math.inf:
        raise ValueError(f"found the quaternion {list(quaternion_xyzw)}, expected a rotation")
    x, y, z, w = (value / length for value in quaternion_xyzw)
    return np.array(
        [
            [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
            [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
            [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
        ]
    )
