"""The state of a batch of environments, a tensor or a tuple of tensors, and operations on it."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor
from typing_extensions import TypeIs, TypeVar

State: TypeAlias = Tensor | tuple[Tensor, ...]
"""A tensor ``[N, S]``, or a NamedTuple of tensors whose first dimension is ``N``."""

# The default lets a class derive from the bare ``DifferentiableEnv``; the parameter lets a type
# checker see which state an environment has.
S = TypeVar("S", bound=State, default=Any)


class VectorState(NamedTuple):
    """A vector environment's whole state: with the actions it determines every later step."""

    state: State
    """The states of the ``N`` environments."""
    elapsed: Tensor
    """``[N]`` steps since each environment's last reset."""
    generator_state: Tensor
    """The state of the vector environment's ``torch.Generator``."""


def map_state(function: Callable[..., Tensor], state: S, *others: S) -> S:
    """Applies a function to each tensor of a state, or to the matching tensors of several states.

    The result has the type of the first state, so a NamedTuple stays that NamedTuple.

    Raises:
        ValueError: the states have different numbers of tensors.
    """
    if isinstance(state, Tensor):
        return cast(S, function(state, *others))
    leaves = (function(*like) for like in zip(state, *others, strict=True))
    return rebuild_state(state, tuple(leaves))


def rebuild_state(template: S, leaves: tuple[Tensor, ...] | Tensor) -> S:
    """Packs tensors into the type of the template: a tensor, a NamedTuple or a plain tuple.

    Raises:
        ValueError: the number of tensors differs from the template's.
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
    """The tensors of a state, in their order."""
    return [state] if isinstance(state, Tensor) else list(state)


def is_state(found: object) -> TypeIs[State]:
    """Whether it is a tensor, or a tuple of tensors, that have an axis of environments."""
    leaves = found if isinstance(found, tuple) and found else (found,)
    return all(isinstance(leaf, Tensor) and leaf.dim() >= 1 for leaf in leaves)


def where_state(mask: Tensor, chosen: S, otherwise: S) -> S:
    """The rows of ``chosen`` where ``mask`` ``[N]`` is true, and of ``otherwise`` elsewhere.

    Each row's gradient goes only to the state that the row was taken from.
    """

    def select(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(mask.view(-1, *[1] * (a.dim() - 1)), a, b)

    return map_state(select, chosen, otherwise)


def cast_state(state: S, device: torch.device, dtype: torch.dtype) -> S:
    """Moves the state to the device and its floating-point tensors to the dtype."""

    def move(leaf: Tensor) -> Tensor:
        return leaf.to(device, dtype if leaf.is_floating_point() else leaf.dtype)

    return map_state(move, state)


def cast_state_like(state: S, other: S) -> S:
    """Moves each tensor of the state to the device and dtype of the matching one of ``other``."""
    return map_state(lambda leaf, like: leaf.to(like.device, like.dtype), state, other)
