"""Consecutive steps in which no episode ends, run by compiled loops forward and backward."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Self, final

import torch
from torch import Tensor, nn

from pgtoolkit.diagnostics.per_trajectory import LAYER_RULES
from pgtoolkit.envs.compiled.lookahead import Lookahead
from pgtoolkit.envs.compiled.policy_step import TracedPolicyStep
from pgtoolkit.envs.compiled.scan import CompiledScan
from pgtoolkit.envs.compiled.step_graph import floats
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.autograd_nodes import attach_outputs, policy_gradients

MIN_ENVS_FOR_STEP_PRODUCTS = 256
"""With at least so many environments a layer's gradient is summed from one matrix product per step.
It costs no more than one product over all steps, which would need the adjoints in the order of the
inputs: a copy of the largest tensors of the update."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class CompiledStep:
    """The compiled step of one policy in one environment."""

    traced: TracedPolicyStep
    scan: CompiledScan
    policy: Policy
    all_parameters: list[nn.Parameter]
    parameters: list[nn.Parameter]
    """The policy's parameters that require a gradient."""
    layers: list[nn.Module]
    """The policy's layer behind each recorded input."""

    @classmethod
    def of(cls, traced: TracedPolicyStep, scan: CompiledScan, policy: Policy) -> Self:
        """Looks up parameters and layers, once for all windows."""
        modules = dict(policy.named_modules())
        all_parameters = list(policy.parameters())
        parameters = [p for p in all_parameters if p.requires_grad]
        layers = [modules[name] for name in traced.layers]
        return cls(traced, scan, policy, all_parameters, parameters, layers)

    def constants(self) -> list[Tensor]:
        """The policy's parameters and buffers, as they are now."""
        return [p.detach() for p in self.all_parameters] + list(self.policy.buffers())


@final
@dataclasses.dataclass(eq=False)
class CompiledSegment:
    """``L`` steps that have been run, and what their adjoint needs.

    It implements ``pgtoolkit.rollouts.autograd_nodes.DifferentiableSegment``.
    """

    subject: ClassVar[str] = "the gradient of a compiled rollout"
    alternative: ClassVar[str] = "use steps that are not compiled (`unroll`, --compile never)"

    step: CompiledStep
    constants: list[Tensor]
    noise: Tensor
    """``[L, N, A]`` of the actions."""
    obs: Tensor
    """``[L, N, O]`` the policy's inputs."""
    results: list[Tensor]
    """``[L, N, ...]`` all results of the forward loop."""
    end: list[Tensor]
    """``[N, ...]`` the floating-point tensors of the state after the last step."""
    layer_inputs: list[Tensor]
    """``[L, N, in]`` of each call of a layer of the policy."""
    layer_adjoints: list[Tensor] = dataclasses.field(default_factory=list)
    """``[L, N, out]`` the adjoint of each call's output, the last step's first. Set by
    :meth:`adjoint`."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The policy's parameters that require a gradient."""
        return self.step.parameters

    def adjoint(
        self, start: Sequence[Tensor], needed: Sequence[bool], cotangents: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """The adjoints of the shift and of each start tensor; runs the compiled adjoint loop."""
        size = len(cotangents) - len(self.end)
        pairs = zip(cotangents[size:], self.end, strict=True)
        end = [torch.zeros_like(x) if c is None else c for c, x in pairs]
        by_start, sources = self.step.scan.adjoint(
            self.constants, end, list(cotangents[:size]), self.results
        )
        pre_action, *self.layer_adjoints = sources
        wanted = [x if need else None for x, need in zip(by_start, needed, strict=True)]
        return [_reverse_steps(pre_action), *wanted]

    def parameter_gradients(self, adjoint: Tensor) -> list[Tensor | None]:
        """The gradient of each parameter: one product per layer, over all steps.

        For ``y = W x`` it is ``sum_{t,i} delta_{t,i} x_{t,i}^T``. If a parameter belongs to a layer
        without such a rule, the policy is run once more on all observations instead.

        Args:
            adjoint: ``[L, N, A]`` of the pre-squash actions.
        """
        if not self.step.traced.layers_have_all_parameters:
            policy, parameters = self.step.policy, self.parameters
            return policy_gradients(policy, parameters, self.obs, self.noise, adjoint)
        gradients: dict[int, Tensor] = {}
        calls = zip(self.step.layers, self.layer_inputs, self.layer_adjoints, strict=True)
        for layer, inputs, delta in calls:
            for leaf, gradient in _layer_gradients(layer, inputs, delta).items():
                key = id(getattr(layer, leaf))
                gradients[key] = gradients[key] + gradient if key in gradients else gradient
        return [gradients.get(id(p)) for p in self.parameters]


@final
class SegmentOutputs(NamedTuple):
    """The results of a segment's steps."""

    segment: CompiledSegment
    differentiable: list[Tensor]
    """``[L, N, ...]`` observation, pre-squash action, action, reward, next observation."""
    log_prob: Tensor
    """``[L, N]``."""
    time_limit: Tensor
    """``[L, N]`` bool: the step reached the time limit. False at the last step."""
    terminated: Tensor
    """``[L, N]`` bool."""
    truncated: Tensor | None
    """``[L, N]`` bool: truncated by the environment itself; None if it never does."""
    end: list[Tensor]
    """``[N, ...]`` the tensors of the state after the last step, before any reset."""


def run_segment(
    step: CompiledStep, noise: Tensor, lookahead: Lookahead, state: list[Tensor]
) -> SegmentOutputs:
    """Runs the steps up to the first at which an episode ends otherwise than by the time limit.

    Args:
        step: the compiled step.
        noise: the noise ``[L, N, A]`` of the actions; at most ``L`` steps are run.
        lookahead: the random draws and time limits of these steps.
        state: the tensors of the state before the first step.
    """
    constants, graph = step.constants(), step.traced.graph
    inputs = [noise, lookahead.time_limit, *lookahead.start_states, *lookahead.process_noise]
    results = step.scan.forward(constants, [x.detach() for x in state], inputs)
    num_ends = 2 if step.traced.has_truncation else 1
    ended = torch.stack([results[i] for i in graph.auxiliary[2 : 2 + num_ends]]).any(0).any(-1)
    if bool(ended.any()):
        results = [x[: int(ended.float().argmax()) + 1] for x in results]
        # The caller makes the last step's reset, not the loop.
        results[graph.auxiliary[0]][-1] = False
    differentiable = [results[i] for i in graph.differentiable]
    time_limit, log_prob, terminated, *others = (results[i] for i in graph.auxiliary)
    truncated = others.pop(0) if step.traced.has_truncation else None
    end, layer_inputs = [x[-1] for x in others[: len(state)]], others[len(state) :]
    noise, obs = noise[: len(time_limit)], differentiable[0]
    segment = CompiledSegment(step, constants, noise, obs, results, floats(end), layer_inputs)
    return SegmentOutputs(segment, differentiable, log_prob, time_limit, terminated, truncated, end)


def attach(
    outputs: SegmentOutputs, shift: Tensor, start: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Gives a segment's outputs a graph whose backward pass is the compiled adjoint loop.

    Args:
        outputs: the segment's outputs, without a graph.
        shift: ``[L, N, A]`` zeros, added to the pre-squash actions; rows of a leaf.
        start: floating-point tensors of the state before the first step, with their graph.

    Returns:
        The differentiable results, and the floating-point tensors of the state after the last step.
    """
    segment, size = outputs.segment, len(outputs.differentiable)
    tensors = [*outputs.differentiable, *segment.end]
    attached = attach_outputs(segment, tensors, [True] * len(tensors), shift, start)
    return list(attached[:size]), list(attached[size:])


def _layer_gradients(layer: nn.Module, inputs: Tensor, delta: Tensor) -> dict[str, Tensor]:
    """A layer's gradient, summed over steps and environments: ``{parameter name: [*shape]}``.

    Args:
        layer: one with a gradient rule.
        inputs: ``[L, N, in]``.
        delta: ``[L, N, out]`` the adjoints of the outputs, the last step's first.
    """
    if type(layer) is nn.Linear:
        product = _product_by_step if inputs.shape[1] >= MIN_ENVS_FOR_STEP_PRODUCTS else _product
        bias = {} if layer.bias is None else {"bias": delta.sum((0, 1))}
        # The product with more columns than rows is several times faster.
        if inputs.shape[2] < delta.shape[2]:
            return {"weight": product(inputs, delta).t()} | bias
        return {"weight": product(delta, inputs)} | bias
    # The rules give one gradient per environment: all samples are passed as steps of a single one.
    rows = (x.reshape(-1, 1, x.shape[-1]) for x in (inputs, _reverse_steps(delta)))
    return {leaf: gradient[0] for leaf, gradient in LAYER_RULES[type(layer)](layer, *rows).items()}


def _product(left: Tensor, right: Tensor) -> Tensor:
    """``sum_{t,i} a_{L-t,i} b_{t,i}^T`` of ``[L, N, p]`` and ``[L, N, q]`` in opposite orders."""
    return _reverse_steps(left).flatten(0, 1).t() @ right.flatten(0, 1)


def _product_by_step(left: Tensor, right: Tensor) -> Tensor:
    """The sum of :func:`_product`, from one product for each step; it copies neither tensor."""
    lefts, rights = left.unbind(0), right.unbind(0)[::-1]
    total = lefts[0].t() @ rights[0]
    for a, b in zip(lefts[1:], rights[1:], strict=True):
        total.addmm_(a.t(), b)
    return total


def _reverse_steps(stacked: Tensor) -> Tensor:
    """``flip(0)``; this copies whole rows at once, ``flip`` copies entry by entry."""
    length = stacked.shape[0]
    return stacked.index_select(0, torch.arange(length - 1, -1, -1, device=stacked.device))
