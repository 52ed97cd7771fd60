"""The function ``f`` in an expectation: evaluation, and checks of its values and their graph."""

from collections.abc import Callable

import torch
from torch import Tensor

from pgtoolkit.errors import RequestError

Function = Callable[[Tensor], Tensor]
"""``f``, from samples ``[num_samples, *batch, *event]`` to values ``[num_samples, *batch]``."""


def evaluate(f: Function, x: Tensor) -> Tensor:
    """``f(x)`` as floating-point numbers.

    Raises:
        RequestError: the result is not a tensor.
        ValueError: the result does not keep the samples' axis.
    """
    value = f(x)
    if not isinstance(value, Tensor):
        raise RequestError(
            f"f returned a {type(value).__name__}, not a tensor: wrap what it computes "
            "(torch.as_tensor(...)), one value a sample"
        )
    if not value.is_floating_point():
        # Integers and booleans: baselines and differences need floating-point numbers.
        value = value.to(x.dtype if x.is_floating_point() else torch.get_default_dtype())
    if value.dim() == 0 or value.shape[0] != x.shape[0]:
        raise ValueError(
            f"f maps samples {list(x.shape)} to {list(value.shape)}: it must return one value a "
            f"sample, [{x.shape[0]}, *batch]"
        )
    return value


def path_of(f: Function, x: Tensor) -> Tensor:
    """``f(x)`` with the graph that leads to ``x``.

    Raises:
        RequestError: ``x`` carries a graph, and that of ``f(x)`` does not contain it.
        ValueError: the result does not keep the samples' axis.
    """
    value = evaluate(f, x)
    if x.requires_grad and not _depends_on(value, x):
        raise RequestError(
            "no differentiable path joins the sample to f's value (a comparison, rounding, "
            "detach() or NumPy inside f?): use method='score_function', which needs none"
        )
    return value


def joint_log_prob(log_prob: Tensor, value: Tensor) -> Tensor:
    """``log_prob`` summed over the axes that ``value`` does not have, which are independent.

    Args:
        log_prob: ``[num_samples, *batch, ...]``.
        value: ``[num_samples, *batch]``, of which only the shape is used.

    Raises:
        ValueError: the common axes differ in size.
    """
    extra = log_prob.dim() - value.dim()
    if extra < 0 or log_prob.shape[: value.dim()] != value.shape:
        raise ValueError(
            f"f returned {list(value.shape)}, but the samples' log density has the shape "
            f"{list(log_prob.shape)}: f must keep the axes of the samples and of the batch, in "
            "order, and reduce those of the event"
        )
    return log_prob.flatten(value.dim()).sum(-1) if extra else log_prob


def _depends_on(value: Tensor, x: Tensor) -> bool:
    """Whether the graph of ``value`` contains ``x``."""
    if value is x:
        return True
    target = torch.autograd.graph.get_gradient_edge(x).node
    stack, seen = [value.grad_fn], set[object]()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        if node is target:
            return True
        seen.add(node)
        stack.extend(following for following, _ in node.next_functions)
    return False
