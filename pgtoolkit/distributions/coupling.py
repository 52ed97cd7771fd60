"""Affine coupling, the invertible layer of RealNVP (Dinh et al. 2017)."""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.distributions import Transform, constraints

Conditioner = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps the unchanged entries ``[..., S]`` to shift and log-scale ``[..., A - S]`` of the others."""


@final
class AffineCoupling(Transform):
    """Leaves the masked entries unchanged and maps the others by ``y = x exp(log_scale) + shift``.

    Shift and log-scale are functions of the unchanged entries, so
    ``log |det dy/dx| = sum log_scale``, and inverting costs as much as applying, whatever the
    conditioner. Two couplings with opposite masks change every entry.

    Args:
        mask: ``A`` bools; true for each dimension that is left unchanged.
        conditioner: gives shift and log-scale; usually a network, which may also read an
            observation.
    """

    bijective = True
    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, mask: tuple[bool, ...], conditioner: Conditioner) -> None:
        super().__init__()
        self.mask, self.conditioner = mask, conditioner
        self.unchanged = [i for i, keep in enumerate(mask) if keep]
        self.changed = [i for i, keep in enumerate(mask) if not keep]
        order = self.unchanged + self.changed
        self.position = [order.index(i) for i in range(len(mask))]
        """Index of each dimension in ``[unchanged, changed]``."""

    def _call(self, x: Tensor) -> Tensor:
        shift, log_scale = self.conditioner(x[..., self.unchanged])
        return self._replace_changed(x, x[..., self.changed] * log_scale.exp() + shift)

    def _inverse(self, y: Tensor) -> Tensor:
        shift, log_scale = self.conditioner(y[..., self.unchanged])
        return self._replace_changed(y, (y[..., self.changed] - shift) * torch.exp(-log_scale))

    def _replace_changed(self, x: Tensor, changed: Tensor) -> Tensor:
        """``x`` with other values in the entries that the map changes."""
        unchanged = x[..., self.unchanged].expand(*changed.shape[:-1], len(self.unchanged))
        return torch.cat([unchanged, changed], dim=-1)[..., self.position]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conditioner(x[..., self.unchanged])[1].sum(-1)

    def with_cache(self, cache_size: int = 1) -> Any:
        """Returns itself: it keeps no cache, because a cached inverse has no graph."""
        return self
