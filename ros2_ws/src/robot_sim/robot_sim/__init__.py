"""MuJoCo toy kitchen with a WidowX 250: environment, tasks, demonstrator, ROS node."""

import gymnasium

ENVIRONMENT_ID = "coxswain/WidowXKitchen-v0"

if ENVIRONMENT_ID not in gymnasium.registry:
    gymnasium.register(
        id=ENVIRONMENT_ID,
        entry_point="robot_sim.environment:WidowXKitchenEnv",
        max_episode_steps=50,
    )
