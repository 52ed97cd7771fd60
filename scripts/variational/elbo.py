"""Stochastic gradient ascent of the evidence lower bound (ELBO), with measured gradients."""

from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor

from pgtoolkit import expectation
from pgtoolkit.agent import Metrics
from pgtoolkit.diagnostics.monitor import GradientMonitor, Pair
from pgtoolkit.diagnostics.per_trajectory import Gradients
from pgtoolkit.distributions.gaussian import DiagonalGaussian, FullGaussian
from pgtoolkit.estimators.expectation import Method
from pgtoolkit.finite import require_finite
from pgtoolkit.learners.step_rules.adam import scheduled, set_learning_rate
from pgtoolkit.seeding import stream

Parameters = Mapping[str, Tensor]

Family = Callable[[Parameters], DiagonalGaussian | FullGaussian]
"""Maps parameters to the distribution ``q``."""

LOG_STD_INIT = -0.5
"""Initial log standard deviation of ``q``. Much smaller values do not work: the score function's
noise grows as 1 / std. From -2 it failed to converge in each of five runs with a full covariance.
"""

MEASURED_PAIR: tuple[Method, Method] = ("score_function", "pathwise")
"""Estimators that are measured on the same samples, to compare them."""


def diagonal(parameters: Parameters) -> DiagonalGaussian:
    """The mean-field ``N(mean, diag(exp(log_std))^2)``."""
    return DiagonalGaussian(parameters["mean"], parameters["log_std"])


def full(parameters: Parameters) -> FullGaussian:
    """``N(mean, L L')``; the diagonal of ``L`` is ``exp(log_std)``, the rest below it ``lower``."""
    scale_tril = parameters["lower"].tril(-1) + torch.diag_embed(parameters["log_std"].exp())
    return FullGaussian(parameters["mean"], scale_tril)


FAMILIES: dict[str, Family] = {"diagonal": diagonal, "full": full}


def initial_parameters(family: Family, size: int) -> dict[str, Tensor]:
    """Parameters ``mean`` and ``log_std`` ``[D]``, for the full family also ``lower`` ``[D, D]``.

    The mean is 0 and there are no correlations; in float64.

    Args:
        family: one of ``FAMILIES``.
        size: ``D``.
    """
    zeros = torch.zeros(size, dtype=torch.float64)
    start = {"mean": zeros, "log_std": zeros + LOG_STD_INIT}
    return start | ({"lower": torch.diag_embed(zeros)} if family is full else {})


@final
class ElboOptimizer:
    """Maximises ``ELBO = E_q[log p(y, z)] + H(q)`` over the parameters of ``q`` with Adam.

    The first term is an expectation under the distribution that is differentiated, like an expected
    return; the entropy is exact. Every sample of ``q`` has its own copy of the parameters, so that
    one backward pass gives each sample's gradient; their mean is the update. The score function's
    baseline is the mean of ``log p(y, z)`` over the samples of the previous step. Unlike a mean
    over the present samples it keeps their gradients independent, so that their variance is N times
    that of the update.

    Args:
        log_joint: ``log p(y, z)``, maps ``[..., D]`` to ``[...]``.
        family: one of ``FAMILIES``.
        size: ``D``, the number of weights.
        estimator: the method of :func:`pgtoolkit.expectation` that gives the update.
        num_samples: ``N``, samples of ``q`` in each step.
        learning_rate: Adam's at the first step; falls linearly to a hundredth.
        steps: planned number of steps, for the learning rate.
        measurement_interval: steps between measurements of the gradients; 0 never measures.
        seed: seed of all random numbers.
    """

    def __init__(
        self,
        log_joint: Callable[[Tensor], Tensor],
        family: Family,
        size: int,
        *,
        estimator: Method,
        num_samples: int,
        learning_rate: float,
        steps: int,
        measurement_interval: int,
        seed: int,
    ) -> None:
        self.log_joint, self.family, self.estimator = log_joint, family, estimator
        self.num_samples, self.steps, self.learning_rate = num_samples, steps, learning_rate
        self.parameters = initial_parameters(family, size)
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=learning_rate)
        self.monitor = GradientMonitor(measurement_interval)
        self._generator = stream(seed, "noise")
        self._measure_valued_generator = stream(seed, "measure-valued noise")
        first = self.distribution.sample(self._draw_noise(stream(seed, "first baseline")))
        self.baseline = log_joint(first).mean()

    @property
    def distribution(self) -> DiagonalGaussian | FullGaussian:
        """The distribution ``q`` at the present parameters, without a graph."""
        return self.family(self.parameters)

    def step(self) -> Metrics:
        """Makes one step of Adam.

        Returns:
            The ELBO, and the gradients' statistics if this step measures them.

        Raises:
            NonFiniteError: a value or a gradient is not finite; nothing has been changed.
        """
        progress = self.monitor.num_updates / self.steps
        set_learning_rate(self.optimizer, scheduled(self.learning_rate, "linear", progress))
        noise = self._draw_noise(self._generator)
        with self.monitor.updating():
            elbo, update_gradients = self.estimate(self.estimator, noise)
            metrics = {"variational/elbo": elbo.mean()}
            if self.monitor.due:
                metrics |= self._measure(update_gradients, noise)
            for name, parameter in self.parameters.items():
                parameter.grad = -update_gradients[name].mean(0)
            self.baseline = elbo.mean() - self.distribution.entropy()
            self.optimizer.step()
        return metrics

    def estimate(self, method: Method, noise: Tensor) -> tuple[Tensor, Gradients]:
        """Estimates the ELBO and its gradient from each sample.

        Args:
            method: a method of :func:`pgtoolkit.expectation`.
            noise: ``[N, D]``, standard normal.

        Returns:
            The ELBO ``[N]``, and its gradients ``{parameter: [N, *shape]}``.

        Raises:
            NonFiniteError: the ELBO or a gradient is not finite.
        """
        copies = {
            name: parameter.expand(self.num_samples, *parameter.shape).requires_grad_()
            for name, parameter in self.parameters.items()
        }
        q = self.family(copies)
        surrogate = expectation(
            self.log_joint,
            q,
            method,
            noise=noise.unsqueeze(0),
            generator=self._measure_valued_generator,
            baseline=self.baseline,
        )
        elbo = surrogate.squeeze(0) + q.entropy()
        require_finite("ELBO", elbo.detach())
        found = torch.autograd.grad(elbo.sum(), list(copies.values()))
        gradients = dict(zip(copies, found, strict=True))
        for name, gradient in gradients.items():
            require_finite(f"gradient of {name}", gradient.flatten(1).sum(1))
        return elbo.detach(), gradients

    def _measure(self, update_gradients: Gradients, noise: Tensor) -> Metrics:
        """Statistics of the update's gradients and of ``MEASURED_PAIR``, all on the same noise."""
        gradients: dict[str, Gradients] = {self.estimator: update_gradients}
        with self.monitor.diagnosing():
            for method in MEASURED_PAIR:
                if method not in gradients:
                    gradients[method] = self.estimate(method, noise)[1]
        pair = Pair(gradients[MEASURED_PAIR[0]], gradients[MEASURED_PAIR[1]])
        return self.monitor.report(gradients, [pair])

    def _draw_noise(self, generator: torch.Generator) -> Tensor:
        """Standard normal noise ``[N, D]``."""
        return self.distribution.draw_noise(generator, (self.num_samples,))


def standard_deviations(q: DiagonalGaussian | FullGaussian) -> Tensor:
    """Standard deviations ``[D]`` of the marginal distributions."""
    if isinstance(q, DiagonalGaussian):
        return q.log_std.exp()
    return q.scale_tril.tril().square().sum(-1).sqrt()
