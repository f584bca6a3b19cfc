from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.training

from policy_training.losses import (  # noqa: E402
    conservative_term,
    sample_tanh_gaussian,
    tanh_gaussian_log_prob,
    td_target,
)
from policy_training.sampling import label_rewards, scale_action  # noqa: E402


@pytest.mark.parametrize("seed", [0, 1])
def test_log_density_agrees_with_the_transformed_distribution(seed):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(6, 7, generator=generator)
    log_std = torch.randn(6, 7, generator=generator) * 0.5 - 1.0
    actions, log_prob = sample_tanh_gaussian(mean, log_std, 3, generator)
    reference = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean.double()[:, None], log_std.double().exp()[:, None]),
        torch.distributions.transforms.TanhTransform(),
    )
    expected = reference.log_prob(actions.double().clamp(-1 + 1e-9, 1 - 1e-9)).sum(-1)
    inside = actions.abs().amax(-1) < 0.999
    torch.testing.assert_close(log_prob[inside], expected[inside].float(), atol=2e-2, rtol=1e-3)
    inner = actions[:, 0].clamp(-0.99, 0.99)
    expected = reference.log_prob(inner.double()[:, None]).sum(-1)[:, 0].float()
    torch.testing.assert_close(
        tanh_gaussian_log_prob(mean, log_std, inner), expected, atol=1e-3, rtol=1e-3
    )


def test_conservative_term_estimates_the_log_integral_of_exp_q():
    # With Q = 0 everywhere, the integral over [-1, 1]^A is 2^A whatever the proposal.
    action_dim, samples = 2, 4000
    generator = torch.Generator().manual_seed(0)
    mean, log_std = torch.zeros(1, action_dim), torch.full((1, action_dim), -0.1)
    _, log_prob = sample_tanh_gaussian(mean, log_std, samples, generator)
    zeros = torch.zeros(2, 1, samples)
    found = conservative_term(zeros, zeros, log_prob, torch.zeros(2, 1), action_dim)
    expected = action_dim * np.log(2.0) + np.log(2 * samples)
    assert abs(float(found) - expected) < 0.05


def test_target_takes_the_best_action_under_the_pessimistic_head_and_stays_feasible():
    next_q = torch.tensor([[[1.0, 5.0]], [[3.0, -2.0]]])  # smaller head: 1 and -2
    reward, bootstrap = torch.tensor([-1.0]), torch.tensor([1.0])
    assert float(td_target(reward, bootstrap, next_q, 0.5, None)) == -0.5
    low = td_target(reward, bootstrap, next_q - 100.0, 0.96, (-25.0, 10.0))
    assert float(low) == -25.0
    terminal = td_target(torch.tensor([10.0]), torch.tensor([0.0]), next_q - 1e6, 0.96, None)
    assert float(terminal) == 10.0


def test_rewards_of_a_demonstration():
    reward, bootstrap = label_rewards(np.array([5, 4, 3, 2, 1], np.int32), 3, 11.0, -1.0)
    assert reward.tolist() == [-1, -1, 10, 10, 10]
    assert bootstrap.tolist() == [1, 1, 0, 0, 0]


def test_actions_are_scaled_including_the_gripper_and_clipped():
    low, high = (-0.05,) * 3 + (-0.25,) * 3 + (0.0,), (0.05,) * 3 + (0.25,) * 3 + (1.0,)
    action = np.array([[0.05, -0.025, 0.0, 0.25, 0.0, -0.125, 1.0]], np.float32)
    np.testing.assert_allclose(
        scale_action(action, low, high)[0], [0.99, -0.5, 0, 0.99, 0, -0.5, 0.99], atol=1e-6
    )
