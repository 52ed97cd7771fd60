"""One step of a policy in an environment, as :func:`trace_step` takes it."""

from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from pgtoolkit.diagnostics.per_trajectory import GradientRecorder
from pgtoolkit.envs.compiled.step_graph import Step, StepGraph, trace_step
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import State, leaves_of, map_state, rebuild_state, where_state
from pgtoolkit.policies.policy import Policy


@final
class TracedPolicyStep(NamedTuple):
    """A step's graphs, and what its results mean."""

    graph: StepGraph
    layers: list[str]
    """The policy's layer behind each recorded input and each adjoint of an output."""
    ruled: bool
    """Whether those layers have all parameters of the policy."""
    cuts: bool
    """Whether the environment has ends of its own beside terminal states."""


def constants_of(policy: Policy) -> list[Tensor]:
    """The policy's parameters and buffers, as they are now."""
    return [p.detach() for p in policy.parameters()] + list(policy.buffers())


def trace_policy_step(
    env: DifferentiableEnv,
    policy: Policy,
    state: State,
    noise: Tensor,
    process_noise: Tensor | None = None,
) -> TracedPolicyStep:
    """Traces ``observation, policy, transition, reward, terminal`` of one step.

    The carry is the state. New at each step are the action's noise, which rows meet their time
    limit, the start states that they go on from, and the dynamics' noise. Graded results:
    observation, pre-action, action, reward, next observation before any reset. Plain: the time
    limits, log-density, terminal, cut, the state before any reset, and what went into each layer of
    the policy. Sources: the pre-action, and what came out of each layer.

    Args:
        env: the dynamics.
        policy: acts.
        state: of ``N`` environments.
        noise: ``[N, ...]`` of one action.
        process_noise: ``[N, ...]`` of one transition, or None.
    """
    names = [n for n, _ in policy.named_parameters()] + [n for n, _ in policy.named_buffers()]
    num_parameters = len(list(policy.parameters()))
    notes: dict[str, Any] = {}

    def rebuilt(leaves: list[Tensor]) -> State:
        return rebuild_state(state, leaves[0] if isinstance(state, Tensor) else tuple(leaves))

    def step(constants: list[Tensor], carry: list[Tensor], given: list[Tensor]) -> Step:
        for parameter in constants[:num_parameters]:
            parameter.requires_grad_()
        before = rebuilt(carry)
        obs = env.observation(before)
        recorder = GradientRecorder(policy)
        with recorder.recording(), torch.enable_grad():
            tensors = dict(zip(names, constants, strict=True))
            distribution = torch.func.functional_call(policy, tensors, (obs,))
        pre_action = distribution.pre_action(given[0])
        action = distribution.squash(pre_action)
        log_prob = distribution.log_prob_of_pre_action(pre_action)
        after = env.transition(before, action, given[-1] if process_noise is not None else None)
        reward, terminal, cut = (
            env.reward(before, action, after),
            env.terminal(after),
            env.truncated(after),
        )
        calls = [(name, call) for name, found in recorder.calls.items() for call in found]
        layers = [name for name, _ in calls]
        notes.update(layers=layers, ruled=not recorder.without_rule(), cuts=cut is not None)
        ends = [terminal] if cut is None else [terminal, cut]
        # As in DifferentiableVectorEnv: the derivative of a terminal observation may be infinite.
        seen = where_state(terminal, map_state(Tensor.detach, after), after)
        limit, fresh = given[1], rebuilt(given[2 : 2 + len(carry)])
        return Step(
            carry=leaves_of(where_state(limit, fresh, after)),
            graded=[obs, pre_action, action, reward, env.observation(seen)],
            plain=[limit, log_prob, *ends, *leaves_of(after), *(call.inputs for _, call in calls)],
            sources=[pre_action, *(call.output for _, call in calls)],
        )

    limit = torch.zeros(noise.shape[0], dtype=torch.bool, device=noise.device)
    given = [noise, limit, *leaves_of(state)]
    given += [] if process_noise is None else [process_noise]
    graph = trace_step(step, constants_of(policy), leaves_of(state), given)
    return TracedPolicyStep(graph, **notes)
