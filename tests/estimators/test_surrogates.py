"""The two estimators against closed forms, against each other, and against back-propagation."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

from pgtoolkit.diagnostics.per_trajectory import GradientRecorder
from pgtoolkit.distributions.quadrature import gauss_hermite
from pgtoolkit.envs import LQG, DifferentiableEnv, DifferentiableVectorEnv, Pendulum
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.baselines import leave_one_out
from pgtoolkit.estimators.reference_problems import Parameter, cosine, exponential, quadratic
from pgtoolkit.estimators.surrogates import (
    action_gradient,
    matched_score_weight,
    pathwise_surrogate,
    score_action_gradient,
    score_function_surrogate,
    window_objective,
)
from pgtoolkit.policies.discrete import CategoricalPolicy
from pgtoolkit.policies.gaussian import GaussianHead, GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import reset, unroll
from pgtoolkit.rollouts.window import Window, map_window

F64 = torch.float64
PARAMETERS: tuple[Parameter, ...] = ("mean", "std")
CPU = torch.device("cpu")
LINE = Box(-np.inf, np.inf, (1,), np.float32)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# One step, one Gaussian action: the closed forms of a Gaussian expectation ------------------------


def head(policy: Policy) -> nn.Linear:
    """The policy's last layer."""
    layer = policy.head.output
    assert isinstance(layer, nn.Linear)
    return layer


def scalar_policy(mean: float, std: float) -> Policy:
    """U = mean + std eps at observation 0, in float64; its parameters are a bias and a log-std."""
    policy = GaussianPolicy(LINE, LINE, ()).double()
    assert isinstance(policy.head, GaussianHead) and policy.head.std is not None
    with torch.no_grad():
        head(policy).bias.fill_(mean)
        policy.head.std.log_std.fill_(math.log(std))
    return policy


Function = Callable[[Tensor], Tensor]


def one_step(policy: Policy, noise: Tensor, f: Function) -> Window:
    """A differentiable window of one step that ends the episode, with reward f(u)."""
    obs = torch.zeros(1, len(noise), 1, dtype=noise.dtype)
    action_shift = torch.zeros_like(obs).requires_grad_()
    distribution = policy(obs)
    pre_action = distribution.pre_action(noise.reshape(obs.shape)) + action_shift
    over = torch.ones(1, len(noise), dtype=torch.bool)
    return Window(
        obs=obs,
        next_obs=obs,
        noise=noise.reshape(obs.shape),
        pre_action=pre_action,
        action=pre_action,
        log_prob=distribution.log_prob(pre_action).detach(),
        reward=f(pre_action).squeeze(-1),
        terminated=over,
        truncated=~over,
        valid=over,
        action_shift=action_shift,
    )


def hermite(nodes: int = 180) -> tuple[Tensor, Tensor]:
    """Nodes and weights of an expectation over a standard normal."""
    noise, weight = gauss_hermite(nodes)
    return noise.squeeze(-1), weight


def moments(policy: Policy, surrogate: Callable[[], Tensor], weight: Tensor) -> Tensor:
    """Mean and variance of the estimate by (mean, sigma), one plain backward a node: ``[2, 2]``."""
    assert isinstance(policy.head, GaussianHead) and policy.head.std is not None
    leaves = [head(policy).bias, policy.head.std.log_std]
    rows = [
        torch.cat(torch.autograd.grad(entry, leaves, retain_graph=True)) for entry in surrogate()
    ]
    std = policy.head.std.log_std.detach().exp()
    gradients = torch.stack(rows) / torch.cat([torch.ones_like(std), std])  # by sigma, not its log
    mean = weight @ gradients
    return torch.stack([mean, weight @ (gradients - mean).square()])


PROBLEMS = {
    f"{family.__name__} k={k} m={m} s={s}": family(m, s, k)
    for family, k, m, s in [
        (quadratic, -3.0, 1.0, 1.0),
        (quadratic, 0.0, 1.0, 1.0),
        (quadratic, 1.5, 0.3, 0.4),
        (exponential, 0.1, 1.0, 1.0),
        (exponential, 1.0, 1.0, 1.0),
        (exponential, 1.0, -0.6, 0.7),
        (cosine, 0.5, 1.0, 1.0),
        (cosine, 1.0, 1.0, 1.0),
        (cosine, 2.0, 1.0, 1.0),
        (cosine, 1.3, -0.4, 0.5),
    ]
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_pathwise_estimator_has_the_closed_forms_mean_and_variance(name: str) -> None:
    """Gauss-Hermite nodes in place of noise: no sampling error is left."""
    problem = PROBLEMS[name]
    noise, weight = hermite()
    policy = scalar_policy(problem.mean, problem.std)
    window = one_step(policy, noise, problem.f)
    objective = window_objective(window, torch.zeros_like(window.reward), 0.9)
    assert float(weight @ objective.detach()) == pytest.approx(problem.expectation, rel=1e-9)
    gradient = action_gradient(objective, window)
    mean, variance = moments(policy, lambda: pathwise_surrogate(policy, window, gradient), weight)
    assert mean.tolist() == pytest.approx(list(problem.gradient), rel=1e-8)
    assert variance.tolist() == pytest.approx(list(problem.pathwise_variance), rel=1e-8)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("baseline", ["none", "mean"])
def test_the_score_function_has_the_closed_forms_mean_and_variance(
    name: str, baseline: str
) -> None:
    """A constant baseline leaves the mean alone; E f as the baseline may raise the variance."""
    problem = PROBLEMS[name]
    noise, weight = hermite()
    policy = scalar_policy(problem.mean, problem.std)
    window = one_step(policy, noise, problem.f).detach()
    b = 0.0 if baseline == "none" else problem.expectation
    zeros = torch.zeros_like(window.reward)
    score = matched_score_weight(window, zeros, torch.full_like(zeros, b), 0.9)
    mean, variance = moments(
        policy, lambda: score_function_surrogate(policy, window, score), weight
    )
    expected = [problem.score_function_variance(p, b) for p in PARAMETERS]
    assert mean.tolist() == pytest.approx(list(problem.gradient), rel=1e-8)
    assert variance.tolist() == pytest.approx(expected, rel=1e-8)


def test_the_two_estimators_agree_in_float32_too() -> None:
    """Quadratic, k = 0, m = s = 1: both means are 2 and 2."""
    noise, weight = hermite(40)
    policy = scalar_policy(1, 1).float()
    window = one_step(policy, noise.float(), lambda x: x**2)
    zeros = torch.zeros_like(window.reward)
    objective = window_objective(window, zeros, 0.9)
    score = matched_score_weight(window, zeros, zeros, 0.9)
    gradient = action_gradient(objective, window)
    for surrogate in (
        pathwise_surrogate(policy, window, gradient),
        score_function_surrogate(policy, window.detach(), score),
    ):
        mean, _ = moments(policy, lambda s=surrogate: s, weight.float())  # type: ignore[misc]
        assert mean.tolist() == pytest.approx([2, 2], rel=1e-5)


# Linear-quadratic-Gaussian: closed form over several steps ----------------------------------------


class Sample(NamedTuple):
    """Gradients of every trajectory ``[N, P]`` by (K, k, sigma), from one set of trajectories."""

    pathwise: Tensor
    score: Tensor
    truth: Tensor
    """The exact gradient ``[P]``."""
    returns: Tensor
    """The return ``[N]`` of every trajectory."""


def linear_policy(env: LQG, K: Tensor, k: Tensor, sigma: Tensor) -> Policy:
    policy = GaussianPolicy(env.observation_space, env.action_space, ()).double()
    assert isinstance(policy.head, GaussianHead) and policy.head.std is not None
    with torch.no_grad():
        head(policy).weight.copy_(K)
        head(policy).bias.copy_(k)
        policy.head.std.log_std.copy_(sigma.log())
    return policy


def sample_lqg(env: LQG, K: Tensor, k: Tensor, sigma: Tensor, num_envs: int, seed: int) -> Sample:
    """Pathwise and score-function gradients of the whole return on ``num_envs`` episodes."""
    policy, gamma = linear_policy(env, K, k, sigma), env.system.gamma
    vector = DifferentiableVectorEnv(env, num_envs, dtype=F64)
    noise = torch.randn(env.max_episode_steps, num_envs, len(k), generator=seeded(seed), dtype=F64)
    window, _ = unroll(vector, policy, reset(vector, seed=seed, device=CPU), noise)
    zeros = torch.zeros_like(window.reward).detach()
    objective = window_objective(window, zeros, gamma)
    weight = matched_score_weight(window, zeros, zeros, gamma)
    gradient = action_gradient(objective, window)
    window = window.detach()

    def per_trajectory(surrogate: Callable[[], Tensor]) -> Tensor:
        recorder = GradientRecorder(policy)
        with recorder.recording():
            values = surrogate()
        gradients = recorder.per_trajectory(values)
        names = ("head.output.weight", "head.output.bias", "head.std.log_std")
        by_K, by_k, by_log_std = (gradients[name].flatten(1) for name in names)
        return torch.cat([by_K, by_k, by_log_std / sigma], 1)

    exact = env.return_gradient(K, k, sigma)
    return Sample(
        per_trajectory(lambda: pathwise_surrogate(policy, window, gradient)),
        per_trajectory(lambda: score_function_surrogate(policy, window, weight)),
        torch.cat([part.flatten() for part in exact]),
        objective.detach(),
    )


def standard_errors(values: Tensor, expected: Tensor | float) -> float:
    """The largest distance of the columns' means from what is expected, in standard errors."""
    error = values.std(0) / math.sqrt(values.shape[0])
    return float(((values.mean(0) - expected) / error).abs().max())


def reference_sample() -> Sample:
    """Gradients of 100,000 episodes of the reference system."""
    k = torch.tensor([[-0.4]], dtype=F64), torch.tensor([0.2], dtype=F64)
    return sample_lqg(LQG(), *k, torch.tensor([0.3], dtype=F64), 100_000, seed=0)


def random_sample() -> Sample:
    """Two states, two actions, coupled by matrices drawn here; discount 0.9, four steps."""
    draw = torch.randn(10, 2, 2, generator=seeded(42), dtype=F64)
    env = LQG(
        A=0.5 * draw[0] + 0.3 * torch.eye(2),
        B=0.5 * draw[1],
        Q=draw[2] @ draw[2].T,
        R=0.1 * draw[3] @ draw[3].T,
        Qf=draw[4] @ draw[4].T,
        m0=draw[5, 0],
        P0=0.2 * draw[6] @ draw[6].T,
        W=0.05 * draw[7] @ draw[7].T,
        horizon=4,
        gamma=0.9,
    )
    sigma = torch.tensor([0.3, 0.6], dtype=F64)
    return sample_lqg(env, -0.3 * draw[8], 0.3 * draw[9, 0], sigma, 100_000, seed=1)


def test_the_reference_system_has_the_published_gradient() -> None:
    """K -4.52081375, k -4.73344223, sigma -1.29775712."""
    found = LQG().return_gradient(-0.4, 0.2, 0.3)
    assert [float(part) for part in found] == pytest.approx(
        [-4.52081375, -4.73344223, -1.29775712], abs=6e-9
    )
    assert LQG().expected_return(-0.4, 0.2, 0.3) == pytest.approx(-3.5681227853, abs=6e-11)


@pytest.mark.parametrize("system", [reference_sample, random_sample])
def test_both_estimators_agree_with_the_exact_gradient_and_with_each_other(
    system: Callable[[], Sample],
) -> None:
    """The gradients by gain, offset and sigma agree within 4.5 standard errors.

    The difference is taken trajectory by trajectory, so its own standard error is the right one.
    """
    sample = system()
    assert standard_errors(sample.pathwise, sample.truth) < 4.5
    assert standard_errors(sample.score, sample.truth) < 4.5
    assert standard_errors(sample.score - sample.pathwise, 0.0) < 4.5
    # The test has power: a tenth of the gradient amiss would be seen by pathwise.
    assert standard_errors(sample.pathwise, 1.1 * sample.truth) > 9


def test_the_sampled_return_is_the_exact_one() -> None:
    """The objective, -3.5681227853, within 4.5 standard errors."""
    returns = reference_sample().returns.unsqueeze(1)
    assert standard_errors(returns, -3.5681227853) < 4.5


def test_the_score_weight_without_the_discount_is_biased() -> None:
    """Leaving gamma^k out gives K -4.794693, not -4.520814: the factor counts.

    It is the mistake that the matched weight must not make, so this shows that it would be seen.
    """
    env, gamma = LQG(), 0.95
    K, k, sigma = (torch.tensor(x, dtype=F64) for x in ([[-0.4]], [0.2], [0.3]))
    policy = linear_policy(env, K, k, sigma)
    vector = DifferentiableVectorEnv(env, 400_000, dtype=F64)
    noise = torch.randn(5, 400_000, 1, generator=seeded(2), dtype=F64)
    with torch.no_grad():
        window, _ = unroll(vector, policy, reset(vector, seed=2, device=CPU), noise)
    zeros = torch.zeros_like(window.reward)
    weight = matched_score_weight(window, zeros, zeros, gamma)
    undiscounted = weight / gamma ** torch.arange(5, dtype=F64).unsqueeze(1)
    # The offset's score: sum_t w_t (u_t - mean_t) / sigma^2.
    score = (window.noise.squeeze(-1) / 0.3 * undiscounted).sum(0).unsqueeze(1)
    assert standard_errors(score, -5.082451) < 4.5
    assert standard_errors(score, -4.73344223) > 4.5


# Back-propagation through time --------------------------------------------------------------------


class Walk(DifferentiableEnv[Tensor]):
    """A nonlinear walk in the plane that ends beyond 1, or after six steps."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(np.array([-1.0, 0.5], np.float32), np.array([1.0, 2.0], np.float32))
    max_episode_steps = 6

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return 0.5 * torch.randn(num_envs, 2, generator=generator)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return torch.sin(1.2 * state) + 0.4 * action * state.flip(-1) + 0.1 * action

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return torch.cos(next_state.sum(-1)) - 0.1 * (action * state).sum(-1).square()

    def terminal(self, state: Tensor) -> Tensor:
        return state[:, 0].abs() > 1


def critic(obs: Tensor) -> Tensor:
    """A fixed nonlinear value function."""
    return torch.tanh(obs.sum(-1)) + obs.square().sum(-1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (F64, 1e-10)])
@pytest.mark.parametrize("case", ["walk", "walk state-dependent std", "pendulum", "lqg"])
def test_the_pathwise_surrogate_has_the_gradient_of_back_propagation_through_time(
    case: str, dtype: torch.dtype, tolerance: float
) -> None:
    """The derivative of the mean objective by every parameter, through dynamics and policy calls.

    The walk has resets of both kinds inside the window, and a value at every cut.
    """
    env: DifferentiableEnv = {"pendulum": Pendulum, "lqg": LQG}.get(case, Walk)()
    vector = DifferentiableVectorEnv(env, 32, dtype=dtype)
    policy = GaussianPolicy(
        env.observation_space,
        env.action_space,
        (16,),
        std="state_dependent" if case.endswith("std") else "state_independent",
        log_std_init=-0.5,
    ).to(dtype)
    noise = torch.randn(14, 32, policy.noise_size, generator=seeded(3), dtype=dtype)
    window, _ = unroll(vector, policy, reset(vector, seed=3, device=CPU), noise)
    if case.startswith("walk"):
        assert bool(window.terminated.any()) and bool((window.truncated & ~window.terminated).any())
    objective = window_objective(window, critic(window.next_obs), 0.97)
    expected = torch.autograd.grad(objective.mean(), list(policy.parameters()), retain_graph=True)
    gradient = action_gradient(objective, window)
    found = torch.autograd.grad(
        pathwise_surrogate(policy, window, gradient).mean(), list(policy.parameters())
    )
    for mine, theirs in zip(found, expected, strict=True):
        assert float(theirs.abs().max()) > 0
        assert float((mine - theirs).abs().max()) <= tolerance * float(theirs.abs().max())


def test_the_action_gradient_is_a_finite_difference_of_the_objective() -> None:
    """Shift one pre-squash action of one trajectory and act on: central difference in float64."""
    policy = GaussianPolicy(Walk.observation_space, Walk.action_space, (8,)).double()
    noise = torch.randn(5, 3, 2, generator=seeded(4), dtype=F64)

    def objective(shifted: Tensor) -> tuple[Tensor, Window]:
        vector = DifferentiableVectorEnv(Walk(), 3, dtype=F64)
        window, _ = unroll(vector, policy, reset(vector, seed=5, device=CPU), shifted)
        return window_objective(window, critic(window.next_obs), 0.97), window

    value, window = objective(noise)
    gradient = action_gradient(value, window)
    step = 1e-6
    for t, i, a in [(0, 0, 0), (0, 1, 1), (2, 2, 0), (4, 0, 1)]:
        shift = torch.zeros_like(noise)
        shift[t, i, a] = step  # sigma = 1, so a shift of the noise is a shift of the action
        up, down = objective(noise + shift)[0], objective(noise - shift)[0]
        slope = float(((up - down) / (2 * step)).detach()[i])
        assert float(gradient[t, i, a]) == pytest.approx(slope, rel=1e-6, abs=1e-9)


# Windows by hand ----------------------------------------------------------------------------------


def window_of(
    reward: Tensor,
    *,
    terminated: Tensor | None = None,
    truncated: Tensor | None = None,
    valid: Tensor | None = None,
    seed: int = 0,
) -> Window:
    """A plain window with this reward ``[T, N]`` and random everything else; O = 3, A = 2."""
    no = torch.zeros(reward.shape, dtype=torch.bool)
    draw = torch.randn(3, *reward.shape, 3, generator=seeded(seed)).to(reward)
    return Window(
        obs=draw[0],
        next_obs=draw[1],
        noise=draw[2, ..., :2],
        pre_action=draw[2, ..., 1:],
        action=draw[2, ..., 1:],
        log_prob=draw[2, ..., 0],
        reward=reward,
        terminated=no if terminated is None else terminated,
        truncated=no if truncated is None else truncated,
        valid=~no if valid is None else valid,
    )


def column(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=F64).unsqueeze(1)


def flags(values: tuple[int, ...]) -> Tensor:
    return torch.tensor(values).bool().unsqueeze(1)


# Rewards 1, 2, 3, values 10, 20, 30, gamma 1/2.
OBJECTIVES = {
    # 1 + 1 + .75 + .125 * 30
    "no end": ((0, 0, 0), (0, 0, 0), 6.5),
    # 1 + 1 | 3 + .5 * 30: the discount starts anew after the end
    "terminated in the middle": ((0, 1, 0), (0, 0, 0), 20.0),
    # 1 + 1 + .25 * 20 | 3 + 15
    "truncated in the middle": ((0, 0, 0), (0, 1, 0), 25.0),
    "both in the middle": ((0, 1, 0), (0, 1, 0), 20.0),
    # 1 + 1 + .75
    "terminated at the end": ((0, 0, 1), (0, 0, 0), 2.75),
    "truncated at the end": ((0, 0, 0), (0, 0, 1), 6.5),
}


@pytest.mark.parametrize("case", OBJECTIVES)
def test_the_objective_of_three_steps(case: str) -> None:
    """The arithmetic is in the comments above: values count at ends only, 0 on termination."""
    terminated, truncated, expected = OBJECTIVES[case]
    window = window_of(column((1, 2, 3)), terminated=flags(terminated), truncated=flags(truncated))
    found = window_objective(window, column((10, 20, 30)), 0.5)
    assert found.tolist() == [expected]


def test_a_value_that_is_not_read_may_be_nan_and_gets_no_gradient() -> None:
    """Inside a segment and where it terminated; neither the objective nor a gradient is NaN."""
    nan = float("nan")
    next_value = column((nan, 20, nan, nan)).requires_grad_()
    reward = column((1, 2, 3, 4)).requires_grad_()
    window = window_of(reward, terminated=flags((0, 0, 0, 1)), truncated=flags((0, 1, 0, 0)))
    objective = window_objective(window, next_value, 0.5)
    assert objective.tolist() == [1 + 1 + 5 + 3 + 2]
    by_value, by_reward = torch.autograd.grad(objective.sum(), [next_value, reward])
    assert by_value.flatten().tolist() == [0, 0.25, 0, 0]
    assert by_reward.flatten().tolist() == [1, 0.5, 1, 0.5]


def test_steps_that_never_happened_weigh_nothing() -> None:
    """NaN there reaches neither the objective, nor the surrogates, nor their gradients."""
    nan = float("nan")
    valid = flags((1, 1, 0))
    reward = column((1, 2, nan)).requires_grad_()
    window = window_of(reward, terminated=flags((0, 1, 0)), valid=valid)
    objective = window_objective(window, column((10, 20, nan)), 0.5)
    assert objective.tolist() == [2.0]
    (by_reward,) = torch.autograd.grad(objective.sum(), reward)
    assert by_reward.flatten().tolist() == [1, 0.5, 0]
    weight = matched_score_weight(window, column((10, 20, nan)), torch.zeros(3, 1), 0.5)
    assert weight[:2].flatten().tolist() == [2.0, 1.0]


@pytest.mark.parametrize("estimator", ["score function", "pathwise"])
def test_the_surrogate_of_a_window_is_that_of_its_valid_steps(estimator: str) -> None:
    """Value and gradient do not depend on the weight of a step that is not valid, even if NaN."""
    valid = flags((1, 1, 0))
    window = window_of(column((1, 2, 3)), valid=valid)
    space = Box(-np.inf, np.inf, (3,), np.float32)
    policy = GaussianPolicy(space, Box(-np.inf, np.inf, (2,), np.float32), ()).double()

    def estimate(window: Window, last: float) -> Tensor:
        weight = torch.tensor([1.0, -2.0, last], dtype=F64)[: window.num_steps].unsqueeze(1)
        if estimator == "score function":
            return score_function_surrogate(policy, window, weight)
        return pathwise_surrogate(policy, window, weight.unsqueeze(-1).expand(-1, -1, 2))

    expected = estimate(map_window(lambda tensor: tensor[:2], window), 0.0)
    gradient = torch.autograd.grad(expected.sum(), list(policy.parameters()))
    for last in (5.0, float("nan")):
        found = estimate(window, last)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            torch.autograd.grad(found.sum(), list(policy.parameters())), gradient
        )


def test_the_matched_weight_of_four_steps() -> None:
    """gamma^k (G_t - b_t) with gamma 1/2 and b = 1: a truncation after step 1, V = 20 there.

    G_1 = 2 + 10 = 12, G_0 = 1 + 6 = 7; G_3 = 4 + .5 * 40 = 24, G_2 = 3 + 12 = 15.
    Weights 7 - 1, (12 - 1) / 2, 15 - 1, (24 - 1) / 2.
    """
    window = window_of(column((1, 2, 3, 4)), truncated=flags((0, 1, 0, 0)))
    ones = torch.ones(4, 1, dtype=F64)
    found = matched_score_weight(window, column((10, 20, 30, 40)), ones, 0.5)
    assert found.flatten().tolist() == [6.0, 5.5, 14.0, 11.5]


def test_the_first_matched_weight_is_the_objective() -> None:
    """Without a baseline, the weights at the starts of episodes add up to the objective."""
    generator = seeded(6)
    reward, next_value = torch.randn(2, 9, 50, generator=generator, dtype=F64)
    terminated, truncated = torch.rand(2, 9, 50, generator=generator) < 0.2
    window = window_of(reward, terminated=terminated, truncated=truncated)
    weight = matched_score_weight(window, next_value, torch.zeros_like(reward), 0.8)
    starts = torch.cat([torch.ones(1, 50, dtype=torch.bool), window.done[:-1]])
    expected = torch.where(starts, weight, 0.0).sum(0)
    torch.testing.assert_close(window_objective(window, next_value, 0.8), expected)


def test_a_plain_window_has_no_action_gradient() -> None:
    """The error says that ``unroll`` gives a window that has one."""
    window = window_of(column((1, 2, 3)))
    with pytest.raises(RequestError, match="unroll"):
        action_gradient(torch.zeros(1, requires_grad=True), window)


def unrolled_lqg() -> Window:
    vector = DifferentiableVectorEnv(LQG(), 4)
    policy = GaussianPolicy(vector.single_observation_space, vector.single_action_space, ())
    noise = torch.randn(3, 4, 1, generator=seeded())
    return unroll(vector, policy, reset(vector, seed=0, device=CPU), noise)[0]


def test_an_objective_without_a_graph_has_no_action_gradient() -> None:
    """An environment that computes in NumPy gives such an objective; the error advises."""
    with pytest.raises(RequestError, match="score function"):
        action_gradient(torch.zeros(4), unrolled_lqg())


def test_an_objective_that_does_not_depend_on_the_actions_has_no_action_gradient() -> None:
    """The objective has a graph to a value function's parameters, but no path to any action.

    Zeros would be taken for a gradient, and train nothing without a word.
    """
    window = unrolled_lqg()
    value = nn.Linear(1, 1)(window.obs.detach()).squeeze(-1)
    with pytest.raises(RequestError, match="score function"):
        action_gradient(window_objective(window.detach(), value, 0.9), window)


def test_the_surrogates_have_one_entry_a_trajectory() -> None:
    """Entry i of the surrogate depends on column i only."""
    window = window_of(torch.randn(6, 4, generator=seeded(7), dtype=F64))
    space = Box(-np.inf, np.inf, (3,), np.float32)
    policy = GaussianPolicy(space, Box(-1, 1, (2,), np.float32), (8,)).double()
    weight = torch.randn(6, 4, 2, generator=seeded(8), dtype=F64)
    obs = window.obs
    estimates: list[Callable[[Window], Tensor]] = [
        lambda w: score_function_surrogate(policy, w, weight[..., 0]),
        lambda w: pathwise_surrogate(policy, w, weight),
    ]
    for estimate in estimates:
        surrogate = estimate(window)
        assert surrogate.shape == (4,)
        obs[:, 2] += 1
        changed = estimate(window)
        obs[:, 2] -= 1
        assert (changed != surrogate).tolist() == [False, False, True, False]


def test_the_surrogates_gradient_reaches_the_policy_and_nothing_else() -> None:
    """Weights and data are detached inside: only parameters get a gradient."""
    window = unrolled_lqg()
    policy = GaussianPolicy(LINE, LINE, ())
    weight = torch.ones(3, 4, requires_grad=True)
    action_weight = torch.ones(3, 4, 1, requires_grad=True)
    surrogate = score_function_surrogate(policy, window, weight) + pathwise_surrogate(
        policy, window, action_weight
    )
    assert window.action_shift is not None
    leaves = [weight, action_weight, window.action_shift]
    others = torch.autograd.grad(surrogate.sum(), leaves, allow_unused=True, retain_graph=True)
    assert all(gradient is None for gradient in others)
    assert all(
        bool((g != 0).any())
        for g in torch.autograd.grad(surrogate.sum(), list(policy.parameters()))
    )


def test_weights_of_another_shape_are_refused() -> None:
    """The error names the argument and the shape that it must have."""
    window = window_of(torch.zeros(3, 4))
    space = Box(-np.inf, np.inf, (3,), np.float32)
    policy = GaussianPolicy(space, Box(-1, 1, (2,), np.float32), ())
    with pytest.raises(ValueError, match=r"weight must have shape \[3, 4\]"):
        score_function_surrogate(policy, window, torch.zeros(3, 4, 1))
    with pytest.raises(ValueError, match=r"weight must have shape \[3, 4, 2\]"):
        pathwise_surrogate(policy, window, torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"next_value must have shape \[3, 4\]"):
        window_objective(window, torch.zeros(4), 0.9)
    with pytest.raises(ValueError, match=r"objective must have shape \[4\]"):
        action_gradient(torch.zeros(3, 4), window)


def test_the_score_functions_action_gradient_is_its_derivative_by_the_mean() -> None:
    """w_t dlog pi / dmu_t = w_t eps_t / sigma, for a squashed policy as well; 0 where invalid."""
    window = window_of(torch.zeros(5, 4), valid=torch.rand(5, 4, generator=seeded(9)) < 0.7)
    space = Box(-np.inf, np.inf, (3,), np.float32)
    weight = torch.randn(5, 4, generator=seeded(10))
    for bounds in (1.0, np.inf):
        policy = GaussianPolicy(
            space, Box(-bounds, bounds, (2,), np.float32), (8,), std="state_dependent"
        )
        distribution = policy(window.obs)
        found = score_action_gradient(policy, window, weight)
        log_prob = distribution.log_prob_of_pre_action(window.pre_action)
        masked = torch.where(window.valid, weight * log_prob, 0.0)
        mean = distribution.mean  # type: ignore[attr-defined]
        (expected,) = torch.autograd.grad(masked.sum(), mean)
        torch.testing.assert_close(found, expected)


def test_a_choice_has_no_action_gradient() -> None:
    """A categorical distribution has no mean to differentiate by."""
    window = window_of(torch.zeros(5, 4))
    space = Box(-np.inf, np.inf, (3,), np.float32)
    with pytest.raises(RequestError, match="Gaussian"):
        score_action_gradient(CategoricalPolicy(space, Discrete(3)), window, torch.zeros(5, 4))


# The leave-one-out baseline -----------------------------------------------------------------------


def test_leave_one_out_is_the_mean_of_the_others() -> None:
    """Returns 1, 2, 6: baselines (2 + 6) / 2, (1 + 6) / 2, (1 + 2) / 2."""
    found = leave_one_out(torch.tensor([[1.0, 2.0, 6.0]]), torch.ones(1, 3, dtype=torch.bool))
    assert found.tolist() == [[4.0, 3.5, 1.5]]


def test_leave_one_out_counts_the_valid_others_only() -> None:
    """Returns 1, NaN (invalid), 6: baselines 6, (1 + 6) / 2, 1; with no other, 0."""
    returns = torch.tensor([[1.0, float("nan"), 6.0], [5.0, 1.0, 1.0]])
    valid = torch.tensor([[True, False, True], [True, False, False]])
    found = leave_one_out(returns, valid)
    assert found[0].tolist() == [6.0, 3.5, 1.0]
    assert float(found[1, 0]) == 0.0


def test_leave_one_out_of_two_softmax_samples_has_the_published_variance() -> None:
    """Enumeration of all pairs: variance .79569136, mean the exact gradient."""
    policy = CategoricalPolicy(LINE, Discrete(4), ()).double()
    reward = torch.tensor([1.0, 2.0, -1.0, 0.5], dtype=F64)
    bias = head(policy).bias
    with torch.no_grad():
        bias.copy_(torch.tensor([0.5, -0.2, 0.1, 0.0]))
        p = torch.softmax(bias, 0)
    mean, second = torch.zeros(4, dtype=F64), 0.0
    for i in range(4):
        for j in range(4):
            pair = torch.tensor([[i, j]])
            returns = reward[pair]
            yes = torch.ones(1, 2, dtype=torch.bool)
            window = Window(
                obs=torch.zeros(1, 2, 1, dtype=F64),
                next_obs=torch.zeros(1, 2, 1, dtype=F64),
                noise=torch.zeros(1, 2, 4, dtype=F64),
                pre_action=pair,
                action=pair,
                log_prob=torch.zeros(1, 2, dtype=F64),
                reward=returns,
                terminated=yes,
                truncated=~yes,
                valid=yes,
            )
            weight = returns - leave_one_out(returns, yes)
            surrogate = score_function_surrogate(policy, window, weight).mean()
            (gradient,) = torch.autograd.grad(surrogate, bias)
            probability = float(p[i] * p[j])
            mean += probability * gradient
            second += probability * float(gradient.square().sum())
    assert mean.tolist() == pytest.approx(
        [0.1491586, 0.25312054, -0.38340198, -0.01887716], abs=6e-8
    )
    assert second - float(mean.square().sum()) == pytest.approx(0.79569136, abs=6e-9)
