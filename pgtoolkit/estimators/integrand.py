"""The function under an expectation: its values, their shape, and the path that leads to them."""

from collections.abc import Callable

import torch
from torch import Tensor

from pgtoolkit.errors import RequestError

Function = Callable[[Tensor], Tensor]


def evaluate(f: Function, x: Tensor) -> Tensor:
    """``f(x)``, after a look at its shape.

    Raises:
        ValueError: it does not keep the samples' axis.
    """
    value = f(x)
    if not isinstance(value, Tensor):
        raise RequestError(
            f"f returned a {type(value).__name__}, not a tensor: wrap what it computes "
            "(torch.as_tensor(...)), one value a sample"
        )
    if not value.is_floating_point():
        # Counts and truth values: baselines and differences need numbers with a fraction.
        value = value.to(x.dtype if x.is_floating_point() else torch.get_default_dtype())
    if value.dim() == 0 or value.shape[0] != x.shape[0]:
        raise ValueError(
            f"f maps samples {list(x.shape)} to {list(value.shape)}: it must return one value a "
            f"sample, [{x.shape[0]}, *batch]"
        )
    return value


def path_of(f: Function, x: Tensor) -> Tensor:
    """``f(x)`` with its graph.

    Raises:
        RequestError: the sample carries a graph and the value does not.
    """
    value = evaluate(f, x)
    if x.requires_grad and not _joined(value, x):
        raise RequestError(
            "no differentiable path joins the sample to f's value (a comparison, rounding, "
            "detach() or NumPy inside f?): use method='score_function', which needs none"
        )
    return value


def joint_log_prob(log_prob: Tensor, value: Tensor) -> Tensor:
    """Sums the axes of ``log_prob`` that ``value`` has not: they are independent.

    Raises:
        ValueError: the axes that both have differ in size.
    """
    extra = log_prob.dim() - value.dim()
    if extra < 0 or log_prob.shape[: value.dim()] != value.shape:
        raise ValueError(
            f"f returned {list(value.shape)}, but the samples' log density has the shape "
            f"{list(log_prob.shape)}: f must keep the axes of the samples and of the batch, in "
            "order, and reduce those of the event"
        )
    return log_prob.flatten(value.dim()).sum(-1) if extra else log_prob


def _joined(value: Tensor, x: Tensor) -> bool:
    """Whether the graph of ``value`` passes through ``x``."""
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
