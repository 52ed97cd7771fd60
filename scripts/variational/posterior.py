"""Draws from a posterior, as good as exact: Hamiltonian Monte Carlo, many chains at once."""

import dataclasses
import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from pgtoolkit.distributions.gaussian import FullGaussian
from pgtoolkit.shapes import check_shape

LogDensity = Callable[[Tensor], Tensor]
"""Maps points ``[C, D]`` to ``[C]``, the log density up to a constant; differentiable."""

TINY = 1e-10
"""A Newton step that changes nothing."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Chains:
    """What the sampler drew."""

    draws: Tensor
    """``[S, C, D]``: draws of each chain, chains, dimensions."""
    acceptance: float
    """Share of the proposals that were accepted."""

    @property
    def mean(self) -> Tensor:
        """``[D]`` over all draws."""
        return self.draws.flatten(0, 1).mean(0)

    @property
    def std(self) -> Tensor:
        """``[D]`` over all draws."""
        return self.draws.flatten(0, 1).std(0)

    @property
    def standard_error(self) -> Tensor:
        """``[D]`` of :attr:`mean`, from the spread of the means of the independent chains."""
        return self.draws.mean(0).std(0) / math.sqrt(self.draws.shape[1])

    @property
    def r_hat(self) -> Tensor:
        """``[D]``, see :func:`split_r_hat`."""
        return split_r_hat(self.draws)


def laplace_approximation(log_density: LogDensity, start: Tensor, steps: int = 100) -> FullGaussian:
    """The Gaussian at the mode, with minus the inverse Hessian there as its covariance.

    Newton's method, its step halved until the density rises. For log-concave densities.

    Args:
        log_density: twice differentiable.
        start: ``[D]``.
        steps: at most so many; it ends when a step changes nothing.
    """

    def value(point: Tensor) -> Tensor:
        return log_density(point.unsqueeze(0)).squeeze(0)

    mode = start.detach()
    for _ in range(steps):
        root = torch.linalg.cholesky(_curvature(value, mode))
        step = torch.cholesky_solve(_slope(value, mode).unsqueeze(-1), root).squeeze(-1)
        while float(value(mode + step)) < float(value(mode)) and float(step.abs().max()) > TINY:
            step = step / 2
        mode = mode + step
        if float(step.abs().max()) <= TINY:
            break
    covariance = torch.linalg.inv(_curvature(value, mode))
    return FullGaussian(mode, torch.linalg.cholesky(covariance))


def _slope(value: LogDensity, point: Tensor) -> Tensor:
    point = point.detach().requires_grad_()
    return torch.autograd.grad(value(point).sum(), point)[0]


def _curvature(value: LogDensity, point: Tensor) -> Tensor:
    """Minus the Hessian ``[D, D]``."""
    hessian: Tensor = torch.autograd.functional.hessian(value, point)  # type: ignore[no-untyped-call]
    return -hessian


def hamiltonian_monte_carlo(
    log_density: LogDensity,
    approximation: FullGaussian,
    *,
    num_chains: int,
    num_draws: int,
    num_warmup: int,
    generator: torch.Generator,
    step_size: float = 0.4,
    num_steps: int = 4,
) -> Chains:
    """Draws ``[num_draws, num_chains, D]`` (Duane et al. 1987; Neal 2011).

    The approximation ``theta = mean + L x`` serves as the preconditioner: where it is good, ``x``
    is nearly standard normal, for which a path of length pi/2 forgets its start. The step size is
    the one given, times a factor between 0.8 and 1.2 that is drawn anew for every path, so that no
    direction has a period that the path length matches. Chains start from twice the approximation's
    spread: further apart than the posterior, so that :attr:`Chains.r_hat` means something. Where
    the density's tails are lighter than a Gaussian's, the leapfrog is unstable there and chains
    stick: R-hat says so, and a smaller step helps.

    Args:
        log_density: of ``theta``.
        approximation: batch shape ``[]``.
        num_chains: advanced together, in one tensor.
        num_draws: kept of each chain.
        num_warmup: thrown away before them.
        generator: of all randomness.
        step_size: of the leapfrog, in units of the approximation's standard deviation.
        num_steps: of the leapfrog, for one proposal.
    """

    def potential(x: Tensor) -> Tensor:
        return -log_density(approximation.pre_action(x))

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=mean.dtype, device=mean.device)

    mean = approximation.mean
    x = 2 * approximation.draw_noise(generator, (num_chains,))
    draws, accepted = [], 0.0
    for i in range(num_warmup + num_draws):
        momentum = approximation.draw_noise(generator, (num_chains,))
        size = step_size * (0.8 + 0.4 * float(uniform(1)))
        proposed, turned = leapfrog(potential, x, momentum, size, num_steps)
        rise = _energy(potential, proposed, turned) - _energy(potential, x, momentum)
        accept = uniform(num_chains) < torch.exp(-rise)
        x = torch.where(accept.unsqueeze(-1), proposed, x)
        if i >= num_warmup:
            draws.append(approximation.pre_action(x))
            accepted += float(accept.double().mean()) / num_draws
    return Chains(torch.stack(draws).detach(), accepted)


def leapfrog(
    potential: LogDensity, x: Tensor, momentum: Tensor, step_size: float, num_steps: int
) -> tuple[Tensor, Tensor]:
    """Position and momentum ``[C, D]`` after so many steps: reversible, and keeps volume."""
    momentum = momentum - step_size / 2 * _slope(potential, x)
    for step in range(num_steps):
        x = x + step_size * momentum
        share = 1.0 if step < num_steps - 1 else 0.5
        momentum = momentum - share * step_size * _slope(potential, x)
    return x.detach(), momentum


@torch.no_grad()
def _energy(potential: LogDensity, x: Tensor, momentum: Tensor) -> Tensor:
    return potential(x) + momentum.square().sum(-1) / 2


def split_r_hat(draws: Tensor) -> Tensor:
    """Whether chains agree: ``sqrt(var+ / W)`` ``[D]``, near 1 if they do.

    Each chain is cut in two, so that one that drifts disagrees with itself. ``W`` is the mean
    variance within a half of ``n`` draws, ``B / n`` that of the halves' means, ``var+ = (n - 1) / n
    W + B / n`` (Gelman et al. 2013, eq. 11.4).

    Args:
        draws: ``[S, C, D]``, at least 4 draws; the middle one of an odd number is left out.

    Raises:
        ValueError: another number of axes, or fewer draws.
    """
    check_shape("draws", draws, None, None, None)
    n = draws.shape[0] // 2
    if n < 2:
        raise ValueError(f"split R-hat needs at least 4 draws of each chain, not {draws.shape[0]}")
    halves = torch.cat([draws[:n], draws[-n:]], 1)
    within, between = halves.var(0).mean(0), halves.mean(0).var(0)
    return (((n - 1) / n * within + between) / within).sqrt()
