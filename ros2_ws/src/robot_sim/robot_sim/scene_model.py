"""The toy kitchen and the WidowX 250 as one MuJoCo model, from primitives.

Frames: the world frame is the arm's base_link (x forward, y left, z up); the table top is z = 0.
Every scene uses the same compiled model: `scene_layout` only moves, hides and tints its parts.
"""

from __future__ import annotations

import math
from functools import lru_cache

import mujoco
from widowx_description import load_numbers

TIMESTEP_S = 0.005
CAMERA = "main"
IMAGE_WIDTH, IMAGE_HEIGHT = 640, 480
CAMERA_FOVY_DEG = 33.0
CAMERA_POSITION_M = (0.80, 0.0, 0.56)
CAMERA_TARGET_M = (0.262, 0.0, 0.02)

ARM_JOINTS: tuple[str, ...] = tuple(load_numbers()["joints"])
LEFT_FINGER, RIGHT_FINGER = "left_finger", "right_finger"
FINGER_LOWER_M: float = load_numbers()["gripper"]["lower"]
FINGER_UPPER_M: float = load_numbers()["gripper"]["upper"]
END_EFFECTOR = "ee_gripper"

OBJECTS = ("red_cube", "green_cylinder", "yellow_block")
OBJECT_HALF_HEIGHT_M = {"red_cube": 0.018, "green_cylinder": 0.020, "yellow_block": 0.018}
OBJECT_HALF_GRASP_M = 0.018
"""Half the width of every object across the fingers."""
CONTAINERS = ("pot", "plate", "bowl")
CONTAINER_RADIUS_M = {"pot": 0.052, "plate": 0.058, "bowl": 0.054}
"""Outer radius."""
CONTAINER_HEIGHT_M = {"pot": 0.036, "plate": 0.010, "bowl": 0.028}
REGIONS = ("stove", "sink")
REGION_HALF_SIZE_M = 0.052
DISTRACTORS = ("eggplant", "potato", "sponge")
DRAWER_TRAVEL_M = 0.09
HANDLE_OFFSET_M = (0.0965, 0.0, 0.046)
"""Handle centre in the cabinet's frame when the drawer is shut."""
FLOOR_Z_M = -0.72

# Shoulder and elbow are pairs of servos; the forces are the servos' stall torques. The stiffness is
# higher than that of a bare P gain, because the arm's weight is compensated instead of integrated.
_STIFFNESS_NM_RAD = dict(zip(ARM_JOINTS, (300.0, 400.0, 300.0, 120.0, 120.0, 60.0), strict=True))
_FORCE_NM = dict(zip(ARM_JOINTS, (4.1, 8.2, 8.2, 4.1, 4.1, 1.5), strict=True))
_ARMATURE_KG_M2 = dict(zip(ARM_JOINTS, (0.05, 0.1, 0.1, 0.05, 0.03, 0.02), strict=True))
_DAMPING_RATIO = 0.5
# Rotor of the gripper servo seen from one finger (gear 258:1, about 0.002 kg m^2 at the horn). With
# less, the damping of the back-EMF exceeds what the implicit integrator and the contacts agree on.
_FINGER_ARMATURE_KG = 5.0
_BLACK, _GREY, _BLUE = "0.13 0.13 0.15 1", "0.27 0.28 0.31 1", "0.16 0.36 0.62 1"


def _ring(name: str, radius: float, height: float, attributes: str) -> str:
    """Collision wall of a round container: boxes on a circle."""
    out = []
    n, thickness = 14, 0.004
    width = math.tan(math.pi / n) * radius
    for k in range(n):
        angle = 2 * math.pi * k / n
        out.append(
            f'<geom name="{name}_wall{k}" type="box" size="{thickness / 2} {width} {height / 2}" '
            f'pos="{(radius - thickness / 2) * math.cos(angle)} '
            f'{(radius - thickness / 2) * math.sin(angle)} {height / 2}" '
            f'euler="0 0 {angle}" {attributes}/>'
        )
    return "".join(out)


def _lathe(name: str, profile: list[tuple[float, float]], n: int = 28) -> str:
    """Mesh asset: a closed (radius, height) profile turned about z."""
    vertices = [
        f"{r * math.cos(2 * math.pi * k / n):.5f} {r * math.sin(2 * math.pi * k / n):.5f} {z:.5f}"
        for k in range(n)
        for r, z in profile
    ]
    m = len(profile)
    faces = []
    for k in range(n):
        for i in range(m):
            a, b = k * m + i, k * m + (i + 1) % m
            c, d = ((k + 1) % n) * m + i, ((k + 1) % n) * m + (i + 1) % m
            faces += [f"{a} {b} {c}", f"{b} {d} {c}"]
    return (
        f'<mesh name="{name}" vertex="{"  ".join(vertices)}" face="{"  ".join(faces)}" '
        'inertia="shell"/>'
    )


def _inertial(link: str) -> str:
    numbers = load_numbers()["inertials"][link]
    com = " ".join(map(str, numbers["com"]))
    return (
        f'<inertial mass="{numbers["mass"]}" pos="{com}" '
        f'fullinertia="{" ".join(map(str, numbers["inertia"]))}"/>'
    )


def _link(joint: str, content: str) -> str:
    """One moving arm link with its joint; `content` is its geometry and its children."""
    n = load_numbers()["joints"][joint]
    xyz, axis = (" ".join(map(str, n[key])) for key in ("xyz", "axis"))
    return f"""
    <body name="{n["child"]}" pos="{xyz}" gravcomp="1">
      {_inertial(n["child"])}
      <joint name="{joint}" axis="{axis}" range="{n["lower"]} {n["upper"]}"
             armature="{_ARMATURE_KG_M2[joint]}" damping="0.1"/>
      {content}
    </body>"""


def _finger(name: str, side: int) -> str:
    low, high = sorted((side * FINGER_LOWER_M, side * FINGER_UPPER_M))
    return f"""
    <body name="{name}_link" gravcomp="1">
      {_inertial(f"{name}_link")}
      <joint name="{name}" type="slide" axis="0 1 0" range="{low} {high}"
             armature="{_FINGER_ARMATURE_KG}"/>
      <geom name="{name}_pad" class="pad" type="box" size="0.022 0.0045 0.009"
            pos="0.019 {side * 0.0045} 0" rgba="0.12 0.12 0.14 1"/>
      <geom class="visual" type="box" size="0.008 0.006 0.0095" pos="0.002 {side * 0.009} 0"
            rgba="{_GREY}"/>
    </body>"""


def _arm() -> str:
    """Bodies of the wx250s; chain, limits and inertias from `widowx_description`."""
    numbers = load_numbers()
    geom = '<geom class="visual" type="{}" size="{}" pos="{}" euler="{}" rgba="{}"/>'
    turned_x, turned_y, straight = "0 1.5708 0", "1.5708 0 0", "0 0 0"
    bar_x = numbers["ee_arm_x"]
    fingers = f"""
      <body name="gripper_prop_link" pos="{bar_x + numbers["gripper_prop_x"]} 0 0" gravcomp="1">
        {_inertial("gripper_prop_link")}
      </body>
      <body name="gripper_bar_link" pos="{bar_x} 0 0" gravcomp="1">
        {_inertial("gripper_bar_link")}
        {geom.format("box", "0.006 0.062 0.011", "0.013 0 0", straight, _GREY)}
        <body name="fingers_link" pos="{numbers["ee_bar_x"]} 0 0">
          <site name="{END_EFFECTOR}" pos="{numbers["ee_gripper_x"]} 0 0" size="0.004" group="4"/>
          {_finger(LEFT_FINGER, 1)}{_finger(RIGHT_FINGER, -1)}
        </body>
      </body>"""
    hand = _link(
        "wrist_rotate",
        geom.format("cylinder", "0.018 0.01", "0.005 0 0", turned_x, _BLUE)
        + geom.format("box", "0.018 0.017 0.018", "0.032 0 0.006", straight, _BLACK)
        + fingers,
    )
    wrist = _link(
        "wrist_angle",
        geom.format("cylinder", "0.018 0.03", "0 0 0", turned_y, _GREY)
        + geom.format("box", "0.02 0.018 0.016", "0.035 0 0.004", straight, _BLACK)
        + hand,
    )
    lower_forearm = _link(
        "forearm_roll",
        geom.format("cylinder", "0.024 0.018", "0 0 0", turned_x, _GREY)
        + geom.format("box", "0.03 0.019 0.018", "0.045 0 0", straight, _BLACK)
        + wrist,
    )
    upper_forearm = _link(
        "elbow",
        geom.format("cylinder", "0.024 0.04", "0 0 0", turned_y, _GREY)
        + geom.format("box", "0.07 0.02 0.018", "0.09 0 0", straight, _BLACK)
        + lower_forearm,
    )
    upper_arm = _link(
        "shoulder",
        geom.format("cylinder", "0.026 0.042", "0 0 0", turned_y, _GREY)
        + geom.format("box", "0.016 0.026 0.11", "0 0 0.125", straight, _BLACK)
        + geom.format("box", "0.012 0.0265 0.03", "0 0 0.12", straight, _BLUE)
        + geom.format("box", "0.036 0.024 0.018", "0.022 0 0.25", straight, _BLACK)
        + upper_forearm,
    )
    shoulder = _link(
        "waist",
        geom.format("cylinder", "0.05 0.008", "0 0 0.008", straight, _GREY)
        + geom.format("box", "0.022 0.045 0.03", "0 0 0.035", straight, _BLACK)
        + upper_arm,
    )
    return f"""
    <body name="base_link">
      {geom.format("box", "0.085 0.07 0.008", "-0.02 0 0.008", straight, _GREY)}
      {geom.format("cylinder", "0.048 0.028", "0 0 0.044", straight, _BLACK)}
      {shoulder}
    </body>"""


def _movable() -> str:
    shapes = {
        "red_cube": ('type="box" size="0.018 0.018 0.018"', "0.84 0.10 0.09 1"),
        "green_cylinder": ('type="cylinder" size="0.018 0.020"', "0.10 0.62 0.20 1"),
        "yellow_block": ('type="box" size="0.027 0.018 0.018"', "0.95 0.78 0.08 1"),
        "eggplant": ('type="ellipsoid" size="0.028 0.014 0.014"', "0.36 0.12 0.42 1"),
        "potato": ('type="ellipsoid" size="0.021 0.016 0.013"', "0.62 0.46 0.28 1"),
        "sponge": ('type="box" size="0.023 0.015 0.009"', "0.92 0.55 0.66 1"),
    }
    return "".join(
        f'<body name="{name}" pos="{2 + i} 0 {FLOOR_Z_M + 0.05}"><freejoint name="{name}"/>'
        f'<geom name="{name}" class="object" mass="0.03" {shape} rgba="{colour}"/></body>'
        for i, (name, (shape, colour)) in enumerate(shapes.items())
    )


def _containers() -> str:
    pot_r, plate_r, bowl_r = (CONTAINER_RADIUS_M[c] for c in CONTAINERS)
    pot_h, plate_h, bowl_h = (CONTAINER_HEIGHT_M[c] for c in CONTAINERS)
    wall = 'class="wall" group="3"'
    grip = (
        '<geom class="visual" type="box" size="0.012 0.014 0.004" '
        f'pos="0 {{}} {pot_h - 0.008}" rgba="0.1 0.1 0.12 1"/>'
    )
    floor = '<geom class="wall" group="3" type="cylinder" size="{} 0.002" pos="0 0 0.002"/>'
    return f"""
    <body name="pot">
      <geom name="pot" class="visual" type="mesh" mesh="pot" rgba="0.14 0.24 0.55 1"/>
      {grip.format(pot_r + 0.009)}{grip.format(-pot_r - 0.009)}
      {floor.format(pot_r - 0.004)}{_ring("pot", pot_r, pot_h, wall)}
    </body>
    <body name="plate">
      <geom name="plate" class="visual" type="mesh" mesh="plate" rgba="0.86 0.86 0.84 1"/>
      <geom class="visual" type="cylinder" size="{plate_r - 0.021} 0.0004" pos="0 0 0.0049"
            rgba="0.66 0.72 0.78 1"/>
      {floor.format(plate_r - 0.004)}{_ring("plate", plate_r, plate_h, wall)}
    </body>
    <body name="bowl">
      <geom name="bowl" class="visual" type="mesh" mesh="bowl" rgba="0.20 0.70 0.74 1"/>
      {floor.format(bowl_r - 0.004)}{_ring("bowl", bowl_r, bowl_h, wall)}
    </body>"""


def _regions() -> str:
    s = REGION_HALF_SIZE_M
    burner = '<geom class="visual" type="cylinder" size="{} 0.0006" pos="0 0 {}" rgba="{}"/>'
    return f"""
    <body name="stove">
      <geom name="stove" class="visual" type="box" size="{s} {s} 0.0006" pos="0 0 0.0006"
            rgba="0.09 0.09 0.10 1"/>
      {burner.format(0.036, 0.0012, "0.75 0.35 0.12 1")}
      {burner.format(0.030, 0.0014, "0.12 0.12 0.13 1")}
      {burner.format(0.018, 0.0016, "0.75 0.35 0.12 1")}
      {burner.format(0.012, 0.0018, "0.12 0.12 0.13 1")}
    </body>
    <body name="sink">
      <geom class="visual" type="box" size="{s} {s} 0.0006" pos="0 0 0.0006"
            rgba="0.80 0.82 0.84 1"/>
      <geom name="sink" class="visual" type="box" size="{s - 0.008} {s - 0.008} 0.0006"
            pos="0 0 0.0012" rgba="0.48 0.55 0.62 1"/>
      {burner.format(0.010, 0.0018, "0.22 0.24 0.26 1")}
    </body>"""


def _cabinet() -> str:
    """Cabinet that opens toward +x; its origin is the middle of its footprint."""
    depth, width, height, wall = 0.06, 0.058, 0.076, 0.004
    wood, front, dark = "0.58 0.37 0.20 1", "0.72 0.49 0.28 1", "0.20 0.13 0.08 1"
    side = 'class="wall" type="box"'
    handle_x, _, handle_z = HANDLE_OFFSET_M
    return f"""
    <body name="cabinet">
      <geom {side} size="{depth} {width} {wall}" pos="0 0 {height - wall}" rgba="{wood}"/>
      <geom {side} size="{depth - 0.0005} {wall} {height / 2 - wall}"
            pos="0 {width - wall} {height / 2 - wall}" rgba="{wood}"/>
      <geom {side} size="{depth - 0.0005} {wall} {height / 2 - wall}"
            pos="0 {wall - width} {height / 2 - wall}" rgba="{wood}"/>
      <geom class="visual" type="box" size="{wall / 2} {width - 2 * wall} {height / 2 - wall}"
            pos="{wall - depth} 0 {height / 2}" rgba="{dark}"/>
      <geom class="visual" type="box" size="{depth - 0.001} {width - wall} 0.002" pos="0 0 0.002"
            rgba="{dark}"/>
      <body name="drawer">
        <inertial mass="0.15" pos="0 0 0.035" diaginertia="2e-4 2e-4 2e-4"/>
        <joint name="drawer" type="slide" axis="1 0 0" range="0 {DRAWER_TRAVEL_M}" damping="2"
               frictionloss="0.6" armature="0.05"/>
        <geom name="drawer_front" class="wall" type="box" size="0.005 {width - 0.001} 0.032"
              pos="{depth + 0.005} 0 0.036" rgba="{front}"/>
        <geom class="visual" type="box" size="{depth - 0.006} {width - 0.012} 0.002"
              pos="0 0 0.010" rgba="{front}"/>
        <geom class="visual" type="box" size="{depth - 0.006} 0.003 0.022"
              pos="0 {width - 0.014} 0.03" rgba="{front}"/>
        <geom class="visual" type="box" size="{depth - 0.006} 0.003 0.022"
              pos="0 {0.014 - width} 0.03" rgba="{front}"/>
        <geom class="visual" type="box" size="0.012 0.006 0.006"
              pos="{handle_x - 0.016} 0 {handle_z - 0.006}" rgba="{dark}"/>
        <geom name="handle" class="object" type="box" size="0.012 {OBJECT_HALF_GRASP_M} 0.018"
              pos="{handle_x} 0 {handle_z}" rgba="0.86 0.88 0.90 1"/>
      </body>
    </body>"""


def _position_servos() -> str:
    return "".join(
        f'<position name="{name}" joint="{name}" kp="{_STIFFNESS_NM_RAD[name]}" '
        f'dampratio="{_DAMPING_RATIO}" forcerange="{-_FORCE_NM[name]} {_FORCE_NM[name]}"/>'
        for name in ARM_JOINTS
    )


def model_xml() -> str:
    """MJCF text of the whole scene."""
    pot_r, plate_r, bowl_r = (CONTAINER_RADIUS_M[c] for c in CONTAINERS)
    pot_h, plate_h, bowl_h = (CONTAINER_HEIGHT_M[c] for c in CONTAINERS)
    meshes = (
        _lathe(
            "pot",
            [
                (0.001, 0.004),
                (pot_r - 0.005, 0.004),
                (pot_r - 0.004, pot_h),
                (pot_r, pot_h + 0.002),
                (pot_r, 0.001),
                (0.001, 0.0),
            ],
        )
        + _lathe(
            "plate",
            [
                (0.001, 0.0045),
                (plate_r - 0.02, 0.0045),
                (plate_r, plate_h + 0.001),
                (plate_r + 0.001, plate_h),
                (plate_r - 0.018, 0.0),
                (0.001, 0.0),
            ],
        )
        + _lathe(
            "bowl",
            [
                (0.001, 0.0045),
                (bowl_r - 0.02, 0.006),
                (bowl_r - 0.006, 0.014),
                (bowl_r - 0.003, bowl_h + 0.001),
                (bowl_r, bowl_h + 0.001),
                (bowl_r - 0.003, 0.010),
                (bowl_r - 0.018, 0.0),
                (0.001, 0.0),
            ],
        )
    )
    return f"""
<mujoco model="widowx_kitchen">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{TIMESTEP_S}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <size memory="16M"/>
  <visual>
    <global offwidth="{IMAGE_WIDTH}" offheight="{IMAGE_HEIGHT}" fovy="{CAMERA_FOVY_DEG}"/>
    <quality shadowsize="0" offsamples="0"/>
    <headlight ambient="0.50 0.50 0.50" diffuse="0.35 0.35 0.35" specular="0 0 0"/>
    <map znear="0.02" zfar="8"/>
  </visual>
  <asset>
    <texture name="sky" type="skybox" builtin="flat" rgb1="0.75 0.78 0.80" rgb2="0.75 0.78 0.80"
             width="16" height="96"/>
    <texture name="tiles" type="2d" builtin="flat" mark="edge" width="128" height="128"
             rgb1="0.80 0.86 0.86" markrgb="0.93 0.94 0.93"/>
    <material name="tiles" texture="tiles" texrepeat="7 7" texuniform="true" specular="0"/>
    {meshes}
  </asset>
  <default>
    <geom friction="1.0 0.02 0.001" condim="4" solref="0.01 1" solimp="0.95 0.99 0.001"/>
    <default class="visual">
      <geom contype="0" conaffinity="0" mass="0" group="2"/>
    </default>
    <default class="pad">
      <geom mass="0" priority="1" friction="1.2 0.02 0.001" contype="1" conaffinity="2"
            solimp="0.99 0.999 0.0005"/>
    </default>
    <default class="object"><geom contype="2" conaffinity="3"/></default>
    <default class="wall"><geom contype="1" conaffinity="2" mass="0"/></default>
  </default>
  <worldbody>
    <light name="ceiling" pos="0.5 0.3 1.6" dir="-0.15 -0.15 -1" diffuse="0.45 0.45 0.45"
           specular="0.1 0.1 0.1" castshadow="false"/>
    <camera name="{CAMERA}" pos="0.8 0 0.56" fovy="{CAMERA_FOVY_DEG}"/>
    <geom name="floor" type="plane" size="0 0 1" pos="0 0 {FLOOR_Z_M}" contype="1" conaffinity="2"
          group="3"/>
    <geom name="table" type="box" size="0.45 0.70 0.02" pos="0.24 0 -0.02"
          rgba="0.80 0.73 0.62 1" contype="1" conaffinity="3"/>
    <geom name="backsplash" class="visual" type="box" size="0.01 0.9 0.35" pos="-0.19 0 0.35"
          material="tiles"/>
    {_regions()}
    {_containers()}
    {_cabinet()}
    {_arm()}
    {_movable()}
  </worldbody>
  <tendon>
    <fixed name="fingers">
      <joint joint="{LEFT_FINGER}" coef="0.5"/><joint joint="{RIGHT_FINGER}" coef="-0.5"/>
    </fixed>
  </tendon>
  <equality>
    <joint joint1="{RIGHT_FINGER}" joint2="{LEFT_FINGER}" polycoef="0 -1 0 0 0"
           solref="0.005 1" solimp="0.99 0.999 0.001"/>
  </equality>
  <actuator>
    {_position_servos()}
    <motor name="gripper" tendon="fingers"/>
  </actuator>
</mujoco>"""


@lru_cache(maxsize=1)
def _compiled_xml() -> str:
    return model_xml()


def build_model() -> mujoco.MjModel:
    """Compile a model of its own (scenes edit their model in place)."""
    return mujoco.MjModel.from_xml_string(_compiled_xml())
