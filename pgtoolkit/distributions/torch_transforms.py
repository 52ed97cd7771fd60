"""Chains of invertible maps: densities of their samples without inverting what needs no inverting.

A sample's score is wanted at a fixed point. Through a map without parameters that point's preimage
is fixed too, and known: no inverse is needed, which would be inexact or infinite where the map is
flat (tanh). Through a map with parameters the preimage moves, and the inverse gives its derivative;
a transform's cache would lose it.
"""

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution as TorchDistribution
from torch.distributions import Transform


def _sum_last(value: Tensor, count: int) -> Tensor:
    """Sums the last ``count`` axes."""
    return value if count == 0 else value.flatten(-count).sum(-1)


def without_caches(transforms: Sequence[Transform]) -> tuple[Transform, ...]:
    """The same chain, flat, and without caches: a cached inverse has no graph."""
    flat: list[Transform] = []
    for transform in transforms:
        if isinstance(transform, td.ComposeTransform):
            flat.extend(without_caches(transform.parts))
        else:
            flat.append(transform.with_cache(0))  # type: ignore[no-untyped-call]
    return tuple(flat)


def preimage(transform: Transform, x: Tensor, y: Tensor) -> Tensor:
    """``T^-1(y)`` with its derivative, ``y = T(x)``: ``x`` itself if nothing in it can move."""
    moves = y.requires_grad or transform(x).requires_grad
    return transform.inv(y) if moves else x


def same_transform(first: Transform, second: Transform, x: Tensor) -> bool:
    """Whether two maps are one object, or equal without parameters that require a gradient.

    Args:
        first: a map.
        second: another.
        x: a point of their domain.
    """
    if first is second:
        return True
    x = x.detach()
    return bool(first == second) and not (first(x).requires_grad or second(x).requires_grad)


def is_chain(distribution: TorchDistribution) -> TypeGuard[td.TransformedDistribution]:
    """Whether it is a base and transforms, with no density of its own."""
    # Some of torch's subclasses have a density of their own (Gumbel, HalfNormal).
    own = type(distribution).log_prob
    return own is td.TransformedDistribution.log_prob


def draw_points(distribution: TorchDistribution, shape: torch.Size, path: bool) -> list[Tensor]:
    """A torch distribution's sample, last, after the points that it came from."""
    if isinstance(distribution, td.Independent):
        return draw_points(distribution.base_dist, shape, path)
    if not is_chain(distribution):
        return [distribution.rsample(shape) if path else distribution.sample(shape)]
    points = draw_points(distribution.base_dist, shape, path)
    with torch.set_grad_enabled(path and torch.is_grad_enabled()):
        for transform in without_caches(distribution.transforms):
            points.append(transform(points[-1]))
    return points


def log_prob_at(distribution: TorchDistribution, points: Sequence[Tensor]) -> Tensor:
    """The log density of the last of :func:`draw_points`, detached; a graph to the parameters."""
    if isinstance(distribution, td.Independent):
        below = log_prob_at(distribution.base_dist, points)
        return _sum_last(below, distribution.reinterpreted_batch_ndims)
    return _log_prob(distribution, [p.detach() for p in points], points[-1].detach())


def _log_prob(d: TorchDistribution, points: Sequence[Tensor], y: Tensor) -> Tensor:
    if isinstance(d, td.Independent):
        return _sum_last(_log_prob(d.base_dist, points, y), d.reinterpreted_batch_ndims)
    if not is_chain(d):
        return d.log_prob(y)
    chain, event_dim, log_dets = without_caches(d.transforms), len(d.event_shape), []
    before = points[len(points) - 1 - len(chain) : -1]
    for transform, known in zip(reversed(chain), reversed(before), strict=True):
        x = preimage(transform, known, y)
        event_dim += transform.domain.event_dim - transform.codomain.event_dim
        log_det = transform.log_abs_det_jacobian(x, y)  # type: ignore[no-untyped-call]
        log_dets.append(_sum_last(log_det, event_dim - transform.domain.event_dim))
        y = x
    below = _log_prob(d.base_dist, points[: len(points) - len(chain)], y)
    total = _sum_last(below, event_dim - len(d.base_dist.event_shape))
    for log_det in log_dets:
        total = total - log_det
    return total
