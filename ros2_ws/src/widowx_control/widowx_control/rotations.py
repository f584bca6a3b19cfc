"""Small operations on rotation matrices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pinocchio as pin

Array = npt.NDArray[np.float64]


def limit_rotation(rotation: Array, reference: Array, max_angle_rad: float) -> tuple[Array, bool]:
    """Turn a rotation towards a reference until at most `max_angle_rad` lies between them.

    Args:
        rotation: (3, 3).
        reference: (3, 3).
        max_angle_rad: bound on the angle of ``rotation @ reference.T``.

    Returns:
        The (3, 3) orthonormal rotation, and whether it was turned.
    """
    vector = pin.log3(_orthonormal(rotation @ reference.T))
    angle = float(np.linalg.norm(vector))
    if angle <= max_angle_rad:
        return _orthonormal(rotation), False
    turned: Array = pin.exp3(vector * (max_angle_rad / angle)) @ reference
    return turned, True


def quaternion_from_rotation(rotation: Array) -> tuple[float, float, float, float]:
    """Return the unit quaternion (x, y, z, w) of a (3, 3) rotation."""
    x, y, z, w = pin.Quaternion(rotation).coeffs()
    return float(x), float(y), float(z), float(w)


def _orthonormal(rotation: Array) -> Array:
    """Remove the drift that repeated products leave."""
    u, _, vt = np.linalg.svd(rotation)
    result: Array = u @ vt
    return result
