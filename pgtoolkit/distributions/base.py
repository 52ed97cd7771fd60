"""The interface of a distribution over actions.

Every sample is a function of standard noise, ``action = squash(pre_action(noise))``; the pathwise
gradient differentiates this reparameterisation. ``sample`` never carries a graph, ``rsample`` does.
The noise is given as a tensor or drawn from a given generator, never from torch's global one.
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


@final
class Support(NamedTuple):
    """The box that contains all actions of a continuous distribution."""

    low: Tensor
    """``[A]``, minus infinity where there is no bound."""
    high: Tensor
    """``[A]``, plus infinity where there is no bound."""

    def equals(self, other: "Support") -> bool:
        """Whether both boxes have the same number of dimensions and the same bounds."""
        return same_values(self.low, other.low) and same_values(self.high, other.high)


def same_values(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have one shape and equal entries; their dtypes may differ."""
    if first is second:
        return True
    return first.shape == second.shape and bool((first == second).all())


def nonzero(width: Tensor) -> Tensor:
    """The width of each entry, and 1 where there is none.

    An entry whose bounds are equal is a constant without a density: its width must neither divide
    nor enter a logarithm.
    """
    return torch.where(width > 0, width, 1.0)


class Distribution(ABC):
    """A batch ``[...]`` of distributions over actions; a continuous action is ``[..., A]``."""

    @property
    @abstractmethod
    def noise(self) -> tuple[Noise, ...]:
        """Kind and size of each part of one sample's noise, in the order of concatenation."""

    @property
    @abstractmethod
    def parameter(self) -> Tensor:
        """A parameter ``[..., size]``, which gives noise its batch shape, dtype and device."""

    @property
    def gaussian(self) -> GaussianParameters | None:
        """Mean and log standard deviation of the pre-action; None if it is no diagonal Gaussian."""
        return None

    def draw_noise(self, generator: torch.Generator, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Standard noise ``[*sample_shape, ..., noise size]`` for samples of the whole batch."""
        like = self.parameter
        batch = (*sample_shape, *like.shape[:-1])
        return draw_noise(self.noise, batch, generator, dtype=like.dtype)

    @abstractmethod
    def pre_action(self, noise: Tensor) -> Tensor:
        """The action before squashing as a function of noise; carries the graph."""

    @abstractmethod
    def squash(self, pre_action: Tensor) -> Tensor:
        """Maps a pre-action into the action space."""

    @abstractmethod
    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        """``log p(squash(pre_action))`` ``[...]``, without inverting the squashing."""

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
        """The deterministic action: the squashed location, or the most probable category."""

    @abstractmethod
    def rsample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """A sample that carries the graph back to the distribution's parameters."""

    @property
    def support(self) -> Support | None:
        """The box that contains the actions; None if they are discrete or have no density."""
        return None

    def kl_divergence(
        self,
        other: "Distribution",
        noise: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``KL(self || other) = E_self[log p_self(a) - log p_other(a)]`` ``[...]`` in nats.

        Differentiable with respect to the parameters of both. Exact, without any noise, where there
        is a closed form: for two Gaussians (diagonal or full), and for two categorical,
        multi-categorical, Bernoulli, beta or uniform distributions. Two distributions that apply
        the same invertible map (tanh to the same bounds, the same chain of transforms) have the
        divergence of their bases, because such a map leaves it unchanged.

        Elsewhere (mixtures, flows, different families) it is ``log p_self(a) - log p_other(a)`` at
        one reparameterised sample ``a`` of ``self``. The estimate and its gradient are unbiased. It
        may be negative; the mean over ``K`` independent noises has the standard error
        ``std / sqrt(K)``, with ``std`` the standard deviation of the ``K`` estimates. The estimator
        ``(r - 1) - log r``, ``r = p_other / p_self``, is never negative, but is not used: it is
        biased where ``other`` has actions that ``self`` has not, and its variance may be infinite.

        Args:
            other: over the same actions; the batch shapes broadcast.
            noise: standard noise of ``self``; read only if there is no closed form.
            generator: draws the noise if none is given.

        Raises:
            RequestError: the two are not over the same actions.
            ValueError: there is no closed form, and neither noise nor a generator was given.
        """
        exact = self.closed_form_kl_divergence(other)
        if exact is not None:
            return exact
        require_same_support(self, other)
        pre_action = self.pre_action(self.resolve_noise(noise, generator))
        log_prob = self.log_prob_of_pre_action(pre_action)
        return log_prob - other.log_prob(self.squash(pre_action))

    def closed_form_kl_divergence(self, other: "Distribution") -> Tensor | None:
        """``KL(self || other)`` ``[...]``; None where there is no closed form for the pair."""
        return None

    def log_derivative_loss(self, pre_action: Tensor, weight: Tensor) -> Tensor:
        """``-weight * log p(squash(pre_action))`` ``[...]``: the loss of REINFORCE, unreduced.

        Args:
            pre_action: ``[..., A]``; detached here.
            weight: ``[...]``; detached here.

        Raises:
            ValueError: the weight's shape is not that of the log density.
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

        The density is computed from the pre-action, without inverting the squashing.
        """
        with torch.no_grad():
            pre_action = self.pre_action(self.resolve_noise(noise, generator))
            action = self.squash(pre_action)
        return action, self.log_prob_of_pre_action(pre_action)

    def resolve_noise(self, noise: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """The given noise, or else fresh noise from the given generator.

        Raises:
            ValueError: neither was given.
        """
        if noise is not None:
            return noise
        if generator is None:
            raise ValueError("give `noise` or a torch.Generator: no global random state is used")
        return self.draw_noise(generator)


class Unsquashed(Distribution):
    """A distribution over ``R^A``, without bounds.

    :class:`pgtoolkit.distributions.squashed.Squashed` gives it bounds, and
    :class:`pgtoolkit.distributions.transformed.Transformed` applies invertible maps to it.
    """

    @property
    def support(self) -> Support:
        like, size = self.parameter, self.mode.shape[-1]
        return Support(like.new_full((size,), -torch.inf), like.new_full((size,), torch.inf))

    def squash(self, pre_action: Tensor) -> Tensor:
        return pre_action

    def log_prob(self, action: Tensor) -> Tensor:
        return self.log_prob_of_pre_action(action)

    def rsample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.pre_action(self.resolve_noise(noise, generator))


def require_unsquashed(base: Distribution) -> None:
    """Checks that a base distribution has no bounds, which would be ignored.

    Raises:
        RequestError: it has bounds.
    """
    if not isinstance(base, Unsquashed):
        raise RequestError(
            f"a {type(base).__name__} cannot be the base of another distribution: it has bounds of "
            "its own, which would be ignored. Squash last"
        )


def require_same_support(first: Distribution, second: Distribution) -> None:
    """Checks that two distributions are continuous, of one size, with the same bounds.

    Raises:
        RequestError: they are not.
    """
    if first.support is None or second.support is None or not first.support.equals(second.support):
        raise RequestError(
            f"no KL divergence from {type(first).__name__} to {type(second).__name__}: they are "
            "not over the same actions, because their kinds, sizes or bounds differ. Compare "
            "distributions of one action space: both discrete of one family, both clipped to the "
            "same bounds, both unbounded, or both squashed to the same bounds"
        )
