"""All that is measured of an agent's critic, in one part of the agent."""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.agent import HasCritic, Metrics
from pgtoolkit.config import ProbeSettings
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.measurement.gradient_probe import make_probe
from pgtoolkit.learners.critic_measurement import measure_critic
from pgtoolkit.learners.minibatches import Batch, draw_minibatches
from pgtoolkit.learners.surrogate_measurement import Surrogates, measure_surrogates
from pgtoolkit.policies.policy import Policy
from pgtoolkit.seeding import stream
from pgtoolkit.state import load_state_of, state_of

ACTIONS_PER_STATE = 4
"""Actions that are drawn at each state; the first is measured, the others are its baseline."""
STATES = 1024
"""States that are drawn for a measurement, where there are as many."""
STATE = ("generator", "probe")


@final
class CriticMonitor:
    """Measures the gradient of an agent's critic where its gradient monitor says that it is due.

    - On states of the agent: the critic's gradient beside the score function of the same Q function
      (:func:`measure_critic <pgtoolkit.learners.critic_measurement.measure_critic>`).
    - On the steps of a window: the gradients of the surrogates that the agent can climb
      (:func:`measure_surrogates <pgtoolkit.learners.surrogate_measurement.measure_surrogates>`).
    - In differentiable environments of its own: beside the exact gradient, with the bias
      (:class:`GradientProbe <pgtoolkit.envs.measurement.gradient_probe.GradientProbe>`).

    Its random numbers are its own, so that a run learns the same with and without measurements.

    Args:
        collector: has the agent's environments and its seed.
        config: the settings of the probe.
        monitor: the agent's.
    """

    def __init__(
        self, collector: Collector, config: ProbeSettings, monitor: GradientMonitor
    ) -> None:
        self.monitor = monitor
        self.generator = stream(collector.seed, "critic monitor", collector.device)
        self.probe = make_probe(collector, config, monitor)

    def measure(
        self, agent: HasCritic, states: Callable[[torch.Generator], Tensor], *, followed: str
    ) -> Metrics:
        """The critic's gradient on states, and its bias; empty where no measurement is due.

        Args:
            agent: its policy and its critic are measured as they are now.
            states: draws observations ``[M, O]``, before the normaliser, with a generator.
            followed: the estimator that the agent follows.

        Raises:
            NonFiniteError: a gradient is not finite.
        """
        if not self.monitor.due:
            return {}
        policy, critic = agent.policy, agent.critic
        with self.monitor.diagnosing():
            features = policy.normalizer(states(self.generator))
            noise = policy.draw_noise(ACTIONS_PER_STATE, len(features), generator=self.generator)
        metrics = measure_critic(
            policy,
            features,
            noise,
            critic.module.policy_value,
            monitor=self.monitor,
            temperature=critic.temperature,
            followed=followed,
        )
        return metrics | self.measure_bias(agent)

    def measure_bias(self, agent: HasCritic) -> Metrics:
        """The bias of an agent's critic as it is now; empty where no measurement is due."""
        return self.probe.measure(agent.policy, agent.critic) if self.monitor.due else {}

    def measure_surrogates(
        self,
        policy: Policy,
        batch: Batch,
        surrogates: Surrogates[Batch],
        *,
        batch_size: int,
        followed: str,
    ) -> Metrics:
        """The gradients of what the agent climbs; empty where no measurement is due.

        Args:
            policy: as it is now.
            batch: a named tuple of tensors ``[M, ...]``, the steps of a window.
            surrogates: maps a minibatch and the noise of its actions to the surrogates by name.
            batch_size: steps of a minibatch of the agent.
            followed: the estimator that the agent follows.
        """
        if not self.monitor.due:
            return {}
        with self.monitor.diagnosing():
            rows = draw_minibatches(len(batch[0]), batch_size, 1, self.generator)
            noise = policy.draw_noise(*rows.shape, generator=self.generator)
        return measure_surrogates(
            policy, batch, rows, noise, surrogates, monitor=self.monitor, followed=followed
        )

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)
