"""Tests common to the three environments with a constant observation: Chaos, Step, Wall."""

import dataclasses
import math
from typing import NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from torch import Tensor

import pgtoolkit.envs
from pgtoolkit.diagnostics.per_trajectory import GradientRecorder
from pgtoolkit.diagnostics.statistics import GradientStatistics, gradient_difference
from pgtoolkit.envs.analytic.chaos import Chaos
from pgtoolkit.envs.analytic.open_loop import OpenLoopState, indicator
from pgtoolkit.envs.analytic.step import Step
from pgtoolkit.envs.analytic.wall import Wall
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.states import cast_state
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.surrogates import (
    action_gradient,
    matched_score_weight,
    pathwise_surrogate,
    score_function_surrogate,
    window_objective,
)
from pgtoolkit.policies.gaussian import GaussianHead, GaussianPolicy
from pgtoolkit.rollouts.rollout import reset, unroll

F64 = torch.float64
CPU = torch.device("cpu")
OpenLoop = Chaos | Step | Wall
IDS = ["pgtoolkit/Chaos-v0", "pgtoolkit/Step-v0", "pgtoolkit/Wall-v0"]
ENVS: list[OpenLoop] = [Chaos(horizon=3), Step(), Step(smoothing=0.3), Wall()]


def length(env: OpenLoop) -> int:
    """The number of steps of an episode."""
    return env.horizon if isinstance(env, Chaos) else 1


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The views --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space.*")
@pytest.mark.parametrize("env_id", IDS)
def test_gymnasium_accepts_it(env_id: str) -> None:
    check_env(gymnasium.make(env_id).unwrapped)


@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric and normalized Box")
@pytest.mark.parametrize("env_id", IDS)
def test_stable_baselines3_accepts_it(env_id: str) -> None:
    sb3_check_env(gymnasium.make(env_id, render_mode="rgb_array"))


@pytest.mark.parametrize("env_id", IDS)
def test_the_differentiable_environment_is_inside(env_id: str) -> None:
    env = gymnasium.make(env_id).unwrapped
    assert isinstance(env, NumpyEnv)
    name = env_id.removeprefix("pgtoolkit/").removesuffix("-v0")
    assert type(env.env) is getattr(pgtoolkit.envs, name)


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_an_episode_observes_0_and_terminates(env: OpenLoop, dtype: torch.dtype) -> None:
    """The observation is 0 before and after; the last step, and only it, terminates."""
    vector = DifferentiableVectorEnv(env, 4, dtype=dtype)
    obs, _ = vector.reset(seed=0)
    assert not bool(env.terminal(env.initial(4, seeded())).any())
    for t in range(length(env)):
        assert obs.dtype == dtype and obs.tolist() == [[0.0]] * 4
        obs, reward, terminated, _, info = vector.step(torch.full((4, 1), 0.3))
        assert reward.dtype == dtype and reward.shape == (4,)
        assert bool(terminated.all()) == (t == length(env) - 1)
    assert info["final_obs"].tolist() == [[0.0]] * 4


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
def test_no_input_is_changed_and_rows_do_not_mix(env: OpenLoop) -> None:
    state, action = env.initial(3, seeded()), torch.tensor([[0.2], [-0.7], [2.0]])
    before = [leaf.clone() for leaf in (*state, action)]
    after = env.transition(state, action, None)
    reward = env.reward(state, action, after)
    assert all(torch.equal(a, b) for a, b in zip(before, (*state, action), strict=True))
    alone = OpenLoopState(state.position[1:2], state.time[1:2])
    found = env.reward(alone, action[1:2], env.transition(alone, action[1:2], None))
    assert torch.equal(found, reward[1:2])


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
def test_pictures_differ_with_the_position(env: OpenLoop) -> None:
    state = OpenLoopState(torch.tensor([[0.3], [1.4]]), torch.tensor([1, 1]))
    first, second = (env.render(state, i) for i in range(2))
    assert first.shape == (256, 256, 3) and not np.array_equal(first, second)


def test_the_indicator_has_a_graph_whose_derivative_is_zero() -> None:
    """1 above 0 only, also at infinity, where a product with 0 would be NaN."""
    x = torch.tensor([-math.inf, -1.0, 0.0, 1e-30, 2.0, math.inf], requires_grad=True)
    found = indicator(x)
    assert found.tolist() == [0, 0, 0, 1, 1, 1]
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert gradient.tolist() == [0.0] * 6


# The closed forms against quadrature, through the environment's own functions ---------------------


class Case(NamedTuple):
    env: OpenLoop
    mean: float
    sigma: float


def random_cases() -> list[Case]:
    """Random parameters, so that no formula is right at round numbers only."""
    draw = np.random.default_rng(5)
    cases = []
    for _ in range(3):
        mean, sigma = draw.normal(), draw.uniform(0.3, 1.5)
        place, jump, smoothing = draw.normal(), draw.normal() * 3, draw.uniform(0.05, 1.0)
        cases += [
            Case(Step(threshold=place), mean, sigma),
            Case(Step(threshold=place, smoothing=smoothing), mean, sigma),
            Case(Wall(target=draw.normal(), wall=place, jump=jump), mean, sigma),
        ]
    for horizon in (1, 2, 3):
        # A start that float32 holds exactly, as start states are drawn in it.
        s0 = float(np.float32(draw.normal()))
        rho, kappa = draw.uniform(-1.5, 1.5), draw.uniform(0.5, 1.5)
        chaos = Chaos(rho=rho, kappa=kappa, s0=s0, horizon=horizon)
        cases.append(Case(chaos, draw.normal(), draw.uniform(0.1, 0.6)))
    return [*cases, Case(Step(0.5, smoothing=0.001), 0.1, 1.0), Case(Chaos(1.0, 2.0), 0.1, 0.3)]


def nodes(case: Case) -> tuple[Tensor, Tensor]:
    """Noise ``[T, K]`` and weights ``[K]`` of a mean over it.

    Of one step, Gauss-Legendre on short panels that end at the jump and crowd around it; of several
    steps of a smooth return, a product of Gauss-Hermite rules.
    """
    env, steps = case.env, length(case.env)
    if isinstance(env, Chaos):
        x, w = np.polynomial.hermite_e.hermegauss(50)
        grid = np.stack(np.meshgrid(*[x] * steps, indexing="ij")).reshape(steps, -1)
        weight = np.stack(np.meshgrid(*[w / w.sum()] * steps, indexing="ij"))
        return torch.from_numpy(grid), torch.from_numpy(weight.reshape(steps, -1).prod(0))
    place, width = (env.wall, 0.0) if isinstance(env, Wall) else (env.threshold, env.smoothing)
    edge, width = (place - case.mean) / case.sigma, width / case.sigma
    breaks = np.unique([*np.linspace(-13, 13, 105), edge, *(edge + width * np.linspace(-9, 9, 37))])
    x, w = np.polynomial.legendre.leggauss(20)
    half = np.diff(breaks)[:, None] / 2
    eps = (breaks[:-1, None] + half + half * x).reshape(1, -1)
    density = np.exp(-(eps**2) / 2) / math.sqrt(2 * math.pi)
    return torch.from_numpy(eps), torch.from_numpy((half * w).reshape(-1) * density[0])


def by_quadrature(case: Case) -> tuple[float, list[dict[str, float]]]:
    """The expected return, and every field of the exact moments, by mean and by sigma."""
    noise, weight = nodes(case)
    action = (case.mean + case.sigma * noise).requires_grad_()
    state = cast_state(case.env.initial(len(weight), seeded()), CPU, F64)
    f = torch.zeros_like(weight)
    for u in action.unbind(0):
        after = case.env.transition(state, u.unsqueeze(-1), None)
        f, state = f + case.env.reward(state, u.unsqueeze(-1), after), after
    (slope,) = torch.autograd.grad(f.sum(), action)
    f, found = f.detach(), []
    for score, pathwise in (
        (noise.sum(0) / case.sigma, slope.sum(0)),
        ((noise.square() - 1).sum(0) / case.sigma, (slope * noise).sum(0)),
    ):
        g, p = float(weight @ (f * score)), float(weight @ pathwise)
        fisher = float(weight @ score.square())
        b = float(weight @ (f * score.square())) / fisher
        fields = {"gradient": g, "pathwise_mean": p, "fisher_information": fisher}
        fields["pathwise_variance"] = float(weight @ (pathwise - p).square())
        fields["score_function_variance"] = float(weight @ (f * score - g).square())
        fields["optimal_baseline"] = b
        fields["optimal_baseline_variance"] = float(weight @ ((f - b) * score - g).square())
        found.append(fields)
    return float(weight @ f), found


@pytest.mark.parametrize("case", [c for c in random_cases() if length(c.env) <= 3])
def test_every_closed_form_against_quadrature(case: Case) -> None:
    value, found = by_quadrature(case)
    assert case.env.expected_return(case.mean, case.sigma) == pytest.approx(value, rel=1e-10)
    for exact, fields in zip(case.env.exact_gradient(case.mean, case.sigma), found, strict=True):
        assert dataclasses.asdict(exact) == pytest.approx(fields, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("case", random_cases())
def test_the_gradient_is_the_derivative_of_the_expected_return(case: Case) -> None:
    """The exact gradient equals central differences of the expected return, in float64."""
    env, m, s, step = case.env, case.mean, case.sigma, 1e-5
    by_mean = (env.expected_return(m + step, s) - env.expected_return(m - step, s)) / (2 * step)
    by_sigma = (env.expected_return(m, s + step) - env.expected_return(m, s - step)) / (2 * step)
    exact = env.exact_gradient(m, s)
    assert exact.mean.gradient == pytest.approx(by_mean, rel=1e-5, abs=1e-8)
    assert exact.sigma.gradient == pytest.approx(by_sigma, rel=1e-5, abs=1e-8)


# Sampled through the policy, the vector environment and the estimators ----------------------------


class Sample(NamedTuple):
    """Gradients of every trajectory ``[N, 2]``, by mean and by sigma, on the same trajectories."""

    pathwise: Tensor
    score: Tensor
    returns: Tensor


def sample(env: OpenLoop, mean: float, sigma: float, num_envs: int, seed: int) -> Sample:
    policy = GaussianPolicy(env.observation_space, env.action_space, ()).double()
    assert isinstance(policy.head, GaussianHead) and policy.head.std is not None
    head = policy.head.output
    with torch.no_grad():
        head.bias.fill_(mean)
        policy.head.std.log_std.fill_(math.log(sigma))
    vector = DifferentiableVectorEnv(env, num_envs, dtype=F64)
    noise = torch.randn(length(env), num_envs, 1, generator=seeded(seed), dtype=F64)
    window, _ = unroll(vector, policy, reset(vector, seed=seed, device=CPU), noise)
    zeros = torch.zeros_like(window.reward).detach()
    objective = window_objective(window, zeros, 1.0)
    gradient = action_gradient(objective, window)
    window = window.detach()
    weight = matched_score_weight(window, zeros, zeros, 1.0)
    recorder, found = GradientRecorder(policy), []
    for pathwise in (True, False):
        with recorder.recording():
            if pathwise:
                surrogate = pathwise_surrogate(policy, window, gradient)
            else:
                surrogate = score_function_surrogate(policy, window, weight)
        gradients = recorder.per_trajectory(surrogate)
        assert float(gradients["head.output.weight"].abs().max()) == 0.0  # the observation is 0
        columns = [gradients["head.output.bias"], gradients["head.std.log_std"] / sigma]
        found.append(torch.cat(columns, 1))
    return Sample(found[0], found[1], objective.detach())


def mean_errors(values: Tensor, expected: list[float]) -> Tensor:
    """The distance of the columns' means from what is expected, in standard errors."""
    error = values.std(0) / math.sqrt(len(values))
    return (values.mean(0) - torch.tensor(expected, dtype=F64)).abs() / error


def variance_errors(values: Tensor, expected: list[float]) -> Tensor:
    """The distance of the columns' variances from what is expected, in standard errors.

    The variance of a sample variance is ``(m_4 - V^2) / N``.
    """
    centred = values - values.mean(0)
    variance = centred.square().mean(0)
    error = ((centred.pow(4).mean(0) - variance.square()) / len(values)).sqrt()
    return (variance - torch.tensor(expected, dtype=F64)).abs() / error


SAMPLED = [
    Case(Chaos(horizon=5), 0.0, 0.1),
    Case(Chaos(rho=0.9, kappa=1.3, horizon=4), 0.2, 0.4),
    Case(Step(), 0.5, 1.0),
    Case(Step(threshold=0.3, smoothing=0.5), 0.0, 0.7),
    Case(Wall(), 0.0, 1.0),
    Case(Wall(target=-1.0, wall=0.2, jump=2.0), 0.4, 0.6),
]


@pytest.mark.parametrize("case", SAMPLED)
def test_sampled_gradients_have_the_exact_means_and_variances(case: Case) -> None:
    """50 000 episodes, 4.5 standard errors; by mean and by sigma."""
    exact = case.env.exact_gradient(case.mean, case.sigma)
    found = sample(*case, num_envs=50_000, seed=1)
    value = case.env.expected_return(case.mean, case.sigma)
    assert float(mean_errors(found.returns.unsqueeze(1), [value])) < 4.5
    assert bool((mean_errors(found.score, [by.gradient for by in exact]) < 4.5).all())
    variances = [by.score_function_variance for by in exact]
    assert bool((variance_errors(found.score, variances) < 4.5).all())
    if isinstance(case.env, Step) and case.env.smoothing == 0:
        assert bool((found.pathwise == 0).all())
        return
    assert bool((mean_errors(found.pathwise, [by.pathwise_mean for by in exact]) < 4.5).all())
    variances = [by.pathwise_variance for by in exact]
    assert bool((variance_errors(found.pathwise, variances) < 4.5).all())


@pytest.mark.parametrize("env", [Step(), Wall()], ids=lambda env: type(env).__name__)
def test_the_bias_is_seen_at_a_thousand_trajectories(env: OpenLoop) -> None:
    """The matched difference has z > 5, with default arguments and a policy N(0, 1).

    Its mean is the exact bias.
    """
    bias = [by.pathwise_bias for by in env.exact_gradient(0.0, 1.0)]
    found = sample(env, 0.0, 1.0, num_envs=1000, seed=2)
    difference = gradient_difference({"all": found.score}, {"all": found.pathwise})
    assert float(GradientStatistics.of(difference).significance) > 5
    expected = [-b for b in bias]
    assert bool((mean_errors(found.score - found.pathwise, expected) < 4.5).all())


@pytest.mark.parametrize(
    "env", [Chaos(horizon=5), Step(smoothing=0.5)], ids=lambda env: type(env).__name__
)
def test_no_bias_is_seen_where_there_is_none(env: OpenLoop) -> None:
    found = sample(env, 0.2, 0.3, num_envs=1000, seed=3)
    difference = gradient_difference({"all": found.score}, {"all": found.pathwise})
    assert abs(float(GradientStatistics.of(difference).detectability)) < 4.5
    assert [by.pathwise_bias for by in env.exact_gradient(0.2, 0.3)] == [0.0, 0.0]


@pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)
@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 0.0), (0.0, -1.0), (math.nan, 1.0)])
def test_what_is_no_gaussian_is_refused(env: OpenLoop, mean: float, sigma: float) -> None:
    for method in (env.expected_return, env.exact_gradient):
        with pytest.raises(RequestError, match=r"positive|finite"):
            method(mean, sigma)
