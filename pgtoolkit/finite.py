"""Checks for infinities and NaN, and errors that name the tensor, step and environment."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pgtoolkit.errors import NonFiniteError


def is_finite(tensor: Tensor) -> bool:
    """Whether all entries are finite; a tensor of another dtype than floating-point always is.

    The sum is checked first, which takes one pass. If it is finite, so are all entries. If it is
    not, it may only have overflowed, and the entries are checked one by one.
    """
    tensor = tensor.detach()
    if not tensor.dtype.is_floating_point or bool(torch.isfinite(tensor.sum())):
        return True
    return bool(torch.isfinite(tensor).all())


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all entries of all tensors are finite, from the sum of their sums if it is finite."""
    tensors = [x.detach() for x in tensors if x.dtype.is_floating_point]
    if not tensors or bool(torch.isfinite(torch.stack([x.sum() for x in tensors]).sum())):
        return True
    return all(is_finite(x) for x in tensors)


def require_finite_steps(tensors: Mapping[str, Tensor]) -> None:
    """Raises on the earliest step at which any of the tensors is not finite.

    Args:
        tensors: ``{name: [T, N, ...]}`` in the order in which a step computes them. Within one step
            the first that is not finite is named.

    Raises:
        NonFiniteError: names the tensor, the step and the environment.
    """
    if are_finite(tensors.values()):
        return
    earliest: tuple[int, int, str, int] | None = None
    for order, (name, tensor) in enumerate(tensors.items()):
        if is_finite(tensor):
            continue
        bad = (
            (~torch.isfinite(tensor)).flatten(2).any(-1) if tensor.dim() > 2 else ~tensor.isfinite()
        )
        step, env_index = (int(i) for i in bad.nonzero()[0])
        if earliest is None or (step, order) < earliest[:2]:
            earliest = (step, order, name, env_index)
    if earliest is not None:
        raise NonFiniteError(earliest[2], earliest[0], earliest[3])


def require_finite_rows(tensors: Mapping[str, Tensor], step: int) -> None:
    """Raises if any of the tensors of one step is not finite.

    Args:
        tensors: ``{name: [N, ...]}``; the first that is not finite is named.
        step: its number, for the message.

    Raises:
        NonFiniteError: names the tensor, the step and the environment.
    """
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            finite = torch.isfinite(tensor)
            rows = finite if finite.dim() == 1 else finite.flatten(1).all(-1)
            raise NonFiniteError(name, step, int((~rows).nonzero()[0]))


def require_finite_adjoint(name: str, adjoint: Tensor) -> None:
    """Raises on the *latest* step at which an adjoint is not finite.

    Adjoints are computed backwards in time, so the latest step is where the fault began; it spreads
    to all earlier ones.

    Args:
        name: the adjoint's name in the error message.
        adjoint: ``[T, N, A]``, or with more axes.

    Raises:
        NonFiniteError: names the tensor, the step and the environment.
    """
    if not is_finite(adjoint):
        bad = ~torch.isfinite(adjoint).flatten(2).all(-1)
        step = int(bad.any(1).nonzero()[-1])
        raise NonFiniteError(name, step, int(bad[step].nonzero()[0]))


def require_finite(name: str, per_trajectory: Tensor) -> None:
    """Raises if any trajectory's entry is not finite.

    Args:
        name: the tensor's name in the error message.
        per_trajectory: ``[N, ...]``.

    Raises:
        NonFiniteError: names the tensor and the environment.
    """
    if not is_finite(per_trajectory):
        finite = torch.isfinite(per_trajectory)
        bad = ~finite if finite.dim() == 1 else ~finite.flatten(1).all(-1)
        raise NonFiniteError(name, env_index=int(bad.nonzero()[0]))
