"""The noise of an environment's dynamics, ahead of the steps that it belongs to."""

import torch
from torch import Tensor

from pgtoolkit.envs.vector import DifferentiableVectorEnv, VectorState


def draw_process_noise(
    env: DifferentiableVectorEnv, begin: VectorState, num_steps: int
) -> tuple[list[Tensor], Tensor]:
    """What the environment itself would draw in so many steps from there.

    Args:
        env: only asked, not changed.
        begin: its position.
        num_steps: ``L``.

    Returns:
        The noise ``[L, N, *noise_shape]``, in a list that is empty if the dynamics have none; and
        the generator's state after it.
    """
    if env.env.noise_shape is None:
        return [], begin.generator_state
    generator = torch.Generator(env.device)
    generator.set_state(begin.generator_state)
    shape = (env.num_envs, *env.env.noise_shape)
    drawn = [
        torch.randn(shape, generator=generator, device=env.device, dtype=env.dtype)
        for _ in range(num_steps)
    ]
    return [torch.stack(drawn)], generator.get_state()
