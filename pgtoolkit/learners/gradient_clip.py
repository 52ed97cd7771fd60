"""The clip of a gradient's norm, and the check that the gradient is finite."""

import torch
from torch import Tensor, nn

from pgtoolkit.errors import NonFiniteError


def clip_gradient(module: nn.Module, max_norm: float) -> Tensor:
    """Scales all gradients to a global norm of at most ``max_norm``; returns the norm before.

    Raises:
        NonFiniteError: a gradient is not finite; names the parameter. No gradient is changed.
    """
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if not bool(torch.isfinite(norm)):
        require_finite_gradient(module)  # a norm of large finite gradients may overflow
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, scale)
    return norm


def require_finite_gradient(module: nn.Module) -> None:
    """Raises if any parameter's gradient is not finite.

    Raises:
        NonFiniteError: names the parameter.
    """
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            raise NonFiniteError(f"gradient of {name}")
