"""Multi-categorical and Bernoulli against torch; exact expectations by enumeration."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent

from pgtoolkit.distributions.discrete import Bernoulli, Categorical, Discrete, MultiCategorical
from pgtoolkit.distributions.noise import Noise, draw_noise

F64 = torch.float64
NVEC = (3, 2, 4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def logits(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64).requires_grad_()


MAKE: dict[str, Any] = {
    "categorical": lambda: Categorical(logits(5, 4)),
    "multi-categorical": lambda: MultiCategorical(logits(5, 9), NVEC),
    "bernoulli": lambda: Bernoulli(logits(5, 3)),
}


def test_several_categorical_variables_are_torchs() -> None:
    """Density and entropy are the sums over the variables; samples have leading dimensions."""
    ours = MultiCategorical(logits(5, 9), NVEC)
    theirs: Any = [
        TorchCategorical(logits=part) for part in torch.split(ours.logits, [3, 2, 4], dim=-1)
    ]
    action = ours.sample(ours.draw_noise(seeded(2), (6,)))
    assert action.shape == (6, 5, 3) and action.dtype == torch.int64
    expected = sum(d.log_prob(a) for d, a in zip(theirs, action.unbind(-1), strict=True))
    torch.testing.assert_close(ours.log_prob(action), expected)
    torch.testing.assert_close(ours.entropy(), sum(d.entropy() for d in theirs))


def test_binary_variables_are_torchs() -> None:
    """Density and entropy, summed over the variables."""
    ours = Bernoulli(logits(5, 3))
    theirs: Any = Independent(TorchBernoulli(logits=ours.logits), 1)
    action = ours.sample(ours.draw_noise(seeded(2), (6,)))
    assert action.shape == (6, 5, 3) and action.dtype == torch.int64
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action.double()))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())


def test_densities_and_entropies_are_finite_far_out() -> None:
    """Logits of 200: the unlikely value has log-probability -200 each, the entropy is 0."""
    far = Bernoulli(torch.tensor([200.0, -200.0]))
    assert float(far.log_prob(torch.tensor([0, 1]))) == -400
    assert float(far.entropy()) == pytest.approx(0)


@pytest.mark.parametrize("name", MAKE)
def test_the_support_is_everything_once(name: str) -> None:
    """Probabilities add up to 1, entropies agree, no action is listed twice."""
    distribution: Discrete = MAKE[name]()
    support = distribution.enumerate_support()
    count = {"categorical": 4, "multi-categorical": 24, "bernoulli": 8}[name]
    assert support.shape[:2] == (count, 5)
    assert len({tuple(row.flatten().tolist()) for row in support[:, 0:1]}) == count
    log_prob = distribution.log_prob(support)
    assert log_prob.shape == (count, 5)
    torch.testing.assert_close(log_prob.exp().sum(0), torch.ones(5, dtype=F64))
    torch.testing.assert_close(-(log_prob.exp() * log_prob).sum(0), distribution.entropy())


@pytest.mark.parametrize("name", MAKE)
def test_each_action_is_drawn_with_its_probability(name: str) -> None:
    """Frequencies of 100 000 draws of every action, within 4.5 binomial standard errors."""
    distribution: Discrete = MAKE[name]()
    count = 100_000
    draws = distribution.sample(distribution.draw_noise(seeded(3), (count,)))[:, 0]
    support = distribution.enumerate_support()
    probabilities = distribution.log_prob(support).exp()[:, 0].tolist()
    for action, probability in zip(support[:, 0], probabilities, strict=True):
        same = (draws == action) if draws.ndim == 1 else (draws == action).all(-1)
        error = (probability * (1 - probability) / count) ** 0.5
        assert abs(float(same.double().mean()) - probability) < 4.5 * error


@pytest.mark.parametrize("name", MAKE)
def test_the_score_function_has_the_exact_expectation(name: str) -> None:
    """``sum_a p(a) f(a) dlog p(a) = d/dlogits sum_a p(a) f(a)``, both by enumeration."""
    distribution: Any = MAKE[name]()
    support = distribution.enumerate_support()
    value = torch.randn(support.shape[:2], generator=seeded(4), dtype=F64)
    log_prob = distribution.log_prob(support)
    score = (log_prob.exp().detach() * value * log_prob).sum()
    (found,) = torch.autograd.grad(score, distribution.logits, retain_graph=True)
    (expected,) = torch.autograd.grad((log_prob.exp() * value).sum(), distribution.logits)
    torch.testing.assert_close(found, expected)


def test_an_exact_expectation_by_enumeration() -> None:
    """Value and gradient of a softmax over four categories, ``g = p (r - J)``, worked by hand."""
    theta = torch.tensor([0.5, -0.2, 0.1, 0.0], dtype=F64, requires_grad=True)
    reward = torch.tensor([1.0, 2.0, -1.0, 0.5], dtype=F64)
    distribution = Categorical(theta)
    support = distribution.enumerate_support()
    value = (distribution.log_prob(support).exp() * reward[support]).sum(0)
    assert float(value.detach()) == pytest.approx(0.58631816, abs=1e-8)
    (gradient,) = torch.autograd.grad(value, theta)
    expected = [0.1491586, 0.25312054, -0.38340198, -0.01887716]
    assert gradient.tolist() == pytest.approx(expected, abs=1e-7)


def test_a_categorical_variable_of_two_categories_is_a_binary_one() -> None:
    """Logits ``(0, l)`` against the binary variable's ``l``."""
    binary = Bernoulli(logits(7, 1))
    categorical = MultiCategorical(torch.cat([torch.zeros(7, 1), binary.logits], dim=-1), (2,))
    for value in (0, 1):
        action = torch.full((7, 1), value)
        torch.testing.assert_close(binary.log_prob(action), categorical.log_prob(action))


def test_logistic_noise_has_the_moments_of_a_logistic_variable() -> None:
    """Mean 0, variance pi^2 / 3, excess kurtosis 6/5; and it is always finite."""
    count = 300_000
    noise = draw_noise((Noise("logistic", count),), (), seeded(5)).double()
    assert bool(noise.isfinite().all())
    variance = np.pi**2 / 3
    assert abs(float(noise.mean())) < 4.5 * (variance / count) ** 0.5
    error = variance * ((6 / 5 + 2) / count) ** 0.5  # Var(s^2) = sigma^4 (excess + 2) / n
    assert abs(float(noise.var()) - variance) < 4.5 * error
