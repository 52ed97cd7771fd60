"""Evaluation: returns of whole episodes of a policy that does not change."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import final

import numpy as np
import torch
from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.episodes import EpisodeTracker
from pgtoolkit.rollouts.rollout import RolloutState, collect, reset
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream


@final
@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns and lengths of episodes, one entry for each episode."""

    returns: list[float]
    lengths: list[int]
    """Number of environment steps of each episode."""

    @property
    def mean_return(self) -> float:
        return float(np.mean(self.returns))

    @property
    def std_return(self) -> float:
        """Population standard deviation over episodes.

        Divided by the square root of their number it is the standard error of the mean return.
        """
        return float(np.std(self.returns))

    @property
    def mean_length(self) -> float:
        return float(np.mean(self.lengths))


def evaluate(
    env: AnyVectorEnv,
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    device: torch.device,
    stochastic: bool = False,
    chunk: int = 50,
    max_steps: int = 1_000_000,
) -> Evaluation:
    """Runs whole episodes of a policy and returns their returns and lengths.

    Each environment contributes a fixed number of episodes, so short ones are not favoured. Nothing
    learns, and the observation normaliser does not change.

    Args:
        env: a vector environment that nothing else uses, of at most ``episodes`` environments.
        policy: acts by its mode, or by samples if ``stochastic``.
        episodes: number of episodes in all.
        seed: determines the environments' start states and the sampled actions.
        device: where the policy lives.
        stochastic: whether to sample actions.
        chunk: steps between checks for episodes that have ended.
        max_steps: steps of each environment after which it is an error that episodes are missing.

    Raises:
        RequestError: episodes do not end within ``max_steps``.
    """
    generator = stream(seed, "evaluation noise", device)

    def draw_noise(num_steps: int) -> Tensor:
        if stochastic:
            return policy.draw_noise(num_steps, env.num_envs, generator=generator)
        return torch.zeros(num_steps, env.num_envs, policy.noise_size, device=device)

    tracker, indices = EpisodeTracker(env.num_envs), np.arange(env.num_envs)
    wanted = episodes // env.num_envs + (indices < episodes % env.num_envs)
    found: list[list[tuple[float, int]]] = [[] for _ in indices]
    rollout_state = reset(env, seed=seed, device=device)
    for number, window in enumerate(collect_windows(env, policy, rollout_state, draw_noise, chunk)):
        for index, episode_return, length in tracker.update(window):
            if len(found[index]) < wanted[index]:
                found[index].append((episode_return, length))
        if all(len(have) == want for have, want in zip(found, wanted, strict=True)):
            break
        if (number + 1) * chunk >= max_steps:
            raise RequestError(
                f"episodes did not end within {max_steps} steps: give the environment a time limit"
            )
    flat = [episode for have in found for episode in have]
    return Evaluation([r for r, _ in flat], [n for _, n in flat])


def collect_windows(
    env: AnyVectorEnv,
    policy: Policy,
    rollout_state: RolloutState,
    draw_noise: Callable[[int], Tensor],
    num_steps: int,
) -> Iterator[Window]:
    """Collects windows of ``num_steps`` steps one after the other, without end.

    Args:
        env: any Gymnasium vector environment.
        policy: acts on every step.
        rollout_state: the rollout state before the first window.
        draw_noise: maps a number of steps ``T`` to the noise ``[T, N, A]`` of their actions.
        num_steps: steps of each window.
    """
    while True:
        window, rollout_state = collect(env, policy, rollout_state, draw_noise(num_steps))
        yield window
