"""How far a base can follow a velocity before it touches what a laser scanner sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from base_drivers.velocity import REST_M_S, Velocity

_STEP_M = 0.02
_LARGEST_SWEEP_RAD = 4.0 * math.pi


@dataclass(frozen=True)
class Footprint:
    """Outline of the base as a rectangle around the origin of `base_link`.

    Attributes:
        front_m, rear_m: distances of the edges before and behind the origin.
        half_width_m: distance of the edges to the left and the right.
    """

    front_m: float
    rear_m: float
    half_width_m: float

    @property
    def reach_m(self) -> float:
        """Distance of the farthest corner from the origin."""
        return math.hypot(max(self.front_m, self.rear_m), self.half_width_m)


@dataclass(frozen=True)
class ScanMount:
    """Pose of the scanner in `base_link`.

    Attributes:
        x_m, y_m: position, forward and to the left. The height does not matter.
        yaw_rad, roll_rad, pitch_rad: rotation about the fixed axes of `base_link`: first roll about
            x, then pitch about y, then yaw about z (REP 103). A scanner that hangs upside down has
            a roll of π.
    """

    x_m: float = 0.0
    y_m: float = 0.0
    yaw_rad: float = 0.0
    roll_rad: float = 0.0
    pitch_rad: float = 0.0

    @classmethod
    def from_transform(cls, matrix: NDArray[np.float64]) -> ScanMount:
        """The mount that a (4, 4) transform from the scanner to `base_link` says."""
        pitch = math.asin(min(1.0, max(-1.0, -float(matrix[2, 0]))))
        if abs(math.cos(pitch)) < 1e-6:
            # Straight up or down, yaw and roll turn about the same axis: one of them is enough.
            roll, yaw = 0.0, math.atan2(-matrix[0, 1], matrix[1, 1])
        else:
            roll = math.atan2(matrix[2, 1], matrix[2, 2])
            yaw = math.atan2(matrix[1, 0], matrix[0, 0])
        return cls(float(matrix[0, 3]), float(matrix[1, 3]), yaw, roll, pitch)

    @property
    def axes(self) -> NDArray[np.float64]:
        """(2, 2) the scanner's x and y axes as columns, seen from above in `base_link`."""
        sin_r, cos_r = math.sin(self.roll_rad), math.cos(self.roll_rad)
        sin_p, cos_p = math.sin(self.pitch_rad), math.cos(self.pitch_rad)
        sin_y, cos_y = math.sin(self.yaw_rad), math.cos(self.yaw_rad)
        return np.array(
            [
                [cos_y * cos_p, cos_y * sin_p * sin_r - sin_y * cos_r],
                [sin_y * cos_p, sin_y * sin_p * sin_r + cos_y * cos_r],
            ]
        )


class BlindScanError(ValueError):
    """A scan that is well formed, but none of its beams has measured anything."""


def points_from_ranges(
    ranges_m: NDArray[np.float32],
    angle_min_rad: float,
    angle_increment_rad: float,
    range_min_m: float,
    range_max_m: float,
    mount: ScanMount,
    angle_max_rad: float = math.nan,
) -> NDArray[np.float64]:
    """Turn a scan into points.

    Args:
        ranges_m: (N,) as in sensor_msgs/LaserScan. +inf and more than the largest range see
            nothing; NaN and less than the smallest range, also the 0.0 that many drivers send,
            are no measurement; -inf is, after REP 117, a thing too close to measure, and counts as
            one at the smallest range.
        angle_min_rad, angle_increment_rad: angles of the beams; the increment may be negative.
        range_min_m, range_max_m: measurements outside are not points.
        mount: pose of the scanner.
        angle_max_rad: angle of the last beam; NaN: not told.

    Returns:
        (M, 2) x and y in `base_link` [m].

    Raises:
        BlindScanError: no beam is a measurement, and none says that there is nothing.
        ValueError: the scan has no beams, or its angles or limits make no sense. It must not be
            taken for free space.
    """
    numbers = (angle_min_rad, angle_increment_rad, range_min_m, range_max_m)
    if len(ranges_m) == 0 or any(map(math.isnan, numbers)) or math.isinf(angle_min_rad):
        raise ValueError(f"{len(ranges_m)} beams, angles and limits {numbers}")
    if angle_increment_rad == 0.0 or not 0.0 <= range_min_m < range_max_m:
        raise ValueError(
            f"angle increment {angle_increment_rad:g}, range {range_min_m:g} .. {range_max_m:g} m; "
            "expected an increment that is not 0 and 0 <= minimum < maximum"
        )
    sweep_rad = abs(angle_increment_rad) * (len(ranges_m) - 1)
    if sweep_rad > _LARGEST_SWEEP_RAD:
        raise ValueError(
            f"{len(ranges_m)} beams with an increment of {angle_increment_rad:g} rad sweep "
            f"{sweep_rad:.0f} rad, expected one turn: are the angles in degrees?"
        )
    # Which way it turns decides between left and right.
    if (angle_max_rad - angle_min_rad) * angle_increment_rad < 0.0:
        raise ValueError(
            f"angles from {angle_min_rad:g} to {angle_max_rad:g} with an increment of "
            f"{angle_increment_rad:g} rad, expected an increment from the first to the last"
        )
    ranges = np.asarray(ranges_m, np.float64)
    ranges = np.where(np.isneginf(ranges), range_min_m, ranges)
    if not (ranges >= range_min_m).any():
        zeros = int((ranges == 0.0).sum())
        raise BlindScanError(
            f"no beam of {len(ranges)} is a measurement: {zeros} are 0.0, "
            f"{int(np.isnan(ranges).sum())} NaN, the smallest range is {range_min_m:g} m"
        )
    valid = np.isfinite(ranges) & (ranges >= range_min_m) & (ranges <= range_max_m)
    angles = angle_min_rad + angle_increment_rad * np.flatnonzero(valid)
    kept = ranges[valid, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.asarray(kept @ mount.axes.T + (mount.x_m, mount.y_m))


def free_distance(
    points_m: NDArray[np.float64],
    velocity: Velocity,
    footprint: Footprint,
    side_margin_m: float,
    horizon_m: float,
) -> float:
    """How far the base can go along the arc of a velocity until its outline meets a point.

    A turn on the spot counts by the way of the outermost corner. Points that are inside the outline
    already are the base's own parts or things it touches; they block only what moves deeper.

    Args:
        points_m: (M, 2) points in `base_link`.
        velocity: direction of travel; its size does not matter.
        footprint: outline of the base.
        side_margin_m: added to the outline on all sides but the direction of travel's length is
            kept: distances are measured from the true edge.
        horizon_m: farthest distance looked at.

    Returns:
        0 .. `horizon_m`; `inf` when nothing is met, or nothing moves.
    """
    speed = max(math.hypot(velocity.x, velocity.y), abs(velocity.yaw) * footprint.reach_m)
    if speed < REST_M_S or len(points_m) == 0:
        return math.inf
    reach = footprint.reach_m + side_margin_m + horizon_m
    near = points_m[np.hypot(points_m[:, 0], points_m[:, 1]) <= reach]
    if len(near) == 0:
        return math.inf
    steps = max(2, math.ceil(horizon_m / _STEP_M) + 1)
    ways = np.linspace(0.0, horizon_m, steps)
    times = ways / speed
    # Pose of the base at each step of constant velocity: the integral of a turning velocity.
    angle = velocity.yaw * times
    sine = np.sinc(angle / math.pi)
    cosine = np.where(np.abs(angle) > 1e-9, (1.0 - np.cos(angle)) / np.where(angle, angle, 1), 0.0)
    x = times * (velocity.x * sine - velocity.y * cosine)
    y = times * (velocity.x * cosine + velocity.y * sine)
    dx = near[None, :, 0] - x[:, None]
    dy = near[None, :, 1] - y[:, None]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    along, across = cos * dx + sin * dy, cos * dy - sin * dx
    # The margin keeps clear of what is passed; ahead it would only shorten the free way.
    margin_x = 0.0 if abs(velocity.x) >= abs(velocity.y) else side_margin_m
    margin_y = side_margin_m if abs(velocity.x) >= abs(velocity.y) else 0.0
    depth = np.minimum(
        np.minimum(footprint.front_m + margin_x - along, footprint.rear_m + margin_x + along),
        footprint.half_width_m + margin_y - np.abs(across),
    )
    inside_now = depth[0] > 0.0
    hits = depth > 0.0
    hits[:, inside_now] = False
    deeper = inside_now & (depth[1] > depth[0] + 1e-9)
    if deeper.any():
        return 0.0
    first = np.flatnonzero(hits.any(axis=1))
    return float(ways[first[0]]) if len(first) else math.inf
