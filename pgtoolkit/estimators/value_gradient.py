"""Stochastic value gradients: a stored window as a function of the policy (Heess et al. 2015).

What was random when the steps were taken is inferred from them, and then held fixed: the policy's
noise ``eps = (u - mu(s)) / sigma(s)`` at the policy's present parameters, and the environment's
noise ``xi = s' - f(s, a)`` about a model ``f``. With both, the stored steps are what policy and
model do, to the bit; so values are real and only derivatives are the model's, and errors of the
model do not add up along a window. The derivative of an objective by each action then follows by
the paper's backward recursion (its eqs. 3 to 6), which back-propagation carries out::

    v_s   = r_s + r_a pi_s + gamma v'_s' (f_s + f_a pi_s)
    dJ/du = (r_a + gamma v'_s' f_a) da/du

Three agents are three objectives of one function: ``Q(s, a)`` without a model is SVG(0), ``r +
gamma V(s')`` of single steps SVG(1), and the whole window's reward SVG(infinity).
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.implicit import with_gradient_of
from pgtoolkit.errors import SettingError
from pgtoolkit.estimators.proximal import probability_ratio
from pgtoolkit.estimators.surrogates import action_gradient
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.transitions import Transitions
from pgtoolkit.rollouts.window import Window

Model = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps observations ``[N, O]`` and actions ``[N, A]`` to the next observations ``[N, O]`` and the
rewards ``[N]`` that are expected; differentiable in both."""


def value_gradient(
    policy: Policy,
    window: Window,
    objective: Callable[[Window], Tensor],
    model: Model | None = None,
) -> Tensor:
    """``dJ/du`` ``[T, N, A]`` of a stored window, at the policy's present parameters.

    The gradient of ``pathwise_surrogate(policy, window, dJ/du)`` is the value gradient by the
    policy's parameters.

    Args:
        policy: need not be the one that acted.
        window: plain, with this policy's noise (:func:`with_inferred_noise`).
        objective: computes ``J`` ``[N]`` from the window with its graph, for example
            :func:`window_objective <pgtoolkit.estimators.surrogates.window_objective>`.
        model: gives the derivatives of next observation and reward; None for an objective of
            observations and actions alone.

    Raises:
        RequestError: the objective does not depend on the actions.
    """
    graph = retraced(policy, window, model)
    return action_gradient(objective(graph), graph)


def retraced(policy: Policy, window: Window, model: Model | None) -> Window:
    """The window with the same values, as a differentiable function of the policy's actions.

    The arguments are those of :func:`value_gradient`. Only the first observation of a segment is a
    constant: the others follow from the one before.
    """
    shift = torch.zeros_like(window.pre_action).requires_grad_()
    obs, steps = window.obs[0], []
    with torch.enable_grad():
        for t in range(window.num_steps):
            distribution = policy(obs)
            moved = distribution.pre_action(window.noise[t]) + shift[t]
            pre_action = with_gradient_of(window.pre_action[t], moved)
            action = with_gradient_of(window.action[t], distribution.squash(pre_action))
            next_obs, reward = window.next_obs[t], window.reward[t]
            if model is not None:
                next_obs, reward = on_real_step(model(obs, action), next_obs, reward)
            steps.append((obs, pre_action, action, next_obs, reward))
            if t + 1 < window.num_steps:
                starts = window.segment_end[t].view(-1, *[1] * (obs.dim() - 1))
                obs = torch.where(starts, window.obs[t + 1], next_obs)
    names = ("obs", "pre_action", "action", "next_obs", "reward")
    columns = (torch.stack(column) for column in zip(*steps, strict=True))
    parts = dict(zip(names, columns, strict=True))
    return dataclasses.replace(window, action_shift=shift, **parts)


def on_real_step(
    predicted: tuple[Tensor, Tensor], next_obs: Tensor, reward: Tensor
) -> tuple[Tensor, Tensor]:
    """What really followed, with the derivative of what a model predicted.

    ``s' = f(s, a) + xi`` with ``xi = sg(s'_real - f(s, a))``, and the reward in the same way.
    """
    return with_gradient_of(next_obs, predicted[0]), with_gradient_of(reward, predicted[1])


@torch.no_grad()
def with_inferred_noise(window: Window, distribution: Distribution) -> Window:
    """The window with the noise under which a policy would take the stored actions.

    ``eps = (u - mu) / sigma`` ``[T, N, A]``; for the policy that acted it is the stored noise, up
    to rounding.

    Args:
        window: plain.
        distribution: the policy's, at the window's observations.

    Raises:
        RequestError: the distribution is no diagonal Gaussian.
    """
    if distribution.gaussian is None:
        raise SettingError(
            "noise can be inferred from the actions of a diagonal Gaussian only: use "
            "--distribution gaussian or clipped_gaussian"
        )
    mean, log_std = distribution.gaussian
    noise = (window.pre_action - mean) * torch.exp(-log_std)
    return dataclasses.replace(window, noise=noise)


@torch.no_grad()
def importance_weight(window: Window, distribution: Distribution, largest: float) -> Tensor:
    """``w = min(pi(a|s) / pi_old(a|s), largest)`` ``[T, N]`` of stored actions, without a graph.

    Truncated importance sampling (Ionides 2008): the limit bounds the variance and biases the mean
    towards actions that the old policy preferred.

    Args:
        window: plain; its ``log_prob`` is that of the policy that acted.
        distribution: the policy's now, at the window's observations.
        largest: above 0.
    """
    log_ratio = distribution.log_prob_of_pre_action(window.pre_action) - window.log_prob
    return probability_ratio(log_ratio).clamp(max=largest)


def single_steps(batch: Transitions) -> Window:
    """A window ``[1, M]`` of transitions ``[M]``, each a trajectory of its own.

    Args:
        batch: has the extras ``noise``, ``pre_action`` and ``log_prob``.
    """
    tensors = {name: tensor.unsqueeze(0) for name, tensor in batch.tensors().items()}
    false = torch.zeros_like(tensors["terminated"])
    return Window(**tensors, truncated=false, valid=~false)
