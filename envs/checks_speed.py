"""How fast a differentiable environment is, and so how much can be looked at."""

import time

import torch

from pgtoolkit.envs.checks_play import (
    AnyDifferentiable,
    Play,
    draw_noise,
    fresh,
    leaves,
    random_actions,
)
from pgtoolkit.envs.states import State


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
