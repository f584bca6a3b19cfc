"""What the emulated motors turn. The bus asks a plant for joint motion; any physics can be one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Drive:
    """What the motors of one joint do to it during one step; several motors are summed.

    `damping_nm_s_per_rad` is the back-EMF of energised motors, kept apart from the torque so that a
    physics engine can integrate it implicitly: total torque = torque - damping * velocity.
    """

    torque_nm: float = 0.0
    damping_nm_s_per_rad: float = 0.0


@dataclass(frozen=True)
class JointMotion:
    """Position and velocity of a joint, in the joint's own sign and zero (as in joint_states)."""

    position_rad: float
    velocity_rad_s: float


class Plant(Protocol):
    """The mechanism behind the servos. Joints are named as in `joint_order`, the gripper included,

    whose position is the angle of its servo's horn.
    """

    def advance(self, duration_s: float, drives: Mapping[str, Drive]) -> Mapping[str, JointMotion]:
        """Integrate over a duration with constant drives and return the motion of every joint.

        Called from the emulator's thread only, with at most `max_step_s` at a time. A duration of 0
        returns the present motion.
        """

    @property
    def max_step_s(self) -> float:
        """Longest duration that the plant accepts in one call."""


@dataclass(frozen=True)
class RigidJoint:
    """A joint that does not feel the others: inertia, friction, constant load, hard stops."""

    inertia_kg_m2: float = 0.05
    damping_nm_s_per_rad: float = 0.1
    friction_nm: float = 0.1
    load_nm: float = 0.0
    """Torque on the joint when the motors are off, such as gravity at a typical pose."""
    lower_rad: float = -math.pi
    upper_rad: float = math.pi
    start_rad: float = 0.0


@dataclass
class RigidPlant:
    """Independent rigid joints, integrated semi-implicitly. Fast; no contacts, no coupling."""

    joints: Mapping[str, RigidJoint]
    max_step_s: float = 0.002
    _position: dict[str, float] = field(init=False)
    _velocity: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self._position = {name: joint.start_rad for name, joint in self.joints.items()}
        self._velocity = dict.fromkeys(self.joints, 0.0)

    def advance(self, duration_s: float, drives: Mapping[str, Drive]) -> Mapping[str, JointMotion]:
        """Integrate; see `Plant`."""
        none = Drive()
        motion = {}
        for name, joint in self.joints.items():
            position, velocity = self._position[name], self._velocity[name]
            if duration_s > 0.0:
                drive = drives.get(name, none)
                torque = drive.torque_nm + joint.load_nm
                if velocity == 0.0 and abs(torque) <= joint.friction_nm:
                    torque = 0.0
                else:
                    torque -= math.copysign(joint.friction_nm, velocity or torque)
                damping = joint.damping_nm_s_per_rad + drive.damping_nm_s_per_rad
                gain = duration_s / joint.inertia_kg_m2
                fresh = (velocity + gain * torque) / (1.0 + gain * damping)
                if velocity * fresh < 0.0 and abs(drive.torque_nm + joint.load_nm) <= (
                    joint.friction_nm
                ):
                    fresh = 0.0
                position += fresh * duration_s
                velocity = fresh
                if not joint.lower_rad <= position <= joint.upper_rad:
                    position = min(max(position, joint.lower_rad), joint.upper_rad)
                    velocity = 0.0
                self._position[name], self._velocity[name] = position, velocity
            motion[name] = JointMotion(position, velocity)
        return motion
