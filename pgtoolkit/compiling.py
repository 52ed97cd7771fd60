"""When to compile, and how: what every compiled part has in common."""

import contextlib
import contextvars
import os
import shutil
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, final

import torch
from torch import Tensor

Compile = Literal["auto", "always", "never"]
"""auto: where there is a C++ compiler and the run is long enough to win its time back."""

COMPILE_SECONDS = 15.0
"""What tracing and compiling a loop takes, about; less once its code is in torch's cache."""


def choose_compiled(compile: Compile, seconds_saved: float) -> bool:
    """Whether to compile a part.

    Args:
        compile: what the user asked for.
        seconds_saved: what compiled code will save over the run, about.
    """
    if compile == "auto":
        return seconds_saved > 2 * COMPILE_SECONDS and has_compiler()
    return compile == "always"


def has_compiler() -> bool:
    """Whether torch will find a C++ compiler."""
    names = (os.environ.get("CXX"), "g++", "clang++")
    return any(name is not None and shutil.which(name) is not None for name in names)


_TRACING: contextvars.ContextVar[bool] = contextvars.ContextVar("tracing", default=False)


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """While a step is traced, to be compiled."""
    token = _TRACING.set(True)
    try:
        yield
    finally:
        _TRACING.reset(token)


def is_tracing() -> bool:
    """Whether a step is being traced: for the few functions that have a form a compiler prefers."""
    return _TRACING.get()


LARGE = 500
"""Operations of a step above which it is compiled with ``-O2``. Of Quadrotor's (628 and 786) that
takes 56 s instead of 115, and its loops 1.05 times as long; on Hopper2D's (1063 and 1196; 992 in
float64) ``g++ -O3`` had not ended after half an hour. Shorter steps keep ``-O3``: ``-O2`` would
compile Pendulum's in 15 s instead of 30, and take 1.05 times as long with 1024 of them."""
LESS_EFFORT = {"cpp.enable_floating_point_contract_flag": "off -O2"}
"""torch always writes ``-O3``, and after it the value of this setting: the last level counts."""


@final
class CompiledLoop:
    """A function with a loop in it, compiled at its first call.

    It is compiled under a code object of its own, so that each has its own cache; the loops in it
    run in C++; and what it was first called with is taken for what it is always called with, in
    shapes, dtypes and layout, but for the first axis of the tensors that are named ``free``.

    Args:
        function: with the loop in it.
        num_operations: of one step, about; longer steps are compiled with less effort.
    """

    def __init__(self, function: Callable[..., Any], num_operations: int = 0) -> None:
        options: dict[str, Any] = {
            "cpp_wrapper": True,
            "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
        }
        if num_operations > LARGE:
            options |= LESS_EFFORT
        own = types.FunctionType(function.__code__.replace(), function.__globals__)
        self._compiled = torch.compile(own, fullgraph=True, options=options)
        self._is_compiled = False

    def __call__(self, *arguments: Any, free: Iterable[Tensor]) -> Any:
        """The function's value.

        Args:
            arguments: of the function.
            free: those of its tensors whose first axis may have another length next time.
        """
        if not self._is_compiled:
            for x in free:
                torch._dynamo.maybe_mark_dynamic(x, 0)
        found = self._compiled(*arguments)
        self._is_compiled = True
        return found


def plain_layout(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors in the one layout for which code is compiled."""
    return [x.contiguous() for x in tensors]


def rational_tanh(x: Tensor) -> Tensor:
    """``tanh`` in float32 as a ratio of two polynomials, at most 4e-7 off.

    Several times faster than the library's where it is compiled. In float64 it is left alone.

    Source: the coefficients of Eigen's ``ptanh_float`` (degree 13 over degree 6).
    """
    if x.dtype != torch.float32:
        return NotImplemented  # type: ignore[no-any-return]  # the tracer's word for "keep it"
    x = x.clamp(-7.90531110763549805, 7.90531110763549805)
    square = x * x
    top = torch.full_like(square, -2.76076847742355e-16)
    for coefficient in TANH_ABOVE:
        top = top * square + coefficient
    bottom = torch.full_like(square, 1.19825839466702e-06)
    for coefficient in TANH_BELOW:
        bottom = bottom * square + coefficient
    return x * (top / bottom)


TANH_ABOVE = (
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
TANH_BELOW = (1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)

NARROW = 16
"""Columns below which a product is written in another order."""


def narrow_product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` with few columns, in the order in which the library is several times faster.

    The first layer of a policy has such products, with as many columns as observations have
    entries: the gradient of its weight, and that of its input.
    """
    if right.shape[1] >= NARROW or left.shape[0] < NARROW:
        return NotImplemented  # type: ignore[no-any-return]
    if left.shape[1] > left.shape[0]:
        return (right.t() @ left.t()).t()
    if right.stride(0) == 1:
        return NotImplemented  # type: ignore[no-any-return]
    return left @ right.t().clone(memory_format=torch.contiguous_format).t()


def narrow_stack(tensors: list[Tensor], dim: int = 0) -> Tensor:
    """``stack`` of few columns, each of which stays whole in memory.

    A compiler takes many numbers at once only where they lie side by side.
    """
    if dim not in (-1, 1) or tensors[0].dim() != 1 or not 1 < len(tensors) <= NARROW:
        return NotImplemented  # type: ignore[no-any-return]
    return torch.stack(tensors, 0).t()


def narrow_cat(tensors: list[Tensor], dim: int = 0) -> Tensor:
    """``cat`` of matrices with few columns in all, likewise."""
    if dim not in (-1, 1) or any(x.dim() != 2 for x in tensors):
        return NotImplemented  # type: ignore[no-any-return]
    if not 1 < sum(x.shape[1] for x in tensors) <= NARROW:
        return NotImplemented  # type: ignore[no-any-return]
    return torch.cat([x.t() for x in tensors], 0).t()


FASTER: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.stack.default: narrow_stack,
    torch.ops.aten.cat.default: narrow_cat,
    torch.ops.aten.tanh.default: rational_tanh,
    torch.ops.aten.mm.default: narrow_product,
}
"""What tracing puts in the place of an operation."""
