"""The best return of Pendulum-v1, by dynamic programming."""

import gymnasium
import numpy as np
import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.studies import pendulum_optimum
from pgtoolkit.scripts.studies.pendulum_optimum import (
    PendulumOptimumArguments,
    State,
    rows,
    solve,
    step,
)


def test_a_step_is_that_of_gymnasium() -> None:
    env = gymnasium.make("Pendulum-v1").unwrapped
    env.reset(seed=0)
    for angle, speed, torque in [(3.0, 7.9, 2.0), (-0.5, -1.0, -1.3), (3.1, 0.2, 0.0)]:
        env.state = np.array([angle, speed])  # type: ignore[attr-defined]
        _, reward, *_ = env.step(np.array([torque], np.float32))
        after, ours = step(State(np.array(angle), np.array(speed)), torque)
        assert np.allclose(env.state, [after.angle, after.speed], atol=1e-6)  # type: ignore[attr-defined]
        assert np.isclose(float(reward), ours, atol=1e-6)


def test_a_value_of_one_step_is_the_reward() -> None:
    value = solve(0.9, 1, 5, np.array([0.0]))
    assert value[0, 2] == pytest.approx(-(np.pi**2))
    assert value[0, 0] == pytest.approx(-(np.pi**2) - 6.4)


def test_a_longer_horizon_costs_less_return() -> None:
    options = PendulumOptimumArguments(gamma=(0.8, 0.98), grid=61, torques=5, starts=50)
    short, long = (float(text) for _, text in list(rows(options))[1:])
    assert short < long - 20


def test_a_discount_outside_of_its_range_is_refused() -> None:
    with pytest.raises(RequestError, match="--gamma must be"):
        pendulum_optimum.run(["--gamma", "1.5"])
