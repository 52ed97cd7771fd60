"""The protocol of an agent: what the training loop and the commands know of it."""

from typing import Any, ClassVar, NamedTuple, Protocol, Self, final, runtime_checkable

from torch import Tensor

from pgtoolkit.networks.value import QEnsemble
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.window import Window
from pgtoolkit.state import entries, number, require, schema_of

Metrics = dict[str, Tensor]
"""TensorBoard tag to a scalar, or to a vector over the steps of a window."""


class Agent(Protocol):
    """The interface that the training loop requires of an agent. There is no base class.

    The constructor takes ``(config, env, *, seed, total_steps)``. The module that defines an agent
    ``Name`` also defines its configuration ``NameConfig``.
    """

    needs_gradient: ClassVar[bool]
    """Whether the agent differentiates through its environment."""

    @property
    def policy(self) -> Policy:
        """The policy that acts.

        It is evaluated, saved and exported, unless the agent has an average of its policies
        (:func:`evaluated_policy`).
        """

    def collect(self) -> Window:
        """Acts in the environments for one window and returns it."""

    def update(self, window: Window) -> Metrics:
        """Updates the agent from the window and returns what it measured."""

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs: tensors, numbers, strings, lists, dictionaries."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what ``state_dict`` returned."""


@final
class CriticView(NamedTuple):
    """The critic of an agent, as measurements and the saved policy need it."""

    module: QEnsemble
    """The Q functions whose slope by the action the policy climbs."""
    temperature: float = 0.0
    """Weight ``alpha`` of the entropy in the soft value
    ``Q(s, a) = r + gamma E[Q(s', a') - alpha (log pi(a' | s') + h)]``; 0 for an ordinary value."""
    reward_scale: float = 1.0
    """Divisor of the environment's rewards in the critic's unit."""
    entropy_target: float = 0.0
    """The entropy ``h``, in nats, that is worth nothing: only what is above it is paid."""

    def state_dict(self) -> dict[str, Any]:
        """What lies beside a saved policy."""
        return {
            "module": self.module.state_dict(),
            "temperature": float(self.temperature),
            "reward_scale": float(self.reward_scale),
            "entropy_target": float(self.entropy_target),
        }

    @classmethod
    def load(cls, module: QEnsemble, state: dict[str, Any]) -> Self:
        """The view that :meth:`state_dict` described, with its weights loaded into a module.

        Args:
            module: made from the same settings; changed in place.
            state: a result of :meth:`state_dict`.

        Raises:
            StateError: it does not fit.
        """
        scale = number(0.0)
        schemas = {
            "module": schema_of(module),
            "temperature": scale,
            "reward_scale": scale,
            "entropy_target": number(),
        }
        # Critics of earlier versions have no target.
        require(state, entries(schemas, absent=("entropy_target",)))
        module.load_state_dict(state["module"])
        target = state.get("entropy_target", 0.0)
        return cls(module, state["temperature"], state["reward_scale"], target)


@runtime_checkable
class HasCritic(Protocol):
    """An agent that has a Q function."""

    @property
    def policy(self) -> Policy: ...

    @property
    def critic(self) -> CriticView:
        """Its critic now. It reads numbers of tensors, for which a GPU waits: ask where needed."""


@runtime_checkable
class HasReplay(Protocol):
    """An agent that stores transitions."""

    @property
    def replay_sentence(self) -> str:
        """How much memory the replay buffer takes, for the start of a run."""


@runtime_checkable
class HasAveragedPolicy(Protocol):
    """An agent that keeps a running mean of its policy's parameters."""

    @property
    def averaged_policy(self) -> Policy: ...


def evaluated_policy(agent: Agent) -> Policy:
    """The policy that is evaluated, saved and exported: the average, where there is one."""
    return agent.averaged_policy if isinstance(agent, HasAveragedPolicy) else agent.policy
