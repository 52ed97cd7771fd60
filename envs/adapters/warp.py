"""A Warp kernel as a differentiable PyTorch function, to write the dynamics of an environment."""

import contextlib
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeGuard, final

import torch
from torch import Tensor

from pgtoolkit.envs.registry.registered import import_package
from pgtoolkit.errors import RequestError
from pgtoolkit.second_derivatives import refuse_second_derivative

Argument: TypeAlias = Tensor | float
"""An input of a kernel: a tensor ``[N, ...]`` or a constant."""


@final
class WarpKernel:
    """A Warp kernel ``outputs = kernel(inputs)`` that maps each row of a batch independently.

    Call it in the ``transition`` of an environment.

    The kernel takes the input arrays and constants first and the output arrays last. It is launched
    with ``dim=N``: thread ``i`` must read only row ``i`` of the inputs and write only row ``i`` of
    the outputs. An array declared with ``dtype=Any`` computes in the tensor's dtype. An array of
    vectors, ``wp.array(dtype=wp.vec3)``, takes tensors ``[N, 3]``.

    **Gradient.** Each call is one autograd node. The forward pass launches the kernel once, without
    a tape, and saves only the inputs. The backward pass launches it again on new buffers under a
    new ``wp.Tape`` and runs the tape backwards, so it may be repeated with the same result. Second
    derivatives and batched backward passes (``is_grads_batched``) raise. Integers have no gradient.

    Warp's adjoint is **wrong without an error** in some kernels, above all where a variable changes
    in a loop whose length is not a constant. Compare each new kernel with finite differences, for
    example by :func:`torch.autograd.gradcheck`.

    Tensors share their memory with Warp and stay on their device. CUDA launches go to PyTorch's
    current stream.

    Args:
        kernel: a kernel made by ``@wp.kernel``.
        outputs: the shape of each output for one environment: ``[(2,)]`` for one ``[N, 2]``.

    Raises:
        RequestError: warp is not installed, or the kernel has no backward pass.
    """

    def __init__(self, kernel: Any, outputs: Sequence[tuple[int, ...]]) -> None:
        import_warp().init()
        module_default = kernel.module.options.get("enable_backward")
        if not kernel.options.get("enable_backward", module_default):
            raise RequestError(
                f"the Warp kernel {kernel.key} has no backward pass: remove enable_backward=False "
                "from it, from its module or from wp.config"
            )
        self.kernel, self.outputs = kernel, tuple(outputs)

    def __call__(self, *inputs: Argument) -> tuple[Tensor, ...]:
        """Launches the kernel; the outputs carry the graph of the inputs.

        Args:
            inputs: tensors ``[N, ...]``, and numbers where the kernel takes constants.

        Returns:
            The outputs ``[N, *shape]``, with dtype and device of the first floating-point input.

        Raises:
            ValueError: the kernel takes another number of arguments, or the batches differ in size.
            RequestError: the kernel is written for another dtype.
        """
        expected = len(self.kernel.adj.args)
        if len(inputs) + len(self.outputs) != expected:
            raise ValueError(
                f"the Warp kernel {self.kernel.key} takes {expected} arguments, not {len(inputs)} "
                f"inputs and {len(self.outputs)} outputs"
            )
        sizes = [len(x) for x in inputs if isinstance(x, Tensor)]
        if len(set(sizes)) != 1:
            raise ValueError(f"the inputs must be tensors of one batch size, not of {sizes}")
        outputs: tuple[Tensor, ...] = _Launch.apply(self, *inputs)  # type: ignore[no-untyped-call]
        return outputs

    def forward(self, inputs: Sequence[Argument]) -> tuple[Tensor, ...]:
        """Launches the kernel without recording a graph."""
        outputs = self._new_outputs(inputs)
        with _stream_of(outputs[0]):
            self._launch([*inputs, *outputs], [None] * (len(inputs) + len(outputs)))
        return outputs

    def backward(
        self, inputs: Sequence[Argument], cotangents: Sequence[Tensor]
    ) -> list[Tensor | None]:
        """The vector-Jacobian product for each input; None for integers and constants."""
        outputs = self._new_outputs(inputs)
        gradients = [torch.zeros_like(x) if _is_float(x) else None for x in inputs]
        # Copies, because an adjoint kernel may also write to the gradients of the outputs.
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
    """Imports the optional package ``warp``.

    Raises:
        RequestError: it is not installed.
    """
    return import_package("warp", "a WarpKernel")


def _is_float(x: Argument) -> TypeGuard[Tensor]:
    return isinstance(x, Tensor) and x.is_floating_point()


def _array(declared: Any, x: Argument, gradient: Tensor | None) -> Any:
    """A Warp array of the declared kind that shares the tensor's memory; numbers unchanged."""
    if not isinstance(x, Tensor):
        return x
    declared_dtype = getattr(declared.type, "dtype", Any)
    dtype = None if declared_dtype is Any else declared_dtype
    has_gradient = gradient is not None
    try:
        return import_warp().from_torch(x, dtype, requires_grad=has_gradient, grad=gradient)
    except RuntimeError as error:
        raise RequestError(
            f"the kernel's argument {declared.label} does not take this tensor: {error}. A kernel "
            "with arrays of dtype=Any takes every dtype; or give the vector environment the "
            "kernel's, as in DifferentiableVectorEnv(env, N, dtype=torch.float32)"
        ) from error


def _stream_of(tensor: Tensor) -> Any:
    """A context in which Warp uses PyTorch's CUDA stream, so that their work stays ordered."""
    if tensor.device.type != "cuda":
        return contextlib.nullcontext()
    warp = import_warp()
    return warp.ScopedStream(warp.stream_from_torch(tensor.device))
