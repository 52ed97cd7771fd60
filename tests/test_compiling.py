"""Tests of when to compile, the decompositions, and the options of a compiled loop."""

from typing import Any

import pytest
import torch
from torch._inductor import cpp_builder, cpu_vec_isa
from torch.fx.experimental.proxy_tensor import make_fx

from pgtoolkit.compiling import (
    CPU_DECOMPOSITIONS,
    MAX_O3_OPERATIONS,
    CompiledLoop,
    choose_compiled,
    rational_tanh,
)
from pgtoolkit.torch_private import O2_OPTIONS


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
    traced = make_fx(torch.mm, decomposition_table=CPU_DECOMPOSITIONS)(left, right)
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


def test_long_steps_are_compiled_with_o2(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler's command says ``-O2`` after torch's ``-O3``, and the last one counts."""
    requested: list[dict[str, Any]] = []

    def compile(function: Any, *, fullgraph: bool, options: dict[str, Any]) -> Any:
        requested.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compile)
    CompiledLoop(lambda x: x, MAX_O3_OPERATIONS)
    CompiledLoop(lambda x: x, MAX_O3_OPERATIONS + 1)
    assert not O2_OPTIONS.items() <= requested[0].items()
    assert O2_OPTIONS.items() <= requested[1].items()
    with torch._inductor.config.patch(O2_OPTIONS):
        options = cpp_builder.CppTorchOptions(vec_isa=cpu_vec_isa.invalid_vec_isa)
        command = cpp_builder.CppBuilder("name", "code.cpp", options, "folder").get_command_line()
    levels = [word for word in command.split() if word.startswith("-O")]
    assert levels[0] == "-O3" and levels[-1] == "-O2"
