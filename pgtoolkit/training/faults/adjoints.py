"""How the adjoint of a state grows backwards in time, and the Jacobian of one transition."""

import math
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from pgtoolkit.training.faults.trace_steps import ACTION, Step

STEEP, RATIO = 1e4, 100.0
"""Factors of one transition that are named: any above STEEP, and one of RATIO times the median."""
GROWS = 2.0
"""Factor a step from which a steady growth is named."""


@final
class Growth(NamedTuple):
    """Growth of ``|dJ/ds_t|`` backwards in time, in one environment.

    Attributes:
        step: the step whose transition makes it grow first, or most.
        factor: the factor of that transition.
        mean: the geometric mean of all factors.
        largest: the largest ``|dJ/ds|`` that is finite.
    """

    step: int
    factor: float
    mean: float
    largest: float


def growth_of(adjoints: Mapping[str, Mapping[int, Tensor]], env_index: int) -> Growth | None:
    """Where the adjoint of a state grows; None where it does not.

    The factor of step ``t`` is ``|dJ/ds_t| / |dJ/ds_{t+1}|``: the transition of step ``t`` leads
    from one state to the other. Only finite factors count: where the adjoint jumps from a finite
    number to an infinite one, a reward of the step before may be the cause as well.

    Args:
        adjoints: ``next ...`` and step to the derivative by the state after it ``[N, ...]``.
        env_index: the environment.
    """
    size = sizes(adjoints, env_index)
    factors = {
        step: size[step - 1] / size[step]
        for step in size
        if step - 1 in size and size[step] > 0 and math.isfinite(size[step])
    }
    factors = {step: x for step, x in factors.items() if math.isfinite(x)}
    if not factors:
        return None
    known = [x for x in factors.values() if x > 0]
    mean = math.exp(sum(map(math.log, known)) / len(known)) if known else math.inf
    top = max(x for x in size.values() if math.isfinite(x))
    steep = [step for step, x in factors.items() if x > STEEP]
    if steep:
        return Growth(max(steep), factors[max(steep)], mean, top)
    if mean > GROWS:
        return Growth(max(factors), factors[max(factors)], mean, top)
    worst, usual = max(factors, key=lambda step: factors[step]), statistics.median(factors.values())
    return Growth(worst, factors[worst], mean, top) if factors[worst] > RATIO * usual else None


def sizes(adjoints: Mapping[str, Mapping[int, Tensor]], env_index: int) -> dict[int, float]:
    """``|dJ/ds_{t+1}|`` of one environment by step."""
    found: dict[int, float] = {}
    for name, by_step in adjoints.items():
        if name.startswith("next "):
            for step, adjoint in by_step.items():
                square = float(adjoint[env_index].double().square().sum())
                found[step] = found.get(step, 0.0) + square
    return {step: math.sqrt(square) if square >= 0 else square for step, square in found.items()}


def jacobian_norm(vector_env: Any, step: Step, env_index: int) -> float | None:
    """Largest singular value of the derivative of a transition by state and action.

    None where the environment's transition cannot be taken for one environment alone.
    """
    try:
        env, state = vector_env.env, vector_env.graph_state().state
        rows = [leaf[env_index : env_index + 1].detach().clone() for leaf in step.state]
        action = step.tensors[ACTION][env_index : env_index + 1].detach().clone()
        noise = None if env.noise_shape is None else torch.zeros(1, *env.noise_shape)
        inputs = [x.requires_grad_() for x in (*rows, action) if x.is_floating_point()]
        after = env.transition(rebuilt(state, rows), action, noise)
        outputs = [after] if isinstance(after, Tensor) else list(after)
        columns = []
        for entry in torch.cat([x.flatten() for x in outputs if x.requires_grad]):
            found = torch.autograd.grad(entry, inputs, retain_graph=True, allow_unused=True)
            pairs = zip(found, inputs, strict=True)
            filled = [torch.zeros_like(x) if g is None else g for g, x in pairs]
            columns.append(torch.cat([x.flatten() for x in filled]))
        jacobian = torch.stack(columns).double()
        if not bool(torch.isfinite(jacobian).all()):
            return math.inf
        return float(torch.linalg.matrix_norm(jacobian, 2))
    except Exception:  # the environment's own code, on a batch that it may not expect
        return None


def raising_row(vector_env: Any, step: Step) -> int | None:
    """The environment whose transition raises when it is taken alone; None if not exactly one."""
    found = []
    for index in range(vector_env.num_envs):
        try:
            env, state = vector_env.env, vector_env.graph_state().state
            rows = [leaf[index : index + 1] for leaf in step.state]
            noise = None if env.noise_shape is None else torch.zeros(1, *env.noise_shape)
            before, action = rebuilt(state, rows), step.tensors[ACTION][index : index + 1]
            after = env.transition(before, action, noise)
            env.reward(before, action, after)
            env.observation(after)
            env.terminal(after)
        except Exception:
            found.append(index)
    return found[0] if len(found) == 1 else None


def rebuilt(template: Any, rows: list[Tensor]) -> Any:
    """The rows as a state of the template's type."""
    if isinstance(template, Tensor):
        return rows[0]
    kind: Any = type(template)
    return kind(*rows) if hasattr(kind, "_fields") else kind(rows)
