"""What an environment will draw and which time limits it will meet, ahead of its steps."""

from typing import NamedTuple, final

import torch
from torch import Tensor

from pgtoolkit.envs.compiled.layout import Form
from pgtoolkit.envs.states import VectorState, leaves_of
from pgtoolkit.envs.vector import DifferentiableVectorEnv


@final
class Ahead(NamedTuple):
    """Of ``L`` steps in which no episode ends but by its time limit."""

    noise: list[Tensor]
    """``[L, N, *noise_shape]`` of the dynamics; empty if they have none."""
    truncated: Tensor
    """``[L, N]`` bool: the time limit, at every step but the last."""
    fresh: list[Tensor]
    """``[L, N, ...]`` the tensors of start states; what counts is the rows that are truncated."""
    generator_state: Tensor
    """Of the environment's generator, after the last step and before any reset there."""


def look_ahead(env: DifferentiableVectorEnv, begin: VectorState, num_steps: int) -> Ahead:
    """Draws from a copy of the environment's generator what its own steps would draw.

    Args:
        env: only asked, not changed.
        begin: its position.
        num_steps: ``L``.
    """
    limit = env.env.max_episode_steps
    step = torch.arange(1, num_steps + 1, device=env.device).unsqueeze(1)
    truncated = (begin.elapsed + step) % limit == 0
    truncated[-1] = False
    generator = torch.Generator(env.device)
    generator.set_state(begin.generator_state)
    leaves = leaves_of(begin.state)
    fresh = [_zeros(num_steps, x.detach()) for x in leaves]
    noise: list[Tensor] = []
    for t, resets in enumerate(truncated.any(1).tolist()):
        if env.env.noise_shape is not None:
            shape = (env.num_envs, *env.env.noise_shape)
            noise.append(
                torch.randn(shape, generator=generator, device=env.device, dtype=env.dtype)
            )
        if resets:
            started = env.env.reset_where(begin.state, truncated[t], generator)
            for buffer, leaf in zip(fresh, leaves_of(started), strict=True):
                buffer[t] = leaf.detach()
    stacked = [torch.stack(noise)] if noise else []
    return Ahead(stacked, truncated, fresh, generator.get_state())


def _zeros(num_steps: int, like: Tensor) -> Tensor:
    """``[L, N, ...]``, already in the layout in which loops hold it."""
    if Form.of(like).turned:
        return like.new_zeros(num_steps, *reversed(like.shape)).transpose(-1, -2)
    return like.new_zeros(num_steps, *like.shape)


def elapsed_at(env: DifferentiableVectorEnv, begin: VectorState, num_steps: int) -> Tensor:
    """``[N]`` steps since each environment's last reset, so many steps after a position."""
    return (begin.elapsed + num_steps) % env.env.max_episode_steps
