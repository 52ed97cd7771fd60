"""The natural gradient against closed forms: Fisher information, direction and length of a step."""

import math

import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.learners.step_rules.base import Problem
from pgtoolkit.learners.step_rules.natural_gradient import (
    NaturalGradient,
    conjugate_gradient,
    fisher_product,
    natural_step,
)
from pgtoolkit.policies.discrete import CategoricalPolicy
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import Policy, without_normalizer

STATES = 5


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian() -> Policy:
    """``a = K s + k + sigma eps`` without bounds; two observations, one action."""
    unbounded = Box(-math.inf, math.inf, (1,))
    policy = GaussianPolicy(
        Box(-1, 1, (2,)), unbounded, hidden=(), log_std_init=-0.7, generator=seeded(0)
    )
    return policy.double()


def features(seed: int = 1) -> Tensor:
    return torch.randn(STATES, 2, generator=seeded(seed), dtype=torch.float64)


def problem_of(policy: Policy, surrogate: Tensor | None = None) -> Problem:
    def objective(distribution: Distribution) -> Tensor:
        assert distribution.gaussian is not None
        return distribution.gaussian.mean[..., 0]

    return Problem(without_normalizer(policy), features(), objective)


def test_conjugate_gradients_solve_a_positive_system() -> None:
    """In as many iterations as it has unknowns, and to rounding."""
    root = torch.randn(6, 6, generator=seeded(0), dtype=torch.float64)
    matrix = root @ root.T + torch.eye(6, dtype=torch.float64)
    target = torch.randn(6, generator=seeded(1), dtype=torch.float64)
    found = conjugate_gradient(lambda v: matrix @ v, target, 6, tolerance=0.0)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, target))


def test_conjugate_gradients_end_where_the_system_is_not_positive() -> None:
    """The first direction is the target itself: along it the curvature is negative here."""
    target = torch.tensor([1.0, 2.0])
    assert torch.equal(conjugate_gradient(lambda v: -v, target, 5), torch.zeros(2))
    assert torch.equal(conjugate_gradient(lambda v: v, torch.zeros(2), 5), torch.zeros(2))


def test_the_fisher_information_of_a_linear_gaussian_is_the_closed_form() -> None:
    """``mean(x x^T) / sigma^2`` for the weights, with ``x = (s, 1)``, and 2 for ``log sigma``."""
    policy = gaussian()
    parameters = dict(without_normalizer(policy).named_parameters())
    sizes = {name: p.numel() for name, p in parameters.items()}
    product = fisher_product(problem_of(policy), list(parameters.values()), damping=0.1)
    fisher = torch.stack([product(v) for v in torch.eye(4, dtype=torch.float64)])
    assert list(sizes.values()) == [2, 1, 1], list(sizes)
    x = torch.cat([features(), torch.ones(STATES, 1, dtype=torch.float64)], 1)
    exact = torch.zeros(4, 4, dtype=torch.float64)
    exact[:3, :3] = x.T @ x / STATES / math.exp(-1.4)
    exact[3, 3] = 2
    torch.testing.assert_close(fisher, exact + 0.1 * torch.eye(4, dtype=torch.float64))


def test_the_fisher_information_of_categories_is_the_mean_square_of_the_scores() -> None:
    """``sum_a p(a) grad log p(a) grad log p(a)^T``, the mean over states."""
    policy = CategoricalPolicy(Box(-1, 1, (2,)), Discrete(3), hidden=(4,), generator=seeded(0))
    policy = policy.double()
    bare = without_normalizer(policy)
    parameters = list(bare.parameters())
    size = sum(p.numel() for p in parameters)
    with torch.no_grad():
        for p in parameters:
            p.copy_(torch.randn(p.shape, generator=seeded(p.numel()), dtype=p.dtype))
    problem = Problem(bare, features(), lambda d: d.log_prob(torch.zeros(STATES)))
    product = fisher_product(problem, parameters, damping=0.0)
    vector = torch.randn(size, generator=seeded(2), dtype=torch.float64)
    exact = torch.zeros_like(vector)
    for state in features():
        for action in range(3):
            log_prob = bare(state).log_prob(torch.tensor(action))
            score = torch.cat([g.flatten() for g in torch.autograd.grad(log_prob, parameters)])
            exact += log_prob.detach().exp() * score * (score @ vector) / STATES
    torch.testing.assert_close(product(vector), exact)


def step_of(policy: Policy, target_kl: float, damping: float = 0.0) -> Tensor:
    """The natural step that raises the mean action."""
    problem = problem_of(policy)
    bare = without_normalizer(policy)
    bare.zero_grad()
    (-problem.objective()).backward()  # type: ignore[no-untyped-call]
    return natural_step(bare, problem, target_kl=target_kl, iterations=10, damping=damping).change


def test_a_step_is_the_closed_form() -> None:
    """The mean action rises equally at every state: ``k`` alone moves, by ``sigma sqrt(2 d)``.

    ``F x = g`` with ``g = mean x`` is solved by the unit vector of ``k`` times ``sigma^2``.
    """
    change = step_of(gaussian(), target_kl=0.02)
    expected = torch.tensor([0, 0, math.exp(-0.7) * math.sqrt(0.04), 0], dtype=torch.float64)
    torch.testing.assert_close(change, expected, rtol=1e-6, atol=1e-9)


def test_a_step_has_the_divergence_that_is_asked_for() -> None:
    """To second order; a Gaussian's divergence by its mean is quadratic, so here exactly."""
    policy = gaussian()
    problem = problem_of(policy)
    bare = without_normalizer(policy)
    (-problem.objective()).backward()  # type: ignore[no-untyped-call]
    rule = NaturalGradient(target_kl=0.02, iterations=10, damping=0.0)
    metrics = rule.step(bare, problem)
    assert float(metrics["train/kl"]) == pytest.approx(0.02, rel=1e-6)
    assert float(metrics["train/gradient_norm"]) > 0


def test_a_step_depends_on_the_policy_and_not_on_its_parameters() -> None:
    """Observations in other units, and the weights that fit them: the same actions after a step."""
    found = []
    for unit in (1.0, 8.0):
        policy = gaussian()
        bare = without_normalizer(policy)
        with torch.no_grad():
            next(bare.parameters()).div_(unit)
        x = unit * features()
        problem = Problem(bare, x, lambda d: d.mode[..., 0] * features(3)[:, 0])
        (-problem.objective()).backward()  # type: ignore[no-untyped-call]
        NaturalGradient(target_kl=0.02, iterations=50, damping=0.0).step(bare, problem)
        found.append(bare(x).mode.detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)


def test_no_gradient_is_no_step() -> None:
    policy = gaussian()
    bare = without_normalizer(policy)
    before = [p.detach().clone() for p in bare.parameters()]
    NaturalGradient(target_kl=0.02, iterations=5, damping=0.1).step(bare, problem_of(policy))
    assert all(torch.equal(a, b) for a, b in zip(before, bare.parameters(), strict=True))


def test_a_frozen_parameter_stays() -> None:
    policy = gaussian()
    bare = without_normalizer(policy)
    frozen = next(bare.parameters()).requires_grad_(False)
    before = frozen.clone()
    problem = problem_of(policy)
    (-problem.objective()).backward()  # type: ignore[no-untyped-call]
    NaturalGradient(target_kl=0.02, iterations=5, damping=0.1).step(bare, problem)
    assert torch.equal(frozen, before)


def test_a_gradient_that_is_not_finite_is_named_and_takes_no_step() -> None:
    policy = gaussian()
    bare = without_normalizer(policy)
    before = [p.detach().clone() for p in bare.parameters()]
    for p in bare.parameters():
        p.grad = torch.full_like(p, math.nan)
    with pytest.raises(NonFiniteError, match="gradient of "):
        NaturalGradient(target_kl=0.02, iterations=5, damping=0.1).step(bare, problem_of(policy))
    assert all(torch.equal(a, b) for a, b in zip(before, bare.parameters(), strict=True))


def test_a_curvature_that_is_not_finite_is_named() -> None:
    policy = gaussian()
    bare = without_normalizer(policy)
    for p in bare.parameters():
        p.grad = torch.ones_like(p)
    problem = Problem(bare, features() * 1e200, lambda d: d.mode[..., 0])
    with pytest.raises(NonFiniteError, match="curvature along"):
        natural_step(bare, problem, target_kl=0.01, iterations=3, damping=0.0)


def test_a_rule_without_memory_has_no_state() -> None:
    rule = NaturalGradient(target_kl=0.02, iterations=5, damping=0.1)
    rule.load_state_dict(rule.state_dict())
    assert rule.state_dict() == {}
