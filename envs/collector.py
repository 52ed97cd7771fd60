"""Where a vector environment stands in the middle of training, for checkpoints."""

import dataclasses
import logging
from typing import Any

import torch
from gymnasium.spaces import Box

from pgtoolkit.compiling import Compile, choose_compiled
from pgtoolkit.envs.compiled.rollout import CompiledUnroll
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.rollouts.checkpointed import Unroll, choose_unroll
from pgtoolkit.rollouts.rollout import RolloutState, collect, start
from pgtoolkit.seeding import stream, stream_seed


def env_position(env: AnyVectorEnv, rollout_state: RolloutState) -> dict[str, Any]:
    """Everything of the environments that can be saved.

    All of it for a differentiable one; nothing for another, whose state Gymnasium does not give.
    """
    if not isinstance(env, DifferentiableVectorEnv):
        return {}
    return {
        "state": tuple(env.get_state()),
        "obs": rollout_state.obs,
        "needs_reset": rollout_state.needs_reset,
        "first": rollout_state.first,
        "learned": env.env.state_dict(),
    }


def restore_env_position(
    env: AnyVectorEnv, rollout_state: RolloutState, position: dict[str, Any], *, seed: int
) -> RolloutState:
    """Puts the environments back, exactly; those that could not be saved start new episodes."""
    if not position or not isinstance(env, DifferentiableVectorEnv):
        return start(env, seed=stream_seed(seed, "environments"), device=rollout_state.obs.device)
    # First what was learned: an adapter also brings back the episodes that its states refer to.
    env.env.load_state_dict(position.get("learned", {}))
    env.set_state(position["state"])
    names = ("obs", "needs_reset", "first")
    return RolloutState(*(position[name].to(env.device) for name in names))


def begin(env: AnyVectorEnv, *, seed: int, device: torch.device) -> RolloutState:
    """Resets every environment with the run's stream for them, at staggered ages."""
    rollout_state = start(env, seed=stream_seed(seed, "environments"), device=device)
    return stagger(env, rollout_state, seed=seed)


def stagger(env: AnyVectorEnv, rollout_state: RolloutState, *, seed: int) -> RolloutState:
    """Spreads differentiable environments over the ages of an episode, by shortening their first.

    Otherwise all run in step: every window would hold one phase of the episode, and gradients and
    their variance would swing with it. The shortened episodes are not counted, because their first
    step is not in any window. Other environments are left as they are.
    """
    if not isinstance(env, DifferentiableVectorEnv):
        return rollout_state
    state, limit = env.get_state(), env.env.max_episode_steps
    generator = stream(seed, "ages", env.device)
    age = torch.randint(limit, (env.num_envs,), generator=generator, device=env.device)
    env.set_state(state._replace(elapsed=age.to(state.elapsed.dtype)))
    return dataclasses.replace(rollout_state, first=age == 0)


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
            f"actions of {single_line(env.single_action_space)} have no pathwise gradient: give "
            "the environment a Box of actions, or train with `reinforce`"
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
