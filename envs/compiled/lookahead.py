"""Random draws and time limits of the next ``L`` steps, computed before the compiled loop runs."""

from typing import NamedTuple, final

import torch
from torch import Tensor

from pgtoolkit.envs.compiled.layout import Layout
from pgtoolkit.envs.states import VectorState, leaves_of
from pgtoolkit.envs.vector import DifferentiableVectorEnv


@final
class Lookahead(NamedTuple):
    """Random draws and time limits of ``L`` steps in which no episode ends but by its time limit.

    The last step's reset is left out: the caller makes it, after the loop.
    """

    process_noise: list[Tensor]
    """``[L, N, *noise_shape]`` of the dynamics; empty if they have none."""
    time_limit: Tensor
    """``[L, N]`` bool: the step reaches the time limit. False at the last step."""
    start_states: list[Tensor]
    """``[L, N, ...]`` the tensors of a state. Rows where ``time_limit`` is true are the start
    states of the next episodes; the others have no meaning."""
    generator_state: Tensor
    """The environment's generator after the last step and before any reset there."""


def look_ahead(env: DifferentiableVectorEnv, env_state: VectorState, num_steps: int) -> Lookahead:
    """Draws from a copy of the environment's generator what its own steps would draw.

    Args:
        env: the environment; it is not changed.
        env_state: the environment's state before the first step.
        num_steps: the number of steps ``L``.
    """
    limit = env.env.max_episode_steps
    step = torch.arange(1, num_steps + 1, device=env.device).unsqueeze(1)
    time_limit = (env_state.elapsed + step) % limit == 0
    time_limit[-1] = False
    generator = torch.Generator(env.device)
    generator.set_state(env_state.generator_state)
    start_states = [_zeros(num_steps, x.detach()) for x in leaves_of(env_state.state)]
    noise: list[Tensor] = []
    for t, any_reset in enumerate(time_limit.any(1).tolist()):
        if env.env.noise_shape is not None:
            shape = (env.num_envs, *env.env.noise_shape)
            noise.append(
                torch.randn(shape, generator=generator, device=env.device, dtype=env.dtype)
            )
        if any_reset:
            state = env.env.reset_where(env_state.state, time_limit[t], generator)
            for buffer, leaf in zip(start_states, leaves_of(state), strict=True):
                buffer[t] = leaf.detach()
    stacked = [torch.stack(noise)] if noise else []
    return Lookahead(stacked, time_limit, start_states, generator.get_state())


def _zeros(num_steps: int, like: Tensor) -> Tensor:
    """``[L, N, ...]`` in the memory layout of the loop, so that packing it copies nothing."""
    if Layout.of(like).transposed:
        return like.new_zeros(num_steps, *reversed(like.shape)).transpose(-1, -2)
    return like.new_zeros(num_steps, *like.shape)


def elapsed_after(env: DifferentiableVectorEnv, env_state: VectorState, num_steps: int) -> Tensor:
    """``[N]`` steps since the last reset, ``num_steps`` after a state, resets at the limit made."""
    return (env_state.elapsed + num_steps) % env.env.max_episode_steps
