"""Tests of when to compile, the decompositions, and the options of a compiled loop."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch._dynamo.utils import counters
from torch._inductor import cpp_builder, cpu_vec_isa
from torch.fx.experimental.proxy_tensor import make_fx

from pgtoolkit.compiling import (
    CPU_DECOMPOSITIONS,
    MAX_O3_OPERATIONS,
    CompiledLoop,
    choose_compiled,
    has_compiler,
    rational_tanh,
    trace,
)
from pgtoolkit.learners.step_rules.flat_adam import AdamState, FlatAdam, adam_state
from pgtoolkit.torch_private import O2_OPTIONS, scan


def test_the_rational_tanh_is_at_most_4e_7_off_and_odd() -> None:
    x = torch.linspace(-12, 12, 400_001)
    exact = torch.tanh(x.double())
    assert (rational_tanh(x).double() - exact).abs().max() < 4e-7
    assert torch.equal(rational_tanh(-x), -rational_tanh(x))
    assert rational_tanh(x).abs().max() <= 1


def test_the_rational_tanh_leaves_double_precision_alone() -> None:
    assert rational_tanh(torch.zeros(2, dtype=torch.float64)) is NotImplemented


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 17, 32, 33])
@pytest.mark.parametrize(("rows", "inner"), [(64, 200), (200, 64), (64, 64), (15, 64)])
@pytest.mark.parametrize("layouts", ["rows", "left", "right", "both"])
def test_products_in_another_order_are_the_same(
    rows: int, inner: int, columns: int, layouts: str
) -> None:
    generator = torch.Generator().manual_seed(0)

    def matrix(height: int, width: int, *, by_column: bool) -> torch.Tensor:
        x = torch.randn(height, width, generator=generator, dtype=torch.float64)
        return x.t().contiguous().t() if by_column else x

    left = matrix(rows, inner, by_column=layouts in ("left", "both"))
    right = matrix(inner, columns, by_column=layouts in ("right", "both"))
    traced = make_fx(torch.mm, decomposition_table=CPU_DECOMPOSITIONS)(left, right)
    torch.testing.assert_close(traced(left, right), left @ right)
    changed = any("transpose" in n.name or n.name.startswith("t") for n in traced.graph.nodes)
    assert changed == (1 < columns <= 32 and rows >= 16)


def scalar_inputs(graph: fx.GraphModule) -> list[str]:
    """The operations whose scalar a tensor is combined with; copies of a scalar do not count."""
    return [
        str(scalar.target)
        for node in graph.graph.nodes
        if isinstance(node.meta.get("val"), torch.Tensor) and node.meta["val"].numel() > 2
        for scalar in node.all_input_nodes
        if scalar.op == "call_function" and scalar.meta["val"].numel() == 1
    ]


def test_a_scalar_is_computed_once_and_is_the_same_number() -> None:
    def function(x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        power = 0.9**t
        return x * power + x.square().sum().sqrt(), power + 1

    x, t = torch.linspace(-2, 3, 50), torch.tensor(7.0)
    graph = trace(function, x, t)
    for number in (7.0, 0.0, math.inf, math.nan):
        found, exact = graph(x, torch.tensor(number)), function(x, torch.tensor(number))
        assert all(map(torch.equal, map(torch.nan_to_num, found), map(torch.nan_to_num, exact)))
    targets = [str(node.target) for node in graph.graph.nodes]
    assert targets.count("aten.amax.default") == 2


def test_adam_computes_its_scalars_once() -> None:
    """Its powers and the root of its clip took half of its time, again for each few parameters."""
    rule = FlatAdam(betas=(0.9, 0.999), epsilon=1e-8, max_grad_norm=0.5)
    state, gradient = adam_state([torch.ones(7, 3)]), torch.linspace(-1, 1, 21)
    rate = torch.tensor(0.1)

    def step(state: list[Tensor], gradient: Tensor, rate: Tensor) -> Any:
        after, norm = rule.step(AdamState(*state), gradient, rate)
        return [*after, norm]

    graph = trace(step, list(state), gradient, rate)
    assert set(scalar_inputs(graph)) == {"aten.amax.default"}
    after, exact = graph(list(state), gradient, rate), step(list(state), gradient, rate)
    assert all(map(torch.equal, after, exact))


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


def loop_over(graph: Callable[..., Any], start: Tensor, rows: Tensor) -> Any:
    """What the agents compile: a traced step, scanned over rows."""

    def step(carry: list[Tensor], row: list[Tensor]) -> Any:
        after = graph(carry[0], row[0])
        return [after], after.sum()

    return scan(step, [start], [rows])


def scanned(step: Callable[[Tensor, Tensor], Tensor], rows: Tensor) -> tuple[Tensor, bool]:
    """The last carry by a new compiled loop, and whether its code was found on disk."""
    start = torch.zeros(rows.shape[1])
    counters.clear()
    loop = CompiledLoop(loop_over)
    with torch.no_grad():
        graph = trace(step, start, rows[0])
        (found,), _ = loop(graph, start, rows, free=[rows])
    saved = counters["aot_autograd"]
    assert saved["autograd_cache_hit"] + saved["autograd_cache_miss"] == 1
    return found, saved["autograd_cache_hit"] == 1


@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
def test_a_loop_is_found_on_disk_and_a_changed_one_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its body, a number in it, a tensor in it, its shape and its dtype are changed in turn."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    rows = torch.arange(12.0).reshape(4, 3)
    small, large = torch.tensor([1.0, 2.0, 3.0]), torch.linspace(0, 1, 9).reshape(3, 3)

    def first(x: Tensor, row: Tensor) -> Tensor:
        return 0.5 * x + row * small + row @ large

    assert [scanned(first, rows)[1] for _ in range(2)] == [False, True]
    for length in (4, 7):  # the first axis is free
        longer = torch.ones(length, 3)
        found, hit = scanned(first, longer)
        expected = torch.zeros(3)
        for row in longer:
            expected = first(expected, row)
        torch.testing.assert_close(found, expected)
        assert hit
    changed: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda x, row: 0.5 * x - row * small + row @ large,
        lambda x, row: 0.25 * x + row * small + row @ large,
        lambda x, row: 0.5 * x + row * (small + 1) + row @ large,
        lambda x, row: 0.5 * x + row * small + row @ (large + 1),
    ]
    for step in changed:
        found, _ = scanned(step, rows)
        expected = torch.zeros(3)
        for row in rows:
            expected = step(expected, row)
        torch.testing.assert_close(found, expected)
