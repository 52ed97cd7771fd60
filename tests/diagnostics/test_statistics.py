"""Statistics of per-trajectory gradients: formulas, unbiasedness, coverage, and closed forms."""

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from pgtoolkit.diagnostics.intervals import student_95
from pgtoolkit.diagnostics.outer_products import SampleGradient, dense
from pgtoolkit.diagnostics.per_trajectory import GradientRecorder
from pgtoolkit.diagnostics.significance import significance
from pgtoolkit.diagnostics.statistics import (
    GradientStatistics,
    flatten_gradients,
    gradient_difference,
)
from pgtoolkit.envs import LQG, DifferentiableVectorEnv
from pgtoolkit.envs.analytic.lqg.cost import closed_loop, cost_to_go
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.reference_problems import GaussianProblem, quadratic
from pgtoolkit.estimators.reference_problems import cosine as cosine_problem
from pgtoolkit.estimators.surrogates import (
    action_gradient,
    matched_score_weight,
    pathwise_surrogate,
    score_function_surrogate,
    window_objective,
)
from pgtoolkit.policies.gaussian import GaussianHead, GaussianPolicy
from pgtoolkit.rollouts.rollout import reset, unroll
from pgtoolkit.scripts.tables.coverage_rows import coverage_laws

F64 = torch.float64
CPU = torch.device("cpu")
COVERAGE_LAWS = coverage_laws()
Gradients = dict[str, Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def random_gradients(n: int, seed: int = 0) -> Gradients:
    """Two parameters of different shapes and scales, with means that are not 0."""
    return {
        "weight": 0.5 + normal(n, 2, 3, seed=seed),
        "bias": 3 * normal(n, 4, seed=seed + 1) - 0.2,
    }


@pytest.mark.parametrize(("n", "width"), [(3, 5), (300, 2000)])
def test_the_mean_gradient_is_that_of_all_parameters_in_their_order(n: int, width: int) -> None:
    """To 1e-7 of the deviations, also of so many parameters that they are taken in pieces."""
    gradients = {"first": normal(n, 7), "second": 1e3 + normal(n, 2, width, seed=1)}
    single = {name: gradient.float() for name, gradient in gradients.items()}
    found = GradientStatistics.of(single)
    exact = flatten_gradients(single).mean(0)
    torch.testing.assert_close(found.mean, exact, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.norm, exact.norm())


@pytest.mark.parametrize("n", [3, 4, 17])
def test_variance_signal_and_squared_covariance_are_their_formulas(n: int) -> None:
    """V = tr Cov; U = mean of g_i . g_j over i != j; Q corrects tr Cov^2 for its own noise."""
    gradients = random_gradients(n)
    found = GradientStatistics.of(gradients)
    flat = np.concatenate([g.numpy().reshape(n, -1) for g in gradients.values()], 1)
    covariance = np.cov(flat.T, ddof=1)
    assert float(found.variance) == pytest.approx(np.trace(covariance), rel=1e-12)
    pairs = [flat[i] @ flat[j] for i in range(n) for j in range(n) if i != j]
    assert float(found.signal) == pytest.approx(np.mean(pairs), rel=1e-12)
    square = np.trace(covariance @ covariance) - np.trace(covariance) ** 2 / (n - 1)
    expected = (n - 1) ** 2 / ((n - 2) * (n + 1)) * square
    assert float(found.squared_covariance) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert float(found.norm) == pytest.approx(np.linalg.norm(flat.mean(0)), rel=1e-12)
    assert found.num_trajectories == n
    for name, gradient in gradients.items():
        own = gradient.numpy().reshape(n, -1).var(0, ddof=1).sum()
        assert float(found.parameter_variance[name]) == pytest.approx(own, rel=1e-12)


def test_ratios_are_those_of_the_statistics() -> None:
    """SNR U / V, noise scale V / U, effective dimension V^2 / Q, z = U / sqrt(2 Q / (N (N-1)))."""
    found = GradientStatistics.of(random_gradients(9))
    V, U, Q = (float(x) for x in (found.variance, found.signal, found.squared_covariance))
    assert float(found.snr) == pytest.approx(U / V)
    assert float(found.noise_scale) == pytest.approx(V / U)
    assert float(found.effective_dimension) == pytest.approx(V * V / Q)
    assert float(found.detectability) == pytest.approx(U / math.sqrt(2 * Q / (9 * 8)))


def test_parameter_variances_add_up_to_the_variance() -> None:
    """The sum over parameters counts every entry of the gradient once."""
    found = GradientStatistics.of(random_gradients(9))
    total = sum(float(value) for value in found.parameter_variance.values())
    assert total == pytest.approx(float(found.variance), rel=1e-12)


def test_three_gradients_by_hand() -> None:
    """G = (1, 0), (0, 1), (2, 2): mean (1, 1).

    V = (1/2) [(0 + 1) + (1 + 0) + (1 + 1)] = 2; U = (2/6) [0 + 2 + 2] = 4/3; the norm is sqrt 2.
    """
    found = GradientStatistics.of({"p": torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])})
    assert float(found.variance) == pytest.approx(2)
    assert float(found.signal) == pytest.approx(4 / 3)
    assert float(found.norm) == pytest.approx(math.sqrt(2))


def test_variance_and_signal_are_unbiased_over_all_samples() -> None:
    """Every sample of three from a population of four with unequal probabilities: exact sums.

    E[V] is the trace of the population's covariance, E[U] the squared norm of its mean; the plug-in
    |mean|^2 is too large by V / 3.
    """
    population, p = normal(4, 2), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64)
    mean = p @ population
    trace = float((p @ (population - mean).square()).sum())
    variance = signal = plug_in = 0.0
    for sample in itertools.product(range(4), repeat=3):
        probability = float(p[list(sample)].prod())
        found = GradientStatistics.of({"p": population[list(sample)]})
        variance += probability * float(found.variance)
        signal += probability * float(found.signal)
        plug_in += probability * float(found.norm) ** 2
    assert variance == pytest.approx(trace, rel=1e-10)
    assert signal == pytest.approx(float(mean.square().sum()), rel=1e-10)
    assert plug_in == pytest.approx(float(mean.square().sum()) + trace / 3, rel=1e-10)


def standard_errors(values: list[float], expected: float) -> float:
    """The distance of the mean from what is expected, in standard errors."""
    array = np.array(values)
    return float((array.mean() - expected) / (array.std(ddof=1) / math.sqrt(len(array))))


def gaussian_statistics(n: int, repeats: int, signal: float, seed: int) -> list[GradientStatistics]:
    """Normal gradients with covariance diag(1, 4, 9, ...)/10 and a mean of that squared norm."""
    scale = torch.arange(1, 6, dtype=F64) / math.sqrt(10)
    mean = torch.full((5,), math.sqrt(signal / 5), dtype=F64)
    draws = mean + scale * normal(repeats, n, 5, seed=seed)
    return [GradientStatistics.of({"p": draw}) for draw in draws]


@pytest.mark.parametrize("n", [3, 8])
def test_all_three_statistics_are_unbiased_for_normal_gradients(n: int) -> None:
    """3000 samples; V = 5.5, U = 0.7, Q = (1 + 16 + 81 + 256 + 625) / 100 = 9.79."""
    found = gaussian_statistics(n, 3000, signal=0.7, seed=n)
    assert abs(standard_errors([float(s.variance) for s in found], 5.5)) < 4.5
    assert abs(standard_errors([float(s.signal) for s in found], 0.7)) < 4.5
    assert abs(standard_errors([float(s.squared_covariance) for s in found], 9.79)) < 4.5


def test_a_signal_of_zero_is_negative_half_the_time() -> None:
    """The signal is not clipped: its mean is 0 if the true one is, so some are negative."""
    found = gaussian_statistics(8, 500, signal=0.0, seed=1)
    signals = [float(s.signal) for s in found]
    assert abs(standard_errors(signals, 0.0)) < 4.5
    assert 0.4 < np.mean(np.array(signals) < 0) < 0.8


def test_the_intervals_are_those_of_a_computation_by_hand() -> None:
    """40 trajectories, 10 entries: every step of the definitions, from the flat gradients.

    The signal's upper end is the true signal from which U is t deviations away.
    """
    n, gradients = 40, random_gradients(40)
    found = GradientStatistics.of(gradients)
    flat = torch.cat([g.flatten(1) for g in gradients.values()], 1).numpy()
    mean, V, U, Q = (
        flat.mean(0),
        *(float(x) for x in (found.variance, found.signal, found.squared_covariance)),
    )
    squares, along = ((flat - mean) ** 2).sum(1), (flat - mean) @ mean
    w, nu = squares / squares.sum(), V**2 / Q
    skewness = float((along**3).mean() / (along**2).mean() ** 1.5)

    logs = [math.log(np.delete(flat, i, axis=0).var(0, ddof=1).sum()) for i in range(n)]
    error = math.sqrt(max((n - 1) * float(np.var(logs)), 2 / ((n - 1) * nu)))
    relative = float((w**4).sum() / (w**2).sum() ** 2) - 1 / n
    factor = math.exp(error * student(max(2.0, min(1 / (1.5 * relative), n - 1))))
    unseen = (n * (w**2).sum() - 1 + 10 * skewness**2 / nu) / n
    assert float(found.variance_low) == pytest.approx(V / factor / (1 + 5 * unseen), rel=1e-9)
    assert float(found.variance_high) == pytest.approx(V * factor * (1 + 40 * unseen), rel=1e-9)

    t, c = student((1 / (w**2).sum() - 1) / 2), skewness / math.sqrt(n)
    L = along.var(ddof=1) / (mean @ mean)

    def hall(z: float) -> float:
        return bisect(lambda x: x + c * x**2 / 3 + c**2 * x**3 / 27 + c / 6 - z, -50, 50)

    def away(u: float, quantile: float) -> float:
        return abs(U - u) - quantile * math.sqrt(4 * max(u, 0) * L / n + 2 * Q / (n * (n - 1)))

    low = U - hall(t) * math.sqrt(4 * U * L / n + 2 * Q / (n * (n - 1)))
    high = bisect(lambda u: away(u, max(-hall(-t), t)), U, U + 10 * V)
    assert float(found.signal_low) == pytest.approx(low, rel=1e-6)
    assert float(found.signal_high) == pytest.approx(high, rel=1e-6)


def student(degrees: float) -> float:
    """Wallace's approximation of the 97.5 % quantile of Student's t."""
    z = 1.959963984540054 * (8 * degrees + 3) / (8 * degrees + 1)
    return math.sqrt(degrees * math.expm1(z * z / degrees))


def bisect(f: Callable[[float], float], low: float, high: float) -> float:
    """The root of a function that rises through 0."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) < 0 else (low, middle)
    return low


@pytest.mark.parametrize("degrees", [2, 3, 10, 100])
def test_the_quantile_of_students_t_is_close_to_the_exact_one(degrees: int) -> None:
    """Within 5 % for two degrees of freedom, and never below the exact one by more than 0.1 %."""
    found = float(student_95(torch.tensor(float(degrees), dtype=F64)))
    exact = float(scipy.stats.t.ppf(0.975, degrees))
    assert 0.999 < found / exact < 1.05


def test_the_intervals_scale_with_the_gradients() -> None:
    """Ten times the gradients have a hundred times the ends of both intervals."""
    gradients = random_gradients(40)
    one = GradientStatistics.of(gradients)
    ten = GradientStatistics.of({name: 10 * g for name, g in gradients.items()})
    for name in ("variance_low", "variance_high", "signal_low", "signal_high"):
        assert float(getattr(ten, name)) == pytest.approx(100 * float(getattr(one, name)), rel=1e-9)


@pytest.mark.parametrize("n", [32, 200])
def test_the_intervals_cover_the_truth_in_400_repeats(n: int) -> None:
    """Normal gradients with and without a signal: at least 95 %, less 4.5 binomial errors."""
    found = gaussian_statistics(n, 400, signal=2.0, seed=6)
    nothing = gaussian_statistics(n, 400, signal=0.0, seed=7)
    least = 0.95 - 4.5 * math.sqrt(0.95 * 0.05 / 400)
    assert np.mean([float(s.variance_low) < 5.5 < float(s.variance_high) for s in found]) > least
    assert np.mean([float(s.signal_low) < 2.0 < float(s.signal_high) for s in found]) > least
    assert np.mean([float(s.signal_low) < 0.0 < float(s.signal_high) for s in nothing]) > least


@pytest.mark.parametrize("problem", [quadratic(1.0, 1.0, 0.0), cosine_problem(1.0, 1.0, 1.0)])
def test_the_intervals_cover_the_closed_forms_in_400_repeats(problem: GaussianProblem) -> None:
    """Both estimators by mean and sigma, N = 1000: at least 90 % less 2 standard errors (3 %).

    The variance of the raw score function of x^2 has a heavy tail and mostly no interval.
    """
    truths = {
        "score": problem.score_function_variance("mean") + problem.score_function_variance("std"),
        "pathwise": sum(problem.pathwise_variance),
    }
    signal = sum(g**2 for g in problem.gradient)
    eps = normal(400, 1000, 1, seed=8)
    x = (problem.mean + problem.std * eps).requires_grad_()
    f = problem.f(x)
    (slope,) = torch.autograd.grad(f.sum(), x)
    f = f.detach()
    samples = {
        "score": torch.cat([f * eps, f * (eps**2 - 1)], -1),
        "pathwise": torch.cat([slope, slope * eps], -1),
    }
    for name, sample in samples.items():
        found = [GradientStatistics.of({"p": batch}) for batch in sample]
        shown = [s for s in found if math.isfinite(float(s.variance_low))]
        assert len(shown) > 350 or name == "score"
        for s in shown:
            assert float(s.variance_low) <= float(s.variance) <= float(s.variance_high)
        inside = [float(s.variance_low) < truths[name] < float(s.variance_high) for s in shown]
        assert not inside or np.mean(inside) > 0.87
        inside = [float(s.signal_low) < signal < float(s.signal_high) for s in found]
        assert np.mean(inside) > 0.87


def test_many_trajectories_have_the_squared_covariance_of_their_blocks() -> None:
    """N = 130 is eight blocks of 16, and two that are left over: the formula's mean over blocks."""
    gradients = {"p": normal(130, 5, seed=4), "q": normal(130, 300, seed=5)}
    found = GradientStatistics.of(gradients)
    flat = torch.cat([*gradients.values()], 1)
    parts = [GradientStatistics.of({"p": block}) for block in flat[:128].chunk(8)]
    expected = float(torch.stack([part.squared_covariance for part in parts]).mean())
    assert float(found.squared_covariance) == pytest.approx(expected, rel=1e-9)
    assert float(found.variance) == pytest.approx(float(flat.var(0).sum()), rel=1e-12)


@pytest.mark.parametrize("name", COVERAGE_LAWS)
@pytest.mark.parametrize("n", [8, 16, 64])
def test_the_intervals_cover_the_truth_for_every_law_and_size(name: str, n: int) -> None:
    """Normal, skewed, heavy-tailed and sparse gradients: nine in ten, less 4 binomial errors.

    It counts the batches that have an interval; that of the variance where there are 30 of them.
    """
    law, generator = COVERAGE_LAWS[name], seeded(n)
    found = [GradientStatistics.of({"p": law.draw(n, generator)}) for _ in range(250)]
    for what, truth, fewest in (("variance", law.variance, 30), ("signal", law.signal, 1)):
        ends = [
            (float(getattr(s, f"{what}_low")), float(getattr(s, f"{what}_high"))) for s in found
        ]
        shown = [(low, high) for low, high in ends if math.isfinite(low)]
        covered = [low <= truth <= high for low, high in shown]
        if len(shown) >= fewest:
            assert np.mean(covered) >= 0.9 - 4 * math.sqrt(0.09 / len(shown)), what


@pytest.mark.parametrize("n", [8, 16, 64])
def test_normal_gradients_have_intervals(n: int) -> None:
    """Five dimensions, of which 3.1 are effective: the variance from some 16 trajectories on.

    With nine effective dimensions it has an interval with 8 trajectories in most batches.
    """
    few = gaussian_statistics(n, 100, signal=0.5, seed=3)
    law, generator = COVERAGE_LAWS["normal, P = 50, correlated, U = 0"], seeded(1)
    many = [GradientStatistics.of({"p": law.draw(n, generator)}) for _ in range(100)]
    assert np.mean([math.isfinite(float(s.variance_low)) for s in many]) > 0.7
    for found in (few, many):
        assert np.mean([math.isfinite(float(s.signal_low)) for s in found]) > 0.95
    if n >= 64:
        assert np.mean([math.isfinite(float(s.variance_low)) for s in few]) > 0.95


def test_gradients_of_zero_have_statistics_but_no_interval() -> None:
    """A batch without any reward does not show that nothing varies."""
    found = GradientStatistics.of({"p": torch.zeros(100, 3)})
    for name in ("variance", "signal", "norm", "detectability", "significance", "largest_share"):
        assert float(getattr(found, name)) == 0.0, name
    for name in ("variance_low", "variance_high", "signal_low", "signal_high"):
        assert math.isnan(float(getattr(found, name))), name


@pytest.mark.parametrize("differing", [1, 2, 5])
def test_a_few_trajectories_that_differ_from_all_others_have_no_interval(differing: int) -> None:
    """As where a reward is rare: the variance is unknown, the signal with one of them as well."""
    gradients = torch.zeros(100, 3)
    gradients[:differing] = normal(differing, 3).float()
    found = GradientStatistics.of({"p": gradients})
    assert math.isnan(float(found.variance_low)) and math.isnan(float(found.variance_high))
    if differing == 1:
        assert math.isnan(float(found.signal_low)) and math.isnan(float(found.signal_high))


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_trajectories_are_refused(n: int) -> None:
    """Q divides by N - 2; the message says what to do."""
    with pytest.raises(RequestError, match="num_envs"):
        GradientStatistics.of(random_gradients(n))


@pytest.mark.parametrize("n", [12, 70])
@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_squares_beyond_float32_are_no_matter(scale: float, n: int) -> None:
    """Gradients through chaotic dynamics are that large: their squares are not of float32."""
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(n, 600, generator=generator)
    plain = GradientStatistics.of({"x": gradients})
    found = GradientStatistics.of({"x": (gradients.double() * scale).float()})
    for name in ("variance", "variance_low", "variance_high", "signal_low", "signal_high"):
        expected = getattr(plain, name) * scale**2
        torch.testing.assert_close(
            getattr(found, name), expected, rtol=1e-4, atol=0.0, equal_nan=True
        )
    expected = plain.squared_covariance * scale**4
    torch.testing.assert_close(found.squared_covariance, expected, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("n", [16, 256])
@pytest.mark.parametrize("power", [1, 5])
@pytest.mark.parametrize("mean", [0.0, 100.0, 1e4])
def test_products_in_float32_are_far_within_the_sampling_error(
    n: int, power: int, mean: float
) -> None:
    """Tested with heavy tails (a normal's fifth power) and with means of up to 1e4 deviations."""
    generator = torch.Generator().manual_seed(0)
    tail = torch.randn(n, 1, generator=generator) ** (power - 1)
    gradients = mean + torch.randn(n, 2000, generator=generator) * tail
    found = GradientStatistics.of({"x": gradients})
    exact = GradientStatistics.of({"x": gradients.double()})
    for name in ("variance", "squared_covariance"):
        torch.testing.assert_close(getattr(found, name), getattr(exact, name), rtol=1e-6, atol=0.0)
    error = (2 * exact.squared_covariance / (n * (n - 1))).sqrt()
    assert float((found.signal - exact.signal).abs() / error) <= 1e-5


def test_a_small_signal_is_not_lost_in_float32() -> None:
    """Means are taken in float64: here U is 1e-9 of the largest entries, and both are known.

    Gradients +-1e3 e_1 + 0.05 e_2 in equal numbers: the first axis sums to zero.
    """
    sign = torch.tensor([1.0, -1.0]).repeat(50)
    gradients = torch.stack([1e3 * sign, torch.full((100,), 0.03125)], 1)
    found = GradientStatistics.of({"p": gradients})
    # U = (S - T) / (N (N - 1)), S = (100 / 32)^2, T = 100 (1e6 + 1 / 32^2)
    expected = ((100 / 32) ** 2 - 100 * (1e6 + 1 / 32**2)) / 9900
    assert float(found.signal) == pytest.approx(expected, rel=1e-12)
    assert found.signal.dtype == F64


def test_flattened_gradients_keep_every_number() -> None:
    """[N, P] in float64, in the mapping's order."""
    flat = flatten_gradients(
        {"a": torch.arange(12.0).reshape(2, 3, 2), "b": torch.tensor([[-1.0], [-2.0]])}
    )
    assert flat.dtype == F64
    assert flat.tolist() == [[0, 1, 2, 3, 4, 5, -1], [6, 7, 8, 9, 10, 11, -2]]


def test_a_scalar_parameter_counts_as_one_number() -> None:
    """A scalar parameter has gradients [N], such as a temperature or one shared log-sigma."""
    scalar = normal(5)
    found = GradientStatistics.of({"a": normal(5, 2), "scalar": scalar})
    assert float(found.parameter_variance["scalar"]) == pytest.approx(float(scalar.var()))
    assert flatten_gradients({"scalar": scalar}).tolist() == [[x] for x in scalar.tolist()]


# The pair: is pathwise biased? --------------------------------------------------------------------


def scalar_pair(
    n: int, seed: int, f: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]
) -> Mapping[str, SampleGradient]:
    """Score function less pathwise, by mean and log-sigma, at x = 0.5 + eps, matched."""
    eps = normal(n, 1, seed=seed)
    x = 0.5 + eps
    score = {"mean": f(x) * eps, "log_std": f(x) * (eps.square() - 1)}
    pathwise = {"mean": slope(x), "log_std": slope(x) * eps}
    return gradient_difference(score, pathwise)


def jump(x: Tensor) -> Tensor:
    return x + (x > 0).double()


def test_a_jump_makes_pathwise_biased_and_the_difference_says_so() -> None:
    """F = x + 1[x > 0]: pathwise misses the jump's phi(.5) = .352065 by the mean.

    By log-sigma it misses -.5 phi(.5) = -.176033; so the squared bias is .154939.
    """
    statistics = GradientStatistics.of(scalar_pair(4000, 0, jump, torch.ones_like))
    assert float(statistics.significance) > 5
    batches = [
        float(GradientStatistics.of(scalar_pair(100, s, jump, torch.ones_like)).signal)
        for s in range(300)
    ]
    assert abs(standard_errors(batches, 0.35206533**2 + 0.17603266**2)) < 4.5


def test_a_smooth_objective_shows_no_bias() -> None:
    """F = x^2: |z| < 3 at N = 1000; over 300 batches of 100 the squared bias has mean 0."""

    def pair(n: int, seed: int) -> GradientStatistics:
        return GradientStatistics.of(scalar_pair(n, seed, torch.square, lambda x: 2 * x))

    assert abs(float(pair(1000, 0).significance)) < 3
    assert abs(standard_errors([float(pair(100, s).signal) for s in range(300)], 0.0)) < 4.5


def test_the_detectability_of_nothing_is_standard() -> None:
    """1000 batches of 200 normal gradients without a signal: mean 0 and standard deviation 1.

    z is close to a weighted sum of squares with an excess kurtosis of 12 / p_eff = 3.9, so the
    standard error of its deviation is sqrt((3.9 + 2) / 4000) = 0.038.
    """
    found = gaussian_statistics(200, 1000, signal=0.0, seed=3)
    z = [float(s.detectability) for s in found]
    assert abs(standard_errors(z, 0.0)) < 4.5
    assert np.std(z) == pytest.approx(1, abs=4.5 * 0.038)


@pytest.mark.parametrize("p", [1, 2, 5])
def test_the_significance_of_nothing_has_the_tail_of_a_normal_variable(p: int) -> None:
    """20000 batches of 100 normal gradients of p equal entries: chi-squared of p, less its mean.

    Above 1.645 lie 5 %, above 2.326 1 %, within 4.5 binomial standard errors and the 0.4 points
    that Wilson and Hilferty's cube root is off for one degree of freedom. The statistic without it
    is above 2.326 in 3.8 % for p = 1.
    """
    g = normal(20000, 100, p, seed=11)
    total, trace = g.sum(1).square().sum(-1), g.square().sum((1, 2))
    signal = (total - trace) / (100 * 99)
    one = torch.ones(20000, dtype=F64)
    z = significance(signal, p * one, p * one, 100)
    for level, share in ((1.645, 0.05), (2.326, 0.01)):
        error = math.sqrt(share * (1 - share) / 20000)
        assert float((z > level).double().mean()) == pytest.approx(share, abs=4.5 * error + 0.004)


def test_significance_by_hand() -> None:
    """Nu = 2, U / sd = 3: X / nu = 4; z = (4^(1/3) - 1 + 1/9) / (1/3). U < 0 far enough: root < 0.

    Q out of its possible range is moved into it, and gradients that all agree are beyond doubt.
    """

    def z(signal: float, variance: float, squared: float) -> float:
        U, V, Q = (torch.tensor(x, dtype=F64) for x in (signal, variance, squared))
        return float(significance(U, V, Q, 9))

    sd = math.sqrt(2 * 2 / 72)
    assert z(3 * sd, 2, 2) == pytest.approx((4 ** (1 / 3) - 1 + 1 / 9) * 3, rel=1e-6)
    assert z(-3 * sd, 2, 2) == pytest.approx((-(2 ** (1 / 3)) - 1 + 1 / 9) * 3, rel=1e-6)
    assert z(0.1, 2, 100) == z(0.1, 2, 4) and z(0.1, 2, -1) == z(0.1, 2, 4 / 64)
    assert z(0.0, 0.0, 0.0) == 0.0 and z(1.0, 0.0, 0.0) == math.inf


def test_significance_where_gradients_are_skewed() -> None:
    """A limit to know: f = x^2 with its mean as the baseline, no bias, 1000 batches.

    Q is unbiased for normal gradients. The score function's are skewed, and a batch that happens
    to lack its rare large values has a shifted mean and a small Q. Of batches of 64, detectability
    exceeds 3 in some 16 %, significance in 10 %, and 5, the threshold of a bias, hardly ever.
    The jackknife interval of the signal excludes 0 in some 2 %, less than nominal.
    """
    eps = normal(1000, 64, 1, seed=77)
    x = 0.5 + eps
    f = x.square() - 1.25
    difference = torch.cat([f * eps - 2 * x, f * (eps.square() - 1) - 2 * x * eps], -1)
    found = [GradientStatistics.of({"p": batch}) for batch in difference]
    plain = np.mean([float(s.detectability) > 3 for s in found])
    normal_scale = np.mean([float(s.significance) > 3 for s in found])
    assert 0.05 < normal_scale < plain
    assert np.mean([float(s.significance) > 5 for s in found]) < 0.02
    assert np.mean([float(s.signal_low) > 0 for s in found]) < 0.05


def test_the_largest_share_is_one_trajectorys_part_of_the_squared_deviations() -> None:
    """(3, 0, 0): squares 4, 1, 1 about the mean, so 2/3; equal deviations give 1/N."""
    found = GradientStatistics.of({"p": torch.tensor([[3.0], [0.0], [0.0]])})
    assert float(found.largest_share) == pytest.approx(2 / 3)
    alike = GradientStatistics.of({"p": torch.eye(4)})
    assert float(alike.largest_share) == pytest.approx(1 / 4)


def test_the_difference_of_gradients_is_taken_trajectory_by_trajectory() -> None:
    """Entry ``i`` is ``a_i - b_i``, not the difference of the means."""
    a, b = random_gradients(5), random_gradients(5, seed=7)
    found = gradient_difference(a, b)
    for name in a:
        assert torch.equal(dense(found[name]), a[name] - b[name])


# Closed-form variances ----------------------------------------------------------------------------


def fourth_moment_errors(values: Tensor, expected: Tensor) -> float:
    """The largest distance of the columns' variances from the truth, in standard errors.

    The variance of a sample variance is (m_4 - V^2) / N.
    """
    centred = values - values.mean(0)
    variance = centred.square().sum(0) / (values.shape[0] - 1)
    error = ((centred.pow(4).mean(0) - variance.square()) / values.shape[0]).sqrt()
    return float(((variance - expected) / error).abs().max())


@pytest.mark.parametrize("d", [1, 3, 10])
def test_variances_of_a_quadratic_in_many_dimensions(d: int) -> None:
    """F = |x - k|^2 at N(m, s^2 I): the closed forms, by the mean of 600 unbiased V's.

    Pathwise 4 d s^2, the score function D^4 d / s^2 + 4 D^2 (d + 1) + 2 D^2 d (d + 2) +
    s^2 d (d + 2)(d + 4): d against d^3.
    """
    s, offset = 0.8, 0.6
    squared = d * offset**2
    eps = normal(600, 50, d, seed=d)
    x = offset + s * eps  # x - k
    score = x.square().sum(-1, keepdim=True) * eps / s
    pathwise = 2 * x
    expected = {
        "pathwise": 4 * d * s**2,
        "score": squared**2 * d / s**2
        + 4 * squared * (d + 1)
        + 2 * squared * d * (d + 2)
        + s**2 * d * (d + 2) * (d + 4),
    }
    for name, gradients in {"pathwise": pathwise, "score": score}.items():
        found = [float(GradientStatistics.of({"m": g}).variance) for g in gradients]
        assert abs(standard_errors(found, expected[name])) < 4.5, name


# The reference system: variance by K, k and sigma.
LQG_VARIANCES = {
    "pathwise": (14.33524067, 6.64592513, 7.79779941),
    "score function of the return": (1739.47308, 1190.95306, 2354.39178),
    "score function of the reward to go": (920.28849, 446.31074, 886.47751),
    "score function of the advantage": (84.14710139, 51.86883322, 133.88954006),
}
SIGMA = 0.3


def lqg_gradients(num_envs: int, seed: int) -> dict[str, Tensor]:
    """Each estimator's gradients ``[N, 3]`` by K, k and sigma, on the same episodes."""
    env = LQG()
    policy = GaussianPolicy(env.observation_space, env.action_space, ()).double()
    assert isinstance(policy.head, GaussianHead) and policy.head.std is not None
    head = policy.head.output
    with torch.no_grad():
        head.weight.fill_(-0.4)
        head.bias.fill_(0.2)
        policy.head.std.log_std.fill_(math.log(SIGMA))
    vector = DifferentiableVectorEnv(env, num_envs, dtype=F64)
    noise = normal(5, num_envs, 1, seed=seed)
    window, _ = unroll(vector, policy, reset(vector, seed=seed, device=CPU), noise)
    zeros = torch.zeros(5, num_envs, dtype=F64)
    objective = window_objective(window, zeros, 0.95)
    by_action = action_gradient(objective, window)
    window = window.detach()
    weights = {
        "score function of the return": objective.detach().expand(5, -1),
        "score function of the reward to go": matched_score_weight(window, zeros, zeros, 0.95),
        "score function of the advantage": matched_score_weight(
            window, zeros, exact_value(env, window.obs), 0.95
        ),
    }
    recorder, found = GradientRecorder(policy), {}
    for name in LQG_VARIANCES:
        with recorder.recording():
            if name == "pathwise":
                surrogate = pathwise_surrogate(policy, window, by_action)
            else:
                surrogate = score_function_surrogate(policy, window, weights[name])
        gradients = recorder.per_trajectory(surrogate)
        columns = [
            gradients["head.output.weight"].flatten(1),
            gradients["head.output.bias"],
            gradients["head.std.log_std"] / SIGMA,
        ]
        found[name] = torch.cat(columns, 1)
    return found


def exact_value(env: LQG, obs: Tensor) -> Tensor:
    """``-(z' V_t z + sum_{j >= t} gamma^(j-t) [sigma^2 R + gamma tr(V_{j+1} G)])`` ``[5, N]``."""
    gain = [torch.tensor(x, dtype=F64) for x in ([[-0.4]], [0.2], [SIGMA])]
    Kz, F, G = closed_loop(env.system, *gain)
    matrices = cost_to_go(env.system, F, Kz)
    z = torch.cat([obs, torch.ones_like(obs)], -1)
    tail, values = 0.0, []
    for t in range(4, -1, -1):
        stage = SIGMA**2 * float(env.system.R) + 0.95 * float((matrices[t + 1] * G).sum())
        tail = stage + 0.95 * tail
        values.append(-((z[t] @ matrices[t]) * z[t]).sum(-1) - tail)
    return torch.stack(values[::-1])


def test_variances_of_the_reference_system() -> None:
    """400 000 episodes; every estimator, every parameter, within 4.5 standard errors.

    The reward to go halves the score function's variance, the exact value takes nine tenths of the
    rest, and pathwise has a sixth of that.
    """
    for name, gradients in lqg_gradients(400_000, seed=0).items():
        expected = torch.tensor(LQG_VARIANCES[name], dtype=F64)
        assert fourth_moment_errors(gradients, expected) < 4.5, name


def test_statistics_of_small_batches_have_the_closed_forms_as_their_means() -> None:
    """500 batches of 40 trajectories: V and U of pathwise against the exact trace and norm."""
    gradients = lqg_gradients(20_000, seed=1)["pathwise"]
    found = [GradientStatistics.of({"p": batch}) for batch in torch.split(gradients, 40)]
    trace = sum(LQG_VARIANCES["pathwise"])
    norm = 4.52081375**2 + 4.73344223**2 + 1.29775712**2
    assert abs(standard_errors([float(s.variance) for s in found], trace)) < 4.5
    assert abs(standard_errors([float(s.signal) for s in found], norm)) < 4.5
