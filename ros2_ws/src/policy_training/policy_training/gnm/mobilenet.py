"""The convolutional part of MobileNetV2, with the parameter names of torchvision's `features`.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), table 2.
Written out here because published navigation weights use these names and nothing else of
torchvision.
"""

from __future__ import annotations

from torch import Tensor, nn

BLOCKS = (
    # channels, repetitions, stride of the first; the first group does not expand
    (16, 1, 1),
    (24, 2, 2),
    (32, 3, 2),
    (64, 4, 2),
    (96, 3, 1),
    (160, 3, 2),
    (320, 1, 1),
)
STEM_CHANNELS = 32
DIVISOR = 8


def scaled_channels(channels: int, width: float) -> int:
    """`channels`·`width`, rounded to a multiple of 8 that is at least 8 and at most 10 % below."""
    scaled = channels * width
    rounded = max(DIVISOR, int(scaled + DIVISOR / 2) // DIVISOR * DIVISOR)
    return rounded + DIVISOR if rounded < 0.9 * scaled else rounded


class ConvNormActivation(nn.Sequential):
    """Convolution without bias (`0`), batch normalisation (`1`), ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(
                inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False
            ),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, linear projection; residual where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: float) -> None:
        super().__init__()
        hidden = round(inputs * expansion)
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(ConvNormActivation(inputs, hidden, 1))
        layers += [
            ConvNormActivation(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H/stride, W/stride)."""
        return x + self.conv(x) if self.residual else self.conv(x)


def mobilenet_features(
    inputs: int,
    width: float = 1.0,
    expansion: float = 6.0,
    last_channels: int = 1280,
) -> nn.Sequential:
    """The layers `0` (stem) to `18` (last 1x1 convolution) of MobileNetV2.

    Args:
        inputs: Input channels.
        width: Multiplier of all channel counts but the last.
        expansion: Factor between a block's input and its hidden channels, from the second on.
        last_channels: Output channels.
    """
    channels = scaled_channels(STEM_CHANNELS, width)
    layers: list[nn.Module] = [ConvNormActivation(inputs, channels, stride=2)]
    for group, (base, count, stride) in enumerate(BLOCKS):
        for index in range(count):
            outputs = scaled_channels(base, width)
            factor = 1.0 if group == 0 else expansion
            layers.append(InvertedResidual(channels, outputs, stride if index == 0 else 1, factor))
            channels = outputs
    layers.append(ConvNormActivation(channels, last_channels, 1))
    return nn.Sequential(*layers)
