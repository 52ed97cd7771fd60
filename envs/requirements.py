"""What agents ask of the environments they are given."""

import torch
from gymnasium.spaces import Box

from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError, one_line
from pgtoolkit.rollout import AnyVectorEnv


def require_num_envs(env: AnyVectorEnv, num_envs: int) -> None:
    """Raises unless the vector environment has as many environments as the agent is set to."""
    if env.num_envs != num_envs:
        raise RequestError(
            f"the vector environment has {env.num_envs} environments, the agent's num_envs is "
            f"{num_envs}: make them equal"
        )


def require_differentiable(env: AnyVectorEnv, num_envs: int) -> DifferentiableVectorEnv:
    """The same environment, if a pathwise gradient can pass through it.

    Raises:
        RequestError: it has no gradient; says what would have one.
    """
    require_num_envs(env, num_envs)
    if not isinstance(env, DifferentiableVectorEnv):
        raise RequestError(
            "this agent differentiates through the environment, and this environment has no "
            "gradient. Use a differentiable one (`pgtoolkit list envs`, or a DifferentiableEnv of "
            "your own as file.py:Class), an adapter that gives it one (--differentiate "
            "finite-difference, mujoco or model; in Python pgtoolkit.envs.FiniteDifference, MuJoCo "
            "or LearnedModel), or train with `reinforce`, which needs none"
        )
    if not isinstance(env.single_action_space, Box):
        raise RequestError(
            f"actions of {one_line(env.single_action_space)} have no pathwise gradient: give the "
            "environment a Box of actions, or train with `reinforce`"
        )
    if env.env.gradient.action == "none":
        raise RequestError(
            "this environment says that it has no gradient by the action "
            "(gradient.action = 'none'): train with `reinforce`, which needs none"
        )
    return env


def env_metrics(env: AnyVectorEnv) -> dict[str, torch.Tensor]:
    """What a differentiable environment, its wrappers and its adapter have counted."""
    return env.env.metrics() if isinstance(env, DifferentiableVectorEnv) else {}


def env_device(env: AnyVectorEnv) -> torch.device:
    """Where a policy for this environment lives: with the tensors, or on the CPU with arrays."""
    return env.device if isinstance(env, DifferentiableVectorEnv) else torch.device("cpu")
