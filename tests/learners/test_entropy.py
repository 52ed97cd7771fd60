"""The entropy bonus: its weight, the steps that count, and its gradient."""

import math

import pytest
import torch
from torch import Tensor

from pgtoolkit.agents.apg import ApgConfig
from pgtoolkit.agents.ppo import PpoConfig
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.squashed import TanhGaussian
from pgtoolkit.learners.entropy import EntropyBonus
from pgtoolkit.rollouts.window import Window

VALID = torch.tensor([[True, True, True], [True, False, True]])
REWARD = torch.tensor([[1.0, 5.0, 3.0], [3.0, 1e9, 3.0]])
"""Rewards. The valid ones are 1, 5, 3, 3, 3: mean 3, standard deviation sqrt(8 / 5)."""
REWARD_STD = math.sqrt(8 / 5)


def window(noise: Tensor | None = None, reward: Tensor = REWARD) -> Window:
    """Two steps of three environments; the second environment's second step never happened."""
    zeros = torch.zeros(2, 3, 1)
    return Window(
        obs=zeros,
        next_obs=zeros,
        noise=zeros if noise is None else noise,
        pre_action=zeros,
        action=zeros,
        log_prob=zeros[..., 0],
        reward=reward,
        terminated=~VALID,
        truncated=~VALID,
        valid=VALID,
    )


def gaussian(log_std: Tensor) -> DiagonalGaussian:
    return DiagonalGaussian(torch.zeros(2, 3, 1), log_std)


@pytest.mark.parametrize(
    ("bonus", "expected"),
    [
        (EntropyBonus(), None),
        (EntropyBonus(absolute=0.3), 0.3),
        (EntropyBonus(relative=0.5), 0.5 * REWARD_STD),
        (EntropyBonus(0.3, 0.5), 0.3 + 0.5 * REWARD_STD),
    ],
)
def test_the_weight_is_absolute_plus_relative_times_the_rewards_standard_deviation(
    bonus: EntropyBonus, expected: float | None
) -> None:
    """Only valid steps count; the reward 1e9 of the other step would change the result."""
    weight = bonus.weight(window())
    if expected is None:
        assert weight is None
    else:
        assert float(weight or 0) == pytest.approx(expected)


def test_the_bonus_sums_the_entropy_of_the_steps_that_happened() -> None:
    """A Gaussian of sigma 1/2 has log(1/2) + log(2 pi e) / 2: 2, 1 and 2 times the weight."""
    entropy = math.log(0.5) + 0.5 * math.log(2 * math.pi * math.e)
    distribution = gaussian(torch.full((2, 3, 1), math.log(0.5)))
    found = EntropyBonus(absolute=0.3).bonus(distribution, window())
    assert found.tolist() == pytest.approx([0.6 * entropy, 0.3 * entropy, 0.6 * entropy])


def test_entropy_of_a_step_that_never_happened_is_not_read() -> None:
    """A NaN there reaches neither the bonus nor its gradient."""
    log_std = torch.zeros(2, 3, 1)
    log_std[1, 1] = math.nan
    log_std.requires_grad_()
    found = EntropyBonus(absolute=1.0).bonus(gaussian(log_std), window())
    assert bool(found.isfinite().all())
    (gradient,) = torch.autograd.grad(found.sum(), log_std)
    assert gradient.squeeze(-1).tolist() == [[1, 1, 1], [1, 0, 1]]


def test_without_a_weight_there_is_no_bonus_and_no_entropy_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bonus is zero and has no graph."""

    def refuse(*_: object) -> Tensor:
        raise AssertionError("the entropy was computed")

    monkeypatch.setattr(DiagonalGaussian, "entropy", refuse)
    found = EntropyBonus().bonus(gaussian(torch.zeros(1, requires_grad=True)), window())
    assert found.tolist() == [0, 0, 0] and not found.requires_grad


def test_an_entropy_that_is_sampled_is_so_with_the_windows_noise() -> None:
    """H(u) + log(da/du) at u = mean + sigma eps, differentiable by the mean."""
    noise = torch.tensor([[[0.3], [-1.0], [2.0]], [[0.0], [0.7], [-0.2]]])
    mean = torch.full((2, 3, 1), 0.4, requires_grad=True)
    bound = torch.ones(1)
    distribution = TanhGaussian(mean, torch.zeros(1), -bound, bound)
    found = EntropyBonus(absolute=1.0).bonus(distribution, window(noise))
    u = 0.4 + noise.squeeze(-1)
    entropy = 0.5 * math.log(2 * math.pi * math.e) + torch.log(1 - torch.tanh(u).square())
    torch.testing.assert_close(found.detach(), torch.where(VALID, entropy, 0.0).sum(0))
    (gradient,) = torch.autograd.grad(found.sum(), mean)
    expected = torch.where(VALID, -2 * torch.tanh(u), 0.0)
    torch.testing.assert_close(gradient.squeeze(-1), expected)


def test_the_weight_is_a_constant_to_the_gradient() -> None:
    """Rewards of a differentiable window do not earn entropy by spreading out."""
    reward = REWARD.clone().requires_grad_()
    log_std = torch.zeros(2, 3, 1, requires_grad=True)
    found = EntropyBonus(relative=1.0).bonus(gaussian(log_std), window(reward=reward)).sum()
    by_reward, by_log_std = torch.autograd.grad(found, [reward, log_std], allow_unused=True)
    assert by_reward is None
    torch.testing.assert_close(by_log_std.squeeze(-1), REWARD_STD * VALID.float())


def test_the_bonus_is_made_from_an_agents_settings() -> None:
    """Both weights are taken from the settings; PPO, which has no relative weight, gets 0."""
    apg = ApgConfig(ent_coef=0.1, ent_coef_relative=0.2)
    assert EntropyBonus.of(apg) == EntropyBonus(0.1, 0.2)
    assert EntropyBonus.of(PpoConfig(ent_coef=0.1)) == EntropyBonus(0.1, 0.0)
