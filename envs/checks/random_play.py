"""Random play of a differentiable environment: steps to check its functions on, and their cost."""

import dataclasses
import time
from typing import final

import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.envs.checks.states import (
    CPU,
    copy_state,
    join_states,
    num_floats,
    start_states,
    take_rows,
)
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import State, cast_state


@final
@dataclasses.dataclass(frozen=True)
class Points:
    """``N`` steps whose states, actions and noises are the inputs of the functions to check."""

    state: State
    action: Tensor
    """``[N, A]``."""
    noise: Tensor | None
    """``[N, *noise_shape]``."""
    next_state: State

    def __len__(self) -> int:
        return self.action.shape[0]

    def rows(self, index: Tensor) -> "Points":
        """The points at ``index``."""
        return Points(
            take_rows(self.state, index),
            self.action[index],
            None if self.noise is None else self.noise[index],
            take_rows(self.next_state, index),
        )


@final
@dataclasses.dataclass(frozen=True)
class RandomPlay:
    """``T`` steps of ``N`` environments in float64; an episode that ends is followed by another."""

    starts: State
    """Start states; more than were played from."""
    points: Points
    """``T N`` rows, ordered by step and then by environment."""
    reward: Tensor
    """``[T, N]``."""
    terminal: Tensor
    """``[T, N]`` bool."""
    elapsed: Tensor
    """``[T, N]`` steps since the episode began, this one included."""

    def sample(self, count: int, seed: int) -> Points:
        """``count`` of the points at random; up to a quarter of them end an episode.

        In long episodes a uniform sample would hardly contain a last step, and some rewards are
        paid only there.
        """
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.points), generator=generator)
        last = self.terminal.ravel()[order]
        first = torch.cat([order[last][: count // 4], order[~last]])[:count]
        return self.points.rows(first if len(first) == count else order[:count])


def random_play(
    env: DifferentiableEnv, *, num_envs: int, num_steps: int, seed: int, seconds: float
) -> RandomPlay:
    """Plays with :func:`mixed_actions`.

    Args:
        env: gets copies only, so a function that writes into its inputs does no harm here.
        num_envs: ``N``.
        num_steps: ``T``, or fewer where time runs out.
        seed: seeds starts, actions and noise.
        seconds: stops after the step in which this time is over.
    """
    generator = torch.Generator().manual_seed(seed)
    state = start_states(env, num_envs, generator)
    elapsed = torch.zeros(num_envs, dtype=torch.int64)
    steps: list[tuple[Points, Tensor, Tensor, Tensor]] = []
    began = time.monotonic()
    for _ in range(num_steps):
        action = mixed_actions(env.action_space, num_envs, generator)
        noise = draw_noise(env, num_envs, generator)
        after = copy_state(env.transition(copy_state(state), action.clone(), noise))
        reward = env.reward(copy_state(state), action.clone(), copy_state(after)).detach()
        terminal = env.terminal(copy_state(after))
        elapsed = elapsed + 1
        steps.append((Points(state, action, noise, after), reward, terminal, elapsed))
        over = terminal | (elapsed >= env.max_episode_steps)
        state = after
        if bool(over.any()):
            restarted = env.reset_where(copy_state(after), over, generator)
            state = cast_state(copy_state(restarted), CPU, torch.float64)
            elapsed = torch.where(over, torch.zeros_like(elapsed), elapsed)
        if time.monotonic() - began > seconds:
            break
    points, rewards, terminals, ages = zip(*steps, strict=True)
    return RandomPlay(
        _many_starts(env, num_envs, generator),
        join_points(list(points)),
        torch.stack(rewards),
        torch.stack(terminals),
        torch.stack(ages),
    )


def _many_starts(env: DifferentiableEnv, at_least: int, generator: torch.Generator) -> State:
    """``at_least`` to 512 start states, as many as half a second allows."""
    began = time.monotonic()
    first = start_states(env, at_least, generator)
    each = (time.monotonic() - began) / at_least
    count = int(min(512, max(at_least, 0.5 / max(each, 1e-6))))
    return first if count <= at_least else start_states(env, count, generator)


def join_points(points: list[Points]) -> Points:
    """Concatenates points along the first axis."""
    noise = [p.noise for p in points if p.noise is not None]
    return Points(
        join_states([p.state for p in points]),
        torch.cat([p.action for p in points]),
        torch.cat(noise) if noise else None,
        join_states([p.next_state for p in points]),
    )


def random_actions(space: Box, count: int, generator: torch.Generator) -> Tensor:
    """``[count, A]`` uniform between bounds, standard normal where there are none.

    With one bound only: the bound plus or minus the absolute value of a standard normal number.
    """
    low, high = (torch.from_numpy(x).double() for x in (space.low, space.high))
    unit = torch.rand(count, *space.shape, generator=generator, dtype=torch.float64)
    normal = torch.randn(count, *space.shape, generator=generator, dtype=torch.float64)
    both, below, above = low.isfinite() & high.isfinite(), low.isfinite(), high.isfinite()
    one_sided = torch.where(below, low + normal.abs(), torch.where(above, high - normal.abs(), 0))
    open_ends = torch.where(below | above, one_sided, normal)
    return torch.where(both, low + unit * (high - low).nan_to_num(0, 0, 0), open_ends)


def mixed_actions(space: Box, count: int, generator: torch.Generator) -> Tensor:
    """``[count, A]``: first quarter near the lower bound, second near the upper, others random."""
    action = random_actions(space, count, generator)
    low, high = finite_bounds(space)
    inside = 1e-3 * (high - low)
    quarter = count // 4
    action[:quarter] = low + inside
    action[quarter : 2 * quarter] = high - inside
    return action


def finite_bounds(space: Box) -> tuple[Tensor, Tensor]:
    """``[A]`` lower and upper bounds, with -1 and 1 in place of infinity."""
    low, high = (torch.from_numpy(x).double() for x in (space.low, space.high))
    return low.where(low.isfinite(), -1.0), high.where(high.isfinite(), 1.0)


def draw_noise(
    env: DifferentiableEnv,
    count: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> Tensor | None:
    """``[count, *noise_shape]`` standard normal; None if the environment takes no noise."""
    if env.noise_shape is None:
        return None
    return torch.randn(count, *env.noise_shape, generator=generator, dtype=dtype)


def affordable_points(
    env: DifferentiableEnv, played: RandomPlay, seed: int, samples: int, seconds: float
) -> int:
    """Number of points, 2 to ``samples``, at which derivatives can be checked in that time."""
    size = 2 * num_floats(played.starts) + env.action_space.shape[0]
    # Differences: two step sizes, both directions, three functions. The backward pass of each
    # output is cheap beside them, unless the environment computes its Jacobian by differences.
    per_point = 12 * size + (0 if env.gradient.method == "autograd" else 3 * size * size)
    speed = steps_per_second(env, seed, 200)
    return max(2, min(samples, int(seconds * speed / (2.5 * per_point))))


def gradient_step_cost(env: DifferentiableEnv, seed: int) -> float:
    """Estimated cost of a step with policy and backward pass, in steps without a gradient."""
    if env.gradient.method == "autograd":
        return 6.0
    start = start_states(env, 1, torch.Generator().manual_seed(seed))
    return 2.0 + 2 * (num_floats(start) + env.action_space.shape[0])


@torch.no_grad()
def steps_per_second(env: DifferentiableEnv, seed: int, rows: int = 32) -> float:
    """Environment steps a second, without a gradient, in a batch of ``rows`` environments.

    A batch of 2 is measured instead if one of ``rows`` would take more than half a second.
    """
    for attempt, count in enumerate((2, 2, rows)):  # the first call may compile or load something
        generator = torch.Generator().manual_seed(seed)
        state = start_states(env, count, generator)
        action = random_actions(env.action_space, count, generator)
        noise = draw_noise(env, count, generator)
        began = time.monotonic()
        after = env.transition(state, action, noise)
        env.reward(state, action, after)
        env.observation(after)
        duration = max(time.monotonic() - began, 1e-6)
        if attempt > 0 and duration / count * rows > 0.5:
            break
    return count / duration
