"""Autograd nodes for steps of a rollout whose backward pass is computed by the segment itself.

A segment is ``K`` consecutive steps, already run, whose graph was not kept. It gets two nodes: one
from the action shift and the start state to the outputs, and one from the policy's parameters to
zeros that are added to the shift. The second is separate so that a caller who asks only for the
gradient with respect to the actions does not pay for that of the parameters.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol, final

import torch
from torch import Tensor, nn

from pgtoolkit.policies.policy import Policy
from pgtoolkit.second_derivatives import refuse_second_derivative

Leaves = tuple[Tensor, ...]


class DifferentiableSegment(Protocol):
    """``K`` steps that have been run, and their vector-Jacobian products."""

    subject: ClassVar[str]
    """Name of the gradient in the error message about a second derivative."""
    alternative: ClassVar[str]
    """Advice at the end of that error message: another way to compute the gradient."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The policy's parameters that require a gradient."""

    def adjoint(
        self, start: Sequence[Tensor], needed: Sequence[bool], cotangents: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """The adjoint ``[K, N, A]`` of the shift, then that of each start tensor.

        Args:
            start: the tensors passed to :func:`attach_outputs`.
            needed: for each tensor in ``start``, whether its adjoint is needed.
            cotangents: for each output its cotangent; None stands for zeros.
        """

    def parameter_gradients(self, adjoint: Tensor) -> list[Tensor | None]:
        """The gradient of each parameter, from the adjoint ``[K, N, A]`` of the pre-squash actions.

        It is called after :meth:`adjoint`, in the same backward pass.
        """


def attach_outputs(
    segment: DifferentiableSegment,
    outputs: Sequence[Tensor],
    differentiable: Iterable[bool],
    shift: Tensor,
    start: Sequence[Tensor],
) -> Leaves:
    """The outputs of a segment as functions of shift, start and the policy's parameters.

    Args:
        segment: computes the backward pass.
        outputs: results of the steps, without a graph.
        differentiable: whether each output depends on shift, start or parameters.
        shift: ``[K, N, A]`` zeros, added to the pre-squash actions; rows of a leaf.
        start: floating-point tensors that the steps start from, with their graph.

    Raises:
        RequestError: backward was called with ``create_graph=True``; raised there.
    """
    # Only the shape is used: the node must not lie on a path from the shift, or every gradient with
    # respect to the actions would run it.
    zeros = _Parameters.apply(segment, shift.detach(), *segment.parameters)  # type: ignore[no-untyped-call]
    attached: Leaves = _Outputs.apply(  # type: ignore[no-untyped-call]
        segment, outputs, tuple(differentiable), shift + zeros, *start
    )
    return attached


def policy_gradients(
    policy: Policy, parameters: Sequence[nn.Parameter], obs: Tensor, noise: Tensor, adjoint: Tensor
) -> list[Tensor | None]:
    """The gradient of each parameter, by running the policy once more on all observations.

    Args:
        policy: maps observations ``[K, N, O]`` to actions.
        parameters: the policy's parameters that require a gradient.
        obs: the observations ``[K, N, O]``.
        noise: the noise ``[K, N, A]`` of the actions.
        adjoint: the adjoints ``[K, N, A]`` of the pre-squash actions.
    """
    with torch.enable_grad():
        pre_action = policy(obs).pre_action(noise)
    return list(torch.autograd.grad(pre_action, parameters, adjoint, allow_unused=True))


@final
class _Outputs(torch.autograd.Function):
    """The outputs of a segment as a function of shift and start."""

    @staticmethod
    def forward(
        ctx: Any,
        segment: DifferentiableSegment,
        outputs: Sequence[Tensor],
        differentiable: tuple[bool, ...],
        *inputs: Tensor,
    ) -> Leaves:
        ctx.segment, start = segment, inputs[1:]
        ctx.num_start = len(start)
        ctx.set_materialize_grads(False)
        # Saving the parameters makes torch raise if one changes before the backward pass.
        ctx.save_for_backward(*start, *segment.parameters)
        results = tuple(x.detach() for x in outputs)
        pairs = zip(results, differentiable, strict=True)
        ctx.mark_non_differentiable(*(x for x, has_gradient in pairs if not has_gradient))
        return results

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        refuse_second_derivative(ctx.segment.subject, ctx.segment.alternative)
        start, needed = ctx.saved_tensors[: ctx.num_start], ctx.needs_input_grad[4:]
        return None, None, None, *ctx.segment.adjoint(start, needed, cotangents)


@final
class _Parameters(torch.autograd.Function):
    """Zeros ``[K, N, A]`` through which the adjoint of the actions reaches the parameters."""

    @staticmethod
    def forward(
        ctx: Any, segment: DifferentiableSegment, shift: Tensor, *parameters: Tensor
    ) -> Tensor:
        ctx.segment = segment
        ctx.save_for_backward(*parameters)
        return torch.zeros_like(shift)

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> Any:
        refuse_second_derivative(ctx.segment.subject, ctx.segment.alternative)
        # Reading the saved parameters raises if one has changed.
        segment, _ = ctx.segment, ctx.saved_tensors
        return None, None, *segment.parameter_gradients(adjoint)
