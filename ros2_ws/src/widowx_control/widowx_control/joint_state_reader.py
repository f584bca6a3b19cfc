"""Reads the arm and the gripper out of a JointState, and refuses what is no measurement."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from widowx_control.kinematics import JOINT_NAMES

FINGER_JOINT = "left_finger"


@dataclass(frozen=True)
class ArmMeasurement:
    """One measurement of the arm."""

    joint_positions_rad: npt.NDArray[np.float64]
    """(6,) in the order of `kinematics.JOINT_NAMES`."""
    finger_m: float
    """Distance of the left finger from the centre line."""
    stamp_s: float
    """Time of the measurement on the driver's clock."""


class JointStateReader:
    """Finds joints by name; counts what it refuses by code in `counters`."""

    def __init__(self, max_age_s: float, future_tolerance_s: float) -> None:
        """Set the limits on the age of a measurement."""
        self._max_age_s = max_age_s
        self._future_tolerance_s = future_tolerance_s
        self.counters: Counter[str] = Counter()
        self.reason = ""

    def read(
        self, names: Sequence[str], positions: Sequence[float], stamp_s: float, now_s: float
    ) -> ArmMeasurement | None:
        """Return the measurement, or None with `reason` set.

        Args:
            names: joint names.
            positions: rad; m for the fingers.
            stamp_s: time of the measurement.
            now_s: present time on the same clock.
        """
        index = {name: i for i, name in enumerate(names)}
        wanted = (*JOINT_NAMES, FINGER_JOINT)
        missing = [name for name in wanted if name not in index]
        if missing or len(positions) != len(names):
            return self._refuse(
                "joint_states_incomplete",
                f"joint_states has {len(positions)} positions for [{', '.join(names)[:200]}]; "
                f"[{', '.join(wanted)}] are needed",
            )
        values = np.array([positions[index[name]] for name in wanted])
        if not np.isfinite(values).all():
            return self._refuse("joint_states_non_finite", "joint_states has NaN or infinity")
        # A driver whose bus is dead publishes its zeroed buffer: every joint at -pi, fresh stamp.
        if np.abs(values[:6] + math.pi).max() < 0.002:
            return self._refuse(
                "joint_states_dead_bus",
                "joint_states has every joint at -pi: the driver cannot read its servos",
            )
        age_s = now_s - stamp_s
        if not -self._future_tolerance_s <= age_s <= self._max_age_s:
            return self._refuse(
                "joint_states_bad_stamp",
                f"joint_states is {age_s:.3f} s old; -{self._future_tolerance_s} .. "
                f"{self._max_age_s} s is accepted",
            )
        self.reason = ""
        return ArmMeasurement(values[:6], float(values[6]), stamp_s)

    def _refuse(self, code: str, reason: str) -> ArmMeasurement | None:
        self.counters[code] += 1
        self.reason = reason
        return None
