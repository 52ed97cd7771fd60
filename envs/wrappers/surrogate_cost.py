"""A reward without a useful derivative, and beside it a cost that has one."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.distributions.implicit import with_gradient_of
from pgtoolkit.envs.differentiable import DifferentiableEnv, require_outputs
from pgtoolkit.envs.states import S
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper
from pgtoolkit.errors import RequestError
from pgtoolkit.networks.normalizer import Moments
from pgtoolkit.user_code import import_file

Surrogate = Callable[[Any, Tensor, Any], Tensor]
"""``surrogate(state, action, next_state)`` ``[N]``: a cost, less is better."""


@final
class SurrogateCost(DifferentiableWrapper[S]):
    """The reward's value is the environment's, its derivative that of minus a surrogate cost.

    ::

        r_t = reward(s_t, a_t, s_{t+1})          value
        d r_t = -d cost(s_t, a_t, s_{t+1})       derivative

    Returns, evaluation, value function and score function know the true reward; a pathwise gradient
    descends the cost. It is for rewards of events (a goal reached, a gate passed), which are flat
    wherever they have a derivative. The pathwise gradient is then that of another objective, and
    the test of bias against the score function says how far the two differ. Where they must be on
    one scale (mixed estimators, a bootstrap beyond the window), scale the cost as the reward is.

    Args:
        env: the inner environment.
        surrogate: ``surrogate(state, action, next_state) -> [N]``, a cost, in torch operations; or
            where it is, as ``path/to/file.py:function``.

    Raises:
        RequestError: the surrogate is not a function, or not found; while stepping: it returns
            another shape than ``[N]``.
    """

    def __init__(self, env: DifferentiableEnv[S], surrogate: Surrogate | str) -> None:
        super().__init__(env)
        self.surrogate = load_surrogate(surrogate) if isinstance(surrogate, str) else surrogate
        if not callable(self.surrogate):
            raise RequestError(
                f"SurrogateCost's surrogate is {surrogate!r}: give a function of (state, action, "
                "next_state) that returns a cost [N], or path/to/file.py:function"
            )
        method = f"{env.gradient.method}, surrogate cost"
        self.gradient = dataclasses.replace(env.gradient, reward="approximate", method=method)
        self._moments: Moments | None = None

    def reward(self, state: S, action: Tensor, next_state: S) -> Tensor:
        with torch.no_grad():
            reward = self.env.reward(state, action, next_state)
        cost = self.surrogate(state, action, next_state)
        require_outputs(self, action.shape[0], surrogate=cost)
        moments = moments_of_pairs(torch.stack([reward, cost.detach().to(reward)]).double())
        self._moments = moments if self._moments is None else self._moments.merge(moments)
        return with_gradient_of(reward, -cost)

    def begin_window(self) -> None:
        super().begin_window()
        self._moments = None  # of the steps of an evaluation, which is of another policy

    def metrics(self) -> dict[str, Tensor]:
        """Means and correlation of reward and surrogate cost over the steps of the window.

        - ``environment/reward``: the mean reward of a step;
        - ``environment/surrogate_cost``: the mean surrogate cost of a step;
        - ``environment/surrogate_correlation``: the correlation of the reward with minus the cost.
          It is 1 if the two agree up to scale and offset, 0 if they are uncorrelated, and negative
          if the cost has the wrong sign. It is left out while either is constant.
        """
        found, moments = self.env.metrics(), self._moments
        self._moments = None
        if moments is None:
            return found
        reward, cost = moments.mean
        found |= {"environment/reward": reward, "environment/surrogate_cost": cost}
        scatter = moments.scatter
        scale = (scatter[0, 0] * scatter[1, 1]).sqrt()
        if bool(scale > 0):
            found["environment/surrogate_correlation"] = -scatter[0, 1] / scale
        return found


def moments_of_pairs(pairs: Tensor) -> Moments:
    """Mean ``[2]`` and scatter ``[2, 2]`` of ``[2, N]`` pairs."""
    mean = pairs.mean(1)
    centred = pairs - mean.unsqueeze(1)
    return Moments(pairs.shape[1], mean, centred @ centred.T)


def load_surrogate(where: str) -> Surrogate:
    """The function at ``path/to/file.py:function``.

    Raises:
        RequestError: there is no such file or function, or an error on importing it.
    """
    file, _, name = where.rpartition(":")
    path = Path(file).expanduser()
    if not name or not path.is_file():
        raise RequestError(
            f"SurrogateCost's surrogate {where!r} is not there: write path/to/file.py:function"
        )
    function: Surrogate | None = getattr(import_file(path.resolve()), name, None)
    if function is None:
        raise RequestError(f"{file} has no function {name} for SurrogateCost")
    return function
