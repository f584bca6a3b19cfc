"""EfficientNet-B0 image encoder, as ViNT and NoMaD use it.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019),
table 1. Parameters are named as in the `efficientnet_pytorch` package. That package fixes the
padding at construction for 224x224 images and keeps it for other sizes; weights trained with it
need the same padding, so it is part of the layout here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as functional
from torch import Tensor, nn

FEATURES = 1280
"""Length of the encoding of one image."""
_DESIGN_SIZE = 224
_SQUEEZE = 0.25
# repetitions, kernel, stride of the first, expansion, channels out
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM = 32

Norm = Callable[[int], nn.Module]


def batch_norm(channels: int) -> nn.Module:
    """Batch normalisation with EfficientNet's constants."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def group_norm(channels: int) -> nn.Module:
    """Groups of 16 channels, which NoMaD has in place of batch normalisation."""
    return nn.GroupNorm(channels // 16, channels)


def compression(size: int) -> nn.Module:
    """From an encoding to a token of `size`; nothing where the two are as long."""
    return nn.Linear(FEATURES, size) if size != FEATURES else nn.Identity()


class EfficientNetB0(nn.Module):
    """Images (B, in_channels, H, W) to encodings (B, 1280)."""

    def __init__(self, in_channels: int, norm: Norm = batch_norm) -> None:
        super().__init__()
        size = _DESIGN_SIZE
        self._conv_stem = _SameConv2d(in_channels, _STEM, 3, 2, size)
        size = -(-size // 2)
        self._bn0 = norm(_STEM)
        blocks: list[nn.Module] = []
        channels = _STEM
        for repetitions, kernel, first_stride, expansion, out in _STAGES:
            for index in range(repetitions):
                stride = first_stride if index == 0 else 1
                blocks.append(_Block(channels, out, kernel, stride, expansion, size, norm))
                size = -(-size // stride)
                channels = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(channels, FEATURES, 1, bias=False)
        self._bn1 = norm(FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        x = functional.silu(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            x = block(x)
        return functional.silu(self._bn1(self._conv_head(x))).mean((2, 3))


class _SameConv2d(nn.Conv2d):
    """Convolution padded so that `design_size` divided by the stride, rounded up, comes out."""

    def __init__(
        self, channels: int, out: int, kernel: int, stride: int, design_size: int, groups: int = 1
    ) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)
        pad = max((-(-design_size // stride) - 1) * stride + kernel - design_size, 0)
        self._pads = (pad // 2, pad - pad // 2, pad // 2, pad - pad // 2)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(functional.pad(input, self._pads))


class _Block(nn.Module):
    """Mobile inverted bottleneck with squeeze and excitation."""

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        stride: int,
        expansion: int,
        design_size: int,
        norm: Norm,
    ) -> None:
        super().__init__()
        hidden = channels * expansion
        squeezed = max(1, int(channels * _SQUEEZE))
        self._expands = expansion != 1
        if self._expands:
            self._expand_conv = nn.Conv2d(channels, hidden, 1, bias=False)
            self._bn0 = norm(hidden)
        self._depthwise_conv = _SameConv2d(hidden, hidden, kernel, stride, design_size, hidden)
        self._bn1 = norm(hidden)
        self._se_reduce = nn.Conv2d(hidden, squeezed, 1)
        self._se_expand = nn.Conv2d(squeezed, hidden, 1)
        self._project_conv = nn.Conv2d(hidden, out, 1, bias=False)
        self._bn2 = norm(out)
        self._residual = stride == 1 and channels == out

    def forward(self, images: Tensor) -> Tensor:
        x = images
        if self._expands:
            x = functional.silu(self._bn0(self._expand_conv(x)))
        x = functional.silu(self._bn1(self._depthwise_conv(x)))
        gate = functional.silu(self._se_reduce(x.mean((2, 3), keepdim=True)))
        x = self._bn2(self._project_conv(x * self._se_expand(gate).sigmoid()))
        return x + images if self._residual else x
