"""Mixing the two estimators: the exact table, sampling, cross-fitting, the guard, the surrogate."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.diagnostics.bias import BIAS_Z
from pgtoolkit.diagnostics.per_trajectory import GradientRecorder
from pgtoolkit.diagnostics.statistics import GradientStatistics, gradient_difference
from pgtoolkit.envs import LQG, DifferentiableVectorEnv
from pgtoolkit.envs.analytic.lqg.cost import closed_loop, cost_to_go
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.cross_fitting import (
    cautious_z,
    cross_fitted,
    difference_z,
    folds,
    guarded_weight,
    leave_one_out_by_fold,
    tail_factor,
)
from pgtoolkit.estimators.mixing import (
    covariance_weight,
    cross_fitted_step_weights,
    cross_fitted_weight,
    inverse_variance_weight,
    mix_gradients,
    mixed_surrogate,
)
from pgtoolkit.estimators.surrogates import (
    action_gradient,
    matched_score_weight,
    pathwise_surrogate,
    score_action_gradient,
    score_function_surrogate,
    window_objective,
)
from pgtoolkit.policies.gaussian import GaussianHead, GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import reset, unroll
from pgtoolkit.rollouts.window import Window

F64 = torch.float64
CPU = torch.device("cpu")
LINE = Box(-np.inf, np.inf, (1,), np.float32)
Function = Callable[[Tensor], Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def scalar(x: float) -> Tensor:
    return torch.tensor(x, dtype=F64)


# Problems of one Gaussian action ------------------------------------------------------------------


class Problem(NamedTuple):
    """F, its first two derivatives, and the score function's baseline, at x = m + s eps."""

    f: Function
    slope: Function
    bend: Function
    baseline: float
    m: float = 1.0
    s: float = 1.0

    def gradients(self, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Score-function and pathwise gradients by the mean, for the same noise."""
        x = self.m + self.s * eps
        return (self.f(x) - self.baseline) * eps / self.s, self.slope(x)


def cosine(k: float, baseline: float = 0.0, m: float = 1.0, s: float = 1.0) -> Problem:
    return Problem(
        lambda x: torch.cos(k * x),
        lambda x: -k * torch.sin(k * x),
        lambda x: -k * k * torch.cos(k * x),
        baseline,
        m,
        s,
    )


def exponential(k: float, baseline: float = 0.0, m: float = 1.0, s: float = 1.0) -> Problem:
    return Problem(
        lambda x: torch.exp(-k * x**2),
        lambda x: -2 * k * x * torch.exp(-k * x**2),
        lambda x: (4 * k * k * x**2 - 2 * k) * torch.exp(-k * x**2),
        baseline,
        m,
        s,
    )


def quadratic(k: float, baseline: float = 0.0, m: float = 1.0, s: float = 1.0) -> Problem:
    return Problem(
        lambda x: (x - k) ** 2,
        lambda x: 2 * (x - k),
        lambda x: torch.full_like(x, 2.0),
        baseline,
        m,
        s,
    )


def hermite(nodes: int = 180) -> tuple[Tensor, Tensor]:
    """Nodes and weights of an expectation over a standard normal."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    return torch.from_numpy(x), torch.from_numpy(w / w.sum())


class Moments(NamedTuple):
    score: Tensor
    pathwise: Tensor
    covariance: Tensor
    gradient: Tensor


def moments(problem: Problem) -> Moments:
    """The exact moments of both estimators, by quadrature."""
    eps, weight = hermite()
    score, pathwise = problem.gradients(eps)
    gradient = weight @ pathwise
    assert float(weight @ score) == pytest.approx(float(gradient), rel=1e-9)
    a, b = score - gradient, pathwise - gradient
    return Moments(weight @ a**2, weight @ b**2, weight @ (a * b), gradient)


def mixed_variance(exact: Moments, weight: Tensor) -> float:
    """``(1 - a)^2 V_s + a^2 V_r + 2 a (1 - a) C``."""
    own = (1 - weight) ** 2 * exact.score + weight**2 * exact.pathwise
    return float(own + 2 * weight * (1 - weight) * exact.covariance)


# Published values at m = s = 1, by the mean, the score function with its best baseline: V of
# either, C, V of the optimum, of inverse variances on the same samples and on independent ones.
TABLE = {
    "cos k=1": (cosine(1), (0.323993, 0.267674, -0.204166, 0.045041, 0.045418, 0.146577), 5e-7),
    "exp k=1": (
        exponential(1, 0.32175854),
        (0.072222, 0.211723, -0.070464, 0.024303, 0.027124, 0.053852),
        5e-7,
    ),
    "quad k=0": (quadratic(0, 4), (14, 4, 0, 3.1111, 3.1111, 3.1111), 5e-5),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_published_mixing_table(name: str) -> None:
    """Gauss-Hermite nodes in place of noise, to the digits that are printed."""
    problem, expected, digits = TABLE[name]
    exact = moments(problem)
    best = covariance_weight(exact.score, exact.pathwise, exact.covariance)
    naive = inverse_variance_weight(exact.score, exact.pathwise)
    found = (
        float(exact.score),
        float(exact.pathwise),
        float(exact.covariance),
        mixed_variance(exact, best),
        mixed_variance(exact, naive),
        mixed_variance(exact._replace(covariance=scalar(0)), naive),
    )
    assert found == pytest.approx(expected, abs=digits)


POINTS = [
    cosine(1.3, 0.2, m=-0.4, s=0.5),
    cosine(2, 0.17),
    cosine(0.5),
    exponential(1, 0.1, m=-0.6, s=0.7),
    exponential(0.1),
    exponential(2, 0.05),
    quadratic(3),
    quadratic(-3, 19),
    quadratic(1.5, 0.5, m=0.3, s=0.4),
]


@pytest.mark.parametrize("problem", POINTS)
def test_the_optimum_elsewhere(problem: Problem) -> None:
    """C is E[f'^2 + (f - b) f''] - g^2 by Stein's lemma, and the least variance as it should be.

    It is (V_s V_r - C^2) / (V_s + V_r - 2C); other weights are worse by their squared distance.
    """
    exact = moments(problem)
    eps, weight = hermite()
    x = problem.m + problem.s * eps
    product = problem.slope(x) ** 2 + (problem.f(x) - problem.baseline) * problem.bend(x)
    C, (V, R) = float(weight @ product - exact.gradient**2), (exact.score, exact.pathwise)
    assert float(exact.covariance) == pytest.approx(C, rel=1e-7, abs=1e-9)
    best = covariance_weight(V, R, exact.covariance)
    difference_variance = float(V + R) - 2 * C
    least = (float(V * R) - C * C) / difference_variance
    assert mixed_variance(exact, best) == pytest.approx(least, rel=1e-7)
    for step in (-0.3, 0.1):
        worse = mixed_variance(exact, best + step)
        assert worse == pytest.approx(least + step**2 * difference_variance, rel=1e-7)


def test_raw_scores_may_have_so_much_covariance_that_inverse_variances_lose() -> None:
    """(x - 3)^2 and (x + 3)^2 without a baseline: 1.25 and 1.14 times the variance of pathwise.

    C = E[f'^2 + f f''] - g^2 = 6 E[f] - g^2 = 14 and 38, against V_r = 4, so the optimum is beyond
    1: (87 - 14) / (91 - 28) and (495 - 38) / (499 - 76).
    """
    for k, best, loss in ((3, 73 / 63, 1.25), (-3, 457 / 423, 1.14)):
        exact = moments(quadratic(k))
        weight = covariance_weight(exact.score, exact.pathwise, exact.covariance)
        assert float(weight) == pytest.approx(best, rel=1e-9)
        naive = inverse_variance_weight(exact.score, exact.pathwise)
        assert mixed_variance(exact, naive) == pytest.approx(4 * loss, rel=5e-3)


def test_weights_by_hand() -> None:
    """V_s = 6, V_r = 2: C = 1 gives 5 / 6, C = 3 gives 3 / 2; inverse variances 3 / 4.

    The limits hold for V_s = 1.2, V_r = 1: with C = 1.09 the optimum is 5.5 (and -4.5 the other way
    round). The lower limit is not exactly 0, which would say that pathwise was rejected. Where
    nothing varies, or the difference does not, there is no preference.
    """

    def found(V: float, R: float, C: float) -> float:
        return float(covariance_weight(scalar(V), scalar(R), scalar(C)))

    assert found(6, 2, 1) == pytest.approx(5 / 6) and found(6, 2, 3) == pytest.approx(1.5)
    assert found(1.2, 1, 1.09) == 1.5 and 0 < found(1, 1.2, 1.09) < 1e-30
    assert found(0, 0, 0) == found(2, 2, 2) == 0.5
    assert float(inverse_variance_weight(scalar(6), scalar(2))) == pytest.approx(0.75)
    assert float(inverse_variance_weight(scalar(0), scalar(0))) == 0.5
    rows = covariance_weight(torch.tensor([6.0, 0]), torch.tensor([2.0, 0]), torch.tensor([1.0, 0]))
    assert rows.tolist() == pytest.approx([5 / 6, 0.5])


# Sampling -----------------------------------------------------------------------------------------

RAW = {
    "cos k=0.5 raw": cosine(0.5),
    "exp k=0.1 raw": exponential(0.1),
    "quad k=3 raw": quadratic(3),
    "quad k=-3 raw": quadratic(-3),
    "quad k=0 raw": quadratic(0),
}
SAMPLED = {name: problem for name, (problem, _, _) in TABLE.items()} | RAW


def variance_and_error(values: Tensor) -> tuple[float, float]:
    """The variance of a sample, and its standard error ``sqrt((m_4 - V^2) / N)``."""
    centred = values - values.mean()
    variance = centred.square().sum() / (len(values) - 1)
    return float(variance), math.sqrt(float(centred.pow(4).mean() - variance**2) / len(values))


@pytest.mark.parametrize("name", SAMPLED)
def test_the_cross_fitted_mix_reaches_the_optimum(name: str) -> None:
    """A million trajectories: the least variance that quadrature knows, within 4.5 standard errors.

    They are below 5 % of it, so that is what the test can see. A weight from half a million is off
    by 0.1 % of a standard deviation, which adds nothing. The mean is right to |z| < 4.
    """
    problem, exact = SAMPLED[name], moments(SAMPLED[name])
    score, pathwise = problem.gradients(normal(1_000_000, seed=2))
    weight = cross_fitted_weight({"m": score}, {"m": pathwise})
    mixed = mix_gradients({"m": score}, {"m": pathwise}, weight)["m"]
    least = mixed_variance(exact, covariance_weight(exact.score, exact.pathwise, exact.covariance))
    variance, error = variance_and_error(mixed)
    assert 4.5 * error < 0.05 * least
    assert abs(variance - least) < 4.5 * error
    assert abs(float(mixed.mean() - exact.gradient)) < 4 * math.sqrt(variance / 1_000_000)


@pytest.mark.parametrize("name", SAMPLED)
def test_batches_are_unbiased_and_no_worse_than_the_better_of_the_two(name: str) -> None:
    """3906 batches of 256, so folds of 128: E[(mean - g)^2] 256 is below 1.05 of the better V.

    With 4.5 standard errors on top. The mean over all batches is g to |z| < 4.
    """
    problem, exact = SAMPLED[name], moments(SAMPLED[name])
    score, pathwise = problem.gradients(normal(3906, 256, 1, seed=5))
    weight = cross_fitted_step_weights(score, pathwise)
    mixed = torch.lerp(score, pathwise, weight.unsqueeze(-1)).mean((1, 2)) - exact.gradient
    assert abs(float(mixed.mean())) < 4 * float(mixed.std()) / math.sqrt(3906)
    square = 256 * mixed.square()
    upper = float(square.mean() + 4.5 * square.std() / math.sqrt(3906))
    assert upper < 1.05 * float(torch.minimum(exact.score, exact.pathwise))


# Three outcomes of (score function, pathwise), both with mean 1, and skewed.
OUTCOMES = torch.tensor([[0.0, 0.5], [1.0, 2.0], [5.0, 0.0]], dtype=F64)
CHANCES = torch.tensor([0.5, 0.375, 0.125], dtype=F64)


def enumerated() -> tuple[Tensor, Tensor, Tensor]:
    """All 729 samples of six trajectories ``[729, 6, 1]``, and the probability of each."""
    index = torch.tensor(list(itertools.product(range(3), repeat=6)))
    pair = OUTCOMES[index]
    return pair[..., :1], pair[..., 1:], CHANCES[index].prod(1)


@pytest.mark.parametrize("rule", [covariance_weight, inverse_variance_weight])
def test_cross_fitting_is_what_makes_the_mix_unbiased(
    rule: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> None:
    """Exact sums over all samples: with it the mean is 1, fitted on all six it is off by a tenth.

    With the guard and the limits at work: they are fitted on the other fold as well.
    """
    score, pathwise, p = enumerated()
    assert (CHANCES @ OUTCOMES).tolist() == [1.0, 1.0]

    def mean(weight: Tensor) -> float:
        return float(p @ torch.lerp(score, pathwise, weight.unsqueeze(-1)).mean((1, 2)))

    assert mean(cross_fitted(score, pathwise, rule)) == pytest.approx(1, abs=1e-12)
    own = guarded_weight(score, pathwise, rule).unsqueeze(-1).expand(-1, 6)
    assert abs(mean(own) - 1) > 0.1


@pytest.mark.parametrize("num", [6, 7, 12, 30, 33, 64])
def test_a_trajectorys_weight_does_not_depend_on_it(num: int) -> None:
    """A changed trajectory changes exactly the weights of the other folds."""
    score = {"a": normal(num, 2, 3), "b": normal(num, seed=1)}
    pathwise = {"a": normal(num, 2, 3, seed=2), "b": normal(num, seed=3)}
    before = cross_fitted_weight(score, pathwise)
    for i in range(num):
        changed = {name: g.clone() for name, g in score.items()}
        changed["a"][i] += 10
        count = len(folds(num))
        other = torch.arange(num) % count != i % count
        assert torch.equal(cross_fitted_weight(changed, pathwise) != before, other)


def test_the_weight_of_the_whole_gradient_is_that_of_its_flattened_entries() -> None:
    """Traces of both parameters together, whatever the order of their names.

    With 120 trajectories there are two folds. The score function's variance is raised by
    ``g = exp(2 / sqrt(n_eff))``, and the covariance by its root.
    """
    score = {"a": normal(120, 2, 3), "b": normal(120, seed=1)}
    pathwise = {"b": normal(120, seed=3), "a": 0.5 * score["a"] + normal(120, 2, 3, seed=2)}
    found = cross_fitted_weight(score, pathwise)
    one = np.concatenate([score["a"].reshape(120, -1), score["b"].reshape(120, 1)], 1)
    two = np.concatenate([pathwise["a"].reshape(120, -1), pathwise["b"].reshape(120, 1)], 1)
    for own in (0, 1):
        covariance = np.cov(one[1 - own :: 2].T, two[1 - own :: 2].T)
        V, R, C = (
            np.trace(block)
            for block in (covariance[:7, :7], covariance[7:, 7:], covariance[:7, 7:])
        )
        other = one[1 - own :: 2]
        squares = np.square(other - other.mean(0)).sum(1)
        g = np.exp(2 * np.sqrt(np.square(squares).sum()) / squares.sum())
        V, C = g * V, np.sqrt(g) * C
        assert found[own::2].tolist() == pytest.approx([(V - C) / (V + R - 2 * C)] * 60)


def test_step_weights_are_those_of_each_step_on_its_own() -> None:
    """[T, N], in the gradients' dtype, from statistics in float64."""
    score, pathwise = normal(5, 12, 2), normal(5, 12, 2, seed=1)
    found = cross_fitted_step_weights(score, pathwise)
    for t in range(5):
        alone = cross_fitted_weight({"u": score[t]}, {"u": pathwise[t]})
        torch.testing.assert_close(found[t], alone)
    low = score.float() + 1e6, pathwise.float() + 1e6
    weight = cross_fitted_step_weights(*low)
    assert weight.dtype == torch.float32 and found.shape == (5, 12)
    exact = cross_fitted_step_weights(low[0].double(), low[1].double())
    torch.testing.assert_close(weight.double(), exact, rtol=1e-6, atol=1e-6)


def test_what_states_add_to_both_hardly_moves_the_variance() -> None:
    """V_s = 9, V_r = 1, C = 0, and a shift of both by the state of variance 100.

    The formula's weight stays at 0.9, because the shift cancels in it; inverse variances go to
    g 109 / (g 109 + 101), with an error of 1 / sqrt(4n) = 0.004 at most; g = 1.0248 is the tail
    factor of 20 000 normal deviations, of which n_eff = n / 3 count. The fitted weight is moved by
    g towards its limit of 1.5. The variance of the mix, 100.9 at 0.9, rises by 4 % at most.
    """
    exact = [torch.tensor(x, dtype=F64) for x in (109.0, 101.0, 100.0)]
    assert float(covariance_weight(*exact)) == pytest.approx(0.9)
    state = 10 * normal(1, 40_000, 1, seed=2)
    score, pathwise = 3 * normal(1, 40_000, 1) + state, normal(1, 40_000, 1, seed=1) + state
    weight = cross_fitted_step_weights(score, pathwise)
    added = 10 * (weight - 0.9).square()
    assert float(added.max()) < 0.04 * 100.9
    naive = cross_fitted_step_weights(score, pathwise, inverse_variance_weight)
    raised = 109 * math.exp(2 / math.sqrt(20_000 / 3))
    assert float((naive - raised / (raised + 101)).abs().max()) < 4.5 * 0.0036


def test_a_few_wild_trajectories_do_not_spoil_a_calm_fold() -> None:
    """The score function has 7.5 times the variance of pathwise: x^2 at N(1, 1), by mean and sigma.

    A thousand batches of 64, in which the mix has at most 1.1 times the variance of pathwise, 16,
    within 4.5 standard errors. With the plain optimum, fitted on halves, it has twice as much.
    """
    eps = normal(1000, 64, 1, seed=9)
    value = (1 + eps).square()
    folded = torch.stack([leave_one_out_by_fold(v.T, torch.ones(1, 64) > 0).T for v in value])
    weight = value - folded
    score = torch.cat([weight * eps, weight * (eps.square() - 1)], -1)
    pathwise = 2 * torch.cat([1 + eps, (1 + eps) * eps], -1)
    share = cross_fitted_step_weights(score, pathwise).unsqueeze(-1)
    errors = torch.lerp(score, pathwise, share).mean(1) - torch.tensor([2.0, 2.0], dtype=F64)
    squares = 64 * errors.square().sum(-1)
    assert float(squares.mean()) < 1.1 * 16 + 4.5 * float(squares.std()) / math.sqrt(1000)
    assert float(errors.mean(0).abs().max()) < 4.5 * float(errors.std(0).max()) / math.sqrt(1000)


def test_a_weight_at_its_lower_limit_is_not_a_rejection() -> None:
    """Pathwise is the score function plus noise: C > V_s, and the best weight is below 0."""
    score = 10 + normal(3, 64, 1)
    weight = cross_fitted_step_weights(score, 3 * score + 0.1 * normal(3, 64, 1, seed=1) - 20)
    assert float(weight.max()) < 1e-30 and bool((weight > 0).all())
    assert bool((weight.float() > 0).all())


@pytest.mark.parametrize(("squares", "number"), [([1.0, 1, 1, 1], 4), ([0.0, 0, 3, 0], 1)])
def test_the_tail_factor_by_hand(squares: list[float], number: int) -> None:
    """exp(2 / sqrt(n_eff)), with n_eff the number of trajectories that share the variance."""
    found = float(tail_factor(torch.tensor(squares, dtype=F64)))
    assert found == pytest.approx(math.exp(2 / math.sqrt(number)))
    assert float(tail_factor(torch.zeros(3))) == 1


@pytest.mark.parametrize(
    ("num", "count"), [(6, 2), (16, 2), (24, 3), (56, 7), (64, 8), (80, 4), (112, 2), (1000, 2)]
)
def test_folds_leave_56_trajectories_to_fit_on_if_they_can(num: int, count: int) -> None:
    """Each trajectory is in one fold; a fold has eight trajectories at least, where N allows."""
    found = folds(num)
    assert len(found) == count
    assert sorted(i for fold in found for i in range(num)[fold]) == list(range(num))


@pytest.mark.parametrize("num", [1, 5])
def test_too_few_trajectories_are_refused(num: int) -> None:
    """Each fold needs three; the message says what to do."""
    with pytest.raises(RequestError, match="num_envs"):
        cross_fitted_weight({"m": normal(num, 2)}, {"m": normal(num, 2)})
    with pytest.raises(RequestError, match="num_envs"):
        cross_fitted_step_weights(normal(4, num, 2), normal(4, num, 2))


def test_shapes_that_differ_are_refused() -> None:
    """Shapes are checked before any tensor is broadcast."""
    with pytest.raises(ValueError, match="the same shape"):
        cross_fitted_step_weights(normal(4, 8, 2), normal(4, 8, 1))
    with pytest.raises(ValueError, match="score must have shape"):
        cross_fitted_step_weights(normal(8, 2), normal(8, 2))
    with pytest.raises(ValueError, match=r"weight must have shape \[8\]"):
        mix_gradients({"m": normal(8, 2)}, {"m": normal(8, 2)}, normal(8, 1))


def test_gradients_are_mixed_trajectory_by_trajectory() -> None:
    """(1 - a_i) s_i + a_i r_i for parameters of any shape."""
    score = {"a": normal(3, 2, 2), "b": normal(3, seed=1)}
    pathwise = {"a": normal(3, 2, 2, seed=2), "b": normal(3, seed=3)}
    found = mix_gradients(score, pathwise, torch.tensor([0.0, 1.0, 0.25], dtype=F64))
    for name in score:
        assert torch.equal(found[name][0], score[name][0])
        assert torch.equal(found[name][1], pathwise[name][1])
        torch.testing.assert_close(found[name][2], 0.75 * score[name][2] + 0.25 * pathwise[name][2])


# The guard ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num", "size"), [(9, 4), (5, 30)])
def test_the_guards_z_is_the_significance_of_the_difference(num: int, size: int) -> None:
    """Many samples at once, with fewer and with more trajectories than entries."""
    score, pathwise = normal(3, num, size), normal(3, num, size, seed=1) + 0.3
    found = difference_z(score - pathwise)
    for i in range(3):
        pair = gradient_difference({"p": score[i]}, {"p": pathwise[i]})
        expected = GradientStatistics.of(pair).significance
        assert float(found[i]) == pytest.approx(float(expected), rel=1e-9)
    assert difference_z(torch.zeros(2, 6, 3, dtype=F64)).tolist() == [0.0, 0.0]


def test_pathwise_that_misses_a_jump_gets_the_weight_0() -> None:
    """F = 1[x > 0]: its pathwise gradient is 0 throughout, and without the guard has weight 1.

    1000 trajectories: in folds of 500, z is above 10 in every one of 2000 trials.
    """
    eps = normal(1000)
    score, pathwise = {"m": (eps > 0).double() * eps}, {"m": torch.zeros_like(eps)}
    assert float(difference_z(score["m"].unsqueeze(-1))) > BIAS_Z
    weight = cross_fitted_weight(score, pathwise)
    assert weight.tolist() == [0.0] * 1000
    assert torch.equal(mix_gradients(score, pathwise, weight)["m"], score["m"])


def test_the_guard_tests_each_step_and_accepts_a_smooth_one() -> None:
    """Step 0 is 1[x > 0], step 1 cos x: its weight is the rule's, up to rounding."""
    eps = normal(1000, 1)
    smooth = cosine(1).gradients(eps)
    score = torch.stack([(eps > 0).double() * eps, smooth[0]])
    pathwise = torch.stack([torch.zeros_like(eps), smooth[1]])
    found = cross_fitted_step_weights(score, pathwise)
    assert bool((found[0] == 0).all())
    for own, other in (folds(1000), folds(1000)[::-1]):
        a, b = (x[other] - x[other].mean() for x in smooth)
        V, R, C = ((x * y).sum() / 499 for x, y in ((a, a), (b, b), (a, b)))
        g = tail_factor(a.square().squeeze(-1))
        expected = covariance_weight(g * V, R, g.sqrt() * C)
        torch.testing.assert_close(found[1, own], expected.expand(500))


def test_the_guard_seldom_speaks_where_nothing_is_wrong() -> None:
    """20 000 samples of 56, f = cos x and x^2 with its mean as the baseline: below 1 in 1000.

    For mean and sigma of exp(2x) the tail is so heavy that the plain z rejects more than a fifth of
    all samples of 224: the tail factor halves that at least.
    """
    for problem in (cosine(1), quadratic(0, 2)):
        score, pathwise = problem.gradients(normal(20_000, 56, 1, seed=7))
        assert float((cautious_z(score - pathwise) > BIAS_Z).double().mean()) < 0.001
    eps = normal(4000, 224, 1, seed=9)
    value = (2 + 2 * eps).exp()
    weight = value - value.mean(1, keepdim=True)
    score = torch.cat([weight * eps, weight * (eps.square() - 1)], -1)
    difference = score - 2 * torch.cat([value, value * eps], -1)
    plain, cautious = (
        float((z(difference) > BIAS_Z).double().mean()) for z in (difference_z, cautious_z)
    )
    assert plain > 0.2 and cautious < 0.5 * plain + 4.5 * math.sqrt(0.25 / 4000)


def test_the_guard_sees_a_jump_in_a_sample_of_56() -> None:
    """F = 1[x > 0] with its mean as the baseline: in 98 of 100 samples at least."""
    eps = normal(5_000, 56, 1, seed=8)
    score = ((eps > 0).double() - 0.5) * eps
    assert float((cautious_z(score) > BIAS_Z).double().mean()) > 0.98


# The leave-one-out baseline of a fold -------------------------------------------------------------


def test_the_baseline_of_a_fold_knows_nothing_of_the_other() -> None:
    """Returns 1..5: folds (1, 3, 5) and (2, 4), each without its own; invalid ones do not count."""
    returns = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    yes = torch.ones(1, 5, dtype=torch.bool)
    assert leave_one_out_by_fold(returns, yes).tolist() == [[4.0, 4.0, 3.0, 2.0, 2.0]]
    yes[0, 2] = False
    assert leave_one_out_by_fold(returns, yes).tolist() == [[5.0, 4.0, 3.0, 2.0, 1.0]]


# Linear-quadratic-Gaussian: several steps ---------------------------------------------------------

SIGMA, GAMMA = 0.3, 0.95


class Episodes(NamedTuple):
    """Episodes of the reference system."""

    policy: Policy
    window: Window
    pathwise: Tensor
    """The pathwise gradient ``dJ/du`` ``[5, N, 1]``."""

    def weight(self, baseline: Tensor) -> Tensor:
        zeros = torch.zeros_like(self.window.reward)
        return matched_score_weight(self.window, zeros, baseline, GAMMA)

    def gradients(self, surrogate: Callable[[], Tensor]) -> Tensor:
        """Each trajectory's gradient ``[N, 3]`` by K, k and sigma."""
        recorder = GradientRecorder(self.policy)
        with recorder.recording():
            values = surrogate()
        found = recorder.per_trajectory(values)
        by = [found[name].flatten(1) for name in ("head.output.weight", "head.output.bias")]
        return torch.cat([*by, found["head.std.log_std"] / SIGMA], 1)


def episodes(num_envs: int, seed: int) -> Episodes:
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
    objective = window_objective(window, torch.zeros(5, num_envs, dtype=F64), GAMMA)
    gradient = action_gradient(objective, window)
    return Episodes(policy, window.detach(), gradient)


def exact_value(obs: Tensor) -> Tensor:
    """``-(z' V_t z + sum_{j >= t} gamma^(j-t) [sigma^2 R + gamma tr(V_{j+1} G)])`` ``[5, N]``."""
    system = LQG().system
    gain = [torch.tensor(x, dtype=F64) for x in ([[-0.4]], [0.2], [SIGMA])]
    Kz, F, G = closed_loop(system, *gain)
    matrices = cost_to_go(system, F, Kz)
    z = torch.cat([obs, torch.ones_like(obs)], -1)
    tail, values = 0.0, []
    for t in range(4, -1, -1):
        stage = SIGMA**2 * float(system.R) + GAMMA * float((matrices[t + 1] * G).sum())
        tail = stage + GAMMA * tail
        values.append(-((z[t] @ matrices[t]) * z[t]).sum(-1) - tail)
    return torch.stack(values[::-1])


def test_the_table_by_the_gain_of_the_reference_system() -> None:
    """200 000 episodes, the score function with the exact value: 84.147, 14.335 and C 16.133.

    Pathwise is part of the score function, so the optimum, 14.28642, is at 1.027, and inverse
    variances have 16.262, more than pathwise alone. All within 4.5 standard errors.
    """
    sample = episodes(200_000, seed=0)
    policy, window, by_action = sample
    weight = sample.weight(exact_value(window.obs))
    score = sample.gradients(lambda: score_function_surrogate(policy, window, weight))[:, 0]
    pathwise = sample.gradients(lambda: pathwise_surrogate(policy, window, by_action))[:, 0]
    pair = {"K": score}, {"K": pathwise}
    best = cross_fitted_weight(*pair)
    assert best.tolist() == pytest.approx([1.0272] * 200_000, abs=0.02)
    naive = cross_fitted_weight(*pair, inverse_variance_weight)
    for gradients, expected in (
        (score, 84.14710139),
        (pathwise, 14.33524067),
        (mix_gradients(*pair, best)["K"], 14.28642),
        (mix_gradients(*pair, naive)["K"], 16.262),
    ):
        variance, error = variance_and_error(gradients)
        assert abs(variance - expected) < 4.5 * error < 0.08 * expected
    product = (score - score.mean()) * (pathwise - pathwise.mean())
    assert abs(float(product.mean()) - 16.13316) < 4.5 * float(product.std()) / 200_000**0.5


def test_step_weights_of_small_batches_leave_the_gradient_unbiased() -> None:
    """12 500 batches of 16 episodes: |z| < 4.5 by K, k and sigma.

    Without a baseline, so E[w | s] is far from 0; with weights of single steps and of running sums.
    """
    batches, num = 12_500, 16
    sample = episodes(batches * num, seed=1)
    policy, window, pathwise = sample
    weight = sample.weight(torch.zeros_like(window.reward))
    score = score_action_gradient(policy, window, weight)

    def step_weights(one: Tensor, two: Tensor) -> Tensor:
        one, two = (x.reshape(5 * batches, num, 1) for x in (one, two))
        return cross_fitted_step_weights(one, two).reshape(5, -1)

    exact = torch.tensor([-4.52081375, -4.73344223, -1.29775712], dtype=F64)
    for mix in (step_weights(score, pathwise), step_weights(score.cumsum(0), pathwise.cumsum(0))):
        found = sample.gradients(
            lambda mix=mix: mixed_surrogate(policy, window, weight, pathwise, mix)  # type: ignore[misc]
        )
        means = found.reshape(batches, num, 3).mean(1)
        error = means.std(0) / math.sqrt(batches)
        assert float(((means.mean(0) - exact) / error).abs().max()) < 4.5
        # The test has power: a tenth of the gradient amiss would be seen.
        assert float((0.1 * exact / error).abs().min()) > 4.5


# The surrogate ------------------------------------------------------------------------------------


def scalar_policy(mean: float, std: float) -> Policy:
    """U = mean + std eps at observation 0, in float64; its parameters are a bias and a log-std."""
    policy = GaussianPolicy(LINE, LINE, ()).double()
    assert isinstance(policy.head, GaussianHead) and policy.head.std is not None
    head = policy.head.output
    with torch.no_grad():
        head.bias.fill_(mean)
        policy.head.std.log_std.fill_(math.log(std))
    return policy


def one_step(policy: Policy, noise: Tensor) -> Window:
    """A plain window of one step at observation 0."""
    obs = torch.zeros(1, len(noise), 1, dtype=F64)
    with torch.no_grad():
        action = policy(obs).pre_action(noise.reshape(obs.shape))
    yes = torch.ones(1, len(noise), dtype=torch.bool)
    return Window(
        obs=obs,
        next_obs=obs,
        noise=noise.reshape(obs.shape),
        pre_action=action,
        action=action,
        log_prob=torch.zeros(1, len(noise), dtype=F64),
        reward=torch.zeros(1, len(noise), dtype=F64),
        terminated=yes,
        truncated=~yes,
        valid=yes,
    )


def expected_gradient(policy: Policy, surrogate: Tensor, weight: Tensor) -> list[float]:
    """Gradients of the weighted surrogate by the mean and by sigma."""
    assert isinstance(policy.head, GaussianHead) and policy.head.std is not None
    head = policy.head.output
    leaves = [head.bias, policy.head.std.log_std]
    by_mean, by_log_std = torch.autograd.grad(weight @ surrogate, leaves)
    return [float(by_mean), float(by_log_std / policy.head.std.log_std.detach().exp())]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, 1.4])
def test_mixing_action_gradients_is_biased_by_sigma_and_mixing_surrogates_is_not(
    share: float,
) -> None:
    """F = cos x at N(1, 0.5^2), by Gauss-Hermite quadrature: exact up to rounding.

    The action gradient w eps / sigma, put through u = mu + sigma eps, adds (1 - a) E[w] / sigma by
    sigma. With the expectation as the baseline it adds nothing.
    """
    m, s = 1.0, 0.5
    noise, chance = hermite(80)
    policy = scalar_policy(m, s)
    window = one_step(policy, noise)
    decay = math.exp(-(s**2) / 2)
    truth = [-decay * math.sin(m), -s * decay * math.cos(m)]
    value = decay * math.cos(m)
    pathwise = -torch.sin(window.pre_action)
    mix = torch.full((1, len(noise)), share, dtype=F64)
    for baseline in (0.0, value, 0.9):
        w = torch.cos(window.pre_action).squeeze(-1) - baseline
        right = mixed_surrogate(policy, window, w, pathwise, mix)
        assert expected_gradient(policy, right, chance) == pytest.approx(truth, rel=1e-9)
        score = score_action_gradient(policy, window, w)
        by_action = torch.lerp(score, pathwise, mix.unsqueeze(-1))
        short_cut = pathwise_surrogate(policy, window, by_action)
        bias = (1 - share) * (value - baseline) / s
        assert expected_gradient(policy, short_cut, chance) == pytest.approx(
            [truth[0], truth[1] + bias], rel=1e-9
        )


def test_the_mixed_surrogate_is_the_twins_with_their_shares() -> None:
    """Per trajectory, and per step: at mix 0 and 1 it has the gradient of one alone."""
    sample = episodes(4, seed=3)
    policy, window, pathwise = sample
    weight = sample.weight(torch.zeros_like(window.reward))
    mix = torch.rand(5, 4, generator=seeded(1), dtype=F64)
    mix[:, 2], mix[:, 3] = 0.0, 1.0
    found = sample.gradients(lambda: mixed_surrogate(policy, window, weight, pathwise, mix))
    score = sample.gradients(lambda: score_function_surrogate(policy, window, weight))
    other = sample.gradients(lambda: pathwise_surrogate(policy, window, pathwise))
    torch.testing.assert_close(found[2], score[2])
    torch.testing.assert_close(found[3], other[3])
    eps = window.noise.squeeze(-1)
    by_k = (1 - mix) * weight * eps / SIGMA + mix * pathwise.squeeze(-1)
    torch.testing.assert_close(found[:, 1], by_k.sum(0))
    by_sigma = (1 - mix) * weight * (eps**2 - 1) / SIGMA + mix * pathwise.squeeze(-1) * eps
    torch.testing.assert_close(found[:, 2], by_sigma.sum(0))


def test_a_mix_of_another_shape_is_refused() -> None:
    """[N] would broadcast over steps without a word."""
    policy, window, pathwise = episodes(4, seed=3)
    with pytest.raises(ValueError, match=r"mix must have shape \[5, 4\]"):
        mixed_surrogate(policy, window, window.reward, pathwise, torch.ones(4))
