"""The checks that find the first number that is not finite."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pgtoolkit.errors import NonFiniteError


def is_finite(tensor: Tensor) -> bool:
    """Whether all its numbers are finite.

    Their sum is looked at first, in one pass: it is finite only if they all are, or else too large.
    """
    tensor = tensor.detach()
    if not tensor.dtype.is_floating_point or bool(torch.isfinite(tensor.sum())):
        return True
    return bool(torch.isfinite(tensor).all())


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers of all of them are finite: one look at the sum of their sums, if so."""
    tensors = [x.detach() for x in tensors if x.dtype.is_floating_point]
    if not tensors or bool(torch.isfinite(torch.stack([x.sum() for x in tensors]).sum())):
        return True
    return all(is_finite(x) for x in tensors)


def require_finite_steps(tensors: Mapping[str, Tensor]) -> None:
    """Raises on the earliest step at which any of the tensors ``[T, N, ...]`` is not finite.

    Within one step the mapping's order decides, so give the tensors in the order in which they are
    computed: the first to go wrong is the one that is named.

    Raises:
        NonFiniteError: names the tensor, the step and the environment.
    """
    if are_finite(tensors.values()):
        return
    first: tuple[int, int, str, int] | None = None
    for order, (name, tensor) in enumerate(tensors.items()):
        if is_finite(tensor):
            continue
        bad = (
            (~torch.isfinite(tensor)).flatten(2).any(-1) if tensor.dim() > 2 else ~tensor.isfinite()
        )
        step, env_index = (int(i) for i in bad.nonzero()[0])
        if first is None or (step, order) < first[:2]:
            first = (step, order, name, env_index)
    if first is not None:
        raise NonFiniteError(first[2], first[0], first[3])


def require_finite_rows(tensors: Mapping[str, Tensor], step: int) -> None:
    """Raises if any of the tensors ``[N, ...]`` of one step is not finite.

    Raises:
        NonFiniteError: names the tensor, the step and the environment.
    """
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            finite = torch.isfinite(tensor)
            rows = finite if finite.dim() == 1 else finite.flatten(1).all(-1)
            raise NonFiniteError(name, step, int((~rows).nonzero()[0]))


def require_finite_adjoint(name: str, adjoint: Tensor) -> None:
    """Raises on the *latest* step at which ``adjoint`` ``[T, N, ...]`` is not finite.

    A gradient runs backwards in time, so a bad one begins late and spoils all steps before it.

    Raises:
        NonFiniteError: names the tensor, the step and the environment.
    """
    if not is_finite(adjoint):
        bad = ~torch.isfinite(adjoint).flatten(2).all(-1)
        step = int(bad.any(1).nonzero()[-1])
        raise NonFiniteError(name, step, int(bad[step].nonzero()[0]))


def require_finite(name: str, per_trajectory: Tensor) -> None:
    """Raises if any entry of ``per_trajectory`` ``[N, ...]`` is not finite, naming the trajectory.

    Raises:
        NonFiniteError: names the tensor and the environment.
    """
    if not is_finite(per_trajectory):
        finite = torch.isfinite(per_trajectory)
        bad = ~finite if finite.dim() == 1 else ~finite.flatten(1).all(-1)
        raise NonFiniteError(name, env_index=int(bad.nonzero()[0]))
