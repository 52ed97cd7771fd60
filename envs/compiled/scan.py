"""A traced step, compiled and taken many times in one call."""

from typing import Any, Protocol, final

import torch
from torch import Tensor

from pgtoolkit.compiling import CompiledLoop
from pgtoolkit.envs.compiled.layout import hold, release
from pgtoolkit.envs.compiled.step_graph import StepGraph

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
        self._seen = {*graph.graded, *graph.plain}
        # A loop of one step is compiled apart: torch takes a length of 1 for a constant.
        sizes = len(graph.forward.graph.nodes), len(graph.adjoint.graph.nodes)
        self._forward = [CompiledLoop(_scan_forward, sizes[0]) for _ in range(2)]
        self._adjoint = [CompiledLoop(_scan_adjoint, sizes[1]) for _ in range(2)]

    def forward(self, constants: Tensors, carry: Tensors, given: Tensors) -> Tensors:
        """Takes the steps.

        Args:
            constants: of every step.
            carry: of the first step.
            given: ``[L, ...]`` what is new at each step.

        Returns:
            ``[L, ...]`` all results but the carry; those that only :meth:`adjoint` reads as they
            are held.
        """
        scan, graph = self._forward[given[0].shape[0] == 1], self.graph
        with torch.no_grad():
            carry, given = hold(carry, graph.carry), hold(given, graph.given)
            held: Tensors = scan(graph, constants, carry, given, free=given)[1]
            for place in self._seen:
                (held[place],) = release([held[place]], [graph.results[place]])
        return held

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
            The adjoints of the first carry, and ``[L, ...]`` those of the sources, the last step's
            first.
        """
        graph, length = self.graph, results[0].shape[0]
        scan = self._adjoint[length == 1]
        with torch.no_grad():
            backwards = torch.arange(length - 1, -1, -1, device=results[0].device).unsqueeze(1)
            adjoints = [
                self._hold(i, torch.zeros_like(results[i]) if a is None else a)
                for i, a in zip(graph.graded, graded, strict=True)
            ]
            saved = [self._hold(i, results[i]) for i in graph.saved]
            carry, given = hold(carry, graph.adjoint_carry), [*adjoints, *saved]
            first, found = scan(graph, constants, carry, given, backwards, free=[*given, backwards])
            sources = release(found, graph.adjoints)
        return release(first, graph.adjoint_carry), [sources[i] for i in graph.sources]

    def _hold(self, place: int, stacked: Tensor) -> Tensor:
        if place not in self._seen:
            return stacked
        return hold([stacked], [self.graph.results[place]])[0]


def _scan_forward(graph: StepGraph, constants: Tensors, carry: Tensors, given: Tensors) -> Any:
    from torch._higher_order_ops.scan import scan

    _are_of_one_length(given)
    return scan(lambda c, x: _step(graph, constants, c, x), carry, given)


def _step(
    graph: StepGraph, constants: Tensors, carry: Tensors, given: Tensors
) -> tuple[Tensors, Tensors]:
    seen = *release(carry, graph.carry), *release(given, graph.given)
    results, size = graph.forward(*constants, *seen), len(carry)
    return hold(results[:size], graph.carry), hold(results[size:], graph.results)


def _scan_adjoint(
    graph: StepGraph, constants: Tensors, carry: Tensors, given: Tensors, backwards: Tensor
) -> Any:
    from torch._higher_order_ops.scan import scan

    _are_of_one_length([backwards, *given])
    return scan(lambda c, t: _adjoint_step(graph, constants, c, given, t), carry, backwards)


def _adjoint_step(
    graph: StepGraph, constants: Tensors, carry: Tensors, given: Tensors, t: Tensor
) -> tuple[Tensors, Tensors]:
    carried, size = graph.adjoint_carry, len(carry)
    forms = [graph.results[i] for i in (*graph.graded, *graph.saved)]
    # Rows are picked where they are used: scan's own reversal would copy everything first.
    rows = release([x.index_select(0, t).squeeze(0) for x in given], forms)
    found = graph.adjoint(*constants, *release(carry, carried), *rows)
    return hold(found[:size], carried), hold(found[size:], graph.adjoints)


def _are_of_one_length(tensors: Tensors) -> None:
    """Tells the compiler, which would take one number for each otherwise."""
    for x in tensors[1:]:
        torch._check(x.shape[0] == tensors[0].shape[0])  # type: ignore[no-untyped-call]
