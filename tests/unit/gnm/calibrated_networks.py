"""Small GNMs with random weights whose outputs depend on every input."""

from typing import Any

import torch
from policy_training.gnm.networks import Gnm, GnmConfig, normalise, stack_frames

SMALL: dict[str, Any] = {
    "observation_encoding": 24,
    "goal_encoding": 16,
    "goal_hidden": 20,
    "trunk": (32, 16),
    "last_channels": 48,
}
CONFIGS = {
    "mobilenet": GnmConfig(width=0.25, expansion=2.0, **SMALL),
    "residual": GnmConfig(residual_channels=(8, 12, 16), place_embedding=12, **SMALL),
}


def smooth_images(count, seed):
    """Smooth images that differ: of white noise only the mean would reach the heads."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (64, 85), mode="bicubic").clamp(0, 1)
    return (fine * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def calibrated_network(config, seed=0):
    """Random weights whose outputs depend on every input, with uneven batch statistics."""
    torch.manual_seed(seed)
    network = Gnm(config)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.7, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
            module.momentum = 0.5
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight)
    network.train()
    with torch.no_grad():
        for step in range(4):
            frames = normalise(smooth_images(16 * config.frames, 50 + step))
            frames = stack_frames(frames.unflatten(0, (16, config.frames)))
            goals = normalise(smooth_images(16, 90 + step))
            network(frames, goals)
            network.embed(goals)
        network.eval()
        # The same context, other goals.
        distance, waypoints = network(frames[:1].expand(16, -1, -1, -1), goals)
        network.dist_predictor[0].weight.mul_(0.5 / distance.std())
        network.action_predictor[0].weight.mul_(0.5 / waypoints[..., :2].std(0).mean())
    return network
