"""Samples and log densities of ``torch.distributions`` chains of transforms, with right gradients.

The score function needs ``log p`` at a fixed sample, differentiated by the parameters. If a map has
no parameters, the preimage of the sample is fixed too, and it is known from sampling; inverting the
map would be inexact, or infinite where the map is flat (tanh). If a map has parameters, the
preimage depends on them, and the inverse gives its derivative; a transform's cache would lose it.
"""

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution as TorchDistribution
from torch.distributions import Transform


def without_caches(transforms: Sequence[Transform]) -> tuple[Transform, ...]:
    """Flattens compositions and turns caches off, because a cached inverse has no graph."""
    flat: list[Transform] = []
    for transform in transforms:
        if isinstance(transform, td.ComposeTransform):
            flat.extend(without_caches(transform.parts))
        else:
            flat.append(transform.with_cache(0))  # type: ignore[no-untyped-call]
    return tuple(flat)


def preimage(transform: Transform, x: Tensor, y: Tensor) -> Tensor:
    """``T^-1(y)`` with its derivative, where ``y = T(x)``.

    It is inverted only if ``y`` or a parameter of ``T`` requires a gradient; else it is ``x``.
    """
    needs_gradient = y.requires_grad or transform(x).requires_grad
    return transform.inv(y) if needs_gradient else x


def same_transform(first: Transform, second: Transform, x: Tensor) -> bool:
    """Whether two maps are one object, or are equal and have no parameters to differentiate.

    Args:
        first: a map.
        second: another map.
        x: a point of their domain.
    """
    if first is second:
        return True
    x = x.detach()
    return bool(first == second) and not (first(x).requires_grad or second(x).requires_grad)


def is_chain(distribution: TorchDistribution) -> TypeGuard[td.TransformedDistribution]:
    """Whether the density is that of a base and transforms.

    False for subclasses of ``TransformedDistribution`` that override it (Gumbel, HalfNormal).
    """
    return type(distribution).log_prob is td.TransformedDistribution.log_prob


def draw_points(distribution: TorchDistribution, shape: torch.Size, path: bool) -> list[Tensor]:
    """Draws a sample; returns the base's sample and its image after each transform.

    Args:
        distribution: any of torch's.
        shape: the sample shape.
        path: whether the points carry the graph (``rsample``).
    """
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
    """The log density at the last of :func:`draw_points`; its graph leads to the parameters only.

    Args:
        distribution: the one that was sampled.
        points: a result of :func:`draw_points`; detached here.
    """
    if isinstance(distribution, td.Independent):
        log_prob = log_prob_at(distribution.base_dist, points)
        return _sum_last(log_prob, distribution.reinterpreted_batch_ndims)
    return _log_prob(distribution, [p.detach() for p in points], points[-1].detach())


def _log_prob(d: TorchDistribution, points: Sequence[Tensor], y: Tensor) -> Tensor:
    """``log p(y)``, where ``y`` has the value of the last point and may have a graph."""
    if isinstance(d, td.Independent):
        return _sum_last(_log_prob(d.base_dist, points, y), d.reinterpreted_batch_ndims)
    if not is_chain(d):
        return d.log_prob(y)
    chain, event_dim, log_dets = without_caches(d.transforms), len(d.event_shape), []
    inputs = points[len(points) - 1 - len(chain) : -1]
    for transform, known in zip(reversed(chain), reversed(inputs), strict=True):
        x = preimage(transform, known, y)
        event_dim += transform.domain.event_dim - transform.codomain.event_dim
        log_det = transform.log_abs_det_jacobian(x, y)  # type: ignore[no-untyped-call]
        log_dets.append(_sum_last(log_det, event_dim - transform.domain.event_dim))
        y = x
    log_prob = _log_prob(d.base_dist, points[: len(points) - len(chain)], y)
    total = _sum_last(log_prob, event_dim - len(d.base_dist.event_shape))
    for log_det in log_dets:
        total = total - log_det
    return total


def _sum_last(value: Tensor, count: int) -> Tensor:
    """Sums the last ``count`` axes."""
    return value if count == 0 else value.flatten(-count).sum(-1)
