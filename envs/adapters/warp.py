"""A Warp kernel as a differentiable PyTorch function, for the dynamics of an environment."""

import contextlib
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeGuard, final

import torch
from torch import Tensor

from pgtoolkit.envs.registry.registered import import_package
from pgtoolkit.errors import RequestError
from pgtoolkit.second_derivatives import refuse_second_derivative

Argument: TypeAlias = Tensor | float


@final
class WarpKernel:
    """``outputs = kernel(inputs)``, row by row: call it in the ``transition`` of an environment.

    The kernel's arguments are arrays and constants of input, and last the arrays of output. It is
    launched with ``dim=N``: thread ``i`` reads row ``i`` of the inputs, writes row ``i`` of the
    outputs, and touches nothing else. An array declared with ``dtype=Any`` computes in the tensor's
    dtype; an array of vectors, ``wp.array(dtype=wp.vec3)``, takes tensors ``[N, 3]``.

    **Gradient.** One autograd node per call. Forward is one launch, without a tape. Backward
    launches again under a fresh ``wp.Tape``, on buffers of its own, and runs that backwards; the
    inputs are all that is kept. So a backward may be repeated, and gives the same again. A second
    derivative raises, and so does a batch of backwards (``is_grads_batched``). Integers have no
    gradient.

    What Warp's adjoint cannot do stays undone, and **silently**: above all a variable that changes
    in a loop whose length is not a constant. Compare a new kernel with finite differences, as
    :func:`torch.autograd.gradcheck` does.

    Tensors share their memory with Warp and stay on their device. CUDA launches go to PyTorch's
    current stream.

    Args:
        kernel: made by ``@wp.kernel``.
        outputs: the shape of each output for one environment: ``[(2,)]`` for one ``[N, 2]``.

    Raises:
        RequestError: warp is not installed, or the kernel has no backward pass.
    """

    def __init__(self, kernel: Any, outputs: Sequence[tuple[int, ...]]) -> None:
        import_warp().init()
        of_module = kernel.module.options.get("enable_backward")
        if not kernel.options.get("enable_backward", of_module):
            raise RequestError(
                f"the Warp kernel {kernel.key} has no backward pass: remove enable_backward=False "
                "from it, from its module or from wp.config"
            )
        self.kernel, self.outputs = kernel, tuple(outputs)

    def __call__(self, *inputs: Argument) -> tuple[Tensor, ...]:
        """The outputs, each ``[N, *shape]``, in dtype and device like the first floating input.

        Args:
            inputs: tensors ``[N, ...]``, and numbers where the kernel takes constants.

        Raises:
            ValueError: the kernel takes another number of arguments, or the batches differ in size.
            RequestError: the kernel is written for another dtype.
        """
        taken = len(self.kernel.adj.args)
        if len(inputs) + len(self.outputs) != taken:
            raise ValueError(
                f"the Warp kernel {self.kernel.key} takes {taken} arguments, not {len(inputs)} "
                f"inputs and {len(self.outputs)} outputs"
            )
        sizes = [len(x) for x in inputs if isinstance(x, Tensor)]
        if len(set(sizes)) != 1:
            raise ValueError(f"the inputs must be tensors of one batch size, not of {sizes}")
        outputs: tuple[Tensor, ...] = _Launch.apply(self, *inputs)  # type: ignore[no-untyped-call]
        return outputs

    def forward(self, inputs: Sequence[Argument]) -> tuple[Tensor, ...]:
        """The outputs, without a graph."""
        outputs = self._new_outputs(inputs)
        with _stream_of(outputs[0]):
            self._launch([*inputs, *outputs], [None] * (len(inputs) + len(outputs)))
        return outputs

    def backward(
        self, inputs: Sequence[Argument], cotangents: Sequence[Tensor]
    ) -> list[Tensor | None]:
        """The gradient by each input; None for integers and constants."""
        outputs = self._new_outputs(inputs)
        gradients = [torch.zeros_like(x) if _is_float(x) else None for x in inputs]
        # Copies, because an adjoint may write to the gradients of its outputs as well.
        adjoints = [torch.zeros_like(x).copy_(c) for x, c in zip(outputs, cotangents, strict=True)]
        with _stream_of(outputs[0]):
            tape = import_warp().Tape()
            with tape:
                self._launch([*inputs, *outputs], [*gradients, *adjoints])
            tape.backward()
        return gradients

    def _new_outputs(self, inputs: Sequence[Argument]) -> tuple[Tensor, ...]:
        like = next(x for x in inputs if _is_float(x))
        return tuple(like.new_zeros(len(like), *shape) for shape in self.outputs)

    def _launch(self, tensors: Sequence[Argument], gradients: Sequence[Tensor | None]) -> None:
        warp, split = import_warp(), len(tensors) - len(self.outputs)
        declared = self.kernel.adj.args
        arrays = [_array(*x) for x in zip(declared, tensors, gradients, strict=True)]
        like = tensors[-1]
        assert isinstance(like, Tensor), "outputs are tensors"
        warp.launch(
            self.kernel,
            dim=len(like),
            inputs=arrays[:split],
            outputs=arrays[split:],
            device=warp.device_from_torch(like.device),
        )


class _Launch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: WarpKernel, *inputs: Argument) -> tuple[Tensor, ...]:
        ctx.kernel = kernel
        ctx.constants = [None if isinstance(x, Tensor) else x for x in inputs]
        inputs = tuple(x.detach().contiguous() if isinstance(x, Tensor) else x for x in inputs)
        ctx.save_for_backward(*(x for x in inputs if isinstance(x, Tensor)))
        return kernel.forward(inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("the gradient of a WarpKernel")
        saved = iter(ctx.saved_tensors)
        inputs = [next(saved) if x is None else x for x in ctx.constants]
        return None, *ctx.kernel.backward(inputs, cotangents)


def import_warp() -> Any:
    """The package ``warp``, on first use.

    Raises:
        RequestError: it is not installed.
    """
    return import_package("warp", "a WarpKernel")


def _is_float(x: Argument) -> TypeGuard[Tensor]:
    return isinstance(x, Tensor) and x.is_floating_point()


def _array(declared: Any, x: Argument, gradient: Tensor | None) -> Any:
    """The tensor as the kind of Warp array that the kernel declares; numbers as they are."""
    if not isinstance(x, Tensor):
        return x
    dtype = getattr(declared.type, "dtype", Any)
    given = None if dtype is Any else dtype
    has_gradient = gradient is not None
    try:
        return import_warp().from_torch(x, given, requires_grad=has_gradient, grad=gradient)
    except RuntimeError as error:
        raise RequestError(
            f"the kernel's argument {declared.label} does not take this tensor: {error}. A kernel "
            "with arrays of dtype=Any takes every dtype; or give the vector environment the "
            "kernel's, as in DifferentiableVectorEnv(env, N, dtype=torch.float32)"
        ) from error


def _stream_of(tensor: Tensor) -> Any:
    """Warp launches where PyTorch computes: neither reads what the other has yet to write."""
    if tensor.device.type != "cuda":
        return contextlib.nullcontext()
    warp = import_warp()
    return warp.ScopedStream(warp.stream_from_torch(tensor.device))
