"""PPO's equations on worked examples, and what they are at a ratio of one."""

import math

import pytest
import torch
from torch import Tensor

from pgtoolkit.estimators.proximal import (
    approximate_kl,
    clipped_surrogate,
    probability_ratio,
    simple_surrogate,
    standardized,
)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_clip_cuts_gains_and_keeps_losses() -> None:
    # ratio 1.5, 1.5, 0.5, 0.5, 1.1 with c = 0.2:
    # min(1.5 A, 1.2 A): 1.2 for A = 1, -1.5 for A = -1; min(0.5 A, 0.8 A): 0.5, -0.8; 1.1.
    log_prob = torch.log(tensor(1.5, 1.5, 0.5, 0.5, 1.1))
    advantage = tensor(1, -1, 1, -1, 1)
    found = clipped_surrogate(log_prob, torch.zeros_like(log_prob), advantage, 0.2)
    torch.testing.assert_close(found, tensor(1.2, -1.5, 0.5, -0.8, 1.1))


def test_its_gradient_is_zero_beyond_the_clip_and_the_ratio_elsewhere() -> None:
    log_prob = torch.log(tensor(1.5, 1.5, 0.5, 0.5, 1.1)).requires_grad_()
    advantage = tensor(1, -1, 1, -1, 1)
    found = clipped_surrogate(log_prob, torch.zeros_like(advantage), advantage, 0.2)
    (gradient,) = torch.autograd.grad(found.sum(), log_prob)
    torch.testing.assert_close(gradient, tensor(0.0, -1.5, 0.5, 0.0, 1.1))


def test_at_a_ratio_of_one_it_is_the_score_function() -> None:
    log_prob = tensor(-1.0, -2.0, 0.5).requires_grad_()
    advantage = tensor(2.0, -1.0, 0.3)
    found = clipped_surrogate(log_prob, log_prob.detach(), advantage, 0.2)
    (gradient,) = torch.autograd.grad(found.sum(), log_prob)
    torch.testing.assert_close(gradient, advantage)


def test_spo_has_its_top_at_the_edge_of_the_clip() -> None:
    """``rho A - |A| (rho - 1)^2 / (2 c)``: 1.5 - 0.625 at 1.5, and a slope of 0 at 1.2 and 0.8."""
    log_prob = torch.log(tensor(1.0, 1.2, 1.5, 0.8, 0.5)).requires_grad_()
    advantage = tensor(2, 1, 1, -1, -1)
    found = simple_surrogate(log_prob, torch.zeros_like(advantage), advantage, 0.2)
    torch.testing.assert_close(found.detach(), tensor(2.0, 1.1, 0.875, -0.9, -1.125))
    (gradient,) = torch.autograd.grad(found.sum(), log_prob)
    # rho (A - |A| (rho - 1) / c): at 1 that of the score function, beyond the edge it pulls back
    torch.testing.assert_close(gradient, tensor(2.0, 0.0, -2.25, 0.0, 0.75))


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="advantage"):
        clipped_surrogate(tensor(0, 0), tensor(0, 0), tensor(1, 1).unsqueeze(1), 0.2)


def test_standardized_advantages() -> None:
    # mean 2, deviations -1, 0, 1, unbiased standard deviation 1.
    torch.testing.assert_close(standardized(tensor(1, 2, 3)), tensor(-1, 0, 1), rtol=0, atol=2e-8)


# Ratios far from 1 -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("log_ratio", [0.0, 100.0, -100.0, 1000.0, -1000.0, -math.inf])
@pytest.mark.parametrize("advantage", [2.0, -2.0, 0.0])
def test_a_ratio_far_from_one_has_a_finite_gradient_of_the_right_sign(
    log_ratio: float, advantage: float, dtype: torch.dtype
) -> None:
    """0 where the clip is active; else along the advantage, or 0 where the ratio is."""
    log_prob = torch.tensor([log_ratio], dtype=dtype).requires_grad_()
    given = torch.tensor([advantage], dtype=dtype)
    found = clipped_surrogate(log_prob, torch.zeros(1, dtype=dtype), given, 0.2)
    (gradient,) = torch.autograd.grad(found.sum(), log_prob)
    assert bool(found.isfinite()) and bool(gradient.isfinite())
    if log_ratio == 0:
        assert float(gradient) == advantage
    elif log_ratio > 0 and advantage < 0:
        assert float(gradient) < -100  # the clip is not active: the ratio is pushed down
    else:
        assert float(gradient) == pytest.approx(0, abs=1e-40)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ordinary_ratios_keep_their_bits(dtype: torch.dtype) -> None:
    """Value and gradient are those of the plain exponential up to a logarithm of 20."""
    log_ratio = torch.linspace(-120, 19.9, 5001, dtype=dtype)
    log_ratio.requires_grad_()
    found, expected = probability_ratio(log_ratio), log_ratio.exp()
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad(ratio.sum(), log_ratio)[0] for ratio in (found, expected)]
    assert torch.equal(*gradients)


def test_the_ratio_is_constant_beyond_the_limit_with_the_limits_derivative() -> None:
    log_ratio = tensor(20.5, 100.0, 1e30).requires_grad_()
    ratio = probability_ratio(log_ratio)
    (gradient,) = torch.autograd.grad(ratio.sum(), log_ratio)
    expected = tensor(20.0, 20.0, 20.0).exp()
    torch.testing.assert_close(ratio, expected)
    torch.testing.assert_close(gradient, expected)


def test_the_estimate_of_the_divergence_is_finite() -> None:
    """``rho - 1 - log rho`` of ratios that overflow and that vanish; exact of ordinary ones."""
    assert bool(approximate_kl(tensor(1000.0, -1000.0, 0.0)).isfinite())
    assert float(approximate_kl(tensor(-1000.0))) == pytest.approx(999)
    assert float(approximate_kl(tensor(0.5, 0.0))) == pytest.approx((math.exp(0.5) - 1.5) / 2)
