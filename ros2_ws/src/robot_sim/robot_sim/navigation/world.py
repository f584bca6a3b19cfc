"""A simulated place: its MuJoCo parts, a map of where obstacles are, and what can be blocked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_sim.navigation import textures
from robot_sim.navigation.scene_builder import Polygon, SceneBuilder

KINDS = ("indoor", "outdoor")
RESOLUTION_M = 0.1
FIRST_TEST_SEED = 10000
"""Worlds from this seed on are never used in training."""


class WorldError(ValueError):
    """A world that cannot be made as asked."""


@dataclass(frozen=True)
class Opening:
    """A door, a corridor's end or a stretch of path that an obstacle can close.

    Attributes:
        id: what `ResetWorld.blocked` names.
        kind: `door`, `corridor` or `path`.
        centre_m: x, y of its middle.
        normal_rad: direction of travel through it.
        width_m: free width.
        spaces: ids of the rooms, corridors or crossings on both sides.
    """

    id: int
    kind: str
    centre_m: tuple[float, float]
    normal_rad: float
    width_m: float
    spaces: tuple[int, int]


@dataclass(frozen=True, eq=False)
class World:
    """A procedurally generated place; equal kind, seed and blocked ids give an equal world.

    Attributes:
        kind: `indoor` or `outdoor`.
        seed: of shape, textures and light.
        blocked: ids of openings that are closed by a barrier.
        bounds_m: x and y of the lower left and the upper right corner.
        geoms: MJCF geoms of the worldbody.
        assets: MJCF textures and materials.
        files: PNG files that the assets name.
        footprints: outlines of the obstacles.
        screens: (n, 4) lines x, y, x, y of walls from floor to ceiling, which hide what is behind.
        openings: what can be blocked.
        path_grid: (rows, columns) where it is nicer to travel; all True indoors.
        light: ambient and diffuse level of the head light, then direction and level of the sun.
    """

    kind: str
    seed: int
    blocked: tuple[int, ...]
    bounds_m: tuple[float, float, float, float]
    geoms: tuple[str, ...]
    assets: tuple[str, ...]
    files: dict[str, bytes] = field(repr=False)
    footprints: tuple[Polygon, ...] = field(repr=False)
    screens: NDArray[np.float64] = field(repr=False)
    openings: tuple[Opening, ...]
    path_grid: NDArray[np.bool_] = field(repr=False)
    light: tuple[float, float, tuple[float, float, float], float]

    @cached_property
    def occupied(self) -> NDArray[np.bool_]:
        """(rows, columns) cells of `RESOLUTION_M` that an obstacle touches; row 0 is lowest y."""
        return occupancy(self.bounds_m, self.footprints)

    @cached_property
    def clearance_m(self) -> NDArray[np.float32]:
        """(rows, columns) distance of each cell's centre to the nearest obstacle."""
        free = (~self.occupied).astype(np.uint8)
        distance = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.asarray(np.maximum(distance - 0.5, 0.0) * RESOLUTION_M, dtype=np.float32)

    def cell(self, xy: NDArray[np.float64]) -> NDArray[np.intp]:
        """(…, 2) row and column of positions (…, 2), clipped to the grid."""
        rows, columns = grid_shape(self.bounds_m)
        index = np.floor((xy - np.array(self.bounds_m[:2])) / RESOLUTION_M).astype(np.intp)
        return np.stack(
            [np.clip(index[..., 1], 0, rows - 1), np.clip(index[..., 0], 0, columns - 1)], axis=-1
        )

    def position(self, cells: NDArray[np.intp]) -> NDArray[np.float64]:
        """(…, 2) x, y of the centres of cells (…, 2) given as row and column."""
        return np.asarray((cells[..., ::-1] + 0.5) * RESOLUTION_M + np.array(self.bounds_m[:2]))


def grid_shape(bounds_m: tuple[float, float, float, float]) -> tuple[int, int]:
    """Rows and columns of the grids of a world."""
    x0, y0, x1, y1 = bounds_m
    return round((y1 - y0) / RESOLUTION_M), round((x1 - x0) / RESOLUTION_M)


def occupancy(
    bounds_m: tuple[float, float, float, float], footprints: tuple[Polygon, ...] | list[Polygon]
) -> NDArray[np.bool_]:
    """Rasterised footprints, (rows, columns) bool; everything outside the bounds is an obstacle."""
    grid = np.zeros(grid_shape(bounds_m), dtype=np.uint8)
    grid[[0, -1]] = grid[:, [0, -1]] = 1
    shift = 4
    for polygon in footprints:
        pixels = (polygon - np.array(bounds_m[:2])) / RESOLUTION_M - 0.5
        corners = np.round(pixels * 2**shift).astype(np.int32)
        cv2.fillPoly(grid, [corners], 1, lineType=cv2.LINE_8, shift=shift)
    return grid.astype(bool)


@lru_cache(maxsize=4)
def _unblocked(kind: str, seed: int) -> World:
    from robot_sim.navigation import indoor, outdoor

    return (indoor if kind == "indoor" else outdoor).generate(seed)


@lru_cache(maxsize=4)
def make_world(kind: str, seed: int, blocked: tuple[int, ...] = ()) -> World:
    """Generate a world.

    Args:
        kind: one of `KINDS`.
        seed: at least 0; from `FIRST_TEST_SEED` on for evaluation only.
        blocked: ids out of the `openings` of the same world; striped barriers close them.

    Raises:
        WorldError: unknown kind or opening, or a negative seed.
    """
    if seed < 0:
        raise WorldError(f"found world seed {seed}, expected at least 0")
    if kind not in KINDS:
        raise WorldError(f"found world '{kind}', expected one of {', '.join(KINDS)}")
    world = _unblocked(kind, seed)
    return _block(world, tuple(sorted(set(blocked)))) if blocked else world


def _block(world: World, blocked: tuple[int, ...]) -> World:
    count = len(world.openings)
    unknown = [i for i in blocked if not 0 <= i < count]
    if unknown:
        raise WorldError(f"found blocked openings {unknown}, expected ids of 0 .. {count - 1}")
    builder = SceneBuilder(len(world.files))
    for index in blocked:
        opening = world.openings[index]
        look = builder.material(textures.barrier(np.random.default_rng(index)))
        x, y = opening.centre_m
        # Beside a path there is room to pass; in a doorway the frame is in the way.
        half = opening.width_m / 2 + (0.4 if opening.kind == "path" else -0.01)
        builder.box((x, y, 0.6), (0.12, half, 0.6), look, opening.normal_rad)
    return replace(
        world,
        blocked=blocked,
        geoms=(*world.geoms, *builder.geoms),
        assets=(*world.assets, *builder.asset_xml),
        files=world.files | builder.files,
        footprints=(*world.footprints, *builder.footprints),
    )
