"""Procedural images for walls, floors, furniture and the sky, uint8 (height, width, 3) RGB."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
_Float = NDArray[np.float64]
Colour = tuple[float, float, float]
"""Red, green, blue in 0..1."""


def colour(
    rng: np.random.Generator,
    saturation: tuple[float, float] = (0.15, 0.6),
    value: tuple[float, float] = (0.45, 0.95),
) -> Colour:
    """A colour of any hue, with its saturation and value drawn from the given ranges."""
    hue, s, v = rng.uniform(0, 6), rng.uniform(*saturation), rng.uniform(*value)
    k = (np.array([5.0, 3.0, 1.0]) + hue) % 6
    r, g, b = v - v * s * np.clip(np.minimum(k, 4 - k), 0, 1)
    return float(r), float(g), float(b)


def _noise(
    rng: np.random.Generator, height: int, width: int, cells: int, closed: bool = False
) -> _Float:
    """Smooth noise of mean 0 and unit range, `cells` bumps across the width; `closed`: a ring."""
    rows = max(2, round(cells * height / width))
    coarse = rng.uniform(-0.5, 0.5, (rows, max(2, cells)))
    if closed:
        coarse[:, -1] = coarse[:, 0]
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def _finish(picture: _Float) -> Image:
    return np.asarray(np.clip(picture * 255.0, 0, 255), dtype=np.uint8)


def _plain(
    rng: np.random.Generator, base: Colour, size: tuple[int, int], grain: float = 0.06
) -> _Float:
    height, width = size
    picture = np.empty((height, width, 3))
    picture[:] = base
    texture = _noise(rng, height, width, 4) + 0.5 * _noise(rng, height, width, 24)
    picture += grain * texture[..., None]
    picture += rng.normal(0.0, 0.25 * grain, (height, width, 1))
    return picture


def _shade(base: Colour, factor: float) -> Colour:
    r, g, b = (min(1.0, c * factor) for c in base)
    return r, g, b


def painted(rng: np.random.Generator, base: Colour) -> Image:
    """Plaster."""
    return _finish(_plain(rng, base, (128, 128)))


def wainscot(rng: np.random.Generator, base: Colour) -> Image:
    """Two tones with a rail between them, for the whole height of a wall."""
    picture = _plain(rng, base, (128, 128))
    edge = int(rng.uniform(0.5, 0.72) * 128)
    picture[edge:] = _plain(rng, colour(rng, (0.2, 0.8), (0.25, 0.8)), (128 - edge, 128))
    picture[edge - 3 : edge + 1] = colour(rng, (0.0, 0.9), (0.2, 0.9))
    picture[-6:] *= 0.5
    return _finish(picture)


def bricks(rng: np.random.Generator, base: Colour) -> Image:
    """Courses of bricks, each of its own shade."""
    size, rows = 128, int(rng.integers(8, 17))
    columns = max(2, rows // int(rng.integers(2, 4)))
    picture = _plain(rng, _shade(base, rng.uniform(1.2, 1.6)), (size, size))
    h, w = size / rows, size / columns
    for row in range(rows):
        for column in range(-1, columns + 1):
            x0, y0 = (column + 0.5 * (row % 2)) * w + 1, row * h + 1
            xs = slice(max(0, round(x0)), max(0, round(x0 + w - 2)))
            picture[round(y0) : round(y0 + h - 2), xs] = np.array(base) * rng.uniform(0.75, 1.15)
    return _finish(picture + 0.05 * _noise(rng, size, size, 16)[..., None])


def stripes(rng: np.random.Generator, base: Colour) -> Image:
    """Upright wallpaper stripes."""
    picture = _plain(rng, base, (128, 128), 0.03)
    other, n = colour(rng, (0.1, 0.7), (0.3, 0.95)), int(rng.integers(3, 9))
    x = np.arange(128) * n / 128 % 1.0
    picture[:, x < rng.uniform(0.2, 0.6)] = other
    return _finish(picture)


def panels(rng: np.random.Generator, base: Colour) -> Image:
    """Boards or tiles with joints."""
    n, m = int(rng.integers(2, 7)), int(rng.integers(1, 7))
    picture = _plain(rng, base, (128, 128))
    for i in range(n):
        for j in range(m):
            xs = slice(i * 128 // n, (i + 1) * 128 // n)
            picture[j * 128 // m : (j + 1) * 128 // m, xs] *= rng.uniform(0.82, 1.12)
        picture[:, i * 128 // n : i * 128 // n + 2] *= 0.55
    for j in range(m):
        picture[j * 128 // m : j * 128 // m + 2] *= 0.55
    return _finish(picture)


def checker(rng: np.random.Generator, base: Colour) -> Image:
    """Tiles in two colours."""
    n = int(rng.integers(2, 6))
    index = np.arange(128) * n // 128
    picture = _plain(rng, base, (128, 128))
    picture[(index[:, None] + index[None]) % 2 == 0] *= rng.uniform(0.45, 0.8)
    return _finish(picture)


def wood(rng: np.random.Generator, base: Colour) -> Image:
    """Planks with grain."""
    n = int(rng.integers(4, 9))
    grain = cv2.resize(rng.uniform(-0.5, 0.5, (128, 6)), (128, 128))
    picture = _plain(rng, base, (128, 128), 0.03) + 0.14 * grain[..., None]
    for i in range(n):
        rows = slice(i * 128 // n, (i + 1) * 128 // n)
        picture[rows] *= rng.uniform(0.8, 1.15)
        picture[i * 128 // n] *= 0.6
        joint = int(rng.integers(0, 128))
        picture[rows, joint : joint + 1] *= 0.6
    return _finish(picture)


def carpet(rng: np.random.Generator, base: Colour) -> Image:
    """Speckles and soft blotches."""
    picture = _plain(rng, base, (128, 128), 0.12)
    return _finish(picture + rng.normal(0, 0.06, (128, 128, 3)))


WALLS: tuple[Callable[[np.random.Generator, Colour], Image], ...] = (
    painted,
    wainscot,
    wainscot,
    bricks,
    stripes,
    panels,
)
FLOORS: tuple[Callable[[np.random.Generator, Colour], Image], ...] = (
    wood,
    carpet,
    checker,
    panels,
)


def poster(rng: np.random.Generator) -> Image:
    """A picture in a frame: no two alike."""
    picture = _plain(rng, colour(rng, (0.1, 0.9), (0.3, 1.0)), (96, 96), 0.2)
    for _ in range(int(rng.integers(2, 7))):
        tint = colour(rng, (0.2, 1.0), (0.1, 1.0))
        centre = tuple(int(v) for v in rng.integers(0, 96, 2))
        kind, extent = rng.integers(0, 4), int(rng.integers(10, 40))
        if kind == 0:
            cv2.circle(picture, centre, extent, tint, -1)
        elif kind == 1:
            end = (centre[0] + extent, centre[1] + int(rng.integers(10, 50)))
            cv2.rectangle(picture, centre, end, tint, -1)
        elif kind == 2:
            corners = rng.integers(0, 96, (3, 2)).astype(np.int32)
            cv2.fillPoly(picture, [corners], tint)
        else:
            end = (int(rng.integers(0, 96)), int(rng.integers(0, 96)))
            cv2.line(picture, centre, end, tint, int(rng.integers(4, 14)))
    cv2.rectangle(picture, (0, 0), (95, 95), colour(rng, (0.0, 0.6), (0.05, 0.95)), 8)
    return _finish(picture)


def sign(rng: np.random.Generator) -> Image:
    """A plate with a letter and a number."""
    back = colour(rng, (0.3, 1.0), (0.2, 0.7))
    picture = _finish(_plain(rng, back, (96, 96), 0.02))
    text = f"{chr(65 + int(rng.integers(26)))}{int(rng.integers(1, 10))}"
    cv2.putText(picture, text, (8, 68), cv2.FONT_HERSHEY_SIMPLEX, 2.0, (255, 255, 255), 7)
    return picture


def door(rng: np.random.Generator, base: Colour) -> Image:
    """A door's leaf with panels, perhaps a window, and a handle."""
    picture = _plain(rng, base, (128, 64), 0.03)
    dark = _shade(base, 0.6)
    n = int(rng.integers(1, 4))
    for i in range(n):
        top, bottom = 8 + i * 116 // n, 2 + (i + 1) * 116 // n
        cv2.rectangle(picture, (8, top), (55, bottom), dark, 2)
    if rng.random() < 0.4:
        cv2.rectangle(picture, (18, 14), (46, 50), (0.75, 0.85, 0.9), -1)
    cv2.circle(picture, (54, 68), 3, (0.85, 0.8, 0.5), -1)
    return _finish(picture)


def shelf(rng: np.random.Generator, base: Colour) -> Image:
    """The front of a shelf with books and boxes."""
    picture = _plain(rng, _shade(base, 0.35), (128, 128), 0.03)
    rows = int(rng.integers(3, 6))
    for row in range(rows):
        top, bottom = row * 128 // rows + 4, (row + 1) * 128 // rows - 2
        x = 4
        while x < 120:
            width = int(rng.integers(3, 14))
            if rng.random() < 0.85:
                height = int((bottom - top) * rng.uniform(0.5, 1.0))
                tint = colour(rng, (0.2, 0.9), (0.2, 0.95))
                right = min(123, x + width - 1)
                cv2.rectangle(picture, (x, bottom - height), (right, bottom), tint, -1)
            x += width
        picture[bottom : bottom + 3] = base
    picture[:, :4] = base
    picture[:, -4:] = base
    return _finish(picture)


def cabinet(rng: np.random.Generator, base: Colour) -> Image:
    """Doors or drawers of a cupboard."""
    picture = _plain(rng, base, (128, 128), 0.05)
    columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    for i in range(columns):
        for j in range(rows):
            x0, x1 = i * 128 // columns + 3, (i + 1) * 128 // columns - 4
            y0, y1 = j * 128 // rows + 3, (j + 1) * 128 // rows - 4
            cv2.rectangle(picture, (x0, y0), (x1, y1), _shade(base, 0.55), 2)
            cv2.circle(picture, ((x0 + x1) // 2, y0 + 8), 3, (0.1, 0.1, 0.1), -1)
    return _finish(picture)


def screen(rng: np.random.Generator, base: Colour) -> Image:
    """A window with a view, or a display."""
    picture = _plain(rng, (0.95, 0.95, 0.95), (96, 96), 0.02)
    view = np.linspace(1.0, 0.6, 84)[:, None, None] * np.array(colour(rng, (0.2, 0.5), (0.8, 1.0)))
    hill = 40 + 30 * _noise(rng, 2, 84, 5)[0]
    view = np.repeat(view, 84, axis=1)
    view[np.arange(84)[:, None] > hill[None] + rng.uniform(0, 20)] = base
    picture[6:90, 6:90] = view
    picture[46:50] = picture[:, 46:50] = 0.9
    return _finish(picture)


def barrier(rng: np.random.Generator) -> Image:
    """Slanted warning stripes."""
    x, y = np.meshgrid(np.arange(96), np.arange(96))
    picture = np.where((((x + y) // 16) % 2 == 0)[..., None], (0.95, 0.9, 0.9), (0.85, 0.1, 0.05))
    return _finish(picture + rng.normal(0, 0.02, (96, 96, 1)))


def foliage(rng: np.random.Generator, base: Colour) -> Image:
    """Leaves, and blossoms on some plants."""
    picture = _plain(rng, base, (96, 96), 0.35) + rng.normal(0, 0.09, (96, 96, 1))
    if rng.random() < 0.35:
        tint = colour(rng, (0.4, 1.0), (0.7, 1.0))
        for _ in range(40):
            cv2.circle(picture, tuple(int(v) for v in rng.integers(0, 96, 2)), 2, tint, -1)
    return _finish(picture)


def bark(rng: np.random.Generator, base: Colour) -> Image:
    """A trunk's surface."""
    streaks = cv2.resize(rng.uniform(-0.5, 0.5, (4, 24)), (64, 64))
    return _finish(_plain(rng, base, (64, 64), 0.1) + 0.3 * streaks[..., None])


def stone(rng: np.random.Generator, base: Colour) -> Image:
    """Rock."""
    return _finish(_plain(rng, base, (64, 64), 0.3))


def facade(rng: np.random.Generator, base: Colour) -> Image:
    """The front of a house: windows in rows, a door."""
    style = (painted, bricks, panels)[int(rng.integers(3))]
    picture = cv2.resize(style(rng, base), (256, 128)).astype(np.float64) / 255.0
    columns, rows = int(rng.integers(3, 7)), int(rng.integers(1, 4))
    glass, frame = colour(rng, (0.1, 0.5), (0.15, 0.8)), colour(rng, (0.0, 0.8), (0.2, 1.0))
    w, h = 256 // columns, 104 // rows
    for i in range(columns):
        for j in range(rows):
            x0, y0 = i * w + w // 4, 6 + j * h + h // 5
            x1, y1 = x0 + w // 2, y0 + h * 3 // 5
            tint = glass if rng.random() < 0.8 else (0.95, 0.85, 0.5)
            cv2.rectangle(picture, (x0, y0), (x1, y1), tint, -1)
            cv2.rectangle(picture, (x0, y0), (x1, y1), frame, 2)
    x = int(rng.integers(10, 210))
    cv2.rectangle(picture, (x, 70), (x + 24, 127), colour(rng, (0.4, 1.0), (0.2, 0.8)), -1)
    return _finish(picture)


def sky_faces(rng: np.random.Generator) -> Image:
    """Six faces of a sky box in one column, each 128x128: clouds over a skyline of hills.

    The order is that of MuJoCo's ``gridlayout="RLFBUD"``.
    """
    top, low = colour(rng, (0.25, 0.6), (0.7, 1.0)), colour(rng, (0.02, 0.25), (0.85, 1.0))
    blue = (0.35 * top[0], 0.6 * top[1], max(top[2], 0.75))
    n = 128
    ground = colour(rng, (0.2, 0.5), (0.3, 0.5))
    clouds = _noise(rng, n, 4 * n, 14, True) + 0.5 * _noise(rng, n, 4 * n, 36, True)
    ridge = _noise(rng, 2, 4 * n, 18, True)[0]
    skyline = 58 - 34 * np.abs(ridge) - 4 * _noise(rng, 2, 4 * n, 90, True)[0]
    hills = np.array(colour(rng, (0.1, 0.5), (0.3, 0.7)))
    rows = np.linspace(0, 1, n)[:, None, None]
    band = np.array(blue) * (1 - rows) + np.array(low) * rows
    band = np.repeat(band, 4 * n, axis=1)
    cover = np.clip((clouds - rng.uniform(-0.2, 0.3)) * 2.5, 0, 0.9)[..., None]
    band = band * (1 - cover) + 0.97 * cover
    row_index = np.arange(n)[:, None]
    band[row_index > skyline[None]] = hills
    band[n // 2 + 2 :] = ground
    faces = [band[:, i * n : (i + 1) * n] for i in range(4)]
    up, down = np.empty((n, n, 3)), np.empty((n, n, 3))
    up[:], down[:] = blue, ground
    # MuJoCo shows the sides mirrored, so that they follow each other to the left: R, B, L, F.
    right, back, left, front = faces
    return _finish(np.concatenate([right, left, front, back, up, down]))
