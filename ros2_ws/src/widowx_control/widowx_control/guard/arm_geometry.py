"""Where the commanded arm would be: end effector, lowest point, nearest parts.

Shapes are the primitive collision shapes of the project's URDF.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import coal
import numpy as np
import numpy.typing as npt
import pinocchio as pin
from widowx_description import urdf_text

from widowx_control.gripper import FINGER_OPEN_M
from widowx_control.kinematics import END_EFFECTOR_LINK, JOINT_NAMES, NAMED_POSES

Array = npt.NDArray[np.float64]

_CHAIN: Final = (
    ("base_link",),
    ("shoulder_link",),
    ("upper_arm_link",),
    ("upper_forearm_link",),
    ("lower_forearm_link",),
    ("wrist_link",),
    ("gripper_link", "gripper_bar_link", "left_finger_link", "right_finger_link"),
)
"""Links in their order along the arm; neighbours touch by design and are not compared."""
_STANDING: Final = ("base_link", "shoulder_link")
"""Links that stand on the table and cannot go below it."""
_ALLOWED_SLACK_M: Final = 0.005


@dataclass(frozen=True)
class Posture:
    """Geometry of one configuration, in base_link."""

    end_effector_m: Array
    """(3,) position of ee_gripper_link."""
    lowest_m: float
    """Height of the lowest point of the moving parts."""
    lowest_part: str
    nearest_m: float
    """Smallest distance between parts that are no neighbours; negative when they overlap. Pairs
    that touch in a resting pose are given what that pose needs. Exact below twice `margin_m`
    plus 0.02 m; beyond, it is only known to be larger."""
    nearest_parts: tuple[str, str]


class ArmGeometry:
    """Computes postures. Not thread-safe: pinocchio's workspace is reused between calls."""

    def __init__(
        self, margin_m: float, resting_poses: Iterable[npt.ArrayLike] | None = None
    ) -> None:
        """Build the model.

        Args:
            margin_m: distance that is to be kept between parts.
            resting_poses: joint positions (6,) that keep it whatever the shapes say: the folded
                arm rests on itself. None: the named poses of the robot.
        """
        urdf = urdf_text()
        self._model = pin.buildModelFromXML(urdf)
        self._shapes = pin.buildGeomFromUrdfString(self._model, urdf, pin.GeometryType.COLLISION)
        self._data = self._model.createData()
        rank = {link: i for i, links in enumerate(_CHAIN) for link in links}
        self._links = [o.name.rsplit("_", 1)[0] for o in self._shapes.geometryObjects]
        ranks = [rank[link] for link in self._links]
        count = len(ranks)
        for a in range(count):
            for b in range(a + 1, count):
                if abs(ranks[a] - ranks[b]) >= 2:
                    self._shapes.addCollisionPair(pin.CollisionPair(a, b))
        self._placements = pin.GeometryData(self._shapes)
        pairs = self._shapes.collisionPairs
        self._first = np.array([p.first for p in pairs])
        self._second = np.array([p.second for p in pairs])
        # Half sizes of a box, or (radius, radius, half length) of a cylinder about its z axis.
        self._half = np.array([_half_sizes(o.geometry) for o in self._shapes.geometryObjects])
        self._round = np.array(
            [isinstance(o.geometry, coal.Cylinder) for o in self._shapes.geometryObjects]
        )
        radii = np.where(
            self._round,
            np.hypot(self._half[:, 0], self._half[:, 2]),
            np.linalg.norm(self._half, axis=1),
        )
        self._reach = radii[self._first] + radii[self._second]
        self._moving = np.array([link not in _STANDING for link in self._links])
        self._frame = self._model.getFrameId(END_EFFECTOR_LINK)
        self._q = pin.neutral(self._model)
        joints = self._model.joints
        self._arm_index = np.array(
            [joints[self._model.getJointId(name)].idx_q for name in JOINT_NAMES]
        )
        self._finger_index = [
            joints[self._model.getJointId(name)].idx_q for name in ("left_finger", "right_finger")
        ]
        self._horizon_m = 2 * margin_m + 0.02
        self._allowed = np.zeros(len(pairs))
        for pose in NAMED_POSES.values() if resting_poses is None else resting_poses:
            self._place(np.asarray(pose, dtype=np.float64), FINGER_OPEN_M)
            for k in range(len(pairs)):
                spare = self._distance(k) - margin_m - _ALLOWED_SLACK_M
                self._allowed[k] = min(self._allowed[k], spare)

    def posture(self, joint_positions_rad: Array, finger_m: float) -> Posture:
        """Return the geometry for (6,) joint positions and the left finger's distance."""
        self._place(joint_positions_rad, finger_m)
        placements = self._placements.oMg
        centres = np.array([m.translation for m in placements])
        end_effector = pin.updateFramePlacement(self._model, self._data, self._frame)
        vertical = np.abs(np.array([m.rotation[2] for m in placements]))
        # Support of each shape straight down.
        box = (vertical * self._half).sum(axis=1)
        tilt = np.sqrt(np.clip(1.0 - vertical[:, 2] ** 2, 0.0, 1.0))
        cylinder = vertical[:, 2] * self._half[:, 2] + tilt * self._half[:, 0]
        bottoms = centres[:, 2] - np.where(self._round, cylinder, box)
        bottoms[~self._moving] = np.inf
        lowest = int(bottoms.argmin())
        gaps = np.linalg.norm(centres[self._first] - centres[self._second], axis=1) - self._reach
        nearest_m, nearest = self._horizon_m, -1
        for k in np.flatnonzero(gaps < self._horizon_m):
            distance = self._distance(int(k)) - self._allowed[k]
            if distance < nearest_m:
                nearest_m, nearest = distance, int(k)
        parts = ("", "")
        if nearest >= 0:
            parts = (self._links[self._first[nearest]], self._links[self._second[nearest]])
        return Posture(
            end_effector.translation.copy(),
            float(bottoms[lowest]),
            self._links[lowest],
            float(nearest_m),
            parts,
        )

    def _place(self, joint_positions_rad: Array, finger_m: float) -> None:
        self._q[self._arm_index] = joint_positions_rad
        self._q[self._finger_index] = finger_m, -finger_m
        pin.updateGeometryPlacements(
            self._model, self._data, self._shapes, self._placements, self._q
        )

    def _distance(self, pair: int) -> float:
        result = pin.computeDistance(self._shapes, self._placements, pair)
        return float(result.min_distance)


def _half_sizes(shape: coal.CollisionGeometry) -> Array:
    if isinstance(shape, coal.Box):
        return np.array(shape.halfSide, dtype=np.float64).reshape(3)
    if isinstance(shape, coal.Cylinder):
        return np.array([shape.radius, shape.radius, shape.halfLength])
    raise ValueError(f"collision shape {type(shape).__name__}; boxes and cylinders are known")
