"""A GNM in three parts, split where work repeats, with what is constant computed beforehand.

The goal encoder reads the context stacked with the goal, so nothing of it can be cached across
ticks. But whatever is linear comes apart, exactly: the context's share in the encoder's first
convolution and in the first layer over both encodings is the same for all goals. Batch
normalisation goes into the weights of the convolutions, and so does that of the images.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from policy_training.gnm.networks import IMAGE_STD, Gnm, first_convolution, normalise


def fold_batch_norm(network: Gnm) -> Gnm:
    """A copy in evaluation mode without batch normalisation, equal up to rounding."""
    folded = copy.deepcopy(network).eval()
    for module in list(folded.modules()):
        if isinstance(module, nn.Sequential):
            _fold_pairs(module)
        elif isinstance(module, nn.ReLU | nn.ReLU6):
            # In place on a part of a tensor, an export scatters the result back into the whole.
            module.inplace = False
    return folded


def _fold_pairs(layers: nn.Sequential) -> None:
    for index in range(len(layers) - 1):
        convolution, norm = layers[index], layers[index + 1]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            weight, bias = fuse_conv_bn_weights(
                convolution.weight,
                convolution.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
                norm.weight,
                norm.bias,
            )
            convolution.weight, convolution.bias = weight, bias
            layers[index + 1] = nn.Identity()


class RawConvolution(nn.Module):
    """The convolution of a stem, on raw pictures instead of normalised ones.

    Normalising is linear, so its factor goes into the weights; its shift is a map of its own,
    which at the border differs: the padding stands for the mean colour, not for black.

    Attributes:
        shift: float32 (1, S, H', W'), what the convolution makes of the shift alone. The caller
            adds it.
    """

    def __init__(
        self, stem: nn.Conv2d, weight: Tensor, pictures: int, image_size: tuple[int, int]
    ) -> None:
        """Take a layer's stride and padding, and its weights for some pictures.

        Args:
            stem: the layer.
            weight: (S, 3·pictures, kernel, kernel), part of its weights.
            pictures: how many are stacked.
            image_size: (width, height) in pixels.
        """
        super().__init__()
        self._stride = (stem.stride[0], stem.stride[1])
        self._padding = stem.padding
        width, height = image_size
        black = normalise(torch.zeros(pictures, height, width, 3, dtype=torch.uint8))
        black = black.flatten(0, 1)[None].to(weight.dtype)
        shift = functional.conv2d(black, weight, None, self._stride, self._padding)
        self.shift = shift.detach()
        scale = torch.tensor(IMAGE_STD).reciprocal().repeat(pictures) / 255.0
        self.weight = nn.Parameter(weight * scale[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, pictures, H, W, 3) → (B, S, H', W'), without the shift."""
        raw = images.permute(0, 1, 4, 2, 3).flatten(1, 2).to(self.weight.dtype)
        return functional.conv2d(raw, self.weight, None, self._stride, self._padding)


class ObserveStage(nn.Module):
    """Context → its encoding, and its share of the goal encoder's first convolution.

    The encoding has gone through its half of the first layer over both encodings.
    """

    def __init__(self, folded: Gnm) -> None:
        super().__init__()
        frames, size = folded.config.frames, folded.config.image_size
        own = first_convolution(folded.obs_mobilenet)
        goal = first_convolution(folded.goal_mobilenet)
        assert own.bias is not None
        assert goal.bias is not None
        # One convolution: both read the same pictures.
        context = torch.cat([own.weight, goal.weight[:, : 3 * frames]])
        self.stems = RawConvolution(own, context, frames, size)
        of_goal = RawConvolution(goal, goal.weight[:, 3 * frames :], 1, size).shift
        shift = self.stems.shift + torch.cat([own.bias, goal.bias])[:, None, None]
        shift[:, own.out_channels :] += of_goal
        self.shift = nn.Parameter(shift)
        self.channels = (own.out_channels, goal.out_channels)
        self.encoder = _after_stem(folded.obs_mobilenet)
        self.compress = folded.compress_observation
        both = _first_joint_layer(folded)
        self.joint = nn.Linear(folded.config.observation_encoding, both.out_features)
        self.joint.weight.data = both.weight[:, : self.joint.in_features]
        self.joint.bias.data = both.bias
        self.requires_grad_(False)

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (frames, H, W, 3) → (1, trunk[0]), (1, S, H', W')."""
        own, goal = (self.stems(context[None]) + self.shift).split(self.channels, dim=1)
        return self.joint(self.compress(self.encoder(own).mean((2, 3)))), goal


class MatchStage(nn.Module):
    """The rest of the goal encoder and the heads, for K goals."""

    def __init__(self, folded: Gnm) -> None:
        super().__init__()
        config = folded.config
        stem = first_convolution(folded.goal_mobilenet)
        self.stem = RawConvolution(stem, stem.weight[:, 3 * config.frames :], 1, config.image_size)
        self.encoder = _after_stem(folded.goal_mobilenet)
        self.compress = folded.compress_goal
        both = _first_joint_layer(folded)
        self.joint = nn.Linear(config.goal_encoding, both.out_features, bias=False)
        self.joint.weight.data = both.weight[:, -self.joint.in_features :]
        self.trunk = folded.linear_layers[1:]
        self.network = folded

    def forward(self, encoding: Tensor, stem: Tensor, goals: Tensor) -> tuple[Tensor, Tensor]:
        """(1, trunk[0]), (1, S, H', W'), uint8 (K, H, W, 3) → distance (K, 1), waypoints (K, T, 4).

        Both observed tensors are those of `ObserveStage`.
        """
        goal = self.compress(self.encoder(self.stem(goals[:, None]) + stem).mean((2, 3)))
        trunk = self.trunk(self.joint(goal) + encoding)
        waypoints = self.network.waypoints_from(self.network.action_predictor(trunk))
        return self.network.dist_predictor(trunk), waypoints


def _after_stem(encoder: nn.Sequential) -> nn.Sequential:
    first = encoder[0]
    assert isinstance(first, nn.Sequential)
    return nn.Sequential(*list(first)[1:], *list(encoder)[1:])


def _first_joint_layer(network: Gnm) -> nn.Linear:
    layer = network.linear_layers[0]
    assert isinstance(layer, nn.Linear)
    return layer


class EmbedStage(nn.Module):
    """Images → place descriptors."""

    def __init__(self, folded: Gnm) -> None:
        super().__init__()
        self.network = folded

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) → unit vectors (N, D)."""
        return self.network.embed(normalise(images))
