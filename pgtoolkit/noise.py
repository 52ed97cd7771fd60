"""Where the noise of actions comes from: a generator, or nowhere."""

from collections.abc import Callable

import torch
from torch import Tensor

from pgtoolkit.policy import Policy


def noise_windows(
    policy: Policy, num_envs: int, generator: torch.Generator
) -> Callable[[int], Tensor]:
    """A function that draws the noise of ``T`` steps ``[T, N, A]``."""

    def draw(num_steps: int) -> Tensor:
        return policy.draw_noise(num_steps, num_envs, generator=generator)

    return draw


def zero_noise_windows(
    policy: Policy, num_envs: int, device: torch.device
) -> Callable[[int], Tensor]:
    """The same with zeros: every action is the distribution's mode."""

    def draw(num_steps: int) -> Tensor:
        return torch.zeros(num_steps, num_envs, policy.noise_size, device=device)

    return draw
