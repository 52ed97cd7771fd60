"""Two small environments of the learning study, beside those of the package."""

from typing import final

import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.envs.differentiable import DifferentiableEnv


@final
class Hover(DifferentiableEnv[Tensor]):
    """The README's environment: thrust holds a point mass at height 1.

    The state is ``[N, 2]``: height (m) and speed (m/s).
    """

    observation_space = Box(-float("inf"), float("inf"), (2,))
    action_space = Box(0.0, 2.0, (1,))
    max_episode_steps = 100

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.rand(num_envs, 2, generator=generator, device=generator.device)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        speed = state[:, 1] + 0.05 * 9.8 * (action[:, 0] - 1.0)
        return torch.stack([state[:, 0] + 0.05 * speed, speed], -1)

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return -((next_state[:, 0] - 1.0) ** 2) - 0.1 * next_state[:, 1] ** 2

    def terminal(self, state: Tensor) -> Tensor:
        return state[:, 0].abs() > 10.0


@final
class Wind(DifferentiableEnv[Tensor]):
    """A point mass in the plane, in a swirling wind with gusts; it flies to the origin.

    The state is ``[N, 4]``: position (m) and velocity (m/s). The reward is minus the distance, so
    its slope does not vanish at the target.

    Args:
        wind: acceleration of the swirl for each metre of distance, in 1/s^2.
    """

    observation_space = Box(-float("inf"), float("inf"), (4,))
    action_space = Box(-1.0, 1.0, (2,))
    max_episode_steps = 100
    noise_shape = (2,)

    def __init__(self, wind: float = 0.5) -> None:
        self.wind = wind

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        device = generator.device
        position = 4 * torch.rand(num_envs, 2, generator=generator, device=device) - 2
        return torch.cat([position, torch.zeros_like(position)], -1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        assert noise is not None, "this environment declares its noise"
        position, velocity = state[:, :2], state[:, 2:]
        swirl = self.wind * torch.stack([-position[:, 1], position[:, 0]], -1)
        velocity = 0.98 * velocity + 0.1 * (2 * action + swirl + 0.1 * noise)
        return torch.cat([position + 0.1 * velocity, velocity], -1)

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        distance: Tensor = torch.linalg.vector_norm(next_state[:, :2], dim=-1)
        return -distance - 0.01 * action.square().sum(-1)

    def terminal(self, state: Tensor) -> Tensor:
        distance: Tensor = torch.linalg.vector_norm(state[:, :2], dim=-1)
        return distance > 10
