"""Some steps of a window as one node of the graph, which takes them again in backward."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Protocol, final

import torch
from torch import Tensor

from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import Cursor, OnTensors, unroll
from pgtoolkit.rollouts.window import Window

Leaves = tuple[Tensor, ...]

GRAPH_FIELDS = ("obs", "next_obs", "pre_action", "action", "reward")
"""What of a window carries a graph."""

ONCE = (
    "the gradient of a checkpointed window cannot be differentiated again: call backward without "
    "create_graph=True, or keep the whole graph (`unroll`, --checkpoint-every 0)"
)

REPEATS = 1e-3
"""How far, absolute and relative, an observation may be off the second time: rounding, no more."""


class Repeatable(OnTensors, Protocol):
    """What :func:`unroll_in_segments` needs: a vector environment whose steps can be taken again.

    A position is ``(state, elapsed, generator_state)``, with the state a tensor or a flat tuple.
    """

    def graph_state(self) -> Any:
        """The position; its state with the graph."""

    def set_state(self, state: Any) -> None:
        """Goes on from a position, bit for bit; the state keeps its graph."""


@final
class _Continued:
    """A vector environment in the middle of a window: its graph is not cut."""

    def __init__(self, env: Repeatable, obs: Tensor) -> None:
        self.env, self.obs, self.num_envs = env, obs, env.num_envs

    def detach(self) -> Tensor:
        return self.obs

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        result = self.env.step(actions)
        self.obs = result[0]
        return result


@final
@dataclasses.dataclass(eq=False)
class Segment:
    """Some steps of a window, to be taken twice."""

    env: Repeatable
    policy: Policy
    cursor: Cursor
    noise: Tensor
    begin: int
    position: tuple[Any, ...]
    """Where they start, without a graph."""
    obs: Tensor | None = None
    """``[K, N, O]`` what the policy saw, once the window is complete."""
    end: Tensor | None = None
    """``[N, O]`` the observation that they lead to."""

    @property
    def parameters(self) -> list[Tensor]:
        return [p for p in self.policy.parameters() if p.requires_grad]

    def run(self, obs: Tensor, floats: Iterable[Tensor]) -> tuple[Window, Cursor, Leaves]:
        """Takes the steps, with their graph: the window, the cursor, and all that carries a graph.

        The last is the observation to act on next, the state's floats, and the window's fields.
        """
        state, *clock = self.position
        self.env.set_state((_with_floats(state, floats), *clock))
        env = _Continued(self.env, obs)
        try:
            window, cursor = unroll(env, self.policy, self.cursor, self.noise)
        except NonFiniteError as error:
            step = None if error.step is None else error.step + self.begin
            raise NonFiniteError(error.tensor, step, error.env_index) from error
        fields = (getattr(window, name) for name in GRAPH_FIELDS)
        return window, cursor, (env.obs, *floats_of(self.env), *fields)

    def run_again(self, obs: Tensor, floats: Iterable[Tensor]) -> tuple[Window, Leaves]:
        """Takes the steps a second time, and leaves the environment where it is.

        Raises:
            RequestError: they lead elsewhere.
        """
        live = self.env.graph_state()
        try:
            window, cursor, results = self.run(obs, floats)
        finally:
            self.env.set_state(live)
        assert self.end is not None, "the steps have been taken once"
        if not torch.allclose(cursor.obs, self.end, rtol=REPEATS, atol=REPEATS):
            raise RequestError(
                "the environment does not repeat itself: from the same state, by the same actions "
                "and noise, it came to another observation, so its steps cannot be taken again for "
                "the gradient. Make its functions pure, or keep the whole graph (`unroll`)"
            )
        return window, results


def attach(segment: Segment, shift: Tensor, start: Leaves) -> tuple[Window, Cursor, Leaves]:
    """Takes a segment's steps; what they give hangs on a node that takes them again in backward.

    Args:
        segment: from where the environment is.
        shift: ``[K, N, A]`` zeros, the leaf's rows.
        start: with its graph, the observation ``[N, O]`` to act on first, and the state's
            floating-point tensors.

    Returns:
        The window, the cursor, and what the next segment starts from.
    """
    taken: list[tuple[Window, Cursor]] = []
    # The shape alone: a path from the leaf would make every action gradient come by here.
    zeros = _Parameters.apply(segment, shift.detach(), *segment.parameters)  # type: ignore[no-untyped-call]
    results = _Steps.apply(segment, taken, shift + zeros, *start)  # type: ignore[no-untyped-call]
    window, cursor = taken[0]
    fields = dict(zip(GRAPH_FIELDS, results[len(start) :], strict=True))
    return dataclasses.replace(window, **fields), cursor, results[: len(start)]


@final
class _Steps(torch.autograd.Function):
    """A segment's steps as a function of its perturbation, its first observation and its state."""

    @staticmethod
    def forward(ctx: Any, segment: Segment, taken: list[Any], *inputs: Tensor) -> Leaves:
        start = inputs[1:]
        ctx.set_materialize_grads(False)
        # The parameters only so that a change before the backward pass is noticed.
        ctx.save_for_backward(*start, *segment.parameters)
        ctx.segment, ctx.size = segment, len(start)
        with torch.enable_grad():
            # With the graph, which is freed at once: it tells which results carry one.
            obs, *floats = _fresh(start, ctx.needs_input_grad[3:])
            window, cursor, results = segment.run(obs, floats)
            segment.env.set_state(without_graph(segment.env))
        taken.append((window.detach(), cursor))
        segment.end = cursor.obs
        detached = tuple(result.detach() for result in results)
        pairs = zip(detached, results, strict=True)
        ctx.mark_non_differentiable(*(d for d, result in pairs if not result.requires_grad))
        return detached

    @staticmethod
    def backward(ctx: Any, *adjoints: Tensor | None) -> Any:
        refuse_second_derivative()
        start = ctx.saved_tensors[: ctx.size]
        with torch.enable_grad():
            obs, *floats = _fresh(start, ctx.needs_input_grad[3:])
            window, results = ctx.segment.run_again(obs, floats)
        pairs = zip(results, adjoints, strict=True)
        carrying = [(r, a) for r, a in pairs if a is not None and r.requires_grad]
        leaves = [window.perturbation, *(x for x in (obs, *floats) if x.requires_grad)]
        if not carrying:
            return (None,) * (3 + ctx.size)
        outputs, given = zip(*carrying, strict=True)
        by_shift, *rest = torch.autograd.grad(outputs, leaves, given, allow_unused=True)
        by_start = (rest.pop(0) if x.requires_grad else None for x in (obs, *floats))
        return None, None, by_shift, *by_start


@final
class _Parameters(torch.autograd.Function):
    """Zeros, through which a segment's action gradients reach the policy's parameters.

    A node of its own, so that who asks for the action gradient alone does not pay for theirs.
    """

    @staticmethod
    def forward(ctx: Any, segment: Segment, shift: Tensor, *parameters: Tensor) -> Tensor:
        ctx.segment = segment
        ctx.save_for_backward(*parameters)
        return torch.zeros_like(shift)

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> Any:
        refuse_second_derivative()
        segment, _ = ctx.segment, ctx.saved_tensors  # which raises if a parameter has changed
        with torch.enable_grad():
            pre_action = segment.policy(segment.obs).pre_action(segment.noise)
        found = torch.autograd.grad(pre_action, segment.parameters, adjoint, allow_unused=True)
        return None, None, *found


def refuse_second_derivative() -> None:
    """Raises in a backward pass that builds a graph of itself: only there gradient mode is on."""
    if torch.is_grad_enabled():
        raise RequestError(ONCE)


def _fresh(tensors: Iterable[Tensor], needs: Iterable[bool]) -> list[Tensor]:
    """The tensors without their past, as leaves where a gradient is needed."""
    pairs = zip(tensors, needs, strict=True)
    return [tensor.detach().requires_grad_(need) for tensor, need in pairs]


def without_graph(env: Repeatable) -> tuple[Any, ...]:
    """The environment's position, its state detached."""
    state, *clock = env.graph_state()
    return _with_floats(state, [leaf.detach() for leaf in floats_of(env)]), *clock


def floats_of(env: Repeatable) -> Leaves:
    """The floating-point tensors of the environment's state."""
    state = env.graph_state()[0]
    leaves = (state,) if isinstance(state, Tensor) else state
    return tuple(leaf for leaf in leaves if leaf.is_floating_point())


def _with_floats(state: Tensor | Leaves, floats: Iterable[Tensor]) -> Tensor | Leaves:
    """The state with its floating-point tensors replaced."""
    given = iter(floats)
    if isinstance(state, Tensor):
        return next(given)
    return tuple(next(given) if leaf.is_floating_point() else leaf for leaf in state)
