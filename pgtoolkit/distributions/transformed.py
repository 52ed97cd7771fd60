"""Distributions made of a simple one and a chain of invertible maps; uniform noise to start from.

The maps are :mod:`torch.distributions.transforms`: ``AffineTransform``, ``ExpTransform``,
``SigmoidTransform``, ``CumulativeDistributionTransform(d).inv`` (the inverse of a distribution
function, after :class:`Uniform`), and :class:`pgtoolkit.distributions.coupling.AffineCoupling`.
"""

import dataclasses
from typing import final

import torch
from torch import Tensor
from torch.distributions import Transform

from pgtoolkit.distributions.base import Distribution, Unsquashed, require_unsquashed
from pgtoolkit.distributions.noise import Noise
from pgtoolkit.distributions.torch_transforms import preimage, same_transform, without_caches
from pgtoolkit.errors import RequestError


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Transformed(Unsquashed):
    """``a = T_n(... T_1(x))``, ``x ~ base``; a normalising flow if the maps have parameters.

    ``log p(a) = log p_base(x) - sum_j log |det dT_j|``, by inverting the chain. Maps act on the
    action's dimensions one by one or all together. Where they reach only a part of ``R`` the action
    is there too, but the inverse may be inexact at its edge: for bounds prefer
    :class:`pgtoolkit.distributions.squashed.Squashed` around an unbounded chain.

    Args:
        base: over ``[..., A]``; ``DiagonalGaussian(zeros, zeros)`` is standard normal noise, and
            ``Uniform(zeros, ones)`` uniform noise. What is called noise stays the base's.
        transforms: the first is applied first. Their caches are switched off: a cached inverse has
            no graph.

    Raises:
        RequestError: a transform has no inverse, or the base is squashed.
        ValueError: a transform acts on more than the last axis.
    """

    base: Unsquashed
    transforms: tuple[Transform, ...]

    def __post_init__(self) -> None:
        require_unsquashed(self.base)
        chain = without_caches(self.transforms)
        if not all(t.bijective for t in chain):
            raise RequestError("a chain of transforms needs bijective ones: its density inverts it")
        if any(max(t.domain.event_dim, t.codomain.event_dim) > 1 for t in chain):
            raise ValueError("a transform of an action acts on its last axis only")
        object.__setattr__(self, "transforms", chain)

    @property
    def noise(self) -> tuple[Noise, ...]:
        return self.base.noise

    @property
    def parameter(self) -> Tensor:
        return self.base.parameter

    def pre_action(self, noise: Tensor) -> Tensor:
        return self.chain(self.base.pre_action(noise))

    def chain(self, x: Tensor) -> Tensor:
        """All the maps, one after the other."""
        for transform in self.transforms:
            x = transform(x)
        return x

    def push(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The chain's value at ``x`` ``[..., A]``, and ``sum_j log |det dT_j|`` ``[...]``."""
        log_det = x.new_zeros(x.shape[:-1])
        for transform in self.transforms:
            y = transform(x)
            log_det = log_det + _log_abs_det(transform, x, y)
            x = y
        return x, log_det

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        y, log_det = pre_action, pre_action.new_zeros(pre_action.shape[:-1])
        for transform in reversed(self.transforms):
            x = transform.inv(y)
            log_det = log_det + _log_abs_det(transform, x, y)
            y = x
        return self.base.log_prob_of_pre_action(y) - log_det

    def sample_with_log_prob(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """A sample without a graph, and its log density, whose graph leads to the parameters only.

        The density's value comes from the noise, without inverting; its derivative, at a fixed
        action, is that of the inverted chain. Where rounding has put the action on the edge of the
        chain's range that is not finite, and such a sample has none.
        """
        with torch.no_grad():
            x = self.base.pre_action(self.resolve_noise(noise, generator))
            points = self.points(x)
            log_prob = self.base.log_prob_of_pre_action(x) - self.push(x)[1]
        if not torch.is_grad_enabled():
            return points[-1], log_prob
        found = self.log_prob_at(points)
        lost = ~found.isfinite()
        if lost.any():
            # Their derivative is not finite either, and 0 times it is not 0: another point instead.
            with torch.no_grad():
                middle = self.points(self.base.mode)
            safe = [torch.where(lost[..., None], m, p) for m, p in zip(middle, points, strict=True)]
            found = torch.where(lost, 0.0, self.log_prob_at(safe))
        return points[-1], log_prob + (found - found.detach())

    def points(self, x: Tensor) -> list[Tensor]:
        """``x`` and its image after each map."""
        points = [x]
        for transform in self.transforms:
            points.append(transform(points[-1]))
        return points

    def log_prob_at(self, points: list[Tensor]) -> Tensor:
        """The log density of the last of :meth:`points`, which have no graph."""
        y, log_det = points[-1], points[-1].new_zeros(points[-1].shape[:-1])
        for transform, known in zip(reversed(self.transforms), reversed(points[:-1]), strict=True):
            x = preimage(transform, known, y)
            log_det = log_det + _log_abs_det(transform, x, y)
            y = x
        return self.base.log_prob_of_pre_action(y) - log_det

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``H(base) + log |det da/dx|`` at one reparameterised ``x``: unbiased, differentiable.

        There is no closed form, unless the determinant is constant.
        """
        noise = self.resolve_noise(noise, generator)
        return self.base.entropy(noise) + self.push(self.base.pre_action(noise))[1]

    def kl_divergence(
        self,
        other: Distribution,
        noise: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The bases' if both chains are the same; else sampled, as every distribution's.

        Chains are the same if their maps are the same objects, or are equal without parameters that
        a gradient is wanted for.
        """
        if isinstance(other, Transformed) and self.same_chain(other):
            return self.base.kl_divergence(other.base, noise, generator=generator)
        return super().kl_divergence(other, noise, generator=generator)

    def same_chain(self, other: "Transformed") -> bool:
        """Whether both apply the same maps, as constants or as the same objects."""
        if len(self.transforms) != len(other.transforms) or not self.support.equals(other.support):
            return False
        points = self.points(self.base.mode)
        pairs = zip(self.transforms, other.transforms, points, strict=False)
        return all(same_transform(*pair) for pair in pairs)

    @property
    def mode(self) -> Tensor:
        """The image of the base's mode, which zero noise gives; not the density's highest point."""
        return self.chain(self.base.mode)


def _log_abs_det(transform: Transform, x: Tensor, y: Tensor) -> Tensor:
    """``[...]``, also of a transform that acts on each dimension by itself."""
    log_det: Tensor = transform.log_abs_det_jacobian(x, y)  # type: ignore[no-untyped-call]
    return log_det if transform.domain.event_dim == 1 else log_det.expand(x.shape).sum(-1)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Uniform(Unsquashed):
    """``x = low + (high - low) Phi(eps)``: uniform, though its noise is standard normal.

    So windows hold one kind of noise, and zero noise is the middle. ``Phi`` is kept off 0 and 1 by
    half a unit of rounding, which is 5.3 standard deviations in float32: torch's inverse
    distribution functions, which take ``2 Phi - 1``, stay finite. Its support moves with its
    bounds, so by them the pathwise gradient is right and the score function is not.

    Args:
        low: ``[..., A]``.
        high: ``[..., A]``, above ``low``.
    """

    low: Tensor
    high: Tensor

    @property
    def noise(self) -> tuple[Noise, ...]:
        return (Noise("normal", self.low.shape[-1]),)

    @property
    def parameter(self) -> Tensor:
        return self.low + self.high

    def pre_action(self, noise: Tensor) -> Tensor:
        edge = torch.finfo(noise.dtype).eps / 2
        rank: Tensor = torch.special.ndtr(noise).clamp(edge, 1 - edge)
        return self.low + (self.high - self.low) * rank

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        """``-sum_i log(high_i - low_i)``, and minus infinity outside."""
        inside = (pre_action >= self.low) & (pre_action <= self.high)
        log_density = -torch.log(self.high - self.low)
        return torch.where(inside, log_density, -torch.inf).sum(-1)

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``sum_i log(high_i - low_i)``; exact, needs no noise."""
        return torch.log(self.high - self.low).sum(-1)

    def closed_form_kl_divergence(self, other: Distribution) -> Tensor | None:
        """Exact for another uniform distribution: infinite unless its box covers this one."""
        if not isinstance(other, Uniform) or not self.support.equals(other.support):
            return None
        covered = (other.low <= self.low) & (self.high <= other.high)
        log_ratio = torch.log(other.high - other.low) - torch.log(self.high - self.low)
        return torch.where(covered, log_ratio, torch.inf).sum(-1)

    @property
    def mode(self) -> Tensor:
        """The middle; all points are equally likely."""
        return 0.5 * (self.low + self.high)
