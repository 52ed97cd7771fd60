"""Growth of adjoints backwards in time, and the Jacobian of a transition."""

import math

import pytest
import torch

from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.training.faults.adjoints import growth_of, jacobian_norm
from pgtoolkit.training.faults.trace_steps import ACTION, Step


def adjoints(*sizes: float) -> dict[str, dict[int, torch.Tensor]]:
    """``|dJ/ds|`` after each step in environment 1; environment 0 has 1 throughout."""
    return {"next state": {t: torch.tensor([[1.0], [x]]) for t, x in enumerate(sizes)}}


def test_a_steady_growth_is_a_geometric_mean() -> None:
    """Three times as large with each step backwards."""
    growth = growth_of(adjoints(27.0, 9.0, 3.0, 1.0), 1)
    assert growth is not None and growth.step == 3
    assert growth.factor == pytest.approx(3.0) and growth.mean == pytest.approx(3.0)
    assert growth_of(adjoints(27.0, 9.0, 3.0, 1.0), 0) is None


def test_the_latest_steep_transition_is_named() -> None:
    """Transition 2 multiplies by 1e30, and transition 1 overflows."""
    growth = growth_of(adjoints(math.inf, 1e30, 1.0, 1.0), 1)
    assert growth is not None and growth.step == 2
    assert growth.factor == pytest.approx(1e30)


def test_what_stays_the_same_does_not_grow() -> None:
    assert growth_of(adjoints(1.0, 1.1, 0.9, 1.0), 1) is None
    assert growth_of({}, 0) is None


def test_the_norm_of_a_jacobian() -> None:
    """Pendulum's transition at one state, against central differences."""
    env = DifferentiableVectorEnv(Pendulum(), 2, dtype=torch.float64)
    env.reset(seed=0)
    state = env.get_state().state
    action = torch.tensor([[0.3], [-0.2]], dtype=torch.float64)
    leaves = [state] if isinstance(state, torch.Tensor) else list(state)
    step = Step(torch.zeros(2, 1), {ACTION: action}, leaves)
    found = jacobian_norm(env, step, 1)
    flat = torch.cat([*(x[1].flatten() for x in leaves), action[1]])

    def after(inputs: torch.Tensor) -> torch.Tensor:
        parts, at = [], 0
        for leaf in leaves:
            size = leaf[1].numel()
            parts.append(inputs[at : at + size].view(1, *leaf.shape[1:]))
            at += size
        before = parts[0] if isinstance(state, torch.Tensor) else type(state)(*parts)
        result = env.env.transition(before, inputs[at:].view(1, -1), None)
        result = [result] if isinstance(result, torch.Tensor) else list(result)
        return torch.cat([x.flatten() for x in result])

    eye = 1e-6 * torch.eye(len(flat), dtype=torch.float64)
    columns = [(after(flat + e) - after(flat - e)) / 2e-6 for e in eye]
    expected = torch.linalg.matrix_norm(torch.stack(columns, 1), 2)
    assert found == pytest.approx(float(expected), rel=1e-6)
