"""The private and experimental parts of torch that this package uses, and no other file does.

torch may move, rename or change them in any release. ``tests/test_torch_private.py`` names the part
that is missing and fails if another file uses one. Parts that are slow to import are imported when
they are first used.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

O2_OPTIONS = {"cpp.enable_floating_point_contract_flag": "off -O2"}
"""``torch.compile`` options that compile C++ code with ``-O2``. torch has no option for the level:
it always writes ``-O3`` and, after it, the value of this one; of several levels the last counts."""

CACHE_OPTIONS = {
    "unsafe_marked_cacheable_functions": {"torch.ops.higher_order.scan": torch.__version__}
}
"""``torch.compile`` options that keep compiled loops in torch's cache on disk, for later runs.
Without them torch compiles a ``scan`` anew in every process. "Unsafe" is torch's word for an
operation that does not itself say what its result depends on. A scan's depends on its body, its
constants and its shapes, which are in the cache's key; tests change one at a time."""


def make_graph(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    decompositions: dict[Any, Callable[..., Any]],
) -> fx.GraphModule:
    """The torch operations that ``function(*arguments)`` runs, as a graph.

    Tensors that the function closes over become constants of the graph.

    Args:
        function: a function of tensors, or of lists of tensors.
        arguments: examples with the shapes, dtypes and devices that the graph will be called with.
        decompositions: ``{operation: function that replaces it}``.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    trace = make_fx(
        function,
        decomposition_table=decompositions,
        tracing_mode="fake",
        _allow_non_fake_inputs=True,
    )
    return trace(*arguments)


def scan(step: Callable[..., Any], carry: list[Tensor], inputs: Any) -> Any:
    """``carry, row = step(carry, inputs[t])`` for each ``t``; inside compiled code one loop.

    Args:
        step: maps the carry and one row of the inputs to the next carry and a row of results.
        carry: the carry before the first step.
        inputs: tensors ``[L, ...]``, one row for each step.

    Returns:
        The last carry, and the results ``[L, ...]``.
    """
    from torch._higher_order_ops.scan import scan as torch_scan

    return torch_scan(step, carry, inputs)


def mark_first_axis_dynamic(x: Tensor) -> None:
    """Lets code that is compiled for ``x`` be called with another length of its first axis."""
    torch._dynamo.maybe_mark_dynamic(x, 0)


def check_in_compiled_code(condition: Any) -> None:
    """Raises unless the condition on tensors' sizes holds; the compiler then relies on it."""
    torch._check(condition)  # type: ignore[no-untyped-call]


def copy_all(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copies each source into its target, in one call."""
    torch._foreach_copy_(targets, sources)


def norms_of(tensors: list[Tensor]) -> list[Tensor]:
    """The Euclidean norm of each tensor, in one call."""
    return list(torch._foreach_norm(tensors))


def multiply_all(tensors: list[Tensor], factor: Tensor) -> None:
    """Multiplies each tensor by the factor, in place, in one call."""
    torch._foreach_mul_(tensors, factor)


Places = list[tuple[dict[str, Tensor | None], str]]
"""Dictionaries of modules, each with the name under which it holds one and the same parameter."""


def places_of_parameters(module: nn.Module) -> list[Places]:
    """Where each parameter of ``module.parameters()`` is held, in that order."""
    found: dict[int, Places] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                found.setdefault(id(parameter), []).append((part._parameters, name))  # type: ignore[arg-type]
    return list(found.values())
