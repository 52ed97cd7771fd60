"""Samples for an expectation, from this package's distributions or torch's."""

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

NO_PATH_ADVICE = (
    "use method='score_function'; for a discrete distribution also 'rebar', which is unbiased, or "
    "'straight_through' and 'gumbel_softmax', which are biased"
)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """A distribution with a source of randomness; each method draws samples in another form.

    The global random state is neither used nor changed.

    Args:
        distribution: one of this package's, or of ``torch.distributions``.
        num_samples: number of samples to draw with ``generator``.
        generator: draws them.
        given_noise: ``[num_samples, *batch, ...]`` standard noise in place of the two, for this
            package's distributions.

    Raises:
        RequestError: neither noise, nor a generator and a number of samples; or noise for a
            distribution of torch.
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
        """Standard noise ``[num_samples, *batch, ...]`` for the distribution by :func:`as_ours`."""
        if self.given_noise is not None:
            return self._with_checked_shape(self.given_noise)
        assert self.generator is not None and self.num_samples is not None
        return as_ours(self.distribution).draw_noise(self.generator, (self.num_samples,))

    def _with_checked_shape(self, noise: Tensor) -> Tensor:
        """The noise, if its last axis has as many entries as a sample needs.

        The batch is not checked, because it may broadcast: the distribution may have parameters of
        its own for each sample.

        Raises:
            ValueError: it has another number of entries.
        """
        empty = as_ours(self.distribution).draw_noise(torch.Generator(noise.device), (0,))
        if noise.dim() == 0 or (empty.dim() > 1 and noise.shape[-1] != empty.shape[-1]):
            raise ValueError(
                f"noise {list(noise.shape)} does not fit: a {type(self.distribution).__name__} "
                f"takes [num_samples, {', '.join(map(str, empty.shape[1:]))}]"
            )
        return noise

    def with_log_prob(self) -> tuple[Tensor, Tensor]:
        """Samples without a graph, and their log density with the graph to the parameters.

        Raises:
            RequestError: the support depends on a parameter that is differentiated.
        """
        distribution = self.distribution
        require_fixed_support(distribution)
        if isinstance(distribution, TorchDistribution):
            points = self._from_torch(lambda shape: draw_points(distribution, shape, path=False))
            return points[-1], log_prob_at(distribution, points)
        return distribution.sample_with_log_prob(self.noise())

    def with_path(self) -> Tensor:
        """Samples with the graph to the distribution's parameters.

        Raises:
            RequestError: the samples have no path to the parameters, or only a biased one.
        """
        distribution = self.distribution
        if not isinstance(distribution, TorchDistribution):
            return distribution.rsample(self.noise())
        return self._torch_points(distribution)[-1]

    def _torch_points(self, distribution: TorchDistribution) -> list[Tensor]:
        """A sample of the base with its path, and its image after each of the transforms.

        Raises:
            RequestError: the samples have no path to the parameters, or only a biased one.
        """
        name = type(distribution).__name__
        inner = distribution
        while isinstance(inner, td.Independent):
            inner = inner.base_dist
        if isinstance(inner, td.OneHotCategoricalStraightThrough):
            raise RequestError(f"the path of torch's {name} is biased by design: {NO_PATH_ADVICE}")
        if not distribution.has_rsample:
            points = self._from_torch(lambda shape: draw_points(distribution, shape, path=False))
            if not distribution.log_prob(points[-1]).requires_grad:
                return points  # The distribution has no parameters to differentiate by.
            advice = "use pgtoolkit.GaussianMixture, or " if "Mixture" in name else ""
            raise RequestError(
                f"torch's {name} has no path from its parameters to its samples: "
                f"{advice}{NO_PATH_ADVICE}"
            )
        return self._from_torch(lambda shape: draw_points(distribution, shape, path=True))

    def with_path_and_log_prob(self) -> tuple[Tensor, Tensor]:
        """Samples with their path, and the log density of the same samples held fixed.

        Raises:
            RequestError: the samples have no path to the parameters, or only a biased one.
        """
        distribution = self.distribution
        if isinstance(distribution, TorchDistribution):
            points = self._torch_points(distribution)
            return points[-1], log_prob_at(distribution, points)
        noise = self.noise()
        # Computed from the noise, because inverting a squashing loses digits near its bounds.
        return distribution.rsample(noise), distribution.sample_with_log_prob(noise)[1]

    def gaussian(self) -> DiagonalGaussian:
        """The distribution as a diagonal Gaussian.

        Raises:
            RequestError: it is another distribution.
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
        """The distribution as a categorical or Bernoulli distribution.

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
        """Calls ``sample`` with the sample shape, under a global generator seeded from ours.

        torch.distributions use the global generator only. Its state is restored afterwards.
        """
        assert self.generator is not None and self.num_samples is not None
        device = self.generator.device
        seed = torch.randint(2**62, (1,), generator=self.generator, device=device)
        # torch.manual_seed would also seed devices whose state is not restored.
        initialised = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        cuda = range(torch.cuda.device_count()) if initialised else ()
        with torch.random.fork_rng(list(cuda)):
            torch.default_generator.manual_seed(int(seed))
            if cuda:
                torch.cuda.manual_seed_all(int(seed))
            return sample(torch.Size((self.num_samples,)))


def require_fixed_support(distribution: Distribution | TorchDistribution) -> None:
    """Raises if the support depends on a parameter that is differentiated.

    Then the derivative of the expectation is not the integral of the derivative of the density.

    Raises:
        RequestError: the support depends on such a parameter.
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
    """This package's counterpart of a torch distribution; its own distributions unchanged.

    Raises:
        RequestError: there is no counterpart.
    """
    if isinstance(distribution, td.Independent):
        return as_ours(distribution.base_dist)
    if isinstance(distribution, td.Normal):
        # torch's Normal has no event axis; here its last axis becomes the event.
        return DiagonalGaussian(distribution.loc, distribution.scale.log())
    if isinstance(distribution, td.Categorical | td.OneHotCategorical):
        return Categorical(distribution.logits)
    if isinstance(distribution, td.Bernoulli):
        return Bernoulli(distribution.logits)
    if isinstance(distribution, TorchDistribution):
        name = type(distribution).__name__
        raise RequestError(f"this method does not know torch's {name}: use 'score_function'")
    return distribution
