"""NoMaD: one network that drives to a goal or explores, waypoints by diffusion.

Sridhar et al., "NoMaD: Goal Masked Diffusion Policies for Navigation and Exploration" (2024);
the noise network is the one-dimensional U-Net of Chi et al., "Diffusion Policy" (2023). Parameters
have the names and shapes of the published weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from policy_training.gnm.efficientnet import EfficientNetB0, compression, group_norm
from policy_training.gnm.tokens import PositionalEncoding, attention


@dataclass(frozen=True)
class NomadConfig:
    """Layout of a NoMaD; the defaults are those of the published weights.

    Attributes:
        context_size: Past images beside the current one.
        horizon: Waypoints, 1/4 s apart.
        token_size, heads, layers, feedforward_factor: Of the attention.
        image_size: (width, height) of the input in pixels.
        noise_widths: Channels of the noise network's levels, multiples of 8; the horizon is a
            multiple of 2 to the power of their number less one.
        denoising_steps: Of the DDPM sampler, in training and at run time.
        delta_low, delta_high: Range of a step (x, y), in units of the waypoint spacing, that the
            diffusion maps to -1..1.
    """

    context_size: int = 3
    horizon: int = 8
    token_size: int = 256
    heads: int = 4
    layers: int = 4
    feedforward_factor: int = 4
    image_size: tuple[int, int] = (96, 96)
    noise_widths: tuple[int, ...] = (64, 128, 256)
    denoising_steps: int = 10
    delta_low: tuple[float, float] = (-2.5, -4.0)
    delta_high: tuple[float, float] = (5.0, 4.0)

    @property
    def frames(self) -> int:
        """Images in an observation."""
        return self.context_size + 1


class Nomad(nn.Module):
    """The networks. Images are normalised float32, channels first."""

    def __init__(self, config: NomadConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NomadConfig()
        self.vision_encoder = _VisionEncoder(config)
        self.noise_pred_net = NoiseNetwork(config.token_size, widths=config.noise_widths)
        self.dist_pred_net = _DistanceNetwork(config.token_size)

    def encode_frames(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) → tokens (N, D), each of one image only."""
        encoder = self.vision_encoder
        return encoder.compress_obs_enc(encoder.obs_encoder(images))

    def encode_goals(self, current: Tensor, goals: Tensor) -> Tensor:
        """Goal tokens (K, D) of `current` (1 or K, 3, H, W) with `goals` (K, 3, H, W)."""
        pairs = torch.cat([current.expand(goals.shape[0], -1, -1, -1), goals], dim=1)
        encoder = self.vision_encoder
        return encoder.compress_goal_enc(encoder.goal_encoder(pairs))

    def match(self, frame_tokens: Tensor, goal_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Distances and contexts for K goals.

        Args:
            frame_tokens: (1 or K, frames, D).
            goal_tokens: (K, D).

        Returns:
            Distances (K, 1) in steps; contexts (K, D) for `noise_pred_net`.
        """
        encoder = self.vision_encoder
        frame_tokens = frame_tokens.expand(goal_tokens.shape[0], -1, -1)
        tokens = torch.cat([frame_tokens, goal_tokens[:, None]], dim=1)
        contexts = encoder.sa_encoder(encoder.positional_encoding(tokens)).mean(1)
        return self.dist_pred_net(contexts), contexts

    def explore(self, frame_tokens: Tensor) -> Tensor:
        """Contexts (B, D) without a goal, from (B, frames, D).

        The published network masks the goal token in attention and leaves it out of the mean:
        without the token the same comes out.
        """
        encoder = self.vision_encoder
        positions = encoder.positional_encoding.pos_enc[:, : self.config.frames]
        return encoder.sa_encoder(frame_tokens + positions).mean(1)


class Sampler(nn.Module):
    """Waypoints by denoising: DDPM of Ho et al. (2020), algorithm 2, with a clipped estimate.

    The schedule is the cosine of Nichol and Dhariwal (2021), equation 17, with betas up to 0.999.
    """

    def __init__(self, network: NoiseNetwork, config: NomadConfig) -> None:
        super().__init__()
        self.network = network
        time = torch.arange(config.denoising_steps + 1, dtype=torch.float64)
        alpha_bar = torch.cos((time / config.denoising_steps + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
        product = torch.cumprod(1 - beta, 0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), product[:-1]])
        self.schedule = torch.stack(
            [
                (1 - product).sqrt(),
                product.sqrt(),
                before.sqrt() * beta / (1 - product),
                (1 - beta).sqrt() * (1 - before) / (1 - product),
                (beta * (1 - before) / (1 - product)).clamp(min=1e-20).sqrt(),
            ],
            dim=1,
        )
        """float64 (steps, 5): of the noise and of the signal in a noisy step; of the estimate, of
        the noisy step and of fresh noise in the next one."""
        # The last step is the estimate itself.
        self.schedule[0, 4] = 0.0
        low, high = torch.tensor(config.delta_low), torch.tensor(config.delta_high)
        self._low = nn.Buffer(low, persistent=False)
        self._range = nn.Buffer(high - low, persistent=False)

    def forward(self, start: Tensor, noise: Tensor, contexts: Tensor) -> Tensor:
        """Waypoints (S, T, 2) in units of the waypoint spacing.

        Args:
            start: (S, T, 2) standard normal.
            noise: (S, steps - 1, T, 2) standard normal, in the order of use.
            contexts: (S, D).
        """
        x = start
        for index, step in enumerate(reversed(range(len(self.schedule)))):
            fresh = noise[:, min(index, noise.shape[1] - 1)]
            factors = self.schedule[step].to(start)
            x = self.advance(x, fresh, contexts, self.encoding(step), factors)
        return self.waypoints(x)

    def encoding(self, step: int) -> Tensor:
        """The number of a step for the network, (1, E)."""
        weight = self._range
        number = torch.tensor([float(step)], dtype=weight.dtype, device=weight.device)
        return self.network.diffusion_step_encoder(number)

    def advance(
        self, x: Tensor, fresh: Tensor, contexts: Tensor, encoding: Tensor, factors: Tensor
    ) -> Tensor:
        """One step of the denoising.

        Args:
            x: (S, T, 2) noisy steps.
            fresh: (S, T, 2) standard normal.
            contexts: (S, D).
            encoding: (1, E) of the step, counted down.
            factors: (5,) the step's row of `schedule`.

        Returns:
            (S, T, 2) with less noise.
        """
        predicted = self.network.denoise(x, encoding.expand(x.shape[0], -1), contexts)
        noise, signal, of_clean, of_noisy, of_fresh = factors.unbind()
        clean = ((x - noise * predicted) / signal).clamp(-1, 1)
        return of_clean * clean + of_noisy * x + of_fresh * fresh

    def waypoints(self, x: Tensor) -> Tensor:
        """Waypoints (S, T, 2) in units of the waypoint spacing, of steps (S, T, 2) in -1..1."""
        return torch.cumsum((x + 1) / 2 * self._range + self._low, dim=1)


class _VisionEncoder(nn.Module):
    def __init__(self, config: NomadConfig) -> None:
        super().__init__()
        self.obs_encoder = EfficientNetB0(3, group_norm)
        self.goal_encoder = EfficientNetB0(6, group_norm)
        self.compress_obs_enc = compression(config.token_size)
        self.compress_goal_enc = compression(config.token_size)
        self.positional_encoding = PositionalEncoding(config.frames + 1, config.token_size)
        self.sa_encoder = attention(
            config.token_size, config.heads, config.layers, config.feedforward_factor
        )


class _DistanceNetwork(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(size, size // 4),
            nn.ReLU(),
            nn.Linear(size // 4, size // 16),
            nn.ReLU(),
            nn.Linear(size // 16, 1),
        )

    def forward(self, contexts: Tensor) -> Tensor:
        return self.network(contexts)


class NoiseNetwork(nn.Module):
    """Noise in a trajectory of steps, given the diffusion step and a context."""

    def __init__(
        self, context_size: int, step_size: int = 256, widths: tuple[int, ...] = (64, 128, 256)
    ) -> None:
        super().__init__()
        condition = step_size + context_size
        self.diffusion_step_encoder = nn.Sequential(
            _StepEncoding(step_size),
            nn.Linear(step_size, 4 * step_size),
            nn.Mish(),
            nn.Linear(4 * step_size, step_size),
        )
        pairs = list(pairwise((2, *widths)))
        self.down_modules = nn.ModuleList(
            nn.ModuleList(
                [
                    _Residual(channels, out, condition),
                    _Residual(out, out, condition),
                    _Resample(nn.Conv1d(out, out, 3, 2, 1)) if out != widths[-1] else nn.Identity(),
                ]
            )
            for channels, out in pairs
        )
        self.mid_modules = nn.ModuleList(
            _Residual(widths[-1], widths[-1], condition) for _ in range(2)
        )
        self.up_modules = nn.ModuleList(
            nn.ModuleList(
                [
                    _Residual(2 * out, channels, condition),
                    _Residual(channels, channels, condition),
                    _Resample(nn.ConvTranspose1d(channels, channels, 4, 2, 1)),
                ]
            )
            for channels, out in reversed(pairs[1:])
        )
        self.final_conv = nn.Sequential(
            _Convolution(widths[0], widths[0]), nn.Conv1d(widths[0], 2, 1)
        )

    def forward(self, noisy: Tensor, step: Tensor, contexts: Tensor) -> Tensor:
        """Predicted noise.

        Args:
            noisy: (S, T, 2) noisy steps in -1..1; T divisible by 4.
            step: (S,) diffusion step as float32.
            contexts: (S, D).

        Returns:
            (S, T, 2).
        """
        return self.denoise(noisy, self.diffusion_step_encoder(step), contexts)

    def denoise(self, noisy: Tensor, encoding: Tensor, contexts: Tensor) -> Tensor:
        """Predicted noise, with the diffusion step encoded already: (S, step_size)."""
        condition = torch.cat([encoding, contexts], dim=-1)
        x = noisy.movedim(-1, -2)
        kept: list[Tensor] = []
        for level in self.down_modules:
            first, second, shrink = cast("nn.ModuleList", level)
            x = second(first(x, condition), condition)
            kept.append(x)
            x = shrink(x)
        for block in self.mid_modules:
            x = block(x, condition)
        for level in self.up_modules:
            first, second, grow = cast("nn.ModuleList", level)
            x = torch.cat([x, kept.pop()], dim=1)
            x = grow(second(first(x, condition), condition))
        return self.final_conv(x).movedim(-1, -2)


class _StepEncoding(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        half = size // 2
        self._rate = torch.exp(torch.arange(half) * (-math.log(10000.0) / (half - 1)))

    def forward(self, step: Tensor) -> Tensor:
        angle = step[:, None] * self._rate.to(step.device)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class _Convolution(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(channels, out, 3, padding=1), nn.GroupNorm(8, out), nn.Mish()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class _Residual(nn.Module):
    """Two convolutions; the condition is added between them."""

    def __init__(self, channels: int, out: int, condition: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_Convolution(channels, out), _Convolution(out, out)])
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(condition, out))
        self.residual_conv = nn.Conv1d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = self.blocks[0](x) + self.cond_encoder(condition)[..., None]
        return self.blocks[1](y) + self.residual_conv(x)


class _Resample(nn.Module):
    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.conv = convolution

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
