"""The collector: everything that an agent does with its environments between updates."""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, final

import torch
from gymnasium.spaces import Box, Space
from torch import Tensor

from pgtoolkit.compiling import CPU, Compile, choose_compiled
from pgtoolkit.config import CompileSettings, GraphSettings, RolloutSettings
from pgtoolkit.envs.compiled.rollout import CompiledUnroll
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.ordinary.vector_states import (
    STATE_RESTORED,
    restored_environments,
    saved_environments,
)
from pgtoolkit.envs.registry.ordinary import time_limit_of
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.vectorized.given import EnvArgument, as_vector_env
from pgtoolkit.envs.vectorized.vector_env import OrdinaryVectorEnv
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper
from pgtoolkit.errors import RequestError, SettingError, single_line
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.networks.spaces import continuous_size
from pgtoolkit.policies.factory import seeded_policy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.checkpointed import Unroll, choose_unroll
from pgtoolkit.rollouts.correlated_noise import CorrelatedNoise, IndependentNoise
from pgtoolkit.rollouts.precision import rounding_sentence
from pgtoolkit.rollouts.reward_normalizer import NoRewardNormalizer, RewardNormalizer
from pgtoolkit.rollouts.rollout import RolloutState, collect, reset, unroll
from pgtoolkit.rollouts.whole_episodes import MAX_EPISODE_STEPS, collect_episodes
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream, stream_seed
from pgtoolkit.state import (
    Schema,
    anything,
    at,
    entries,
    generator,
    integer,
    require,
    series,
    tensor,
)

LOG = logging.getLogger("pgtoolkit")

LATER_PARTS = ("correlate", "reward_normalizer")
"""Parts of a collector's state that runs of earlier versions do not have."""
ROLLOUT_FIELDS = tuple(field.name for field in dataclasses.fields(RolloutState))
STEP_SECONDS = 2.5e-4
"""Seconds that compiled code saves, at least, on one step of all environments with its adjoint."""


@final
class Collector:
    """An agent's environments: checks them, steps them, counts their steps, saves where they are.

    Args:
        env: a vector environment of ``config.num_envs`` environments, or one environment, of which
            that many copies are made (:func:`~pgtoolkit.envs.vectorized.given.as_vector_env`).
        config: the agent's settings; ``compile``, ``checkpoint_every`` and ``noise_correlation``
            are read where it has them.
        seed: determines the environments' starts and the action noise.
        total_steps: environment steps of the run, of all environments together.
        gradient: whether windows carry the graph through the environment.

    Attributes:
        spaces: observation and action space of one environment.
        device: the device on which a policy for these environments must be.
        num_steps: environment steps so far, counted as they are collected.
        resumed: how the environments went on after a resume; empty before one.
        stepped: what is stepped: ``env``, or a stand-in that records or repeats its steps.
        noise_passes: the noise of a window's actions passes through this function once it is drawn;
            the flight recorder keeps it there, and a replay puts back what was recorded.

    Raises:
        RequestError: the number of environments differs from the configured one, or a gradient is
            needed and the environment has none.
    """

    def __init__(
        self,
        env: EnvArgument,
        config: RolloutSettings,
        *,
        seed: int,
        total_steps: int,
        gradient: bool = False,
    ) -> None:
        env = as_vector_env(env, config.num_envs, gradient=gradient)
        require_num_envs(env, config.num_envs)
        self.env = require_differentiable(env) if gradient else env
        self.stepped: Any = self.env
        self.noise_passes: Callable[[Tensor], Tensor] = as_drawn
        self.config, self.seed, self.total_steps = config, seed, total_steps
        self.spaces: tuple[Space[Any], Space[Any]] = (
            env.single_observation_space,
            env.single_action_space,
        )
        self.device = (
            env.device if isinstance(env, DifferentiableVectorEnv) else torch.device("cpu")
        )
        self.generator = stream(seed, "action noise", self.device)
        self.correlate = make_correlation(config, self.spaces[1], seed=seed, device=self.device)
        self.rollout_state = reset_staggered(env, seed=seed, device=self.device)
        self.rollout = make_rollout(env, config, total_steps=total_steps, gradient=gradient)
        self.reward_normalizer = (
            RewardNormalizer(config.num_envs, config.gamma)
            if config.normalize_rewards
            else NoRewardNormalizer()
        )
        self.num_steps, self.window_steps, self.resumed = 0, 0, ""
        self.max_episode_steps = time_limit_of(env) or MAX_EPISODE_STEPS

    def make_policy(self) -> Policy:
        """The policy that fits the environments and the settings, with the seed's weights."""
        config: Any = self.config
        return seeded_policy(config, self.spaces, seed=self.seed, device=self.device)

    def collect(
        self, policy: Policy, num_steps: int | None = None, *, graph: bool | None = None
    ) -> Window:
        """Steps all environments.

        Args:
            policy: acts on every step, with fresh noise.
            num_steps: ``T``; the configured number by default.
            graph: True keeps the graph through a differentiable environment, False leaves it out,
                None leaves it to the collector's own rollout.
        """
        if graph and not self.can_differentiate:
            raise RequestError("this environment has no gradient: collect without graph=True")
        noise = self.noise_passes(self.draw_noise(policy, num_steps or self.config.n_steps))
        rollouts: dict[bool | None, Unroll] = {None: self.rollout, True: unroll, False: collect}
        parts = (self.stepped, policy, self.rollout_state, noise)
        window = self._counted(*rollouts[graph](*parts))
        if self.window_steps == 0:
            # All environments failed in a short window: there is nothing to learn from.
            return self.collect(policy, num_steps, graph=graph)
        return window

    def collect_episodes(self, policy: Policy) -> Window:
        """One whole episode of every environment, from a reset, without a graph."""
        return self._counted(
            *collect_episodes(
                self.stepped,
                policy,
                lambda num_steps: self.noise_passes(self.draw_noise(policy, num_steps)),
                max_steps=self.max_episode_steps,
            )
        )

    def _counted(self, window: Window, after: RolloutState) -> Window:
        if self.num_steps == 0 and window.obs.dtype == torch.float32:
            warn_of_rounding(self.rollout_state.obs, after.obs)
        self.rollout_state = after
        self.window_steps = int(window.valid.sum())
        self.num_steps += self.window_steps
        self.reward_normalizer.update(window)
        return window

    def normalized(self, window: Window) -> Window:
        """The window with the rewards that an update uses: normalised if the settings say so.

        The windows that ``collect`` returns have the environment's own rewards.
        """
        return self.reward_normalizer(window)

    def reward_unit(self) -> float:
        """What 1 of :meth:`normalized` rewards is in the environment's own."""
        return float(self.reward_normalizer.scale)

    def draw_noise(self, policy: Policy, num_steps: int) -> Tensor:
        """Fresh noise ``[T, N, noise_size]`` of the next ``T`` steps."""
        noise = policy.draw_noise(num_steps, self.config.num_envs, generator=self.generator)
        return self.correlate(noise, policy.noise)

    @property
    def can_differentiate(self) -> bool:
        """Whether a graph can be kept: continuous actions in an environment with a gradient."""
        return (
            isinstance(self.env, DifferentiableVectorEnv)
            and isinstance(self.spaces[1], Box)
            and self.env.env.gradient.action != "none"
        )

    def progress(self) -> float:
        """The share of the run's steps that came before the latest window."""
        return (self.num_steps - self.window_steps) / self.total_steps

    def metrics(self) -> dict[str, Tensor]:
        """Metrics of the environments with their wrappers, and of the rewards' scale."""
        env, scale = self.env, self.reward_normalizer.metrics()
        if isinstance(env, DifferentiableVectorEnv):
            return scale | env.env.metrics()
        return scale | env.metrics() if isinstance(env, OrdinaryVectorEnv) else scale

    def state_dict(self) -> dict[str, Any]:
        """Noise, counts, the rewards' scale, and the environments' state where it can be saved."""
        return {
            "generator": self.generator.get_state(),
            "num_steps": self.num_steps,
            "correlate": self.correlate.state_dict(),
            "reward_normalizer": self.reward_normalizer.state_dict(),
            "env": env_state(self.stepped, self.rollout_state, seed=self._seed_of_new_episodes()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the environments back; those that could not be saved start new episodes.

        Afterwards ``resumed`` says which of both they did.

        Raises:
            StateError: the state does not fit.
        """
        require(state, entries(self._schemas(), absent=LATER_PARTS))
        self.generator.set_state(state["generator"].cpu())
        self.num_steps, self.window_steps = state["num_steps"], 0
        for name in LATER_PARTS:
            if name in state:
                with at(name):
                    getattr(self, name).load_state_dict(state[name])
        with at("env"):
            self.rollout_state, self.resumed = restore_env_state(
                self.env, self.rollout_state, state["env"], seed=self._seed_of_new_episodes()
            )

    def _schemas(self) -> dict[str, Schema]:
        return {
            "generator": generator(self.generator),
            "num_steps": integer(),
            "correlate": anything,
            "reward_normalizer": anything,
            "env": anything,
        }

    def _seed_of_new_episodes(self) -> int:
        """The seed of a reset after a resume at the present number of steps."""
        return stream_seed(self.seed + self.num_steps, "environments")


def make_correlation(
    config: Any, action_space: Space[Any], *, seed: int, device: torch.device
) -> CorrelatedNoise | IndependentNoise:
    """What ``config.noise_correlation`` makes of the noise; independent if there is none.

    Raises:
        SettingError: there is a correlation, and the actions are not continuous.
    """
    correlation = getattr(config, "noise_correlation", 0.0)
    if correlation == 0.0:
        return IndependentNoise()
    if not isinstance(action_space, Box):
        raise SettingError(
            "noise_correlation is of normal noise, and the actions of this environment are "
            f"{single_line(action_space)}: leave it at 0"
        )
    generator = stream(seed, "noise correlation", device)
    return CorrelatedNoise(correlation, config.num_envs, continuous_size(action_space), generator)


def as_drawn(noise: Tensor) -> Tensor:
    """The noise itself."""
    return noise


def warn_of_rounding(*obs: Tensor) -> None:
    """Warns if observations ``[N, O]``, as the environments gave them, are lost in float32."""
    sentence = rounding_sentence(torch.cat(obs))
    if sentence:
        LOG.warning(sentence)


def env_state(env: AnyVectorEnv, rollout_state: RolloutState, *, seed: int) -> dict[str, Any]:
    """The state of the environments, to be saved.

    It is complete for a differentiable environment. What it is for others, see
    :func:`~pgtoolkit.envs.ordinary.vector_states.saved_environments`.

    Args:
        env: the vector environment.
        rollout_state: what its next step acts on.
        seed: the seed of a reset, where a resumed run must start new episodes.
    """
    if not isinstance(env, DifferentiableVectorEnv):
        return saved_environments(env, rollout_state, seed=seed)
    return {
        "state": tuple(env.get_state()),
        "obs": rollout_state.obs,
        "needs_reset": rollout_state.needs_reset,
        "episode_start": rollout_state.episode_start,
        "learned": env.env.state_dict(),
    }


def restore_env_state(
    env: AnyVectorEnv, rollout_state: RolloutState, saved: dict[str, Any], *, seed: int
) -> tuple[RolloutState, str]:
    """Restores what :func:`env_state` returned; environments without a state are reset.

    Args:
        env: the vector environment.
        rollout_state: the environments' present rollout state.
        saved: a result of :func:`env_state`, or empty, as earlier versions saved it.
        seed: the seed of the reset where nothing was saved.

    Returns:
        The rollout state to continue from, and a sentence that says how the environments go on.
    """
    rollout = {name: tensor(getattr(rollout_state, name)) for name in ROLLOUT_FIELDS}
    if not isinstance(env, DifferentiableVectorEnv):
        if not saved:
            device = rollout_state.obs.device
            return reset(env, seed=seed, device=device), f"new episodes with seeds from {seed} on"
        count = env.num_envs
        seeds = series(integer(), count, count)
        require(saved, entries({**rollout, "environments": anything, "seeds": seeds}))
        return restored_environments(env, rollout_state, saved)
    require(
        saved, entries({**rollout, "state": anything, "learned": anything}, absent=("learned",))
    )
    # The adapter's own state comes first: it may contain episodes that `state` refers to.
    with at("learned"):
        env.env.load_state_dict(saved.get("learned", {}))
    env.require_state(saved["state"], "state")
    env.set_state(saved["state"])
    fields = (saved[name].to(env.device) for name in ROLLOUT_FIELDS)
    return RolloutState(*fields), STATE_RESTORED


def reset_staggered(env: AnyVectorEnv, *, seed: int, device: torch.device) -> RolloutState:
    """Resets every environment by the run's seed and staggers their ages (:func:`stagger_ages`)."""
    rollout_state = reset(env, seed=stream_seed(seed, "environments"), device=device)
    return stagger_ages(env, rollout_state, seed=seed)


def stagger_ages(env: AnyVectorEnv, rollout_state: RolloutState, *, seed: int) -> RolloutState:
    """Sets differentiable environments to random ages, which shortens their first episodes.

    An age is a number of elapsed steps below the time limit. If all environments had the same age,
    every window would contain one phase of the episode, and gradients and their variances would
    oscillate with it. The shortened episodes are not counted in the training returns, because their
    first steps are not in any window. Other environments are left unchanged.

    Returns:
        The rollout state, in which only environments of age 0 are at the start of an episode.
    """
    if not isinstance(env, DifferentiableVectorEnv):
        return rollout_state
    state, limit = env.get_state(), env.env.max_episode_steps
    generator = stream(seed, "ages", env.device)
    age = torch.randint(limit, (env.num_envs,), generator=generator, device=env.device)
    env.set_state(state._replace(elapsed=age.to(state.elapsed.dtype)))
    return dataclasses.replace(rollout_state, episode_start=age == 0)


def require_num_envs(env: AnyVectorEnv, num_envs: int) -> None:
    """Raises unless the vector environment has the configured number of environments.

    Raises:
        RequestError: the numbers differ.
    """
    if env.num_envs != num_envs:
        raise RequestError(
            f"the vector environment has {env.num_envs} environments, the agent's num_envs is "
            f"{num_envs}: give the single environment, of which {num_envs} copies are made, or the "
            f"agent num_envs={env.num_envs}"
        )


def require_differentiable(env: AnyVectorEnv) -> DifferentiableVectorEnv:
    """The environment itself, if a pathwise gradient can pass through it.

    Raises:
        RequestError: the environment has no gradient by the action; the message names alternatives.
    """
    if not isinstance(env.single_action_space, Box):
        raise RequestError(
            f"actions of {single_line(env.single_action_space)} have no pathwise gradient: "
            "give the environment a Box of actions, or train with `reinforce`"
        )
    if not isinstance(env, DifferentiableVectorEnv):
        raise SettingError(
            "this agent differentiates through the environment, and this environment has no "
            "gradient. Use a differentiable one (`pgtoolkit list envs`, or a DifferentiableEnv of "
            "your own as file.py:Class), an adapter that gives it one (--differentiate "
            "finite-difference, mujoco or model; in Python pgtoolkit.envs.FiniteDifference, MuJoCo "
            "or LearnedModel), or train with `reinforce`, which needs none"
        )
    if env.env.gradient.action == "none":
        raise RequestError(
            "this environment declares that it has no gradient by the action "
            "(gradient.action = 'none'): train with `reinforce`, which needs none"
        )
    return env


def is_compilable(env: DifferentiableEnv) -> bool:
    """Whether the step of an environment can be compiled: whether it consists of torch operations.

    It cannot if its gradient is declared to come from elsewhere, or if the environment or one of
    its wrappers has metrics or does something at the start of a window.
    """
    method = env.gradient.method
    while isinstance(env, DifferentiableWrapper):
        if not _has_default_hooks(env, DifferentiableWrapper):
            return False
        env = env.env
    return method == "autograd" and _has_default_hooks(env, DifferentiableEnv)


def _has_default_hooks(env: DifferentiableEnv, kind: type[Any]) -> bool:
    """Whether ``begin_window`` and ``metrics`` are those of the base class ``kind``."""
    return type(env).begin_window is kind.begin_window and type(env).metrics is kind.metrics


def make_rollout(
    env: AnyVectorEnv, config: RolloutSettings, *, total_steps: int, gradient: bool
) -> Unroll:
    """The function that collects windows: ``collect``, ``unroll``, compiled or checkpointed.

    Args:
        env: a vector environment; only the steps of a differentiable one can be compiled.
        config: an agent's settings; ``compile`` and ``checkpoint_every`` are used if present. A
            rollout with checkpoints is not compiled.
        total_steps: environment steps of the run, of all environments together.
        gradient: whether windows carry the graph through the environment.
    """
    compile: Compile = config.compile if isinstance(config, CompileSettings) else "never"
    every = config.checkpoint_every if isinstance(config, GraphSettings) else 0
    possible = (
        every == 0
        and isinstance(env, DifferentiableVectorEnv)
        and isinstance(env.single_action_space, Box)
        and is_compilable(env.env)
    )
    saved = STEP_SECONDS * total_steps / env.num_envs
    device = env.device if isinstance(env, DifferentiableVectorEnv) else CPU
    if possible and choose_compiled(compile, saved, device):
        if gradient:
            LOG.warning("compiling the step of policy and environment (seconds, once)")
        return CompiledUnroll()
    if not gradient:
        return collect
    if compile == "always":
        LOG.warning("steps are not compiled: checkpointed, or not plain torch functions")
    return choose_unroll(every)
