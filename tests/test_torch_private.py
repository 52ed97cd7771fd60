"""The private parts of torch exist as they are used here, and one file uses them."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch

from pgtoolkit.torch_private import (
    CACHE_OPTIONS,
    O2_OPTIONS,
    check_in_compiled_code,
    copy_all,
    make_graph,
    multiply_all,
    norms_of,
    scan,
)

ROOT = Path(__file__).parents[1]

PARTS = {
    "torch.fx.experimental.proxy_tensor.make_fx": (
        "decomposition_table",
        "tracing_mode",
        "_allow_non_fake_inputs",
    ),
    "torch._higher_order_ops.scan.scan": ("combine_fn", "init", "xs"),
    "torch._dynamo.maybe_mark_dynamic": ("t", "index"),
    "torch._check": ("cond",),
    "torch._foreach_copy_": (),
    "torch._foreach_norm": (),
    "torch._foreach_mul_": (),
    "torch.compiler.skip_all_guards_unsafe": (),
}
"""The parameters that each part must have; built-in functions have no readable signature."""


@pytest.mark.parametrize("name", PARTS)
def test_torch_has_the_part(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    part = getattr(importlib.import_module(module), attribute, None)
    advice = "find its successor and change pgtoolkit/torch_private.py"
    assert part is not None, f"torch {torch.__version__} has no {name}: {advice}"
    if PARTS[name]:
        missing = set(PARTS[name]) - set(inspect.signature(part).parameters)
        assert not missing, f"torch {torch.__version__}: {name} takes no {missing}: {advice}"


@pytest.mark.parametrize("option", ["cpp_wrapper", "guard_filter_fn", *CACHE_OPTIONS, *O2_OPTIONS])
def test_torch_compile_has_the_option(option: str) -> None:
    """``guard_filter_fn`` is the one option that is not a setting of the compiler's back end."""
    options = {*torch._inductor.list_options(), "guard_filter_fn"}
    assert option in options, f"torch {torch.__version__}: torch.compile has no option {option}"


def test_a_graph_computes_what_was_traced() -> None:
    matrix = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    x = torch.tensor([1.0, 1.0])
    decompositions = {torch.ops.aten.tanh.default: torch.sin}
    graph = make_graph(lambda x: (matrix @ x).tanh(), (x,), decompositions)
    assert torch.equal(graph(2 * x), torch.sin(matrix @ (2 * x)))


def test_scan_returns_the_last_carry_and_the_stacked_results() -> None:
    """Without the compiler; the compiled loops' tests run it with one."""

    def step(carry: list[torch.Tensor], x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        return [carry[0] + x], carry[0] * x

    last, results = scan(step, [torch.zeros(1)], torch.tensor([[1.0], [2.0], [3.0]]))
    assert last[0].tolist() == [6.0]
    assert results.flatten().tolist() == [0.0, 2.0, 9.0]


def test_copies_and_checks() -> None:
    target = torch.zeros(2)
    copy_all([target], [torch.ones(2)])
    assert target.tolist() == [1.0, 1.0]
    assert [float(norm) for norm in norms_of([torch.tensor([3.0, 4.0])])] == [5.0]
    multiply_all([target], torch.tensor(2.0))
    assert target.tolist() == [2.0, 2.0]
    check_in_compiled_code(True)
    with pytest.raises(RuntimeError):
        check_in_compiled_code(False)


def test_no_other_file_uses_a_private_part() -> None:
    """``torch._name``, ``torch.fx.experimental``, or an import from either."""
    private = re.compile(r"\btorch(\.\w+)*\._[a-z]|\btorch\.fx\.experimental|_allow_non_fake")
    folders = ("pgtoolkit", "envs", "agents", "scripts")
    paths = {p for folder in folders for p in (ROOT / folder).rglob("*.py")}
    paths -= {ROOT / "pgtoolkit" / "torch_private.py"}
    assert len(paths) > 100
    found = [str(p.relative_to(ROOT)) for p in sorted(paths) if private.search(p.read_text())]
    assert found == []
