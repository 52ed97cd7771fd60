"""Adam with a clip of the gradient's norm, on all parameters as one vector."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol, final

import torch
from torch import Tensor


@final
class AdamState(NamedTuple):
    """Parameters and moments ``[P]``; the number of steps so far, a scalar."""

    parameters: Tensor
    mean: Tensor
    square: Tensor
    steps: Tensor


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Copies all tensors, in their order, into one vector ``[P]``."""
    return torch.cat([x.detach().reshape(-1) for x in tensors])


def unflatten(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of the vector with the shapes of ``like``."""
    parts = flat.split_with_sizes([x.numel() for x in like])
    # A view of a vector as itself would be one more operation, and one more in the derivative.
    pairs = zip(parts, like, strict=True)
    return [part if x.ndim == 1 else part.view(x.shape) for part, x in pairs]


def adam_state(parameters: Sequence[Tensor]) -> AdamState:
    """The state before the first step, with moments of zero."""
    flat = flatten(parameters)
    count = torch.zeros((), dtype=flat.dtype, device=flat.device)
    return AdamState(flat, torch.zeros_like(flat), torch.zeros_like(flat), count)


def clip(gradient: Tensor, max_norm: float) -> tuple[Tensor, Tensor]:
    """The gradient ``[P]`` with a norm of at most ``max_norm``, and its norm before."""
    norm = gradient.square().sum().sqrt()
    if max_norm == math.inf:
        return gradient, norm
    return gradient * (max_norm / (norm + 1e-6)).clamp(max=1.0), norm


def adam_step(
    state: AdamState,
    gradient: Tensor,
    learning_rate: Tensor,
    betas: tuple[float, float],
    epsilon: float,
) -> AdamState:
    """One step down the gradient ``[P]`` (Kingma and Ba 2015, algorithm 1); nothing in place.

    ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g^2``, ``x <- x - lr m' / (sqrt(v') + e)``
    with ``m' = m / (1 - b1^t)`` and ``v' = v / (1 - b2^t)``.
    """
    first, second = betas
    count = state.steps + 1
    mean = torch.lerp(state.mean, gradient, 1 - first)
    square = second * state.square + (1 - second) * gradient.square()
    corrected = (square / (1 - second**count)).sqrt() + epsilon
    step = learning_rate / (1 - first**count)
    return AdamState(state.parameters - step * mean / corrected, mean, square, count)


class FlatRule(Protocol):
    """A step down a gradient as a pure function of the parameters in one vector."""

    def step(
        self, state: AdamState, gradient: Tensor, learning_rate: Tensor
    ) -> tuple[AdamState, Tensor]:
        """The state after one step, and the gradient's norm before the clip."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class FlatAdam:
    """Adam after a clip of the norm, as a pure function of the parameters in one vector.

    Attributes:
        betas: decay rates of the two moments.
        epsilon: added to the root of the second moment.
        max_grad_norm: norm to which the gradient is clipped.
        pace: factor of the learning rate.
    """

    betas: tuple[float, float]
    epsilon: float
    max_grad_norm: float
    pace: float = 1.0

    def step(
        self, state: AdamState, gradient: Tensor, learning_rate: Tensor
    ) -> tuple[AdamState, Tensor]:
        """The state after one step, and the gradient's norm before the clip."""
        gradient, norm = clip(gradient, self.max_grad_norm)
        rate = learning_rate * self.pace
        return adam_step(state, gradient, rate, self.betas, self.epsilon), norm


@final
@dataclasses.dataclass(frozen=True)
class Blocks:
    """Rules on consecutive blocks of the vector: each clips the gradient of its own block.

    Attributes:
        rules: of the blocks, in their order.
        sizes: number of parameters of each block.
    """

    rules: tuple[FlatRule, ...]
    sizes: tuple[int, ...]

    def step(
        self, state: AdamState, gradient: Tensor, learning_rate: Tensor
    ) -> tuple[AdamState, Tensor]:
        """The state after one step of every block, and the norm of the first block's gradient."""
        vectors = (*state[:-1], gradient)
        parts = zip(*(x.split_with_sizes(self.sizes) for x in vectors), strict=True)
        found = [
            rule.step(AdamState._make((*own, state.steps)), part, learning_rate)
            for rule, (*own, part) in zip(self.rules, parts, strict=True)
        ]
        columns = zip(*(after[:-1] for after, _ in found), strict=True)
        joined = AdamState._make((*(torch.cat(blocks) for blocks in columns), found[0][0].steps))
        return joined, found[0][1]
