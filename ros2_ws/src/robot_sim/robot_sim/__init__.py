"""MuJoCo toy kitchen with a WidowX 250: environment, tasks, demonstrator, ROS node."""

import os

import gymnasium

# Off-screen rendering without a display, unless the user chose another way.
os.environ.setdefault("MUJOCO_GL", "egl")
try:
    import mujoco  # noqa: F401
except (ImportError, AttributeError) as error:
    raise ImportError(
        f"MuJoCo finds no OpenGL for MUJOCO_GL={os.environ['MUJOCO_GL']} ({error}): install "
        "libegl1 and libgl1-mesa-dri, or libosmesa6 and set MUJOCO_GL=osmesa"
    ) from error

ENVIRONMENT_ID = "coxswain/WidowXKitchen-v0"
NAVIGATION_ENVIRONMENT_ID = "coxswain/Navigation-v0"

if ENVIRONMENT_ID not in gymnasium.registry:
    gymnasium.register(
        id=ENVIRONMENT_ID,
        entry_point="robot_sim.environment:WidowXKitchenEnv",
        max_episode_steps=50,
    )
if NAVIGATION_ENVIRONMENT_ID not in gymnasium.registry:
    gymnasium.register(
        id=NAVIGATION_ENVIRONMENT_ID,
        entry_point="robot_sim.navigation.environment:NavigationEnv",
        max_episode_steps=600,
    )
