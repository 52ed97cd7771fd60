"""The forward and adjoint graphs of a traced step."""

import torch
from torch import Tensor

from pgtoolkit.envs.compiled.step_graph import Step, trace_step


def test_the_adjoint_of_a_worked_example() -> None:
    """``c' = k c^2 + x`` with result ``c'``: dc = 2 k c (dc' + dr), dx = dc' + dr."""

    def step(constants: list[Tensor], carry: list[Tensor], inputs: list[Tensor]) -> Step:
        after = constants[0] * carry[0] ** 2 + inputs[0]
        return Step(carry=[after], differentiable=[after * 1.0], auxiliary=[], sources=[inputs[0]])

    k, c, x = (torch.tensor([v]) for v in (3.0, 2.0, 0.5))
    graph = trace_step(step, [k], [c], [x])
    results = graph.forward(k, c, x)
    assert results[0].item() == 12.5 and results[1 + graph.differentiable[0]].item() == 12.5
    saved = [results[1 + i] for i in graph.saved]
    by_carry, *sources = graph.adjoint(k, torch.tensor([1.0]), torch.tensor([10.0]), *saved)
    assert by_carry.item() == 2 * 3 * 2 * 11
    assert sources[graph.sources[0]].item() == 11


def test_a_tensor_that_the_step_closes_over_is_a_constant() -> None:
    matrix = torch.tensor([[1.0, 2.0], [3.0, 4.0]])

    def step(constants: list[Tensor], carry: list[Tensor], inputs: list[Tensor]) -> Step:
        after = carry[0] @ matrix.t()
        return Step(carry=[after], differentiable=[after.sum(-1)], auxiliary=[], sources=[])

    start = torch.tensor([[1.0, 1.0]])
    graph = trace_step(step, [], [start], [torch.zeros(1)])
    assert graph.forward(start, torch.zeros(1))[0].tolist() == [[3.0, 7.0]]
    (by_carry,) = graph.adjoint(torch.zeros(1, 2), torch.ones(1))
    assert by_carry.tolist() == [[4.0, 6.0]]
