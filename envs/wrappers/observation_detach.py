"""The gradient without the path through the observations."""

import dataclasses
from typing import final

import torch
from torch import Tensor

from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import S
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper


@final
class ObservationDetach(DifferentiableWrapper[S]):
    """Detaches observations, so that the gradient runs through actions, dynamics and rewards only.

    The derivative of a return by the action ``a_t`` then holds the later actions fixed::

        dJ/da_t = sum_{k >= t} gamma^k dr_k/da_t    with a_{t+1}, a_{t+2}, ... constant

    The factors ``(A + B K)`` of the closed loop become ``A``, those of the open loop. That limits
    the growth of the gradient where the policy is steep, or where the observation is (an image).
    It is biased, because the later actions do respond to the state. In an unstable system the
    gradient grows *more* this way, because the policy does not stabilise it.

    Values are those of the inner environment, to the bit. A value function's estimate ``V(s_H)`` at
    the end of a window depends on the observation, so its gradient is cut too: the gradient ignores
    all rewards after the window, which must be long enough.

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
            # Detached as well, because an environment may return its state as the observation.
            return self.env.observation(state).detach()
