"""The head of a policy: its last layers, from features to a distribution over actions.

Each head class makes one family of distributions. A :class:`pgtoolkit.policies.policy.Policy` works
with any head, so a new family of distributions needs only a new head.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn

from pgtoolkit.distributions.base import Distribution, Unsquashed
from pgtoolkit.distributions.noise import Noise
from pgtoolkit.distributions.squashed import Squashed

OUTPUT_GAIN = 0.01
"""Gain of a head's initial weights: so small that the initial distribution hardly depends on the
observation."""


class Head(nn.Module, ABC):
    """Maps features ``[..., F]`` to a distribution with batch shape ``[...]``.

    Its layers must be called with inputs ``[..., N, features]``, so that the gradient of each of
    the ``N`` trajectories can be recorded.
    """

    state_constants = ("low", "high", "centre", "scale")
    """Buffers that must be the same in a saved state: they come from the action space."""
    noise: tuple[Noise, ...]
    """Kind and size of each part of one action's standard noise, in the order of concatenation."""
    action_size: int
    """Number of entries of one pre-squash action; 1 for a categorical variable."""
    mask_size: int = 0
    """Number of entries of an action mask that stand behind the features."""

    @abstractmethod
    def forward(self, features: Tensor) -> Distribution:
        """The distribution at these features."""

    if TYPE_CHECKING:  # the result's type; a real method would be one more call on every step

        def __call__(self, features: Tensor) -> Distribution: ...


class UnsquashedHead(Head):
    """A head that makes a distribution without bounds."""

    @abstractmethod
    def forward(self, features: Tensor) -> Unsquashed:
        """The distribution at these features."""


MakeHead = Callable[[int, torch.Generator], Head]
"""Makes a head from the number of features and a generator for the initial weights."""


@final
class SquashedHead(Head):
    """Tanh-squashes the distribution of another head to bounds.

    Args:
        head: a head whose distribution has no bounds.
        low: ``[A]`` lower action bounds.
        high: ``[A]`` upper action bounds.
    """

    low: Tensor
    high: Tensor

    def __init__(self, head: UnsquashedHead, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.head, self.noise, self.action_size = head, head.noise, head.action_size
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, features: Tensor) -> Squashed:
        return Squashed(self.head.forward(features), self.low, self.high)
