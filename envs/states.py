"""The state of a batch of environments, tensors, and what is done with them."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor
from typing_extensions import TypeVar

State: TypeAlias = Tensor | tuple[Tensor, ...]
"""``[N, S]``, or a NamedTuple of tensors that all begin with ``N``."""

# The default lets a class derive from the bare ``DifferentiableEnv``; the parameter lets a type
# checker see which state an environment has.
S = TypeVar("S", bound=State, default=Any)


def map_state(function: Callable[..., Tensor], state: S, *others: S) -> S:
    """Applies a function to each tensor of a state, or to the like tensors of several states.

    The result has the type of the first state, so a NamedTuple stays that NamedTuple.

    Raises:
        ValueError: the states have different numbers of tensors.
    """
    if isinstance(state, Tensor):
        return cast(S, function(state, *others))
    leaves = (function(*like) for like in zip(state, *others, strict=True))
    return rebuild_state(state, tuple(leaves))


def rebuild_state(template: S, leaves: tuple[Tensor, ...] | Tensor) -> S:
    """The tensors in the template's type: a NamedTuple of its kind, a plain tuple, or a tensor.

    Raises:
        ValueError: they do not fit the template.
    """
    if isinstance(template, Tensor) != isinstance(leaves, Tensor):
        raise ValueError(f"a state of type {type(template).__name__} was expected")
    if isinstance(template, Tensor):
        return cast(S, leaves)
    if len(leaves) != len(template):
        raise ValueError(f"a state of {len(template)} tensors was expected, not of {len(leaves)}")
    kind = cast(Any, type(template))
    return cast(S, kind(*leaves) if hasattr(kind, "_fields") else kind(leaves))


def leaves_of(state: State) -> list[Tensor]:
    """The tensors of a state."""
    return [state] if isinstance(state, Tensor) else list(state)


def where_state(mask: Tensor, chosen: S, otherwise: S) -> S:
    """Takes the rows where ``mask`` ``[N]`` is true from ``chosen``, the rest from ``otherwise``.

    Each row's gradient goes to the state it came from, and to no other.
    """

    def select(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(mask.view(-1, *[1] * (a.dim() - 1)), a, b)

    return map_state(select, chosen, otherwise)


def cast_state(state: S, device: torch.device, dtype: torch.dtype) -> S:
    """The state on the device, its floating-point tensors in the dtype."""

    def move(leaf: Tensor) -> Tensor:
        return leaf.to(device, dtype if leaf.is_floating_point() else leaf.dtype)

    return map_state(move, state)


def like_state(state: S, other: S) -> S:
    """The state on the other's device, its floating-point tensors in the other's dtypes."""
    return map_state(lambda leaf, like: leaf.to(like.device, like.dtype), state, other)


class VectorState(NamedTuple):
    """All that the future of a vector environment depends on."""

    state: State
    elapsed: Tensor
    """``[N]`` steps since each environment's last reset."""
    generator_state: Tensor
    """Of its ``torch.Generator``."""
