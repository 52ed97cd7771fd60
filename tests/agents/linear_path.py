"""Windows of the pendulum under a linear policy, replayed with formulas of their own.

What agents take through :class:`~pgtoolkit.estimators.signals.Signals` and a surrogate is here one
graph from the parameters through every step, in float64.
"""

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from pgtoolkit.envs.control.pendulum import Pendulum


@final
class Path(NamedTuple):
    """A window with its graph to the policy's parameters; no episode ends in it."""

    reward: Tensor
    """``[T, N]``."""
    obs: Tensor
    """``[T, N, 3]``."""
    next_obs: Tensor
    """``[T, N, 3]``."""
    log_std: Tensor
    """``[T, N]`` of the Gaussian before squashing."""


@final
class LinearPolicy:
    """``u = w s + b + sigma eps`` and the torque ``2 tanh u``, in float64.

    Args:
        policy: has no hidden layers, its standard deviation depends on the state, and it does not
            normalise.
    """

    def __init__(self, policy: Any) -> None:
        at = {name: p.detach().double().clone() for name, p in policy.named_parameters()}
        assert set(at) == {"head.output.weight", "head.output.bias"}
        self.w = at["head.output.weight"].requires_grad_()
        self.b = at["head.output.bias"].requires_grad_()

    @property
    def parameters(self) -> list[Tensor]:
        return [self.w, self.b]

    def gaussian(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation ``[...]``."""
        mean, raw = (obs @ self.w.T + self.b).unbind(-1)
        return mean, -1.5 + 3.5 * torch.tanh(raw)


def replay(policy: LinearPolicy, state: Tensor, noise: Tensor) -> Path:
    """The steps that the policy takes from a state ``[N, 2]`` with noise ``[T, N, 1]``."""
    env, state = Pendulum(), state.double()
    obs, steps = env.observation(state), []
    for eps in noise.double().squeeze(-1):
        mean, log_std = policy.gaussian(obs)
        action = 2 * torch.tanh(mean + log_std.exp() * eps).unsqueeze(-1)
        after = env.transition(state, action, None)
        next_obs = env.observation(after)
        steps.append((env.reward(state, action, after), obs, next_obs, log_std))
        state, obs = after, next_obs
    return Path(*(torch.stack(column) for column in zip(*steps, strict=True)))


def values(module: Any, obs: Tensor) -> Tensor:
    """Values ``[n, ...]`` of an ensemble, in float64, with a graph to the observations only."""
    constant: Tensor = copy.deepcopy(module).double().requires_grad_(False)(obs)
    return constant


def lambda_returns(reward: Tensor, after: Tensor, gamma: float, lambda_: float) -> Tensor:
    """TD(lambda) returns ``[T, N]`` from their definition, as a mixture of n-step returns.

    Args:
        reward: ``[T, N]``.
        after: ``[T, N]`` values of the states after each step.
        gamma: the discount.
        lambda_: the weight of longer returns.
    """
    last, found = len(reward), torch.zeros_like(reward)
    for t in range(last):
        rewards, steps = torch.zeros_like(reward[0]), []
        for n in range(t, last):
            rewards = rewards + gamma ** (n - t) * reward[n]
            steps.append(rewards + gamma ** (n - t + 1) * after[n])
        weights = [(1 - lambda_) * lambda_**k for k in range(len(steps) - 1)]
        weights.append(lambda_ ** (len(steps) - 1))
        found[t] = sum(w * g for w, g in zip(weights, steps, strict=True))
    return found


def assert_stepped(
    module: Any, before: Iterable[Tensor], gradients: list[Tensor], **settings: Any
) -> None:
    """Asserts that a module made one step of Adam, its first, along these gradients.

    The gradients are compared too, because Adam's first step has hardly more of them than signs.

    Args:
        module: after its step.
        before: its parameters before.
        gradients: of the loss; they are not clipped.
        settings: of ``torch.optim.Adam``.
    """
    copies = [p.detach().clone().requires_grad_() for p in before]
    for ours, copied, gradient in zip(module.parameters(), copies, gradients, strict=True):
        torch.testing.assert_close(ours.grad.double(), gradient, rtol=1e-4, atol=1e-6)
        copied.grad = gradient.detach().clone()
    torch.optim.Adam(copies, **settings).step()
    for ours, copied in zip(module.parameters(), copies, strict=True):
        torch.testing.assert_close(ours.detach().double(), copied.detach(), rtol=1e-4, atol=1e-5)


def start_of(agent: Any) -> Tensor:
    """The environments' states ``[N, 2]`` before the next window."""
    state: Tensor = agent.collector.env.get_state().state
    return state.clone()
