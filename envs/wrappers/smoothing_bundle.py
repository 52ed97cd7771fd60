"""The derivative averaged over random perturbations, for dynamics with contacts and clamps."""

import dataclasses
import math
from typing import final

import torch
from torch import Tensor

from pgtoolkit.distributions.implicit import with_gradient_of
from pgtoolkit.envs.arguments import positive_integer, require_at_least, require_finite
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import S, State, leaves_of, map_state
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper

MAX_BRANCHES = 1000
"""Most copies of a step; each is computed in every step of the wrapper."""


@final
class SmoothingBundle(DifferentiableWrapper[S]):
    """Keeps the inner transition's value, and averages its derivative over perturbed branches.

    ::

        s_{t+1} = f(s_t, a_t)
        d s_{t+1} = 1/k sum_i  Df(s_t + state_std v_i, a_t + action_std w_i) (d s_t, d a_t)

    with ``v_i, w_i`` standard normal. The average estimates the derivative of the smoothed dynamics
    ``E[f(s + state_std v, a + action_std w)]`` without bias, *wherever f is continuous*. Where a
    contact is open or a clamp is active, ``Df`` may be 0 at ``a_t`` itself but not next to it. The
    ``k N`` branches are one call of the inner environment, each with the process noise of its row.

    **Limits.** It averages first derivatives. A jump of ``f`` has none, so its effect is missing
    however many branches there are (the score function includes it). The reward is not smoothed,
    unless the inner environment computes it in its transition. Only the floating-point tensors of
    a state are perturbed.

    All random numbers are part of ``noise``, whose shape holds the inner noise and that of the
    branches. With the same inner noise, values equal those of the inner environment to the bit. But
    more numbers are drawn, so a seed gives other starts and other process noise than without the
    wrapper. Without a graph no branch is computed.

    Source: Suh, Pang and Tedrake 2022, "Bundled Gradients through Contact via Randomized
    Smoothing"; Pang et al. 2023, "Global Planning for Contact-Rich Manipulation via Local Smoothing
    of Quasi-dynamic Contact Models".

    Args:
        env: the inner environment.
        branches: ``k``, the number of perturbations.
        action_std: the standard deviation of the actions' perturbation, in their units.
        state_std: the standard deviation of the states' perturbation, in their units.

    Raises:
        RequestError: ``branches`` is not a positive integer, or a standard deviation is negative or
            not finite.
    """

    def __init__(
        self,
        env: DifferentiableEnv[S],
        branches: int,
        action_std: float,
        state_std: float = 0.0,
    ) -> None:
        super().__init__(env)
        self.branches = positive_integer("SmoothingBundle", "branches", branches, MAX_BRANCHES)
        require_finite("SmoothingBundle", action_std=action_std, state_std=state_std)
        require_at_least("SmoothingBundle", 0, action_std=action_std, state_std=state_std)
        self.action_std, self.state_std = action_std, state_std
        self._inner_size = math.prod(env.noise_shape) if env.noise_shape is not None else 0
        self._action_size = math.prod(env.action_space.shape)
        self._state_size = 0
        if state_std > 0:
            self._state_size = sum(_leaf_sizes(env.initial(1, torch.Generator().manual_seed(0))))
        perturbations = self.branches * (self._action_size + self._state_size)
        self.noise_shape = (self._inner_size + perturbations,)
        info = env.gradient
        self.gradient = dataclasses.replace(
            info,
            action="approximate" if info.action == "exact" else info.action,
            state="approximate" if info.state == "exact" else info.state,
            method=f"bundle of {self.branches}: {info.method}",
        )

    def transition(self, state: S, action: Tensor, noise: Tensor | None) -> S:
        if noise is None:
            raise ValueError("SmoothingBundle needs noise [N, *noise_shape] for its branches")
        inner = None
        if self.env.noise_shape is not None:
            inner = noise[:, : self._inner_size].reshape(-1, *self.env.noise_shape)
        with torch.no_grad():
            value: S = self.env.transition(state, action, inner)
        if not torch.is_grad_enabled():
            return value
        branches = self._branches(state, action, inner, noise[:, self._inner_size :])
        blended: S = map_state(self._with_mean_gradient, value, branches)
        return blended

    def _branches(self, state: S, action: Tensor, inner: Tensor | None, noise: Tensor) -> S:
        """The branches' next states ``[k N, ...]``; row ``i N + n`` is branch ``i`` of ``n``."""
        drawn = noise.view(noise.shape[0], self.branches, -1).transpose(0, 1).flatten(0, 1)
        sizes = _leaf_sizes(state) if self.state_std > 0 else []
        by_action, *by_leaf = torch.split(drawn, [self._action_size, *sizes], 1)
        offsets = iter(by_leaf)

        def perturbed(leaf: Tensor) -> Tensor:
            tiled = self._tile(leaf)
            if self.state_std == 0 or not leaf.is_floating_point():
                return tiled
            return tiled + self.state_std * next(offsets).view_as(tiled)

        moved = self._tile(action)
        moved = moved + self.action_std * by_action.view_as(moved)
        tiled_noise = None if inner is None else self._tile(inner)
        after: S = self.env.transition(map_state(perturbed, state), moved, tiled_noise)
        return after

    def _tile(self, tensor: Tensor) -> Tensor:
        tiled: Tensor = tensor.repeat(self.branches, *[1] * (tensor.dim() - 1))
        return tiled

    def _with_mean_gradient(self, value: Tensor, branches: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        return with_gradient_of(value, branches.view(self.branches, *value.shape).mean(0))


def _leaf_sizes(state: State) -> list[int]:
    """The number of entries in one row of each floating-point tensor."""
    floats = (leaf for leaf in leaves_of(state) if leaf.is_floating_point())
    return [math.prod(leaf.shape[1:]) for leaf in floats]
