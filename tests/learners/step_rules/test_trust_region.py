"""The line search of a trust region: what it takes, and that it takes nothing where it must not."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.learners.step_rules.base import Problem
from pgtoolkit.learners.step_rules.trust_region import TrustRegion
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import Policy, without_normalizer

TARGET = 0.02


def bare_policy() -> Policy:
    """A Gaussian with standard deviation 1, whose mean is a linear function of one observation."""
    space = Box(-math.inf, math.inf, (1,))
    policy = GaussianPolicy(
        space, space, hidden=(), log_std_init=0.0, generator=torch.Generator().manual_seed(0)
    )
    return without_normalizer(policy.double())


def stepped(
    surrogate: Callable[[Distribution], Tensor], *, shrink: float = 0.5, trials: int = 8
) -> tuple[Policy, Policy, dict[str, Tensor]]:
    """The policy before and after a step up the mean action, and the step's metrics."""
    policy = bare_policy()
    before = copy.deepcopy(policy)
    obs = torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None]
    problem = Problem(policy, obs, surrogate)
    (-Problem(policy, obs, mean_action).objective()).backward()  # type: ignore[no-untyped-call]
    rule = TrustRegion(
        target_kl=TARGET, iterations=10, damping=0.0, shrink=shrink, max_trials=trials
    )
    return before, policy, rule.step(policy, problem)


def mean_action(distribution: Distribution) -> Tensor:
    return distribution.mode[..., 0]


def moved(before: Policy, after: Policy) -> float:
    """By how much the mean action has risen."""
    zero = torch.zeros(1, dtype=torch.float64)
    return float((after(zero).mode - before(zero).mode).detach())


def test_the_whole_step_is_taken_where_it_improves_within_the_bound() -> None:
    """Its divergence is the bound up to rounding, which may lie on either side of it."""
    before, after, metrics = stepped(mean_action, shrink=0.999)
    assert float(metrics["train/line_search_trials"]) in (1, 2)
    assert moved(before, after) == pytest.approx(math.sqrt(2 * TARGET), rel=2e-3)
    assert float(metrics["train/kl"]) == pytest.approx(TARGET, rel=4e-3)
    assert float(metrics["train/kl"]) <= TARGET


@pytest.mark.parametrize("peak", [0.03, 0.06, 0.12])
def test_the_first_step_that_improves_is_taken(peak: float) -> None:
    """The surrogate falls beyond a peak: a length ``x`` improves if ``x < 2 peak``."""

    def surrogate(distribution: Distribution) -> Tensor:
        return -(mean_action(distribution) - (start + peak)).square()

    start = bare_policy()(torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None]).mode[:, 0]
    start = start.detach()
    before, after, metrics = stepped(surrogate)
    whole = math.sqrt(2 * TARGET)
    halvings = next(k for k in range(8) if whole * 0.5**k < 2 * peak)
    assert float(metrics["train/line_search_trials"]) in (halvings + 1, max(halvings + 1, 2))
    assert moved(before, after) < 2 * peak
    assert float(metrics["train/step_rejected"]) == 0


@pytest.mark.parametrize(
    "surrogate",
    [
        lambda distribution: -mean_action(distribution),
        lambda distribution: mean_action(distribution) * math.nan,
        lambda distribution: 0 * mean_action(distribution),
    ],
    ids=["falls", "not a number", "stays"],
)
def test_a_failed_search_leaves_the_parameters_bit_equal(
    surrogate: Callable[[Distribution], Tensor],
) -> None:
    """Others kept the last step that was tried, although it had been rejected."""
    before, after, metrics = stepped(surrogate)
    pairs = zip(before.state_dict().items(), after.state_dict().items(), strict=True)
    assert all(torch.equal(x, y) for (_, x), (_, y) in pairs)
    assert float(metrics["train/step_rejected"]) == 1
    assert float(metrics["train/line_search_trials"]) == float(metrics["train/kl"]) == 0


def test_a_step_beyond_the_bound_is_shortened() -> None:
    """By a divergence that counts four times, no step but the half one is within the bound."""
    policy = bare_policy()
    obs = torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None]
    problem = Problem(policy, obs, mean_action)
    (-problem.objective()).backward()  # type: ignore[no-untyped-call]
    rule = TrustRegion(target_kl=TARGET, iterations=10, damping=0.0, shrink=0.5, max_trials=5)
    start = torch.cat([p.detach().flatten() for p in policy.parameters()])
    change = torch.zeros_like(start)
    change[1] = 2 * math.sqrt(2 * TARGET)  # the bias; twice the length, four times the bound
    assert float(problem.kl().detach()) == 0  # the policy as it is now is the old one
    kl, trials = rule.search(list(policy.parameters()), problem, 0.999 * change)
    assert trials == 2 and float(kl) == pytest.approx(0.999**2 * TARGET)
