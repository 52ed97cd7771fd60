"""The processes of a run. This is the only module that knows how many there are.

A run is one process today, so every function here returns at once. Code that would have to combine
numbers over processes calls them already: the step rule for its gradients, the normaliser for its
observations, the monitor for its gradients by trajectory, and the loop for who writes files.
"""

from collections.abc import Iterable

from torch import Tensor


def size() -> int:
    """The number of processes."""
    return 1


def rank() -> int:
    """The number of this process, from 0; process 0 writes logs and checkpoints."""
    return 0


def mean_(tensors: Iterable[Tensor]) -> None:
    """Replaces each tensor, in place, by its mean over the processes."""


def sum_(tensors: Iterable[Tensor]) -> None:
    """Replaces each tensor, in place, by its sum over the processes."""


def gather(tensor: Tensor) -> Tensor:
    """Joins the tensors ``[n, ...]`` of all processes along their first axis, in order of rank."""
    return tensor
