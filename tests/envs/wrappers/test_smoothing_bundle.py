"""Randomised smoothing: the plain value, and a derivative that is an average over branches."""

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.envs.analytic.lqg.env import LQG
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.wrappers.smoothing_bundle import SmoothingBundle
from pgtoolkit.errors import RequestError


class Contact(DifferentiableEnv[Tensor]):
    """``s' = max(u + s, 0)``: a push that has an effect only beyond a corner. ``jump`` adds one."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-np.inf, np.inf, (1,), np.float32)
    max_episode_steps = 10

    def __init__(self, jump: float = 0.0) -> None:
        self.jump, self.rows = jump, 0

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(num_envs, 1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        self.rows = state.shape[0]
        push = state + action
        return push.clamp(min=0) + self.jump * (push > 0).to(push)

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return next_state[:, 0]

    def terminal(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state[:, 0], dtype=torch.bool)


def drawn(env: DifferentiableEnv, num_envs: int, seed: int = 0) -> Tensor:
    assert env.noise_shape is not None
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_envs, *env.noise_shape, generator=generator, dtype=torch.float64)


def derivative(env: DifferentiableEnv, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
    """``[2, N]`` of the next state's sum by state and action."""
    leaves = state.clone().requires_grad_(), action.clone().requires_grad_()
    found = torch.autograd.grad(env.transition(*leaves, noise).sum(), leaves)
    return torch.stack([gradient.squeeze(-1) for gradient in found])


@pytest.mark.parametrize("state_std", [0.0, 0.4])
def test_the_derivative_is_the_mean_over_the_branches_in_the_noise(state_std: float) -> None:
    """At a corner the derivative is the share of branches beyond it; the value is not smoothed."""
    branches, num_envs = 5, 4
    env = SmoothingBundle(Contact(), branches, action_std=0.3, state_std=state_std)
    noise = drawn(env, num_envs)
    state = torch.tensor([[-0.1], [0.2], [0.0], [5.0]], dtype=torch.float64)
    action = torch.zeros_like(state)
    # In the noise of one row: for each branch, the action's part and then the state's.
    parts = noise.view(num_envs, branches, -1)
    push = state + 0.3 * parts[:, :, 0]
    if state_std > 0:
        push = push + state_std * parts[:, :, 1]
    expected = (push > 0).double().mean(1)
    found = derivative(env, state, action, noise)
    torch.testing.assert_close(found, expected.expand(2, num_envs), rtol=0, atol=1e-15)
    assert 0 < float(found[0, 0]) < 1 and float(found[0, 3]) == 1
    assert torch.equal(env.transition(state, action, noise), state.clamp(min=0))


def test_the_mean_of_the_derivative_is_that_of_the_smoothed_dynamics() -> None:
    """``d/du E[max(u + sigma w, 0)] = Phi(u / sigma)``, within five standard errors."""
    num_envs, sigma, at = 4000, 0.5, -0.3
    env = SmoothingBundle(Contact(), 2, action_std=sigma)
    state = torch.zeros(num_envs, 1, dtype=torch.float64)
    found = derivative(env, state, torch.full_like(state, at), drawn(env, num_envs))[1]
    exact = 0.5 * (1 + math.erf(at / sigma / math.sqrt(2)))
    error = math.sqrt(exact * (1 - exact) / (2 * num_envs))
    assert abs(float(found.mean()) - exact) < 5 * error
    plain = derivative(Contact(), state, torch.full_like(state, at), drawn(env, num_envs))
    assert float(plain.abs().max()) == 0


def test_a_jump_stays_invisible() -> None:
    """The jump of 10 is in the value and not in the derivative, however wide the smoothing."""
    env = SmoothingBundle(Contact(jump=10.0), 50, action_std=1.0)
    smooth = SmoothingBundle(Contact(), 50, action_std=1.0)
    state = torch.zeros(20, 1, dtype=torch.float64)
    noise = drawn(env, 20)
    found = [derivative(each, state, state + 0.1, noise) for each in (env, smooth)]
    assert torch.equal(*found)
    assert float(env.transition(state, state + 0.1, noise)[0]) == pytest.approx(10.1)


def test_branches_are_one_call_and_none_without_a_graph() -> None:
    inner = Contact()
    env = SmoothingBundle(inner, 7, action_std=0.1)
    state, noise = torch.zeros(3, 1, dtype=torch.float64), drawn(env, 3)
    env.transition(state, state.clone().requires_grad_(), noise)
    assert inner.rows == 21
    with torch.no_grad():
        env.transition(state, state, noise)
    assert inner.rows == 3


def test_the_noise_holds_the_inner_noise_and_every_branch_has_it() -> None:
    """LQG is linear: one derivative at every branch, and the value by its own noise."""
    inner = LQG(W=0.5)
    env = SmoothingBundle(inner, 3, action_std=0.2, state_std=0.1)
    assert env.noise_shape == (1 + 3 * (1 + 1),)
    state = inner.initial(4, torch.Generator().manual_seed(0))
    action = torch.randn(4, 1, generator=torch.Generator().manual_seed(1)).requires_grad_()
    noise = drawn(env, 4).float()
    after = env.transition(state, action, noise)
    assert torch.equal(after.position, inner.transition(state, action, noise[:, :1]).position)
    assert after.time.tolist() == [1] * 4
    (gradient,) = torch.autograd.grad(after.position.sum(), action)
    torch.testing.assert_close(gradient, torch.full((4, 1), 0.5))


class Parts(NamedTuple):
    a: Tensor
    steps: Tensor
    b: Tensor


class Square(Contact):
    """``a' = a^2``, ``b' = b^2 + sum u``, of two numbers and a matrix, with an integer between."""

    def initial(self, num_envs: int, generator: torch.Generator) -> Any:
        steps = torch.zeros(num_envs, dtype=torch.int64)
        return Parts(torch.ones(num_envs, 2), steps, torch.ones(num_envs, 2, 3))

    def transition(self, state: Any, action: Tensor, noise: Tensor | None) -> Any:
        return Parts(
            state.a.square(), state.steps + 1, state.b.square() + action.sum(-1).view(-1, 1, 1)
        )


def test_every_floating_point_tensor_of_a_state_is_perturbed() -> None:
    """Derivative of ``x^2``: twice the mean of the perturbed ``x``."""
    env: Any = SmoothingBundle(Square(), 4, action_std=0.0, state_std=0.5)
    assert env.noise_shape == (4 * (1 + 2 + 6),)
    noise, state = drawn(env, 3), env.initial(3, torch.Generator())
    a, b = (x.double().requires_grad_() for x in (state.a, state.b))
    after = env.transition(Parts(a, state.steps, b), torch.zeros(3, 1).double(), noise)
    assert after.steps.tolist() == [1, 1, 1]
    found = torch.autograd.grad(after.a.sum() + after.b.sum(), (a, b))
    moved = 1 + 0.5 * noise.view(3, 4, 9)[:, :, 1:].mean(1)
    torch.testing.assert_close(found[0], 2 * moved[:, :2])
    torch.testing.assert_close(found[1], 2 * moved[:, 2:].view(3, 2, 3))


def test_without_perturbation_it_is_the_plain_derivative() -> None:
    env, plain = SmoothingBundle(Pendulum(), 3, 0.0), Pendulum()
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    action = torch.rand(5, 1, generator=generator, dtype=torch.float64).requires_grad_()
    noise = drawn(env, 5)
    found = torch.autograd.grad(env.transition(state, action, noise).sum(), action)
    expected = torch.autograd.grad(plain.transition(state, action, None).sum(), action)
    torch.testing.assert_close(found, expected)


def test_what_it_says_of_its_gradient() -> None:
    info = SmoothingBundle(Pendulum(), 3, 0.1).gradient
    assert (info.action, info.state, info.reward) == ("approximate", "approximate", "exact")
    assert info.method == "bundle of 3: autograd"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0, 0.1), "branches is 0"),
        ((2, -0.1), "action_std is -0.1"),
        ((2, 0.1, math.inf), "state_std is inf"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: tuple[Any, ...], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        SmoothingBundle(Pendulum(), *arguments)


def test_noise_is_needed() -> None:
    with pytest.raises(ValueError, match="SmoothingBundle needs noise"):
        SmoothingBundle(Pendulum(), 2, 0.1).transition(torch.zeros(1, 2), torch.zeros(1, 1), None)
