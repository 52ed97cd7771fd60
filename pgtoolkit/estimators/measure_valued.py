"""Measure-valued derivatives of a Gaussian expectation (Pflug 1996; Mohamed et al. 2020).

The derivative of a density is a scaled difference of two densities, so the gradient is a difference
of two expectations. No derivative of ``f`` is needed, so ``f`` may jump. The variance is low,
because both expectations are sampled from the same variables (coupling). The cost is four
evaluations of ``f`` for each dimension.
"""

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor

from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.estimators.integrand import Function, evaluate
from pgtoolkit.second_derivatives import once_differentiable


class MeasureValuedNoise(NamedTuple):
    """Independent standard variables, ``[num_samples, *batch, A]`` each."""

    normal: Tensor
    """Noise of the sample: in a derivative, that of all dimensions but the one that it is by."""
    rayleigh: Tensor
    """Density ``w exp(-w^2 / 2)`` on ``w > 0``: a Weibull of shape 2 and scale sqrt 2."""
    maxwell: Tensor
    """Density ``m^2 exp(-m^2 / 2) / sqrt(2 pi)`` on the real line, a double-sided Maxwell."""
    uniform: Tensor
    """Uniform on [0, 1]; ``uniform * maxwell`` is a standard normal variable."""

    @classmethod
    def draw(cls, normal: Tensor, generator: torch.Generator) -> Self:
        """Noise with this normal variable; the other three, of its shape, are drawn."""

        def standard() -> Tensor:
            return torch.empty_like(normal).normal_(generator=generator)

        def uniform() -> Tensor:
            return torch.empty_like(normal).uniform_(generator=generator)

        rayleigh = (standard().square() + standard().square()).sqrt()
        radius = (standard().square() + standard().square() + standard().square()).sqrt()
        sign = torch.where(uniform() < 0.5, -1.0, 1.0).to(normal)
        return cls(normal, rayleigh, sign * radius, uniform())


def measure_valued_surrogate(
    f: Function, distribution: DiagonalGaussian, noise: MeasureValuedNoise
) -> Tensor:
    """A surrogate of ``E[f(x)]``, ``x ~ N(mean, std^2)``, ``[num_samples, *batch]``.

    *Estimates* ``d/dtheta E[f(x)]``. *With*, for each dimension, the others being as sampled,

    - by the mean: ``(f(mean + std w) - f(mean - std w)) / (std sqrt(2 pi))``, ``w`` Rayleigh;
    - by the standard deviation: ``(f(mean + std m) - f(mean + std u m)) / std``, ``m`` Maxwell,
      ``u`` uniform.

    *Requires* a Gaussian of independent dimensions; nothing of ``f``.

    Args:
        f: maps ``[num_samples, *batch, A]`` to ``[num_samples, *batch]``; or keeps further axes,
            as an elementwise ``f`` does, which are then independent expectations.
        distribution: ``mean`` and ``log_std`` ``[*batch, A]``.
        noise: each variable of the shape ``[num_samples, *batch, A]``.

    Raises:
        ValueError: ``f`` returns another shape.
    """
    mean = distribution.mean
    std = distribution.log_std.exp().expand_as(mean)
    x = (mean + std * noise.normal).detach()
    value = evaluate(f, x)
    if value.shape != x.shape[: value.dim()]:
        raise ValueError(
            f"f returned {list(value.shape)} for samples {list(x.shape)}: f must keep the axes of "
            "the samples and of the batch, in order, and reduce those of the event"
        )
    coupled = x.shape[value.dim() :]
    by_mean, by_std = torch.empty_like(x), torch.empty_like(x)
    with torch.no_grad():
        # One dimension at a time; in the others the sample stays as it is.
        for d in range(math.prod(coupled)):
            selected = torch.zeros(coupled, dtype=torch.bool, device=x.device)
            selected.view(-1)[d] = True
            plus, minus, far, near = (
                evaluate(f, torch.where(selected, mean + std * shift, x)).to(x.dtype)
                for shift in (
                    noise.rayleigh,
                    -noise.rayleigh,
                    noise.maxwell,
                    noise.uniform * noise.maxwell,
                )
            )
            by_mean[..., selected] = (plus - minus).unsqueeze(-1) / math.sqrt(2 * math.pi)
            by_std[..., selected] = (far - near).unsqueeze(-1)
        by_mean, by_std = by_mean / std, by_std / std
    # Its value is zero, and its derivatives are the estimates.
    change: Tensor = by_mean * (mean - mean.detach()) + by_std * (std - std.detach())
    change = once_differentiable(
        change,
        "a measure-valued derivative",
        "use method='score_function', which is right to any order",
    )
    return value + (change.flatten(value.dim()).sum(-1) if coupled else change)
