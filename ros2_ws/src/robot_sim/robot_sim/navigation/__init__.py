"""Mobile robots in procedurally generated places: worlds, bodies, routes and an expert driver."""

from robot_sim.navigation.base_simulation import BaseSimulation
from robot_sim.navigation.world import (
    FIRST_TEST_SEED,
    KINDS,
    Opening,
    World,
    WorldError,
    make_world,
)

__all__ = [
    "FIRST_TEST_SEED",
    "KINDS",
    "BaseSimulation",
    "Opening",
    "World",
    "WorldError",
    "make_world",
]
