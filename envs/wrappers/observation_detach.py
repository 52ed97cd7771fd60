"""The gradient without the path through what the policy sees."""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import S
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper


@final
class ObservationDetach(DifferentiableWrapper[S]):
    """Cuts the path from state to observation; the gradient runs action, dynamics, reward.

    The derivative of a return by the action ``a_t`` then holds the later actions fixed::

        dJ/da_t = sum_{k >= t} gamma^k dr_k/da_t    with a_{t+1}, a_{t+2}, ... constant

    The factors ``(A + B K)`` of the closed loop become the open loop's ``A``. That tames a loop
    whose policy is steep, or whose observation is (an image), and is biased: the later actions do
    respond. An unstable system explodes *more* this way, because nothing stabilises it.

    Values are those of the inner environment, to the bit. A value function's bootstrap ``V(s_H)``
    is a function of the observation, so its gradient is cut too: what a window earns after its end
    counts for nothing, and the window must be long enough.

    Source: You, Liu and Abraham 2025, "Accelerating Visual-Policy Learning through Parallel
    Differentiable Simulation" (their decoupled policy gradient).

    Args:
        env: the inner environment.
    """

    def __init__(self, env: DifferentiableEnv[S]) -> None:
        super().__init__(env)
        method = f"{env.gradient.method}, observations detached"
        state = "approximate" if env.gradient.state == "exact" else env.gradient.state
        self.gradient = dataclasses.replace(env.gradient, state=state, method=method)

    def observation(self, state: S) -> Tensor:
        with torch.no_grad():
            # Detached as well, because a state may be its own observation.
            return self.env.observation(state).detach()
