"""A gradient for an ordinary environment: its own steps forwards, differences of them backwards."""

from collections.abc import Callable
from typing import Any

import gymnasium

from pgtoolkit.envs.adapters.gymnasium.simulator import GymnasiumSimulator
from pgtoolkit.envs.adapters.simulation.central_differences import CentralDifferences, Steps
from pgtoolkit.envs.adapters.simulation.finite_difference import FiniteDifference


def finite_difference(
    make: Callable[[], gymnasium.Env[Any, Any]],
    *,
    max_episode_steps: int | None = None,
    step: float | None = None,
    tolerance: float = 0.05,
) -> FiniteDifference:
    """Finite differences of any Gymnasium environment whose state can be saved and restored.

    Args:
        make: makes the environment, once.
        max_episode_steps: the time limit; None takes the environment's own.
        step: by how much state and action are moved; None chooses by dtype, see
            :func:`~pgtoolkit.envs.adapters.simulation.central_differences.steps_for`.
        tolerance: see :class:`FiniteDifference`.

    Raises:
        RequestError: the environment's state cannot be saved and restored, or the step is not
            positive.
    """
    simulator = GymnasiumSimulator(make, max_episode_steps=max_episode_steps)
    steps = None if step is None else Steps(state=step, observation=step, reward=step)
    return FiniteDifference(simulator, CentralDifferences(simulator, steps), tolerance=tolerance)
