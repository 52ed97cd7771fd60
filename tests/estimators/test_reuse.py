"""Reused action gradients: weights, the clip, and the gradient at the policy that acted."""

import math

import pytest
import torch
from torch import Tensor

from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.mixture import GaussianMixture
from pgtoolkit.errors import SettingError
from pgtoolkit.estimators.reuse import Reused, reused
from pgtoolkit.estimators.surrogates import pathwise_surrogate_of
from pgtoolkit.rollouts.window import Window

NOISE = torch.tensor([[[0.5], [-1.0]], [[2.0], [0.1]]])


def gaussian(mean: float | Tensor, log_std: float | Tensor) -> DiagonalGaussian:
    zeros = torch.zeros_like(NOISE)
    return DiagonalGaussian(mean + zeros, log_std + zeros)


def window() -> Window:
    """Two steps of two environments, of the policy N(0, 1)."""
    old, false = gaussian(0.0, 0.0), torch.zeros(2, 2, dtype=torch.bool)
    return Window(
        obs=NOISE,
        next_obs=NOISE,
        noise=NOISE,
        pre_action=NOISE,
        action=NOISE,
        log_prob=old.log_prob(NOISE),
        reward=NOISE[..., 0],
        terminated=false,
        truncated=false,
        valid=~false,
    )


def reuse(now: DiagonalGaussian, low: float = 0.9, high: float = 9.0) -> Reused:
    return reused(window(), now, torch.full_like(NOISE, 3.0), clip_low=low, clip_high=high)


def test_the_noise_is_that_with_which_the_policy_would_take_the_actions() -> None:
    """N(0.2, 2) has drawn ``u`` from ``(u - 0.2) / 2``."""
    part = reuse(gaussian(0.2, math.log(2)))
    torch.testing.assert_close(part.window.noise, (NOISE - 0.2) / 2)


def test_the_weight_is_the_quotient_of_the_densities() -> None:
    part = reuse(gaussian(0.2, 0.0))
    expected = torch.exp(-0.5 * (NOISE - 0.2) ** 2 + 0.5 * NOISE**2)
    assert bool(part.inside.all())
    torch.testing.assert_close(part.action_gradient, 3 * expected)


def test_a_weight_outside_of_its_range_is_0_whatever_the_sign() -> None:
    """N(1, 1) has the weights exp(u - 1/2): 1, 0.22, 4.48, 0.67."""
    part = reuse(gaussian(1.0, 0.0), low=0.5, high=1.0)
    assert part.inside.tolist() == [[True, False], [False, True]]
    found = part.action_gradient.squeeze(-1) / 3
    expected = torch.tensor([[1.0, 0.0], [0.0, math.exp(-0.4)]])
    torch.testing.assert_close(found, expected)


def test_at_the_policy_that_acted_it_is_the_pathwise_surrogate() -> None:
    """Value and gradient, with respect to mean and standard deviation."""
    found = []
    for part in (None, reuse(gaussian(0.0, 0.0))):
        mean, log_std = (torch.zeros_like(NOISE, requires_grad=True) for _ in range(2))
        now = gaussian(mean, log_std)
        surrogate = (
            pathwise_surrogate_of(now, window(), torch.full_like(NOISE, 3.0))
            if part is None
            else part.surrogate(now)
        )
        found.append((surrogate.detach(), *torch.autograd.grad(surrogate.sum(), (mean, log_std))))
    for expected, reused_ in zip(*found, strict=True):
        torch.testing.assert_close(reused_, expected)


def test_a_distribution_whose_noise_cannot_be_inferred_is_refused() -> None:
    mixture = GaussianMixture(torch.zeros(1), torch.zeros(1, 1), torch.zeros(1, 1))
    with pytest.raises(SettingError, match="noise can be inferred"):
        reused(window(), mixture, NOISE, clip_low=0.8, clip_high=1.0)
