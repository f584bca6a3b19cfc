"""From predicted waypoints to velocities, within what a robot can do.

The law of the PD controller is that of the GNM family's deployment code (Shah et al., "GNM: A
General Navigation Model to Drive Any Robot", 2023): towards one waypoint of the predicted path.
Pure pursuit is that of Coulter, "Implementation of the Pure Pursuit Path Tracking Algorithm"
(CMU-RI-TR-92-01): along the arc through one point of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from base_drivers.robot_config import CONTROLLERS, MODEL_PERIOD_S, RobotConfig
from base_drivers.velocity import REST, STREAM_TIMEOUT_S, Velocity, strength
from numpy.typing import NDArray

from gnm_nav.planar_pose import OdometryHistory, relative_pose, wrap_angle

_TURN_FIRST_RAD = math.radians(70.0)
"""A target further to the side than this is turned to before driving, in pure pursuit."""
_CRAWL_FACTOR = 0.5
"""Part of the nominal speed at which a robot that cannot turn on the spot turns round."""
_BACK_FACTOR = 0.4
"""Part of the nominal speed at which a robot drives back from what it touches."""
_FASTEST_BACK_FACTOR = 0.5
"""Part of the nominal speed at which it drives along a path that leads straight back."""
_BACK_REST_S = 1.0
"""Time between two drives back while something still touches."""
_TOLERANCE_STEPS = 0.1
"""Waypoints nearer than this many waypoint spacings have no direction: their heading counts."""


class PathError(ValueError):
    """A path that cannot be followed.

    Attributes:
        code: `shape`, `not_finite`, `stale` or `future`.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


def pd_velocity(
    x_m: float,
    y_m: float,
    yaw_rad: float,
    *,
    linear_time_s: float,
    angular_time_s: float,
    tolerance_m: float,
    max_linear_m_s: float,
    max_angular_rad_s: float,
    max_lateral_m_s: float = 0.0,
) -> Velocity:
    """The velocity that the GNM family's PD controller commands towards a waypoint.

    With both times at 0.25 s it equals the published controller wherever that one is right. It
    differs where that one turns away from a target behind the robot, where a waypoint without any
    distance has a heading (its test for that was too narrow ever to be met), and for a robot that
    can move sideways.

    Args:
        x_m, y_m: waypoint in the robot's frame.
        yaw_rad: heading at the waypoint; used when it has no distance.
        linear_time_s: time until the waypoint is to be reached.
        angular_time_s: time until the robot is to look towards it.
        tolerance_m: distance below which a waypoint has no direction.
        max_linear_m_s, max_angular_rad_s, max_lateral_m_s: limits.
    """
    if math.hypot(x_m, y_m) < tolerance_m:
        return Velocity(yaw=_limited(wrap_angle(yaw_rad) / angular_time_s, max_angular_rad_s))
    angular = _limited(math.atan2(y_m, x_m) / angular_time_s, max_angular_rad_s)
    if x_m <= 0.0:
        return Velocity(yaw=angular)
    return Velocity(
        x=min(x_m / linear_time_s, max_linear_m_s),
        y=_limited(y_m / linear_time_s, max_lateral_m_s),
        yaw=angular,
    )


def pure_pursuit_velocity(
    x_m: float, y_m: float, speed_m_s: float, max_angular_rad_s: float
) -> Velocity:
    """The velocity on the arc through a point ahead: curvature 2 y / (x² + y²).

    Too narrow an arc is driven slower, not wider.

    Args:
        x_m, y_m: the point in the robot's frame, not at its origin.
        speed_m_s: wanted speed, not negative.
        max_angular_rad_s: limit of the yaw rate.
    """
    curvature = 2.0 * y_m / (x_m * x_m + y_m * y_m)
    speed = min(speed_m_s, max_angular_rad_s / abs(curvature)) if curvature else speed_m_s
    return Velocity(x=speed, yaw=speed * curvature)


def lookahead_point(points: NDArray[np.float64], distance_m: float) -> tuple[float, float]:
    """The first point of a path that is `distance_m` from the robot, its end if none is.

    Args:
        points: float64 (T, 2), x and y in the robot's frame; the path starts at the robot.
        distance_m: positive.
    """
    before = np.zeros(2)
    for point in points:
        if math.hypot(*point) >= distance_m:
            step = point - before
            # |before + s step| = distance, 0 <= s <= 1
            a, b = float(step @ step), float(before @ step)
            c = float(before @ before) - distance_m**2
            s = (-b + math.sqrt(max(0.0, b * b - a * c))) / a if a > 0.0 else 1.0
            found = before + min(max(s, 0.0), 1.0) * step
            return float(found[0]), float(found[1])
        before = point
    return float(before[0]), float(before[1])


@dataclass(frozen=True)
class FollowerSettings:
    """How a path is followed.

    Attributes:
        controller: `pd` or `pure_pursuit`.
        waypoint_index: 0-based index of the waypoint that is driven to.
        angular_time_s: time in which the PD controller wants to look towards the waypoint.
        path_timeout_s: largest age of the image behind a path, by its stamp.
        silence_timeout_s: largest time without a message, by the steady clock; from the half on the
            robot is slowed down.
        future_tolerance_s: how far a stamp may lie ahead of the clock.
        odometry_timeout_s: largest age of odometry that is still used.
        zeros_s: how long zeros are sent after a stop, before the follower goes quiet.
        back_off_m: how far the robot drives back from what its bumper touches; 0: it stays there.
    """

    controller: str
    waypoint_index: int
    angular_time_s: float = 0.5
    path_timeout_s: float = 0.9
    silence_timeout_s: float = STREAM_TIMEOUT_S
    future_tolerance_s: float = 0.1
    odometry_timeout_s: float = 0.3
    zeros_s: float = 1.0
    back_off_m: float = 0.1

    def __post_init__(self) -> None:
        if self.controller not in CONTROLLERS:
            raise ValueError(
                f"found the controller {self.controller!r}, expected one of {list(CONTROLLERS)}"
            )


class FollowerState(Enum):
    """What a follower does."""

    QUIET = "quiet"
    """Nothing is commanded."""
    FOLLOWING = "following"
    BACKING = "backing"
    """Drives a little back, from what it touches or because the path says so."""
    STOPPING = "stopping"
    """Sends zeros."""


@dataclass(frozen=True)
class FollowerOutput:
    """Result of one update.

    Attributes:
        velocity: to be commanded, None: nothing is to be sent.
        state: what the follower does.
        reason: why it stops or is quiet; empty while following.
        compensated: the path was moved by odometry to where the robot is now.
    """

    velocity: Velocity | None
    state: FollowerState
    reason: str
    compensated: bool


@dataclass(frozen=True)
class _Path:
    waypoints: NDArray[np.float64]
    stamp_s: float


class PathFollower:
    """Follows the newest path; stops by itself when there is none, or an old one.

    Times of stamps and of the node's clock are one clock, `steady_s` is another that never jumps.

    Args:
        robot: its limits hold for everything that is commanded.
        settings: how to follow.
    """

    def __init__(self, robot: RobotConfig, settings: FollowerSettings) -> None:
        self.robot = robot
        self.settings = settings
        self._odometry = OdometryHistory(settings.odometry_timeout_s)
        self.reset()

    def reset(self) -> None:
        """Forget path, odometry and motion."""
        self._path: _Path | None = None
        self._received_s = -math.inf
        self._odometry.clear()
        self._velocity = REST
        self._reason = "no path yet"
        self._stopped_at_s = -math.inf
        self._stop_from = REST
        self._back_from_s = -math.inf

    def touch(self, touches: bool, steady_s: float) -> None:
        """Tell what the bumper feels; while a path is followed, the robot backs off from it.

        How far is bounded by time alone, since nothing is seen behind: the robot came from there.
        """
        rested = steady_s - self._back_from_s > self._back_s + _BACK_REST_S
        if touches and rested and self._path is not None:
            self._back_from_s = steady_s

    @property
    def _back_s(self) -> float:
        return self.settings.back_off_m / (_BACK_FACTOR * self.robot.nominal_speed_m_s)

    def set_path(
        self, waypoints: NDArray[np.float64], stamp_s: float, now_s: float, steady_s: float
    ) -> None:
        """Take a path.

        The same path may come again and again: that shows that its sender is alive.

        Args:
            waypoints: (T, 3) x [m], y [m], yaw [rad] in the robot's frame at `stamp_s`, one model
                step apart; T = 0: stop now.
            stamp_s: time of the image that the path was predicted from.
            now_s: the node's clock.
            steady_s: the steady clock.

        Raises:
            PathError: the path is refused, and the one before stays.
        """
        if waypoints.ndim != 2 or waypoints.shape[1] != 3:
            raise PathError("shape", f"found a path of shape {waypoints.shape}, expected (T, 3)")
        if not np.isfinite(waypoints).all() or not math.isfinite(stamp_s):
            raise PathError("not_finite", "found NaN or infinity in a path, expected numbers")
        if len(waypoints) == 0:
            # However old: to stop is always right.
            self._received_s = steady_s
            self.stop("asked to stop", steady_s)
            return
        age_s = now_s - stamp_s
        if age_s > self.settings.path_timeout_s:
            raise PathError(
                "stale",
                f"found a path {'without a stamp (0)' if stamp_s == 0.0 else f'{age_s:.2f} s old'}"
                ", expected at most "
                f"{self.settings.path_timeout_s:g} s",
            )
        if age_s < -self.settings.future_tolerance_s:
            raise PathError(
                "future",
                f"found a path stamped {-age_s:.2f} s ahead of the clock, expected at most "
                f"{self.settings.future_tolerance_s:g} s",
            )
        self._path = _Path(np.array(waypoints, np.float64), stamp_s)
        self._received_s = steady_s
        self._reason = ""

    def add_odometry(self, stamp_s: float, x_m: float, y_m: float, yaw_rad: float) -> None:
        """Take a pose of the robot in any frame that stands still; bad ones are dropped."""
        self._odometry.add(stamp_s, x_m, y_m, yaw_rad)

    def stop(self, reason: str, steady_s: float) -> None:
        """Forget the path and stand."""
        if self._path is not None:
            self._stopped_at_s = steady_s
        self._path = None
        self._reason = reason

    def update(self, now_s: float, steady_s: float, period_s: float) -> FollowerOutput:
        """Compute the next command.

        Args:
            now_s: the node's clock.
            steady_s: the steady clock.
            period_s: time since the last update.
        """
        if self._path is not None:
            silence_s = steady_s - self._received_s
            age_s = now_s - self._path.stamp_s
            if silence_s > self.settings.silence_timeout_s:
                self.stop(f"no path for {silence_s:.2f} s", steady_s)
            elif age_s > self.settings.path_timeout_s:
                self.stop(f"the path is {age_s:.2f} s old", steady_s)
            elif age_s < -1.0:
                self.stop("the clock was set back", steady_s)
        if self._path is None:
            return self._stopping(steady_s)
        if steady_s - self._back_from_s < self._back_s:
            back = Velocity(x=-_BACK_FACTOR * self.robot.nominal_speed_m_s)
            self._velocity = REST
            return FollowerOutput(back, FollowerState.BACKING, "something touches", False)
        here, compensated = self._from_here(self._path, now_s)
        age_s = max(0.0, now_s - self._path.stamp_s) if compensated else 0.0
        wanted = within_limits(self._wanted(self._path.waypoints, here, age_s), self.robot)
        share = strength(steady_s - self._received_s, self.settings.silence_timeout_s)
        if leads_back(self._path.waypoints):
            pace_m_s = -float(self._path.waypoints[0, 0]) / MODEL_PERIOD_S
            fastest_m_s = _FASTEST_BACK_FACTOR * self.robot.nominal_speed_m_s
            step_m_s = self.robot.max_linear_acceleration_m_s2 * period_s
            back_m_s = _towards(self._velocity.x, -min(pace_m_s, fastest_m_s), step_m_s)
            self._velocity = Velocity(x=back_m_s).scaled(share)
            return FollowerOutput(self._velocity, FollowerState.BACKING, "", compensated)
        self._velocity = self._accelerated(wanted, period_s).scaled(share)
        return FollowerOutput(self._velocity, FollowerState.FOLLOWING, "", compensated)

    def _stopping(self, steady_s: float) -> FollowerOutput:
        since_s = steady_s - self._stopped_at_s
        self._velocity = REST
        if since_s > self.settings.zeros_s:
            return FollowerOutput(None, FollowerState.QUIET, self._reason, False)
        return FollowerOutput(REST, FollowerState.STOPPING, self._reason, False)

    def _wanted(
        self, predicted: NDArray[np.float64], here: NDArray[np.float64], age_s: float
    ) -> Velocity:
        """The velocity towards the path, without regard of limits of acceleration.

        Args:
            predicted: (T, 3) the path where it was predicted.
            here: (T, 3) the same path in the robot's frame of now.
            age_s: time since the prediction that `here` accounts for.
        """
        robot = self.robot
        tolerance_m = _TOLERANCE_STEPS * robot.waypoint_spacing_m
        first = min(self.settings.waypoint_index, len(here) - 1)
        if math.hypot(*predicted[first, :2]) < tolerance_m:
            return self._turn(float(here[first, 2]), self._remaining_s(first, age_s))
        # A waypoint ahead that the robot has passed by now must not make it turn round.
        ahead = (here[first:, 0] > tolerance_m) | (predicted[first:, 0] <= 0.0)
        if not ahead.any():
            return REST
        index = first + int(np.argmax(ahead))
        x, y, yaw = (float(value) for value in here[index])
        bearing = math.atan2(y, x)
        if robot.kinematics == "ackermann" and x <= 0.0:
            return self._narrowest_curve(bearing)
        turns_first = robot.kinematics != "ackermann" and abs(bearing) > _TURN_FIRST_RAD
        if self.settings.controller == "pure_pursuit" and not turns_first:
            reach_m = (first + 1) * robot.waypoint_spacing_m
            target = lookahead_point(here[:, :2], reach_m)
            pace = _path_length(predicted[: first + 1, :2]) / ((first + 1) * MODEL_PERIOD_S)
            if target[0] > 0.0:
                return pure_pursuit_velocity(
                    *target, min(pace, robot.max_linear_m_s), robot.max_angular_rad_s
                )
        return pd_velocity(
            x,
            y,
            yaw,
            linear_time_s=self._remaining_s(index, age_s),
            angular_time_s=self.settings.angular_time_s,
            tolerance_m=tolerance_m,
            max_linear_m_s=robot.max_linear_m_s,
            max_angular_rad_s=robot.max_angular_rad_s,
            max_lateral_m_s=robot.max_lateral_m_s,
        )

    @staticmethod
    def _remaining_s(index: int, age_s: float) -> float:
        """Time until the waypoint `index` is due."""
        return max((index + 1) * MODEL_PERIOD_S - age_s, MODEL_PERIOD_S)

    def _turn(self, angle_rad: float, time_s: float) -> Velocity:
        angle_rad = wrap_angle(angle_rad)
        if self.robot.kinematics == "ackermann":
            return self._narrowest_curve(angle_rad) if abs(angle_rad) > 0.05 else REST
        return Velocity(yaw=_limited(angle_rad / time_s, self.robot.max_angular_rad_s))

    def _narrowest_curve(self, angle_rad: float) -> Velocity:
        """The narrowest curve: what a robot does instead of turning on the spot."""
        speed = _CRAWL_FACTOR * self.robot.nominal_speed_m_s
        return Velocity(
            speed, 0.0, math.copysign(speed / self.robot.min_turning_radius_m, angle_rad)
        )

    def _accelerated(self, wanted: Velocity, period_s: float) -> Velocity:
        robot, last = self.robot, self._velocity
        linear = robot.max_linear_acceleration_m_s2 * period_s
        angular = robot.max_angular_acceleration_rad_s2 * period_s
        moved = Velocity(
            _towards(last.x, wanted.x, linear),
            _towards(last.y, wanted.y, linear),
            _towards(last.yaw, wanted.yaw, angular),
        )
        return within_limits(moved, robot)

    def _from_here(self, path: _Path, now_s: float) -> tuple[NDArray[np.float64], bool]:
        """The path in the robot's frame of now, if odometry tells how far it has moved since."""
        now = self._odometry.newest(now_s)
        start = self._odometry.at(path.stamp_s) if now is not None else None
        if now is None or start is None:
            return path.waypoints, False
        moved = relative_pose(start, now)
        c, s = math.cos(moved[2]), math.sin(moved[2])
        shifted = path.waypoints - np.array(moved)
        result = shifted.copy()
        result[:, 0] = c * shifted[:, 0] + s * shifted[:, 1]
        result[:, 1] = -s * shifted[:, 0] + c * shifted[:, 1]
        return result, True


def straight_back(step_m: float, horizon: int) -> NDArray[np.float64]:
    """A path (horizon, 3) that is driven backwards, `step_m` per model step."""
    path = np.zeros((horizon, 3))
    path[:, 0] = -step_m * np.arange(1, horizon + 1)
    return path


def leads_back(path: NDArray[np.float64]) -> bool:
    """Whether a path (T, 3) is to be driven backwards: exactly straight, as no network's is."""
    return bool((path[:, 0] < 0.0).all() and not path[:, 1:].any())


def within_limits(velocity: Velocity, robot: RobotConfig) -> Velocity:
    """The nearest velocity that the robot can have; never backwards, never not a number."""
    if not velocity.is_finite():
        return REST
    linear = min(max(velocity.x, 0.0), robot.max_linear_m_s)
    angular = _limited(velocity.yaw, robot.max_angular_rad_s)
    if robot.min_turning_radius_m > 0.0:
        angular = _limited(angular, linear / robot.min_turning_radius_m)
    lateral = _limited(velocity.y, robot.max_lateral_m_s)
    return Velocity(linear, lateral, angular)


def _path_length(points: NDArray[np.float64]) -> float:
    steps = np.diff(points, axis=0, prepend=np.zeros((1, 2)))
    return float(np.hypot(steps[:, 0], steps[:, 1]).sum())


def _limited(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)


def _towards(start: float, goal: float, step: float) -> float:
    return start + _limited(goal - start, step)
