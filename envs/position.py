"""Where a vector environment stands in the middle of training, for checkpoints."""

from typing import Any

from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.rollout import AnyVectorEnv, Cursor, start


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
    }


def restore_env_position(
    env: AnyVectorEnv, cursor: Cursor, position: dict[str, Any], *, seed: int
) -> Cursor:
    """Puts the environments back, exactly; those that could not be saved start new episodes."""
    if not position or not isinstance(env, DifferentiableVectorEnv):
        return start(env, seed=seed, device=cursor.obs.device)
    env.set_state(position["state"])
    return Cursor(position["obs"], position["needs_reset"])
