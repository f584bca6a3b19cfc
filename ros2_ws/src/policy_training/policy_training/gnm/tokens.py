"""What ViNT and NoMaD do with one token per image: positions and attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PositionalEncoding(nn.Module):
    """Adds the sinusoidal position of each token (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, tokens: int, size: int) -> None:
        super().__init__()
        position = torch.arange(tokens, dtype=torch.float32)[:, None]
        rate = torch.exp(torch.arange(0, size, 2) * (-math.log(10000.0) / size))
        encoding = torch.zeros(1, tokens, size)
        encoding[0, :, 0::2] = torch.sin(position * rate)
        encoding[0, :, 1::2] = torch.cos(position * rate)
        self.pos_enc = nn.Buffer(encoding)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) → (B, N, D)."""
        return tokens + self.pos_enc


def attention(size: int, heads: int, layers: int, feedforward_factor: int) -> nn.TransformerEncoder:
    """Pre-norm self-attention layers with GELU, without a norm at the end."""
    layer = nn.TransformerEncoderLayer(
        d_model=size,
        nhead=heads,
        dim_feedforward=feedforward_factor * size,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    return nn.TransformerEncoder(layer, num_layers=layers, enable_nested_tensor=False)
