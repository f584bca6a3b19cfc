"""A small residual image encoder for boards and for training on a CPU.

Depthwise convolutions and large early maps cost a CPU more time than their few multiplications
suggest; this one has dense 3x3 convolutions on maps that shrink at once. The last layer covers the
whole remaining map, so the place of a feature in the image is kept for the geometry behind it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class ConvNorm(nn.Sequential):
    """Convolution without bias (`0`), batch normalisation (`1`), ReLU (`2`)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 3,
        stride: int = 1,
        padding: int = 1,
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and the identity (He et al. 2015)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            ConvNorm(channels, channels),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return functional.relu(x + self.conv(x))


def residual_features(
    inputs: int, channels: Sequence[int], last_channels: int, image_size: tuple[int, int]
) -> nn.Sequential:
    """Stem with stride 4, one residual block per entry of `channels`, and a dense last layer.

    Args:
        inputs: Input channels.
        channels: Width of each stage; every stage but the first halves the map.
        last_channels: Output channels, on a map of 1x1.
        image_size: (width, height) of the input in pixels.
    """
    layers: list[nn.Module] = [ConvNorm(inputs, channels[0], 6, 4, 2), ResidualBlock(channels[0])]
    width, height = ((size - 2) // 4 + 1 for size in image_size)
    for before, after in itertools.pairwise(channels):
        layers += [ConvNorm(before, after, 3, 2), ResidualBlock(after)]
        width, height = (width + 1) // 2, (height + 1) // 2
    layers.append(ConvNorm(channels[-1], last_channels, (height, width), 1, 0))
    return nn.Sequential(*layers)
