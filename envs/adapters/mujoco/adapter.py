"""MuJoCo environments as differentiable environments."""

from collections.abc import Callable

from pgtoolkit.envs.adapters.mujoco.batches import MuJoCoBatchSimulator
from pgtoolkit.envs.adapters.mujoco.derivatives import ChainedTransitions, can_chain
from pgtoolkit.envs.adapters.mujoco.simulator import MuJoCoSimulator
from pgtoolkit.envs.adapters.simulation.central_differences import CentralDifferences
from pgtoolkit.envs.adapters.simulation.finite_difference import FiniteDifference
from pgtoolkit.envs.adapters.simulation.simulator import Linearizer
from pgtoolkit.envs.differentiable import GradientInfo
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv


def MuJoCo(
    make: Callable[[], AnyEnv],
    *,
    tolerance: float = 0.05,
    threads: int | None = None,
) -> FiniteDifference:
    """Any ``MujocoEnv`` as a differentiable environment.

    In the forward pass, steps and episodes equal those of the plain environment with the same seed,
    to the bit. In the backward pass, the derivative of the whole control step, with its substeps
    and contacts, is computed by finite differences in MuJoCo's tangent space. The fastest method
    that the environment allows is used:

    - ``mjd_transitionFD`` for each substep: HalfCheetah-v5, Pusher-v5;
    - batches of simulations, from which observation and reward are recomputed: Gymnasium's other
      nine v5 environments;
    - the environment's own steps, one after the other: all other classes, such as a subclass with
      another reward.

    MuJoCo clamps controls to their range, so an action beyond its bounds has a derivative only
    through the control cost. Alive bonuses and terminations have no gradient. Steps in which a
    contact begins or ends are flagged, see :class:`FiniteDifference`. A solver that stops before it
    has converged to rounding (PGS, CG) makes a step jump by about ``1e-4`` of the contact forces
    wherever its number of iterations changes; the step size of the differences is chosen at each
    state so as to pass such jumps by, see :class:`CentralDifferences`.

    Args:
        make: makes the environment; called once: ``lambda: gymnasium.make("Reacher-v5")``.
        tolerance: see :class:`FiniteDifference`.
        threads: number of threads for the batches; None takes PyTorch's number.

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
    """The fastest linearizer that is correct for the environment, and its name."""
    if simulator.readout is None:
        return CentralDifferences(simulator), "finite differences of its steps"
    batches = MuJoCoBatchSimulator(simulator, simulator.readout, threads)
    if can_chain(batches):
        return ChainedTransitions(batches), "mjd_transitionFD"
    return CentralDifferences(batches), "finite differences of batches of simulations"
