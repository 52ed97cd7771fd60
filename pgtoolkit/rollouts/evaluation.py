"""Evaluation: returns of whole episodes of a policy that does not change."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.action_counts import ActionCounter, ActionCounts
from pgtoolkit.rollouts.episodes import EpisodeTracker
from pgtoolkit.rollouts.rollout import RolloutState, collect, reset
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream

MAX_EPISODE_STEPS = 1_000
"""Steps after which an evaluation episode is cut off where no time limit is known."""


@final
@dataclasses.dataclass(frozen=True, repr=False)
class Evaluation:
    """Undiscounted returns and lengths of episodes, one entry for each episode.

    It prints as its mean return with the standard error, the episodes, and what else is unusual.
    """

    returns: list[float]
    lengths: list[int]
    """Number of environment steps of each episode."""
    cut_off: int = 0
    """How many of the episodes did not end by themselves within the steps that they were given.
    Their returns are those so far."""
    successes: list[bool] | None = None
    """Whether each episode was a success: ``is_success`` in the info of its last step, False where
    that says nothing. None if no episode has it."""
    actions: ActionCounts | None = None
    """How often each part of the action space was used, in all steps that were played. None if no
    dimension has bounds."""

    def __repr__(self) -> str:
        error = "" if self.standard_error is None else f" +- {self.standard_error:.2f}"
        count = len(self.returns)
        parts = [
            f"return {self.mean_return:.2f}{error}",
            f"{count:,} {'episode' if count == 1 else 'episodes'} of {self.mean_length:.1f} steps",
        ]
        if self.success_rate is not None:
            parts.append(f"{self.success_rate:.0%} successes")
        if self.cut_off:
            parts.append(f"{self.cut_off:,} cut off")
        return f"Evaluation({', '.join(parts)})"

    @property
    def mean_return(self) -> float:
        return float(np.mean(self.returns))

    @property
    def std_return(self) -> float:
        """Population standard deviation over episodes."""
        return float(np.std(self.returns))

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean return, ``s / sqrt(n)`` with the unbiased variance ``s^2``.

        None for a single episode.
        """
        count = len(self.returns)
        return float(np.std(self.returns, ddof=1)) / count**0.5 if count > 1 else None

    @property
    def mean_length(self) -> float:
        return float(np.mean(self.lengths))

    @property
    def success_rate(self) -> float | None:
        """The share of the episodes that were a success; None if nothing says it."""
        return None if self.successes is None else float(np.mean(self.successes))

    @property
    def cut_off_share(self) -> float:
        """The share of the episodes that were cut off."""
        return self.cut_off / len(self.returns)


@final
class EvaluationStopped(RuntimeError):
    """An evaluation was asked to stop before it had all its episodes."""


def never() -> bool:
    """The ``stop_requested`` of an evaluation that nobody stops."""
    return False


class Episode(NamedTuple):
    """The undiscounted return and length of an episode, whether it succeeded and was cut off."""

    episode_return: float
    length: int
    success: bool | None
    cut_off: bool


def evaluate(
    env: AnyVectorEnv,
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    device: torch.device,
    stochastic: bool = False,
    chunk: int = 50,
    max_episode_steps: int = MAX_EPISODE_STEPS,
    stop_requested: Callable[[], bool] = never,
) -> Evaluation:
    """Runs whole episodes of a policy and returns their returns and lengths.

    Each environment contributes a fixed number of episodes, so short ones are not favoured. Nothing
    learns, and the observation normaliser does not change.

    An episode without an end is cut off. Its environment then waits until the others have all their
    episodes or are cut off too, and all are reset together, because not every vector environment
    can reset one alone.

    Args:
        env: a vector environment that nothing else uses, of at most ``episodes`` environments.
        policy: acts by its mode, or by samples if ``stochastic``.
        episodes: number of episodes in all.
        seed: determines the environments' start states and the sampled actions.
        device: where the policy lives.
        stochastic: whether to sample actions.
        chunk: steps between checks for episodes that have ended.
        max_episode_steps: steps after which an episode that has not ended is cut off.
        stop_requested: asked every ``chunk`` steps whether to give up.

    Raises:
        EvaluationStopped: ``stop_requested`` said so.
    """
    generator = stream(seed, "evaluation noise", device)

    def draw_noise(num_steps: int) -> Tensor:
        if stochastic:
            return policy.draw_noise(num_steps, env.num_envs, generator=generator)
        return torch.zeros(num_steps, env.num_envs, policy.noise_size, device=device)

    indices = np.arange(env.num_envs)
    wanted = episodes // env.num_envs + (indices < episodes % env.num_envs)
    found: list[list[Episode]] = [[] for _ in indices]
    counter = ActionCounter(env.single_action_space)
    start: int | None = seed
    while any(len(have) < want for have, want in zip(found, wanted, strict=True)):
        rollout_state = reset(env, seed=start, device=device)
        collected = collect_windows(env, policy, rollout_state, draw_noise, chunk)
        windows = counter.passing(until_stopped(collected, stop_requested))
        play_to_cut_off(windows, wanted, found, max_episode_steps)
        start = None
    flat = [episode for have in found for episode in have]
    return Evaluation(
        [episode.episode_return for episode in flat],
        [episode.length for episode in flat],
        sum(episode.cut_off for episode in flat),
        known_successes([episode.success for episode in flat]),
        counter.found,
    )


def known_successes(found: Sequence[bool | None]) -> list[bool] | None:
    """What episodes said of their success: False for None, and None if none said anything."""
    return None if all(one is None for one in found) else [bool(one) for one in found]


def until_stopped(
    windows: Iterator[Window], stop_requested: Callable[[], bool]
) -> Iterator[Window]:
    """The windows, each after a question whether to stop.

    Raises:
        EvaluationStopped: the answer was yes.
    """
    for window in windows:
        if stop_requested():
            raise EvaluationStopped("the evaluation was stopped")
        yield window


def play_to_cut_off(
    windows: Iterator[Window],
    wanted: NDArray[np.integer],
    found: list[list[Episode]],
    max_episode_steps: int,
) -> None:
    """Adds episodes to ``found`` until every environment has those wanted or one was cut off.

    Args:
        windows: windows that follow each other, from a reset.
        wanted: ``[N]`` number of episodes of each environment.
        found: the episodes of each environment so far.
        max_episode_steps: length at which an episode is cut off.
    """
    tracker, num_envs = EpisodeTracker(len(wanted)), len(wanted)
    age, is_over = torch.zeros(num_envs, dtype=torch.int64), torch.zeros(num_envs, dtype=torch.bool)
    for window in windows:
        cut, age = cut_steps(window, age, max_episode_steps)
        shortened = up_to_cut(window, cut, is_over)
        was_cut = cut.any(0) & ~is_over
        ended: list[list[Episode]] = [[] for _ in found]
        for index, episode_return, length, success in tracker.update(shortened):
            ended[index].append(Episode(episode_return, length, success, False))
        for index in was_cut.nonzero().flatten().tolist():
            ended[index][-1] = ended[index][-1]._replace(cut_off=True)
        is_over |= was_cut
        for have, new, want in zip(found, ended, wanted, strict=True):
            have += new[: want - len(have)]
        enough = [len(have) == want for have, want in zip(found, wanted, strict=True)]
        if bool((is_over | torch.tensor(enough)).all()):
            return


def cut_steps(window: Window, age: Tensor, max_episode_steps: int) -> tuple[Tensor, Tensor]:
    """The steps at which an episode reaches its largest length and does not end by itself.

    Args:
        window: a window of :func:`collect <pgtoolkit.rollouts.rollout.collect>`.
        age: ``[N]`` steps of the running episodes before the window.
        max_episode_steps: the largest length.

    Returns:
        ``[T, N]`` bool, and the ages ``[N]`` after the window.
    """
    assert window.episode_start is not None, "the rollouts say where episodes start"
    valid, episode_start = window.valid.cpu(), window.episode_start.cpu()
    count = valid.cumsum(0)
    # An episode's length is the count since its start; counts never fall, so the latest is largest.
    before = torch.where(episode_start, count - valid.long(), -age).cummax(0).values
    length = count - before
    cut = valid & (length == max_episode_steps) & ~window.done.cpu()
    return cut, length[-1]


def up_to_cut(window: Window, cut: Tensor, is_over: Tensor) -> Window:
    """The window with truncations at the cuts, and without the steps after an environment's first.

    Args:
        window: a window.
        cut: ``[T, N]`` bool.
        is_over: ``[N]`` bool, environments that were cut off before the window.
    """
    if not bool(cut.any() | is_over.any()):
        return window
    past = torch.cat([is_over.unsqueeze(0), cut[:-1]]).cummax(0).values.to(window.valid.device)
    truncated = window.truncated | cut.to(window.valid.device)
    return dataclasses.replace(window, truncated=truncated, valid=window.valid & ~past)


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
