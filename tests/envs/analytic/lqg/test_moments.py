import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.analytic.lqg.cost import LQGGradient, action_value_matrices
from pgtoolkit.envs.analytic.lqg.env import LQG, LQGState
from pgtoolkit.envs.analytic.lqg.moments import LQGEstimator, score_forms, step_weights
from pgtoolkit.envs.analytic.lqg.quadratic_forms import joint_moment
from pgtoolkit.envs.analytic.lqg.system import make_policy, psd_root
from pgtoolkit.envs.analytic.lqg.trajectory import (
    action_gradients,
    critic_slopes,
    linear_trajectory,
)
from pgtoolkit.errors import RequestError

ESTIMATORS: tuple[LQGEstimator, ...] = get_args(LQGEstimator)
REFERENCE = (-0.4, 0.2, 0.3)
PARAMETERS = ("K", "k", "sigma")


def assert_printed(value: float | Tensor, printed: str) -> None:
    """The value equals the published number to half a unit of its last digit."""
    exponent = Decimal(printed).as_tuple().exponent
    assert isinstance(exponent, int)
    assert float(value) == pytest.approx(float(printed), abs=0.501 * 10.0**exponent)


def assert_gradient_printed(gradient: LQGGradient, printed: Sequence[str]) -> None:
    for entry, text in zip(gradient, printed, strict=True):
        assert_printed(entry, text)


def random_system(n: int, m: int, seed: int, *, ranks: tuple[int, int] = (1, 2)) -> LQG:
    """A random system; ``ranks`` are those of ``P0`` and ``W``."""
    rng = np.random.default_rng(seed)

    def psd(size: int, rank: int) -> np.ndarray:
        root = rng.normal(size=(size, rank))
        return 0.3 * root @ root.T

    return LQG(
        A=0.5 * rng.normal(size=(n, n)),
        B=rng.normal(size=(n, m)),
        Q=psd(n, n),
        R=psd(m, m),
        Qf=psd(n, 1),
        m0=rng.normal(size=n),
        P0=psd(n, ranks[0]),
        W=psd(n, ranks[1]),
        horizon=3,
        gamma=0.9,
    )


def random_policy(env: LQG, seed: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, m = env.system.B.shape
    rng = np.random.default_rng(seed)
    return 0.3 * rng.normal(size=(m, n)), rng.normal(size=m), rng.uniform(0.3, 0.6, size=m)


# --- published values ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "variance"),
    [
        ("pathwise", ("14.33524067", "6.64592513", "7.79779941")),
        ("score_function", ("1739.47308", "1190.95306", "2354.39178")),
        ("optimal_baseline", ("417.00437", "411.10429", "813.60445")),
        ("reward_to_go", ("920.28849", "446.31074", "886.47751")),
        ("reward_to_go_value", ("84.14710139", "51.86883322", "133.88954006")),
        ("advantage", ("30.58963488", "16.35850953", "67.34534234")),
    ],
)
def test_reference_table(estimator: LQGEstimator, variance: Sequence[str]) -> None:
    moments = LQG().gradient_moments(*REFERENCE, estimator)
    assert_gradient_printed(moments.variance, variance)
    assert_gradient_printed(moments.mean, ("-4.52081375", "-4.73344223", "-1.29775712"))


@pytest.mark.parametrize(
    ("lambda_", "by_K", "by_k"),
    [
        (0.0, "51.906987", "30.328381"),
        (0.5, "58.287419", "34.442322"),
        (0.9, "75.877670", "46.277703"),
        (0.95, "79.723859", "48.877653"),
        (1.0, "84.147101", "51.868833"),
    ],
)
def test_reference_gae(lambda_: float, by_K: str, by_k: str) -> None:
    variance = LQG().gradient_moments(*REFERENCE, "gae", lambda_).variance
    assert_printed(variance.K, by_K)
    assert_printed(variance.k, by_k)


def test_reference_baseline() -> None:
    printed = ("-5.83944462", "-3.74663554", "-3.72385364")
    assert_gradient_printed(LQG().optimal_baseline(*REFERENCE), printed)


@pytest.mark.parametrize(
    ("estimator", "variance"),
    [
        ("score_function", "592.5432215741"),
        ("reward_to_go_value", "20.1506386729"),
        ("pathwise", "2.7405605297"),
    ],
)
def test_the_mini_case_of_two_steps(estimator: LQGEstimator, variance: str) -> None:
    """The reference derives them with rational arithmetic too."""
    assert_printed(LQG(horizon=2).gradient_moments(*REFERENCE, estimator).variance.K, variance)


def test_reference_mixture() -> None:
    """``alpha* = (Vs - C) / (Vs + Vr - 2C)`` on the pathwise side, which gives 14.28642."""
    env = LQG()
    c = env.gradient_covariance(*REFERENCE, "reward_to_go_value", "pathwise").K
    assert_printed(c, "16.13316")
    score = env.gradient_moments(*REFERENCE, "reward_to_go_value").variance.K
    path = env.gradient_moments(*REFERENCE, "pathwise").variance.K
    assert_printed((score * path - c**2) / (score + path - 2 * c), "14.28642")


def test_without_the_discount_on_the_score_the_gradient_is_biased() -> None:
    """Most libraries use this estimator; its mean differs from the gradient."""
    env = LQG()
    policy = make_policy(env.system, *REFERENCE)
    linear = linear_trajectory(env.system, policy)
    weight = step_weights(env.system, linear, policy, "reward_to_go", 0.95)
    means = [joint_moment(score, weight).sum() for score in score_forms(linear, policy)]
    assert_gradient_printed(LQGGradient(*means), ("-4.794693", "-5.082451", "-1.419431"))


def integrator(horizon: int, P0: float) -> LQG:
    return LQG(A=1.0, B=1.0, R=0.1, P0=P0, W=0.0, m0=0.0, horizon=horizon, gamma=1.0)


def integrator_variance(
    horizon: int, rho: float, P0: float, estimator: LQGEstimator
) -> LQGGradient:
    return integrator(horizon, P0).gradient_moments(rho - 1, 0.0, 0.3, estimator).variance


@pytest.mark.parametrize(
    ("estimator", "at_40", "to_40", "to_80"),
    [
        ("pathwise", "215.044", "1.11", "1.05"),
        ("advantage", "163.719", "1.05", None),
        ("reward_to_go_value", "785.230", "1.56", None),
        ("optimal_baseline", "1155.05", "1.77", "1.86"),
        ("score_function", "17641.9", "2.59", "2.76"),
    ],
)
def test_horizon_scaling_when_stable(
    estimator: LQGEstimator, at_40: str, to_40: str, to_80: str | None
) -> None:
    """Exponents of the horizon: variance grows as ``H`` to the one, two or three."""
    middle = integrator_variance(40, 0.5, 0.12, estimator).k
    assert_printed(middle, at_40)
    low = integrator_variance(20, 0.5, 0.12, estimator).k
    assert_printed(math.log2(middle / low), to_40)
    if to_80 is not None:
        high = integrator_variance(80, 0.5, 0.12, estimator).k
        # 1.8548 is printed as 1.86 there.
        assert math.log2(high / middle) == pytest.approx(float(to_80), abs=0.0055)


@pytest.mark.parametrize(
    ("estimator", "variance"),
    [
        ("pathwise", "8.8478e5"),
        ("reward_to_go_value", "1.6957e6"),
        ("optimal_baseline", "4.7843e6"),
        ("score_function", "1.2639e7"),
    ],
)
def test_horizon_scaling_when_marginal(estimator: LQGEstimator, variance: str) -> None:
    assert_printed(integrator_variance(20, 1.0, 1.0, estimator).K, variance)


@pytest.mark.parametrize(("horizon", "ratio"), [(10, "26"), (20, "40")])
def test_the_gap_widens_when_unstable(horizon: int, ratio: str) -> None:
    """Pathwise still wins, because the return explodes too."""
    score = integrator_variance(horizon, 1.1, 1.0, "score_function").K
    assert_printed(score / integrator_variance(horizon, 1.1, 1.0, "pathwise").K, ratio)


@pytest.mark.parametrize(
    ("estimator", "by_K", "exponent"),
    [
        ("pathwise", ("12.21", "37.25", "125.8", "456.7"), "1.00"),
        ("reward_to_go_value", ("31.88", "122.3", "578.9", "3298"), "1.57"),
        ("optimal_baseline", ("572.6", "2981", "1.766e4", "1.170e5"), "1.99"),
        ("score_function", ("1474", "9444", "7.708e4", "7.909e5"), "2.67"),
    ],
)
def test_dimension_scaling(estimator: LQGEstimator, by_K: Sequence[str], exponent: str) -> None:
    """``d`` copies of a system; the trace over all entries, and the exponent from 2 to 8 of k's."""
    by_k = {}
    for d, printed in zip((1, 2, 4, 8), by_K, strict=True):
        eye = np.eye(d)
        env = LQG(A=0.9 * eye, B=0.5 * eye, m0=0.0, P0=1.0, W=0.0, gamma=1.0)
        variance = env.gradient_moments(-0.4 * eye, 0.0, 0.3, estimator).variance
        assert_printed(variance.K.sum(), printed)
        by_k[d] = float(variance.k.sum())
        if estimator == "pathwise":
            assert_printed(by_k[d] / d, "12.794")
    assert_printed(math.log(by_k[8] / by_k[2], 4), exponent)


# --- laws --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_mean_is_the_gradient(estimator: LQGEstimator, lambda_: float) -> None:
    """The mean is the gradient for random systems, also with singular process noise or none."""
    for n, m, ranks in (
        (1, 1, (1, 1)),
        (2, 2, (1, 2)),
        (3, 2, (3, 1)),
        (2, 3, (0, 0)),
        (3, 1, (0, 2)),
    ):
        env = random_system(n, m, seed=n, ranks=ranks)
        policy = random_policy(env)
        mean = env.gradient_moments(*policy, estimator, lambda_).mean
        for found, truth in zip(mean, env.return_gradient(*policy), strict=True):
            assert found.shape == truth.shape
            assert torch.allclose(found, truth, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("parameter", "information"), [("k", 1.0), ("sigma", 2.0)])
def test_what_the_best_constant_gains(parameter: str, information: float) -> None:
    """``b^2 E[S^2]``, and a Gaussian's information is ``H / sigma^2``, twice that for sigma."""
    env = random_system(2, 3, seed=1)
    policy = random_policy(env)
    none, best = (
        getattr(env.gradient_moments(*policy, estimator).variance, parameter)
        for estimator in ("score_function", "optimal_baseline")
    )
    b = getattr(env.optimal_baseline(*policy), parameter)
    fisher = information * env.system.horizon / torch.tensor(policy[2]) ** 2
    assert torch.allclose(none - best, b**2 * fisher, rtol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_covariance_with_itself_is_the_variance(estimator: LQGEstimator) -> None:
    env = random_system(2, 2, seed=4)
    policy = random_policy(env)
    variance = env.gradient_moments(*policy, estimator, 0.5).variance
    covariance = env.gradient_covariance(*policy, estimator, estimator, 0.5)
    for one, other in zip(covariance, variance, strict=True):
        assert torch.equal(one, other)


def test_limits_of_gae() -> None:
    """Lambda 1: the return less the value. Lambda 0: the advantage, plus the process noise."""
    env, quiet = random_system(2, 2, seed=5), random_system(2, 2, seed=5, ranks=(1, 0))
    policy = random_policy(env)
    limits = [
        (
            env.gradient_moments(*policy, "gae", 1.0),
            env.gradient_moments(*policy, "reward_to_go_value"),
        ),
        (quiet.gradient_moments(*policy, "gae", 0.0), quiet.gradient_moments(*policy, "advantage")),
    ]
    for gae, twin in limits:
        for a, b in zip(gae.variance, twin.variance, strict=True):
            assert torch.allclose(a, b, rtol=1e-10)
    noisy = env.gradient_moments(*policy, "gae", 0.0).variance
    exact = env.gradient_moments(*policy, "advantage").variance
    assert all(bool((a > b).all()) for a, b in zip(noisy, exact, strict=True))


def test_without_noise_in_the_policy_only_pathwise_exists() -> None:
    """If nothing else is random, the variance of pathwise is 0."""
    env = LQG(P0=0.0, W=0.0)
    moments = env.gradient_moments(-0.4, 0.2, 0.0, "pathwise")
    assert [v.item() for v in moments.variance[:2]] == [0.0, 0.0]
    assert moments.mean.K.item() == pytest.approx(env.return_gradient(-0.4, 0.2, 0.0).K.item())
    with pytest.raises(RequestError, match="no score function"):
        env.gradient_moments(-0.4, 0.2, 0.0, "gae")
    with pytest.raises(RequestError, match="no score function"):
        env.optimal_baseline(-0.4, 0.2, 0.0)


def test_an_entry_that_nothing_depends_on() -> None:
    """The feedback from a state that is always 0: no score, so no baseline and no variance."""
    env = LQG(m0=0.0, P0=0.0, horizon=1)
    assert env.optimal_baseline(*REFERENCE).K.item() == 0.0
    for estimator in ESTIMATORS:
        moments = env.gradient_moments(*REFERENCE, estimator)
        assert moments.mean.K.item() == moments.variance.K.item() == 0.0


def test_bad_requests_are_refused() -> None:
    env: Any = LQG()
    with pytest.raises(RequestError, match="no estimator 'vpg': choose one of score_function, opt"):
        env.gradient_moments(*REFERENCE, "vpg")
    with pytest.raises(RequestError, match="no estimator 'vpg'"):
        env.gradient_covariance(*REFERENCE, "pathwise", "vpg")
    for lambda_ in (-0.1, 1.1, math.nan):
        with pytest.raises(RequestError, match="lambda_ is"):
            env.gradient_moments(*REFERENCE, "gae", lambda_)
    with pytest.raises(RequestError, match="K has shape"):
        env.gradient_moments([[1.0, 2.0]], 0.0, 0.1, "pathwise")


# --- sampling: the plain definitions, by way of the environment's own functions ------------------


def next_value(env: LQG, state: LQGState, action: Tensor, policy: tuple[Any, Any, Any]) -> Tensor:
    """``E_w[r + gamma V(s')]``: the mean over sigma points is exact for a quadratic."""
    n = len(env.system.m0)
    points = []
    for axis in math.sqrt(n) * torch.eye(n, dtype=torch.float64):
        for noise in (axis, -axis):
            after = env.transition(state, action, noise.expand_as(state.position))
            value = env.value(after, *policy)
            points.append(env.reward(state, action, after) + env.system.gamma * value)
    return torch.stack(points).mean(0)


def sample_weights(
    rewards: Tensor, values: Tensor, q_values: Tensor, gamma: float, lambda_: float
) -> dict[LQGEstimator, Tensor]:
    """The weight of each step's score, ``[H, N]``, with ``gamma^t`` included."""
    H = len(rewards)
    discount = gamma ** torch.arange(H, dtype=torch.float64).unsqueeze(-1)
    whole = (discount * rewards).sum(0)
    to_go = torch.stack(
        [sum((gamma ** (j - t) * rewards[j] for j in range(t, H)), 0 * whole) for t in range(H)]
    )
    delta = rewards + gamma * values[1:] - values[:-1]
    decay = gamma * lambda_
    gae = torch.stack(
        [sum((decay ** (j - t) * delta[j] for j in range(t, H)), 0 * whole) for t in range(H)]
    )
    return {
        "score_function": whole.expand(H, -1),
        "reward_to_go": discount * to_go,
        "reward_to_go_value": discount * (to_go - values[:-1]),
        "gae": discount * gae,
        "advantage": discount * (q_values - values[:-1]),
    }


def sample_gradients(
    env: LQG, policy: tuple[Any, Any, Any], num_envs: int, lambda_: float
) -> dict[LQGEstimator, list[Tensor]]:
    """Per-trajectory estimates ``K`` ``[N, m, n]``, ``k`` and ``sigma`` ``[N, m]``."""
    (n, m), H, gamma = env.system.B.shape, env.system.horizon, env.system.gamma
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(H + 1, num_envs, n + m, generator=generator, dtype=torch.float64)
    # A copy of the parameters for each trajectory: the gradient of the sum is all gradients.
    K, k, sigma = (
        torch.tensor(p).expand(num_envs, *p.shape).clone().requires_grad_() for p in policy
    )
    start = env.system.m0 + noise[-1, :, :n] @ psd_root(env.system.P0).T
    state = LQGState(start, torch.zeros(num_envs, dtype=torch.int64))
    states, rewards, q_values, by_critic = [state], [], [], []
    for t in range(H):
        eps, w = noise[t, :, n:], noise[t, :, :n]
        action = (K @ state.position.unsqueeze(-1)).squeeze(-1) + k + sigma * eps
        after = env.transition(state, action, w)
        rewards.append(env.reward(state, action, after))
        at = LQGState(state.position.detach(), state.time)
        leaf = action.detach().requires_grad_()
        q_values.append(next_value(env, at, leaf, policy))
        (slope,) = torch.autograd.grad(q_values[-1].sum(), leaf)
        slope = gamma**t * slope
        by_critic.append(
            (slope.unsqueeze(-1) * at.position.unsqueeze(-2), slope, slope * eps),
        )
        state = after
        states.append(state)
    total = sum((gamma**t * reward for t, reward in enumerate(rewards)), torch.zeros(()))
    estimates: dict[LQGEstimator, list[Tensor]] = {
        "pathwise": list(torch.autograd.grad(total.sum(), [K, k, sigma])),
        "critic": [torch.stack(steps).sum(0) for steps in zip(*by_critic, strict=True)],
    }
    with torch.no_grad():
        values = torch.stack([env.value(s, *policy) for s in states])
        position = torch.stack([s.position for s in states[:-1]])
        eps = noise[:H, :, n:]
        by_k = eps / sigma
        scores = [by_k.unsqueeze(-1) * position.unsqueeze(-2), by_k, (eps.square() - 1) / sigma]
        weights = sample_weights(
            torch.stack(rewards), values, torch.stack(q_values), gamma, lambda_
        )
        for name, weight in weights.items():
            estimates[name] = [torch.einsum("tn,tn...->n...", weight, score) for score in scores]
        best = env.optimal_baseline(*policy)
        estimates["optimal_baseline"] = [
            whole - b * score.sum(0)
            for whole, b, score in zip(estimates["score_function"], best, scores, strict=True)
        ]
    return estimates


def assert_sample_mean(sample: Tensor, truth: Tensor) -> None:
    """The sample's mean is within 4.5 standard errors, taken from the sample, of the truth."""
    error = sample.std(0) / math.sqrt(len(sample))
    assert bool(((sample.mean(0) - truth).abs() < 4.5 * error).all())


def test_moments_against_samples() -> None:
    """A variance is the mean of squared deviations, whose spread gives its standard error."""
    env, lambda_ = random_system(3, 2, seed=2), 0.6
    policy = random_policy(env)
    samples = sample_gradients(env, policy, 100_000, lambda_)
    assert set(samples) == set(ESTIMATORS)
    for estimator, parameters in samples.items():
        moments = env.gradient_moments(*policy, estimator, lambda_)
        for sample, mean, variance in zip(parameters, *moments, strict=True):
            assert_sample_mean(sample, mean)
            assert_sample_mean((sample - mean).square(), variance)


def test_covariances_against_samples() -> None:
    env, lambda_ = random_system(2, 2, seed=3), 0.6
    policy = random_policy(env)
    samples = sample_gradients(env, policy, 100_000, lambda_)
    truth = env.return_gradient(*policy)
    pairs: list[tuple[LQGEstimator, LQGEstimator]] = [
        ("reward_to_go_value", "pathwise"),
        ("pathwise", "optimal_baseline"),
        ("gae", "advantage"),
        ("score_function", "reward_to_go"),
        ("critic", "pathwise"),
    ]
    for first, second in pairs:
        exact = env.gradient_covariance(*policy, first, second, lambda_)
        for a, b, mean, covariance in zip(
            samples[first], samples[second], truth, exact, strict=True
        ):
            assert_sample_mean((a - mean) * (b - mean), covariance)


# --- the critic ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 2), (1, 3)])
def test_the_value_of_an_action_is_its_reward_and_what_follows(n: int, m: int) -> None:
    """Against the environment's own reward and transition, at every time and after the end."""
    env = random_system(n, m, seed=4, ranks=(1, 1))
    policy = random_policy(env)
    generator = torch.Generator().manual_seed(0)
    for t in range(env.system.horizon):
        position = 3 * torch.randn(4, n, generator=generator, dtype=torch.float64)
        action = 3 * torch.randn(4, m, generator=generator, dtype=torch.float64)
        state = LQGState(position, torch.full((4,), t))
        found = env.action_value(state, action, *policy)
        torch.testing.assert_close(found, next_value(env, state, action, policy))
    over = LQGState(position, torch.full((4,), env.system.horizon))
    assert env.action_value(over, action, *policy).tolist() == [0.0] * 4


def test_the_value_of_an_action_is_differentiable() -> None:
    env = random_system(3, 2, seed=7)
    policy = random_policy(env)
    generator = torch.Generator().manual_seed(0)
    position = torch.randn(3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    action = torch.randn(3, 2, generator=generator, dtype=torch.float64).requires_grad_()
    time = torch.tensor([0, 2, 1])
    assert torch.autograd.gradcheck(
        lambda s, u: env.action_value(LQGState(s, time), u, *policy), (position, action)
    )


def test_with_the_true_q_the_critic_has_the_mean_of_the_gradient() -> None:
    env = random_system(3, 2, seed=5)
    policy = random_policy(env)
    found = env.gradient_moments(*policy, "critic").mean
    for mean, truth in zip(found, env.return_gradient(*policy), strict=True):
        torch.testing.assert_close(mean, truth)


def test_the_critics_slope_is_the_expectation_of_pathwises() -> None:
    """Given state and action: the noise that comes after them is averaged out, by Rao-Blackwell."""
    env = random_system(3, 2, seed=5)
    policy = make_policy(env.system, *random_policy(env))
    linear = linear_trajectory(env.system, policy)
    by_path = action_gradients(env.system, linear, policy)
    slopes = critic_slopes(env.system, linear, action_value_matrices(env.system, policy))
    torch.testing.assert_close(slopes, by_path * linear.known.unsqueeze(1))


@pytest.mark.parametrize("kind", ["c s a", "c a^2", "c a"])
def test_the_bias_of_a_wrong_q_in_closed_form(kind: str) -> None:
    """Scalar moments by hand: ``s' = A s + B u + w``, ``u = K s + k + sigma eps``."""
    env, c = LQG(), 0.7
    K, k, sigma = REFERENCE
    A, B, gamma, W = 0.9, 0.5, 0.95, 0.04
    mean, square = 1.0, 0.25 + 1.0
    by_gain = by_offset = by_sigma = 0.0
    for t in range(5):
        mean_action, product = K * mean + k, K * square + k * mean
        slope = {"c s a": (square, mean, 0.0), "c a": (mean, 1.0, 0.0)}
        slope["c a^2"] = (2 * product, 2 * mean_action, 2 * sigma)
        by_gain += c * gamma**t * slope[kind][0]
        by_offset += c * gamma**t * slope[kind][1]
        by_sigma += c * gamma**t * slope[kind][2]
        F, shift = A + B * K, B * k
        noise = W + (B * sigma) ** 2
        square = F**2 * square + 2 * F * shift * mean + shift**2 + noise
        mean = F * mean + shift
    error = torch.zeros(3, 3, dtype=torch.float64)
    row, column = {"c s a": (0, 2), "c a^2": (2, 2), "c a": (1, 2)}[kind]
    error[row, column] += c / 2
    error[column, row] += c / 2
    found = env.gradient_moments(*REFERENCE, "critic", q_error=error).mean
    truth = env.return_gradient(*REFERENCE)
    bias = [float(a - b) for a, b in zip(found, truth, strict=True)]
    assert bias == pytest.approx([by_gain, by_offset, by_sigma], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("error", "message"),
    [(torch.eye(2), "q_error has shape"), ([[0, 1, 0], [0, 0, 0], [0, 0, 0]], "not symmetric")],
)
def test_errors_of_q_that_do_not_fit_are_refused(error: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        LQG().gradient_moments(*REFERENCE, "critic", q_error=error)


# --- the value function --------------------------------------------------------------------------


def test_the_value_at_the_start_is_the_expected_return() -> None:
    """The mean over sigma points of the start is exact, because the value is quadratic."""
    env = random_system(3, 2, seed=0, ranks=(2, 3))
    policy = random_policy(env)
    offsets = math.sqrt(3) * psd_root(env.system.P0).T
    position = env.system.m0 + torch.cat([offsets, -offsets])
    state = LQGState(position, torch.zeros(6, dtype=torch.int64))
    mean = env.value(state, *policy).mean().item()
    assert mean == pytest.approx(env.expected_return(*policy), rel=1e-12)


def test_the_value_satisfies_bellmans_equation() -> None:
    """``V(s) = E_u[Q(s, u)]`` at every time, over sigma points of action and process noise."""
    env = random_system(3, 2, seed=6)
    policy = random_policy(env)
    K, k, sigma = (torch.tensor(p) for p in policy)
    half = math.sqrt(2) * torch.eye(2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for t in range(env.system.horizon):
        position = 3 * torch.randn(4, 3, generator=generator, dtype=torch.float64)
        state = LQGState(position, torch.full((4,), t))
        q_values = [
            next_value(env, state, position @ K.T + k + sigma * axis, policy)
            for axis in torch.cat([half, -half])
        ]
        assert torch.allclose(env.value(state, *policy), torch.stack(q_values).mean(0), rtol=1e-12)


def test_each_state_is_valued_at_its_own_time() -> None:
    env = LQG()
    position = torch.tensor([[1.0]] * 7)
    values = env.value(LQGState(position, torch.arange(7)), *REFERENCE)
    assert values.dtype == torch.float32
    assert values[5:].tolist() == [0.0, 0.0]
    for t in range(5):
        alone = env.value(LQGState(position[:1], torch.tensor([t])), *REFERENCE)
        assert values[t].item() == alone.item()
        rest = LQG(horizon=5 - t, P0=0.0)
        assert values[t].item() == pytest.approx(rest.expected_return(*REFERENCE), rel=1e-6)


def test_the_value_is_differentiable_in_the_state() -> None:
    env = random_system(3, 2, seed=7)
    policy = random_policy(env)
    generator = torch.Generator().manual_seed(0)
    position = torch.randn(4, 3, generator=generator, dtype=torch.float64).requires_grad_()
    time = torch.tensor([0, 2, 3, 1])
    assert torch.autograd.gradcheck(lambda s: env.value(LQGState(s, time), *policy), (position,))


def test_states_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="position must have shape"):
        LQG().value(LQGState(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)), *REFERENCE)
