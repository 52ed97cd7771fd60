"""One step of a policy in an environment, traced by :func:`trace_step`."""

from collections.abc import Sequence
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
    """The graphs of a step, and what its results mean."""

    graph: StepGraph
    layers: list[str]
    """Name of the policy's layer for each recorded input, and for each source after the first."""
    layers_have_all_parameters: bool
    """Whether every parameter of the policy belongs to a layer with a gradient rule."""
    has_truncation: bool
    """Whether the environment truncates episodes itself, beside the time limit."""


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

    - Carry: the tensors of the state.
    - Inputs of a step: the action's noise, which rows meet their time limit, the tensors of the
      start states that those rows go on from, and the dynamics' noise.
    - Differentiable results: observation, pre-squash action, action, reward, and the next
      observation before any reset.
    - Auxiliary results: which rows meet their time limit, log-density, terminal, truncated (if the
      environment has it), the tensors of the state before any reset, and the input of each layer
      of the policy.
    - Sources: the pre-squash action, and the output of each layer.

    Args:
        env: the dynamics.
        policy: chooses the action.
        state: an example of the state of ``N`` environments.
        noise: an example of one action's noise ``[N, ...]``.
        process_noise: an example of one transition's noise ``[N, ...]``, or None.
    """
    names = [n for n, _ in policy.named_parameters()] + [n for n, _ in policy.named_buffers()]
    num_parameters = len(list(policy.parameters()))
    notes: dict[str, Any] = {}

    def step(constants: list[Tensor], carry: list[Tensor], inputs: list[Tensor]) -> Step:
        for parameter in constants[:num_parameters]:
            parameter.requires_grad_()
        before = state_from_leaves(state, carry)
        obs = env.observation(before)
        recorder = GradientRecorder(policy)
        with recorder.recording(), torch.enable_grad():
            tensors = dict(zip(names, constants, strict=True))
            distribution = torch.func.functional_call(policy, tensors, (obs,))
        pre_action = distribution.pre_action(inputs[0])
        action = distribution.squash(pre_action)
        log_prob = distribution.log_prob_of_pre_action(pre_action)
        after = env.transition(before, action, inputs[-1] if process_noise is not None else None)
        reward = env.reward(before, action, after)
        terminal, truncated = env.terminal(after), env.truncated(after)
        calls = [(name, call) for name, found in recorder.calls.items() for call in found]
        notes.update(
            layers=[name for name, _ in calls],
            layers_have_all_parameters=not recorder.without_rule(),
            has_truncation=truncated is not None,
        )
        ends = [terminal] if truncated is None else [terminal, truncated]
        # As in DifferentiableVectorEnv: the derivative of a terminal observation may be infinite.
        observed = where_state(terminal, map_state(Tensor.detach, after), after)
        time_limit, start = inputs[1], state_from_leaves(state, inputs[2 : 2 + len(carry)])
        return Step(
            carry=leaves_of(where_state(time_limit, start, after)),
            differentiable=[obs, pre_action, action, reward, env.observation(observed)],
            auxiliary=[
                time_limit,
                log_prob,
                *ends,
                *leaves_of(after),
                *(call.inputs for _, call in calls),
            ],
            sources=[pre_action, *(call.output for _, call in calls)],
        )

    time_limit = torch.zeros(noise.shape[0], dtype=torch.bool, device=noise.device)
    inputs = [noise, time_limit, *leaves_of(state)]
    inputs += [] if process_noise is None else [process_noise]
    graph = trace_step(step, constants_of(policy), leaves_of(state), inputs)
    return TracedPolicyStep(graph, **notes)


def state_from_leaves(template: State, leaves: Sequence[Tensor]) -> State:
    """A state of the template's type with these tensors, the inverse of :func:`leaves_of`."""
    return rebuild_state(template, leaves[0] if isinstance(template, Tensor) else tuple(leaves))
