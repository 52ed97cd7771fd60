"""A traced step, compiled and taken many times in one call."""

from typing import Any, Protocol, final

import torch
from torch import Tensor

from pgtoolkit.compiling import CompiledLoop, plain_layout
from pgtoolkit.envs.step_graph import StepGraph

Tensors = list[Tensor]


class Scan(Protocol):
    """Takes a traced step many times: compiled, or in any other way."""

    graph: StepGraph

    def forward(self, constants: Tensors, carry: Tensors, given: Tensors) -> Tensors:
        """Takes the steps."""

    def adjoint(
        self, constants: Tensors, carry: Tensors, graded: list[Tensor | None], results: Tensors
    ) -> tuple[Tensors, Tensors]:
        """Goes through them from the last to the first."""


@final
class CompiledScan:
    """Both halves of a step over ``L`` steps: one compiled loop each, for any ``L``.

    Args:
        graph: of one step.
    """

    def __init__(self, graph: StepGraph) -> None:
        self.graph = graph
        # A loop of one step is compiled apart: torch takes a length of 1 for a constant.
        self._forward = [CompiledLoop(_scan_forward) for _ in range(2)]
        self._adjoint = [CompiledLoop(_scan_adjoint) for _ in range(2)]

    def forward(self, constants: Tensors, carry: Tensors, given: Tensors) -> Tensors:
        """Takes the steps.

        Args:
            constants: of every step.
            carry: of the first step.
            given: ``[L, ...]`` what is new at each step.

        Returns:
            ``[L, ...]`` all results but the carry.
        """
        scan = self._forward[given[0].shape[0] == 1]
        with torch.no_grad():
            given, carry = plain_layout(given), plain_layout(carry)
            results: Tensors = scan(self.graph, constants, carry, given, free=given)[1]
        return results

    def adjoint(
        self, constants: Tensors, carry: Tensors, graded: list[Tensor | None], results: Tensors
    ) -> tuple[Tensors, Tensors]:
        """Goes through the steps from the last to the first.

        Args:
            constants: of every step.
            carry: adjoints of the last carry's floating-point tensors.
            graded: ``[L, ...]`` adjoints of the graded results; None for 0.
            results: as :meth:`forward` gave it.

        Returns:
            The adjoints of the first carry, and ``[L, ...]`` those of the sources.
        """
        graph, length = self.graph, results[0].shape[0]
        scan = self._adjoint[length == 1]
        with torch.no_grad():
            backwards = torch.arange(length - 1, -1, -1, device=results[0].device).unsqueeze(1)
            likes = (results[i] for i in graph.graded)
            pairs = zip(graded, likes, strict=True)
            adjoints = [torch.zeros_like(x) if a is None else a for a, x in pairs]
            given = plain_layout([*adjoints, *(results[i] for i in graph.saved)])
            carry = plain_layout(carry)
            first, found = scan(graph, constants, carry, given, backwards, free=[*given, backwards])
        return first, [found[i].flip(0) for i in graph.sources]


def _scan_forward(graph: StepGraph, constants: Tensors, carry: Tensors, given: Tensors) -> Any:
    from torch._higher_order_ops.scan import scan

    return scan(lambda c, x: _step(graph, constants, c, x), carry, given)


def _step(
    graph: StepGraph, constants: Tensors, carry: Tensors, given: Tensors
) -> tuple[Tensors, Tensors]:
    results = graph.forward(*constants, *carry, *given)
    size = len(carry)
    return list(results[:size]), list(results[size:])


def _scan_adjoint(
    graph: StepGraph, constants: Tensors, carry: Tensors, given: Tensors, backwards: Tensor
) -> Any:
    from torch._higher_order_ops.scan import scan

    return scan(lambda c, t: _adjoint_step(graph, constants, c, given, t), carry, backwards)


def _adjoint_step(
    graph: StepGraph, constants: Tensors, carry: Tensors, given: Tensors, t: Tensor
) -> tuple[Tensors, Tensors]:
    # Rows are picked where they are used: scan's own reversal would copy everything first.
    rows = [x.index_select(0, t).squeeze(0) for x in given]
    found = graph.adjoint(*constants, *carry, *rows)
    return list(found[: len(carry)]), list(found[len(carry) :])
