"""Random play on a differentiable environment: the states and actions that checks look at."""

import dataclasses
import time
from typing import Any, final

import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import State, cast_state, map_state

AnyDifferentiable = DifferentiableEnv[Any]

CPU = torch.device("cpu")


@final
@dataclasses.dataclass(frozen=True)
class Points:
    """Places at which the functions are looked at, a row each."""

    state: State
    action: Tensor
    """``[N, A]``."""
    noise: Tensor | None
    """``[N, *noise_shape]``."""
    next_state: State
    """Where that leads."""

    def __len__(self) -> int:
        return self.action.shape[0]

    def rows(self, index: Tensor) -> "Points":
        """Some of them."""
        return Points(
            take(self.state, index),
            self.action[index],
            None if self.noise is None else self.noise[index],
            take(self.next_state, index),
        )


@final
@dataclasses.dataclass(frozen=True)
class Play:
    """``T`` steps of ``N`` environments that restart where an episode ends. In float64."""

    starts: State
    """Of many episodes, more than were played."""
    points: Points
    """``T N`` rows, the steps one after the other."""
    reward: Tensor
    """``[T, N]``."""
    terminal: Tensor
    """``[T, N]``."""
    elapsed: Tensor
    """``[T, N]`` steps of the episode, this one counted."""

    def sample(self, count: int, seed: int) -> Points:
        """Some of the points, at random; up to a quarter of them end an episode.

        Among long episodes a random one would hardly ever be the last, where some rewards are paid.
        """
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.points), generator=generator)
        last = self.terminal.ravel()[order]
        first = torch.cat([order[last][: count // 4], order[~last]])[:count]
        return self.points.rows(first if len(first) == count else order[:count])


def play(
    env: AnyDifferentiable, *, num_envs: int, num_steps: int, seed: int, seconds: float
) -> Play:
    """Plays at random: the first quarter of the rows pushes low, the second high, the others vary.

    Args:
        env: its functions only get copies, so that one which writes into its inputs does no harm.
        num_envs: ``N``.
        num_steps: ``T``, or fewer where time runs out.
        seed: of everything random.
        seconds: after which it stops.
    """
    generator = torch.Generator().manual_seed(seed)
    state = fresh(env, num_envs, generator)
    elapsed = torch.zeros(num_envs, dtype=torch.int64)
    steps: list[tuple[Points, Tensor, Tensor, Tensor]] = []
    began = time.monotonic()
    for _ in range(num_steps):
        action = mixed_actions(env.action_space, num_envs, generator)
        noise = draw_noise(env, num_envs, generator)
        after = copy(env.transition(copy(state), action.clone(), noise))
        reward = env.reward(copy(state), action.clone(), copy(after)).detach()
        done = env.terminal(copy(after))
        elapsed = elapsed + 1
        steps.append((Points(state, action, noise, after), reward, done, elapsed))
        over = done | (elapsed >= env.max_episode_steps)
        state = after
        if bool(over.any()):
            state = double(env.reset_where(copy(after), over, generator))
            elapsed = torch.where(over, torch.zeros_like(elapsed), elapsed)
        if time.monotonic() - began > seconds:
            break
    return Play(
        many_starts(env, num_envs, generator),
        join([s[0] for s in steps]),
        torch.stack([s[1] for s in steps]),
        torch.stack([s[2] for s in steps]),
        torch.stack([s[3] for s in steps]),
    )


def many_starts(env: AnyDifferentiable, at_least: int, generator: torch.Generator) -> State:
    """As many starts as half a second allows, from ``at_least`` up to 512."""
    began = time.monotonic()
    first = fresh(env, at_least, generator)
    each = (time.monotonic() - began) / at_least
    count = int(min(512, max(at_least, 0.5 / max(each, 1e-6))))
    return first if count <= at_least else fresh(env, count, generator)


def fresh(
    env: AnyDifferentiable,
    num_envs: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> State:
    """Start states as a vector environment would use them."""
    return cast_state(copy(env.initial(num_envs, generator)), CPU, dtype)


def random_actions(space: Box, count: int, generator: torch.Generator) -> Tensor:
    """``[count, A]`` uniform between bounds; standard normal where there are none."""
    low, high = (torch.from_numpy(x).double() for x in (space.low, space.high))
    unit = torch.rand(count, *space.shape, generator=generator, dtype=torch.float64)
    normal = torch.randn(count, *space.shape, generator=generator, dtype=torch.float64)
    both, below, above = low.isfinite() & high.isfinite(), low.isfinite(), high.isfinite()
    one_sided = torch.where(below, low + normal.abs(), torch.where(above, high - normal.abs(), 0))
    open_ends = torch.where(below | above, one_sided, normal)
    return torch.where(both, low + unit * (high - low).nan_to_num(0, 0, 0), open_ends)


def mixed_actions(space: Box, count: int, generator: torch.Generator) -> Tensor:
    """``[count, A]``: a quarter near the lower end, a quarter near the upper, others at random."""
    action = random_actions(space, count, generator)
    low, high = bounds(space)
    inside = 1e-3 * (high - low)
    quarter = count // 4
    action[:quarter] = low + inside
    action[quarter : 2 * quarter] = high - inside
    return action


def bounds(space: Box) -> tuple[Tensor, Tensor]:
    """``[A]`` each; -1 and 1 in place of infinity."""
    low, high = (torch.from_numpy(x).double() for x in (space.low, space.high))
    return low.where(low.isfinite(), -1.0), high.where(high.isfinite(), 1.0)


def draw_noise(
    env: AnyDifferentiable,
    count: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> Tensor | None:
    """Process noise, if the environment has any."""
    if env.noise_shape is None:
        return None
    return torch.randn(count, *env.noise_shape, generator=generator, dtype=dtype)


def copy(state: State) -> State:
    """Without a graph, and in memory of its own."""
    return map_state(lambda leaf: leaf.detach().clone(), state)


def double(state: State) -> State:
    """The same in float64."""
    return cast_state(copy(state), CPU, torch.float64)


def take(state: State, index: Tensor) -> State:
    """Some rows."""
    return map_state(lambda leaf: leaf[index], state)


def leaves(state: State) -> tuple[Tensor, ...]:
    """Its tensors."""
    return (state,) if isinstance(state, Tensor) else tuple(state)


def leaf_names(state: State, name: str = "state") -> list[str]:
    """What messages call them: ``state``, ``state.position``, ``state[1]``."""
    if isinstance(state, Tensor):
        return [name]
    fields = getattr(state, "_fields", None)
    return (
        [f"{name}.{f}" for f in fields] if fields else [f"{name}[{i}]" for i in range(len(state))]
    )


def join_states(states: list[State]) -> State:
    """One under the other."""
    return map_state(lambda *like: torch.cat(like), states[0], *states[1:])


def join(points: list[Points]) -> Points:
    """One under the other."""
    noise = [p.noise for p in points if p.noise is not None]
    return Points(
        join_states([p.state for p in points]),
        torch.cat([p.action for p in points]),
        torch.cat(noise) if noise else None,
        join_states([p.next_state for p in points]),
    )


def affordable(
    env: AnyDifferentiable, played: Play, seed: int, samples: int, seconds: float
) -> int:
    """How many places differences can be taken at."""
    size = 2 * moving_numbers(played.starts) + env.action_space.shape[0]
    # Two step sizes, both directions, three functions; and a backward pass for each output, which
    # costs a Jacobian where that is computed by differences itself.
    by_place = 12 * size + (0 if env.gradient.method == "autograd" else 3 * size * size)
    speed = rows_per_second(env, seed, 200)
    return max(2, min(samples, int(seconds * speed / (2.5 * by_place))))


def backward_cost(env: AnyDifferentiable, seed: int) -> float:
    """Steps that a step forwards and backwards, a policy included, is about as dear as."""
    if env.gradient.method == "autograd":
        return 6.0
    start = fresh(env, 1, torch.Generator().manual_seed(seed))
    return 2.0 + 2 * (moving_numbers(start) + env.action_space.shape[0])


def moving_numbers(state: State) -> int:
    """Of one environment: its floating-point ones."""
    return sum(leaf[0].numel() for leaf in leaves(state) if leaf.is_floating_point())


@torch.no_grad()
def rows_per_second(env: AnyDifferentiable, seed: int, rows: int = 32) -> float:
    """Environment steps a second, in a batch of that many; of fewer where that would take long."""
    for attempt, count in enumerate((2, 2, rows)):  # the first may compile, or load
        generator = torch.Generator().manual_seed(seed)
        state = fresh(env, count, generator)
        action = random_actions(env.action_space, count, generator)
        noise = draw_noise(env, count, generator)
        began = time.monotonic()
        after = env.transition(state, action, noise)
        env.reward(state, action, after)
        env.observation(after)
        taken = max(time.monotonic() - began, 1e-6)
        if attempt > 0 and taken / count * rows > 0.5:
            break
    return count / taken
