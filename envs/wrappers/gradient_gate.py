"""Clips, decays or drops the gradient that comes back through the states."""

import dataclasses
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.envs.arguments import require_above, require_fraction
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import S, State, leaves_of, rebuild_state
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper

Leaves = tuple[Tensor, ...]
BackwardRule = Callable[[Leaves], Leaves]
"""Maps the adjoints of some tensors ``[N, ...]`` to those that are passed on."""


@final
class GradientGate(DifferentiableWrapper[S]):
    """Changes gradients but no value. With the defaults it only measures the gradients' norms.

    Let ``lambda_t = dJ/ds_t`` ``[N, S]`` be the adjoint of state ``s_t``, summed over observation,
    reward and next step. Every step passes on::

        lambda_t <- decay * lambda_t * min(1, clip_norm / |lambda_t|)

    row by row. ``|.|`` is the Euclidean norm over all floating-point tensors of the state (also
    over an observation or a reward, if the state contains one). The part of an action's derivative
    that comes through the next state is changed with it.

    **Dropping.** With ``drop_nonfinite`` the derivative of a transition, an observation or a reward
    is replaced by 0 in a row in which it, or the adjoint that came back to it, is infinite or NaN.
    For that environment it is as if a new trajectory began there: earlier actions get the gradient
    of the rewards up to there and of none after; later actions keep theirs. That is biased, as any
    cut of a trajectory, but in this row only: the other rows do not change by a bit. The mean over
    rows still includes the row, because the gradients of its later actions have been passed on
    before the non-finite number is found. Without ``drop_nonfinite`` agents stop with an error that
    names the step.

    Clipping and decay bias the gradient as well: they shorten its heavy tail, and neglect late
    rewards. Measure first (``environment/gate_largest_norm``), and prefer a shorter window.

    Args:
        env: the inner environment.
        clip_norm: the largest norm of a row of ``lambda_t``; None for no limit.
        decay: the factor in every step, from 0 to 1.
        drop_nonfinite: whether non-finite rows are replaced by 0.

    Raises:
        RequestError: ``clip_norm`` is not above 0, or ``decay`` not from 0 to 1.
    """

    def __init__(
        self,
        env: DifferentiableEnv[S],
        clip_norm: float | None = None,
        decay: float = 1.0,
        drop_nonfinite: bool = False,
    ) -> None:
        super().__init__(env)
        if clip_norm is not None:
            require_above("GradientGate", 0, clip_norm=clip_norm)
        require_fraction("GradientGate", decay=decay)
        self.clip_norm, self.decay, self.drop_nonfinite = clip_norm, decay, drop_nonfinite
        if (clip_norm is not None or decay < 1) and env.gradient.state == "exact":
            self.gradient = dataclasses.replace(
                env.gradient, state="approximate", method=f"{env.gradient.method}, gated"
            )
        self._reset_metrics()

    def transition(self, state: S, action: Tensor, noise: Tensor | None) -> S:
        state, action = self._drop_in_backward(state, action)
        after = self.env.transition(state, action, noise)
        gated: S = _with_backward_rule(self._clip_and_decay, after)[0]
        return gated

    def observation(self, state: S) -> Tensor:
        (state,) = self._drop_in_backward(state)
        return self.env.observation(state)

    def reward(self, state: S, action: Tensor, next_state: S) -> Tensor:
        state, action, next_state = self._drop_in_backward(state, action, next_state)
        return self.env.reward(state, action, next_state)

    def metrics(self) -> dict[str, Tensor]:
        """The inner metrics, and three more over the backward passes since the last call.

        - ``environment/gate_clipped``: the share of rows, over all steps, that were scaled down;
        - ``environment/gate_dropped``: the number of rows of derivatives that were dropped;
        - ``environment/gate_largest_norm``: the largest finite norm of a row of ``lambda_t``,
          before it is changed.
        """
        found = self.env.metrics()
        if self._rows_seen:
            found |= {
                "environment/gate_clipped": self._clipped / self._rows_seen,
                "environment/gate_dropped": self._dropped,
                "environment/gate_largest_norm": self._largest,
            }
        self._reset_metrics()
        return found

    def _reset_metrics(self) -> None:
        self._rows_seen = 0
        self._clipped = self._dropped = self._largest = torch.zeros((), dtype=torch.float64)

    def _drop_in_backward(self, *states: State) -> tuple[Any, ...]:
        return _with_backward_rule(self._drop, *states) if self.drop_nonfinite else states

    def _drop(self, adjoints: Leaves) -> Leaves:
        finite = torch.stack([_rows(adjoint).isfinite().all(1) for adjoint in adjoints]).all(0)
        self._dropped = self._dropped.to(finite.device) + (~finite).sum()
        # A where, never a product: 0 * inf is NaN.
        return tuple(torch.where(_like(finite, x), x, torch.zeros_like(x)) for x in adjoints)

    def _clip_and_decay(self, adjoints: Leaves) -> Leaves:
        if self.drop_nonfinite:
            adjoints = self._drop(adjoints)
        norm = row_norm(adjoints)
        factor = torch.full_like(norm, self.decay)
        if self.clip_norm is not None:
            over = norm > self.clip_norm
            factor = torch.where(over, self.decay * self.clip_norm / norm, factor)
            self._clipped = self._clipped.to(norm.device) + over.sum()
        self._rows_seen += norm.shape[0]
        largest = torch.where(norm.isfinite(), norm, torch.zeros_like(norm)).max()
        self._largest = torch.maximum(self._largest.to(norm.device), largest)
        return tuple(x * _like(factor, x).to(x.dtype) for x in adjoints)


def row_norm(tensors: Leaves) -> Tensor:
    """``[N]`` float64: the Euclidean norm of each row over all tensors ``[N, ...]`` together."""
    # In double precision the square of any float32 number is finite.
    rows = torch.cat([_rows(tensor).double() for tensor in tensors], 1)
    norm: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norm


def _with_backward_rule(rule: BackwardRule, *states: State) -> tuple[Any, ...]:
    """States of the same value; the backward pass applies the rule to their tensors' adjoints."""
    leaves = [leaves_of(state) for state in states]
    carrying = [x for part in leaves for x in part if x.requires_grad]
    if not carrying or not torch.is_grad_enabled():
        return states
    ruled = iter(_IdentityWithRule.apply(rule, *carrying))  # type: ignore[no-untyped-call]
    parts = [tuple(next(ruled) if x.requires_grad else x for x in part) for part in leaves]
    return tuple(
        rebuild_state(state, part[0] if isinstance(state, Tensor) else part)
        for state, part in zip(states, parts, strict=True)
    )


@final
class _IdentityWithRule(torch.autograd.Function):
    """The identity, whose backward pass applies a rule to all adjoints at once."""

    @staticmethod
    def forward(ctx: Any, rule: BackwardRule, *leaves: Tensor) -> Leaves:
        ctx.rule = rule
        return tuple(leaf.view_as(leaf) for leaf in leaves)

    @staticmethod
    def backward(ctx: Any, *adjoints: Any) -> Any:
        return None, *ctx.rule(adjoints)


def _rows(tensor: Tensor) -> Tensor:
    """``[N, ...]`` as ``[N, size]``, also for ``[N]``."""
    return tensor.unsqueeze(-1).flatten(1)


def _like(per_row: Tensor, tensor: Tensor) -> Tensor:
    """``[N]`` as ``[N, 1, ...]``, to broadcast against ``tensor`` ``[N, ...]``."""
    return per_row.view(-1, *[1] * (tensor.dim() - 1))
