"""Where the robot should be on the map, by how it has moved since it last knew.

Views repeat: two doors look alike, and so do the two ends of a corridor. How the robot moved says
which of them it can be at. The camera has the last word: what is expected here only weighs against
places that are too far away or face another way, and only so much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnm_nav.planar_pose import (
    OdometryHistory,
    Pose,
    compose,
    inverse,
    is_jump,
    relative_pose,
    wrap_angle,
)

_GAIN = 0.25
_YAW_GAIN = 0.1
"""Share of a sighting in the estimate. Odometry knows how a robot turned better than the network
knows how a view that is near is turned."""
_APART_M = 1.5
_APART_RAD = 0.8
"""Sightings further off than this are of another place."""
_APART_SIGHTINGS = 6
"""So many of those on end, and the robot has been carried away: they are right."""
_ODOMETRY_AGE_S = 0.3
_CUT = 31.0
"""Mean change of the picture between two images, in grey levels 0 … 255, that driving hardly makes
in a quarter of a second: 2 of 1000 images in simulated worlds, against 99 of 100 of a robot that
was carried away."""
_CUT_RAD = 0.06
"""Turning by more does."""
_NEAR_M = 0.8
_NEAR_RAD = 0.6
"""A node within this of the pose is where one expects it: it lies ahead of the robot."""
_SIGMA_M = 0.3
_SIGMA_RAD = 0.25
_DRIFT = 0.1
"""Growth of the standard deviations, per metre driven and per radian turned."""
_SURE_SIGHTINGS = 6
"""Of nodes, before the robot can be told to be at a place."""
_GOAL_M = 0.8
"""It cannot be at a place that is further away than this, by how it has moved."""
_AT_M = 0.25
"""It is at a place that is not further away than this, if it knows its own so well:"""
_KNOWN_SIGMA_M = 0.4
"""Standard deviation up to which a pose is good enough to act on it alone."""
_MISFIT_CAP = 4.0
"""Largest weight against a node for its place, and for its direction [nats]."""


@dataclass(frozen=True)
class ExpectedPose:
    """The robot's pose in the frame of the map, and how sure that is.

    Attributes:
        x_m, y_m, yaw_rad: the pose.
        sigma_m, sigma_rad: standard deviations.
        sightings: of nodes that agree with it.
    """

    x_m: float
    y_m: float
    yaw_rad: float
    sigma_m: float
    sigma_rad: float
    sightings: int = 0

    def apart_m(self, place: NDArray[np.float64]) -> float:
        """Distance to a place whose first two values are x and y [m]."""
        return math.hypot(float(place[0]) - self.x_m, float(place[1]) - self.y_m)

    @property
    def is_known(self) -> bool:
        """Whether it is good enough to act on it alone."""
        return self.sigma_m <= _KNOWN_SIGMA_M

    def may_be_at(self, place: NDArray[np.float64]) -> bool:
        """Whether the robot can be at a place, by how it has moved.

        Not where it was found a moment ago: that may be a place that only looks alike.
        """
        sure = self.sightings >= _SURE_SIGHTINGS
        return sure and self.apart_m(place) <= _GOAL_M + self.sigma_m

    def is_at(self, place: NDArray[np.float64]) -> bool:
        """Whether the robot is at a place, by how it has moved since it last knew."""
        sure = self.sightings >= _SURE_SIGHTINGS and self.is_known
        return sure and self.apart_m(place) <= _AT_M

    def misfit(self, poses: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much each node speaks against being the next one ahead of the robot.

        Args:
            poses: (N, 3) x, y [m], yaw [rad] of nodes.

        Returns:
            (N,) negative log likelihood, 0 … 2 `_MISFIT_CAP`.
        """
        apart_m = np.hypot(poses[:, 0] - self.x_m, poses[:, 1] - self.y_m)
        turned = np.abs((poses[:, 2] - self.yaw_rad + math.pi) % (2.0 * math.pi) - math.pi)
        far = np.maximum(apart_m - _NEAR_M, 0.0) / self.sigma_m
        aside = np.maximum(turned - _NEAR_RAD, 0.0) / self.sigma_rad
        return np.asarray(
            np.minimum(0.5 * far**2, _MISFIT_CAP) + np.minimum(0.5 * aside**2, _MISFIT_CAP)
        )


class DeadReckoning:
    """Adds up motion between sightings of nodes."""

    def __init__(self) -> None:
        """Know nothing."""
        self._odometry = OdometryHistory(_ODOMETRY_AGE_S)
        self._last: Pose | None = None
        self._last_s = -math.inf
        self._picture: NDArray[np.uint8] | None = None
        self.forget()

    def forget(self) -> None:
        """The robot may be anywhere."""
        self._pose: Pose | None = None
        self._driven_m = 0.0
        self._turned_rad = 0.0
        self._apart = 0
        self._sightings = 0

    def add_odometry(self, stamp_s: float, x_m: float, y_m: float, yaw_rad: float) -> None:
        """Take a pose in any frame that stands still."""
        self._odometry.add(stamp_s, x_m, y_m, yaw_rad)

    def advance(self, picture: NDArray[np.uint8], stamp_s: float, told: Pose) -> Pose:
        """Move on to the time of an image; one that motion does not explain ends the reckoning.

        Args:
            picture: (h, w, 3) uint8.
            stamp_s: its time.
            told: motion since the image before, as it was commanded; taken where odometry does not
                say how the robot really moved.

        Returns:
            The motion: x, y [m], yaw [rad] in the robot's frame at the image before.
        """
        here = self._odometry.at(stamp_s)
        motion = told
        if here is not None and self._last is not None:
            measured = relative_pose(self._last, here)
            if not is_jump(self._last, here, stamp_s - self._last_s):
                motion = measured
        self._last, self._last_s = here, stamp_s
        if self._picture is not None and abs(motion[2]) < _CUT_RAD:
            change = np.abs(picture.astype(np.int16) - self._picture.astype(np.int16)).mean()
            if change > _CUT:
                self.forget()
        self._picture = picture
        if self._pose is not None:
            self._pose = compose(self._pose, motion)
            self._driven_m += math.hypot(*motion[:2])
            self._turned_rad += abs(motion[2])
        return motion

    def slipped(self, distance_m: float) -> None:
        """The robot may not have moved as far as it seems, by up to so much."""
        self._driven_m += distance_m / _DRIFT

    def sight(self, node: Pose, ahead: Pose) -> None:
        """Take a sighting of a node.

        Args:
            node: its pose in the frame of the map.
            ahead: its pose in the robot's frame, as the network sees it.
        """
        seen = compose(node, inverse(ahead))
        if self._pose is None:
            self._take(seen)
            return
        dx, dy = seen[0] - self._pose[0], seen[1] - self._pose[1]
        turn = wrap_angle(seen[2] - self._pose[2])
        if math.hypot(dx, dy) > _APART_M or abs(turn) > _APART_RAD:
            self._apart += 1
            if self._apart >= _APART_SIGHTINGS:
                self._take(seen)
            return
        self._apart = 0
        self._sightings += 1
        x, y, yaw = self._pose
        self._pose = (x + _GAIN * dx, y + _GAIN * dy, wrap_angle(yaw + _YAW_GAIN * turn))
        self._driven_m *= 1.0 - _GAIN
        self._turned_rad *= 1.0 - _YAW_GAIN

    def _take(self, pose: Pose) -> None:
        self.forget()
        self._pose = pose

    @property
    def expected(self) -> ExpectedPose | None:
        """Where the robot should be, None: it was nowhere seen yet."""
        if self._pose is None:
            return None
        return ExpectedPose(
            *self._pose,
            _SIGMA_M + _DRIFT * self._driven_m,
            _SIGMA_RAD + _DRIFT * self._turned_rad,
            self._sightings,
        )
