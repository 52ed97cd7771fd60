"""Variance of a gradient over samples, computed without the gradient of each sample."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pgtoolkit.diagnostics.per_trajectory import GradientRecorder
from pgtoolkit.shapes import check_shape


def sample_variances(
    module: nn.Module, losses: Callable[[], Tensor], recorder: GradientRecorder | None = None
) -> dict[str, Tensor]:
    """The unbiased variance of each entry of one sample's gradient: ``{parameter name: [*shape]}``.

    For a linear layer that is called once, sample ``i``'s gradient is an outer product
    ``g_i = delta_i x_i^T``, so that ``sum_i g_i^2 = (delta^2)^T x^2`` and
    ``sum_i g_i = delta^T x``: two matrix products, and no tensor of size ``N P``. If the module has
    any other layer with parameters, or a weight that is used outside its layer, the gradients of
    all samples are computed (:meth:`GradientRecorder.per_trajectory
    <pgtoolkit.diagnostics.per_trajectory.GradientRecorder.per_trajectory>`).

    The two products lose digits where an entry's mean is far larger than its standard deviation:
    about ``log10`` of the ratio of their squares.

    Args:
        module: its parameters' gradients are measured.
        losses: computes ``[N]`` from the module. Entry ``i`` must depend on sample ``i`` alone, and
            every layer must be called on ``[N, features]``.
        recorder: of the module; keeps what it has checked for the next call. A new one by default.

    Raises:
        RequestError: the gradient of an entry of the losses is not that of one sample.

    Source: Dangel et al. 2020, "BackPACK", appendix A.
    """
    recorder = recorder or GradientRecorder(module)
    with recorder.recording():
        values = losses()
    check_shape("losses", values, None)
    if recorder.used_elsewhere(values) or not _is_linear_throughout(recorder):
        gradients = recorder.per_trajectory(values)
        return {name: gradient.var(0) for name, gradient in gradients.items()}
    outputs = [calls[0].output for calls in recorder.calls.values()]
    deltas = torch.autograd.grad(values.sum(), outputs)
    found: dict[str, Tensor] = {}
    for (prefix, calls), delta in zip(recorder.calls.items(), deltas, strict=True):
        dot = f"{prefix}." if prefix else ""
        inputs, squares = calls[0].inputs, delta.square()
        total, square = _product(delta, inputs), _product(squares, inputs.square())
        found[f"{dot}weight"] = _variance(total, square, len(values))
        if recorder.ruled[prefix].bias is not None:
            found[f"{dot}bias"] = _variance(delta.sum(0), squares.sum(0), len(values))
    return {name: found[name] for name, _ in module.named_parameters()}


def _is_linear_throughout(recorder: GradientRecorder) -> bool:
    """Whether all parameters are of linear layers that were called once each, on a matrix."""
    once = all(len(calls) == 1 for calls in recorder.calls.values())
    linear = all(type(layer) is nn.Linear for layer in recorder.ruled.values())
    rows = all(call.inputs.dim() == 2 for calls in recorder.calls.values() for call in calls)
    seen = recorder.calls.keys() == recorder.ruled.keys()
    return once and linear and rows and seen and not recorder.without_rule()


def _product(delta: Tensor, inputs: Tensor) -> Tensor:
    """``delta^T inputs`` ``[out, in]``, by the faster of the two orders of multiplication."""
    if inputs.shape[1] < delta.shape[1]:
        return (inputs.t() @ delta).t()
    return delta.t() @ inputs


def _variance(total: Tensor, square: Tensor, size: int) -> Tensor:
    """Unbiased variance from the sum and the sum of squares over ``size`` samples."""
    return ((square - total.square() / size) / (size - 1)).clamp_min(0)
