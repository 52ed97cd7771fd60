"""Where a vector environment stands in the middle of training, for checkpoints."""

import dataclasses
from typing import Any

import torch

from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.rollout import AnyVectorEnv, Cursor, start
from pgtoolkit.seeding import stream, stream_seed


def env_position(env: AnyVectorEnv, cursor: Cursor) -> dict[str, Any]:
    """Everything of the environments that can be saved.

    All of it for a differentiable one; nothing for another, whose state Gymnasium does not give.
    """
    if not isinstance(env, DifferentiableVectorEnv):
        return {}
    return {
        "state": tuple(env.get_state()),
        "obs": cursor.obs,
        "needs_reset": cursor.needs_reset,
        "first": cursor.first,
        "learned": env.env.state_dict(),
    }


def restore_env_position(
    env: AnyVectorEnv, cursor: Cursor, position: dict[str, Any], *, seed: int
) -> Cursor:
    """Puts the environments back, exactly; those that could not be saved start new episodes."""
    if not position or not isinstance(env, DifferentiableVectorEnv):
        return start(env, seed=stream_seed(seed, "environments"), device=cursor.obs.device)
    # First what was learned: an adapter also brings back the episodes that its states refer to.
    env.env.load_state_dict(position.get("learned", {}))
    env.set_state(position["state"])
    names = ("obs", "needs_reset", "first")
    return Cursor(*(position[name].to(env.device) for name in names))


def begin(env: AnyVectorEnv, *, seed: int, device: torch.device) -> Cursor:
    """Resets every environment with the run's stream for them, at staggered ages."""
    cursor = start(env, seed=stream_seed(seed, "environments"), device=device)
    return stagger(env, cursor, seed=seed)


def stagger(env: AnyVectorEnv, cursor: Cursor, *, seed: int) -> Cursor:
    """Spreads differentiable environments over the ages of an episode, by shortening their first.

    Otherwise all run in step: every window would hold one phase of the episode, and gradients and
    their variance would swing with it. The shortened episodes are not counted, because their first
    step is not in any window. Other environments are left as they are.
    """
    if not isinstance(env, DifferentiableVectorEnv):
        return cursor
    state, limit = env.get_state(), env.env.max_episode_steps
    generator = stream(seed, "ages", env.device)
    age = torch.randint(limit, (env.num_envs,), generator=generator, device=env.device)
    env.set_state(state._replace(elapsed=age.to(state.elapsed.dtype)))
    return dataclasses.replace(cursor, first=age == 0)
