"""A mobile base with a camera in a `World`: MuJoCo contacts, limited forces, pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np
from base_drivers.robot_config import RobotConfig
from numpy.typing import NDArray

from robot_sim.navigation.world import World

TIMESTEP_S = 0.01
CAMERA = "camera"
_Array = NDArray[np.float64]
_RESPONSE_S = 0.06
"""Time constant of the wheels' (or legs', or rotors') velocity control."""
_DENSITY_KG_M3 = 150.0
_HIDDEN_GROUP = 4
_SIGHT_RAYS = 80
_FORCE_MARGIN = 1.5
"""Force limit over what the hardest braking needs, so that the base follows its ramps."""
_ANGULAR_BRAKING = 2.0
"""Turning slows down so much faster than it speeds up."""


@dataclass(frozen=True)
class Odometry:
    """What the base measures itself: drifts, unlike the true pose.

    Attributes:
        pose: x, y [m], yaw [rad] since the reset, in the odometry's own frame.
        velocity: forward, left [m/s], yaw rate [rad/s] in the base's frame.
    """

    pose: tuple[float, float, float]
    velocity: tuple[float, float, float]


class BaseSimulation:
    """Physics of one robot in one world. Not thread-safe; `render` belongs to one thread."""

    def __init__(
        self,
        world: World,
        robot: RobotConfig,
        seed: int = 0,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        """Compile the scene.

        Args:
            world: the place.
            robot: body, limits and camera.
            seed: of the odometry's errors and the gait.
            image_size: width and height of pictures; None takes the robot's camera.
        """
        self.world, self.robot = world, robot
        size: tuple[int, int] = image_size or (robot.camera.width, robot.camera.height)
        self._width, self._height = size
        self.model = mujoco.MjModel.from_xml_string(self._xml(), world.files)
        self.data = mujoco.MjData(self.model)
        self._renderer: mujoco.Renderer | None = None
        self._seed = seed
        self._robot_geom = int(self.model.geom("robot").id)
        self._rng = np.random.default_rng(seed)
        self.set_light(None)
        self.reset((0.0, 0.0, 0.0))

    # Scene

    def _xml(self) -> str:
        robot, world = self.robot, self.world
        length, width, height = robot.body_size_m
        mass = max(1.5, _DENSITY_KG_M3 * length * width * height)
        inertia = mass * (length**2 + width**2) / 12
        linear = _FORCE_MARGIN * mass * robot.max_linear_deceleration_m_s2
        turning = _FORCE_MARGIN * _ANGULAR_BRAKING * inertia * robot.max_angular_acceleration_rad_s2
        centre = robot.height_m or height / 2 + 0.04
        fov_y = 2 * math.atan(
            math.tan(robot.camera.horizontal_fov_rad / 2) * self._height / self._width
        )
        # Round bodies glide along what they touch; long ones have corners.
        if max(length, width) < 1.15 * min(length, width):
            shape = f'type="cylinder" size="{max(length, width) / 2} {height / 2}"'
        else:
            shape = f'type="box" size="{length / 2} {width / 2} {height / 2}"'
        zfar = 1.5 * math.hypot(world.bounds_m[2], world.bounds_m[3])
        return f"""
<mujoco model="navigation">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{TIMESTEP_S}" integrator="implicitfast" gravity="0 0 0" cone="pyramidal"/>
  <statistic extent="1" center="0 0 1"/>
  <visual>
    <global offwidth="{self._width}" offheight="{self._height}"/>
    <quality shadowsize="0" offsamples="0" numslices="14" numstacks="8" numquads="1"/>
    <map znear="0.03" zfar="{zfar:.1f}"/>
  </visual>
  <default>
    <geom friction="0.3 0 0" condim="3" contype="2" conaffinity="1" solref="0.02 1"/>
    <default class="visual"><geom contype="0" conaffinity="0"/></default>
  </default>
  <asset>{"".join(world.assets)}</asset>
  <worldbody>
    <light name="sun" type="directional" castshadow="false" specular="0 0 0" ambient="0 0 0"/>
    <light name="fill" type="directional" castshadow="false" specular="0 0 0" ambient="0 0 0"/>
    {"".join(world.geoms)}
    <body name="base" pos="0 0 {centre}">
      <inertial pos="0 0 0" mass="{mass}" diaginertia="{inertia} {inertia} {inertia}"/>
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <joint name="yaw" type="hinge" axis="0 0 1"/>
      <geom name="robot" {shape} contype="1" conaffinity="2" group="4"/>
      <site name="base" group="4"/>
      <camera name="{CAMERA}" fovy="{math.degrees(fov_y)}"/>
    </body>
  </worldbody>
  <actuator>
    <velocity site="base" gear="1 0 0 0 0 0" kv="{mass / _RESPONSE_S}"
              forcerange="{-linear} {linear}"/>
    <velocity site="base" gear="0 1 0 0 0 0" kv="{mass / _RESPONSE_S}"
              forcerange="{-2 * linear} {2 * linear}"/>
    <velocity site="base" gear="0 0 0 0 0 1" kv="{inertia / _RESPONSE_S}"
              forcerange="{-turning} {turning}"/>
  </actuator>
</mujoco>"""

    def set_light(self, seed: int | None) -> None:
        """The world's own light, or a variation of it by seed: level, and where it comes from."""
        ambient, diffuse, direction, sun = self.world.light
        yaw = math.atan2(direction[1], direction[0])
        tint = np.ones(3)
        if seed is not None:
            rng = np.random.default_rng([seed, self.world.seed])
            level = rng.uniform(0.75, 1.25)
            ambient, diffuse = ambient * level, diffuse * level
            sun *= level * rng.uniform(0.7, 1.3)
            yaw += rng.normal(0.0, 0.5)
            tint += rng.uniform(-0.08, 0.08, 3)
        visual = self.model.vis.headlight
        visual.ambient[:], visual.diffuse[:] = ambient * tint, diffuse * tint
        visual.specular[:] = 0.0
        for name, turn, share in (("sun", 0.0, 1.0), ("fill", 2.4, 0.35)):
            light = self.model.light(name)
            aim = np.array([math.cos(yaw + turn), math.sin(yaw + turn), direction[2]])
            light.dir[:] = aim / np.linalg.norm(aim)
            light.diffuse[:] = sun * share * tint

    # State

    def reset(self, pose: tuple[float, float, float]) -> None:
        """Put the robot at rest at x, y [m], yaw [rad] in the world and zero all counters."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = pose
        mujoco.mj_forward(self.model, self.data)
        self._rng = np.random.default_rng(self._seed)
        self._command = np.zeros(3)
        self.collisions = 0
        """Contacts begun since the reset."""
        self.distance_m = 0.0
        """Driven since the reset."""
        self.in_contact = self._touches()
        self.contact_angles_rad = self._contact_angles()
        """Directions of the present contacts in the base's frame."""
        self._last_contact_s = -math.inf
        self._odometry = np.zeros(3)
        # A scale error per drive, plus a little noise per step.
        self._odometry_scale = 1.0 + self._rng.normal(0.0, [0.01, 0.01, 0.01])
        self._tilt = np.zeros(2)
        self._acceleration = np.zeros(2)
        self._gait_phase = 0.0
        self._jitter = np.zeros(3)

    @property
    def time_s(self) -> float:
        """Simulated time since the reset."""
        return float(self.data.time)

    @property
    def pose(self) -> tuple[float, float, float]:
        """True x, y [m], yaw [rad], not wrapped, in the world."""
        x, y, yaw = self.data.qpos
        return float(x), float(y), float(yaw)

    @property
    def velocity(self) -> tuple[float, float, float]:
        """True forward, left [m/s] and yaw rate [rad/s] in the base's frame."""
        vx, vy, w = self.data.qvel
        c, s = math.cos(self.data.qpos[2]), math.sin(self.data.qpos[2])
        return float(c * vx + s * vy), float(c * vy - s * vx), float(w)

    @property
    def odometry(self) -> Odometry:
        """The base's own estimate."""
        x, y, yaw = self._odometry
        return Odometry((float(x), float(y), float(yaw)), self.velocity)

    # Motion

    def limited(self, v: float, vy: float, w: float) -> tuple[float, float, float]:
        """A command within what this kind of base can do; not finite values count as zero."""
        robot = self.robot
        v, vy, w = (value if math.isfinite(value) else 0.0 for value in (v, vy, w))
        v = min(max(v, -0.5 * robot.max_linear_m_s), robot.max_linear_m_s)
        vy = min(max(vy, -robot.max_lateral_m_s), robot.max_lateral_m_s)
        w = min(max(w, -robot.max_angular_rad_s), robot.max_angular_rad_s)
        if robot.kinematics != "holonomic":
            vy = 0.0
        return v, vy, w

    def step(self, v: float, vy: float, w: float, dt: float) -> None:
        """Advance by `dt` seconds (rounded to whole physics steps) under a velocity command.

        Args:
            v, vy: forward and left [m/s]; `vy` is ignored unless the robot is holonomic.
            w: yaw rate [rad/s]; an Ackermann base turns by at most its curvature times speed.
            dt: duration [s].
        """
        steps = max(1, round(dt / TIMESTEP_S))
        target = np.array(self.limited(v, vy, w))
        robot = self.robot
        if robot.kinematics == "ackermann":
            most = abs(self.velocity[0]) / robot.min_turning_radius_m
            target[2] = min(max(target[2], -most), most)
        turning = robot.max_angular_acceleration_rad_s2
        speeding_up = np.array([robot.max_linear_acceleration_m_s2] * 2 + [turning])
        slowing_down = np.array(
            [robot.max_linear_deceleration_m_s2] * 2 + [_ANGULAR_BRAKING * turning]
        )
        # Ramps in pieces of at most 50 ms.
        done = 0
        while done < steps:
            piece = min(5, steps - done)
            duration = piece * TIMESTEP_S
            braking = np.abs(target) < np.abs(self._command)
            most_change = np.where(braking, slowing_down, speeding_up) * duration
            change = np.clip(target - self._command, -most_change, most_change)
            self._command += change
            self._acceleration = np.asarray(change[:2] / duration)
            self.data.ctrl[:] = self._command
            before = self.data.qpos.copy()
            mujoco.mj_step(self.model, self.data, nstep=piece)
            self._account(before, duration)
            done += piece

    def _account(self, before: _Array, duration: float) -> None:
        moved = self.data.qpos - before
        self.distance_m += math.hypot(moved[0], moved[1])
        touching = self._touches()
        # One bump rattles; contacts within a moment of each other are one collision.
        if touching and not self.in_contact and self.time_s - self._last_contact_s > 0.5:
            self.collisions += 1
        if touching:
            self._last_contact_s = self.time_s
        self.in_contact = touching
        self.contact_angles_rad = self._contact_angles() if touching else ()
        yaw = before[2] + moved[2] / 2
        c, s = math.cos(yaw), math.sin(yaw)
        local = np.array([c * moved[0] + s * moved[1], c * moved[1] - s * moved[0], moved[2]])
        noise = self._rng.normal(0.0, 0.02, 3) * np.abs(local)
        forward, left, turn = local * self._odometry_scale + noise
        heading = self._odometry[2] + turn / 2
        c, s = math.cos(heading), math.sin(heading)
        self._odometry += (c * forward - s * left, s * forward + c * left, turn)
        self._sway(duration)

    def _sway(self, duration: float) -> None:
        """Body motion that only the camera notices: gait of legs, tilt of a rotorcraft."""
        robot = self.robot
        if robot.height_m > 0.0:
            # A rotorcraft leans into its acceleration (g = 9.81 m/s^2) with some lag.
            wanted = np.array([self._acceleration[0], -self._acceleration[1]]) / 9.81
            self._tilt += (wanted - self._tilt) * min(1.0, duration / 0.15)
            self._jitter += -self._jitter * duration / 0.5 + self._rng.normal(0, 0.004, 3)
        elif robot.kinematics == "holonomic":
            speed = math.hypot(self._command[0], self._command[1]) + 0.2 * abs(self._command[2])
            self._gait_phase += 2 * math.pi * 2.0 * duration * min(1.0, speed / 0.1)
            strength = min(1.0, speed / robot.nominal_speed_m_s)
            p = self._gait_phase
            self._tilt[:] = strength * 0.025 * math.sin(2 * p), strength * 0.03 * math.sin(p)
            self._jitter[:] = 0.0, strength * 0.01 * math.sin(p), strength * 0.012 * math.sin(2 * p)
        else:
            self._tilt += -self._tilt * duration / 0.1 + self._rng.normal(0, 0.002, 2)

    def _touches(self) -> bool:
        return bool(self.data.ncon > 0)

    def _contact_angles(self) -> tuple[float, ...]:
        x, y, yaw = self.pose
        return tuple(
            math.remainder(math.atan2(p[1] - y, p[0] - x) - yaw, 2 * math.pi)
            for p in self.data.contact.pos[: self.data.ncon]
        )

    # Sensors

    def camera_pose(self) -> tuple[_Array, _Array]:
        """Position (3,) and MuJoCo camera axes (3, 3) in the world: x right, y up, z backward."""
        x, y, yaw = self.pose
        mount = self.robot.camera
        pitch, roll = mount.pitch_rad + self._tilt[0], self._tilt[1]
        ch, sh = math.cos(yaw), math.sin(yaw)
        cp, sp, cr, sr = math.cos(pitch), math.sin(pitch), math.cos(roll), math.sin(roll)
        turn = np.array([[ch, -sh, 0], [sh, ch, 0], [0, 0, 1.0]])
        # Pitch is positive downwards: a rotation about the left axis.
        lean = np.array([[cp, 0, sp], [0, 1.0, 0], [-sp, 0, cp]])
        bank = np.array([[1.0, 0, 0], [0, cr, -sr], [0, sr, cr]])
        body = turn @ lean @ bank
        height = mount.height_m
        offset = np.array([mount.forward_m, 0.0, 0.0]) + self._jitter
        position = np.array([x, y, height]) + turn @ offset
        axes = np.column_stack([-body[:, 1], body[:, 2], -body[:, 0]])
        return position, axes

    def prepare_picture(self) -> None:
        """Take over the present state for `draw`; needs the renderer's thread."""
        if self._renderer is None:
            self._renderer = make_renderer(self.model, self._height, self._width)
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        camera = self.model.camera(CAMERA).id
        position, axes = self.camera_pose()
        self.data.cam_xpos[camera] = position
        self.data.cam_xmat[camera] = axes.ravel()
        self._cull(position, axes)
        self._renderer.update_scene(self.data, CAMERA, _VISIBLE)

    def _cull(self, position: _Array, axes: _Array) -> None:
        """Hide what the picture cannot show: software renderers spend time on it all the same."""
        offset = self.data.geom_xpos - position
        half = self.robot.camera.horizontal_fov_rad / 2 + 0.06
        beside = np.abs(offset @ axes[:, 0]) * math.cos(half)
        ahead = -(offset @ axes[:, 2])
        size = self.model.geom_rbound
        seen = (beside - ahead * math.sin(half) < size) & (size > 0.003 * ahead)
        if len(self.world.screens):
            seen &= ~self._behind_walls(position, axes, offset, half)
        seen[self._robot_geom] = False
        self.model.geom_group[:] = np.where(seen, 0, _HIDDEN_GROUP)

    def _behind_walls(
        self, position: _Array, axes: _Array, offset: _Array, half: float
    ) -> NDArray[np.bool_]:
        """(geoms,) whether walls hide all of a geom, seen in the plane."""
        heading = math.atan2(-axes[1, 2], -axes[0, 2])
        rays = np.linspace(-half, half, _SIGHT_RAYS)
        dx, dy = np.cos(rays + heading)[:, None], np.sin(rays + heading)[:, None]
        screens = self.world.screens
        ends = (screens - np.tile(position[:2], 2)).reshape(-1, 2, 2)
        ahead = (ends @ np.array([math.cos(heading), math.sin(heading)])).max(axis=1) > 0.0
        x, y, x1, y1 = screens[ahead].T
        ex, ey, wx, wy = x1 - x, y1 - y, x - position[0], y - position[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            cross = dx * ey - dy * ex
            depth = (wx * ey - wy * ex) / cross
            along = (wx * dy - wy * dx) / cross
        hit = (depth > 0.0) & (along >= -0.001) & (along <= 1.001)
        reach = np.where(hit, depth, np.inf).min(axis=1, initial=np.inf)
        # Range maxima over 2^k neighbouring rays, to ask for any interval of angles at once.
        table = [reach]
        while 2 ** len(table) <= _SIGHT_RAYS:
            step, last = 2 ** (len(table) - 1), table[-1]
            table.append(np.maximum(last[:-step], last[step:]))
        size = self.model.geom_rbound
        away = np.hypot(offset[:, 0], offset[:, 1])
        angle = np.arctan2(offset[:, 1], offset[:, 0]) - heading
        angle = (angle + math.pi) % (2 * math.pi) - math.pi
        width = np.arcsin(np.clip(size / np.maximum(away, 1e-6), 0.0, 1.0))
        scale = (_SIGHT_RAYS - 1) / (2 * half)
        low = np.floor((angle - width + half) * scale).astype(int) - 1
        high = np.ceil((angle + width + half) * scale).astype(int) + 1
        low, high = np.clip(low, 0, _SIGHT_RAYS - 1), np.clip(high, 0, _SIGHT_RAYS - 1)
        high = np.maximum(low, high)
        level = np.floor(np.log2(high - low + 1)).astype(int)
        farthest = np.zeros(len(size))
        for k, values in enumerate(table):
            at = level == k
            farthest[at] = np.maximum(values[low[at]], values[high[at] - 2**k + 1])
        return np.asarray((away > size) & (away - size > farthest + 0.1))

    def draw(self) -> NDArray[np.uint8]:
        """RGB uint8 (height, width, 3) of what `prepare_picture` took over."""
        assert self._renderer is not None
        return self._renderer.render()

    def render(self) -> NDArray[np.uint8]:
        """RGB uint8 (height, width, 3) of the present state, through the robot's camera."""
        self.prepare_picture()
        return self.draw()

    def scan(self, angles_rad: _Array, max_range_m: float = 8.0) -> _Array:
        """Ranges [m] by ray casting at the height of the body; inf where nothing is in range."""
        x, y, yaw = self.pose
        origin = np.array([x, y, self.data.body("base").xpos[2]])
        heading = angles_rad + yaw
        directions = np.column_stack(
            [np.cos(heading), np.sin(heading), np.zeros(len(heading))]
        ).ravel()
        count = len(angles_rad)
        geoms, ranges = np.zeros(count, dtype=np.int32), np.zeros(count)
        groups = np.ones(6, dtype=np.uint8)
        body = self.model.body("base").id
        mujoco.mj_multiRay(
            self.model,
            self.data,
            origin,
            directions,
            groups,
            1,
            body,
            geoms,
            ranges,
            None,
            count,
            max_range_m,
        )
        return np.where((geoms < 0) | (ranges > max_range_m), np.inf, ranges)

    def close(self) -> None:
        """Free the rendering context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def __enter__(self) -> BaseSimulation:
        """Return itself; closes at exit."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free the rendering context."""
        self.close()


_VISIBLE = mujoco.MjvOption()
_VISIBLE.geomgroup[_HIDDEN_GROUP] = 0


def make_renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    """An off-screen renderer without shadows.

    Raises:
        RuntimeError: no off-screen OpenGL; the message says what to install.
    """
    try:
        renderer = mujoco.Renderer(model, height, width)
    except Exception as error:
        raise RuntimeError(
            f"cannot render off-screen ({error}); expected EGL or OSMesa: install "
            "libegl1 and libgl1-mesa-dri (MUJOCO_GL=egl) or libosmesa6 (MUJOCO_GL=osmesa)"
        ) from error
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    return renderer
