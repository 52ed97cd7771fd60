"""Finite differences of an ordinary Gymnasium environment."""

from collections.abc import Callable

from pgtoolkit.envs.adapters.gymnasium.simulator import GymnasiumSimulator
from pgtoolkit.envs.adapters.simulation.central_differences import CentralDifferences, Steps
from pgtoolkit.envs.adapters.simulation.finite_difference import FiniteDifference
from pgtoolkit.gymnasium_types import AnyEnv


def finite_difference(
    make: Callable[[], AnyEnv],
    *,
    max_episode_steps: int | None = None,
    step: float | None = None,
    tolerance: float = 0.05,
) -> FiniteDifference:
    """A differentiable environment whose derivatives are finite differences of its steps.

    Args:
        make: makes the Gymnasium environment; called once. The environment's state must be possible
            to save and restore, see :class:`GymnasiumSimulator`.
        max_episode_steps: the time limit; None takes the environment's own.
        step: the step size of the differences in state and action; None chooses it by dtype, see
            :func:`~pgtoolkit.envs.adapters.simulation.central_differences.step_sizes_for`.
        tolerance: see :class:`FiniteDifference`.

    Raises:
        RequestError: the environment's state cannot be saved and restored, or the step is not
            positive.
    """
    simulator = GymnasiumSimulator(make, max_episode_steps=max_episode_steps)
    steps = None if step is None else Steps(state=step, observation=step, reward=step)
    return FiniteDifference(simulator, CentralDifferences(simulator, steps), tolerance=tolerance)
