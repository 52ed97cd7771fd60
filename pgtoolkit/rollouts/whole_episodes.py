"""Whole episodes, one of every environment."""

from collections.abc import Callable

import torch
from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import RolloutState, collect, start
from pgtoolkit.rollouts.window import Window, concatenate, first_episodes, map_window


def collect_episodes(
    env: AnyVectorEnv,
    policy: Policy,
    draw_noise: Callable[[int], Tensor],
    *,
    chunk: int = 64,
    max_steps: int = 100_000,
) -> tuple[Window, RolloutState]:
    """One whole episode of every environment, from a reset; later steps are not ``valid``.

    Every environment counts once, so short episodes are not favoured. Steps after an environment's
    first end are taken, because the others still run, and are discarded. The rollout state that is
    returned with the window is where the environments stand after those.

    Args:
        env: any Gymnasium vector environment.
        policy: acts on every step.
        draw_noise: gives noise ``[T, N, A]`` for that many steps.
        chunk: steps between checks whether all have ended.
        max_steps: refuses to go on for ever.

    Raises:
        RequestError: an episode did not end within ``max_steps``.
    """
    noise = draw_noise(chunk)
    rollout_state = start(env, seed=None, device=noise.device)
    windows: list[Window] = []
    while not windows or not bool(torch.cat([w.done for w in windows]).any(0).all()):
        if len(windows) * chunk >= max_steps:
            raise RequestError(
                f"an episode did not end within {max_steps} steps: give the environment a time "
                "limit (max_episode_steps), or train on windows (--rollout windows)"
            )
        window, rollout_state = collect(env, policy, rollout_state, noise)
        windows.append(window)
        noise = draw_noise(chunk)
    window = first_episodes(concatenate(windows))
    length = int(window.valid.any(1).sum())
    return map_window(lambda tensor: tensor[:length], window), rollout_state
