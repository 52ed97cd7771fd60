"""When to compile, and what compiled code computes in another way."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pgtoolkit.compiling import FASTER, choose_compiled, rational_tanh


def test_the_rational_tanh_is_at_most_4e_7_off_and_odd() -> None:
    x = torch.linspace(-12, 12, 400_001)
    exact = torch.tanh(x.double())
    assert (rational_tanh(x).double() - exact).abs().max() < 4e-7
    assert torch.equal(rational_tanh(-x), -rational_tanh(x))
    assert rational_tanh(x).abs().max() <= 1


def test_the_rational_tanh_leaves_double_precision_alone() -> None:
    assert rational_tanh(torch.zeros(2, dtype=torch.float64)) is NotImplemented


@pytest.mark.parametrize(("rows", "inner", "columns"), [(64, 200, 3), (200, 64, 3), (200, 64, 32)])
def test_products_in_another_order_are_the_same(rows: int, inner: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(rows, inner, generator=generator, dtype=torch.float64)
    right = torch.randn(inner, columns, generator=generator, dtype=torch.float64)
    traced = make_fx(torch.mm, decomposition_table=FASTER)(left, right)
    torch.testing.assert_close(traced(left, right), left @ right)
    changed = any("transpose" in n.name or n.name.startswith("t") for n in traced.graph.nodes)
    assert changed == (columns < 16)


def test_auto_compiles_long_runs_where_there_is_a_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pgtoolkit.compiling.has_compiler", lambda: True)
    assert choose_compiled("auto", 1000.0) and not choose_compiled("auto", 1.0)
    monkeypatch.setattr("pgtoolkit.compiling.has_compiler", lambda: False)
    assert not choose_compiled("auto", 1000.0)
    assert choose_compiled("always", 0.0) and not choose_compiled("never", 1000.0)
