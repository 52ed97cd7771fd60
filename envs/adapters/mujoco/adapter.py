"""A gradient for Gymnasium's MuJoCo environments, and others of their kind."""

from collections.abc import Callable
from typing import Any

import gymnasium

from pgtoolkit.envs.adapters.mujoco.batches import MuJoCoBatchSimulator
from pgtoolkit.envs.adapters.mujoco.derivatives import ChainedTransitions, can_chain
from pgtoolkit.envs.adapters.mujoco.simulator import MuJoCoSimulator
from pgtoolkit.envs.adapters.simulation.central_differences import CentralDifferences
from pgtoolkit.envs.adapters.simulation.finite_difference import FiniteDifference
from pgtoolkit.envs.adapters.simulation.simulator import Linearizer
from pgtoolkit.envs.differentiable import GradientInfo
from pgtoolkit.errors import RequestError


def MuJoCo(
    make: Callable[[], gymnasium.Env[Any, Any]],
    *,
    tolerance: float = 0.05,
    threads: int | None = None,
) -> FiniteDifference:
    """Any ``MujocoEnv`` as a differentiable environment.

    Forwards, a step is that of the plain environment, bit for bit, and so are the episodes of equal
    seeds. Backwards, the derivative of the whole control step, substeps and contacts included,
    comes from differences in MuJoCo's tangent space, by the fastest route there is:

    - ``mjd_transitionFD`` over the substeps: HalfCheetah-v5, Pusher-v5;
    - batches of simulations, with observation and reward recomputed from them: Gymnasium's other
      nine v5 environments;
    - the environment's own steps, one after the other: everything else, such as a subclass with a
      reward of its own.

    MuJoCo clamps controls to their range, and so does the derivative: an action beyond its bounds
    has no effect but on the cost of control. Alive bonuses and terminations have no gradient. Steps
    at which a contact begins or ends are flagged, see :class:`FiniteDifference`.

    Args:
        make: makes the environment, once: ``lambda: gymnasium.make("Reacher-v5")``, or a class.
        tolerance: see :class:`FiniteDifference`.
        threads: for the batches; None takes PyTorch's number.

    Raises:
        RequestError: see :class:`MuJoCoSimulator`; or the number of threads is not positive.
    """
    if threads is not None and threads < 1:
        raise RequestError(f"threads must be at least 1, not {threads}")
    simulator = MuJoCoSimulator(make)
    linearize, method = _linearizer(simulator, threads)
    gradient = GradientInfo(
        action="approximate",
        state="approximate",
        reward="approximate",
        method=method,
        contacts="stiff" if simulator.has_contacts else "none",
    )
    return FiniteDifference(simulator, linearize, tolerance=tolerance, gradient=gradient)


def _linearizer(simulator: MuJoCoSimulator, threads: int | None) -> tuple[Linearizer, str]:
    """The fastest that is right, and its name."""
    if simulator.readout is None:
        return CentralDifferences(simulator), "finite differences of its steps"
    batches = MuJoCoBatchSimulator(simulator, simulator.readout, threads)
    if can_chain(batches):
        return ChainedTransitions(batches), "mjd_transitionFD"
    return CentralDifferences(batches), "finite differences of batches of simulations"
