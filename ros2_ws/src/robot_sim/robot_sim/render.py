"""Render one scene of a task to a PNG: ``python -m robot_sim.render --task NAME --seed N``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2

from robot_sim.environment import WidowXKitchenEnv
from robot_sim.tasks import TASKS


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="robot_sim.render", description=__doc__)
    parser.add_argument("--task", default="put_red_cube_in_pot", choices=list(TASKS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("kitchen.png"))
    parser.add_argument("--policy-view", action="store_true", help="128x128 as the policy sees it")
    options = parser.parse_args(arguments)
    env = WidowXKitchenEnv(task=options.task)
    observation, _ = env.reset(seed=options.seed)
    image = observation["image"] if options.policy_view else env.render()
    env.close()
    if not cv2.imwrite(str(options.out), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        print(f"cannot write {options.out}: expected a writable path that ends in .png")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
