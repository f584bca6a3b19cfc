"""Render a scene to a PNG: ``python -m robot_sim.render --task NAME --seed N --out FILE``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_sim.demonstrator import Demonstrator
from robot_sim.environment import WidowXKitchenEnv
from robot_sim.tasks import TASKS

_OVERVIEW_SIZE = (1280, 800)
_SUPERSAMPLING = 2


def overview(env: WidowXKitchenEnv, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The whole robot and kitchen from the side, with shadows, uint8 (height, width, 3) RGB."""
    width, height = size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING
    model = env.kitchen.model
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    model.vis.quality.shadowsize = 4096
    model.light("ceiling").castshadow[:] = True
    model.geom("floor").rgba[3] = 0.0
    view = mujoco.MjvCamera()
    view.lookat[:] = (0.21, 0.0, 0.10)
    view.distance, view.azimuth, view.elevation = 1.14, 145.0, -26.0
    with mujoco.Renderer(model, height, width) as renderer:
        renderer.update_scene(env.kitchen.data, view)
        picture = renderer.render()
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="robot_sim.render", description=__doc__)
    parser.add_argument("--task", default="put_red_cube_in_pot", choices=list(TASKS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0, help="let the demonstrator run this long")
    parser.add_argument(
        "--view",
        choices=("camera", "policy", "overview"),
        default="camera",
        help="camera: 640x480; policy: the 128x128 that a policy sees; overview: the whole robot",
    )
    parser.add_argument("--out", type=Path, default=Path("kitchen.png"))
    options = parser.parse_args(arguments)
    if options.seed < 0 or options.steps < 0:
        parser.error("expected --seed and --steps of at least 0")
    env = WidowXKitchenEnv(task=options.task, observation_delay_s=(0.0, 0.0))
    observation, _ = env.reset(seed=options.seed)
    expert = Demonstrator(env.task, env.kitchen, env.arm)
    for _ in range(options.steps):
        observation, *_ = env.step(expert.action())
    if options.view == "overview":
        image = overview(env, _OVERVIEW_SIZE)
    else:
        image = observation["image"] if options.view == "policy" else env.render()
    env.close()
    try:
        written = cv2.imwrite(str(options.out), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        written = False
    if not written:
        print(f"cannot write {options.out}: expected a writable path that ends in .png")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
