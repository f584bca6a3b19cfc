"""Where everything is in one scene: a pure function of a seed and of what the task needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_sim.scene_model import (
    CAMERA_POSITION_M,
    CAMERA_TARGET_M,
    CONTAINER_RADIUS_M,
    CONTAINERS,
    DISTRACTORS,
    HANDLE_OFFSET_M,
    OBJECTS,
    REGIONS,
)

OBJECT_AREA_M = ((0.215, 0.395), (-0.085, 0.085))
"""x and y range of the objects' centres."""
_OBJECT_SPACING_M = 0.078
_DISTRACTOR_SPACING_M = 0.064
_FINGER_REACH_M = 0.052  # half the open gripper, with its fingers
_PATH_CLEARANCE_M = 0.058
_MAX_YAW_RAD = 0.35
_OPEN_DRAWER_M = (0.065, 0.085)


@dataclass(frozen=True)
class SceneLayout:
    """One scene. Positions in base_link [m], angles about +z [rad], colours RGB 0..1."""

    objects: dict[str, tuple[float, float, float]]
    """x, y, yaw of each object."""
    distractors: dict[str, tuple[float, float, float]]
    """x, y, yaw of the distractors that are there."""
    fixtures: dict[str, tuple[float, float, float]]
    """x, y, yaw of pot, plate, bowl, stove, sink and cabinet."""
    drawer_opening_m: float
    colour_offsets: dict[str, NDArray[np.float64]]
    counter_tint: NDArray[np.float64]
    light_position_m: NDArray[np.float64]
    light_level: float
    camera_position_m: NDArray[np.float64]
    camera_target_m: NDArray[np.float64]


def _distance_to_segment(
    point: tuple[float, float], start: tuple[float, float], end: tuple[float, float]
) -> float:
    px, py = point[0] - start[0], point[1] - start[1]
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = max(0.0, min(1.0, (px * dx + py * dy) / (dx * dx + dy * dy + 1e-12)))
    return math.hypot(px - along * dx, py - along * dy)


def _fixtures(rng: np.random.Generator) -> dict[str, tuple[float, float, float]]:
    """Rows from the robot outwards: drawer and bowl, pot and plate, stove and sink."""
    sides = rng.choice([-1.0, 1.0], size=3)
    out: dict[str, tuple[float, float, float]] = {}
    out["cabinet"] = (0.035 + rng.uniform(-0.01, 0.01), sides[0] * rng.uniform(0.175, 0.195), 0.0)
    out["bowl"] = (
        0.150 + rng.uniform(-0.012, 0.012),
        -sides[0] * rng.uniform(0.160, 0.185),
        rng.uniform(-math.pi, math.pi),
    )
    for name, side in (("pot", sides[1]), ("plate", -sides[1])):
        x = 0.285 + rng.uniform(-0.018, 0.018)
        out[name] = (x, side * rng.uniform(0.160, 0.190), rng.uniform(-0.5, 0.5))
    for name, side in (("stove", sides[2]), ("sink", -sides[2])):
        x = 0.415 + rng.uniform(-0.012, 0.012)
        out[name] = (x, side * rng.uniform(0.155, 0.180), rng.uniform(-0.1, 0.1))
    return out


def sample_layout(
    seed: int, drawer_open: bool | None = None, paths: tuple[tuple[str, str], ...] = ()
) -> SceneLayout:
    """Draw a scene in which nothing overlaps and the gripper can reach around every object.

    Args:
        seed: any non-negative integer; equal arguments give equal scenes.
        drawer_open: whether the drawer starts open; None: either, mostly shut.
        paths: (object, fixture) pairs between which the straight way must be free.

    Raises:
        ValueError: `seed` is negative.
    """
    if seed < 0:
        raise ValueError(f"found the seed {seed}; expected a non-negative integer")
    rng = np.random.default_rng(seed)
    present = list(rng.choice(DISTRACTORS, size=2, replace=False))
    opened = rng.random() < 0.25 if drawer_open is None else drawer_open
    opening = float(rng.uniform(*_OPEN_DRAWER_M)) if opened else 0.0
    while True:
        fixtures = _fixtures(rng)
        placed = _place(rng, fixtures, present, opening, paths)
        if placed is not None:
            break
    objects, distractors = placed
    names = (*OBJECTS, *CONTAINERS, *REGIONS, *DISTRACTORS)
    jitter = np.array([0.015, 0.015, 0.012])
    return SceneLayout(
        objects=objects,
        distractors=distractors,
        fixtures=fixtures,
        drawer_opening_m=opening,
        colour_offsets={name: rng.uniform(-0.05, 0.05, size=3) for name in names},
        counter_tint=rng.uniform(0.86, 1.0) * (1.0 + rng.uniform(-0.04, 0.04, size=3)),
        light_position_m=np.array([0.5, 0.0, 1.6]) + rng.uniform(-0.5, 0.5, size=3) * [1, 1, 0.3],
        light_level=float(rng.uniform(0.32, 0.52)),
        camera_position_m=np.array(CAMERA_POSITION_M) + rng.uniform(-jitter, jitter),
        camera_target_m=np.array(CAMERA_TARGET_M) + rng.uniform(-0.006, 0.006, size=3),
    )


def _place(
    rng: np.random.Generator,
    fixtures: dict[str, tuple[float, float, float]],
    present: list[str],
    drawer_opening_m: float,
    paths: tuple[tuple[str, str], ...],
) -> tuple[dict[str, tuple[float, float, float]], dict[str, tuple[float, float, float]]] | None:
    """Objects and distractors among the fixtures; None when they did not fit."""
    obstacles = [(fixtures[c][:2], CONTAINER_RADIUS_M[c] + _FINGER_REACH_M) for c in CONTAINERS]
    cabinet = fixtures["cabinet"]
    handle_x = cabinet[0] + HANDLE_OFFSET_M[0]
    obstacles.append(((handle_x + drawer_opening_m, cabinet[1]), 0.10))
    taken: list[tuple[float, float]] = []

    def spot(area: tuple[tuple[float, float], tuple[float, float]], spacing: float) -> bool:
        for _ in range(60):
            x, y = rng.uniform(*area[0]), rng.uniform(*area[1])
            if all(math.hypot(x - p[0], y - p[1]) >= r for p, r in obstacles) and all(
                math.hypot(x - p[0], y - p[1]) >= spacing for p in taken
            ):
                taken.append((float(x), float(y)))
                return True
        return False

    if not all(spot(OBJECT_AREA_M, _OBJECT_SPACING_M) for _ in OBJECTS):
        return None
    wide = ((0.17, 0.45), (-0.12, 0.12))
    if not all(spot(wide, _DISTRACTOR_SPACING_M) for _ in present):
        return None
    order = rng.permutation(len(OBJECTS))
    at = {name: taken[k] for name, k in zip(OBJECTS, order.tolist(), strict=True)}
    at |= dict(zip(present, taken[len(OBJECTS) :], strict=True))
    for thing, fixture in paths:
        for other, position in at.items():
            if other != thing and (
                _distance_to_segment(position, at[thing], fixtures[fixture][:2]) < _PATH_CLEARANCE_M
            ):
                return None
        for container in CONTAINERS:
            reach = CONTAINER_RADIUS_M[container] + _FINGER_REACH_M
            position = fixtures[container][:2]
            if _distance_to_segment(position, at[thing], fixtures[fixture][:2]) < reach - 0.008:
                return None
    yaw = {name: float(rng.uniform(-_MAX_YAW_RAD, _MAX_YAW_RAD)) for name in OBJECTS}
    return (
        {name: (*at[name], yaw[name]) for name in OBJECTS},
        {name: (*at[name], float(rng.uniform(-math.pi, math.pi))) for name in present},
    )
