"""Checks that ``detach`` and resets cut the autograd graph where they should, and only there."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pgtoolkit.envs.checks.finding import Check, Finding
from pgtoolkit.envs.checks.random_play import random_actions
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv

NUM_STEPS, NUM_ENVS = 3, 6


def check_detach(env: DifferentiableEnv, seed: int) -> Iterator[Finding]:
    """After ``DifferentiableVectorEnv.detach`` nothing depends on earlier actions."""
    check = Check("gradients", "detach")
    vector, actions = _reset_env_and_actions(env, seed)
    for action in actions[:-1]:
        vector.step(action)
    vector.detach()
    # A tensor with a graph that the environment kept for itself shows in the next outputs.
    obs, reward, *_ = vector.step(actions[-1].detach())
    leaking = [n for n, x in (("observation", obs), ("reward", reward)) if x.requires_grad]
    gradients = _gradients(obs.sum() + reward.sum(), actions[:-1])
    if any(bool((g != 0).any()) for g in gradients):
        yield check.fault(
            f"the graph is not cut by detach(): {' and '.join(leaking)} still depends on actions "
            "before it",
            "the graph grows from window to window until the memory is full, or backward fails on "
            "a graph that was freed",
            "keep nothing on the environment: what a step needs of the past belongs in the state",
        )
    else:
        yield check.passed("detach() cuts the graph")


def check_resets(env: DifferentiableEnv, seed: int) -> Iterator[Finding]:
    """A reset cuts the graph of the rows that it resets, and of no other row."""
    check = Check("gradients", "resets")
    mask = torch.arange(NUM_ENVS) % 2 == 0
    without_reset = _last_step_gradient(env, seed, None)
    with_reset = _last_step_gradient(env, seed, mask)
    if without_reset is None or with_reset is None:
        yield check.not_checked("episodes end within three steps")
        return
    if not bool(torch.cat([without_reset, with_reset]).isfinite().all()):
        yield check.not_checked("until gradients are finite")
        return
    if not torch.allclose(without_reset[:, ~mask], with_reset[:, ~mask], rtol=1e-6, atol=1e-12):
        yield check.fault(
            "environments that go on lose or change their gradient when others are reset",
            "every end of an episode cuts gradients of the whole batch",
            "in reset_where, choose row by row with where_state(mask, fresh, state): no detach()",
        )
    elif bool((with_reset[:, mask] != 0).any()):
        yield check.fault(
            "an environment that was reset still has a gradient to actions before the reset",
            "credit flows from one episode into another",
            "draw fresh states from initial, without a graph",
        )
    else:
        yield check.passed("a reset cuts its own row; the others keep theirs")


def _reset_env_and_actions(
    env: DifferentiableEnv, seed: int
) -> tuple[DifferentiableVectorEnv, list[Tensor]]:
    """A vector environment after its reset, and an action that requires grad for each step."""
    vector = DifferentiableVectorEnv(env, NUM_ENVS, dtype=torch.float64)
    vector.reset(seed=seed)
    vector.detach()
    generator = torch.Generator().manual_seed(seed)
    # Off the bounds, where a clamp has two derivatives.
    actions = [
        0.9 * random_actions(env.action_space, NUM_ENVS, generator) for _ in range(NUM_STEPS)
    ]
    return vector, [a.requires_grad_() for a in actions]


def _last_step_gradient(env: DifferentiableEnv, seed: int, mask: Tensor | None) -> Tensor | None:
    """``[2, N, A]`` gradient of the third step's outputs by the first two actions.

    The third step's noise is the same with and without a reset, which draws from the same
    generator: where noise changes the state, it may change the gradient too.

    Args:
        env: the dynamics.
        seed: seeds starts and actions.
        mask: ``[N]`` bool, environments to reset before the third step; None for no reset.

    Returns:
        None if an episode ends within the three steps.
    """
    vector, actions = _reset_env_and_actions(env, seed)
    for action in actions[:2]:
        _, _, terminated, truncated, _ = vector.step(action)
        if bool((terminated | truncated).any()):
            return None
    if mask is not None:
        vector.reset(options={"reset_mask": mask})
    same_noise = torch.Generator().manual_seed(seed).get_state()
    vector.set_state(vector.graph_state()._replace(generator_state=same_noise))
    obs, reward, terminated, truncated, _ = vector.step(actions[2])
    if bool((terminated | truncated).any()):
        return None
    return torch.stack(_gradients(obs.sum() + reward.sum(), actions[:2]))


def _gradients(total: Tensor, actions: list[Tensor]) -> list[Tensor]:
    """Gradients of a scalar by each action; zeros where it does not depend on one."""
    if not total.requires_grad:
        return [torch.zeros_like(a) for a in actions]
    found = torch.autograd.grad(total, actions, allow_unused=True)
    return [torch.zeros_like(a) if g is None else g for g, a in zip(found, actions, strict=True)]
