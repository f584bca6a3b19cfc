"""Outdoor worlds: a net of paths between houses, trees, hedges and rocks under a painted sky."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_sim.navigation import textures
from robot_sim.navigation.scene_builder import SceneBuilder
from robot_sim.navigation.world import (
    RESOLUTION_M,
    Opening,
    World,
    grid_shape,
)

_PIXELS_PER_M = 40
_MARGIN_M = 0.42
"""From the edge of a path to the nearest obstacle."""


def generate(seed: int) -> World:
    """The world of a seed; see `world.make_world`."""
    rng = np.random.default_rng([seed, 3])
    builder = SceneBuilder()
    nodes, edges, bounds = _path_net(rng)
    curves = [_curve(rng, nodes[a], nodes[b]) for a, b in edges]
    widths = rng.uniform(1.3, 2.1, len(edges))
    _ground(rng, builder, bounds, nodes, curves, widths)
    paths = _path_grid(bounds, curves, widths)
    distance = cv2.distanceTransform((~paths).astype(np.uint8), cv2.DIST_L2, 5) * RESOLUTION_M
    _fence(rng, builder, bounds)
    _Planting(rng, builder, bounds, distance).fill(curves, widths)
    openings = []
    for index, (curve, width, (a, b)) in enumerate(zip(curves, widths, edges, strict=True)):
        middle = len(curve) // 2
        along = curve[middle + 1] - curve[middle - 1]
        openings.append(
            Opening(
                index,
                "path",
                (float(curve[middle, 0]), float(curve[middle, 1])),
                math.atan2(along[1], along[0]),
                float(width),
                (a, b),
            )
        )
    builder.texture(textures.sky_faces(np.random.default_rng([seed, 4])), cube=True)
    light_rng = np.random.default_rng([seed, 5])
    yaw = light_rng.uniform(-math.pi, math.pi)
    light = (
        light_rng.uniform(0.38, 0.5),
        light_rng.uniform(0.05, 0.15),
        (math.cos(yaw), math.sin(yaw), -light_rng.uniform(0.7, 1.5)),
        light_rng.uniform(0.45, 0.7),
    )
    return World(
        "outdoor",
        seed,
        (),
        bounds,
        tuple(builder.geoms),
        tuple(builder.asset_xml),
        builder.files,
        tuple(builder.footprints),
        np.empty((0, 4)),
        tuple(openings),
        paths,
        light,
    )


def _path_net(
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], list[tuple[int, int]], tuple[float, float, float, float]]:
    """Crossings on a jittered lattice, and connected edges with loops between them."""
    columns, rows = int(rng.integers(3, 5)), 3
    step = rng.uniform(5.6, 6.8)
    bounds = (0.0, 0.0, round((columns - 1) * step + 5.0, 1), round((rows - 1) * step + 5.0, 1))
    nodes = np.array(
        [(2.5 + i * step, 2.5 + j * step) for i in range(columns) for j in range(rows)]
    )
    nodes += rng.uniform(-0.9, 0.9, nodes.shape)
    edges = []
    for i in range(columns):
        for j in range(rows):
            n = i * rows + j
            if i + 1 < columns:
                edges.append((n, n + rows))
            if j + 1 < rows:
                edges.append((n, n + 1))
    for index in rng.permutation(len(edges))[: len(edges) // 3]:
        rest = [e for k, e in enumerate(edges) if k != index and e is not None]
        if _connected(rest, len(nodes)):
            edges[index] = None  # type: ignore[call-overload]
    return nodes, [e for e in edges if e is not None], bounds


def _connected(edges: list[tuple[int, int]], count: int) -> bool:
    seen, queue = {0}, [0]
    while queue:
        node = queue.pop()
        for a, b in edges:
            if node in (a, b):
                other = b if node == a else a
                if other not in seen:
                    seen.add(other)
                    queue.append(other)
    return len(seen) == count


def _curve(
    rng: np.random.Generator, start: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A bent line between two crossings, (33, 2)."""
    across = np.array([start[1] - end[1], end[0] - start[0]])
    bends = rng.uniform(-0.16, 0.16, 2)
    t = np.linspace(0, 1, 33)[:, None]
    p1 = start + (end - start) / 3 + bends[0] * across
    p2 = start + (end - start) * 2 / 3 + bends[1] * across
    return np.asarray(
        (1 - t) ** 3 * start + 3 * t * (1 - t) ** 2 * p1 + 3 * t**2 * (1 - t) * p2 + t**3 * end
    )


def _path_grid(
    bounds: tuple[float, float, float, float],
    curves: list[NDArray[np.float64]],
    widths: NDArray[np.float64],
) -> NDArray[np.bool_]:
    grid = np.zeros(grid_shape(bounds), dtype=np.uint8)
    for curve, width in zip(curves, widths, strict=True):
        pixels = np.round(curve / RESOLUTION_M - 0.5).astype(np.int32)
        cv2.polylines(grid, [pixels], False, 1, max(1, round(width / RESOLUTION_M)))
    return grid.astype(bool)


def _ground(
    rng: np.random.Generator,
    builder: SceneBuilder,
    bounds: tuple[float, float, float, float],
    nodes: NDArray[np.float64],
    curves: list[NDArray[np.float64]],
    widths: NDArray[np.float64],
) -> None:
    """One picture for all of the ground: meadow with paths of different surfaces."""
    w, h = round(bounds[2] * _PIXELS_PER_M), round(bounds[3] * _PIXELS_PER_M)
    base = np.array((rng.uniform(0.2, 0.42), rng.uniform(0.38, 0.6), rng.uniform(0.12, 0.28)))
    rough = cv2.resize(rng.uniform(-0.5, 0.5, (9, 12)), (w, h), interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(rng.uniform(-0.5, 0.5, (h // 6, w // 6)), (w, h))
    picture = (base * (1 + 0.5 * rough[..., None] + 0.35 * fine[..., None])).astype(np.float32)

    def pixels(points: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.round(
            np.column_stack([points[:, 0] * _PIXELS_PER_M, h - points[:, 1] * _PIXELS_PER_M])
        ).astype(np.int32)

    for _ in range(60):
        spot = tuple(int(v) for v in pixels(rng.uniform(0, 1, (1, 2)) * bounds[2:])[0])
        tint = textures.colour(rng, (0.2, 0.9), (0.3, 0.9))
        for _ in range(int(rng.integers(3, 14))):
            near = (spot[0] + int(rng.integers(-30, 30)), spot[1] + int(rng.integers(-30, 30)))
            cv2.circle(picture, near, int(rng.integers(1, 4)), tint, -1)
    palette = [
        textures.colour(rng, s, v)
        for s, v in (
            ((0.1, 0.3), (0.65, 0.85)),
            ((0.0, 0.1), (0.3, 0.5)),
            ((0.3, 0.6), (0.45, 0.7)),
            ((0.2, 0.5), (0.5, 0.8)),
        )
    ]
    for curve, width in zip(curves, widths, strict=True):
        surface = palette[int(rng.integers(4))]
        line, thick = [pixels(curve)], round(width * _PIXELS_PER_M)
        edge = tuple(0.6 * c for c in surface)
        cv2.polylines(picture, line, False, edge, thick + 8)
        cv2.polylines(picture, line, False, surface, thick)
        kind = rng.integers(4)
        if kind == 0:
            cv2.polylines(picture, line, False, (0.9, 0.9, 0.85), 4)
        elif kind == 1:
            for point, following in zip(curve[::2], curve[1::2], strict=False):
                across = (following - point)[::-1] * [-1, 1]
                across *= 0.5 * width / np.linalg.norm(across)
                ends = pixels(np.array([point - across, point + across]))
                cv2.line(picture, ends[0].tolist(), ends[1].tolist(), edge, 3)
    for node in nodes:
        centre = pixels(node[None])[0].tolist()
        cv2.circle(picture, centre, round(1.1 * _PIXELS_PER_M), palette[int(rng.integers(4))], -1)
        ring = textures.colour(rng, (0.3, 0.9), (0.3, 0.9))
        cv2.circle(picture, centre, round(rng.uniform(0.3, 0.9) * _PIXELS_PER_M), ring, 5)
    picture *= 1 + 0.12 * rng.standard_normal((h, w, 1)).astype(np.float32)
    image = np.clip(picture * 255, 0, 255).astype(np.uint8)
    builder.flat(0.0, 0.0, bounds[2], bounds[3], -0.01, builder.material(image))


def _fence(
    rng: np.random.Generator,
    builder: SceneBuilder,
    bounds: tuple[float, float, float, float],
) -> None:
    """Hedges, walls and boards around the whole place, in pieces that differ."""
    _, _, x1, y1 = bounds
    for side, length in enumerate((y1, y1, x1, x1)):
        n = max(2, round(length / 3.2))
        for k in range(n):
            half = length / n / 2
            at = (2 * k + 1) * half
            high = rng.uniform(0.5, 1.2)
            x, y = ((x1 - 0.15, at), (0.15, at), (at, y1 - 0.15), (at, 0.15))[side]
            facing = (math.pi, 0.0, -math.pi / 2, math.pi / 2)[side]
            kind = rng.integers(4)
            if kind == 0:
                green = (rng.uniform(0.1, 0.35), rng.uniform(0.3, 0.6), 0.15)
                image = textures.foliage(rng, green)
            elif kind == 1:
                image = textures.bricks(rng, textures.colour(rng, (0.2, 0.6), (0.4, 0.8)))
            elif kind == 2:
                image = textures.panels(rng, textures.colour(rng, (0.2, 0.8), (0.3, 0.9)))
            else:
                image = textures.stripes(rng, textures.colour(rng, (0.1, 0.7), (0.4, 0.95)))
            look = builder.material(image)
            builder.panel((x, y, high), facing, half, high, 0.12, look)


class _Planting:
    """Puts things where no path runs and nothing else stands."""

    def __init__(
        self,
        rng: np.random.Generator,
        builder: SceneBuilder,
        bounds: tuple[float, float, float, float],
        distance_m: NDArray[np.float32],
    ) -> None:
        self._rng, self._builder, self._bounds = rng, builder, bounds
        self._distance_m = distance_m
        self._taken: list[tuple[float, float, float]] = []
        greens = rng.uniform([0.1, 0.3, 0.05], [0.4, 0.6, 0.25], (4, 3))
        autumn = [textures.colour(rng, (0.4, 0.8), (0.4, 0.85)) for _ in range(3)]
        tints = [(float(r), float(g), float(b)) for r, g, b in greens] + autumn
        self._leaves = [builder.material(textures.foliage(rng, tint)) for tint in tints]
        self._barks = [
            builder.material(textures.bark(rng, textures.colour(rng, (0.1, 0.5), (0.2, 0.6))))
            for _ in range(3)
        ]
        self._stones = [
            builder.material(textures.stone(rng, textures.colour(rng, (0.0, 0.25), (0.35, 0.75))))
            for _ in range(3)
        ]

    def _free(self, x: float, y: float, radius: float) -> bool:
        x1, y1 = self._bounds[2:]
        if not (radius + 0.4 < x < x1 - radius - 0.4 and radius + 0.4 < y < y1 - radius - 0.4):
            return False
        row, column = int(y / RESOLUTION_M), int(x / RESOLUTION_M)
        if self._distance_m[row, column] < radius + _MARGIN_M:
            return False
        return all(math.hypot(x - a, y - b) > radius + r for a, b, r in self._taken)

    def _spot(self, radius: float, near_path: bool = False) -> tuple[float, float] | None:
        for _ in range(30):
            x, y = self._rng.uniform(0, 1, 2) * self._bounds[2:]
            if self._free(x, y, radius):
                row, column = int(y / RESOLUTION_M), int(x / RESOLUTION_M)
                if near_path and self._distance_m[row, column] > radius + 1.2:
                    continue
                self._taken.append((x, y, radius))
                return float(x), float(y)
        return None

    def fill(self, curves: list[NDArray[np.float64]], widths: NDArray[np.float64]) -> None:
        """Houses first, then hedges along the paths, then the small things."""
        rng = self._rng
        for _ in range(40):
            if (spot := self._spot(rng.uniform(1.0, 2.1))) is not None:
                self._house(*spot, self._taken[-1][2])
        for curve, width in zip(curves, widths, strict=True):
            if rng.random() < 0.5:
                self._hedge(curve, width, 1 if rng.random() < 0.5 else -1)
        for act, radius, count, near in (
            (self._tree, 0.45, 26, False),
            (self._bench, 0.45, 8, True),
            (self._post, 0.2, 14, True),
            (self._rock, 0.4, 14, False),
            (self._bush, 0.4, 18, False),
            (self._car, 0.95, 2, True),
            (self._tree, 0.4, 14, True),
        ):
            for _ in range(count):
                if (spot := self._spot(radius, near)) is not None:
                    act(*spot)

    def _house(self, x: float, y: float, radius: float) -> None:
        rng, b = self._rng, self._builder
        aspect = rng.uniform(0.55, 1.0)
        half_x = radius * math.cos(math.atan(aspect))
        half_y, half_h = half_x * aspect, rng.uniform(1.0, 2.2)
        yaw = rng.uniform(-0.5, 0.5)
        base = textures.colour(rng, (0.05, 0.7), (0.45, 0.95))
        b.box((x, y, half_h), (half_x, half_y, half_h), b.material(textures.facade(rng, base)), yaw)
        roof = textures.colour(rng, (0.2, 0.8), (0.2, 0.6))
        top = (half_x + 0.12, half_y + 0.12, 0.1)
        b.box((x, y, 2 * half_h + 0.1), top, roof, yaw, solid=False)

    def _hedge(self, curve: NDArray[np.float64], width: float, sign: int) -> None:
        rng = self._rng
        look = self._leaves[int(rng.integers(len(self._leaves)))]
        half_h = rng.uniform(0.3, 0.8)
        for k in range(6, 26, 4):
            a, b = curve[k], curve[k + 4]
            along = b - a
            length = float(np.linalg.norm(along))
            offset = sign * (width / 2 + _MARGIN_M + 0.2)
            x, y = (a + b) / 2 + offset * np.array([-along[1], along[0]]) / length
            if self._free(x, y, 0.18):
                self._taken.append((x, y, length / 2))
                self._builder.box(
                    (x, y, half_h),
                    (length / 2 - 0.05, 0.18, half_h),
                    look,
                    math.atan2(along[1], along[0]),
                )

    def _tree(self, x: float, y: float) -> None:
        rng, b = self._rng, self._builder
        trunk = rng.uniform(0.08, 0.2)
        tall = rng.uniform(0.9, 1.5)
        b.round("cylinder", (x, y, tall), (trunk, tall), self._barks[int(rng.integers(3))])
        look = self._leaves[int(rng.integers(len(self._leaves)))]
        if rng.random() < 0.3:
            for k in range(3):
                size = (0.9 - 0.22 * k) * rng.uniform(0.8, 1.1)
                z = 2 * tall - 0.6 + 0.7 * k
                b.round("ellipsoid", (x, y, z), (size, size, 0.5), look, solid=False)
        else:
            for _ in range(int(rng.integers(1, 4))):
                dx, dy, dz = rng.uniform(-0.4, 0.4, 3)
                size = rng.uniform(0.5, 1.0)
                centre = (x + dx, y + dy, 2 * tall + dz + 0.4)
                b.round("ellipsoid", centre, (size, size, size * 0.8), look, solid=False)

    def _bush(self, x: float, y: float) -> None:
        rng = self._rng
        look = self._leaves[int(rng.integers(len(self._leaves)))]
        r, h = rng.uniform(0.22, 0.4), rng.uniform(0.2, 0.6)
        self._builder.round("ellipsoid", (x, y, h * 0.9), (r, r, h), look)

    def _rock(self, x: float, y: float) -> None:
        rng = self._rng
        a, c, h = rng.uniform(0.15, 0.4, 3)
        look = self._stones[int(rng.integers(3))]
        self._builder.round("ellipsoid", (x, y, h * 0.6), (a, c, h), look)

    def _bench(self, x: float, y: float) -> None:
        rng, b = self._rng, self._builder
        yaw = rng.uniform(-math.pi, math.pi)
        look = b.material(textures.wood(rng, textures.colour(rng, (0.3, 0.9), (0.3, 0.9))))
        b.box((x, y, 0.22), (0.16, 0.42, 0.22), look, yaw)
        back = (x - 0.16 * math.cos(yaw), y - 0.16 * math.sin(yaw), 0.6)
        b.box(back, (0.03, 0.42, 0.22), look, yaw, solid=False)

    def _post(self, x: float, y: float) -> None:
        """A lamp, a sign or a bin."""
        rng, b = self._rng, self._builder
        kind = rng.integers(3)
        tint = textures.colour(rng, (0.1, 0.9), (0.2, 0.9))
        if kind == 0:
            b.round("cylinder", (x, y, 1.2), (0.04, 1.2), tint)
            b.round("ellipsoid", (x, y, 2.4), (0.16, 0.16, 0.16), (1.0, 1.0, 0.85), solid=False)
        elif kind == 1:
            yaw, z = rng.uniform(-math.pi, math.pi), rng.uniform(0.7, 1.3)
            b.round("cylinder", (x, y, z / 2), (0.04, z / 2), tint)
            board = textures.poster(rng) if rng.random() < 0.5 else textures.sign(rng)
            b.panel((x, y, z), yaw, 0.32, 0.26, 0.03, b.material(board), solid=False)
        else:
            b.round("cylinder", (x, y, 0.4), (0.2, 0.4), tint)

    def _car(self, x: float, y: float) -> None:
        rng, b = self._rng, self._builder
        yaw = rng.uniform(-math.pi, math.pi)
        paint = textures.colour(rng, (0.3, 1.0), (0.3, 0.95))
        b.box((x, y, 0.35), (0.85, 0.4, 0.22), paint, yaw)
        b.box((x, y, 0.68), (0.45, 0.36, 0.16), (0.15, 0.2, 0.25), yaw, solid=False)
