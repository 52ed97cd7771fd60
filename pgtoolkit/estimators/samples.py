"""Samples for an expectation, of this package's distributions or torch's; no global state."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import final

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution as TorchDistribution

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.discrete import Bernoulli, Categorical
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.torch_transforms import draw_points, log_prob_at
from pgtoolkit.distributions.transformed import Uniform
from pgtoolkit.errors import RequestError

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
        number = self.num_samples if isinstance(self.num_samples, int) else 0
        if number < 1 or not isinstance(self.generator, torch.Generator):
            raise RequestError(
                "give num_samples (at least 1) and generator (a torch.Generator), or noise: no "
                "global random state is used"
            )

    def noise(self) -> Tensor:
        """``[num_samples, *batch, ...]``, of the distribution as this package writes it."""
        if self.given_noise is not None:
            return self._checked(self.given_noise)
        assert self.generator is not None and self.num_samples is not None
        return as_ours(self.distribution).draw_noise(self.generator, (self.num_samples,))

    def _checked(self, noise: Tensor) -> Tensor:
        """The noise that was given, if each sample has as much of it as it takes.

        The batch may broadcast: a copy of the parameters for each sample is one.
        """
        none = as_ours(self.distribution).draw_noise(torch.Generator(noise.device), (0,))
        if noise.dim() == 0 or (none.dim() > 1 and noise.shape[-1] != none.shape[-1]):
            raise ValueError(
                f"noise {list(noise.shape)} does not fit: a {type(self.distribution).__name__} "
                f"takes [num_samples, {', '.join(map(str, none.shape[1:]))}]"
            )
        return noise

    def with_log_prob(self) -> tuple[Tensor, Tensor]:
        """Samples without a graph, and their log density, whose graph leads to the parameters.

        Raises:
            RequestError: the support moves with a parameter, so there is no such density.
        """
        distribution = self.distribution
        require_fixed_support(distribution)
        if isinstance(distribution, TorchDistribution):
            points = self._from_torch(lambda shape: draw_points(distribution, shape, path=False))
            return points[-1], log_prob_at(distribution, points)
        return distribution.sample_with_log_prob(self.noise())

    def with_path(self) -> Tensor:
        """Samples that carry the graph to the distribution's parameters.

        Raises:
            RequestError: there is no path, or only a biased one.
        """
        distribution = self.distribution
        if not isinstance(distribution, TorchDistribution):
            return distribution.rsample(self.noise())
        return self._torch_points(distribution)[-1]

    def _torch_points(self, distribution: TorchDistribution) -> list[Tensor]:
        name = type(distribution).__name__
        inner = distribution
        while isinstance(inner, td.Independent):
            inner = inner.base_dist
        if isinstance(inner, td.OneHotCategoricalStraightThrough):
            raise RequestError(f"the path of torch's {name} is biased by design: {NO_PATH}")
        if not distribution.has_rsample:
            points = self._from_torch(lambda shape: draw_points(distribution, shape, path=False))
            if not distribution.log_prob(points[-1]).requires_grad:
                return points  # It depends on nothing that is differentiated.
            advice = "use pgtoolkit.GaussianMixture, or " if "Mixture" in name else ""
            raise RequestError(
                f"torch's {name} has no path from its parameters to its samples: {advice}{NO_PATH}"
            )
        return self._from_torch(lambda shape: draw_points(distribution, shape, path=True))

    def with_path_and_log_prob(self) -> tuple[Tensor, Tensor]:
        """Samples with their path, and the log density of the same samples, detached.

        Raises:
            RequestError: as :meth:`with_path`.
        """
        distribution = self.distribution
        if isinstance(distribution, TorchDistribution):
            points = self._torch_points(distribution)
            return points[-1], log_prob_at(distribution, points)
        noise = self.noise()
        # From the noise: inverting a squashing loses digits near its bounds.
        return distribution.rsample(noise), distribution.sample_with_log_prob(noise)[1]

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

    def _from_torch(self, sample: Callable[[torch.Size], list[Tensor]]) -> list[Tensor]:
        # torch.distributions know the global generator only: it is seeded from ours, and restored.
        assert self.generator is not None and self.num_samples is not None
        device = self.generator.device
        seed = torch.randint(2**62, (1,), generator=self.generator, device=device)
        # Not torch.manual_seed: it would seed every device, also those that are not restored.
        initialised = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        cuda = range(torch.cuda.device_count()) if initialised else ()
        with torch.random.fork_rng(list(cuda)):
            torch.default_generator.manual_seed(int(seed))
            if cuda:
                torch.cuda.manual_seed_all(int(seed))
            return sample(torch.Size((self.num_samples,)))


def require_fixed_support(distribution: Distribution | TorchDistribution) -> None:
    """Raises where the support of the distribution depends on what is differentiated.

    Raises:
        RequestError: the derivative cannot pass under an integral whose bounds move.
    """
    bounds: Iterable[object] = ()
    if isinstance(distribution, Uniform):
        bounds = (distribution.low, distribution.high)
    elif isinstance(distribution, td.Uniform | td.Pareto):
        bounds = vars(distribution.support).values()
    if any(isinstance(bound, Tensor) and bound.requires_grad for bound in bounds):
        raise RequestError(
            f"the support of this {type(distribution).__name__} moves with its parameters, and the "
            "score function does not see that: use method='pathwise'"
        )


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
