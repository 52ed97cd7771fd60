"""Refusal of second derivatives where a backward pass is only right to first order."""

import torch
from torch import Tensor

from pgtoolkit.errors import RequestError


def refuse_second_derivative(subject: str, alternative: str = "") -> None:
    """Raises in a backward pass that builds a graph of itself; call it in that backward pass.

    Args:
        subject: the quantity that cannot be differentiated again; the message begins with it.
        alternative: advice after the word "or" at the end of the message; none if empty.

    Raises:
        RequestError: the backward pass was called with ``create_graph=True``.
    """
    # Gradient mode is on in a backward pass exactly when it builds a graph of itself.
    if torch.is_grad_enabled():
        remedy = "call backward without create_graph=True"
        raise RequestError(
            f"{subject} cannot be differentiated again, because the second derivative would be "
            f"wrong: {remedy}{f', or {alternative}' if alternative else ''}"
        )


def once_differentiable(tensor: Tensor, subject: str, alternative: str = "") -> Tensor:
    """The tensor; a backward pass through it refuses to build a graph of itself.

    Args:
        tensor: any; one without a graph is returned as it is.
        subject: the quantity that cannot be differentiated again; the message begins with it.
        alternative: advice after the word "or" at the end of the message; none if empty.

    Raises:
        RequestError: the backward pass was called with ``create_graph=True``; raised there.
    """
    if tensor.requires_grad:
        tensor.register_hook(lambda gradient: refuse_second_derivative(subject, alternative))  # type: ignore[no-untyped-call]
    return tensor
