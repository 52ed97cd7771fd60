"""One step of policy and environment as two graphs: the forward step, and its adjoint.

The step is run once on tensors without data. The operations that it runs are recorded as one graph,
together with those of its backward pass. The graph is then split in two. What does not depend on a
cotangent is the forward step; the rest is the adjoint step. Results of the forward step that the
adjoint step reads are saved. So the equations are written once, in the environment and the policy.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor, fx

from pgtoolkit.compiling import trace
from pgtoolkit.envs.compiled.layout import Layout

StepFunction = Callable[[list[Tensor], list[Tensor], list[Tensor]], "Step"]


class Step(NamedTuple):
    """The results of one step: tensors whose first axis is the environments."""

    carry: list[Tensor]
    """The state that the next step starts from; of the shapes and dtypes of this step's carry."""
    differentiable: list[Tensor]
    """Results that the caller may differentiate; the adjoint step takes a cotangent of each."""
    auxiliary: list[Tensor]
    """Results that are not differentiated."""
    sources: list[Tensor]
    """Tensors whose adjoints are wanted beside the carry's: inputs, or intermediate results."""


@final
class StepGraph(NamedTuple):
    """The graphs of the forward step and of the adjoint step.

    ``forward(*constants, *carry, *inputs)`` returns the next carry and then the *results*, in which
    no tensor occurs twice. ``differentiable``, ``auxiliary`` and ``saved`` are indices into them.

    ``adjoint(*constants, *adjoints of the next carry, *cotangents, *saved)`` returns the adjoints
    of the carry and then those of the sources, in which no tensor occurs twice either. ``sources``
    are indices into them. Only floating-point tensors of a carry have an adjoint.
    """

    forward: fx.GraphModule
    adjoint: fx.GraphModule
    is_float: list[bool]
    """For each tensor of the carry, whether it is floating-point and so has an adjoint."""
    differentiable: list[int]
    auxiliary: list[int]
    saved: list[int]
    sources: list[int]
    carry_layouts: list[Layout]
    input_layouts: list[Layout]
    result_layouts: list[Layout]
    source_layouts: list[Layout]

    @property
    def adjoint_carry_layouts(self) -> list[Layout]:
        """The layouts of the carry's adjoints."""
        pairs = zip(self.carry_layouts, self.is_float, strict=True)
        return [layout for layout, is_float in pairs if is_float]


def trace_step(
    step: StepFunction,
    constants: Sequence[Tensor],
    carry: Sequence[Tensor],
    inputs: Sequence[Tensor],
) -> StepGraph:
    """Traces a step and its adjoint.

    Args:
        step: pure, a function of constants, carry and inputs.
        constants: tensors that are the same at every step: parameters, buffers.
        carry: tensors that each step passes to the next.
        inputs: tensors that are new at every step; here those of one step.

    Raises:
        Exception: whatever torch raises where a step cannot be traced, for example because it
            reads a number out of a tensor.
    """
    arguments = [[leaf.detach() for leaf in group] for group in (constants, carry, inputs)]
    for leaf in (*arguments[1], *arguments[2]):
        leaf.requires_grad_(leaf.is_floating_point())
    is_float = [x.is_floating_point() for x in carry]
    counts: list[int] = []

    def step_with_adjoint(
        arguments: list[list[Tensor]], cotangents: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        result = step(*arguments)
        counts[:] = [len(x) for x in (result.carry, result.differentiable, result.auxiliary)]
        wanted = [*floats(arguments[1]), *result.sources]
        adjoints = _vector_jacobian_products(_outputs(result), wanted, cotangents)
        return [*result.carry, *result.differentiable, *result.auxiliary], adjoints

    cotangents = [torch.zeros_like(x) for x in _outputs(step(*arguments))]
    traced = trace(step_with_adjoint, arguments, cotangents)
    return _split(traced, len(constants), len(cotangents), counts, is_float)


def floats(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The floating-point tensors, which are those that have an adjoint."""
    return [x for x in tensors if x.is_floating_point()]


def _outputs(step: Step) -> list[Tensor]:
    """The results that have a cotangent."""
    return [*floats(step.carry), *step.differentiable]


def _vector_jacobian_products(
    outputs: list[Tensor], wanted: list[Tensor], cotangents: list[Tensor]
) -> list[Tensor]:
    """The adjoint of each wanted tensor; zeros if no output depends on it."""
    pairs = [(x, c) for x, c in zip(outputs, cotangents, strict=True) if x.requires_grad]
    differentiable, given = zip(*pairs, strict=True)
    adjoints = torch.autograd.grad(differentiable, wanted, given, allow_unused=True)
    return [torch.zeros_like(x) if a is None else a for x, a in zip(wanted, adjoints, strict=True)]


def _split(
    traced: fx.GraphModule,
    num_constants: int,
    num_cotangents: int,
    counts: list[int],
    is_float: list[bool],
) -> StepGraph:
    """Splits the graph of a step with its adjoint in two.

    Args:
        traced: maps constants, carry, inputs and cotangents to results and adjoints.
        num_constants: number of constants, its first arguments.
        num_cotangents: number of cotangents, its last arguments.
        counts: the numbers of its carry, differentiable and auxiliary results.
        is_float: for each tensor of the carry, whether it is floating-point.
    """
    for node in traced.graph.nodes:
        if node.target == torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
    traced.graph.eliminate_dead_code()
    nodes = list(traced.graph.nodes)
    arguments = [n for n in nodes if n.op == "placeholder"]
    num_forward, (num_carry, num_differentiable, _) = len(arguments) - num_cotangents, counts
    constants, cotangents = arguments[:num_constants], arguments[num_forward:]
    constant_nodes, adjoint_nodes = _dependent_nodes(nodes, constants, cotangents)
    outputs = list(nodes[-1].args[0])  # the tracer flattens (results, adjoints) to one list
    results, adjoints = outputs[: sum(counts)], outputs[sum(counts) :]
    carry, others = results[:num_carry], results[num_carry:]
    carry_adjoints, source_adjoints = adjoints[: sum(is_float)], adjoints[sum(is_float) :]
    saved = _saved_nodes(adjoints, adjoint_nodes, constant_nodes)
    unique_results = list(dict.fromkeys([*others, *saved]))
    unique_sources = list(dict.fromkeys(source_adjoints))
    index = {node: i for i, node in enumerate(unique_results)}
    return StepGraph(
        forward=_subgraph(
            traced,
            arguments[:num_forward],
            [n for n in nodes if n not in adjoint_nodes],
            [*carry, *unique_results],
        ),
        adjoint=_subgraph(
            traced,
            [*constants, *cotangents, *saved],
            [n for n in nodes if n in adjoint_nodes or n in constant_nodes],
            [*carry_adjoints, *unique_sources],
        ),
        is_float=is_float,
        differentiable=[index[n] for n in others[:num_differentiable]],
        auxiliary=[index[n] for n in others[num_differentiable:]],
        saved=[index[n] for n in saved],
        sources=[unique_sources.index(n) for n in source_adjoints],
        carry_layouts=_layouts(arguments[num_constants:][:num_carry]),
        input_layouts=_layouts(arguments[num_constants + num_carry : num_forward]),
        result_layouts=_layouts(unique_results),
        source_layouts=_layouts(unique_sources),
    )


def _layouts(nodes: list[fx.Node]) -> list[Layout]:
    return [Layout.of(n.meta["val"]) for n in nodes]


def _dependent_nodes(
    nodes: list[fx.Node], constants: list[fx.Node], cotangents: list[fx.Node]
) -> tuple[set[fx.Node], set[fx.Node]]:
    """The nodes that depend on constants alone, and those that depend on a cotangent."""
    constant_nodes, adjoint_nodes = set(constants), set(cotangents)
    for node in nodes:
        if node.op == "get_attr":
            constant_nodes.add(node)
        elif node.op == "call_function":
            if any(n in adjoint_nodes for n in node.all_input_nodes):
                adjoint_nodes.add(node)
            elif all(n in constant_nodes for n in node.all_input_nodes):
                constant_nodes.add(node)
    return constant_nodes, adjoint_nodes


def _saved_nodes(
    adjoints: list[fx.Node], adjoint_nodes: set[fx.Node], constant_nodes: set[fx.Node]
) -> list[fx.Node]:
    """The nodes of the forward step that the adjoints are computed from, except constants."""
    saved: dict[fx.Node, None] = {}
    visited, stack = set(), list(adjoints)
    while stack:
        node = stack.pop()
        if node in visited:
            continue
        visited.add(node)
        if node in adjoint_nodes:
            stack += node.all_input_nodes
        elif node not in constant_nodes:
            saved[node] = None
    return list(saved)


def _subgraph(
    root: fx.GraphModule, arguments: list[fx.Node], nodes: list[fx.Node], results: list[fx.Node]
) -> fx.GraphModule:
    """The nodes as a graph from arguments to results.

    A loop requires results that share no memory with each other or with an argument, so a result
    that does is cloned.

    Args:
        root: the graph that the nodes are from; it holds their constant tensors.
        arguments: nodes that become the placeholders.
        nodes: all that the results need.
        results: nodes that the graph returns, in this order.
    """
    graph, copies = fx.Graph(), {}
    for node in arguments:
        copies[node] = graph.placeholder(node.name)
    for node in nodes:
        if node not in copies and node.op in ("call_function", "get_attr"):
            copies[node] = graph.node_copy(node, lambda old: copies[old])
    outputs: list[fx.Node] = []
    for node in results:
        copy = copies[node]
        if copy in outputs or _may_alias(copy):
            copy = graph.call_function(torch.ops.aten.clone.default, (copy,))
        outputs.append(copy)
    graph.output(tuple(outputs))
    graph.eliminate_dead_code()
    graph.lint()
    return fx.GraphModule(root, graph)


def _may_alias(node: fx.Node) -> bool:
    """Whether the tensor may share memory with another, because it is an argument or a view."""
    schema = getattr(node.target, "_schema", None)
    return schema is None or any(r.alias_info is not None for r in schema.returns)
