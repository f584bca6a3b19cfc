"""The simulated robot and scene: MuJoCo physics behind servo registers. No ROS, no policy."""

from __future__ import annotations

import math
from types import TracebackType

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray
from widowx_control.gripper import BRIDGE_FINGER_HIGH_M, finger_distance_m, servo_angle_rad
from widowx_control.kinematics import NAMED_POSES
from widowx_control.xs_driver.control_table import FULL_PWM, RAD_PER_S_PER_UNIT, RAD_PER_TICK

from robot_sim import scene_model
from robot_sim.scene_layout import SceneLayout
from robot_sim.scene_model import (
    ARM_JOINTS,
    CAMERA,
    DISTRACTORS,
    FINGER_UPPER_M,
    FLOOR_Z_M,
    IMAGE_HEIGHT,
    IMAGE_WIDTH,
    LEFT_FINGER,
    OBJECT_HALF_HEIGHT_M,
    OBJECTS,
    RIGHT_FINGER,
    TIMESTEP_S,
)
from robot_sim.servo_model import (
    GripperDrive,
    ProfileGenerator,
    quantised_goal_rad,
    quantised_position_rad,
)

_Array = NDArray[np.float64]
SERVO_COUNT = len(ARM_JOINTS) + 1
"""The servos that a driver addresses: the six arm joints, then the gripper."""
GRIPPER = len(ARM_JOINTS)
"""Index of the gripper's servo."""
OPEN_FINGER_M = BRIDGE_FINGER_HIGH_M
"""Finger position in which episodes start."""
_MAX_REFERENCE_LEAD_RAD = 0.3
_JOINT_FRICTION_NM = 0.1
"""Of every joint in the URDF."""


_ARM = np.arange(len(ARM_JOINTS))


def _yaw_quaternion(yaw_rad: float) -> tuple[float, float, float, float]:
    return math.cos(yaw_rad / 2), 0.0, 0.0, math.sin(yaw_rad / 2)


class Kitchen:
    """Physics of the arm and the kitchen at a fixed time step, commanded through servo goals.

    Not thread-safe: a caller with several threads takes a lock around every call.
    """

    def __init__(self) -> None:
        """Compile the scene; everything is at the model's defaults until `set_layout`."""
        self.model = scene_model.build_model()
        self.data = mujoco.MjData(self.model)
        m = self.model
        self._arm_q = np.array([m.joint(name).qposadr[0] for name in ARM_JOINTS])
        self._arm_v = np.array([m.joint(name).dofadr[0] for name in ARM_JOINTS])
        self._finger_q = int(m.joint(LEFT_FINGER).qposadr[0])
        self._finger_v = int(m.joint(LEFT_FINGER).dofadr[0])
        self._fingers_v = [int(m.joint(n).dofadr[0]) for n in (LEFT_FINGER, RIGHT_FINGER)]
        self._right_finger_q = int(m.joint(RIGHT_FINGER).qposadr[0])
        self._drawer_q = int(m.joint("drawer").qposadr[0])
        self._free_q = {n: int(m.joint(n).qposadr[0]) for n in (*OBJECTS, *DISTRACTORS)}
        self._free_v = {n: int(m.joint(n).dofadr[0]) for n in (*OBJECTS, *DISTRACTORS)}
        self._geom_rgba = m.geom_rgba.copy()
        self._counter_rgba = m.geom("table").rgba.copy()
        self._servo_gain = m.actuator_gainprm.copy()
        self._servo_bias = m.actuator_biasprm.copy()
        self._drive = GripperDrive()
        self.applied_gripper_pwm = 0.0
        """PWM that the gripper servo has now, after its mode and torque switch."""
        self._limp = np.zeros(len(ARM_JOINTS), dtype=bool)
        self.profiles = ProfileGenerator(np.zeros(SERVO_COUNT))
        self.gripper_pwm = 0.0
        """Goal PWM of the gripper servo, register units, positive opens."""
        self.gripper_position_gain: float | None = None
        """PWM per tick of error in the gripper's position modes; None in PWM mode."""
        self.joint_torques_nm = np.zeros(len(ARM_JOINTS))
        """Torques of the arm servos that are in a torque mode (see `set_torque_mode`)."""
        self._torque_mode = np.zeros(len(ARM_JOINTS), dtype=bool)
        self._stiffness = np.ones(len(ARM_JOINTS))
        self.torque_enabled = np.ones(SERVO_COUNT, dtype=bool)
        """Per servo."""
        self.set_arm(NAMED_POSES["start"], OPEN_FINGER_M)

    # State

    @property
    def time_s(self) -> float:
        """Simulated time since the start or the last reset of the physics."""
        return float(self.data.time)

    @property
    def arm_positions_rad(self) -> _Array:
        """(6,) joint positions as the servos' encoders read them."""
        return quantised_position_rad(self.data.qpos[self._arm_q])

    @property
    def arm_velocities_rad_s(self) -> _Array:
        """(6,) joint velocities in the servos' resolution."""
        ticks = np.round(self.data.qvel[self._arm_v] / RAD_PER_S_PER_UNIT)
        return np.asarray(ticks * RAD_PER_S_PER_UNIT)

    @property
    def arm_torques_nm(self) -> _Array:
        """(6,) torques of the servos, including the weight that they carry."""
        d = self.data
        carried = d.qfrc_gravcomp[self._arm_v] + d.qfrc_applied[self._arm_v]
        return np.asarray(d.actuator_force[_ARM] + carried)

    @property
    def gripper_angle_rad(self) -> float:
        """Angle of the gripper servo as its encoder reads it."""
        return float(quantised_position_rad(self._servo_angle()))

    @property
    def gripper_velocity_rad_s(self) -> float:
        """Speed of the gripper servo in its resolution."""
        speed = self.data.qvel[self._finger_v] / self._drive.ratio(self._servo_angle())
        return float(round(speed / RAD_PER_S_PER_UNIT) * RAD_PER_S_PER_UNIT)

    @property
    def finger_m(self) -> float:
        """Distance of one finger from the centre line, computed from the servo's reading."""
        return finger_distance_m(self.gripper_angle_rad)

    @property
    def drawer_opening_m(self) -> float:
        """How far the drawer is open."""
        return float(self.data.qpos[self._drawer_q])

    def position_m(self, name: str) -> _Array:
        """(3,) centre of an object, fixture or `handle`, in base_link."""
        if name == "handle":
            return np.array(self.data.geom("handle").xpos)
        return np.array(self.data.body(name).xpos)

    def yaw_rad(self, name: str) -> float:
        """Rotation of a body about the vertical."""
        matrix = self.data.body(name).xmat
        return math.atan2(matrix[3], matrix[0])

    def object_speed_m_s(self, name: str) -> float:
        """Speed of a free object's centre."""
        start = self._free_v[name]
        return float(np.linalg.norm(self.data.qvel[start : start + 3]))

    def end_effector_m(self) -> _Array:
        """(3,) true position of ee_gripper_link in base_link."""
        return np.array(self.data.site(scene_model.END_EFFECTOR).xpos)

    # Commands

    def set_goal(self, positions_rad: ArrayLike, servos: NDArray[np.int64] | None = None) -> None:
        """Write Goal_Position of all six arm servos, or of the servos with these indices."""
        index = _ARM if servos is None else servos
        self.profiles.set_goal(index, quantised_goal_rad(positions_rad))

    def set_torque(self, servos: NDArray[np.int64], enabled: bool) -> None:
        """Switch servos on, holding where they are, or off."""
        for servo in servos.tolist():
            if enabled and not self.torque_enabled[servo]:
                self.profiles.jump(np.array([servo]), [self._servo_position(servo)])
            self.torque_enabled[servo] = enabled
        self._apply_gains()

    def set_torque_mode(self, servos: NDArray[np.int64], on: bool) -> None:
        """Let arm servos follow `joint_torques_nm` instead of their position goal, or back."""
        self._torque_mode[servos] = on
        self.joint_torques_nm[servos] = 0.0
        for servo in servos.tolist():
            self.profiles.jump(np.array([servo]), [self._servo_position(servo)])
        self._apply_gains()

    def set_stiffness(self, servo: int, scale: float) -> None:
        """Scale an arm servo's position stiffness, 1 for its usual P gain."""
        self._stiffness[servo] = scale
        self._apply_gains()

    def _apply_gains(self) -> None:
        scale = self._stiffness * (self.torque_enabled[_ARM] & ~self._torque_mode)
        self.model.actuator_gainprm[_ARM] = self._servo_gain[_ARM] * scale[:, None]
        self.model.actuator_biasprm[_ARM] = self._servo_bias[_ARM] * scale[:, None]
        self.data.qfrc_applied[:] = 0.0
        self._limp = ~self.torque_enabled[_ARM] | self._torque_mode

    def _servo_position(self, servo: int) -> float:
        if servo == GRIPPER:
            return self._servo_angle()
        return float(self.data.qpos[self._arm_q[servo]])

    # The state as a whole

    @property
    def state(self) -> tuple[_Array, _Array]:
        """Copies of MuJoCo's positions and velocities, all joints and objects."""
        return self.data.qpos.copy(), self.data.qvel.copy()

    def take_state(self, time_s: float, positions: _Array, velocities: _Array) -> None:
        """Take over the `state` of another kitchen with the same layout."""
        self.data.time = time_s
        self.data.qpos[:] = positions
        self.data.qvel[:] = velocities
        mujoco.mj_kinematics(self.model, self.data)

    # Motors outside of this model

    def release_joints(self) -> None:
        """Hand the joints to motors outside of this model, for `advance_driven`, for good.

        The arm then has its weight, and the friction that its URDF gives every joint.
        """
        self.torque_enabled[:] = False
        self._apply_gains()
        self.model.body_gravcomp[:] = 0.0
        self.model.dof_frictionloss[self._arm_v] = _JOINT_FRICTION_NM
        self._joint_damping = self.model.dof_damping[self._arm_v].copy()

    @property
    def joint_motion(self) -> tuple[_Array, _Array]:
        """True positions [rad] and velocities [rad/s] of the six joints and the gripper's horn."""
        angle = self._servo_angle()
        speed = float(self.data.qvel[self._finger_v]) / self._drive.ratio(angle)
        return (
            np.append(self.data.qpos[self._arm_q], angle),
            np.append(self.data.qvel[self._arm_v], speed),
        )

    def advance_driven(self, torques_nm: _Array, dampings_nm_s: _Array) -> None:
        """Run one physics step of `TIMESTEP_S` with torque - damping * velocity on every joint.

        Args:
            torques_nm: shape (7,), on the six joints and the gripper's horn.
            dampings_nm_s: shape (7,), back-EMF of their motors.
        """
        m, d = self.model, self.data
        ratio = self._drive.ratio(self._servo_angle())
        m.dof_damping[self._arm_v] = self._joint_damping + dampings_nm_s[:GRIPPER]
        m.dof_damping[self._fingers_v] = dampings_nm_s[GRIPPER] / ratio**2 / 2
        d.qfrc_applied[self._arm_v] = torques_nm[:GRIPPER]
        d.ctrl[GRIPPER] = torques_nm[GRIPPER] / ratio
        mujoco.mj_step(m, d)

    # Time

    def advance(self, steps: int) -> None:
        """Run `steps` physics steps of `TIMESTEP_S` with the present commands."""
        m, d = self.model, self.data
        moving = self.profiles.moving
        if moving:
            self._bound_reference()
            references = self.profiles.advance(steps, TIMESTEP_S)
        angle = self._servo_angle()
        pwm = self.gripper_pwm
        if self.gripper_position_gain is not None:
            error = (references[-1] if moving else self.profiles.goal_rad)[GRIPPER] - angle
            pwm = self.gripper_position_gain * error / RAD_PER_TICK
            pwm = min(max(pwm, -FULL_PWM), FULL_PWM)
        self.applied_gripper_pwm = pwm if self.torque_enabled[GRIPPER] else 0.0
        d.ctrl[GRIPPER] = self._drive.force_n(self.applied_gripper_pwm, angle)
        m.dof_damping[self._fingers_v] = self._drive.damping_n_s_m(angle) / 2
        if self._limp.any():
            # A limp joint feels the weight that is compensated while its servo holds a position.
            limp = self._arm_v[self._limp]
            torques = np.where(self.torque_enabled[_ARM], self.joint_torques_nm, 0.0)[self._limp]
            d.qfrc_applied[limp] = torques - d.qfrc_gravcomp[limp]
        if moving:
            for reference in references:
                d.ctrl[_ARM] = reference[_ARM]
                mujoco.mj_step(m, d)
        else:
            d.ctrl[_ARM] = self.profiles.goal_rad[_ARM]
            mujoco.mj_step(m, d, nstep=steps)

    def _bound_reference(self) -> None:
        """Keep a velocity-mode reference near a joint that does not follow (limit, collision)."""
        position, speed = self.profiles.reference()
        measured = np.append(self.data.qpos[self._arm_q], self._servo_angle())
        lead = np.abs(position - measured) > _MAX_REFERENCE_LEAD_RAD
        for servo in np.flatnonzero(lead & self.profiles.endless).tolist():
            index = np.array([servo])
            self.profiles.jump(index, measured[index])
            self.profiles.set_speed(index, speed[index])

    # Scene

    def set_arm(self, positions_rad: ArrayLike, finger_m: float) -> None:
        """Teleport the arm to rest at joint positions (6,) and a finger position."""
        q = np.asarray(positions_rad, dtype=np.float64)
        self.data.qpos[self._arm_q] = q
        self.data.qpos[self._finger_q] = finger_m
        self.data.qpos[self._right_finger_q] = -finger_m
        self.data.qvel[:] = 0.0
        self.profiles.jump(np.arange(SERVO_COUNT), [*q, servo_angle_rad(2 * finger_m)])
        mujoco.mj_forward(self.model, self.data)

    def set_layout(self, layout: SceneLayout) -> None:
        """Put the scene into a layout; the arm stays where it is. Objects are laid at rest."""
        m, d = self.model, self.data
        for name, (x, y, yaw) in layout.fixtures.items():
            m.body(name).pos[:2] = x, y
            m.body(name).quat[:] = _yaw_quaternion(yaw)
        d.qpos[self._drawer_q] = layout.drawer_opening_m
        placed = layout.objects | layout.distractors
        for i, (name, start) in enumerate(self._free_q.items()):
            height = OBJECT_HALF_HEIGHT_M.get(name)
            if height is None:
                size = m.geom(name).size
                height = float(size[2])
            if name in placed:
                x, y, yaw = placed[name]
                d.qpos[start : start + 3] = x, y, height + 5e-4
            else:
                yaw = 0.0
                d.qpos[start : start + 3] = 3.0 + i, 0.0, FLOOR_Z_M + height
            d.qpos[start + 3 : start + 7] = _yaw_quaternion(yaw)
            d.qvel[self._free_v[name] : self._free_v[name] + 6] = 0.0
        self._tint(layout)
        d.qacc_warmstart[:] = 0.0
        mujoco.mj_forward(m, d)

    def _tint(self, layout: SceneLayout) -> None:
        m = self.model
        m.geom_rgba[:] = self._geom_rgba
        for name, offset in layout.colour_offsets.items():
            geom = m.geom(name).id
            m.geom_rgba[geom, :3] = np.clip(self._geom_rgba[geom, :3] + offset, 0.0, 1.0)
        m.geom("table").rgba[:3] = np.clip(self._counter_rgba[:3] * layout.counter_tint, 0.0, 1.0)
        light = m.light("ceiling")
        light.pos[:] = layout.light_position_m
        target = np.array([0.27, 0.0, 0.0]) - layout.light_position_m
        light.dir[:] = target / np.linalg.norm(target)
        light.diffuse[:] = layout.light_level
        camera = m.camera(CAMERA)
        camera.pos[:] = layout.camera_position_m
        camera.quat[:] = _look_at(layout.camera_position_m, layout.camera_target_m)

    def _servo_angle(self) -> float:
        finger = min(max(float(self.data.qpos[self._finger_q]), 0.0101), FINGER_UPPER_M + 5e-4)
        return servo_angle_rad(2 * finger)


def _look_at(position: _Array, target: _Array) -> _Array:
    """Quaternion (w, x, y, z) of a camera at `position` that looks at `target`, upright."""
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    matrix = np.column_stack([right, np.cross(back, right), back])
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, matrix.ravel())
    return quaternion


class CameraRenderer:
    """Renders the scene's camera off-screen. Use it in the thread that made it."""

    def __init__(self, model: mujoco.MjModel) -> None:
        """Make a rendering context.

        Raises:
            RuntimeError: no off-screen OpenGL; the message says what to install.
        """
        try:
            self._renderer = mujoco.Renderer(model, IMAGE_HEIGHT, IMAGE_WIDTH)
        except Exception as error:
            raise RuntimeError(
                f"cannot render off-screen ({error}); expected EGL or OSMesa: install "
                "libegl1 and libgl1-mesa-dri (MUJOCO_GL=egl) or libosmesa6 (MUJOCO_GL=osmesa)"
            ) from error
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0

    def render(self, data: mujoco.MjData) -> NDArray[np.uint8]:
        """RGB image uint8 (480, 640, 3) of a state whose kinematics are up to date."""
        self.update(data)
        return self.draw()

    def update(self, data: mujoco.MjData) -> None:
        """Take over a state and the model's colours; `draw` then needs neither."""
        self._renderer.update_scene(data, CAMERA)

    def draw(self) -> NDArray[np.uint8]:
        """RGB image uint8 (480, 640, 3) of what `update` took over."""
        return self._renderer.render()

    def close(self) -> None:
        """Free the context."""
        self._renderer.close()

    def __enter__(self) -> CameraRenderer:
        """Return itself; closes at exit."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free the context."""
        self.close()
