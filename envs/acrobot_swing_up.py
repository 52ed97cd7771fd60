"""The acrobot paid for the height of its tip: a smooth reward for pathwise gradients."""

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.envs.acrobot import (
    LINE,
    acrobot_observation,
    acrobot_spaces,
    acrobot_step,
    draw_acrobot,
    tip_height,
)
from pgtoolkit.envs.differentiable import DifferentiableEnv


@final
class AcrobotSwingUp(DifferentiableEnv[Tensor]):
    """:class:`Acrobot <pgtoolkit.envs.acrobot.Acrobot>` with a reward that has a derivative.

    ::

        reward = h' / 2 - 1,   h = -cos theta1 - cos(theta1 + theta2)

    It is that of the state that the action led to, from -2, hanging, to 0, upright. All else is as
    there: the equations, the observation, the starts, the torque within ±1, the end above the line
    at ``h > 1``, at most 500 steps. Every step costs something, so it pays to get there soon, and
    the length of an episode compares with Gymnasium's.

    The derivative is exact, and 0 by a torque beyond its clamp and through a speed beyond its
    bound. It does not see the end of an episode, which is an event; but it sees the height that
    leads there.
    """

    max_episode_steps = 500

    def __init__(self) -> None:
        self.observation_space, self.action_space = acrobot_spaces()

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return 0.2 * torch.rand(num_envs, 4, generator=generator, device=generator.device) - 0.1

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return acrobot_step(state, action[:, 0].clamp(-1.0, 1.0))

    def observation(self, state: Tensor) -> Tensor:
        return acrobot_observation(state)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return tip_height(next_state) / 2 - 1.0

    def terminal(self, state: Tensor) -> Tensor:
        return tip_height(state) > LINE

    def render(self, state: Tensor, index: int) -> NDArray[np.uint8]:
        """The two links, and the line that the tip must reach."""
        return draw_acrobot(state[index]).rgb()
