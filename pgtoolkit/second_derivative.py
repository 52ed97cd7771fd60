"""Refusing second derivatives where a custom backward pass implements only the first."""

import torch

from pgtoolkit.errors import RequestError


def refuse_second_derivative(subject: str) -> None:
    """Raises if the current backward pass is itself recorded (``create_graph=True``).

    To be called first in the ``backward`` of an autograd function. Gradient mode is on there
    exactly when autograd records the backward pass.

    Args:
        subject: the start of the message, with its verb: ``"a WarpKernel is"``.

    Raises:
        RequestError: in a backward pass with ``create_graph=True``.
    """
    if torch.is_grad_enabled():
        raise RequestError(
            f"{subject} differentiable once: a second derivative would be wrong without an error. "
            "Call backward without create_graph=True"
        )
