"""A traced step, compiled, and run many times in one call."""

from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.compiling import CompiledLoop
from pgtoolkit.envs.compiled.layout import pack, unpack
from pgtoolkit.envs.compiled.step_graph import StepGraph
from pgtoolkit.torch_private import check_in_compiled_code, scan

Tensors = list[Tensor]


@final
class CompiledScan:
    """``L`` forward steps as one compiled loop, and ``L`` adjoint steps as another, for any ``L``.

    Args:
        graph: the graphs of one forward step and one adjoint step.
    """

    def __init__(self, graph: StepGraph) -> None:
        self.graph = graph
        # Results that the caller reads. The others stay packed until the adjoint loop reads them.
        self._unpacked = {*graph.differentiable, *graph.auxiliary}
        # For L = 1 there is a second loop, because torch treats a length of 1 as a constant.
        sizes = len(graph.forward.graph.nodes), len(graph.adjoint.graph.nodes)
        self._forward = [CompiledLoop(_scan_forward, sizes[0]) for _ in range(2)]
        self._adjoint = [CompiledLoop(_scan_adjoint, sizes[1]) for _ in range(2)]

    def forward(self, constants: Tensors, carry: Tensors, inputs: Tensors) -> Tensors:
        """Runs ``L`` steps.

        Args:
            constants: tensors that are the same at every step.
            carry: the carry before the first step.
            inputs: ``[L, ...]`` the inputs of every step.

        Returns:
            ``[L, ...]`` all results but the carry. Those that only :meth:`adjoint` reads are still
            packed.
        """
        loop, graph = self._forward[inputs[0].shape[0] == 1], self.graph
        with torch.no_grad():
            carry, inputs = pack(carry, graph.carry_layouts), pack(inputs, graph.input_layouts)
            results: Tensors = loop(graph, constants, carry, inputs, free=inputs)[1]
            for i in self._unpacked:
                (results[i],) = unpack([results[i]], [graph.result_layouts[i]])
        return results

    def adjoint(
        self,
        constants: Tensors,
        carry: Tensors,
        cotangents: list[Tensor | None],
        results: Tensors,
    ) -> tuple[Tensors, Tensors]:
        """Runs the adjoint steps, from the last to the first.

        Args:
            constants: tensors that are the same at every step.
            carry: adjoints of the last carry's floating-point tensors.
            cotangents: ``[L, ...]`` of the differentiable results; None stands for zeros.
            results: the value of :meth:`forward`.

        Returns:
            The adjoints of the first carry, and ``[L, ...]`` those of the sources, in reversed
            order: the last step's first.
        """
        graph, length = self.graph, results[0].shape[0]
        loop = self._adjoint[length == 1]
        with torch.no_grad():
            backwards = torch.arange(length - 1, -1, -1, device=results[0].device).unsqueeze(1)
            packed_cotangents = [
                self._pack(i, torch.zeros_like(results[i]) if c is None else c)
                for i, c in zip(graph.differentiable, cotangents, strict=True)
            ]
            saved = [self._pack(i, results[i]) for i in graph.saved]
            carry, rows = pack(carry, graph.adjoint_carry_layouts), [*packed_cotangents, *saved]
            first, stacked = loop(graph, constants, carry, rows, backwards, free=[*rows, backwards])
            sources = unpack(stacked, graph.source_layouts)
        return unpack(first, graph.adjoint_carry_layouts), [sources[i] for i in graph.sources]

    def _pack(self, index: int, stacked: Tensor) -> Tensor:
        """Packs a result or its cotangent, unless :meth:`forward` has left it packed."""
        if index not in self._unpacked:
            return stacked
        return pack([stacked], [self.graph.result_layouts[index]])[0]


def _scan_forward(graph: StepGraph, constants: Tensors, carry: Tensors, inputs: Tensors) -> Any:
    _require_equal_lengths(inputs)
    return scan(lambda c, x: _forward_step(graph, constants, c, x), carry, inputs)


def _forward_step(
    graph: StepGraph, constants: Tensors, carry: Tensors, inputs: Tensors
) -> tuple[Tensors, Tensors]:
    """The forward step on packed tensors."""
    arguments = *unpack(carry, graph.carry_layouts), *unpack(inputs, graph.input_layouts)
    results, size = graph.forward(*constants, *arguments), len(carry)
    return pack(results[:size], graph.carry_layouts), pack(results[size:], graph.result_layouts)


def _scan_adjoint(
    graph: StepGraph, constants: Tensors, carry: Tensors, stacked: Tensors, backwards: Tensor
) -> Any:
    _require_equal_lengths([backwards, *stacked])
    return scan(lambda c, t: _adjoint_step(graph, constants, c, stacked, t), carry, backwards)


def _adjoint_step(
    graph: StepGraph, constants: Tensors, carry: Tensors, stacked: Tensors, t: Tensor
) -> tuple[Tensors, Tensors]:
    """The adjoint step on packed tensors; it reads row ``t`` of the stacked ones."""
    carry_layouts, size = graph.adjoint_carry_layouts, len(carry)
    row_layouts = [graph.result_layouts[i] for i in (*graph.differentiable, *graph.saved)]
    # Rows are read here because scan's own option to go backwards would copy all of them first.
    rows = unpack([x.index_select(0, t).squeeze(0) for x in stacked], row_layouts)
    adjoints = graph.adjoint(*constants, *unpack(carry, carry_layouts), *rows)
    return pack(adjoints[:size], carry_layouts), pack(adjoints[size:], graph.source_layouts)


def _require_equal_lengths(tensors: Tensors) -> None:
    """Lets the compiler use one symbol for all lengths; it would use one per tensor otherwise."""
    for x in tensors[1:]:
        check_in_compiled_code(x.shape[0] == tensors[0].shape[0])
