"""GNM: a distance and waypoints to a goal image, from the last images of one camera.

Shah et al., "GNM: A General Navigation Model to Drive Any Robot" (2023). With the default
configuration the parameters have the names, shapes and order of the published weights; narrower
ones have the same structure.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from policy_training.gnm.mobilenet import mobilenet_features
from policy_training.gnm.residual import residual_features

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""Per channel (R, G, B), of images scaled to [0, 1]."""
HEADING_EPS = 1e-12


@dataclass(frozen=True)
class GnmConfig:
    """Layout of a GNM; the defaults are those of the published weights.

    Attributes:
        context_size: Past images beside the current one.
        horizon: Waypoints, 1/4 s apart.
        learn_angle: Whether waypoints have a heading.
        observation_encoding, goal_encoding: Sizes of the two encodings.
        goal_hidden: Width between the goal's two dense layers.
        trunk: Widths of the two dense layers over both encodings.
        width, expansion, last_channels: See `mobilenet_features`.
        residual_channels: Widths of the stages of `residual_features`, which then replaces
            MobileNetV2; empty for MobileNetV2.
        image_size: (width, height) of the input in pixels.
        place_embedding: Size of the unit vector for place retrieval from a separate encoder of a
            single image; 0 for none, as published.
        place_channels: Widths of the stages of that encoder, see `residual_features`.
    """

    context_size: int = 5
    horizon: int = 5
    learn_angle: bool = True
    observation_encoding: int = 1024
    goal_encoding: int = 1024
    goal_hidden: int = 1024
    trunk: tuple[int, int] = (256, 32)
    width: float = 1.0
    expansion: float = 6.0
    last_channels: int = 1280
    residual_channels: tuple[int, ...] = ()
    image_size: tuple[int, int] = (85, 64)
    place_embedding: int = 0
    place_channels: tuple[int, ...] = (16, 32, 64)

    @property
    def frames(self) -> int:
        """Images in an observation."""
        return self.context_size + 1

    @property
    def waypoint_size(self) -> int:
        """Numbers per waypoint: x, y and, with heading, cos and sin of the yaw."""
        return 4 if self.learn_angle else 2


class Gnm(nn.Module):
    """The network.

    Images are normalised float32 (see `normalise`), channels first; frames are concatenated on the
    channel axis, oldest first.
    """

    def __init__(self, config: GnmConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GnmConfig()
        observation_channels = 3 * config.frames
        self.obs_mobilenet = _image_encoder(config, observation_channels)
        self.compress_observation = nn.Sequential(
            nn.Linear(config.last_channels, config.observation_encoding), nn.ReLU()
        )
        self.goal_mobilenet = _image_encoder(config, observation_channels + 3)
        self.compress_goal = nn.Sequential(
            nn.Linear(config.last_channels, config.goal_hidden),
            nn.ReLU(),
            nn.Linear(config.goal_hidden, config.goal_encoding),
            nn.ReLU(),
        )
        self.linear_layers = nn.Sequential(
            nn.Linear(config.observation_encoding + config.goal_encoding, config.trunk[0]),
            nn.ReLU(),
            nn.Linear(config.trunk[0], config.trunk[1]),
            nn.ReLU(),
        )
        self.dist_predictor = nn.Sequential(nn.Linear(config.trunk[1], 1))
        self.action_predictor = nn.Sequential(
            nn.Linear(config.trunk[1], config.horizon * config.waypoint_size)
        )
        if config.place_embedding:
            self.place_encoder = residual_features(
                3, config.place_channels, config.last_channels, config.image_size
            )
            self.place_projection = nn.Linear(config.last_channels, config.place_embedding)

    def forward(self, observation: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Distance and waypoints, for one goal per observation.

        Args:
            observation: (B, 3·frames, H, W).
            goal: (B, 3, H, W).

        Returns:
            Distance (B, 1) in steps; waypoints (B, T, 4): x forward, y left in units of the
            robot's waypoint spacing, cos, sin of the yaw, all relative to the current pose.
        """
        encoding = self.encode_observation(observation)
        return self.match(encoding, self.observation_stem(observation), self.goal_stem(goal))

    def encode_observation(self, observation: Tensor) -> Tensor:
        """(B, 3·frames, H, W) → (B, observation_encoding)."""
        return self.compress_observation(self.obs_mobilenet(observation).mean((2, 3)))

    def observation_stem(self, observation: Tensor) -> Tensor:
        """The observation's share of the goal encoder's first convolution, which is linear.

        It carries the bias, which that convolution has once batch normalisation is folded into it.

        (B, 3·frames, H, W) → (B, S, H', W').
        """
        stem = self._stem
        weight = stem.weight[:, : 3 * self.config.frames]
        return functional.conv2d(observation, weight, stem.bias, stem.stride, stem.padding)

    def goal_stem(self, goal: Tensor) -> Tensor:
        """The goal's share of that convolution: (K, 3, H, W) → (K, S, H', W')."""
        stem = self._stem
        weight = stem.weight[:, 3 * self.config.frames :]
        return functional.conv2d(goal, weight, None, stem.stride, stem.padding)

    def match(
        self, encoding: Tensor, observation_stem: Tensor, goal_stem: Tensor
    ) -> tuple[Tensor, Tensor]:
        """From the parts to distance and waypoints.

        Args:
            encoding: (B, observation_encoding).
            observation_stem: (B, S, H', W').
            goal_stem: (B·K, S, H', W'), K goals for the first observation, then for the next.

        Returns:
            Distance (B·K, 1) and waypoints (B·K, T, 4), see `forward`.
        """
        stem, *blocks = self.goal_mobilenet
        assert isinstance(stem, nn.Sequential)
        observations = encoding.shape[0]
        grouped = goal_stem.unflatten(0, (observations, -1))
        x = (observation_stem[:, None] + grouped).flatten(0, 1)
        x = stem[2](stem[1](x))
        for block in blocks:
            x = block(x)
        goal = self.compress_goal(x.mean((2, 3)))
        encoding = encoding.repeat_interleave(goal.shape[0] // observations, 0)
        trunk = self.linear_layers(torch.cat([encoding, goal], dim=1))
        return self.dist_predictor(trunk), self.waypoints_from(self.action_predictor(trunk))

    def waypoints_from(self, output: Tensor) -> Tensor:
        """The action head's output (B, T·4) as waypoints (B, T, 4), see `forward`."""
        return waypoints_from_output(output, self.config.horizon, self.config.learn_angle)

    def embed(self, image: Tensor) -> Tensor:
        """Place descriptors: (N, 3, H, W) → unit vectors (N, D).

        Without a place encoder, the observation encoding of the image repeated for every frame.
        """
        if self.config.place_embedding:
            vector = self.place_projection(self.place_encoder(image).mean((2, 3)))
        else:
            vector = self.encode_observation(image.repeat(1, self.config.frames, 1, 1))
        return functional.normalize(vector.to(torch.get_default_dtype()), dim=-1, eps=HEADING_EPS)

    @property
    def embedding_size(self) -> int:
        """D of `embed`."""
        return self.config.place_embedding or self.config.observation_encoding

    @property
    def _stem(self) -> nn.Conv2d:
        return first_convolution(self.goal_mobilenet)


def first_convolution(encoder: nn.Sequential) -> nn.Conv2d:
    """The convolution of an image encoder that reads the pictures."""
    stem = encoder[0]
    assert isinstance(stem, nn.Sequential)
    convolution = stem[0]
    assert isinstance(convolution, nn.Conv2d)
    return convolution


def _image_encoder(config: GnmConfig, inputs: int) -> nn.Sequential:
    if config.residual_channels:
        return residual_features(
            inputs, config.residual_channels, config.last_channels, config.image_size
        )
    return mobilenet_features(inputs, config.width, config.expansion, config.last_channels)


def normalise(images: Tensor) -> Tensor:
    """uint8 (..., H, W, 3) → (..., 3, H, W), by mean and spread of each channel.

    Of torch's default floating dtype: float32, unless somebody computes a reference.
    """
    mean = torch.tensor(IMAGE_MEAN, device=images.device)[:, None, None] * 255.0
    scale = 1.0 / (torch.tensor(IMAGE_STD, device=images.device)[:, None, None] * 255.0)
    # Channels first: a factor per image plane is fast, one per element of the last axis is not.
    return (images.movedim(-1, -3).to(mean.dtype) - mean) * scale


def stack_frames(frames: Tensor) -> Tensor:
    """(..., frames, 3, H, W) → (..., 3·frames, H, W)."""
    return frames.flatten(-4, -3)


def waypoints_from_output(output: Tensor, horizon: int, learn_angle: bool = True) -> Tensor:
    """An action head's output as waypoints.

    Args:
        output: (B, T·4), or (B, T·2) without heading: steps x, y and a vector along the heading.
        horizon: T.
        learn_angle: Whether there is a heading.

    Returns:
        (B, T, 4) or (B, T, 2): x, y summed up over the steps; cos, sin of unit length.
    """
    raw = output.reshape(-1, horizon, 4 if learn_angle else 2)
    position = torch.cumsum(raw[..., :2], dim=1)
    if not learn_angle:
        return position
    heading = functional.normalize(raw[..., 2:], dim=-1, eps=HEADING_EPS)
    return torch.cat([position, heading], dim=-1)
