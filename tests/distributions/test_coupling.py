"""Affine coupling: unchanged and changed entries, its inverse and its determinant."""

from typing import Any

import torch
from torch import Tensor

from pgtoolkit.distributions.coupling import AffineCoupling

F64 = torch.float64


def test_a_coupling_keeps_order_and_is_inverted() -> None:
    """Scattered masks, masks that keep nothing or all; the determinant is autograd's."""
    x = torch.randn(5, generator=torch.Generator().manual_seed(3), dtype=F64)
    for stays in ((False, True, False, True, True), (False,) * 5, (True,) * 5):
        moved = 5 - sum(stays)

        def conditioner(kept: Tensor, moved: int = moved) -> tuple[Tensor, Tensor]:
            total = kept.sin().sum(-1, keepdim=True).expand(*kept.shape[:-1], moved)
            return total, 0.5 * total.cos()

        coupling: Any = AffineCoupling(stays, conditioner)
        y = coupling(x)
        kept = torch.tensor(stays)
        assert torch.equal(y[kept], x[kept])
        assert not bool((y[~kept] == x[~kept]).any())
        torch.testing.assert_close(coupling.inv(y), x)
        jacobian: Any = torch.autograd.functional.jacobian(coupling, x)  # type: ignore[no-untyped-call]
        torch.testing.assert_close(coupling.log_abs_det_jacobian(x, y), jacobian.det().abs().log())


def test_a_coupling_is_its_formula() -> None:
    """``y_2 = x_2 exp(log_scale) + shift``, worked by hand; the mask says which is which."""
    x = torch.tensor([2.0, 3.0], dtype=F64)
    for stays, expected in (((True, False), [2.0, 3 * 4 + 2]), ((False, True), [2 * 8 + 3, 3.0])):
        coupling: Any = AffineCoupling(stays, lambda kept: (kept, kept * torch.tensor(2.0).log()))
        torch.testing.assert_close(coupling(x), torch.tensor(expected, dtype=F64))
