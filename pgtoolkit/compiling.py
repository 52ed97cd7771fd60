"""Tools of all compiled parts: when to compile, tracing, compiled loops and decompositions."""

import contextlib
import contextvars
import os
import shutil
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, final

import torch
from torch import Tensor, fx

from pgtoolkit.torch_private import (
    CACHE_OPTIONS,
    O2_OPTIONS,
    make_graph,
    mark_first_axis_dynamic,
)

CPU = torch.device("cpu")

Compile = Literal["auto", "always", "never"]
"""``auto`` compiles on the CPU if there is a C++ compiler and the run is long enough to save more
time than compiling takes."""

COMPILE_SECONDS = 15.0
"""Approximate time to trace and compile one loop; less once its code is in torch's cache."""

MAX_O3_OPERATIONS = 500
"""A step with more operations is compiled with ``-O2`` instead of ``-O3``. For Quadrotor (628 and
786 operations) that takes 56 s instead of 115, and its loops 1.05 times as long; for Hopper2D (1063
and 1196; 992 in float64) ``g++ -O3`` had not finished after half an hour. Shorter steps keep
``-O3``: ``-O2`` would compile Pendulum's in 15 s instead of 30, and run 1.05 times as long with
1024 environments."""

MAX_NARROW_COLUMNS = 16
"""Most columns of a tensor that compiled loops keep in column-major layout."""

MAX_NARROW_PRODUCT, MIN_LONG_PRODUCT = 32, 16
"""Most columns and fewest rows of a product of matrices that is computed in another order: with 32
columns it takes 0.85 of the time, with 17 0.6, with 8 a fifth, with 4 a seventh (256 rows,
minibatches of 256)."""

TANH_NUMERATOR = (
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
"""Coefficients in ``x^2`` after the leading one, from the highest power down."""
TANH_DENOMINATOR = (1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def choose_compiled(compile: Compile, seconds_saved: float, device: torch.device = CPU) -> bool:
    """Whether to compile a part.

    Args:
        compile: the user's setting.
        seconds_saved: an estimate of the time that compiled code will save over the run; it was
            measured on CPUs, so ``auto`` compiles nothing for another device.
        device: where the part runs.
    """
    if compile == "auto":
        long_enough = seconds_saved > 2 * COMPILE_SECONDS
        return device.type == "cpu" and long_enough and has_compiler()
    return compile == "always"


def has_compiler() -> bool:
    """Whether torch will find a C++ compiler."""
    names = (os.environ.get("CXX"), "g++", "clang++")
    return any(name is not None and shutil.which(name) is not None for name in names)


_TRACING: contextvars.ContextVar[bool] = contextvars.ContextVar("tracing", default=False)


def is_tracing() -> bool:
    """Whether :func:`trace` is running, for functions with a variant that compiles better."""
    return _TRACING.get()


@contextlib.contextmanager
def _tracing() -> Iterator[None]:
    token = _TRACING.set(True)
    try:
        yield
    finally:
        _TRACING.reset(token)


def trace(function: Callable[..., Any], *arguments: Any) -> fx.GraphModule:
    """The torch operations that ``function(*arguments)`` runs, as a graph for the compiler.

    :data:`CPU_DECOMPOSITIONS` are applied. Tensors that the function closes over become constants.

    Args:
        function: pure; of tensors, or of lists of tensors.
        arguments: like those that the graph will be called with: shapes, dtypes, devices.

    Raises:
        Exception: whatever torch raises where a function cannot be traced, for example because it
            reads a number out of a tensor.
    """
    with _tracing():
        graph = make_graph(function, arguments, CPU_DECOMPOSITIONS)
    compute_scalars_once(graph)
    return graph


def compute_scalars_once(graph: fx.GraphModule) -> None:
    """Changes a graph so that its compiled code computes each scalar once; in place.

    Without it the code computes a scalar that is combined with a tensor again for each few entries
    of the tensor: Adam's two powers and the root of its clip took half of the time of Adam's step.
    The compiler stores the result of a reduction, so the scalar is replaced by the largest of two
    copies of it, which is the same number.
    """
    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        if not _is_computed_scalar(node):
            continue
        wide = [user for user in node.users if _num_entries(user) > 1]
        if wide:
            with graph.graph.inserting_after(node):
                copies = graph.graph.call_function(aten.expand.default, (node, [2]))
            with graph.graph.inserting_after(copies):
                stored = graph.graph.call_function(aten.amax.default, (copies, [0]))
            copies.meta["val"], stored.meta["val"] = node.meta["val"].expand(2), node.meta["val"]
            for user in wide:
                user.replace_input_with(node, stored)
    graph.recompile()


def _is_computed_scalar(node: fx.Node) -> bool:
    value, tags = node.meta.get("val"), getattr(node.target, "tags", ())
    is_scalar = isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()
    return is_scalar and torch.Tag.pointwise in tags


def _num_entries(node: fx.Node) -> int:
    """Number of entries of a node's tensor; 0 if it has none, or several."""
    value = node.meta.get("val")
    return value.numel() if isinstance(value, Tensor) else 0


@final
class CompiledLoop:
    """A function with a loop in it, compiled to C++ at its first call.

    The code is specialised to the shapes, dtypes and memory layout of the first call's arguments,
    and later calls are not checked against them. Only the first axis of the tensors passed as
    ``free`` may have another length. Each object has a compilation cache of its own in memory. The
    compiled code also stays in torch's cache on disk (``TORCHINDUCTOR_CACHE_DIR``), where another
    process finds it.

    Args:
        function: contains the loop.
        num_operations: approximate number of operations in one step of the loop; above
            :data:`MAX_O3_OPERATIONS` the C++ compiler optimises less.
    """

    def __init__(self, function: Callable[..., Any], num_operations: int = 0) -> None:
        options: dict[str, Any] = {
            "cpp_wrapper": True,
            "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
            **CACHE_OPTIONS,
        }
        if num_operations > MAX_O3_OPERATIONS:
            options |= O2_OPTIONS
        # torch keeps one cache per code object: a copy of it makes the cache this object's own.
        own = types.FunctionType(function.__code__.replace(), function.__globals__)
        self._compiled = torch.compile(own, fullgraph=True, options=options)
        self._is_compiled = False

    def __call__(self, *arguments: Any, free: Iterable[Tensor]) -> Any:
        """The function's value.

        Args:
            arguments: the function's arguments.
            free: the tensors among the arguments whose first axis may have another length in a
                later call.
        """
        if not self._is_compiled:
            for x in free:
                mark_first_axis_dynamic(x)
        result = self._compiled(*arguments)
        self._is_compiled = True
        return result


def make_contiguous(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors in row-major layout: a loop is compiled for one layout, and does not check it."""
    return [x.contiguous() for x in tensors]


def rational_tanh(x: Tensor) -> Tensor:
    """``tanh`` in float32 as a ratio of two polynomials; absolute error at most 4e-7.

    In compiled code it is several times faster than the library's. Other dtypes keep the library's.

    Source: the coefficients of Eigen's ``ptanh_float`` (degree 13 over degree 6).
    """
    if x.dtype != torch.float32:
        return NotImplemented  # type: ignore[no-any-return]  # the tracer keeps the operation
    x = x.clamp(-7.90531110763549805, 7.90531110763549805)
    square = x * x
    numerator = torch.full_like(square, -2.76076847742355e-16)
    for coefficient in TANH_NUMERATOR:
        numerator = numerator * square + coefficient
    denominator = torch.full_like(square, 1.19825839466702e-06)
    for coefficient in TANH_DENOMINATOR:
        denominator = denominator * square + coefficient
    return x * (numerator / denominator)


def decompose_mm(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` with few columns, in the order that the matrix library computes faster.

    A policy's first layer has such products, with as many columns as an observation has entries:
    the gradient with respect to its weight, and with respect to its input. The library is several
    times as fast if these columns are the rows of its result.
    """
    rows, columns = left.shape[0], right.shape[1]
    if columns == 1 or columns > MAX_NARROW_PRODUCT or rows < max(columns + 1, MIN_LONG_PRODUCT):
        return NotImplemented  # type: ignore[no-any-return]
    if columns < 4 and left.stride(1) == 1 and right.stride(0) != 1:
        right = right.t().clone(memory_format=torch.contiguous_format).t()
    return (right.t() @ left.t()).t()


def decompose_stack(tensors: list[Tensor], dim: int = 0) -> Tensor:
    """``stack`` of 2 to 16 vectors as columns of a matrix in column-major layout.

    The compiler vectorises a column only if its entries are adjacent in memory.
    """
    if dim not in (-1, 1) or tensors[0].dim() != 1 or not 1 < len(tensors) <= MAX_NARROW_COLUMNS:
        return NotImplemented  # type: ignore[no-any-return]
    return torch.stack(tensors, 0).t()


def decompose_cat(tensors: list[Tensor], dim: int = 0) -> Tensor:
    """``cat`` of matrices with 2 to 16 columns in all, in column-major layout, as the stack."""
    if dim not in (-1, 1) or any(x.dim() != 2 for x in tensors):
        return NotImplemented  # type: ignore[no-any-return]
    if not 1 < sum(x.shape[1] for x in tensors) <= MAX_NARROW_COLUMNS:
        return NotImplemented  # type: ignore[no-any-return]
    return torch.cat([x.t() for x in tensors], 0).t()


CPU_DECOMPOSITIONS: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.stack.default: decompose_stack,
    torch.ops.aten.cat.default: decompose_cat,
    torch.ops.aten.tanh.default: rational_tanh,
    torch.ops.aten.mm.default: decompose_mm,
}
"""Operations that :func:`trace` replaces by an equivalent that is faster in compiled CPU code. A
function that returns ``NotImplemented`` keeps the operation."""
