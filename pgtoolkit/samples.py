"""Samples for an expectation, of this package's distributions or torch's; no global state."""

import dataclasses
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution as TorchDistribution

from pgtoolkit.discrete import Bernoulli
from pgtoolkit.distribution import Distribution
from pgtoolkit.distributions import Categorical, DiagonalGaussian
from pgtoolkit.errors import RequestError

Function = Callable[[Tensor], Tensor]

NO_PATH = (
    "use method='score_function'; for a discrete distribution also 'rebar', which is unbiased, or "
    "'straight_through' and 'gumbel_softmax', which are biased"
)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """What to sample, and from which randomness; every method draws what it needs.

    Raises:
        RequestError: neither noise, nor a generator and a number of samples.
    """

    distribution: Distribution | TorchDistribution
    num_samples: int | None
    generator: torch.Generator | None
    given_noise: Tensor | None

    def __post_init__(self) -> None:
        if self.given_noise is not None:
            if isinstance(self.distribution, TorchDistribution):
                raise RequestError(
                    "torch's distributions do not say how their samples depend on noise: give "
                    "num_samples and generator, or use a distribution of pgtoolkit"
                )
            return
        if self.generator is None or self.num_samples is None or self.num_samples < 1:
            raise RequestError(
                "give num_samples (at least 1) and generator (a torch.Generator), or noise: no "
                "global random state is used"
            )

    def noise(self) -> Tensor:
        """``[num_samples, *batch, ...]``, of the distribution as this package writes it."""
        if self.given_noise is not None:
            return self.given_noise
        assert self.generator is not None and self.num_samples is not None
        return as_ours(self.distribution).draw_noise(self.generator, (self.num_samples,))

    def with_log_prob(self) -> tuple[Tensor, Tensor]:
        """Samples without a graph, and their log density, whose graph leads to the parameters."""
        distribution = self.distribution
        if isinstance(distribution, TorchDistribution):
            x = self._from_torch(distribution.sample)
            return x, distribution.log_prob(x)
        return distribution.sample_with_log_prob(self.noise())

    def with_path(self) -> Tensor:
        """Samples that carry the graph to the distribution's parameters.

        Raises:
            RequestError: there is no path, or only a biased one.
        """
        distribution = self.distribution
        if not isinstance(distribution, TorchDistribution):
            return distribution.rsample(self.noise())
        name = type(distribution).__name__
        if isinstance(distribution, td.OneHotCategoricalStraightThrough):
            raise RequestError(f"the path of torch's {name} is biased by design: {NO_PATH}")
        if not distribution.has_rsample:
            advice = "use pgtoolkit.GaussianMixture, or " if "Mixture" in name else ""
            raise RequestError(
                f"torch's {name} has no path from its parameters to its samples: {advice}{NO_PATH}"
            )
        return self._from_torch(distribution.rsample)

    def with_path_and_log_prob(self) -> tuple[Tensor, Tensor]:
        """Samples with their path, and the log density of the same samples, detached.

        Raises:
            RequestError: as :meth:`with_path`.
        """
        distribution = self.distribution
        if isinstance(distribution, TorchDistribution):
            x = self.with_path()
            return x, distribution.log_prob(x.detach())
        noise = self.noise()
        # From the pre-action: inverting a squashing loses digits near its bounds.
        pre_action = distribution.pre_action(noise).detach()
        return distribution.rsample(noise), distribution.log_prob_of_pre_action(pre_action)

    def gaussian(self) -> DiagonalGaussian:
        """The distribution as a diagonal Gaussian.

        Raises:
            RequestError: it is none.
        """
        ours = as_ours(self.distribution)
        if not isinstance(ours, DiagonalGaussian):
            raise RequestError(
                "measure-valued derivatives are there for diagonal Gaussians, not for "
                f"{type(self.distribution).__name__}: use 'score_function', or put the transform "
                "that makes it of a Gaussian into f"
            )
        return ours

    def discrete(self) -> Categorical | Bernoulli:
        """The distribution as a categorical or Bernoulli.

        Raises:
            RequestError: it is neither.
        """
        ours = as_ours(self.distribution)
        if not isinstance(ours, Categorical | Bernoulli):
            raise RequestError(
                "relaxations are there for categorical and Bernoulli distributions, not for "
                f"{type(self.distribution).__name__}: use 'score_function', or 'pathwise' if it is "
                "continuous"
            )
        return ours

    def _from_torch(self, sample: Callable[[torch.Size], Tensor]) -> Tensor:
        # torch.distributions know the global generator only: it is seeded from ours, and restored.
        assert self.generator is not None and self.num_samples is not None
        device = self.generator.device
        seed = torch.randint(2**62, (1,), generator=self.generator, device=device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(int(seed))
            return sample(torch.Size((self.num_samples,)))


def as_ours(distribution: Distribution | TorchDistribution) -> Distribution:
    """A torch distribution as this package writes it; ours as they are.

    Raises:
        RequestError: there is no counterpart.
    """
    if isinstance(distribution, td.Independent):
        return as_ours(distribution.base_dist)
    if isinstance(distribution, td.Normal):
        # An axis for the event: torch's Normal has none.
        return DiagonalGaussian(distribution.loc, distribution.scale.log())
    if isinstance(distribution, td.Categorical | td.OneHotCategorical):
        return Categorical(distribution.logits)
    if isinstance(distribution, td.Bernoulli):
        return Bernoulli(distribution.logits)
    if isinstance(distribution, TorchDistribution):
        name = type(distribution).__name__
        raise RequestError(f"this method does not know torch's {name}: use 'score_function'")
    return distribution


def evaluate(f: Function, x: Tensor) -> Tensor:
    """``f(x)``, after a look at its shape.

    Raises:
        ValueError: it does not keep the samples' axis.
    """
    value = f(x)
    if value.dim() == 0 or value.shape[0] != x.shape[0]:
        raise ValueError(
            f"f maps samples {list(x.shape)} to {list(value.shape)}: it must return one value a "
            f"sample, [{x.shape[0]}, *batch]"
        )
    return value


def path_of(f: Function, x: Tensor) -> Tensor:
    """``f(x)`` with its graph.

    Raises:
        RequestError: the sample carries a graph and the value does not.
    """
    value = evaluate(f, x)
    if x.requires_grad and not value.requires_grad:
        raise RequestError(
            "no differentiable path joins the sample to f's value (a comparison, rounding, "
            "detach() or NumPy inside f?): use method='score_function', which needs none"
        )
    return value


def joint_log_prob(log_prob: Tensor, value: Tensor) -> Tensor:
    """Sums the axes of ``log_prob`` that ``value`` has not: they are independent.

    Raises:
        ValueError: the axes that both have differ in size.
    """
    extra = log_prob.dim() - value.dim()
    if extra < 0 or log_prob.shape[: value.dim()] != value.shape:
        raise ValueError(
            f"f returned {list(value.shape)}, but the samples' log density has the shape "
            f"{list(log_prob.shape)}: f must keep the axes of the samples and of the batch, in "
            "order, and reduce those of the event"
        )
    return log_prob.flatten(value.dim()).sum(-1) if extra else log_prob
