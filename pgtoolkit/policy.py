"""What a policy owes: observation in, distribution over actions out, a loss for each gradient."""

import copy
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from pgtoolkit.distribution import Distribution
from pgtoolkit.encoder import Pixels
from pgtoolkit.normalizer import NoNormalizer, ObservationNormalizer


class Policy(nn.Module, ABC):
    """``pi(action | obs)``. It holds its observation normaliser, so a saved policy is whole."""

    normalizer: ObservationNormalizer | NoNormalizer | Pixels
    noise_size: int
    """Entries of the standard noise of one action."""
    action_size: int | None = None
    """Entries of one pre-action; None if there are as many as of its noise."""

    @abstractmethod
    def forward(self, obs: Tensor) -> Distribution:
        """The distribution over actions at ``obs`` ``[..., O]``."""

    def __call__(self, obs: Tensor) -> Distribution:
        distribution: Distribution = super().__call__(obs)
        return distribution

    @abstractmethod
    def draw_noise(self, *batch: int, generator: torch.Generator) -> Tensor:
        """Standard noise ``[*batch, A]`` on the generator's device, for that many actions."""

    @abstractmethod
    def pathwise_action(self, obs: Tensor, noise: Tensor) -> Tensor:
        """The action ``a(obs, noise)``, squashed to the action space; carries the graph.

        Its derivative by the parameters is the pathwise (reparameterisation) gradient,
        ``d/dtheta E[J(a)] = E[dJ/da da(theta, eps)/dtheta]``.

        Raises:
            RequestError: the policy is discrete, and has no such derivative.
        """

    def log_derivative_loss(self, obs: Tensor, pre_action: Tensor, weight: Tensor) -> Tensor:
        """``-weight * log pi(action | obs)`` ``[...]``, unreduced.

        The gradient of its negative estimates ``d/dtheta E[J] = E[J dlog pi/dtheta]``, the score
        function or REINFORCE gradient (Williams 1992). ``pre_action`` and ``weight`` are detached
        here: with a reparameterised action that is not detached, the two paths through a Gaussian's
        mean cancel and its gradient is exactly zero.

        Args:
            obs: ``[..., O]``.
            pre_action: ``[..., A]`` the pre-squash action, as stored in the window.
            weight: ``[...]`` return, advantage, or any weight without a path to the parameters.
        """
        return self(obs).log_derivative_loss(pre_action, weight)


def without_normalizer(policy: Policy) -> Policy:
    """The policy past its normaliser: a shallow copy, with the same parameters.

    For many passes over observations that are normalised once.
    """
    past = copy.copy(policy)
    past.__dict__["_modules"] = policy._modules | {"normalizer": NoNormalizer()}
    return past
