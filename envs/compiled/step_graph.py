"""One step of policy and environment as two graphs: forward, and its adjoint.

The step is run once on stand-ins for tensors, and what it did is written down as a graph, together
with what automatic differentiation did behind it. The graph is then split: what does not depend on
an adjoint is the forward step, the rest is the adjoint step, and what the second needs of the first
is saved. So the equations have one implementation, the environment's own and the policy's.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, final

import torch
import torch.utils._pytree
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from pgtoolkit.compiling import FASTER, tracing
from pgtoolkit.envs.compiled.layout import Form

Function = Callable[[list[Tensor], list[Tensor], list[Tensor]], "Step"]


class Step(NamedTuple):
    """What one step gives: tensors whose first axis is the environments."""

    carry: list[Tensor]
    """What the next step starts from; like the carry that this one started from."""
    graded: list[Tensor]
    """Results whose adjoints may come from outside."""
    plain: list[Tensor]
    """Results without one."""
    sources: list[Tensor]
    """Whose adjoints are wanted, beside those of the carry: inputs or tensors on the way."""


@final
class StepGraph(NamedTuple):
    """The two graphs, each a function of constants, carry and what is new at every step.

    ``forward(*constants, *carry, *given)`` gives the carry and then other results, each once: the
    three lists of places say which are graded, plain, or read by the adjoint step.
    ``adjoint(*constants, *carry adjoints, *graded adjoints, *saved)`` gives the adjoints of the
    carry's floating-point tensors, and then, each once, those of the sources.
    """

    forward: fx.GraphModule
    adjoint: fx.GraphModule
    floating: list[bool]
    """Which tensors of the carry have an adjoint."""
    graded: list[int]
    plain: list[int]
    saved: list[int]
    sources: list[int]
    carry: list[Form]
    """How a loop holds the carry."""
    given: list[Form]
    """How it holds what is new at every step."""
    results: list[Form]
    """How it holds the forward step's results but the carry, each once."""
    adjoints: list[Form]
    """How it holds the sources' adjoints, each once."""

    @property
    def adjoint_carry(self) -> list[Form]:
        """How it holds the carry's adjoints."""
        return [form for form, is_float in zip(self.carry, self.floating, strict=True) if is_float]


def trace_step(
    step: Function, constants: Sequence[Tensor], carry: Sequence[Tensor], given: Sequence[Tensor]
) -> StepGraph:
    """Traces a step on tensors like these.

    Args:
        step: pure, from constants, carry and what is new.
        constants: the same at every step: parameters, buffers.
        carry: from step to step.
        given: new at every step, as one step sees it.

    Raises:
        Exception: whatever torch raises where a step cannot be traced, as when it reads a number
            out of a tensor.
    """
    inputs = [[leaf.detach() for leaf in group] for group in (constants, carry, given)]
    for leaf in (*inputs[1], *inputs[2]):
        leaf.requires_grad_(leaf.is_floating_point())
    sizes: list[int] = []

    def both(
        inputs: list[list[Tensor]], adjoints: list[Tensor] | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        found = step(*inputs)
        before, after = floats(inputs[1]), floats(found.carry)
        sizes[:] = len(found.carry), len(found.graded), len(found.plain), len(before)
        results, wanted = [*after, *found.graded], [*before, *found.sources]
        if adjoints is None:
            return results, wanted
        gradients = _gradients(results, wanted, adjoints)
        return [*found.carry, *found.graded, *found.plain], gradients

    adjoints = [torch.zeros_like(x) for x in both(inputs, None)[0]]
    # Tensors that the step closes over, as the matrices of a linear system, become constants.
    trace = make_fx(
        both, decomposition_table=FASTER, tracing_mode="fake", _allow_non_fake_inputs=True
    )
    floating = [x.is_floating_point() for x in carry]
    with tracing():
        traced = trace(inputs, adjoints)
    return _split(traced, len(constants), len(adjoints), sizes, floating)


def floats(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Those with an adjoint."""
    return [x for x in tensors if x.is_floating_point()]


def _gradients(results: list[Tensor], wanted: list[Tensor], adjoints: list[Tensor]) -> list[Tensor]:
    """Vector-Jacobian products, zeros where nothing depends."""
    pairs = [(x, a) for x, a in zip(results, adjoints, strict=True) if x.requires_grad]
    outputs, given = zip(*pairs, strict=True)
    found = torch.autograd.grad(outputs, wanted, given, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True)]


def _split(
    traced: fx.GraphModule,
    num_constants: int,
    num_adjoints: int,
    sizes: list[int],
    floating: list[bool],
) -> StepGraph:
    """The graph's two halves."""
    for node in traced.graph.nodes:
        if node.target == torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
    traced.graph.eliminate_dead_code()
    nodes = list(traced.graph.nodes)
    inputs = [n for n in nodes if n.op == "placeholder"]
    num_forward = len(inputs) - num_adjoints
    constants, adjoints = inputs[:num_constants], inputs[num_forward:]
    fixed, behind = _reach(nodes, constants, adjoints)
    leaves = torch.utils._pytree.tree_leaves(nodes[-1].args)
    num_carry, num_graded, num_plain, num_before = sizes
    carry, others = leaves[:num_carry], leaves[num_carry : num_carry + num_graded + num_plain]
    gradients = leaves[num_carry + len(others) :]
    saved = _needed(gradients, behind, fixed)
    unique = list(dict.fromkeys([*others, *saved]))
    sources = list(dict.fromkeys(gradients[num_before:]))
    places = {node: place for place, node in enumerate(unique)}
    forward = [n for n in nodes if n not in behind]
    adjoint = [n for n in nodes if n in behind or n in fixed]
    return StepGraph(
        forward=_extract(traced, inputs[:num_forward], forward, [*carry, *unique]),
        adjoint=_extract(
            traced, [*constants, *adjoints, *saved], adjoint, [*gradients[:num_before], *sources]
        ),
        floating=floating,
        graded=[places[n] for n in others[:num_graded]],
        plain=[places[n] for n in others[num_graded:]],
        saved=[places[n] for n in saved],
        sources=[sources.index(n) for n in gradients[num_before:]],
        carry=_forms(inputs[num_constants:][:num_carry]),
        given=_forms(inputs[num_constants + num_carry : num_forward]),
        results=_forms(unique),
        adjoints=_forms(sources),
    )


def _forms(nodes: list[fx.Node]) -> list[Form]:
    return [Form.of(n.meta["val"]) for n in nodes]


def _reach(
    nodes: list[fx.Node], constants: list[fx.Node], adjoints: list[fx.Node]
) -> tuple[set[fx.Node], set[fx.Node]]:
    """What depends on constants alone, and what depends on an adjoint."""
    fixed, behind = set(constants), set(adjoints)
    for node in nodes:
        if node.op == "get_attr":
            fixed.add(node)
        elif node.op == "call_function":
            if any(n in behind for n in node.all_input_nodes):
                behind.add(node)
            elif all(n in fixed for n in node.all_input_nodes):
                fixed.add(node)
    return fixed, behind


def _needed(gradients: list[fx.Node], behind: set[fx.Node], fixed: set[fx.Node]) -> list[fx.Node]:
    """What the adjoint half reads of the forward half."""
    found: dict[fx.Node, None] = {}
    seen, stack = set(), list(gradients)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in behind:
            stack += node.all_input_nodes
        elif node not in fixed:
            found[node] = None
    return list(found)


def _extract(
    owner: fx.GraphModule, inputs: list[fx.Node], nodes: list[fx.Node], results: list[fx.Node]
) -> fx.GraphModule:
    """A graph of its own: the inputs become its placeholders. No result is an alias."""
    graph, copies = fx.Graph(), {}
    for node in inputs:
        copies[node] = graph.placeholder(node.name)
    for node in nodes:
        if node not in copies and node.op in ("call_function", "get_attr"):
            copies[node] = graph.node_copy(node, lambda old: copies[old])
    outputs: list[fx.Node] = []
    for node in results:
        copy = copies[node]
        if copy in outputs or _is_alias(copy):
            copy = graph.call_function(torch.ops.aten.clone.default, (copy,))
        outputs.append(copy)
    graph.output(tuple(outputs))
    graph.eliminate_dead_code()
    graph.lint()
    return fx.GraphModule(owner, graph)


def _is_alias(node: fx.Node) -> bool:
    """Whether it may share memory with another tensor: an input, or a view."""
    schema = getattr(node.target, "_schema", None)
    return schema is None or any(r.alias_info is not None for r in schema.returns)
