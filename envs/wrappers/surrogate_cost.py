"""The environment's reward with the derivative of a surrogate cost."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.distributions.implicit import with_gradient_of
from pgtoolkit.envs.differentiable import DifferentiableEnv, require_outputs
from pgtoolkit.envs.registry.files import import_file
from pgtoolkit.envs.states import S
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper
from pgtoolkit.errors import RequestError

Surrogate = Callable[[Any, Tensor, Any], Tensor]
"""``surrogate(state, action, next_state)`` returns a cost ``[N]``; less is better."""


@final
class SurrogateCost(DifferentiableWrapper[S]):
    """Keeps the reward's value, and replaces its derivative by that of minus a surrogate cost.

    ::

        r_t = reward(s_t, a_t, s_{t+1})          value
        d r_t = -d cost(s_t, a_t, s_{t+1})       derivative

    Returns, evaluation, value function and score function use the true reward; a pathwise gradient
    decreases the cost. It is for rewards of events (a goal reached, a gate passed), which are flat
    wherever they have a derivative. The pathwise gradient is then that of another objective, and
    the test of bias against the score function measures how far the two differ. Where reward and
    cost are added (mixed estimators, a value function's estimate of the rewards after the window),
    give the cost the scale of the reward.

    Args:
        env: the inner environment.
        surrogate: a function ``surrogate(state, action, next_state)`` that returns a cost ``[N]``
            by torch operations, or its location as ``path/to/file.py:function``.

    Raises:
        RequestError: the surrogate is not a function or cannot be found, or, while stepping, it
            returns another shape than ``[N]``.
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
        self._moments = _Moments()

    def reward(self, state: S, action: Tensor, next_state: S) -> Tensor:
        with torch.no_grad():
            reward = self.env.reward(state, action, next_state)
        cost = self.surrogate(state, action, next_state)
        require_outputs(self, action.shape[0], surrogate=cost)
        self._moments.add(torch.stack([reward, cost.detach().to(reward)]).double())
        return with_gradient_of(reward, -cost)

    def metrics(self) -> dict[str, Tensor]:
        """The inner metrics, and three more over all steps since the last call.

        - ``environment/reward``: the mean reward of a step;
        - ``environment/surrogate_cost``: the mean cost of a step;
        - ``environment/surrogate_correlation``: the correlation of the reward with minus the cost.
          A negative one suggests that the cost has the wrong sign. Omitted while either is
          constant.
        """
        found, moments = self.env.metrics(), self._moments
        self._moments = _Moments()
        if moments.count == 0:
            return found
        reward, cost = moments.mean
        found |= {"environment/reward": reward, "environment/surrogate_cost": cost}
        scatter = moments.scatter
        scale = (scatter[0, 0] * scatter[1, 1]).sqrt()
        if bool(scale > 0):
            found["environment/surrogate_correlation"] = -scatter[0, 1] / scale
        return found


class _Moments:
    """Running mean ``[2]`` and scatter ``[2, 2]`` of (reward, cost) pairs (Chan et al. 1979).

    The scatter is the sum of outer products of the pairs less their mean.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(2, dtype=torch.float64)
        self.scatter = torch.zeros(2, 2, dtype=torch.float64)

    def add(self, pairs: Tensor) -> None:
        """Adds ``N`` pairs ``[2, N]``."""
        count, mean = pairs.shape[1], pairs.mean(1)
        centred = pairs - mean.unsqueeze(1)
        total = self.count + count
        shift = mean - self.mean.to(mean)
        between = torch.outer(shift, shift) * (self.count * count / total)
        self.scatter = self.scatter.to(mean) + centred @ centred.T + between
        self.mean, self.count = self.mean.to(mean) + shift * (count / total), total


def load_surrogate(where: str) -> Surrogate:
    """The function at ``where``, written as ``path/to/file.py:function``.

    Raises:
        RequestError: there is no such file or function, or importing the file fails.
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
