"""One step of a policy in an environment, as :func:`trace_step` takes it."""

from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import State, rebuild_state
from pgtoolkit.envs.step_graph import Step, StepGraph, trace_step
from pgtoolkit.gradients import GradientRecorder
from pgtoolkit.policy import Policy


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


def leaves_of(state: State) -> list[Tensor]:
    """The tensors of a state."""
    return [state] if isinstance(state, Tensor) else list(state)


def constants_of(policy: Policy) -> list[Tensor]:
    """The policy's parameters and buffers, as they are now."""
    return [p.detach() for p in policy.parameters()] + list(policy.buffers())


def trace_policy_step(
    env: DifferentiableEnv,
    policy: Policy,
    state: State,
    noise: Tensor,
    process_noise: Tensor | None,
) -> TracedPolicyStep:
    """Traces ``observation, policy, transition, reward, terminal`` of one step.

    The carry is the state. New at each step are the action's noise, its perturbation and the
    dynamics' noise. Graded results: observation, pre-action, action, reward. Plain: log-density,
    terminal, cut, the state afterwards, and what went into each layer of the policy. Sources: the
    perturbation, and what came out of each layer.

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

    def step(constants: list[Tensor], carry: list[Tensor], given: list[Tensor]) -> Step:
        for parameter in constants[:num_parameters]:
            parameter.requires_grad_()
        leaves = tuple(carry)
        before: State = rebuild_state(state, leaves[0] if isinstance(state, Tensor) else leaves)
        obs = env.observation(before)
        recorder = GradientRecorder(policy)
        with recorder.recording(), torch.enable_grad():
            tensors = dict(zip(names, constants, strict=True))
            distribution = torch.func.functional_call(policy, tensors, (obs,))
        pre_action = distribution.pre_action(given[0])
        action = distribution.squash(pre_action)
        log_prob = distribution.log_prob_of_pre_action(pre_action)
        after = env.transition(before, action, given[1] if process_noise is not None else None)
        reward, terminal, cut = (
            env.reward(before, action, after),
            env.terminal(after),
            env.truncated(after),
        )
        calls = [(name, call) for name, found in recorder.calls.items() for call in found]
        layers = [name for name, _ in calls]
        notes.update(layers=layers, ruled=not recorder.without_rule(), cuts=cut is not None)
        ends = [terminal] if cut is None else [terminal, cut]
        reached = leaves_of(after)
        return Step(
            carry=reached,
            graded=[obs, pre_action, action, reward],
            plain=[log_prob, *ends, *reached, *(call.inputs for _, call in calls)],
            sources=[pre_action, *(call.output for _, call in calls)],
        )

    given = [noise] + ([] if process_noise is None else [process_noise])
    graph = trace_step(step, constants_of(policy), leaves_of(state), given)
    return TracedPolicyStep(graph, **notes)
