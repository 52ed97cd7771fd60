"""Evaluation: a frozen policy in its own environments, every episode counted once."""

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
from pgtoolkit.rollouts.rollout import RolloutState, collect, start
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream


@final
@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns and lengths, one entry an episode."""

    returns: list[float]
    lengths: list[int]

    @property
    def mean_return(self) -> float:
        return float(np.mean(self.returns))

    @property
    def std_return(self) -> float:
        """Spread over episodes (population); divide by sqrt(episodes) for the mean's error."""
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
    """Runs whole episodes, a fixed number in each environment, so that short ones are not favoured.

    Nothing learns and the observation normaliser does not change.

    Args:
        env: a vector environment that nothing else uses, of at most ``episodes`` environments.
        policy: acts by its mode, or by a sample if ``stochastic``.
        episodes: how many to run in all.
        seed: of the environments' starts and of the sampled actions.
        device: where the policy lives.
        stochastic: sample actions.
        chunk: steps between looks at what has ended.
        max_steps: of one environment; more is an error.

    Raises:
        RequestError: episodes do not end.
    """
    generator = stream(seed, "evaluation noise", device)
    draw_noise = (
        noise_windows(policy, env.num_envs, generator)
        if stochastic
        else zero_noise_windows(policy, env.num_envs, device)
    )
    tracker, position = EpisodeTracker(env.num_envs), np.arange(env.num_envs)
    wanted = episodes // env.num_envs + (position < episodes % env.num_envs)
    found: list[list[tuple[float, int]]] = [[] for _ in position]
    rollout_state = start(env, seed=seed, device=device)
    for number, window in enumerate(windows(env, policy, rollout_state, draw_noise, chunk)):
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


def windows(
    env: AnyVectorEnv,
    policy: Policy,
    rollout_state: RolloutState,
    draw_noise: Callable[[int], Tensor],
    chunk: int,
) -> Iterator[Window]:
    """Windows of ``chunk`` steps, one after the other, for ever."""
    while True:
        window, rollout_state = collect(env, policy, rollout_state, draw_noise(chunk))
        yield window


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
