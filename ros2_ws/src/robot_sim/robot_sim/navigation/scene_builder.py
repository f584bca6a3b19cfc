"""Collects the parts of a world: MuJoCo geoms, textures, and the footprints of obstacles."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_sim.navigation.textures import Colour, Image

Point = tuple[float, float]
Polygon = NDArray[np.float64]
"""(n, 2) corners in the world's plane [m]."""


def _numbers(*values: float) -> str:
    return " ".join(f"{v:.4f}" for v in values)


class SceneBuilder:
    """Grows the MJCF of a world. Angles in rad, lengths in m, x east, y north, z up."""

    def __init__(self, first_texture: int = 0) -> None:
        """Start empty; names of textures count from `first_texture`."""
        self._first_texture = first_texture
        self.geoms: list[str] = []
        self.asset_xml: list[str] = []
        self.files: dict[str, bytes] = {}
        self.footprints: list[Polygon] = []
        """Outlines of everything that a robot can bump into."""
        self.screens: list[tuple[float, float, float, float]] = []
        """Lines x, y, x, y in the plane that hide all that is behind them."""

    def texture(self, image: Image, cube: bool = False) -> str:
        """Register an image; returns the texture's name."""
        name = f"t{self._first_texture + len(self.files)}"
        encoded, data = cv2.imencode(
            ".png", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 1]
        )
        assert encoded
        self.files[f"{name}.png"] = data.tobytes()
        kind = 'type="skybox" gridsize="6 1" gridlayout="RLFBUD"' if cube else 'type="2d"'
        self.asset_xml.append(f'<texture name="{name}" {kind} file="{name}.png"/>')
        return name

    def material(
        self, image: Image, tile_m: tuple[float, float] | None = None, emission: float = 0.0
    ) -> str:
        """Register a material that shows an image; returns its name.

        Args:
            image: the picture.
            tile_m: width and height of one copy, for flat panels; None stretches the picture over
                each face of the thing.
            emission: share of light of its own, 0..1.
        """
        texture = self.texture(image)
        # MuJoCo counts uniform repeats per half-size unit, so a tile of T metres is 2 / T.
        repeat = (
            f'texuniform="true" texrepeat="{_numbers(2 / tile_m[0], 2 / tile_m[1])}"'
            if tile_m
            else ""
        )
        self.asset_xml.append(
            f'<material name="m{texture}" texture="{texture}" {repeat} specular="0" '
            f'emission="{emission:.2f}"/>'
        )
        return f"m{texture}"

    def _look(self, look: str | Colour) -> str:
        if isinstance(look, str):
            return f'material="{look}"'
        return f'rgba="{_numbers(*look)} 1"'

    def _add(self, attributes: str, look: str | Colour, solid: bool) -> None:
        kind = "" if solid else 'class="visual" '
        self.geoms.append(f"<geom {kind}{attributes} {self._look(look)}/>")

    def box(
        self,
        centre: tuple[float, float, float],
        half: tuple[float, float, float],
        look: str | Colour,
        yaw: float = 0.0,
        solid: bool = True,
    ) -> None:
        """A box; a solid one is an obstacle."""
        self._add(
            f'type="box" pos="{_numbers(*centre)}" size="{_numbers(*half)}" '
            f'quat="{_numbers(math.cos(yaw / 2), 0, 0, math.sin(yaw / 2))}"',
            look,
            solid,
        )
        if solid:
            self.footprints.append(rectangle(centre[0], centre[1], half[0], half[1], yaw))

    def panel(
        self,
        centre: tuple[float, float, float],
        facing: float,
        half_width: float,
        half_height: float,
        half_depth: float,
        look: str | Colour,
        solid: bool = True,
    ) -> None:
        """An upright slab whose picture is seen from the side that it faces."""
        c, s = math.cos(facing / 2), math.sin(facing / 2)
        self._add(
            f'type="box" pos="{_numbers(*centre)}" '
            f'size="{_numbers(half_width, half_height, half_depth)}" '
            f'quat="{_numbers((c - s) / 2, (c - s) / 2, (c + s) / 2, (c + s) / 2)}"',
            look,
            solid,
        )
        if solid:
            self.footprints.append(
                rectangle(centre[0], centre[1], half_width, half_depth, facing + math.pi / 2)
            )

    def flat(self, x0: float, y0: float, x1: float, y1: float, z: float, look: str) -> None:
        """A thin horizontal slab that nothing touches: floor, ceiling, rug."""
        self.box(
            ((x0 + x1) / 2, (y0 + y1) / 2, z),
            ((x1 - x0) / 2, (y1 - y0) / 2, 0.01),
            look,
            solid=False,
        )

    def round(
        self,
        kind: str,
        centre: tuple[float, float, float],
        size: tuple[float, ...],
        look: str | Colour,
        solid: bool = True,
    ) -> None:
        """A `cylinder` (radius, half height) or `ellipsoid` (three half axes)."""
        self._add(f'type="{kind}" pos="{_numbers(*centre)}" size="{_numbers(*size)}"', look, solid)
        if solid:
            angles = np.linspace(0, 2 * math.pi, 12, endpoint=False)
            second = size[1] if kind == "ellipsoid" else size[0]
            self.footprints.append(
                np.column_stack(
                    [centre[0] + size[0] * np.cos(angles), centre[1] + second * np.sin(angles)]
                )
            )


def rectangle(x: float, y: float, half_x: float, half_y: float, yaw: float) -> Polygon:
    """Corners of a rotated rectangle."""
    c, s = math.cos(yaw), math.sin(yaw)
    corners = np.array([[half_x, half_y], [-half_x, half_y], [-half_x, -half_y], [half_x, -half_y]])
    return np.asarray(corners @ np.array([[c, s], [-s, c]]) + [x, y])
