"""The entropy along a path: its reward, the steps that count, and its learned weight."""

import math

import pytest
import torch
from torch import Tensor

from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.mixture import GaussianMixture
from pgtoolkit.distributions.squashed import TanhGaussian
from pgtoolkit.errors import SettingError
from pgtoolkit.learners.path_entropy import PathEntropy, gaussian_entropy
from pgtoolkit.learners.step_rules.adam import Adam
from pgtoolkit.rollouts.window import Window

NAT = 0.5 * math.log(2 * math.pi * math.e)
"""Entropy of a standard normal distribution."""


def entropy(alpha: float = 0.5, target: float = -1.0, rate: float = 0.1) -> PathEntropy:
    log_alpha = torch.nn.ParameterList([torch.tensor([math.log(alpha)])])
    return PathEntropy(log_alpha, Adam(log_alpha, rate), target=target, gamma=0.9)


def window() -> Window:
    """Three steps of two environments; the second's first episode ends at its second step."""
    zeros, false = torch.zeros(3, 2, 2), torch.zeros(3, 2, dtype=torch.bool)
    ends = false.clone()
    ends[1, 1] = True
    valid = ~false
    valid[2, 1] = False
    return Window(
        obs=zeros,
        next_obs=zeros,
        noise=zeros,
        pre_action=zeros,
        action=zeros,
        log_prob=zeros[..., 0],
        reward=torch.arange(6.0).reshape(3, 2),
        terminated=ends,
        truncated=false,
        valid=valid,
    )


def distribution(log_std: Tensor) -> TanhGaussian:
    low, high = -torch.ones(2), torch.ones(2)
    return TanhGaussian(torch.zeros(3, 2, 2), log_std, low, high)


def test_the_reward_is_the_excess_over_the_target_by_action_dimension() -> None:
    """``alpha (H - target) / A``: H is 2 (NAT + 0.3) nats, of the Gaussian before squashing."""
    reward = entropy().reward(distribution(torch.full((2,), 0.3)))
    torch.testing.assert_close(reward, torch.full((3, 2), 0.5 * (2 * (NAT + 0.3) + 1) / 2))


def test_the_weight_is_in_units_of_the_rewards_standard_deviation() -> None:
    """Of valid steps: the rewards 0, 1, 2, 3, 4 have a variance of 2; the sixth is not valid."""
    weighed, at = entropy(), distribution(torch.zeros(2))
    before = weighed.reward(at)
    weighed.measure(window())
    torch.testing.assert_close(weighed.reward(at), math.sqrt(2) * before)


def test_soft_rewards_are_added_to_valid_steps_alone() -> None:
    given, at = window(), distribution(torch.zeros(2))
    worth = 0.5 * (2 * NAT + 1) / 2
    soft = entropy().soft(given, at).reward - given.reward
    torch.testing.assert_close(soft, torch.where(given.valid, worth, 0.0))


def test_the_bonus_has_the_discount_of_each_segments_step() -> None:
    """1, 0.9, 0.81 in the first environment; 1 and 0.9 in the second, whose third is not valid."""
    worth = 0.5 * (2 * NAT + 1) / 2
    found = entropy().bonus(distribution(torch.zeros(2)), window())
    torch.testing.assert_close(found, worth * torch.tensor([2.71, 1.9]))


def test_the_bonus_has_the_gradient_of_the_entropy_and_none_of_the_weight() -> None:
    log_std, weighed = torch.zeros(2, requires_grad=True), entropy()
    bonus = weighed.bonus(distribution(log_std), window()).sum()
    wanted = log_std, weighed.log_alpha[0]
    by_std, by_alpha = torch.autograd.grad(bonus, wanted, allow_unused=True)
    torch.testing.assert_close(by_std, torch.full((2,), 0.5 * (2.71 + 1.9) / 2))
    assert by_alpha is None


@pytest.mark.parametrize(("mean", "rises"), [(-2.0, True), (0.0, False)])
def test_the_weight_rises_below_the_target_and_falls_above(mean: float, rises: bool) -> None:
    """The metrics are of the weight before the step."""
    weighed = entropy()
    metrics = weighed.step(torch.tensor(mean))
    assert (float(weighed.alpha) > 0.5) == rises
    assert float(metrics["train/ent_coef"]) == pytest.approx(0.5)
    assert float(metrics["train/ent_coef_loss"]) == pytest.approx(0.5 * (mean + 1))


def test_the_mean_is_over_valid_steps() -> None:
    log_std = torch.zeros(3, 2, 2)
    log_std[2, 1] = 100.0
    mean = entropy().mean(distribution(log_std), window())
    assert float(mean) == pytest.approx(2 * NAT)


def test_a_rate_of_zero_keeps_the_weight() -> None:
    weighed = entropy(rate=0.0)
    weighed.step(torch.tensor(3.0))
    assert float(weighed.alpha) == pytest.approx(0.5)


def test_a_distribution_without_a_gaussian_is_refused() -> None:
    base = DiagonalGaussian(torch.zeros(2), torch.zeros(2))
    assert float(gaussian_entropy(base)) == pytest.approx(2 * NAT)
    mixture = GaussianMixture(torch.zeros(1), torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(SettingError, match="Gaussian before squashing"):
        gaussian_entropy(mixture)
