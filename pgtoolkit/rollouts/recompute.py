"""A segment of a rollout that keeps no graph and recomputes its steps in the backward pass."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol, final

import torch
from torch import Tensor, nn

from pgtoolkit.errors import NonFiniteError, SettingError
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.autograd_nodes import Leaves, attach_outputs, policy_gradients
from pgtoolkit.rollouts.rollout import RolloutState, TensorVectorEnv, unroll
from pgtoolkit.rollouts.window import Window

GRAPH_FIELDS = ("obs", "next_obs", "pre_action", "action", "reward")
"""The fields of a window that carry a graph."""

RECOMPUTE_TOLERANCE = 1e-3
"""Tolerance, absolute and relative, between an observation and its recomputation."""


class RecomputableEnv(TensorVectorEnv, Protocol):
    """A vector environment whose steps can be run again from a saved state.

    The saved state is ``(state, elapsed, generator_state)``, where ``state`` is a tensor or a flat
    tuple of tensors.
    """

    def graph_state(self) -> Any:
        """The current state; its tensors carry their graph."""

    def set_state(self, state: Any) -> None:
        """Continues from a saved state, bit for bit. The state's tensors keep their graph."""


@final
@dataclasses.dataclass(eq=False)
class Segment:
    """``K`` consecutive steps of a window, and what running them again needs.

    It implements ``pgtoolkit.rollouts.autograd_nodes.DifferentiableSegment``.
    """

    subject: ClassVar[str] = "the gradient of a checkpointed window"
    alternative: ClassVar[str] = "keep the whole graph (`unroll`, --checkpoint-every 0)"

    env: RecomputableEnv
    policy: Policy
    rollout_state: RolloutState
    """The rollout state before the first step."""
    noise: Tensor
    """The noise ``[K, N, A]`` of the actions."""
    first_step: int
    """Index of the segment's first step in the window."""
    env_state: tuple[Any, ...]
    """The environment's state before the first step, without a graph."""
    obs: Tensor | None = None
    """``[K, N, O]`` the policy's inputs, set when the window is complete."""
    end_obs: Tensor | None = None
    """``[N, O]`` the observation after the last step, set when the steps have been run."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The policy's parameters that require a gradient."""
        return [p for p in self.policy.parameters() if p.requires_grad]

    def run(self, obs: Tensor, floats: Iterable[Tensor]) -> tuple[Window, RolloutState, Leaves]:
        """Runs the steps, and keeps their graph.

        Args:
            obs: ``[N, O]`` the first observation.
            floats: the floating-point tensors of the environment's state.

        Returns:
            The window, the rollout state after it, and all tensors that may carry a graph: the next
            observation, the floating-point tensors of the state, and the :data:`GRAPH_FIELDS`.

        Raises:
            NonFiniteError: an action, reward or observation is not finite.
        """
        state, *rest = self.env_state
        self.env.set_state((_replace_floats(state, floats), *rest))
        env = _UndetachedEnv(self.env, obs)
        try:
            window, rollout_state = unroll(env, self.policy, self.rollout_state, self.noise)
        except NonFiniteError as error:
            step = None if error.step is None else error.step + self.first_step
            raise NonFiniteError(error.tensor, step, error.env_index) from error
        fields = (getattr(window, name) for name in GRAPH_FIELDS)
        return window, rollout_state, (env.obs, *state_floats(self.env), *fields)

    def run_again(self, obs: Tensor, floats: Iterable[Tensor]) -> tuple[Window, Leaves]:
        """Runs the steps a second time; afterwards the environment is in the state it was in.

        Raises:
            RequestError: the last observation is not that of the first time.
        """
        live = self.env.graph_state()
        try:
            window, rollout_state, results = self.run(obs, floats)
        finally:
            self.env.set_state(live)
        assert self.end_obs is not None, "the steps have been run once"
        tolerance = RECOMPUTE_TOLERANCE
        if not torch.allclose(rollout_state.obs, self.end_obs, rtol=tolerance, atol=tolerance):
            raise SettingError(
                "the environment does not repeat itself: from the same state, by the same actions "
                "and noise, it came to another observation, so its steps cannot be run again for "
                "the gradient. Make its functions pure, or keep the whole graph (`unroll`, "
                "--checkpoint-every 0)"
            )
        return window, results

    def adjoint(
        self, start: Sequence[Tensor], needed: Sequence[bool], cotangents: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """The adjoints of the shift and of each start tensor; runs the steps again.

        Raises:
            RequestError: the environment does not repeat itself.
        """
        with torch.enable_grad():
            inputs = _detached_leaves(start, needed)
            window, results = self.run_again(inputs[0], inputs[1:])
        pairs = zip(results, cotangents, strict=True)
        used = [(r, c) for r, c in pairs if c is not None and r.requires_grad]
        if not used:
            return [None] * (1 + len(start))
        assert window.action_shift is not None, "it was unrolled with a graph"
        leaves = [window.action_shift, *(x for x in inputs if x.requires_grad)]
        outputs, given = zip(*used, strict=True)
        by_shift, *rest = torch.autograd.grad(outputs, leaves, given, allow_unused=True)
        by_start = iter(rest)
        return [by_shift, *(next(by_start) if x.requires_grad else None for x in inputs)]

    def parameter_gradients(self, adjoint: Tensor) -> list[Tensor | None]:
        """The gradient of each parameter, from the adjoint ``[K, N, A]`` of the actions."""
        assert self.obs is not None, "the window is complete"
        return policy_gradients(self.policy, self.parameters, self.obs, self.noise, adjoint)


def run_and_attach(
    segment: Segment, shift: Tensor, start: Leaves
) -> tuple[Window, RolloutState, Leaves]:
    """Runs a segment, frees its graph, and gives the results a node that recomputes it.

    Args:
        segment: starts from the environment's current state.
        shift: ``[K, N, A]`` zeros, added to the pre-squash actions; rows of a leaf.
        start: the first observation ``[N, O]``, and the floating-point tensors of the state, with
            their graph.

    Returns:
        The window, the rollout state after it, and what the next segment starts from.

    Raises:
        NonFiniteError: an action, reward or observation is not finite.
        RequestError: the environment does not repeat itself, or a second derivative was asked for;
            raised in the backward pass.
    """
    with torch.enable_grad():
        # The graph tells which results carry one; it is freed here.
        inputs = _detached_leaves(start, [x.requires_grad for x in start])
        window, rollout_state, results = segment.run(inputs[0], inputs[1:])
        segment.env.set_state(detached_state(segment.env))
    segment.end_obs = rollout_state.obs
    differentiable = [x.requires_grad for x in results]
    outputs, window = [x.detach() for x in results], window.detach()
    del results
    attached = attach_outputs(segment, outputs, differentiable, shift, start)
    fields = dict(zip(GRAPH_FIELDS, attached[len(start) :], strict=True))
    return dataclasses.replace(window, **fields), rollout_state, attached[: len(start)]


def detached_state(env: RecomputableEnv) -> tuple[Any, ...]:
    """The environment's current state, without a graph."""
    state, *rest = env.graph_state()
    return _replace_floats(state, [leaf.detach() for leaf in state_floats(env)]), *rest


def state_floats(env: RecomputableEnv) -> Leaves:
    """The floating-point tensors of the environment's current state."""
    state = env.graph_state()[0]
    leaves = (state,) if isinstance(state, Tensor) else state
    return tuple(leaf for leaf in leaves if leaf.is_floating_point())


def _replace_floats(state: Tensor | Leaves, floats: Iterable[Tensor]) -> Tensor | Leaves:
    """The state with other floating-point tensors."""
    given = iter(floats)
    if isinstance(state, Tensor):
        return next(given)
    return tuple(next(given) if leaf.is_floating_point() else leaf for leaf in state)


def _detached_leaves(tensors: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor]:
    """The tensors as leaves of a new graph, which require a gradient where it is needed."""
    pairs = zip(tensors, needed, strict=True)
    return [tensor.detach().requires_grad_(need) for tensor, need in pairs]


@final
class _UndetachedEnv:
    """A vector environment in the middle of a window: ``detach`` leaves its graph as it is."""

    def __init__(self, env: RecomputableEnv, obs: Tensor) -> None:
        self.env, self.obs, self.num_envs = env, obs, env.num_envs

    def detach(self) -> Tensor:
        return self.obs

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        result = self.env.step(actions)
        self.obs = result[0]
        return result
