"""Collects one whole episode of every environment."""

from collections.abc import Callable

import torch
from torch import Tensor

from pgtoolkit.errors import SettingError
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import RolloutState, collect, reset
from pgtoolkit.rollouts.window import Window, concatenate, first_episodes, map_window

MAX_EPISODE_STEPS = 10_000
"""Steps after which an episode counts as endless, where no time limit is known."""

MAX_TRIES = 4
"""Episodes of one environment that may be broken off by faults, less one."""


def collect_episodes(
    env: AnyVectorEnv,
    policy: Policy,
    draw_noise: Callable[[int], Tensor],
    *,
    chunk: int = 64,
    max_steps: int = MAX_EPISODE_STEPS,
) -> tuple[Window, RolloutState]:
    """Collects one whole episode of every environment, from a reset.

    Each environment contributes one episode, so short ones are not favoured. An environment whose
    episode has ended is stepped until the last one has; these steps are not ``valid``. The first
    episode that no fault breaks off counts. An environment that is taken out has none.

    Args:
        env: any Gymnasium vector environment.
        policy: acts on every step.
        draw_noise: maps a number of steps ``T`` to the noise ``[T, N, A]`` of their actions.
        chunk: steps between checks whether all episodes have ended.
        max_steps: steps of each environment after which it is an error that episodes have not
            ended.

    Returns:
        The window, and the rollout state after all steps, those that are not valid included.

    Raises:
        RequestError: an episode did not end within ``max_steps``.
    """
    noise = draw_noise(chunk)
    rollout_state = reset(env, seed=None, device=noise.device)
    windows: list[Window] = []
    while not windows or not bool(_are_over(windows).all()):
        if len(windows) * chunk >= _tries(windows) * max_steps:
            raise SettingError(
                f"an episode did not end within {max_steps:,} steps: give the environment a time "
                "limit (max_episode_steps, or gymnasium.wrappers.TimeLimit), or train on windows "
                "(--rollout windows), which need no ends"
            )
        window, rollout_state = collect(env, policy, rollout_state, noise)
        windows.append(window)
        noise = draw_noise(chunk)
    window = first_episodes(concatenate(windows))
    happened = window.valid.any(1).nonzero()
    length = int(happened.max()) + 1 if len(happened) else 1
    return map_window(lambda tensor: tensor[:length], window), rollout_state


def _tries(windows: list[Window]) -> int:
    """How many episodes each environment may begin: more if a fault broke off one of the first."""
    if not windows:
        return 1
    ended = torch.cat([window.done for window in windows]).cummax(0).values
    valid = torch.cat([window.valid for window in windows])
    return MAX_TRIES if bool((~valid & ~ended).any()) else 1


def _are_over(windows: list[Window]) -> Tensor:
    """``[N]``: an episode has ended, or the environment was taken out and takes no more steps."""
    has_ended = torch.cat([window.done for window in windows]).any(0)
    return has_ended | ~windows[-1].valid.any(0)
