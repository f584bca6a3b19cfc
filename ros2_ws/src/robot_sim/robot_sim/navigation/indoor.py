"""Indoor worlds: a lattice of corridors with rooms in its meshes, doors, furniture and pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np

from robot_sim.navigation import textures
from robot_sim.navigation.scene_builder import SceneBuilder, rectangle
from robot_sim.navigation.world import Opening, World, grid_shape, occupancy

WALL_M = 0.06
HEIGHT_M = 2.5
DOOR_HEIGHT_M = 2.1
_FREE_RADIUS_M = 0.36
"""Furniture leaves a way for a robot of this radius to every opening."""
_SIDES = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))


@dataclass
class _Space:
    kind: str  # room | corridor | junction
    x0: float
    y0: float
    x1: float
    y1: float
    line: int = -1
    gaps: dict[int, list[tuple[float, float, float]]] = field(default_factory=dict)
    """Per side: from, to along the side, and height of the gap."""

    def side(self, index: int) -> tuple[float, float, float]:
        """Fixed coordinate, and the range of the other one."""
        if index < 2:
            return (self.x1 if index == 0 else self.x0), self.y0, self.y1
        return (self.y1 if index == 2 else self.y0), self.x0, self.x1


def generate(seed: int) -> World:
    """The world of a seed; see `world.make_world`."""
    rng = np.random.default_rng([seed, 1])
    builder = SceneBuilder()
    spaces, bounds = _floor_plan(rng)
    openings = _openings(rng, spaces)
    for space in spaces:
        _shell(rng, builder, space, _style(seed, space, rng))
    for opening in openings:
        if opening.kind == "door":
            _door(rng, builder, opening)
    _furnish(rng, builder, spaces, openings, bounds)
    yaw = rng.uniform(-math.pi, math.pi)
    light = (
        rng.uniform(0.42, 0.52),
        rng.uniform(0.18, 0.28),
        (math.cos(yaw), math.sin(yaw), -rng.uniform(0.8, 1.6)),
        rng.uniform(0.3, 0.45),
    )
    return World(
        "indoor",
        seed,
        (),
        bounds,
        tuple(builder.geoms),
        tuple(builder.asset_xml),
        builder.files,
        tuple(builder.footprints),
        np.array(builder.screens),
        tuple(openings),
        np.ones(grid_shape(bounds), dtype=bool),
        light,
    )


def _axis(rng: np.random.Generator, corridors: int) -> list[tuple[bool, float, float]]:
    """Alternating blocks and corridors along one axis: (is corridor, from, to)."""
    parts: list[bool] = [] if rng.random() < 0.4 else [False]
    for i in range(corridors):
        parts += [True] if i == corridors - 1 else [True, False]
    if rng.random() < 0.6:
        parts.append(False)
    bands, at = [], 0.0
    for corridor in parts:
        width = rng.uniform(1.6, 2.3) if corridor else rng.uniform(3.2, 5.4)
        width = round(width, 1)
        bands.append((corridor, at, at + width))
        at += width
    return bands


def _floor_plan(
    rng: np.random.Generator,
) -> tuple[list[_Space], tuple[float, float, float, float]]:
    columns = _axis(rng, int(rng.integers(2, 4)))
    rows = _axis(rng, 2)
    spaces: list[_Space] = []
    for i, (column_is_corridor, x0, x1) in enumerate(columns):
        for j, (row_is_corridor, y0, y1) in enumerate(rows):
            if column_is_corridor and row_is_corridor:
                spaces.append(_Space("junction", x0, y0, x1, y1, line=i))
            elif column_is_corridor or row_is_corridor:
                line = i if column_is_corridor else 100 + j
                spaces.append(_Space("corridor", x0, y0, x1, y1, line=line))
            else:
                _split(rng, spaces, x0, y0, x1, y1)
    return spaces, (0.0, 0.0, columns[-1][2], rows[-1][2])


def _split(
    rng: np.random.Generator, spaces: list[_Space], x0: float, y0: float, x1: float, y1: float
) -> None:
    """Cut a block into rooms of at least 2.4 m."""
    w, h = x1 - x0, y1 - y0
    if max(w, h) >= 4.9 and rng.random() < 0.75:
        share = rng.uniform(0.46, 0.54)
        if w >= h:
            middle = round(x0 + share * w, 1)
            _split(rng, spaces, x0, y0, middle, y1)
            _split(rng, spaces, middle, y0, x1, y1)
        else:
            middle = round(y0 + share * h, 1)
            _split(rng, spaces, x0, y0, x1, middle)
            _split(rng, spaces, x0, middle, x1, y1)
    else:
        spaces.append(_Space("room", x0, y0, x1, y1))


def _neighbours(spaces: list[_Space]) -> list[tuple[int, int, int, float, float]]:
    """Pairs a < b with a common edge: (a, b, side of a, from, to)."""
    pairs = []
    for a, first in enumerate(spaces):
        for b in range(a + 1, len(spaces)):
            second = spaces[b]
            for side in range(4):
                at, low, high = first.side(side)
                other, other_low, other_high = second.side(side ^ 1)
                low, high = max(low, other_low), min(high, other_high)
                if abs(at - other) < 1e-6 and high - low > 0.5:
                    pairs.append((a, b, side, low, high))
    return pairs


def _openings(rng: np.random.Generator, spaces: list[_Space]) -> list[Opening]:
    openings: list[Opening] = []
    group = list(range(len(spaces)))
    doors_of = [0] * len(spaces)

    def root(i: int) -> int:
        while group[i] != i:
            i = group[i]
        return i

    def open_up(pair: tuple[int, int, int, float, float], kind: str) -> None:
        a, b, side, low, high = pair
        if kind == "door":
            width = min(rng.uniform(1.15, 1.45), high - low - 0.3)
            low = rng.uniform(low + 0.15, high - 0.15 - width)
            high = low + width
        elif rng.random() < 0.35:
            middle, half = (low + high) / 2, max(0.65, (high - low) / 2 - 0.3)
            low, high = middle - half, middle + half
        else:
            low, high = low + WALL_M, high - WALL_M
        height = DOOR_HEIGHT_M if kind == "door" else HEIGHT_M
        spaces[a].gaps.setdefault(side, []).append((low, high, height))
        spaces[b].gaps.setdefault(side ^ 1, []).append((low, high, height))
        at, middle = spaces[a].side(side)[0], (low + high) / 2
        centre = (at, middle) if side < 2 else (middle, at)
        normal = math.atan2(_SIDES[side][1], _SIDES[side][0])
        openings.append(Opening(len(openings), kind, centre, normal, high - low, (a, b)))
        group[root(a)] = root(b)
        doors_of[a] += 1
        doors_of[b] += 1

    pairs = _neighbours(spaces)
    for pair in pairs:
        if spaces[pair[0]].kind != "room" and spaces[pair[1]].kind != "room":
            open_up(pair, "corridor")
    order = [pairs[i] for i in rng.permutation(len(pairs))]
    wide = [p for p in order if p[4] - p[3] >= 1.6]
    # First every room to a corridor, then the rest of the rooms, then some more doors for detours.
    for pair in wide:
        kinds = {spaces[pair[0]].kind, spaces[pair[1]].kind}
        if "room" in kinds and "corridor" in kinds and root(pair[0]) != root(pair[1]):
            open_up(pair, "door")
    for pair in wide:
        if root(pair[0]) != root(pair[1]):
            open_up(pair, "door")
    used = {opening.spaces for opening in openings}
    for pair in wide:
        both = (pair[0], pair[1])
        rooms = [i for i in both if spaces[i].kind == "room"]
        busy = max((doors_of[i] for i in rooms), default=9)
        wanted = both not in used and busy < 3 and rng.random() < 0.4
        if wanted and "junction" not in {spaces[i].kind for i in both}:
            open_up(pair, "door")
    return openings


@dataclass(frozen=True)
class _Style:
    wall: textures.Image
    lintel: textures.Colour
    floor: textures.Image
    floor_tile_m: float
    wall_tile_m: float
    ceiling: textures.Image
    lamp: bool


def _style(seed: int, space: _Space, rng: np.random.Generator) -> _Style:
    """Rooms have a look of their own; parts of one corridor often share theirs."""
    own = space.kind == "room" or rng.random() < 0.5
    source = rng if own else np.random.default_rng([seed, 2, space.line + 1])
    base = textures.colour(source)
    wall = textures.WALLS[int(source.integers(len(textures.WALLS)))](source, base)
    floor_colour = textures.colour(source, (0.05, 0.6), (0.25, 0.85))
    floor = textures.FLOORS[int(source.integers(len(textures.FLOORS)))](source, floor_colour)
    ceiling = textures.panels(source, textures.colour(source, (0.0, 0.15), (0.75, 0.95)))
    return _Style(
        wall,
        base,
        floor,
        source.uniform(0.8, 2.2),
        source.uniform(0.8, 2.6),
        ceiling,
        source.random() < 0.8,
    )


def _shell(rng: np.random.Generator, builder: SceneBuilder, space: _Space, style: _Style) -> None:
    wall = builder.material(style.wall, (style.wall_tile_m, HEIGHT_M))
    floor = builder.material(style.floor, (style.floor_tile_m, style.floor_tile_m))
    ceiling = builder.material(style.ceiling, (1.2, 1.2), emission=0.25)
    builder.flat(space.x0, space.y0, space.x1, space.y1, -0.01, floor)
    builder.flat(space.x0, space.y0, space.x1, space.y1, HEIGHT_M + 0.01, ceiling)
    if style.lamp:
        x, y = (space.x0 + space.x1) / 2, (space.y0 + space.y1) / 2
        builder.box((x, y, HEIGHT_M - 0.02), (0.4, 0.15, 0.02), (1.0, 1.0, 0.95), solid=False)
    smallest = min(space.x1 - space.x0, space.y1 - space.y0)
    if space.kind == "room" and smallest > 2.6 and rng.random() < 0.4:
        rug = builder.material(textures.poster(rng))
        mx, my = rng.uniform(0.5, 0.9, 2)
        builder.flat(space.x0 + mx, space.y0 + my, space.x1 - mx, space.y1 - my, 0.002, rug)
    for side in range(4):
        at, low, high = space.side(side)
        edges = low
        for start, end, height in [*sorted(space.gaps.get(side, [])), (high, high, HEIGHT_M)]:
            if start - edges > 0.02:
                _wall(builder, side, at, edges, start, 0.0, HEIGHT_M, wall)
                if start - edges > 0.9:
                    _decorate(rng, builder, side, at, edges, start)
            if height < HEIGHT_M:
                _wall(builder, side, at, start, end, height, HEIGHT_M, style.lintel)
            edges = end


def _wall(
    builder: SceneBuilder,
    side: int,
    at: float,
    low: float,
    high: float,
    bottom: float,
    top: float,
    look: str | textures.Colour,
) -> None:
    """A piece of the inner wall of a side: it faces into the space."""
    nx, ny = _SIDES[side]
    middle, inner = (low + high) / 2, at - (nx + ny) * WALL_M / 2
    x, y = (inner, middle) if side < 2 else (middle, inner)
    builder.panel(
        (x, y, (bottom + top) / 2),
        math.atan2(-ny, -nx),
        (high - low) / 2,
        (top - bottom) / 2,
        WALL_M / 2,
        look,
        solid=bottom == 0.0,
    )
    if bottom == 0.0:
        builder.screens.append((inner, low, inner, high) if side < 2 else (low, inner, high, inner))


def _decorate(
    rng: np.random.Generator, builder: SceneBuilder, side: int, at: float, low: float, high: float
) -> None:
    """Pictures, signs, windows, closed doors and pipes on a piece of wall."""
    nx, ny = _SIDES[side]
    inner = at - (nx + ny) * (WALL_M + 0.012)
    facing = math.atan2(-ny, -nx)
    along = low + rng.uniform(0.3, 0.9)
    while along < high - 0.35:
        room = min(along - low, high - along)
        choice = rng.random()
        if choice < 0.5:
            image, half = textures.poster(rng), rng.uniform(0.22, 0.5, 2)
            z = rng.uniform(0.6, 1.6)
        elif choice < 0.62:
            image, half, z = textures.sign(rng), np.array([0.2, 0.2]), rng.uniform(1.0, 1.6)
        elif choice < 0.78:
            image = textures.screen(rng, textures.colour(rng, (0.2, 0.7), (0.3, 0.8)))
            half, z = rng.uniform(0.35, 0.7, 2), 1.4
        else:
            image = textures.door(rng, textures.colour(rng, (0.2, 0.9), (0.25, 0.9)))
            half, z = np.array([0.45, 1.0]), 1.0
        if half[0] < room - 0.02:
            x, y = (inner, along) if side < 2 else (along, inner)
            look = builder.material(image)
            builder.panel((x, y, z), facing, half[0], half[1], 0.012, look, solid=False)
        along += half[0] + rng.uniform(0.5, 1.6)


def _door(rng: np.random.Generator, builder: SceneBuilder, opening: Opening) -> None:
    """Frame of a colour of its own and, often, a leaf that stands open."""
    base = textures.colour(rng, (0.3, 1.0), (0.2, 0.9))
    n = np.array([math.cos(opening.normal_rad), math.sin(opening.normal_rad)])
    along = np.array([-n[1], n[0]])
    centre = np.array(opening.centre_m)
    for sign in (-1, 1):
        x, y = centre + sign * along * (opening.width_m / 2 - 0.005)
        builder.box(
            (x, y, DOOR_HEIGHT_M / 2),
            (WALL_M + 0.03, 0.025, DOOR_HEIGHT_M / 2),
            base,
            opening.normal_rad,
            solid=False,
        )
    builder.box(
        (centre[0], centre[1], DOOR_HEIGHT_M + 0.02),
        (WALL_M + 0.03, opening.width_m / 2, 0.04),
        base,
        opening.normal_rad,
        solid=False,
    )


# Furniture


def _furnish(
    rng: np.random.Generator,
    builder: SceneBuilder,
    spaces: list[_Space],
    openings: list[Opening],
    bounds: tuple[float, float, float, float],
) -> None:
    """Put things along the walls and into the middle, as long as every opening stays reachable."""
    # Cells that a robot's centre needs: a lane through each opening.
    lanes = []
    for opening in openings:
        (x, y), yaw = opening.centre_m, opening.normal_rad
        lanes.append(rectangle(x, y, 0.75, opening.width_m / 2 + 0.1, yaw))
    grid = occupancy(bounds, builder.footprints).astype(np.uint8)
    lane_grid = occupancy(bounds, lanes).astype(np.uint8)
    for index, space in enumerate(spaces):
        own = [o.centre_m for o in openings if index in o.spaces]
        count = int(rng.integers(4, 9)) if space.kind == "room" else int(rng.integers(0, 4))
        for _ in range(count):
            _place(rng, builder, space, own, bounds, grid, lane_grid)


def _place(
    rng: np.random.Generator,
    builder: SceneBuilder,
    space: _Space,
    doors: list[tuple[float, float]],
    bounds: tuple[float, float, float, float],
    grid: np.ndarray,
    lanes: np.ndarray,
) -> None:
    w, h = space.x1 - space.x0, space.y1 - space.y0
    corridor = space.kind != "room"
    names = _NARROW if corridor else _WIDE
    name = names[int(rng.integers(len(names)))]
    half_w, half_d = _SIZES[name]
    half_w, half_d = half_w * rng.uniform(0.8, 1.15), half_d * rng.uniform(0.85, 1.1)
    if not corridor and min(w, h) > 3.6 and rng.random() < 0.15:
        # In the middle, to be driven around.
        x, y = (
            rng.uniform(space.x0 + 1.4, space.x1 - 1.4),
            rng.uniform(space.y0 + 1.4, space.y1 - 1.4),
        )
        facing = float(rng.integers(4)) * math.pi / 2
    else:
        side = int(rng.integers(4))
        at, low, high = space.side(side)
        if high - low < 2 * half_w + 0.3:
            return
        nx, ny = _SIDES[side]
        inner = at - (nx + ny) * (WALL_M + 0.03 + half_d)
        along = rng.uniform(low + half_w + 0.1, high - half_w - 0.1)
        x, y = (inner, along) if side < 2 else (along, inner)
        facing = math.atan2(-ny, -nx)
    outline = rectangle(x, y, half_d, half_w, facing)
    mark = occupancy(bounds, [outline]).astype(np.uint8)
    mark[[0, -1]] = mark[:, [0, -1]] = 0
    # A wall that it stands against may share its outermost cells.
    core = occupancy(bounds, [rectangle(x, y, half_d - 0.1, half_w - 0.1, facing)])
    core[[0, -1]] = core[:, [0, -1]] = False
    if (mark & lanes).any() or grid[core].any():
        return
    trial = grid | mark
    if not _reachable(trial, space, doors, bounds):
        return
    grid |= mark
    _FURNITURE[name](rng, builder, _Spot(x, y, facing, half_w, half_d))


def _reachable(
    grid: np.ndarray,
    space: _Space,
    doors: list[tuple[float, float]],
    bounds: tuple[float, float, float, float],
) -> bool:
    """Whether a robot gets from every opening of a space to every other one within it."""
    margin = 5
    r0, c0 = (int(v / 0.1) for v in (space.y0 - bounds[1], space.x0 - bounds[0]))
    r1, c1 = (int(v / 0.1) for v in (space.y1 - bounds[1], space.x1 - bounds[0]))
    r0, c0 = max(0, r0 - margin), max(0, c0 - margin)
    part = grid[r0 : r1 + margin, c0 : c1 + margin]
    clearance = cv2.distanceTransform(1 - part, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * 0.1
    _, labels = cv2.connectedComponents((clearance > _FREE_RADIUS_M).astype(np.uint8))
    found = set()
    for x, y in doors:
        row, column = int((y - bounds[1]) / 0.1) - r0, int((x - bounds[0]) / 0.1) - c0
        near = labels[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        found.add(int(near.max(initial=0)))
    return 0 not in found and len(found) <= 1


@dataclass(frozen=True)
class _Spot:
    """Where a piece of furniture stands, and how large it is.

    Attributes:
        x, y: its middle in the world [m].
        facing: direction of its front [rad].
        half_w, half_d: half its width and depth [m].
    """

    x: float
    y: float
    facing: float
    half_w: float
    half_d: float

    def local(self, u: float, v: float) -> tuple[float, float]:
        """World position of a point `u` forward and `v` to the left of its middle."""
        c, s = math.cos(self.facing), math.sin(self.facing)
        return self.x + c * u - s * v, self.y + s * u + c * v


def _upright(rng: np.random.Generator, builder: SceneBuilder, spot: _Spot) -> None:
    """A shelf, cupboard or machine as one textured box."""
    base = textures.colour(rng, (0.1, 0.8), (0.25, 0.9))
    front = (textures.shelf, textures.cabinet, textures.cabinet)[int(rng.integers(3))]
    half_h = rng.uniform(0.35, 1.05)
    look = builder.material(front(rng, base))
    builder.box((spot.x, spot.y, half_h), (spot.half_d, spot.half_w, half_h), look, spot.facing)


def _desk(rng: np.random.Generator, builder: SceneBuilder, spot: _Spot) -> None:
    """A table with panels as legs, and something on it."""
    top = builder.material(textures.wood(rng, textures.colour(rng, (0.2, 0.6), (0.4, 0.9))))
    height = rng.uniform(0.68, 0.8)
    side = textures.colour(rng, (0.0, 0.7), (0.15, 0.8))
    builder.box((spot.x, spot.y, height), (spot.half_d, spot.half_w, 0.025), top, spot.facing)
    for sign in (-1, 1):
        px, py = spot.local(0, sign * (spot.half_w - 0.03))
        builder.box((px, py, height / 2), (spot.half_d - 0.04, 0.02, height / 2), side, spot.facing)
    px, py = spot.local(-0.1, rng.uniform(-0.5, 0.5) * spot.half_w)
    picture = builder.material(textures.screen(rng, textures.colour(rng)))
    builder.panel((px, py, height + 0.2), spot.facing, 0.26, 0.17, 0.02, picture, solid=False)


def _sofa(rng: np.random.Generator, builder: SceneBuilder, spot: _Spot) -> None:
    """A seat with a back; a wide one is a bed."""
    cloth = builder.material(textures.carpet(rng, textures.colour(rng, (0.3, 0.9), (0.25, 0.9))))
    builder.box((spot.x, spot.y, 0.21), (spot.half_d, spot.half_w, 0.21), cloth, spot.facing)
    px, py = spot.local(-spot.half_d + 0.08, 0)
    builder.box((px, py, 0.6), (0.08, spot.half_w, 0.22), cloth, spot.facing)
    for sign in (-1, 1):
        px, py = spot.local(0.05, sign * spot.half_w * 0.5)
        tint = textures.colour(rng, (0.2, 0.9), (0.4, 1.0))
        builder.box(
            (px, py, 0.46),
            (spot.half_d * 0.4, spot.half_w * 0.3, 0.05),
            tint,
            spot.facing,
            solid=False,
        )


def _plant(rng: np.random.Generator, builder: SceneBuilder, spot: _Spot) -> None:
    """A pot with a bush."""
    radius = min(spot.half_w, spot.half_d)
    pot = textures.colour(rng, (0.1, 0.8), (0.3, 0.9))
    leaves = builder.material(textures.foliage(rng, (0.2, rng.uniform(0.35, 0.6), 0.15)))
    builder.round("cylinder", (spot.x, spot.y, 0.17), (radius * 0.7, 0.17), pot)
    tall = rng.uniform(0.25, 0.6)
    builder.round("ellipsoid", (spot.x, spot.y, 0.3 + tall), (radius, radius, tall), leaves)


def _pillar(rng: np.random.Generator, builder: SceneBuilder, spot: _Spot) -> None:
    """A bin, a barrel or a column."""
    radius = min(spot.half_w, spot.half_d)
    half_h = (0.3, 0.45, HEIGHT_M / 2)[int(rng.integers(3))]
    look = builder.material(textures.stripes(rng, textures.colour(rng, (0.2, 1.0), (0.3, 0.9))))
    builder.round("cylinder", (spot.x, spot.y, half_h), (radius, half_h), look)


def _boxes(rng: np.random.Generator, builder: SceneBuilder, spot: _Spot) -> None:
    """A pile of crates."""
    z = 0.0
    for _ in range(int(rng.integers(1, 5))):
        half_h = rng.uniform(0.14, 0.28)
        shrink = rng.uniform(0.75, 1.0)
        look = builder.material(
            (textures.panels, textures.wood)[int(rng.integers(2))](
                rng, textures.colour(rng, (0.2, 0.9), (0.35, 0.9))
            )
        )
        builder.box(
            (spot.x, spot.y, z + half_h),
            (spot.half_d * shrink, spot.half_w * shrink, half_h),
            look,
            spot.facing,
        )
        z += 2 * half_h


_FURNITURE = {
    "upright": _upright,
    "counter": _upright,
    "desk": _desk,
    "sofa": _sofa,
    "plant": _plant,
    "pillar": _pillar,
    "boxes": _boxes,
    "thin": _upright,
}
_SIZES = {
    "upright": (0.5, 0.22),
    "counter": (0.9, 0.3),
    "desk": (0.65, 0.35),
    "sofa": (0.8, 0.4),
    "plant": (0.24, 0.24),
    "pillar": (0.2, 0.2),
    "boxes": (0.28, 0.25),
    "thin": (0.45, 0.13),
}
"""Half the width and half the depth [m]."""
_WIDE = ("upright", "upright", "counter", "desk", "desk", "sofa", "plant", "pillar", "boxes")
_NARROW = ("thin", "thin", "plant", "pillar", "boxes")
