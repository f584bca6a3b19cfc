"""Position servos with the Dynamixel profile, and the PWM gripper with its linkage.

Nothing here knows MuJoCo: the physics asks for the next references, forces and dampings.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from servo_bus_emulator.profile import time_profile, velocity_profile
from widowx_control.gripper import ARM_LENGTH_M, HORN_RADIUS_M
from widowx_control.xs_driver.control_table import (
    FULL_PWM,
    RAD_PER_S2_PER_UNIT,
    RAD_PER_S_PER_UNIT,
    RAD_PER_TICK,
    XL430_W250,
)

_Array = NDArray[np.float64]


def quantised_goal_rad(position_rad: ArrayLike) -> _Array:
    """Goal as the 12-bit register keeps it: truncated toward zero ticks from the centre [rad]."""
    ticks = np.trunc(np.asarray(position_rad, dtype=np.float64) / RAD_PER_TICK)
    return np.asarray(ticks * RAD_PER_TICK)


def quantised_position_rad(position_rad: ArrayLike) -> _Array:
    """Position as the 12-bit encoder reads it [rad]."""
    ticks = np.round(np.asarray(position_rad, dtype=np.float64) / RAD_PER_TICK)
    return np.asarray(ticks * RAD_PER_TICK)


class ProfileGenerator:
    """Trajectory generators of `n` servos, with the profiles of `servo_bus_emulator.profile`.

    A new goal starts a new profile from the present reference position and speed.
    """

    def __init__(self, positions_rad: ArrayLike) -> None:
        """Start at rest at `positions_rad`, shape (n,), with both profile registers 0 (step)."""
        start = np.array(positions_rad, dtype=np.float64)
        n = start.shape[0]
        self.time_based = np.ones(n, dtype=bool)
        """True: registers are milliseconds; false: velocity and acceleration units."""
        self.profile_velocity = np.zeros(n, dtype=np.int64)
        self.profile_acceleration = np.zeros(n, dtype=np.int64)
        self._clock_s = np.zeros(n)
        self._start, self._v0, self._cruise = start.copy(), np.zeros(n), np.zeros(n)
        self._t1, self._t2, self._t3 = np.zeros(n), np.zeros(n), np.zeros(n)
        self.goal_rad = start.copy()

    def _evaluate(self, clock_s: _Array) -> tuple[_Array, _Array]:
        """Reference position and speed at profile time `clock_s`, shape (..., n)."""
        a = np.clip(clock_s, 0.0, self._t1)
        b = np.clip(clock_s - self._t1, 0.0, self._t2)
        c = np.clip(clock_s - self._t1 - self._t2, 0.0, self._t3)
        slope_1 = np.divide(
            self._cruise - self._v0, self._t1, out=np.zeros_like(self._t1), where=self._t1 > 0
        )
        slope_3 = np.divide(self._cruise, self._t3, out=np.zeros_like(self._t3), where=self._t3 > 0)
        position = (
            self._start
            + self._v0 * a
            + 0.5 * slope_1 * a * a
            + self._cruise * b
            + self._cruise * c
            - 0.5 * slope_3 * c * c
        )
        speed = np.where(
            clock_s < self._t1,
            self._v0 + slope_1 * a,
            np.where(clock_s < self._t1 + self._t2, self._cruise, self._cruise - slope_3 * c),
        )
        done = clock_s >= self._t1 + self._t2 + self._t3
        return np.where(done, self.goal_rad, position), np.where(done, 0.0, speed)

    @property
    def moving(self) -> bool:
        """True while any reference has not arrived at its goal."""
        return bool(np.any(self._clock_s < self._t1 + self._t2 + self._t3))

    @property
    def endless(self) -> NDArray[np.bool_]:
        """Which servos follow a speed instead of a goal, shape (n,)."""
        return np.isinf(self._t2)

    def reference(self) -> tuple[_Array, _Array]:
        """Present reference: position [rad] and speed [rad/s], each of shape (n,)."""
        return self._evaluate(self._clock_s)

    def advance(self, steps: int, dt_s: float) -> _Array:
        """References at the end of each of the next `steps` steps, shape (steps, n) [rad]."""
        clocks = self._clock_s + dt_s * np.arange(1, steps + 1)[:, None]
        positions, _ = self._evaluate(clocks)
        self._clock_s = self._clock_s + dt_s * steps
        return positions

    def jump(self, index: NDArray[np.int64], positions_rad: ArrayLike) -> None:
        """Put the references of servos `index` at rest at `positions_rad`."""
        self._start[index] = positions_rad
        self.goal_rad[index] = positions_rad
        for phase in (self._t1, self._t2, self._t3, self._v0, self._cruise, self._clock_s):
            phase[index] = 0.0

    def set_speed(self, index: NDArray[np.int64], speeds_rad_s: ArrayLike) -> None:
        """Velocity mode of servos `index`: ramp to these speeds and keep them."""
        position, speed = self.reference()
        speeds = np.asarray(speeds_rad_s, dtype=np.float64)
        for i, wanted in zip(index.tolist(), speeds.tolist(), strict=True):
            rate = int(self.profile_acceleration[i]) * RAD_PER_S2_PER_UNIT
            self._t1[i] = abs(wanted - speed[i]) / rate if rate > 0 else 0.0
            self._t2[i], self._t3[i], self._cruise[i] = math.inf, 0.0, wanted
            self._start[i], self._v0[i], self._clock_s[i] = position[i], speed[i], 0.0

    def set_goal(self, index: NDArray[np.int64], goals_rad: ArrayLike) -> None:
        """Start new profiles of servos `index` to `goals_rad` with the present registers."""
        position, speed = self.reference()
        goals = np.asarray(goals_rad, dtype=np.float64)
        for i, goal in zip(index.tolist(), goals.tolist(), strict=True):
            velocity, acceleration = self.profile_velocity[i], self.profile_acceleration[i]
            if self.time_based[i]:
                profile = time_profile(
                    position[i], speed[i], goal, 1e-3 * velocity, 1e-3 * acceleration
                )
            else:
                profile = velocity_profile(
                    position[i],
                    speed[i],
                    goal,
                    velocity * RAD_PER_S_PER_UNIT,
                    acceleration * RAD_PER_S2_PER_UNIT,
                )
            self._t1[i], self._t2[i], self._t3[i] = profile.durations_s
            self._cruise[i] = profile.cruise_velocity
            self._start[i], self._v0[i] = profile.start, profile.start_velocity
            self._clock_s[i] = 0.0
            self.goal_rad[i] = goal


class GripperDrive:
    """XL430 servo in PWM mode behind the swing-arm linkage of the fingers.

    Torque is `stall_torque * pwm / FULL_PWM - back_emf * servo speed`; through the linkage
    d(theta) = r sin(theta) + sqrt(a^2 - r^2 cos^2(theta)) the torque acts on the fingers as
    tau / (dd/dtheta) (virtual work), where d is the distance of one finger from the centre [m].
    """

    BACK_EMF_NM_S = XL430_W250.stall_torque_nm / XL430_W250.no_load_speed_rad_s

    def ratio(self, servo_angle_rad: float) -> float:
        """dd/dtheta of one finger [m/rad] at a servo angle."""
        cosine = math.cos(servo_angle_rad)
        root = math.sqrt(ARM_LENGTH_M**2 - (HORN_RADIUS_M * cosine) ** 2)
        return HORN_RADIUS_M * cosine * (1.0 + HORN_RADIUS_M * math.sin(servo_angle_rad) / root)

    def force_n(self, pwm: float, servo_angle_rad: float) -> float:
        """Force of a PWM register value on the two coupled fingers, positive opens [N]."""
        duty = max(-1.0, min(1.0, pwm / FULL_PWM))
        return XL430_W250.stall_torque_nm * duty / self.ratio(servo_angle_rad)

    def damping_n_s_m(self, servo_angle_rad: float) -> float:
        """Back-EMF damping as the fingers feel it [N s/m]."""
        return self.BACK_EMF_NM_S / self.ratio(servo_angle_rad) ** 2
