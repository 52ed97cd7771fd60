"""The protocol of a step rule, and the problem that it may evaluate besides the gradient."""

import copy
import functools
from collections.abc import Callable
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from pgtoolkit.agent import Metrics
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.policies.policy import Policy


class StepRule(Protocol):
    """Changes a module's parameters by the derivative of a loss in their ``grad``."""

    def step(self, module: nn.Module, problem: "Problem | None" = None) -> Metrics:
        """Takes one step, in place.

        Args:
            module: every parameter's ``grad`` holds the derivative of the loss.
            problem: the policy's surrogate and distribution, for rules that need more than a
                gradient (natural gradient, trust region); None for a module that is no policy.

        Raises:
            NonFiniteError: a gradient is not finite; nothing is changed.
        """

    def state_dict(self) -> dict[str, Any]:
        """The rule's own state: moments, counts."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what ``state_dict`` returned."""


@final
class Problem:
    """A policy's surrogate and distribution on one batch, at whatever its parameters are.

    Args:
        policy: maps features to a distribution; the step changes its parameters.
        features: the batch's normalised observations ``[..., N, F]``.
        surrogate: the surrogate ``[N]`` of a distribution; its mean is what the step increases.
        valid: a bool mask of the batch's entries that count; None means all.
        noise: standard noise of the batch, for divergences that have no closed form.
    """

    def __init__(
        self,
        policy: Policy,
        features: Tensor,
        surrogate: Callable[[Distribution], Tensor],
        valid: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> None:
        self._policy, self._features = policy, features
        self._surrogate, self._valid, self._noise = surrogate, valid, noise

    def distribution(self) -> Distribution:
        """The policy's distribution now, with its graph to the parameters."""
        return self._policy(self._features)

    @functools.cached_property
    def old(self) -> Distribution:
        """The distribution when this is first asked for, as a constant. Ask before the step.

        It is computed by a copy of the policy, because a distribution may refer to parameters (a
        standard deviation that is one, the couplings of a flow), and these are changed in place.
        """
        with torch.no_grad():
            return copy.deepcopy(self._policy)(self._features)

    def kl(self) -> Tensor:
        """Mean ``KL(old || now)`` in nats, with its graph to the parameters.

        Where it has no closed form it is estimated at the batch's own noise.

        Raises:
            ValueError: it has no closed form, and the problem has no noise.
        """
        divergence = self.old.kl_divergence(self.distribution(), self._noise)
        return (divergence if self._valid is None else divergence[self._valid]).mean()

    def objective(self) -> Tensor:
        """The mean surrogate at the present parameters, with its graph."""
        return self._surrogate(self.distribution()).mean()
