"""ViNT: a token per image, attention over them, distance and waypoints.

Shah et al., "ViNT: A Foundation Model for Visual Navigation" (2023). Parameters have the names and
shapes of the published weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from policy_training.gnm.efficientnet import EfficientNetB0, compression
from policy_training.gnm.networks import waypoints_from_output
from policy_training.gnm.tokens import PositionalEncoding, attention

_HEAD_WIDTHS = (256, 128, 64, 32)


@dataclass(frozen=True)
class VintConfig:
    """Layout of a ViNT; the defaults are those of the published weights.

    Attributes:
        context_size: Past images beside the current one.
        horizon: Waypoints, 1/4 s apart.
        token_size, heads, layers, feedforward_factor: Of the attention.
        learn_angle: Whether waypoints have a heading.
        late_fusion: The goal is encoded alone, so that its token can be kept; otherwise together
            with the current image.
        image_size: (width, height) of the input in pixels.
    """

    context_size: int = 5
    horizon: int = 5
    token_size: int = 512
    heads: int = 4
    layers: int = 4
    feedforward_factor: int = 4
    learn_angle: bool = True
    late_fusion: bool = False
    image_size: tuple[int, int] = (85, 64)

    @property
    def frames(self) -> int:
        """Images in an observation."""
        return self.context_size + 1

    @property
    def waypoint_size(self) -> int:
        """Numbers per waypoint: x, y and, with heading, cos and sin of the yaw."""
        return 4 if self.learn_angle else 2


class Vint(nn.Module):
    """The network. Images are normalised float32, channels first."""

    def __init__(self, config: VintConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VintConfig()
        self.obs_encoder = EfficientNetB0(3)
        self.goal_encoder = EfficientNetB0(3 if config.late_fusion else 6)
        self.compress_obs_enc = compression(config.token_size)
        self.compress_goal_enc = compression(config.token_size)
        self.decoder = _Decoder(config)
        self.dist_predictor = nn.Sequential(nn.Linear(_HEAD_WIDTHS[-1], 1))
        outputs = config.horizon * config.waypoint_size
        self.action_predictor = nn.Sequential(nn.Linear(_HEAD_WIDTHS[-1], outputs))

    def forward(self, observation: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Distance and waypoints, for one goal per observation.

        Args:
            observation: (B, frames, 3, H, W), oldest first.
            goal: (B, 3, H, W).

        Returns:
            Distance (B, 1) in steps; waypoints (B, T, 4): x forward, y left in units of the
            robot's waypoint spacing, cos, sin of the yaw, all relative to the current pose.
        """
        batch, frames = observation.shape[:2]
        tokens = self.encode_frames(observation.flatten(0, 1)).reshape(batch, frames, -1)
        return self.match(tokens, self.encode_goals(observation[:, -1], goal))

    def encode_frames(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) → tokens (N, D), each of one image only."""
        return self.compress_obs_enc(self.obs_encoder(images))

    def encode_goals(self, current: Tensor, goals: Tensor) -> Tensor:
        """Goal tokens (K, D); `current` (1 or K, 3, H, W) is not used with late fusion."""
        if not self.config.late_fusion:
            goals = torch.cat([current.expand(goals.shape[0], -1, -1, -1), goals], dim=1)
        return self.compress_goal_enc(self.goal_encoder(goals))

    def match(self, frame_tokens: Tensor, goal_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(1 or K, frames, D) and (K, D) → distances (K, 1), waypoints (K, T, 4 or 2)."""
        frame_tokens = frame_tokens.expand(goal_tokens.shape[0], -1, -1)
        decoded = self.decoder(torch.cat([frame_tokens, goal_tokens[:, None]], dim=1))
        output = self.action_predictor(decoded)
        config = self.config
        waypoints = waypoints_from_output(output, config.horizon, config.learn_angle)
        return self.dist_predictor(decoded), waypoints


class _Decoder(nn.Module):
    def __init__(self, config: VintConfig) -> None:
        super().__init__()
        tokens = config.frames + 1
        self.positional_encoding = PositionalEncoding(tokens, config.token_size)
        self.sa_decoder = attention(
            config.token_size, config.heads, config.layers, config.feedforward_factor
        )
        widths = (tokens * config.token_size, config.token_size, *_HEAD_WIDTHS)
        self.output_layers = nn.ModuleList(nn.Linear(width, out) for width, out in pairwise(widths))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.sa_decoder(self.positional_encoding(tokens)).flatten(1)
        for layer in self.output_layers:
            x = torch.relu(layer(x))
        return x
