"""Requests and modes of the Go2's sport service. Source: unitree_ros2, README and sport client."""

from __future__ import annotations

import enum
import json
import math
from dataclasses import dataclass

from base_drivers.velocity import Velocity


class Api(enum.IntEnum):
    """Identifiers of the requests that the driver makes."""

    BALANCE_STAND = 1002
    STOP_MOVE = 1003
    STAND_UP = 1004
    STAND_DOWN = 1005
    MOVE = 1008


class Mode(enum.IntEnum):
    """Modes of SportModeState that matter for driving; there are others."""

    STAND = 0
    BALANCE_STAND = 1
    POSE = 2
    LOCOMOTION = 3
    LIE_DOWN = 5
    JOINT_LOCK = 6
    DAMPING = 7
    RECOVERY_STAND = 8
    SIT = 10


WALKING_MODES = frozenset({Mode.STAND, Mode.BALANCE_STAND, Mode.LOCOMOTION})


def mode_name(mode: int) -> str:
    """A mode for people."""
    try:
        return Mode(mode).name.lower()
    except ValueError:
        return f"mode {mode}"


@dataclass(frozen=True)
class SportRequest:
    """A request.

    Attributes:
        api: what is asked for.
        parameter: JSON; empty: none.
    """

    api: Api
    parameter: str = ""


STOP_MOVE = SportRequest(Api.STOP_MOVE)


def move(velocity: Velocity) -> SportRequest:
    """Ask for a velocity."""
    values = {"x": velocity.x, "y": velocity.y, "z": velocity.yaw}
    return SportRequest(
        Api.MOVE, json.dumps({key: round(value, 4) for key, value in values.items()})
    )


def velocity_from_parameter(parameter: str) -> Velocity | None:
    """What the parameter of a move request says; None: it is not one."""
    try:
        values = json.loads(parameter)
        velocity = Velocity(float(values["x"]), float(values["y"]), float(values["z"]))
    except (ValueError, TypeError, KeyError):
        return None
    return velocity if velocity.is_finite() else None


@dataclass(frozen=True)
class SportState:
    """What the driver needs of SportModeState.

    Attributes:
        mode: see `Mode`.
        error_code: of the robot; 0: none.
        position_m: x, y, z of the body in the robot's odometry.
        quaternion_wxyz: rotation of the body in the odometry.
        velocity_m_s: x, y, z, in the frame that the robot uses.
        yaw_rate_rad_s: about the vertical.
    """

    mode: int
    error_code: int
    position_m: tuple[float, float, float]
    quaternion_wxyz: tuple[float, float, float, float]
    velocity_m_s: tuple[float, float, float]
    yaw_rate_rad_s: float

    def is_sound(self) -> bool:
        """Whether every number is finite and the rotation is one."""
        numbers = (*self.position_m, *self.quaternion_wxyz, *self.velocity_m_s, self.yaw_rate_rad_s)
        norm = math.hypot(*self.quaternion_wxyz)
        return all(map(math.isfinite, numbers)) and 0.5 < norm < 1.5

    @property
    def speed_m_s(self) -> float:
        """Speed over the ground, the same in every frame."""
        return math.hypot(self.velocity_m_s[0], self.velocity_m_s[1])

    def body_velocity(self, velocity_in_body: bool) -> Velocity:
        """Velocity along the body's axes.

        Args:
            velocity_in_body: the robot tells it along them already; otherwise along the odometry's.
        """
        x, y = self.velocity_m_s[0], self.velocity_m_s[1]
        if not velocity_in_body:
            w, qx, qy, qz = self.quaternion_wxyz
            yaw = math.atan2(2.0 * (w * qz + qx * qy), 1.0 - 2.0 * (qy * qy + qz * qz))
            x, y = math.cos(yaw) * x + math.sin(yaw) * y, math.cos(yaw) * y - math.sin(yaw) * x
        return Velocity(x, y, self.yaw_rate_rad_s)
