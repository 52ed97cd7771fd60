"""The critic's and the score function's gradient on the same states, against closed forms."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.learners.critic_measurement import (
    LEAST_STATES,
    MOST_STATES,
    measure_critic,
    most_states,
)
from pgtoolkit.policies.gaussian import GaussianHead, GaussianPolicy
from pgtoolkit.policies.policy import Policy

F64 = torch.float64
MEAN, SIGMA, CURVATURE = 0.4, 0.5, 1.5


def policy_at(mean: float, sigma: float) -> Policy:
    """``a ~ N(mean, sigma^2)`` in every state: the observation is 0."""
    line = Box(-np.inf, np.inf, (1,), np.float32)
    policy = GaussianPolicy(Box(-1, 1, (1,)), line, ()).double()
    assert isinstance(policy.head, GaussianHead) and policy.head.std is not None
    assert isinstance(policy.head.output, nn.Linear)
    with torch.no_grad():
        policy.head.output.bias.fill_(mean)
        policy.head.std.log_std.fill_(math.log(sigma))
    return policy


def parabola(features: Tensor, action: Tensor) -> Tensor:
    """``-k (a - 1)^2 / 2``."""
    return -0.5 * CURVATURE * (action[..., 0] - 1).square()


def measure(count: int, actions: int = 4, seed: int = 0, **settings: Any) -> dict[str, float]:
    policy = policy_at(MEAN, SIGMA)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(actions, count, 1, generator=generator, dtype=F64)
    features = torch.zeros(count, 1, dtype=F64)
    metrics = measure_critic(
        policy, features, noise, parabola, monitor=GradientMonitor(1), **settings
    )
    assert all(parameter.grad is None for parameter in policy.parameters())
    return {tag: float(value) for tag, value in metrics.items()}


@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_both_have_the_gradient_and_the_variances_of_the_closed_form(temperature: float) -> None:
    """Means over 100 batches of 1024, within 4.5 standard errors.

    Critic: ``g = k (1 - a) + alpha eps / sigma`` by the mean and ``sigma eps g`` by log sigma; with
    ``d = 1 - m`` and ``c = alpha / sigma - k sigma``, ``g = k d + c eps`` has the mean ``k d`` and
    the variance ``c^2``, and ``sigma eps g`` the mean ``sigma c`` and the variance ``sigma^2
    (k^2 d^2 + 2 c^2)``.
    """
    found = [measure(1024, seed=seed, temperature=temperature) for seed in range(100)]
    k, d = CURVATURE, 1 - MEAN
    c = temperature / SIGMA - k * SIGMA
    signal = (k * d) ** 2 + (SIGMA * c) ** 2
    variance = c**2 + SIGMA**2 * ((k * d) ** 2 + 2 * c**2)
    for tag, exact in (
        ("critic/variance", variance),
        ("critic/signal", signal),
        ("score_function/signal", signal),
        ("critic_on_states/bias", 0.0),
    ):
        values = np.array([metrics[f"gradient/{tag}"] for metrics in found])
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert abs(values.mean() - exact) < 4.5 * error, tag


def test_the_variance_of_the_score_function_has_the_baseline_of_other_actions() -> None:
    """By quadrature: the weight is ``Q(a) - mean_j Q(a_j)``, with ``K - 1`` independent others.

    Its variance is that with the baseline ``V(s)``, plus ``Var Q / (K - 1)`` times the mean squared
    score, ``1 / sigma^2 + 2``.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    q = -0.5 * CURVATURE * (MEAN + SIGMA * nodes - 1) ** 2
    advantage = q - weights @ q
    scores = np.stack([nodes / SIGMA, nodes**2 - 1])
    gradient = (scores * advantage) @ weights
    exact = float((scores**2 * advantage**2).sum(0) @ weights - (gradient**2).sum())
    spread = float(weights @ advantage**2) * (1 / SIGMA**2 + 2)
    for actions in (2, 4):
        found = [measure(1024, actions=actions, seed=seed) for seed in range(100)]
        values = np.array([metrics["gradient/score_function/variance"] for metrics in found])
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert abs(values.mean() - exact - spread / (actions - 1)) < 4.5 * error


def test_the_ratio_is_that_of_the_score_function_over_the_critic() -> None:
    found = measure(1024)
    ratio = found["gradient/score_function/variance"] / found["gradient/critic/variance"]
    assert found["gradient/critic_on_states/variance_ratio"] == pytest.approx(ratio)
    assert found["gradient/trajectories"] == 1024
    assert found["gradient/critic/followed"] == 1
    for what in ("snr", "signal", "variance_low", "variance_high"):
        assert f"gradient/critic/{what}" in found


def test_it_says_which_one_the_agent_follows() -> None:
    found = measure(64, followed="score_function")
    assert "gradient/score_function/followed" in found
    assert "gradient/critic/followed" not in found


def test_a_measurement_that_is_not_due_or_of_too_few_states_is_none() -> None:
    assert measure(2) == {}
    policy, noise = policy_at(MEAN, SIGMA), torch.zeros(2, 8, 1, dtype=F64)
    features = torch.zeros(8, 1, dtype=F64)

    def never(features: Tensor, action: Tensor) -> Tensor:
        raise AssertionError("not to be computed")

    off = GradientMonitor(0)
    assert measure_critic(policy, features, noise, never, monitor=off) == {}


def test_of_a_large_batch_so_many_states_are_measured_as_memory_allows() -> None:
    space = Box(-1, 1, (10,))
    small, large = (GaussianPolicy(space, space, hidden) for hidden in ((8,), (512, 512)))
    assert most_states(small) == MOST_STATES and most_states(large) == LEAST_STATES
    assert measure(MOST_STATES + 5)["gradient/trajectories"] == MOST_STATES
