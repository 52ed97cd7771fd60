"""Baselines against enumerations and quadrature: what each does to mean and variance."""

import pytest
import torch
from torch import Tensor

from pgtoolkit.distributions.discrete import Categorical
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.quadrature import gauss_hermite
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.baselines import baseline_value, optimal_baseline
from pgtoolkit.estimators.expectation import expectation
from pgtoolkit.estimators.reference_problems import (
    GaussianProblem,
    Parameter,
    cosine,
    exponential,
    quadratic,
)

F64 = torch.float64
# A softmax over four choices.
THETA = torch.tensor([0.5, -0.2, 0.1, 0.0], dtype=F64)
REWARD = torch.tensor([1.0, 2.0, -1.0, 0.5], dtype=F64)
P = THETA.softmax(0)
VALUE = P @ REWARD
GRADIENT = P * (REWARD - VALUE)


def softmax_estimates(choices: Tensor, weight: Tensor) -> Tensor:
    """Gradients ``[M, 4]`` of ``mean_i w_i log p(a_i)`` for every row of ``choices`` ``[M, n]``."""
    logits = THETA.expand(len(choices), 4).clone().requires_grad_()
    log_prob = Categorical(logits).log_prob(choices.T).T
    (found,) = torch.autograd.grad((weight * log_prob).mean(1).sum(), logits)
    return found


def all_samples(n: int) -> tuple[Tensor, Tensor]:
    """All ``4^n`` samples ``[M, n]``, and their probabilities."""
    choices = torch.cartesian_prod(*[torch.arange(4)] * n).reshape(-1, n)
    return choices, P[choices].prod(1)


def trace_variance(found: Tensor, probability: Tensor) -> float:
    mean = probability @ found
    return float(probability @ (found - mean).square().sum(1))


def test_the_published_softmax() -> None:
    assert float(VALUE) == pytest.approx(0.58631816, abs=6e-9)
    assert GRADIENT.tolist() == pytest.approx(
        [0.1491586, 0.25312054, -0.38340198, -0.01887716], abs=6e-9
    )


@pytest.mark.parametrize(
    ("baseline", "variance"),
    [(0.0, 0.85065233), (0.58000768, 0.60450437), (float(VALUE), 0.60453351)],
)
def test_constant_baselines_of_a_softmax(baseline: float, variance: float) -> None:
    """None, the optimal one, the mean: by enumeration, through the front door."""
    logits = THETA.expand(4, 4).clone().requires_grad_()
    noise = 1e3 * torch.eye(4, dtype=F64).unsqueeze(0)  # one sample of each choice
    surrogate = expectation(
        lambda a: REWARD[a], Categorical(logits), noise=noise, baseline=baseline
    )
    (found,) = torch.autograd.grad(surrogate.sum(), logits)
    assert (P @ found).tolist() == pytest.approx(GRADIENT.tolist(), rel=1e-10)
    assert trace_variance(found, P) == pytest.approx(variance, abs=6e-9)


def test_the_optimal_baseline_of_a_softmax_by_enumeration() -> None:
    """b* = sum p r w / sum p w, w_a = |e_a - p|^2 = 1 - 2 p_a + |p|^2."""
    score = torch.eye(4, dtype=F64) - P
    found = optimal_baseline(REWARD, {"logits": score}, P)
    assert float(found) == pytest.approx(0.58000768, abs=6e-9)


@pytest.mark.parametrize(
    "problem",
    [quadratic(1.0, 1.0, -3.0), exponential(-0.6, 0.7, 1.3), cosine(1.0, 1.0, 2.0)],
    ids=["quadratic", "exponential", "cosine"],
)
def test_the_optimal_baseline_of_a_gaussian_by_quadrature(problem: GaussianProblem) -> None:
    """One for each parameter; and none does better."""
    eps, weight = gauss_hermite(150)
    f = problem.f(problem.mean + problem.std * eps.squeeze(-1))
    scores: dict[Parameter, Tensor] = {
        "mean": eps / problem.std,
        "std": (eps.square() - 1) / problem.std,
    }
    for name, score in scores.items():
        best = float(optimal_baseline(f, {name: score}, weight))
        assert best == pytest.approx(getattr(problem.optimal_baseline, name), rel=1e-9)
        least = problem.score_function_variance(name, best)
        for other in (best - 0.1, best + 0.1):
            assert problem.score_function_variance(name, other) > least
    # The trace over both has an optimum between the two.
    both = float(optimal_baseline(f, {str(k): v for k, v in scores.items()}, weight))
    low, high = sorted(problem.optimal_baseline)
    assert low < both < high


def test_an_estimated_optimum_is_that_of_its_sample() -> None:
    """Without weights all count alike: values 1, 2 with squared scores 1, 3 give 7/4."""
    found = optimal_baseline(torch.tensor([1.0, 2.0]), {"a": torch.tensor([1.0, 3.0**0.5])})
    assert float(found) == pytest.approx(7 / 4)
    assert found.dtype == F64


def test_the_mean_baseline_may_raise_the_variance() -> None:
    """exp, k = 10, by sigma: .00903460 without, .03918894 with the mean, 4.3 times as much."""
    problem = exponential(1.0, 1.0, 10.0)
    with_mean = problem.score_function_variance("std", problem.expectation)
    assert with_mean / problem.score_function_variance("std") > 4.3


@pytest.mark.parametrize("n", [2, 4])
def test_the_batch_mean_shrinks_the_gradient_and_leave_one_out_does_not(n: int) -> None:
    """By enumeration, the batch mean gives exactly (N - 1) / N of the gradient."""
    choices, probability = all_samples(n)
    r = REWARD[choices]
    own = probability @ softmax_estimates(choices, r - r.mean(1, keepdim=True))
    assert own.tolist() == pytest.approx(((n - 1) / n * GRADIENT).tolist(), rel=1e-10)
    others = (r.sum(1, keepdim=True) - r) / (n - 1)
    assert torch.equal(baseline_value("leave_one_out", r.T).T, others)
    free = probability @ softmax_estimates(choices, r - others)
    assert free.tolist() == pytest.approx(GRADIENT.tolist(), rel=1e-10)


@pytest.mark.parametrize(("n", "cosine_", "scale"), [(2, 0.970, 0.530), (4, 0.991, 0.788)])
def test_standardised_advantages_turn_the_gradient(n: int, cosine_: float, scale: float) -> None:
    """Dividing by the batch's own deviation: another direction, and shorter along the true one."""
    choices, probability = all_samples(n)
    r = REWARD[choices]
    centred = r - r.mean(1, keepdim=True)
    deviation = centred.square().mean(1, keepdim=True).sqrt()
    standardised = torch.where(deviation > 0, centred / deviation.clamp_min(1e-12), 0.0)
    mean = probability @ softmax_estimates(choices, standardised)
    cos = mean @ GRADIENT / mean.norm() / GRADIENT.norm()
    assert float(cos) == pytest.approx(cosine_, abs=6e-4)
    along = mean @ GRADIENT / GRADIENT.square().sum()
    assert float(along) == pytest.approx(scale, abs=6e-4)


@pytest.mark.parametrize("d", [1, 3, 8])
def test_a_quadratic_in_many_dimensions(d: int) -> None:
    """F = |x - k|^2 at N(m, s^2 I): exact traces, by a product of nodes.

    Pathwise grows as d, the score function with its optimal baseline as d^2, the raw one as d^3.
    Four nodes a dimension are exact for the polynomials in question.
    """
    s, offset = 0.8, 0.6
    squared = d * offset**2
    noise, weight = gauss_hermite(4, d)
    best = squared + s**2 * (d + 2)
    raw = squared**2 * d / s**2 + 4 * squared * (d + 1) + 2 * squared * d * (d + 2)
    raw += s**2 * d * (d + 2) * (d + 4)
    optimum = 4 * squared * (d + 1) + 2 * s**2 * d * (d + 2)
    cases: list[tuple[str, float, float]] = [
        ("pathwise", 0.0, 4 * d * s**2),
        ("score_function", 0.0, raw),
        ("score_function", best, optimum),
        ("score_function", squared + d * s**2, optimum + 4 * s**2 * d),
    ]
    for method, baseline, exact in cases:
        mean = torch.full((len(noise), d), offset, dtype=F64, requires_grad=True)
        distribution = DiagonalGaussian(mean, torch.full((d,), s, dtype=F64).log())
        surrogate = expectation(
            lambda x: x.square().sum(-1),
            distribution,
            method,  # type: ignore[arg-type]
            noise=noise,
            baseline=baseline,
        )
        (found,) = torch.autograd.grad(surrogate.sum(), mean)
        gradient = weight @ found
        assert gradient.tolist() == pytest.approx([2 * offset] * d, rel=1e-9)
        second = weight @ found.square().sum(1)
        assert float(second - gradient.square().sum()) == pytest.approx(exact, rel=1e-9)


def test_bad_baselines_say_what_is_wrong() -> None:
    with pytest.raises(RequestError, match="'mean'"):
        baseline_value("mean", torch.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="at least 2"):
        baseline_value("leave_one_out", torch.zeros(1))
    with pytest.raises(ValueError, match=r"\[2\] does not fit"):
        baseline_value(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="the same shape"):
        optimal_baseline(torch.zeros(3), {"a": torch.ones(3)}, torch.ones(3, 1))
