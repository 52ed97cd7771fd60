"""Which rollout an agent that differentiates through its environment uses."""

import logging
from typing import Any

from gymnasium.spaces import Box

from pgtoolkit.checkpointed_rollout import Unroll, choose_unroll
from pgtoolkit.compiling import Compile, choose_compiled
from pgtoolkit.envs.compiled_unroll import CompiledUnroll
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.wrapper import DifferentiableWrapper
from pgtoolkit.rollout import AnyVectorEnv, collect

STEP_SECONDS = 2.5e-4
"""What compiled code saves on one step of all environments, at least, with its adjoint."""
LOG = logging.getLogger("pgtoolkit")


def rollout_of(
    env: DifferentiableVectorEnv, *, compile: Compile, checkpoint_every: int, total_steps: int
) -> Unroll:
    """Plain, compiled or checkpointed.

    Args:
        env: the agent's environments.
        compile: as the user says.
        checkpoint_every: a rollout with checkpoints is not compiled.
        total_steps: of all environments together, that the run plans.
    """
    saved = STEP_SECONDS * total_steps / env.num_envs
    possible = checkpoint_every == 0 and is_compilable(env.env)
    if possible and choose_compiled(compile, saved):
        LOG.warning("compiling the step of policy and environment (seconds, once)")
        return CompiledUnroll()
    if compile == "always":
        LOG.warning("steps are not compiled: checkpointed, or not plain torch functions")
    return choose_unroll(checkpoint_every)


def collector_of(env: AnyVectorEnv, *, compile: Compile, total_steps: int) -> Unroll:
    """A rollout for an agent that needs no gradient through its environments.

    Args:
        env: any vector environment; only a differentiable one can be compiled.
        compile: as the user says.
        total_steps: of all environments together, that the run plans.
    """
    saved = STEP_SECONDS * total_steps / env.num_envs
    differentiable = isinstance(env, DifferentiableVectorEnv) and is_compilable(env.env)
    continuous = isinstance(env.single_action_space, Box)
    if differentiable and continuous and choose_compiled(compile, saved):
        return CompiledUnroll()
    return collect


def is_compilable(env: DifferentiableEnv) -> bool:
    """Whether an environment is torch operations and nothing else, as far as it says.

    One that counts, learns or does something at a window's start is not, nor one in such a wrapper.
    """
    method = env.gradient.method
    while isinstance(env, DifferentiableWrapper):
        if not _keeps_nothing(env, DifferentiableWrapper):
            return False
        env = env.env
    return method == "autograd" and _keeps_nothing(env, DifferentiableEnv)


def _keeps_nothing(env: DifferentiableEnv, kind: type[Any]) -> bool:
    """Whether it leaves a window's start and its metrics to the base class."""
    return type(env).begin_window is kind.begin_window and type(env).metrics is kind.metrics
