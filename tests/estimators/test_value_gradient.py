"""The value gradient of stored windows: closed forms, autograd through the truth, and its noise."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.envs.analytic.lqg.env import LQG
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.surrogates import action_gradient, pathwise_surrogate, window_objective
from pgtoolkit.estimators.value_gradient import (
    importance_weight,
    on_real_step,
    retraced,
    single_steps,
    value_gradient,
    with_inferred_noise,
)
from pgtoolkit.policies.factory import seeded_policy
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import reset, unroll
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream

GAMMA, CPU = 0.9, torch.device("cpu")
A = torch.tensor([[0.9, 0.2], [-0.1, 0.8]], dtype=torch.float64)
B = torch.tensor([[0.1, 0.3], [0.5, -0.2]], dtype=torch.float64)
Q = torch.tensor([[1.0, 0.3], [0.3, 0.6]], dtype=torch.float64)
R = torch.tensor([[0.2, 0.05], [0.05, 0.1]], dtype=torch.float64)
P = torch.tensor([[2.0, -0.4], [-0.4, 1.5]], dtype=torch.float64)


def form(matrix: Tensor, x: Tensor) -> Tensor:
    """``x' M x`` ``[...]``."""
    return ((x @ matrix) * x).sum(-1)


def exact_model(obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    return obs @ A.T + action @ B.T, -form(Q, obs) - form(R, action)


def value(obs: Tensor) -> Tensor:
    return -form(P, obs)


def objective(window: Window) -> Tensor:
    return window_objective(window, value(window.next_obs), GAMMA)


def linear_policy(seed: int = 0, hidden: tuple[int, ...] = ()) -> Policy:
    box = Box(-np.inf, np.inf, (2,), np.float64)
    weights = torch.Generator().manual_seed(seed)
    policy = GaussianPolicy(box, box, hidden, generator=weights, log_std_init=-0.5).double()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=weights).double(), alpha=0.3)
    return policy


def lqg_window(policy: Policy, *, horizon: int, steps: int) -> Window:
    """A window through the true system with process noise, of three trajectories, and its graph."""
    env = LQG(A, B, Q, R, Qf=0.0, m0=[1.0, -1.0], W=0.3, horizon=horizon)
    vector_env = DifferentiableVectorEnv(env, 3, dtype=torch.float64)
    state = reset(vector_env, seed=3, device=CPU)
    noise = policy.draw_noise(steps, 3, generator=stream(1, "noise")).double()
    return unroll(vector_env, policy, state, noise)[0]


def test_the_recursion_of_a_linear_model_and_a_quadratic_value_by_hand() -> None:
    """``g = gamma^t (r_a + gamma B' v')`` and ``v = r_s + K' g + gamma A' v'`` at real states."""
    policy, T, generator = linear_policy(), 5, torch.Generator().manual_seed(1)
    u, s = (torch.randn(T, 3, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    end = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    no = torch.zeros(T, 3, dtype=torch.bool)
    window = Window(
        obs=s,
        next_obs=torch.cat([s[1:], end[None]]),
        noise=torch.zeros_like(u),
        pre_action=u,
        action=u,
        log_prob=torch.zeros(T, 3, dtype=torch.float64),
        reward=torch.randn(T, 3, generator=generator, dtype=torch.float64),
        terminated=no,
        truncated=no,
        valid=~no,
    )
    window = with_inferred_noise(window, policy(s))
    found = value_gradient(policy, window, objective, exact_model)
    K: Any = policy.get_parameter("head.output.weight")
    slope = -2 * end @ P
    for t in reversed(range(T)):
        g = -2 * u[t] @ R + GAMMA * slope @ B
        torch.testing.assert_close(found[t], (GAMMA**t * g).detach(), rtol=1e-12, atol=1e-12)
        slope = -2 * s[t] @ Q + g @ K + GAMMA * slope @ A


@pytest.mark.parametrize("horizon", [100, 4])
def test_with_the_exact_model_it_is_the_derivative_through_the_environment(horizon: int) -> None:
    """Six steps of LQG with process noise, with and without an end of the episode among them."""
    policy = linear_policy(hidden=(5,))
    graph = lqg_window(policy, horizon=horizon, steps=6)
    plain = graph.detach()
    assert bool(plain.done.any()) == (horizon == 4)
    expected = action_gradient(objective(graph), graph)
    window = with_inferred_noise(plain, policy(plain.obs))
    found = value_gradient(policy, window, objective, exact_model)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_a_wrong_model_gives_another_derivative_of_the_same_values() -> None:
    policy = linear_policy()
    plain = lqg_window(policy, horizon=100, steps=6).detach()
    window = with_inferred_noise(plain, policy(plain.obs))

    def wrong(obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        next_obs, reward = exact_model(obs, action)
        return next_obs + 0.5 * action, 2 * reward

    graph = retraced(policy, window, wrong)
    for field in dataclasses.fields(plain):
        if field.name not in ("noise", "action_shift"):
            found, expected = getattr(graph, field.name), getattr(plain, field.name)
            assert found is expected or torch.equal(found, expected), field.name
    one, other = (value_gradient(policy, window, objective, m) for m in (wrong, exact_model))
    assert not torch.allclose(one, other, rtol=0.1)


def test_the_inferred_noise_is_the_stored_one_of_the_policy_that_acted() -> None:
    """And under another policy it gives the stored actions again."""
    policy, other = linear_policy(), linear_policy(7)
    plain = lqg_window(policy, horizon=100, steps=4).detach()
    same = with_inferred_noise(plain, policy(plain.obs))
    torch.testing.assert_close(same.noise, plain.noise, rtol=1e-12, atol=1e-12)
    moved = with_inferred_noise(plain, other(plain.obs))
    assert not torch.allclose(moved.noise, plain.noise, rtol=0.1)
    again = other(plain.obs).pre_action(moved.noise)
    torch.testing.assert_close(again, plain.pre_action, rtol=1e-12, atol=1e-12)
    assert not same.noise.requires_grad


def test_at_another_policy_it_is_the_derivative_along_the_stored_states() -> None:
    """The surrogate's gradient equals that of the objective, unrolled by hand at that policy.

    The state after each step is the stored one plus ``f`` less its own value.
    """
    policy, other = linear_policy(), linear_policy(7, hidden=(4,))
    plain = lqg_window(policy, horizon=100, steps=4).detach()
    window = with_inferred_noise(plain, other(plain.obs))
    gradient = value_gradient(other, window, objective, exact_model)
    surrogate = pathwise_surrogate(other, window, gradient).sum()
    found = torch.autograd.grad(surrogate, list(other.parameters()))
    total, s = torch.zeros(3, dtype=torch.float64), plain.obs[0]
    for t in range(4):
        a = other(s).pre_action(window.noise[t])
        total = total + GAMMA**t * (-form(Q, s) - form(R, a))
        after = s @ A.T + a @ B.T
        s = after + (plain.next_obs[t] - after).detach()
    total = total + GAMMA**4 * value(s)
    by_hand = torch.autograd.grad(total.sum(), list(other.parameters()))
    for one, expected in zip(found, by_hand, strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-9, atol=1e-10)


def test_without_a_model_it_is_the_slope_of_q_through_the_squashing() -> None:
    """SVG(0): ``Q = -(a - s)^2 / 2`` of an action in [-2, 2]: ``(s - a) 2 (1 - tanh(u)^2)``."""
    space = Box(-2.0, 2.0, (1,), np.float64)
    policy = GaussianPolicy(Box(-9, 9, (1,), np.float64), space, (3,)).double()
    generator = torch.Generator().manual_seed(0)
    s, u = (torch.randn(1, 6, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    a, no = 2 * torch.tanh(u), torch.zeros(1, 6, dtype=torch.bool)
    zero = torch.zeros(1, 6, dtype=torch.float64)
    window = Window(
        obs=s,
        next_obs=s,
        noise=u,
        pre_action=u,
        action=a,
        log_prob=zero,
        reward=zero,
        terminated=no,
        truncated=no,
        valid=~no,
    )
    window = with_inferred_noise(window, policy(s))

    def q_objective(graph: Window) -> Tensor:
        return -0.5 * (graph.action - graph.obs).square().sum((0, 2))

    found = value_gradient(policy, window, q_objective)
    torch.testing.assert_close(found, (s - a) * 2 * (1 - torch.tanh(u).square()))


def test_the_importance_weight_is_a_truncated_ratio_of_densities() -> None:
    """Two Gaussians with standard deviation ``exp(-0.5)``, whose means differ by ``d``."""
    policy = linear_policy()
    plain = lqg_window(policy, horizon=100, steps=4).detach()
    old: Any = policy(plain.obs)
    torch.testing.assert_close(importance_weight(plain, old, 2.0), torch.ones_like(plain.reward))
    moved = dataclasses.replace(old, mean=old.mean + 0.3)
    shift, log_std = plain.pre_action - old.mean, old.log_std
    exponent = (shift.square() - (shift - 0.3).square()) / (2 * torch.exp(2 * log_std))
    expected = exponent.sum(-1).exp().detach()
    assert bool((expected > 1.1).any() and (expected < 1.1).any())
    torch.testing.assert_close(importance_weight(plain, moved, 1e9), expected)
    torch.testing.assert_close(importance_weight(plain, moved, 1.1), expected.clamp(max=1.1))


def test_transitions_are_trajectories_of_one_step() -> None:
    policy = linear_policy()
    plain = lqg_window(policy, horizon=3, steps=5).detach()
    steps = single_steps(plain.transitions("noise", "pre_action", "log_prob"))
    assert steps.reward.shape == (1, 15) and bool(steps.segment_end.all())
    assert torch.equal(steps.terminated[0], plain.terminated.flatten())
    assert torch.equal(steps.pre_action[0], plain.pre_action.flatten(0, 1))
    # Terminal steps have no value after them.
    after = window_objective(steps, torch.full_like(steps.reward, 10.0), GAMMA) - steps.reward[0]
    torch.testing.assert_close(after, torch.where(steps.terminated[0], 0.0, 9.0).double())


def test_only_a_diagonal_gaussian_has_noise_to_infer() -> None:
    from pgtoolkit.config import PolicySettings

    box = Box(-np.inf, np.inf, (2,), np.float32)
    settings: Any = PolicySettings(distribution="full_gaussian")
    policy = seeded_policy(settings, (box, box), seed=0, device=CPU)
    plain = lqg_window(linear_policy(), horizon=100, steps=2).detach()
    with pytest.raises(RequestError, match="distribution='gaussian'"):
        with_inferred_noise(plain, policy(plain.obs.float()))


def test_a_real_step_keeps_its_values_where_the_model_has_none() -> None:
    nan = torch.full((2, 1), torch.nan, requires_grad=True)
    next_obs, reward = on_real_step((nan, nan[:, 0]), torch.ones(2, 1), torch.zeros(2))
    assert next_obs.tolist() == [[1.0], [1.0]] and reward.tolist() == [0.0, 0.0]
    assert next_obs.requires_grad
