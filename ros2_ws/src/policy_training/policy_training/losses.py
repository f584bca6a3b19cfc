"""Loss terms of behaviour cloning and conservative Q-learning."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def sample_tanh_gaussian(
    mean: Tensor, log_std: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sample actions and their log-density (Haarnoja et al., SAC, 2018, appendix C).

    Args:
        mean: (B, A) before the tanh.
        log_std: (B, A) before the tanh.
        count: Samples per row.
        generator: Source of randomness.

    Returns:
        actions (B, count, A) in (-1, 1) and log-densities (B, count); both differentiable.
    """
    shape = (mean.shape[0], count, mean.shape[1])
    noise = torch.randn(shape, generator=generator)
    raw = mean[:, None] + log_std.exp()[:, None] * noise
    gaussian = -0.5 * noise.square() - log_std[:, None] - 0.5 * math.log(2.0 * math.pi)
    return torch.tanh(raw), (gaussian - _log_tanh_slope(raw)).sum(dim=-1)


def tanh_gaussian_log_prob(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """Log-density of given actions.

    Args:
        mean: (B, A) before the tanh.
        log_std: (B, A) before the tanh.
        action: (B, A) strictly inside (-1, 1).

    Returns:
        (B,).
    """
    raw = torch.atanh(action)
    gaussian = (
        -0.5 * ((raw - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2.0 * math.pi)
    )
    return (gaussian - _log_tanh_slope(raw)).sum(dim=-1)


def conservative_term(
    q_random: Tensor, q_policy: Tensor, log_prob: Tensor, q_data: Tensor, action_dim: int
) -> Tensor:
    """CQL(H) with importance-corrected samples (Kumar et al., CQL, 2020, appendix F).

    Args:
        q_random: (heads, B, R) of uniform actions in [-1, 1]^A.
        q_policy: (heads, B, P) of policy actions.
        log_prob: (B, P) of the policy actions.
        q_data: (heads, B) of the data's actions.
        action_dim: A.

    Returns:
        Scalar, mean over heads and batch.
    """
    log_uniform = action_dim * math.log(0.5)
    corrected = torch.cat([q_random - log_uniform, q_policy - log_prob], dim=-1)
    return (torch.logsumexp(corrected, dim=-1) - q_data).mean()


def td_target(
    reward: Tensor,
    bootstrap: Tensor,
    next_q: Tensor,
    discount: float,
    limits: tuple[float, float] | None,
) -> Tensor:
    """Max-Q backup: the best of several next actions under the smaller of the target heads.

    Args:
        reward: (B,).
        bootstrap: (B,), 0 at the end of a task.
        next_q: (heads, B, P) of policy actions at the next state.
        discount: Discount per step.
        limits: Smallest and largest feasible value to clip to, or None.

    Returns:
        (B,).
    """
    best = next_q.min(dim=0).values.max(dim=-1).values
    target = reward + discount * bootstrap * best
    return target if limits is None else target.clamp(*limits)


def action_huber(mean: Tensor, label: Tensor, delta: float) -> Tensor:
    """Huber loss of the deterministic action tanh(mean) (B, A) on scaled labels (B, A)."""
    return functional.huber_loss(torch.tanh(mean), label, delta=delta) / delta


def localisation_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Huber loss over the labels whose weight is 1; all (B, 4)."""
    error = functional.smooth_l1_loss(prediction, target, reduction="none")
    return (error * weight).sum() / weight.sum().clamp_min(1.0)


def _log_tanh_slope(raw: Tensor) -> Tensor:
    # log(1 - tanh(x)^2) without cancellation for large |x|.
    return 2.0 * (math.log(2.0) - raw - functional.softplus(-2.0 * raw))
