"""What a distribution over actions owes.

Each writes its sample as a function of standard noise, ``action = squash(pre_action(noise))``: the
reparameterisation from which the pathwise gradient comes. ``sample`` never carries a graph,
``rsample`` does. Noise is an explicit tensor or is drawn from an explicit generator.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple, final

import torch
from torch import Tensor

from pgtoolkit.distributions.noise import Noise, draw_noise
from pgtoolkit.errors import RequestError


@final
class GaussianParameters(NamedTuple):
    """Parameters of a diagonal Gaussian over the pre-action."""

    mean: Tensor
    """``[..., A]``."""
    log_std: Tensor
    """``[..., A]``, broadcast to the mean."""


class Distribution(ABC):
    """A distribution over actions with batch shape ``[...]`` and, if continuous, event ``[A]``."""

    @property
    @abstractmethod
    def noise(self) -> tuple[Noise, ...]:
        """Kind and size of the standard noise of one sample, in the order in which it is joined."""

    @property
    @abstractmethod
    def parameter(self) -> Tensor:
        """A parameter ``[..., size]``, whose batch shape, dtype and device the noise shares."""

    @property
    def gaussian(self) -> GaussianParameters | None:
        """Mean and log standard deviation of the pre-action; None where it has no such law."""
        return None

    def draw_noise(self, generator: torch.Generator, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Standard noise ``[*sample_shape, ..., noise size]`` for samples of the whole batch."""
        like = self.parameter
        batch = (*sample_shape, *like.shape[:-1])
        return draw_noise(self.noise, batch, generator, dtype=like.dtype)

    @abstractmethod
    def pre_action(self, noise: Tensor) -> Tensor:
        """The action before squashing, as a function of noise; carries the graph."""

    @abstractmethod
    def squash(self, pre_action: Tensor) -> Tensor:
        """Maps a pre-squash action into the action space."""

    @abstractmethod
    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        """``log p(squash(pre_action))`` ``[...]``, a density over actions, in its stable form."""

    @abstractmethod
    def log_prob(self, action: Tensor) -> Tensor:
        """``log p(action)`` ``[...]``, summed over the action's dimensions."""

    @abstractmethod
    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The entropy ``[...]`` in nats; noise is needed only where there is no closed form."""

    @property
    @abstractmethod
    def mode(self) -> Tensor:
        """The deterministic action: the squashed location, or the likeliest choice."""

    @abstractmethod
    def rsample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """A sample that carries the graph back to the distribution's parameters."""

    def log_derivative_loss(self, pre_action: Tensor, weight: Tensor) -> Tensor:
        """``-weight * log p(squash(pre_action))`` ``[...]``, unreduced: REINFORCE's loss.

        Args:
            pre_action: ``[..., A]``; detached here, and so is the weight.
            weight: ``[...]``.

        Raises:
            ValueError: the weight has another shape than the log density.
        """
        log_prob = self.log_prob_of_pre_action(pre_action.detach())
        if log_prob.shape != weight.shape:
            raise ValueError(
                f"weight has shape {list(weight.shape)}, the log density {list(log_prob.shape)}"
            )
        return -weight.detach() * log_prob

    def sample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """A sample that never carries a graph.

        Raises:
            ValueError: neither noise nor a generator was given.
        """
        with torch.no_grad():
            return self.squash(self.pre_action(self.resolve_noise(noise, generator)))

    def sample_with_log_prob(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """A sample without a graph, and its log density, whose graph leads to the parameters only.

        The density is computed from the noise, without inverting the squashing.
        """
        with torch.no_grad():
            pre_action = self.pre_action(self.resolve_noise(noise, generator))
            action = self.squash(pre_action)
        return action, self.log_prob_of_pre_action(pre_action)

    def resolve_noise(self, noise: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """The given noise, or fresh noise from the given generator; there is no global one."""
        if noise is not None:
            return noise
        if generator is None:
            raise ValueError("give `noise` or a torch.Generator: no global random state is used")
        return self.draw_noise(generator)


class Unsquashed(Distribution):
    """A distribution over ``R^A``, without bounds.

    Every one of them can be bounded by :class:`pgtoolkit.distributions.squashed.Squashed`, and can
    be the base of a :class:`pgtoolkit.distributions.transformed.Transformed`.
    """

    def squash(self, pre_action: Tensor) -> Tensor:
        return pre_action

    def log_prob(self, action: Tensor) -> Tensor:
        return self.log_prob_of_pre_action(action)

    def rsample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.pre_action(self.resolve_noise(noise, generator))


def require_unsquashed(base: Distribution) -> None:
    """Raises unless the distribution has no bounds of its own.

    Raises:
        RequestError: it has, and they would be ignored.
    """
    if not isinstance(base, Unsquashed):
        raise RequestError(
            f"a {type(base).__name__} cannot be the base of another distribution: it has bounds of "
            "its own, which would be ignored. Squash last"
        )
