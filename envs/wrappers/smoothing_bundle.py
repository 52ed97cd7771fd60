"""The derivative averaged over perturbed branches, for dynamics with corners."""

import dataclasses
import math
from typing import final

import torch
from torch import Tensor

from pgtoolkit.distributions.implicit import with_gradient_of
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import S, State, map_state
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper
from pgtoolkit.errors import RequestError


@final
class SmoothingBundle(DifferentiableWrapper[S]):
    """The value is the inner environment's transition, the derivative a bundle's average.

    ::

        s_{t+1} = f(s_t, a_t)
        d s_{t+1} = 1/k sum_i  Df(s_t + state_std v_i, a_t + action_std w_i) (d s_t, d a_t)

    with ``v_i, w_i`` standard normal. The average estimates the derivative of the smoothed dynamics
    ``E[f(s + state_std v, a + action_std w)]`` without bias, *wherever f is continuous*: where a
    contact opens or a clamp holds, ``Df`` may be 0 at ``a_t`` itself and not next to it. The
    ``k N`` branches are one call of the inner environment, with the process noise of their row.

    **What it cannot do.** It averages first derivatives. A jump of ``f`` has none to average, so it
    stays invisible however many branches there are (the score function sees it). The reward is not
    smoothed, unless the inner environment computes it in its transition. Of a state only the
    floating-point tensors are perturbed.

    Every draw is part of ``noise``, which grows to hold the inner noise and the branches'. Given
    the same inner noise values are equal to the bit, but the draws are more, so a seed gives other
    starts and other process noise than the inner environment alone. Without a graph no branch is
    computed.

    Source: Suh, Pang and Tedrake 2022, "Bundled Gradients through Contact via Randomized
    Smoothing"; Pang et al. 2023, "Global Planning for Contact-Rich Manipulation via Local Smoothing
    of Quasi-dynamic Contact Models".

    Args:
        env: the inner environment.
        branches: ``k``.
        action_std: of the actions' perturbation, in their units.
        state_std: of the state's, in the units of its tensors.

    Raises:
        RequestError: fewer than one branch, or a negative or infinite standard deviation.
    """

    def __init__(
        self,
        env: DifferentiableEnv[S],
        branches: int,
        action_std: float,
        state_std: float = 0.0,
    ) -> None:
        super().__init__(env)
        if branches < 1:
            raise RequestError(f"SmoothingBundle's branches is {branches}: it must be at least 1")
        for name, std in {"action_std": action_std, "state_std": state_std}.items():
            if not 0 <= std < math.inf:
                raise RequestError(f"SmoothingBundle's {name} is {std}: it must be 0 or more")
        self.branches, self.action_std, self.state_std = branches, action_std, state_std
        self._inner_size = math.prod(env.noise_shape) if env.noise_shape is not None else 0
        self._action_size = math.prod(env.action_space.shape)
        self._state_size = 0
        if state_std > 0:
            self._state_size = sum(_leaf_sizes(env.initial(1, torch.Generator().manual_seed(0))))
        own = branches * (self._action_size + self._state_size)
        self.noise_shape = (self._inner_size + own,)
        info = env.gradient
        self.gradient = dataclasses.replace(
            info,
            action="approximate" if info.action == "exact" else info.action,
            state="approximate" if info.state == "exact" else info.state,
            method=f"bundle of {branches}: {info.method}",
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
        """The states ``[k N, ...]`` that the perturbed branches lead to; row ``i N + n``."""
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
    """Numbers in one row of each floating-point tensor."""
    leaves = (state,) if isinstance(state, Tensor) else state
    return [math.prod(leaf.shape[1:]) for leaf in leaves if leaf.is_floating_point()]
