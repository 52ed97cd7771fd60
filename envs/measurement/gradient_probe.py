"""Environments of an agent's own to measure its critic in: all gradients on one window, with bias.

An agent with a critic needs no gradient of its environment. Where there is one nevertheless, the
critic's gradient can be measured against the exact one.
"""

import copy
import functools
import logging
from typing import Any, Protocol, final

import torch
from gymnasium.spaces import Box

from pgtoolkit.agent import CriticView, Metrics
from pgtoolkit.config import DiagnosticsSettings, ProbeSettings
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.envs.collector import Collector, env_state, reset_staggered, restore_env_state
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.estimators.soft_value import SoftCritic, critic_signals
from pgtoolkit.learners.policy_step import measure_matched
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import reset, unroll
from pgtoolkit.seeding import stream, stream_seed
from pgtoolkit.state import anything, at, entries, generator, require

LOG = logging.getLogger("pgtoolkit")

GROUP = "gradient/probe"
"""Group of the tags of each estimator's statistics; the agent's own are in ``gradient``."""


class Probe(Protocol):
    """What an agent needs of a probe."""

    def measure(self, policy: Policy, critic: CriticView) -> Metrics: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@final
class NoProbe:
    """Measures nothing: the environment has no gradient, or cannot be stepped beside the agent's.

    Attributes:
        reason: why.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def measure(self, policy: Policy, critic: CriticView) -> Metrics:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads nothing: the state of a run whose environments were other ones is left."""


@final
class GradientProbe:
    """Differentiable environments in which all gradients of the present policy are measured.

    In every measurement they go on for ``T = probe_steps`` steps with the policy as it is now, from
    where the last one ended, at staggered ages: their states are those of the policies since the
    start of the run. Their steps are not training steps, and their episodes are not logged. All
    random numbers come from generators of the probe.

    The objective is that of :mod:`pgtoolkit.estimators.soft_value` in the unit of the environment's
    rewards. Pathwise and the score function are exact but for the value at the end of a segment,
    which is the critic's, discounted by ``gamma^T``: that part of the critic's error they share,
    and it is not seen as bias. A larger ``probe_steps`` makes it smaller, and their variance
    larger.

    In an agent::

        self.probe = make_probe(self.collector, config, self.learner.monitor)   # in __init__
        metrics |= self.probe.measure(self.policy, self.critic)   # in update, in `updating`

    and ``"probe"`` among the parts that it saves.

    Args:
        env: the environments.
        num_steps: ``T``.
        gamma: the discount.
        monitor: the agent's; it decides when a measurement is due, and counts its time.
        seed: determines starts, ages, process noise and actions.
    """

    def __init__(
        self,
        env: DifferentiableVectorEnv,
        *,
        num_steps: int,
        gamma: float,
        monitor: GradientMonitor,
        seed: int,
    ) -> None:
        self.env, self.num_steps, self.gamma, self.monitor = env, num_steps, gamma, monitor
        self.seed = stream_seed(seed, "gradient probe")
        self.generator = stream(seed, "gradient probe noise", env.device)
        self.rollout_state = reset_staggered(env, seed=self.seed, device=env.device)
        self.own = GradientMonitor(monitor.interval, GROUP)

    def measure(self, policy: Policy, critic: CriticView) -> Metrics:
        """Statistics of all gradients and the critic's bias; empty where no measurement is due.

        Where an action, a state or a reward is not finite, nothing is measured and the environments
        are reset: a measurement does not end a run.
        """
        if not self.monitor.due:
            return {}
        with self.monitor.diagnosing():
            try:
                return self._measure(policy, SoftCritic.of(critic))
            except NonFiniteError as error:
                LOG.warning(
                    "the gradient probe was reset, because a number was not finite (%s)", error
                )
                self.rollout_state = reset(self.env, seed=None, device=self.env.device)
                return {"gradient/pathwise/missing": torch.ones(())}

    def _measure(self, policy: Policy, critic: SoftCritic) -> Metrics:
        size = self.num_steps, self.env.num_envs
        draw = functools.partial(policy.draw_noise, *size, generator=self.generator)
        window, self.rollout_state = unroll(self.env, policy, self.rollout_state, draw())
        signals = critic_signals(policy, window, critic, gamma=self.gamma, draw_noise=draw)
        return measure_matched(signals, self.own)

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self.generator.get_state(),
            "env": env_state(self.env, self.rollout_state, seed=self.seed),
            "own": self.own.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what :meth:`state_dict` returned.

        Raises:
            StateError: it does not fit.
        """
        schemas = {"generator": generator(self.generator), "env": anything, "own": anything}
        require(state, entries(schemas))
        self.generator.set_state(state["generator"].cpu())
        with at("own"):
            self.own.load_state_dict(state["own"])
        with at("env"):
            self.rollout_state, _ = restore_env_state(
                self.env, self.rollout_state, state["env"], seed=self.seed
            )


def has_probe(config: Any, env: DifferentiableEnv | None) -> bool:
    """Whether an agent with these settings measures its critic in an environment beside its own."""
    if not isinstance(config, ProbeSettings) or not isinstance(config, DiagnosticsSettings):
        return False
    wanted = config.diagnostics_interval > 0 and config.probe_steps > 0
    if not wanted or env is None or env.gradient.action == "none":
        return False
    return isinstance(env.action_space, Box) and separate(env) is not None


def make_probe(
    collector: Collector, config: ProbeSettings, monitor: GradientMonitor
) -> GradientProbe | NoProbe:
    """The probe of an agent, in environments like its own.

    Args:
        collector: has the agent's environments, its seed and its discount.
        config: the settings.
        monitor: the agent's.
    """
    if monitor.interval == 0 or config.probe_steps == 0:
        return NoProbe("gradients are not measured")
    env = collector.env
    if not collector.can_differentiate or not isinstance(env, DifferentiableVectorEnv):
        return NoProbe("the environment has no gradient")
    own = separate(env.env)
    if own is None:
        reason = (
            f"{type(env.env.unwrapped).__name__} has a state of its own, so it cannot be stepped "
            "beside the agent: the bias of the critic's gradient is not measured"
        )
        LOG.warning("%s", reason)
        return NoProbe(reason)
    return GradientProbe(
        DifferentiableVectorEnv(own, config.probe_envs, device=env.device, dtype=env.dtype),
        num_steps=config.probe_steps,
        gamma=collector.config.gamma,
        monitor=monitor,
        seed=collector.seed,
    )


def separate(env: DifferentiableEnv) -> DifferentiableEnv | None:
    """The environment with counters of its own; None if it is not made of pure functions alone.

    An adapter that has a simulator or learns a model says so by ``begin_window`` or ``state_dict``.
    """
    kind = DifferentiableWrapper if isinstance(env, DifferentiableWrapper) else DifferentiableEnv
    hooks = ("begin_window", "state_dict")
    if any(getattr(type(env), hook) is not getattr(kind, hook) for hook in hooks):
        return None
    own = copy.copy(env)
    if isinstance(own, DifferentiableWrapper):
        inner = separate(own.env)
        if inner is None:
            return None
        own.env = inner
    return own
