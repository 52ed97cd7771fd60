"""Reference draws from a posterior by Hamiltonian Monte Carlo, many chains at once."""

import dataclasses
import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from pgtoolkit.distributions.gaussian import FullGaussian
from pgtoolkit.shapes import check_shape

LogDensity = Callable[[Tensor], Tensor]
"""Maps points ``[C, D]`` to their log density ``[C]``, up to a constant; differentiable."""

NEWTON_TOLERANCE = 1e-10
"""Largest entry of a Newton step at which the method has converged."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Chains:
    """The draws of several Markov chains."""

    draws: Tensor
    """``[S, C, D]``: ``S`` draws of each of ``C`` chains, in ``D`` dimensions."""
    acceptance: float
    """Share of the proposals that were accepted."""

    @property
    def mean(self) -> Tensor:
        """Mean ``[D]`` over the draws of all chains."""
        return self.draws.flatten(0, 1).mean(0)

    @property
    def std(self) -> Tensor:
        """Standard deviation ``[D]`` over the draws of all chains."""
        return self.draws.flatten(0, 1).std(0)

    @property
    def standard_error(self) -> Tensor:
        """Standard error ``[D]`` of :attr:`mean`, from the means of the independent chains."""
        return self.draws.mean(0).std(0) / math.sqrt(self.draws.shape[1])

    @property
    def r_hat(self) -> Tensor:
        """Split R-hat ``[D]``, see :func:`split_r_hat`."""
        return split_r_hat(self.draws)


def laplace_approximation(log_density: LogDensity, start: Tensor, steps: int = 100) -> FullGaussian:
    """The Gaussian whose mean is the mode, and whose covariance is minus the inverse Hessian there.

    The mode is found by Newton's method, whose step is halved until the density rises. For
    log-concave densities.

    Args:
        log_density: twice differentiable.
        start: initial point ``[D]``.
        steps: maximal number of Newton steps.
    """

    def value(point: Tensor) -> Tensor:
        return log_density(point.unsqueeze(0)).squeeze(0)

    mode = start.detach()
    for _ in range(steps):
        root = torch.linalg.cholesky(_negative_hessian(value, mode))
        step = torch.cholesky_solve(_gradient(value, mode).unsqueeze(-1), root).squeeze(-1)
        while float(value(mode + step)) < float(value(mode)) and not _is_negligible(step):
            step = step / 2
        mode = mode + step
        if _is_negligible(step):
            break
    covariance = torch.linalg.inv(_negative_hessian(value, mode))
    return FullGaussian(mode, torch.linalg.cholesky(covariance))


def _is_negligible(step: Tensor) -> bool:
    return float(step.abs().max()) <= NEWTON_TOLERANCE


def _gradient(value: LogDensity, point: Tensor) -> Tensor:
    """The gradient at each point, of the points' shape."""
    point = point.detach().requires_grad_()
    return torch.autograd.grad(value(point).sum(), point)[0]


def _negative_hessian(value: LogDensity, point: Tensor) -> Tensor:
    """Minus the Hessian ``[D, D]`` at a point ``[D]``."""
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
    """Draws from a density by Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011).

    The approximation ``theta = mean + L x`` serves as the preconditioner: where it is good, ``x``
    is nearly standard normal, for which a trajectory of length pi/2 ends independently of its
    start. Each trajectory multiplies the step size by a random factor between 0.8 and 1.2, so that
    its length does not coincide with the period of a direction. Chains start with twice the
    standard deviation of the approximation, wider than the posterior, because :attr:`Chains.r_hat`
    detects disagreement only among chains that start far apart. Where the density's tails are
    lighter than a Gaussian's, the leapfrog is unstable and chains stick: R-hat is then high, and a
    smaller step size helps.

    Args:
        log_density: that of ``theta``.
        approximation: the preconditioner, of batch shape ``[]``.
        num_chains: chains, advanced together in one tensor.
        num_draws: draws that are kept of each chain.
        num_warmup: draws of each chain that are discarded before.
        generator: source of all random numbers.
        step_size: leapfrog step, in units of the approximation's standard deviation.
        num_steps: leapfrog steps of one proposal.
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
        proposed, new_momentum = leapfrog(potential, x, momentum, size, num_steps)
        increase = _energy(potential, proposed, new_momentum) - _energy(potential, x, momentum)
        accept = uniform(num_chains) < torch.exp(-increase)
        x = torch.where(accept.unsqueeze(-1), proposed, x)
        if i >= num_warmup:
            draws.append(approximation.pre_action(x))
            accepted += float(accept.double().mean()) / num_draws
    return Chains(torch.stack(draws).detach(), accepted)


def leapfrog(
    potential: LogDensity, x: Tensor, momentum: Tensor, step_size: float, num_steps: int
) -> tuple[Tensor, Tensor]:
    """Position and momentum ``[C, D]`` after ``num_steps`` leapfrog steps.

    The map is reversible and preserves volume.
    """
    momentum = momentum - step_size / 2 * _gradient(potential, x)
    for step in range(num_steps):
        x = x + step_size * momentum
        factor = 1.0 if step < num_steps - 1 else 0.5
        momentum = momentum - factor * step_size * _gradient(potential, x)
    return x.detach(), momentum


@torch.no_grad()
def _energy(potential: LogDensity, x: Tensor, momentum: Tensor) -> Tensor:
    """Potential plus kinetic energy ``[C]``."""
    return potential(x) + momentum.square().sum(-1) / 2


def split_r_hat(draws: Tensor) -> Tensor:
    """Split R-hat ``sqrt(var+ / W)`` ``[D]``, a measure of convergence: near 1 if chains agree.

    Each chain is split into two halves, so that a drift within a chain counts as disagreement.
    ``W`` is the mean variance within a half of ``n`` draws, ``B / n`` the variance of the halves'
    means, and ``var+ = (n - 1) / n W + B / n`` (Gelman et al. 2013, eq. 11.4).

    Args:
        draws: ``[S, C, D]``, at least 4 draws; the middle one of an odd number is left out.

    Raises:
        ValueError: ``draws`` has another number of axes, or fewer than 4 draws.
    """
    check_shape("draws", draws, None, None, None)
    n = draws.shape[0] // 2
    if n < 2:
        raise ValueError(f"split R-hat needs at least 4 draws of each chain, not {draws.shape[0]}")
    halves = torch.cat([draws[:n], draws[-n:]], 1)
    within, between = halves.var(0).mean(0), halves.mean(0).var(0)
    return (((n - 1) / n * within + between) / within).sqrt()
