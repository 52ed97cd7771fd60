"""A gate on the gradient that comes back through the states: clip, damp, drop what is broken."""

import dataclasses
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import S, State, rebuild_state
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper
from pgtoolkit.errors import RequestError

Leaves = tuple[Tensor, ...]

Rule = Callable[[Leaves], Leaves]
"""From the adjoints of some tensors ``[N, ...]`` to those that are passed on."""


@final
class GradientGate(DifferentiableWrapper[S]):
    """Changes gradients and no value. With the defaults it changes nothing, and measures.

    With ``lambda_t = dJ/ds_t`` ``[N, S]``, the adjoint that has come back to state ``s_t`` from
    observation, reward and next step together, every step passes on::

        lambda_t <- decay * lambda_t * min(1, clip_norm / |lambda_t|)

    row by row, ``|.|`` the Euclidean norm over all floating-point tensors of the state (also over
    an observation or a reward, if the state carries one). An action's own derivative by way of the
    state that it leads to is gated with it.

    **Dropping.** With ``drop_nonfinite`` the derivative of a transition, an observation or a reward
    is replaced by 0 in a row in which it, or what came back to it, is infinite or NaN. For that
    environment it is as if a new trajectory began there: the actions before it get the gradient of
    the rewards before it, and none of those after; the actions after it keep theirs. That is
    biased, like any cut of a trajectory, in this row only; the other rows keep every bit. Their
    mean is still over all of them. The later actions' gradients have been given out when the break
    is found, so the row cannot be taken out as a whole here. Without ``drop_nonfinite`` agents stop
    with an error that names the step.

    Clipping and decay bias the gradient as well: they trade a heavy tail against a forgotten
    future. Measure first (``environment/gate_largest_norm``), and prefer a shorter window.

    Args:
        env: the inner environment.
        clip_norm: the largest norm that a row of ``lambda_t`` may keep; None for no limit.
        decay: the factor of every step, from 0 to 1.
        drop_nonfinite: as above.

    Raises:
        RequestError: the norm is not above 0, or the decay not from 0 to 1.
    """

    def __init__(
        self,
        env: DifferentiableEnv[S],
        clip_norm: float | None = None,
        decay: float = 1.0,
        drop_nonfinite: bool = False,
    ) -> None:
        super().__init__(env)
        if clip_norm is not None and not clip_norm > 0:
            raise RequestError(f"GradientGate's clip_norm is {clip_norm}: it must be above 0")
        if not 0 <= decay <= 1:
            raise RequestError(f"GradientGate's decay is {decay}: it must be from 0 to 1")
        self.clip_norm, self.decay, self.drop_nonfinite = clip_norm, decay, drop_nonfinite
        if (clip_norm is not None or decay < 1) and env.gradient.state == "exact":
            self.gradient = dataclasses.replace(
                env.gradient, state="approximate", method=f"{env.gradient.method}, gated"
            )
        self._seen = 0
        self._clipped = self._dropped = self._largest = torch.zeros((), dtype=torch.float64)

    def transition(self, state: S, action: Tensor, noise: Tensor | None) -> S:
        state, action = self._dropping(state, action)
        after: S = _with_rule(self._gate, self.env.transition(state, action, noise))[0]
        return after

    def observation(self, state: S) -> Tensor:
        (state,) = self._dropping(state)
        return self.env.observation(state)

    def reward(self, state: S, action: Tensor, next_state: S) -> Tensor:
        state, action, next_state = self._dropping(state, action, next_state)
        return self.env.reward(state, action, next_state)

    def metrics(self) -> dict[str, Tensor]:
        """Of the backward passes since the last call.

        - ``environment/gate_clipped``: the share of rows, over all steps, that were scaled down;
        - ``environment/gate_dropped``: how many rows of derivatives were dropped;
        - ``environment/gate_largest_norm``: of ``lambda_t``, before the gate; finite rows only.
        """
        found = self.env.metrics()
        if self._seen:
            found |= {
                "environment/gate_clipped": self._clipped / self._seen,
                "environment/gate_dropped": self._dropped,
                "environment/gate_largest_norm": self._largest,
            }
        self._seen = 0
        self._clipped = self._dropped = self._largest = torch.zeros((), dtype=torch.float64)
        return found

    def _dropping(self, *states: State) -> tuple[Any, ...]:
        return _with_rule(self._drop, *states) if self.drop_nonfinite else states

    def _drop(self, adjoints: Leaves) -> Leaves:
        finite = torch.stack([_rows(adjoint).isfinite().all(1) for adjoint in adjoints]).all(0)
        self._dropped = self._dropped.to(finite.device) + (~finite).sum()
        # A where, never a product: 0 * inf is NaN.
        return tuple(torch.where(_like(finite, x), x, torch.zeros_like(x)) for x in adjoints)

    def _gate(self, adjoints: Leaves) -> Leaves:
        if self.drop_nonfinite:
            adjoints = self._drop(adjoints)
        norm = row_norm(adjoints)
        factor = torch.full_like(norm, self.decay)
        if self.clip_norm is not None:
            over = norm > self.clip_norm
            factor = torch.where(over, self.decay * self.clip_norm / norm, factor)
            self._clipped = self._clipped.to(norm.device) + over.sum()
        self._seen += norm.shape[0]
        largest = torch.where(norm.isfinite(), norm, torch.zeros_like(norm)).max()
        self._largest = torch.maximum(self._largest.to(norm.device), largest)
        return tuple(x * _like(factor, x).to(x.dtype) for x in adjoints)


def row_norm(tensors: Leaves) -> Tensor:
    """``[N]`` float64: the Euclidean norm of each row, over all tensors ``[N, ...]`` together."""
    # In double precision the square of any float32 is finite.
    rows = torch.cat([_rows(tensor).double() for tensor in tensors], 1)
    norm: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norm


def _with_rule(rule: Rule, *states: State) -> tuple[Any, ...]:
    """The same states; in backward the rule has the adjoints of all their tensors, together."""
    leaves = [(s,) if isinstance(s, Tensor) else tuple(s) for s in states]
    carrying = [x for part in leaves for x in part if x.requires_grad]
    if not carrying or not torch.is_grad_enabled():
        return states
    gated = iter(_Identity.apply(rule, *carrying))  # type: ignore[no-untyped-call]
    parts = [tuple(next(gated) if x.requires_grad else x for x in part) for part in leaves]
    return tuple(
        rebuild_state(state, part[0] if isinstance(state, Tensor) else part)
        for state, part in zip(states, parts, strict=True)
    )


@final
class _Identity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rule: Rule, *leaves: Tensor) -> Leaves:
        ctx.rule = rule
        return tuple(leaf.view_as(leaf) for leaf in leaves)

    @staticmethod
    def backward(ctx: Any, *adjoints: Any) -> Any:
        return None, *ctx.rule(adjoints)


def _rows(tensor: Tensor) -> Tensor:
    return tensor.unsqueeze(-1).flatten(1)


def _like(per_row: Tensor, tensor: Tensor) -> Tensor:
    """``[N]`` as ``[N, 1, ...]``, to go with ``tensor`` ``[N, ...]``."""
    return per_row.view(-1, *[1] * (tensor.dim() - 1))
