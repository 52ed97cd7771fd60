"""The closed forms against the published table and against quadrature."""

import math
from collections.abc import Callable

import pytest
import torch

from pgtoolkit.distributions.quadrature import gauss_hermite
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.reference_problems import (
    GaussianProblem,
    Parameter,
    cosine,
    exponential,
    quadratic,
    quadratic_measure_valued_variance,
)

# f, k, parameter, g, variance pathwise, score function, with the optimal baseline, with b = E f,
# and b*, at mean = std = 1: the curves of figures 2 and 3 of Mohamed et al. 2020.
TABLE: list[tuple[Callable[[float, float, float], GaussianProblem], float, Parameter, str]] = [
    (quadratic, -3, "mean", "8 4 495 134 138 19"),
    (quadratic, -3, "std", "2 72 1546 664 696 21"),
    (quadratic, 0, "mean", "2 4 30 14 18 4"),
    (quadratic, 0, "std", "2 12 136 64 96 6"),
    (quadratic, 3, "mean", "-4 4 87 38 42 7"),
    (quadratic, 3, "std", "2 24 346 184 216 9"),
    (exponential, 0.1, "mean", "-.13998030 .01629020 .56353156 .04046769 .05407497 .72323155"),
    (exponential, 0.1, "std", "-.11665025 .02776995 .93538383 .14099056 .22889381 .63023538"),
    (exponential, 1, "mean", "-.27579303 .21172339 .17575024 .07222169 .08067300 .32175854"),
    (exponential, 1, "std", "-.09193101 .17573121 .17669049 .11278398 .22317270 .17875474"),
    (exponential, 10, "mean", "-.12909046 .94162944 .07694042 .06019662 .06023441 .12939782"),
    (exponential, 10, "std", "-.00614716 .89204602 .00903460 .00873908 .03918894 .01215564"),
    (cosine, 0.5, "mean", "-.21154578 .03928465 .45524838 .11786408 .15535122 .58084792"),
    (cosine, 0.5, "std", "-.19361597 .08751285 .79865790 .46010212 .72368361 .41143394"),
    (cosine, 1, "mean", "-.51037795 .26767402 .32399337 .32399337 .43138716 0"),
    (cosine, 1, "std", "-.32770991 .30812719 .83628686 .78258997 1.26586201 -.16385496"),
    (cosine, 2, "mean", "-.24612005 1.93986347 .44106947 .41252265 .46327255 .16895805"),
    (cosine, 2, "std", ".22527740 1.94267190 .92798061 .92163687 .92163687 -.05631935"),
]


@pytest.mark.parametrize(("family", "k", "parameter", "numbers"), TABLE)
def test_the_published_table(
    family: Callable[[float, float, float], GaussianProblem],
    k: float,
    parameter: Parameter,
    numbers: str,
) -> None:
    """Gradients, variances and baselines equal the published ones to 8 decimals."""
    problem = family(1.0, 1.0, k)
    best = getattr(problem.optimal_baseline, parameter)
    found = (
        getattr(problem.gradient, parameter),
        getattr(problem.pathwise_variance, parameter),
        problem.score_function_variance(parameter),
        problem.score_function_variance(parameter, best),
        problem.score_function_variance(parameter, problem.expectation),
        best,
    )
    assert found == pytest.approx([float(x) for x in numbers.split()], abs=6e-9)


@pytest.mark.parametrize("family", [quadratic, exponential, cosine])
@pytest.mark.parametrize(("mean", "std", "k"), [(1.0, 1.0, 1.0), (-0.6, 0.7, 1.3), (0.2, 0.4, 0.3)])
def test_moments_are_those_of_quadrature(
    family: Callable[[float, float, float], GaussianProblem], mean: float, std: float, k: float
) -> None:
    """Expectation, gradient and variances equal quadrature, also where no table has numbers."""
    problem = family(mean, std, k)
    eps, weight = (t.squeeze(-1) for t in gauss_hermite(150))
    x = (mean + std * eps).requires_grad_()
    f = problem.f(x)
    (slope,) = torch.autograd.grad(f.sum(), x)
    f = f.detach()
    scores = {"mean": eps / std, "std": (eps**2 - 1) / std}
    paths = {"mean": slope, "std": slope * eps}
    assert float(weight @ f) == pytest.approx(problem.expectation, rel=1e-10)
    assert float(weight @ f**2) - problem.expectation**2 == pytest.approx(problem.variance)
    names: tuple[Parameter, ...] = ("mean", "std")
    for name in names:
        gradient = getattr(problem.gradient, name)
        score, path = scores[name], paths[name]
        assert float(weight @ (f * score)) == pytest.approx(gradient, rel=1e-9)
        assert float(weight @ path) == pytest.approx(gradient, rel=1e-9)
        assert float(weight @ (path - gradient) ** 2) == pytest.approx(
            getattr(problem.pathwise_variance, name), rel=1e-9
        )
        for b in (0.0, 0.7):
            estimate = (f - b) * score
            assert float(weight @ (estimate - gradient) ** 2) == pytest.approx(
                problem.score_function_variance(name, b), rel=1e-9
            )


def test_where_pathwise_and_the_score_function_cross() -> None:
    """With mean = std = 1: at these k the score function with its optimal baseline is as good."""
    crossings: list[tuple[Callable[[float, float, float], GaussianProblem], Parameter, float]] = [
        (cosine, "mean", 1.062452),
        (cosine, "std", 1.280622),
        (exponential, "mean", 0.358043),
        (exponential, "std", 0.751935),
    ]
    for family, parameter, k in crossings:
        gaps = []
        for at in (k - 2e-6, k + 2e-6):
            problem = family(1.0, 1.0, at)
            best = getattr(problem.optimal_baseline, parameter)
            score = problem.score_function_variance(parameter, best)
            gaps.append(score - getattr(problem.pathwise_variance, parameter))
        assert gaps[0] > 0 > gaps[1]


def test_where_pathwise_and_the_raw_score_function_cross() -> None:
    crossings: list[tuple[Callable[[float, float, float], GaussianProblem], Parameter, float]] = [
        (cosine, "mean", 1.063782),
        (cosine, "std", 1.297346),
        (exponential, "mean", 0.869954),
        (exponential, "std", 1.002816),
    ]
    for family, parameter, k in crossings:
        low, high = (family(1.0, 1.0, at) for at in (k - 2e-6, k + 2e-6))
        for problem, sign in ((low, 1), (high, -1)):
            gap = problem.score_function_variance(parameter) - getattr(
                problem.pathwise_variance, parameter
            )
            assert sign * gap > 0


def test_the_measure_valued_variance_of_a_quadratic() -> None:
    """d/dmean: the difference of squares at +-std w is 4 D std w, and Var w = 2 - pi / 2."""
    found = quadratic_measure_valued_variance(1.0, 0.5, -0.3)
    d = 1.3
    assert found.mean == pytest.approx(16 * d**2 * (2 - math.pi / 2) / (2 * math.pi))
    assert found.std == pytest.approx(4 * d**2 + 4 * 0.25)


@pytest.mark.parametrize("k", [-0.25, -0.6])
def test_an_exponential_without_a_variance_is_refused(k: float) -> None:
    with pytest.raises(RequestError, match="no variance"):
        exponential(1.0, 1.0, k)
