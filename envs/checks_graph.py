"""Checks that the graph is cut where it should be, and kept where it should."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pgtoolkit.envs.checks_play import AnyDifferentiable, random_actions
from pgtoolkit.envs.finding import Finding, fault, passed
from pgtoolkit.envs.vector import DifferentiableVectorEnv

STEPS, ROWS = 3, 6


def check_cut(env: AnyDifferentiable, seed: int) -> Iterator[Finding]:
    """``DifferentiableVectorEnv.detach`` leaves nothing of the past."""
    vector, actions = _started(env, seed)
    for action in actions[:-1]:
        vector.step(action)
    vector.detach()
    # An autograd node that a step before the cut left behind shows in the next outputs.
    obs, reward, *_ = vector.step(actions[-1].detach())
    leaking = [n for n, x in (("observation", obs), ("reward", reward)) if x.requires_grad]
    found = _gradients(obs.sum() + reward.sum(), actions[:-1])
    if any(bool((g != 0).any()) for g in found):
        yield fault(
            "gradients",
            "detach",
            f"the graph is not cut by detach(): {' and '.join(leaking)} still depends on actions "
            "before it",
            "the graph grows from window to window until the memory is full, or backward fails on "
            "a graph that is gone",
            "keep nothing on the environment: what a step needs of the past belongs into the state",
        )
    else:
        yield passed("gradients", "detach", "detach() cuts the graph")


def check_survivors(env: AnyDifferentiable, seed: int) -> Iterator[Finding]:
    """A reset cuts the rows that it resets, and no other."""
    mask = torch.arange(ROWS) % 2 == 0
    plain = _reward_gradient(env, seed, None)
    reset = _reward_gradient(env, seed, mask)
    if plain is None or reset is None:
        yield passed("gradients", "resets", "not checked: episodes end within three steps")
        return
    if not torch.allclose(plain[:, ~mask], reset[:, ~mask], rtol=1e-6, atol=1e-12):
        yield fault(
            "gradients",
            "resets",
            "environments that go on lose or change their gradient when others are reset",
            "every end of an episode cuts gradients of the whole batch",
            "in restart, choose row by row with where_state(mask, fresh, state): no detach()",
        )
    elif bool((reset[:, mask] != 0).any()):
        yield fault(
            "gradients",
            "resets",
            "an environment that was reset still has a gradient to actions before the reset",
            "credit flows from one episode into another",
            "draw fresh states from initial, without a graph",
        )
    else:
        yield passed("gradients", "resets", "a reset cuts its own row; the others keep theirs")


def _started(env: AnyDifferentiable, seed: int) -> tuple[DifferentiableVectorEnv, list[Tensor]]:
    """Environments after a reset, and actions that want gradients."""
    vector = DifferentiableVectorEnv(env, ROWS, dtype=torch.float64)
    vector.reset(seed=seed)
    vector.detach()
    generator = torch.Generator().manual_seed(seed)
    # Off the bounds, where a clamp has two derivatives.
    actions = [0.9 * random_actions(env.action_space, ROWS, generator) for _ in range(STEPS)]
    return vector, [a.requires_grad_() for a in actions]


def _reward_gradient(env: AnyDifferentiable, seed: int, mask: Tensor | None) -> Tensor | None:
    """``[2, N, A]`` of the last step by the first two actions, with a reset before it."""
    vector, actions = _started(env, seed)
    for action in actions[:2]:
        _, _, terminated, truncated, _ = vector.step(action)
        if bool((terminated | truncated).any()):
            return None
    if mask is not None:
        vector.reset(options={"reset_mask": mask})
    obs, reward, terminated, truncated, _ = vector.step(actions[2])
    if bool((terminated | truncated).any()):
        return None
    return torch.stack(_gradients(obs.sum() + reward.sum(), actions[:2]))


def _gradients(total: Tensor, actions: list[Tensor]) -> list[Tensor]:
    if not total.requires_grad:
        return [torch.zeros_like(a) for a in actions]
    found = torch.autograd.grad(total, actions, allow_unused=True)
    return [torch.zeros_like(a) if g is None else g for g, a in zip(found, actions, strict=True)]
