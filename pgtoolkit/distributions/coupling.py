"""Affine coupling, the invertible layer of RealNVP (Dinh et al. 2017)."""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.distributions import Transform, constraints

Conditioner = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From the entries that stay ``[..., S]`` to the shift and log-scale ``[..., A - S]`` of others."""


@final
class AffineCoupling(Transform):
    """Some entries stay, the others become ``y = x exp(log_scale) + shift``, a function of them.

    ``log |det dy/dx| = sum log_scale``. As cheap to invert as to apply, whatever the conditioner.
    Two in a row with opposite masks change every entry.

    Args:
        stays: for each of the ``A`` dimensions, whether it stays as it is.
        conditioner: gives shift and log-scale; usually a network, also of an observation.
    """

    bijective = True
    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, stays: tuple[bool, ...], conditioner: Conditioner) -> None:
        super().__init__()
        self.stays, self.conditioner = stays, conditioner
        self.kept = [i for i, stay in enumerate(stays) if stay]
        self.moved = [i for i, stay in enumerate(stays) if not stay]
        order = self.kept + self.moved
        self.positions = [order.index(i) for i in range(len(stays))]

    def _call(self, x: Tensor) -> Tensor:
        shift, log_scale = self.conditioner(x[..., self.kept])
        return self._join(x, x[..., self.moved] * log_scale.exp() + shift)

    def _inverse(self, y: Tensor) -> Tensor:
        shift, log_scale = self.conditioner(y[..., self.kept])
        return self._join(y, (y[..., self.moved] - shift) * torch.exp(-log_scale))

    def _join(self, whole: Tensor, moved: Tensor) -> Tensor:
        kept = whole[..., self.kept].expand(*moved.shape[:-1], len(self.kept))
        return torch.cat([kept, moved], dim=-1)[..., self.positions]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conditioner(x[..., self.kept])[1].sum(-1)

    def with_cache(self, cache_size: int = 1) -> Any:
        """It keeps no cache: a cached inverse has no graph."""
        return self
