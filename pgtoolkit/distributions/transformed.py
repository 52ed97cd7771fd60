"""A simple distribution followed by a chain of invertible maps, and the uniform distribution.

The maps are those of :mod:`torch.distributions.transforms`, such as ``AffineTransform``,
``ExpTransform``, ``SigmoidTransform`` or ``CumulativeDistributionTransform(d).inv`` (the inverse
distribution function of ``d``, to be applied to :class:`Uniform`), and
:class:`pgtoolkit.distributions.coupling.AffineCoupling`.
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

    ``log p(a) = log p_base(x) - sum_j log |det dT_j|``, by inverting the chain. A map acts on each
    dimension by itself or on the last axis as a whole. A chain may map into a part of ``R^A`` only,
    but its inverse may be inexact at the edge of that part: for bounds prefer
    :class:`pgtoolkit.distributions.squashed.Squashed` around an unbounded chain.

    Args:
        base: over ``[..., A]``; ``DiagonalGaussian(zeros, zeros)`` is standard normal and
            ``Uniform(zeros, ones)`` is uniform. The noise of a sample is the base's noise.
        transforms: the maps, the first one first. Their caches are switched off, because a cached
            inverse has no graph.

    Raises:
        RequestError: a transform has no inverse, or the base has bounds of its own.
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
        return self.apply_chain(self.base.pre_action(noise))

    def apply_chain(self, x: Tensor) -> Tensor:
        """``T_n(... T_1(x))``."""
        for transform in self.transforms:
            x = transform(x)
        return x

    def apply_with_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
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

        The value of the density is computed forwards from the noise. Its derivative, at a fixed
        action, needs the inverted chain. If rounding has put the action on the edge of the chain's
        range, this derivative is not finite; it is then replaced by 0.
        """
        with torch.no_grad():
            x = self.base.pre_action(self.resolve_noise(noise, generator))
            points = self.intermediate_points(x)
            log_prob = self.base.log_prob_of_pre_action(x) - self.apply_with_log_det(x)[1]
        if not torch.is_grad_enabled():
            return points[-1], log_prob
        inverted = self.log_prob_at(points)
        invalid = ~inverted.isfinite()
        if invalid.any():
            # The derivative there is not finite, and 0 times it would be NaN. So the density is
            # evaluated at the base's mode instead, and then dropped.
            with torch.no_grad():
                modes = self.intermediate_points(self.base.mode)
            pairs = zip(modes, points, strict=True)
            valid_points = [torch.where(invalid[..., None], mode, at) for mode, at in pairs]
            inverted = torch.where(invalid, 0.0, self.log_prob_at(valid_points))
        return points[-1], log_prob + (inverted - inverted.detach())

    def intermediate_points(self, x: Tensor) -> list[Tensor]:
        """``x`` and its image after each map."""
        points = [x]
        for transform in self.transforms:
            points.append(transform(points[-1]))
        return points

    def log_prob_at(self, points: list[Tensor]) -> Tensor:
        """The log density at the last of :meth:`intermediate_points`, which have no graph."""
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

        It is exact if the determinant is constant and the base's entropy has a closed form.
        """
        noise = self.resolve_noise(noise, generator)
        return self.base.entropy(noise) + self.apply_with_log_det(self.base.pre_action(noise))[1]

    def kl_divergence(
        self,
        other: Distribution,
        noise: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The divergence of the bases if :meth:`same_chain` holds; else sampled."""
        if isinstance(other, Transformed) and self.same_chain(other):
            return self.base.kl_divergence(other.base, noise, generator=generator)
        return super().kl_divergence(other, noise, generator=generator)

    def same_chain(self, other: "Transformed") -> bool:
        """Whether both chains consist of the same objects, or of equal maps without gradients.

        Equal maps that require gradients count as different: a gradient by the parameters of one of
        them alone would be lost.
        """
        if len(self.transforms) != len(other.transforms) or not self.support.equals(other.support):
            return False
        points = self.intermediate_points(self.base.mode)
        pairs = zip(self.transforms, other.transforms, points, strict=False)
        return all(same_transform(*pair) for pair in pairs)

    @property
    def mode(self) -> Tensor:
        """The image of the base's mode, which zero noise gives; not the density's maximum."""
        return self.apply_chain(self.base.mode)


def _log_abs_det(transform: Transform, x: Tensor, y: Tensor) -> Tensor:
    """``log |det dT|`` ``[...]``; summed if the transform acts on each dimension by itself."""
    log_det: Tensor = transform.log_abs_det_jacobian(x, y)  # type: ignore[no-untyped-call]
    return log_det if transform.domain.event_dim == 1 else log_det.expand(x.shape).sum(-1)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Uniform(Unsquashed):
    """Uniform on a box: ``x = low + (high - low) Phi(eps)`` with standard normal ``eps``.

    The noise is normal, as a Gaussian's, and zero noise gives the middle. ``Phi`` is kept off 0 and
    1 by half a unit of rounding (5.3 standard deviations in float32), so that torch's inverse
    distribution functions, which compute ``2 Phi - 1``, stay finite. The support depends on the
    bounds: the gradient by the bounds is right by the pathwise estimator and biased by the score
    function.

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
        """``-sum_i log(high_i - low_i)``; minus infinity outside the box."""
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
        """The middle of the box, in which all points have one density."""
        return 0.5 * (self.low + self.high)
