"""A check of the gradient at the start of a run, of a fraction of a second."""

from collections.abc import Iterator

import torch

from pgtoolkit.envs.checks import gradients, purity
from pgtoolkit.envs.checks.finding import Check, Finding
from pgtoolkit.envs.checks.interface import Float32Env
from pgtoolkit.envs.checks.random_play import Points, draw_noise, random_actions
from pgtoolkit.envs.checks.states import copy_state, start_states
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper

NUM_POINTS = 6
RAISED = "first steps"
"""Name of the finding that the environment raised an exception."""
OWN_PACKAGE = "pgtoolkit"


def gradient_fault(env: DifferentiableEnv, *, seed: int) -> Finding | None:
    """The first fault of the gradient through three steps; None where none was found.

    Autograd's derivatives of the sum of three rewards and of the last observation by the first
    action are compared with differences. Before that, same inputs must give same outputs, or the
    differences say nothing. The environment inside of wrappers is checked: a wrapper may change the
    gradient on purpose. Environments and adapters of this package are left to its own tests, and
    what raises an exception to the first step of the run.

    Args:
        env: the dynamics; its tensors are on the CPU.
        seed: seeds start states, actions and noise.
    """
    inner = env.unwrapped if isinstance(env, DifferentiableWrapper) else env
    own = type(inner).__module__.partition(".")[0] == OWN_PACKAGE
    if own or inner.gradient.method != "autograd":
        return None
    with purity.preserved_generators():
        found = _findings(inner, seed)
        if any(finding.check == RAISED for finding in found):  # it may take float32 alone
            found = _findings(Float32Env(inner), seed)
    faults = (finding for finding in found if finding.status == "fault")
    return next((finding for finding in faults if finding.check != RAISED), None)


def _findings(env: DifferentiableEnv, seed: int) -> list[Finding]:
    def run() -> Iterator[Finding]:
        purity_faults = [
            finding
            for finding in purity.check_functions(env, _first_steps(env, seed))
            if finding.status == "fault"
        ]
        yield from purity_faults or gradients.check_chain(env, seed)

    blamed = env.env if isinstance(env, Float32Env) else env
    return Check("gradients", RAISED).run(blamed, run)


def _first_steps(env: DifferentiableEnv, seed: int) -> Points:
    """The first step of some episodes, with random actions."""
    generator = torch.Generator().manual_seed(seed)
    state = start_states(env, NUM_POINTS, generator)
    action = random_actions(env.action_space, NUM_POINTS, generator)
    noise = draw_noise(env, NUM_POINTS, generator)
    after = copy_state(env.transition(copy_state(state), action.clone(), noise))
    return Points(state, action, noise, after)
