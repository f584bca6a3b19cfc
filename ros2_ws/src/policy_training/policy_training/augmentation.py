"""Random shift and colour jitter on batches of uint8 images (PTR's augmentation)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from policy_training.config import AugmentationOptions

_GREY = (0.299, 0.587, 0.114)
_YIQ = (_GREY, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


def augment(images: Tensor, options: AugmentationOptions, generator: torch.Generator) -> Tensor:
    """Shift and recolour every image independently.

    Args:
        images: uint8 (B, H, W, 3).
        options: Strengths; zero switches a change off.
        generator: Source of randomness.

    Returns:
        uint8 (B, H, W, 3).
    """
    if options.shift_px > 0:
        images = random_shift(images, options.shift_px, generator)
    if options.colour_probability > 0.0:
        images = colour_jitter(images, options, generator)
    return images


def random_shift(images: Tensor, shift_px: int, generator: torch.Generator) -> Tensor:
    """Shift by up to `shift_px` in both axes, repeating the edge (pad and crop).

    Args:
        images: uint8 (B, H, W, 3).
        shift_px: Largest shift in pixels.
        generator: Source of randomness.

    Returns:
        uint8 (B, H, W, 3).
    """
    batch, height, width, _ = images.shape
    offsets = torch.randint(-shift_px, shift_px + 1, (2, batch, 1), generator=generator)
    rows = (torch.arange(height) + offsets[0]).clamp(0, height - 1)
    columns = (torch.arange(width) + offsets[1]).clamp(0, width - 1)
    return images[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]


def colour_jitter(
    images: Tensor, options: AugmentationOptions, generator: torch.Generator
) -> Tensor:
    """Brightness, contrast, saturation and hue in random order, requantised.

    Each change is affine in RGB (hue is a rotation in YIQ), so the four are composed into one
    3x4 matrix per image and applied once; values are clipped once, at the end.

    Args:
        images: uint8 (B, H, W, 3).
        options: Strengths and probability.
        generator: Source of randomness.

    Returns:
        uint8 (B, H, W, 3).
    """
    batch = images.shape[0]
    pixels = images.reshape(batch, -1, 3).float()
    grey = torch.tensor(_GREY)
    mean = pixels.mean(dim=1)
    matrix = torch.eye(3).repeat(batch, 1, 1)
    offset = torch.zeros(batch, 3)

    def strength(limit: float) -> Tensor:
        return (torch.rand(batch, generator=generator) * 2.0 - 1.0) * limit

    factors = [
        1.0 + strength(options.brightness),
        1.0 + strength(options.contrast),
        1.0 + strength(options.saturation),
        strength(options.hue) * 2.0 * math.pi,
    ]
    order = torch.rand(batch, 4, generator=generator).argsort(dim=1)
    to_yiq = torch.tensor(_YIQ)
    from_yiq = torch.linalg.inv(to_yiq)
    eye = torch.eye(3)
    for position in range(4):
        change = torch.zeros(batch, 3, 3)
        move = torch.zeros(batch, 3)
        for kind, factor in enumerate(factors):
            chosen = order[:, position] == kind
            scale = factor[chosen][:, None, None]
            if kind == 0:
                change[chosen] = scale * eye
            elif kind == 1:
                change[chosen] = scale * eye
                current = (matrix[chosen] @ mean[chosen][:, :, None])[:, :, 0] + offset[chosen]
                move[chosen] = (1.0 - scale[:, :, 0]) * (current @ grey)[:, None]
            elif kind == 2:
                change[chosen] = scale * eye + (1.0 - scale) * grey.expand(3, 3)
            else:
                rotation = torch.eye(3).repeat(len(scale), 1, 1)
                angle = factor[chosen]
                rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
                rotation[:, 1, 2] = -angle.sin()
                rotation[:, 2, 1] = angle.sin()
                change[chosen] = from_yiq @ rotation @ to_yiq
        matrix = change @ matrix
        offset = (change @ offset[:, :, None])[:, :, 0] + move
    untouched = torch.rand(batch, generator=generator) >= options.colour_probability
    matrix[untouched] = eye
    offset[untouched] = 0.0
    changed = torch.baddbmm(offset[:, None, :], pixels, matrix.transpose(1, 2))
    return changed.round_().clamp_(0.0, 255.0).to(torch.uint8).reshape(images.shape)
