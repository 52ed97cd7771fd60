"""The clip of a gradient's norm, and the check that the gradient is finite."""

from collections.abc import Iterable

import torch
from torch import Tensor

from pgtoolkit.errors import NonFiniteError
from pgtoolkit.torch_private import multiply_all, norms_of

NamedParameters = Iterable[tuple[str, Tensor]]
"""Pairs of name and parameter, such as ``module.named_parameters()``."""


def clip_gradient(parameters: NamedParameters, max_norm: float) -> Tensor:
    """Scales all gradients to a global norm of at most ``max_norm``; returns the norm before.

    Raises:
        NonFiniteError: a gradient is not finite; names the parameter. No gradient is changed.
    """
    named = [(name, p) for name, p in parameters if p.grad is not None]
    gradients = [p.grad for _, p in named if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms_of(gradients)))
    if not bool(torch.isfinite(norm)):
        require_finite_gradient(named)
        return _clip_long(gradients, max_norm)
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    multiply_all(gradients, scale)
    return norm


def _clip_long(gradients: list[Tensor], max_norm: float) -> Tensor:
    """:func:`clip_gradient` for finite gradients whose squares overflow; the norm is a float64."""
    largest = torch.stack([g.abs().max() for g in gradients if g.numel()]).max()
    for gradient in gradients:
        gradient.div_(largest)  # its reciprocal may be too small to be a normal number
    norm = torch.linalg.vector_norm(torch.stack(norms_of(gradients)))
    whole: Tensor = norm.double() * largest.double()
    multiply_all(gradients, torch.clamp(max_norm / whole, max=1.0).mul(largest.double()).to(norm))
    return whole


def require_finite_gradient(parameters: NamedParameters) -> None:
    """Raises if any parameter's gradient is not finite.

    Raises:
        NonFiniteError: names the parameter.
    """
    for name, parameter in parameters:
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            raise NonFiniteError(f"gradient of {name}")
