"""Checks of a differentiable environment's attributes, and of what its state is made of."""

from collections.abc import Iterator

import numpy as np
import torch
from gymnasium.spaces import Box

from pgtoolkit.envs.checks_play import AnyDifferentiable, fresh, leaves
from pgtoolkit.envs.finding import Finding, fault, passed, warned
from pgtoolkit.errors import one_line


def check_attributes(env: AnyDifferentiable) -> Iterator[Finding]:
    """The spaces, the time limit, and the claims."""
    wrong = []
    for name in ("observation_space", "action_space"):
        space = getattr(env, name)
        if not isinstance(space, Box) or len(space.shape) != 1:
            wrong.append(f"{name} is {one_line(space)}")
        elif not np.issubdtype(space.dtype, np.floating):
            wrong.append(f"{name} holds {space.dtype}")
    limit = env.max_episode_steps
    if isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or limit < 1:
        wrong.append(f"max_episode_steps is {limit!r}")
    if wrong:
        yield fault(
            "interface",
            "spaces",
            ", ".join(wrong),
            "policies are made for one-dimensional boxes of floating-point numbers, and episodes "
            "need a whole number of steps",
            "use gymnasium.spaces.Box(low, high, (size,), np.float32), and an int of at least 1",
        )
        return
    yield from _bounds(env)


def _bounds(env: AnyDifferentiable) -> Iterator[Finding]:
    space = env.action_space
    sides = space.bounded_below.astype(int) + space.bounded_above.astype(int)
    if bool((sides == 1).any()) or len({int(s) for s in sides}) > 1:
        yield fault(
            "interface",
            "spaces",
            f"the action space {one_line(space)} is bounded on some sides only",
            "a policy squashes its actions to bounds on all sides, or has none to squash to",
            "bound every dimension on both sides, or none",
        )
        return
    kind = "bounded" if sides.all() else "unbounded"
    seen = "bounded" if env.observation_space.is_bounded("both") else "unbounded"
    yield passed(
        "interface",
        "spaces",
        f"observation [{env.observation_space.shape[0]}] {seen}, action [{space.shape[0]}] {kind}, "
        f"{env.max_episode_steps} steps at most",
    )


def check_state(env: AnyDifferentiable, seed: int) -> Iterator[Finding]:
    """Something of the state must be able to carry a gradient."""
    state = fresh(env, 1, torch.Generator().manual_seed(seed))
    if not any(leaf.is_floating_point() for leaf in leaves(state)):
        yield warned(
            "interface",
            "state",
            "no tensor of the state holds floating-point numbers",
            "no gradient reaches an earlier step",
            "keep what changes smoothly in floating-point tensors; whole numbers are for counters",
        )
