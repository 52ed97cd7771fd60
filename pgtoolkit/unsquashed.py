"""Continuous distributions whose action is the pre-action."""

import torch
from torch import Tensor

from pgtoolkit.distribution import Distribution
from pgtoolkit.errors import RequestError


class Unsquashed(Distribution):
    """A distribution over ``R^A``, without bounds.

    Every one of them can be bounded by :class:`pgtoolkit.squashed.Squashed`, and can be the base of
    a :class:`pgtoolkit.transformed.Transformed`.
    """

    def squash(self, pre_action: Tensor) -> Tensor:
        return pre_action

    def log_prob(self, action: Tensor) -> Tensor:
        return self.log_prob_of_pre_action(action)

    def rsample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.pre_action(self.resolve_noise(noise, generator))


def require_unsquashed(base: Distribution) -> None:
    """Raises unless the distribution has no bounds of its own.

    Raises:
        RequestError: it has, and they would be ignored.
    """
    if not isinstance(base, Unsquashed):
        raise RequestError(
            f"a {type(base).__name__} cannot be the base of another distribution: it has bounds of "
            "its own, which would be ignored. Squash last"
        )
