"""Stochastic ascent of the evidence lower bound, by any estimator, with all of them measured."""

from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor

from pgtoolkit import expectation
from pgtoolkit.agent import Metrics
from pgtoolkit.diagnostics.monitor import GradientMonitor, Gradients
from pgtoolkit.distributions.gaussian import DiagonalGaussian, FullGaussian
from pgtoolkit.estimators.expectation import Method
from pgtoolkit.finite import require_finite
from pgtoolkit.learners.step_rules.adam import scheduled, set_learning_rate
from pgtoolkit.seeding import stream

Parameters = Mapping[str, Tensor]

Family = Callable[[Parameters], DiagonalGaussian | FullGaussian]

LOG_STD_INIT = -0.5
"""Not much smaller: the score is divided by the spread, and its noise grows as 1 / spread. From -2
the score function failed to converge in each of five runs with a full covariance."""

MATCHED: tuple[Method, Method] = ("score_function", "pathwise")


def diagonal(parameters: Parameters) -> DiagonalGaussian:
    """``N(mean, diag(exp(log_std))^2)``: mean-field."""
    return DiagonalGaussian(parameters["mean"], parameters["log_std"])


def full(parameters: Parameters) -> FullGaussian:
    """``N(mean, L L')``; ``L`` has the diagonal ``exp(log_std)`` and ``lower`` below it."""
    scale_tril = parameters["lower"].tril(-1) + torch.diag_embed(parameters["log_std"].exp())
    return FullGaussian(parameters["mean"], scale_tril)


FAMILIES: dict[str, Family] = {"diagonal": diagonal, "full": full}


def initial_parameters(family: Family, size: int) -> dict[str, Tensor]:
    """Mean 0, no correlations, in float64."""
    zeros = torch.zeros(size, dtype=torch.float64)
    start = {"mean": zeros, "log_std": zeros + LOG_STD_INIT}
    return start | ({"lower": torch.diag_embed(zeros)} if family is full else {})


@final
class ElboAscent:
    """Climbs ``ELBO = E_q[log p(y, z)] + H(q)`` in the parameters of ``q``.

    The first term is an expectation under what is differentiated, like an expected return; the
    entropy is exact. Every sample of ``q`` gets its own copy of the parameters, so that one
    backward gives each sample's gradient; their mean is the update, whichever way it is estimated.
    The score function's baseline is the mean of ``log p(y, z)`` over the samples of the step
    before. Unlike a mean of the same samples it leaves them independent, and so their spread is the
    update's variance.

    Args:
        log_joint: ``log p(y, z)``, maps ``[..., D]`` to ``[...]``.
        family: of ``q``.
        size: ``D``.
        estimator: that climbs.
        num_samples: of ``q``, in every step.
        learning_rate: of Adam; falls linearly to a hundredth.
        steps: planned.
        measurement_interval: steps between measurements; 0 never measures.
        seed: of the run.
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
        self._noise, self._other = stream(seed, "noise"), stream(seed, "measure-valued noise")
        first = self.distribution.sample(self._draw(stream(seed, "first baseline")))
        self.baseline = log_joint(first).mean()

    @property
    def distribution(self) -> DiagonalGaussian | FullGaussian:
        """``q``, without a graph."""
        return self.family(self.parameters)

    def step(self) -> Metrics:
        """One step; returns its metrics.

        Raises:
            NonFiniteError: a value or a gradient is not finite; nothing has been changed.
        """
        progress = self.monitor.num_updates / self.steps
        set_learning_rate(self.optimizer, scheduled(self.learning_rate, "linear", progress))
        noise = self._draw(self._noise)
        with self.monitor.updating():
            elbo, climbed = self.estimate(self.estimator, noise)
            metrics = {"variational/elbo": elbo.mean()}
            if self.monitor.due:
                metrics |= self._measure(climbed, noise)
            for name, parameter in self.parameters.items():
                parameter.grad = -climbed[name].mean(0)
            self.baseline = elbo.mean() - self.distribution.entropy()
            self.optimizer.step()
        return metrics

    def estimate(self, method: Method, noise: Tensor) -> tuple[Tensor, Gradients]:
        """The ELBO ``[N]`` and its gradient ``{parameter: [N, *shape]}`` by each sample.

        Args:
            method: of :func:`pgtoolkit.expectation`.
            noise: ``[N, D]``, standard normal.

        Raises:
            NonFiniteError: either is not finite.
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
            generator=self._other,
            baseline=self.baseline,
        )
        elbo = surrogate.squeeze(0) + q.entropy()
        require_finite("ELBO", elbo.detach())
        found = torch.autograd.grad(elbo.sum(), list(copies.values()))
        gradients = dict(zip(copies, found, strict=True))
        for name, gradient in gradients.items():
            require_finite(f"gradient of {name}", gradient.flatten(1).sum(1))
        return elbo.detach(), gradients

    def _measure(self, climbed: Gradients, noise: Tensor) -> Metrics:
        """The climbed gradients themselves, and beside them the pair's others on the same noise."""
        gradients: dict[str, Gradients] = {self.estimator: climbed}
        with self.monitor.diagnosing():
            for method in MATCHED:
                if method not in gradients:
                    gradients[method] = self.estimate(method, noise)[1]
        pair = gradients[MATCHED[0]], gradients[MATCHED[1]]
        return self.monitor.report(gradients, matched=pair)

    def _draw(self, generator: torch.Generator) -> Tensor:
        return self.distribution.draw_noise(generator, (self.num_samples,))


def standard_deviations(q: DiagonalGaussian | FullGaussian) -> Tensor:
    """``[D]`` of the marginals."""
    if isinstance(q, DiagonalGaussian):
        return q.log_std.exp()
    return q.scale_tril.tril().square().sum(-1).sqrt()
