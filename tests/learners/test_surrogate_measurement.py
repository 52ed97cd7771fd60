"""The gradients of an agent's surrogates on minibatches, against numbers by hand."""

import logging
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from pgtoolkit.agent import Metrics
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.learners.critic_measurement import LEAST_STATES, MOST_STATES
from pgtoolkit.learners.surrogate_measurement import measure_surrogates
from pgtoolkit.policies.gaussian import GaussianHead, GaussianPolicy
from pgtoolkit.policies.policy import Policy

F64 = torch.float64
MEAN, SIGMA, CURVATURE = 0.4, 0.5, 1.5
MIX = 0.3


class Steps(NamedTuple):
    """Steps of a made-up window."""

    features: Tensor
    pre_action: Tensor
    advantage: Tensor


def policy_at(hidden: tuple[int, ...] = ()) -> Policy:
    """``a ~ N(MEAN, SIGMA^2)`` in every state, which is 0; with two parameters if none hidden."""
    line = Box(-np.inf, np.inf, (1,), np.float32)
    policy = GaussianPolicy(Box(-1, 1, (1,)), line, hidden).double()
    assert isinstance(policy.head, GaussianHead) and policy.head.std is not None
    assert isinstance(policy.head.output, nn.Linear)
    with torch.no_grad():
        policy.head.output.bias.fill_(MEAN)
        policy.head.std.log_std.fill_(math.log(SIGMA))
    return policy


def window(count: int) -> Steps:
    """Actions of the policy, and returns that are more than a function of them."""
    generator = torch.Generator().manual_seed(0)
    eps, noise = torch.randn(2, count, 1, generator=generator, dtype=F64)
    pre_action = MEAN + SIGMA * eps
    advantage = (-0.5 * CURVATURE * (pre_action - 1).square() + 0.1 * noise)[:, 0]
    return Steps(torch.zeros(count, 1, dtype=F64), pre_action, advantage)


def measure(
    policy: Policy, steps: Steps, width: int, *, monitor: GradientMonitor | None = None
) -> Metrics:
    count = len(steps.advantage)

    def surrogates(mini: Steps, noise: Tensor) -> dict[str, Tensor]:
        assert len(mini.advantage) <= width
        distribution = policy(mini.features)
        action = distribution.pre_action(noise)
        critic = -0.5 * CURVATURE * (action[:, 0] - 1).square()
        score = mini.advantage * distribution.log_prob_of_pre_action(mini.pre_action)
        return {
            "critic": critic,
            "score_function": score,
            "mixed": (1 - MIX) * score + MIX * critic,
        }

    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(count, 1, generator=generator, dtype=F64)
    rows = torch.arange(count)[: count // width * width].view(-1, width)
    return measure_surrogates(
        policy,
        steps,
        rows,
        noise[rows],
        surrogates,
        monitor=monitor or GradientMonitor(1),
        followed="mixed",
    )


def test_the_gradients_of_six_steps_are_those_by_hand() -> None:
    """By the mean and log sigma; in three minibatches, with the weights of the surrogates."""
    steps, policy = window(6), policy_at()
    found = measure(policy, steps, 2)
    eps = torch.randn(6, 1, generator=torch.Generator().manual_seed(1), dtype=F64).numpy()[:, 0]
    slope = CURVATURE * (1 - MEAN - SIGMA * eps)
    critic = np.stack([slope, slope * SIGMA * eps], 1)
    z = (steps.pre_action.numpy()[:, 0] - MEAN) / SIGMA
    weight = steps.advantage.numpy()
    score = np.stack([weight * z / SIGMA, weight * (z**2 - 1)], 1)
    gradients = {
        "critic": critic,
        "score_function": score,
        "mixed": (1 - MIX) * score + MIX * critic,
    }
    for name, rows in gradients.items():
        variance, mean = rows.var(0, ddof=1).sum(), rows.mean(0)
        signal = mean @ mean - variance / 6
        for what, expected in (
            ("variance", variance),
            ("signal", signal),
            ("norm", math.sqrt(mean @ mean)),
            ("snr", signal / variance),
        ):
            assert float(found[f"gradient/{name}/{what}"]) == pytest.approx(expected), (name, what)
    difference = score - critic
    bias = (difference.mean(0) ** 2).sum() - difference.var(0, ddof=1).sum() / 6
    one, two = score.mean(0), critic.mean(0)
    pair = "gradient/critic_on_states"
    assert float(found[f"{pair}/bias"]) == pytest.approx(bias)
    cosine = one @ two / math.sqrt(one @ one * (two @ two))
    assert float(found[f"{pair}/cosine"]) == pytest.approx(cosine)
    ratio = score.var(0, ddof=1).sum() / critic.var(0, ddof=1).sum()
    assert float(found[f"{pair}/variance_ratio"]) == pytest.approx(ratio)
    assert float(found["gradient/trajectories"]) == 6
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_there_is_no_interval_of_what_shares_returns() -> None:
    found = measure(policy_at(), window(MOST_STATES), 32)
    for what in ("variance_low", "variance_high", "signal_z"):
        assert f"gradient/critic/{what}" in found
        assert f"gradient/score_function/{what}" not in found
        assert f"gradient/mixed/{what}" not in found
    ends = ("_low", "_high", "_z")
    assert not any("critic_on_states" in tag and tag.endswith(ends) for tag in found)
    followed = [tag for tag in found if tag.endswith("/followed")]
    assert followed == ["gradient/mixed/followed"]


def test_so_many_steps_are_measured_as_memory_allows() -> None:
    """Whole minibatches; of a larger one a part."""
    small, large = policy_at(), policy_at((512, 512))
    for policy, width, expected in (
        (small, 64, MOST_STATES),
        (small, 3 * MOST_STATES // 4, 3 * MOST_STATES // 4),
        (small, MOST_STATES + 100, MOST_STATES),
        (large, 64, LEAST_STATES),
    ):
        found = measure(policy, window(2 * MOST_STATES), width)
        assert float(found["gradient/trajectories"]) == expected


def test_a_measurement_that_is_not_due_computes_nothing() -> None:
    steps = window(8)

    def never(mini: Steps, noise: Tensor) -> dict[str, Tensor]:
        raise AssertionError("not to be computed")

    rows, noise = torch.arange(8).view(2, 4), torch.zeros(2, 4, 1)
    off = GradientMonitor(0)
    assert (
        measure_surrogates(policy_at(), steps, rows, noise, never, monitor=off, followed="critic")
        == {}
    )


def test_what_is_not_finite_is_not_measured_and_ends_no_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps, monitor = window(8), GradientMonitor(1)
    bad = steps._replace(advantage=steps.advantage.clone().index_fill_(0, torch.tensor(5), np.inf))
    with caplog.at_level(logging.WARNING):
        assert measure(policy_at(), bad, 4, monitor=monitor) == {}
    assert "not measured" in caplog.text
    assert measure(policy_at(), steps, 4, monitor=monitor)
