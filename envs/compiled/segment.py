"""Some steps in which no episode ends, as one node of the graph, forward and adjoint compiled."""

import dataclasses
from typing import Any, NamedTuple, Self, final

import torch
from torch import Tensor, nn

from pgtoolkit.diagnostics.per_trajectory import RULES
from pgtoolkit.envs.compiled.lookahead import Ahead
from pgtoolkit.envs.compiled.policy_step import TracedPolicyStep
from pgtoolkit.envs.compiled.scan import Scan
from pgtoolkit.envs.compiled.step_graph import floats
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.recompute import refuse_second_derivative


@final
@dataclasses.dataclass(frozen=True, eq=False)
class CompiledStep:
    """A step of one policy in one environment, ready to be taken."""

    traced: TracedPolicyStep
    scan: Scan
    policy: Policy
    all_parameters: list[nn.Parameter]
    parameters: list[nn.Parameter]
    """Those that learn."""
    layers: list[nn.Module]
    """The policy's layer behind each recorded input."""

    @classmethod
    def of(cls, traced: TracedPolicyStep, scan: Scan, policy: Policy) -> Self:
        """With what is looked up once."""
        modules = dict(policy.named_modules())
        everything = list(policy.parameters())
        parameters = [p for p in everything if p.requires_grad]
        layers = [modules[name] for name in traced.layers]
        return cls(traced, scan, policy, everything, parameters, layers)

    def constants(self) -> list[Tensor]:
        """The policy's parameters and buffers, as they are now."""
        return [p.detach() for p in self.all_parameters] + list(self.policy.buffers())


@final
@dataclasses.dataclass(eq=False)
class Stretch:
    """``L`` steps that were taken, and what their adjoint needs."""

    step: CompiledStep
    constants: list[Tensor]
    noise: Tensor
    obs: Tensor
    """``[L, N, O]`` what the policy saw."""
    results: list[Tensor]
    """``[L, N, ...]`` all that the forward loop gave."""
    inputs: list[Tensor]
    """``[L, N, ...]`` what went into each layer of the policy."""
    deltas: list[Tensor] = dataclasses.field(default_factory=list)
    """``[L, N, ...]`` adjoints of what came out of each, once the adjoint steps have been taken:
    the last step's first."""

    def adjoint(
        self, graded: list[Tensor | None], end: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """The adjoints of the pre-squash actions ``[L, N, A]`` and of the state at the start."""
        scan = self.step.scan
        start, sources = scan.adjoint(self.constants, end, graded, self.results)
        shift, *self.deltas = sources
        return _turned_round(shift), start

    def parameter_gradients(self, adjoint: Tensor) -> list[Tensor | None]:
        """The gradient of the policy's parameters: one product per layer, over all steps.

        For ``y = W x`` it is ``sum_{t,i} delta_{t,i} x_{t,i}^T``. Where a layer has no such rule,
        the policy is run once more on all observations.

        Args:
            adjoint: ``[L, N, A]`` of the pre-squash actions.
        """
        parameters = self.step.parameters
        if not self.step.traced.ruled:
            with torch.enable_grad():
                pre_action = self.step.policy(self.obs).pre_action(self.noise)
            return list(torch.autograd.grad(pre_action, parameters, adjoint, allow_unused=True))
        found: dict[int, Tensor] = {}
        for layer, inputs, delta in zip(self.step.layers, self.inputs, self.deltas, strict=True):
            for leaf, gradient in _gradients(layer, inputs, delta).items():
                key = id(getattr(layer, leaf))
                found[key] = found[key] + gradient if key in found else gradient
        return [found.get(id(p)) for p in parameters]


WIDE = 256
"""Trajectories from which on a product for each step costs no more than one over all steps, which
needs the adjoints in the order of the inputs: a copy of the largest tensors that there are."""


def _gradients(layer: nn.Module, inputs: Tensor, backwards: Tensor) -> dict[str, Tensor]:
    """A layer's gradient, summed over steps and trajectories: ``{leaf: [*shape]}``.

    Args:
        layer: has a rule.
        inputs: ``[L, N, in]``.
        backwards: ``[L, N, out]`` the outputs' adjoints, the last step's first.
    """
    if type(layer) is nn.Linear:
        product = _product_by_step if inputs.shape[1] >= WIDE else _product
        bias = {} if layer.bias is None else {"bias": backwards.sum((0, 1))}
        # The product with more columns than rows is several times faster.
        if inputs.shape[2] < backwards.shape[2]:
            return {"weight": product(inputs, backwards).t()} | bias
        return {"weight": product(backwards, inputs)} | bias
    # All steps of all trajectories as the steps of one.
    rows = (x.reshape(-1, 1, x.shape[-1]) for x in (inputs, _turned_round(backwards)))
    return {leaf: gradient[0] for leaf, gradient in RULES[type(layer)](layer, *rows).items()}


def _product(narrow: Tensor, wide: Tensor) -> Tensor:
    """``sum_{t,i} a_{t,i} b_{t,i}^T`` of two stacks in opposite orders, as one product."""
    return _turned_round(narrow).flatten(0, 1).t() @ wide.flatten(0, 1)


def _product_by_step(narrow: Tensor, wide: Tensor) -> Tensor:
    """The same as a product for each step: neither is copied."""
    left, right = narrow.unbind(0), wide.unbind(0)[::-1]
    total = left[0].t() @ right[0]
    for a, b in zip(left[1:], right[1:], strict=True):
        total.addmm_(a.t(), b)
    return total


def _turned_round(stacked: Tensor) -> Tensor:
    """The first step's last: as ``flip(0)``, which goes number by number, but by whole rows."""
    length = stacked.shape[0]
    return stacked.index_select(0, torch.arange(length - 1, -1, -1, device=stacked.device))


@final
class Taken(NamedTuple):
    """What the steps of a stretch gave."""

    stretch: Stretch
    graded: list[Tensor]
    """``[L, N, ...]`` observation, pre-action, action, reward, next observation."""
    log_prob: Tensor
    limits: Tensor
    """``[L, N]`` bool: the time limits of all steps but the last."""
    terminated: Tensor
    cut: Tensor | None
    end: list[Tensor]
    """The tensors of the state that they led to, before any reset."""


def take(step: CompiledStep, noise: Tensor, ahead: Ahead, state: list[Tensor]) -> Taken:
    """Takes the steps, at most up to the first at which an episode ends by itself.

    Args:
        step: compiled.
        noise: ``[L, N, A]`` of the actions.
        ahead: of these steps.
        state: the tensors of the state that they start from.
    """
    constants, graph = step.constants(), step.traced.graph
    given = [noise, ahead.truncated, *ahead.fresh, *ahead.noise]
    results = step.scan.forward(constants, [x.detach() for x in state], given)
    num_ends = 2 if step.traced.cuts else 1
    ended = torch.stack([results[i] for i in graph.plain[2 : 2 + num_ends]]).any(0).any(-1)
    if bool(ended.any()):
        results = [x[: int(ended.float().argmax()) + 1] for x in results]
        # The last step's reset is not the loop's.
        results[graph.plain[0]][-1] = False
    graded, plain = ([results[i] for i in places] for places in (graph.graded, graph.plain))
    limits, log_prob, terminated, *others = plain
    cut = others.pop(0) if step.traced.cuts else None
    end, inputs = [x[-1] for x in others[: len(state)]], others[len(state) :]
    stretch = Stretch(step, constants, noise[: len(limits)], graded[0], results, inputs)
    return Taken(stretch, graded, log_prob, limits, terminated, cut, end)


def attach(taken: Taken, shift: Tensor, start: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Hangs what the steps gave on nodes that take the adjoint steps in backward.

    Args:
        taken: the steps.
        shift: ``[L, N, A]`` zeros, the leaf's rows.
        start: floating-point tensors of the state that they started from, with their graph.

    Returns:
        The graded results, and the floating-point tensors of the state that they led to.
    """
    stretch, graded, end = taken.stretch, taken.graded, floats(taken.end)
    zeros = _Parameters.apply(stretch, shift.detach(), *stretch.step.parameters)  # type: ignore[no-untyped-call]
    results = _Steps.apply(stretch, graded, end, shift + zeros, *start)  # type: ignore[no-untyped-call]
    return list(results[: len(graded)]), list(results[len(graded) :])


@final
class _Steps(torch.autograd.Function):
    """The steps as a function of the perturbation and of the state at their start."""

    @staticmethod
    def forward(
        ctx: Any, stretch: Stretch, graded: list[Tensor], end: list[Tensor], *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        # The parameters only so that a change before the backward pass is noticed.
        ctx.save_for_backward(*stretch.step.parameters)
        ctx.stretch, ctx.num_graded, ctx.end = stretch, len(graded), end
        ctx.set_materialize_grads(False)
        return tuple(x.view_as(x) for x in (*graded, *end))

    @staticmethod
    def backward(ctx: Any, *adjoints: Tensor | None) -> Any:
        refuse_second_derivative()
        stretch, _ = ctx.stretch, ctx.saved_tensors
        graded, given = list(adjoints[: ctx.num_graded]), adjoints[ctx.num_graded :]
        pairs = zip(given, ctx.end, strict=True)
        end = [torch.zeros_like(x) if a is None else a for a, x in pairs]
        shift, start = stretch.adjoint(graded, end)
        needed = zip(start, ctx.needs_input_grad[4:], strict=True)
        return None, None, None, shift, *(x if need else None for x, need in needed)


@final
class _Parameters(torch.autograd.Function):
    """Zeros, through which the steps reach the policy's parameters.

    A node of its own, so that who asks for the action gradient alone does not pay for theirs.
    """

    @staticmethod
    def forward(ctx: Any, stretch: Stretch, shift: Tensor, *parameters: Tensor) -> Tensor:
        ctx.stretch = stretch
        ctx.save_for_backward(*parameters)
        return torch.zeros_like(shift)

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> Any:
        refuse_second_derivative()
        stretch, _ = ctx.stretch, ctx.saved_tensors
        return None, None, *stretch.parameter_gradients(adjoint)
