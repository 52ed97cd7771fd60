"""Derivatives of a control step by MuJoCo's ``mjd_transitionFD``, chained over its substeps."""

from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.mujoco.batches import MuJoCoBatchSimulator
from pgtoolkit.envs.adapters.mujoco.snapshot import (
    depends_on_warmstart,
    import_mujoco,
    physics_tangent_size,
)
from pgtoolkit.envs.adapters.simulation.central_differences import (
    DOUBLE_STEP,
    CentralDifferences,
    Parts,
)
from pgtoolkit.envs.adapters.simulation.simulator import Array, Linearization

POSITION_FIELDS = frozenset({"xpos", "xquat", "xmat", "xipos", "ximat", "geom_xpos", "site_xpos"})
"""Derived fields that ``mj_kinematics`` computes from the positions alone."""


class Chain(NamedTuple):
    """A control step of ``K`` states with its derivatives by state and control."""

    after: Array
    """``[K, S]``: states after the step."""
    derivative: Array
    """``[K, D, D + A]``: derivative of ``after``."""
    last: Array
    """``[K, S]``: states before the last substep, to which the derived fields belong."""
    last_derivative: Array
    """``[K, D, D + A]``: derivative of ``last``."""


@final
class ChainedTransitions:
    """A linearizer by the chain rule ``A <- A_k A``, ``B <- A_k B + B_k`` over the substeps ``k``.

    ``mjd_transitionFD`` computes ``A_k`` and ``B_k`` by central differences too, but skips the
    parts of a substep that do not depend on the moved coordinate, and so takes about half the time.
    The derivatives of observation and reward are differences of the readout along the columns of
    the state's derivative. A control beyond its range has derivative 0; at its bound it has the
    one-sided derivative of the inner side. The disagreement and the error are those of
    :class:`~pgtoolkit.envs.adapters.simulation.central_differences.CentralDifferences`, with
    differences of whole control steps. States whose error is too large are computed again by
    differences of whole control steps with shorter step sizes, as there.

    Args:
        batches: the batched steps; :func:`can_chain` must be true for them.
    """

    def __init__(self, batches: MuJoCoBatchSimulator) -> None:
        self.batches, self.snapshot = batches, batches.snapshot
        self.frame_skip: int = batches.simulator.env.frame_skip
        self.whole_steps = CentralDifferences(batches)

    def __call__(self, saved: Array, action: NDArray[np.floating]) -> Linearization:
        """Jacobians at saved states ``[K, S]`` and actions ``[K, A]``."""
        control = action.astype(np.float64)
        chain = self._chain(saved, control)
        observation, reward = self._readout_derivatives(saved, control, chain)
        jacobians = Parts(chain.derivative, observation, reward[:, None])
        tested = self.whole_steps.test(saved, control, jacobians)
        found = Linearization(chain.derivative, observation, reward, *tested)
        return self.whole_steps.refine(saved, control, found)

    def _chain(self, saved: Array, control: Array) -> Chain:
        """Takes the control steps and multiplies the derivatives of their substeps."""
        mujoco, model = import_mujoco(), self.snapshot.model
        data = mujoco.MjData(model)
        size = physics_tangent_size(self.snapshot)
        total = np.zeros((len(saved), size, size + model.nu))
        total[:, :, :size] = np.eye(size)
        after, last, last_total = np.empty_like(saved), np.empty_like(saved), total.copy()
        for k in range(len(saved)):
            self.snapshot.restore(data, saved[k])
            data.ctrl[:] = control[k]
            for substep in range(self.frame_skip):
                if substep == self.frame_skip - 1:
                    last[k], last_total[k] = self.snapshot.capture(data), total[k]
                by_state, by_control = self._substep_derivative(data)
                mujoco.mj_step(model, data)
                total[k] = by_state @ total[k]
                total[k, :, size:] += by_control
            after[k] = self.snapshot.capture(data)
        return Chain(after, total, last, last_total)

    def _substep_derivative(self, data: Any) -> tuple[Array, Array]:
        """``A_k`` ``[D, D]`` and ``B_k`` ``[D, A]`` at the present state of ``data``."""
        mujoco, model = import_mujoco(), self.snapshot.model
        size = physics_tangent_size(self.snapshot)
        by_state, by_control = np.zeros((size, size)), np.zeros((size, model.nu))
        mujoco.mjd_transitionFD(model, data, DOUBLE_STEP, True, by_state, by_control, None, None)
        return by_state, by_control

    def _readout_derivatives(
        self, saved: Array, control: Array, chain: Chain
    ) -> tuple[Array, Array]:
        """Derivatives of observation ``[K, O, D + A]`` and reward ``[K, D + A]``."""
        size = DOUBLE_STEP
        plus, minus = (self._readout_perturbed(saved, control, chain, s) for s in (size, -size))
        by = [(a - b) / (2 * size) for a, b in zip(plus, minus, strict=True)]
        rows, columns = len(saved), chain.derivative.shape[2]
        observation = by[0].reshape(rows, columns, -1).swapaxes(1, 2)
        return observation, by[1].reshape(rows, columns)

    def _readout_perturbed(
        self, saved: Array, control: Array, chain: Chain, size: float
    ) -> tuple[Array, Array]:
        """Observations and rewards ``[K (D + A), *]`` with each coordinate moved by ``size``.

        The states after the step are moved along the columns of their derivative instead of being
        simulated again.
        """
        rows, dimensions, columns = chain.derivative.shape
        moves = size * np.tile(np.eye(columns), (rows, 1))

        def moved(states: Array, along: Array) -> Array:
            return self.batches.perturb(np.repeat(states, columns, axis=0), along)

        def columns_of(derivative: Array) -> Array:
            return size * derivative.swapaxes(1, 2).reshape(rows * columns, dimensions)

        before = moved(saved, moves[:, :dimensions])
        controls = np.repeat(control, columns, axis=0) + moves[:, dimensions:]
        state = moved(chain.after, columns_of(chain.derivative))
        derived = self._derived(moved(chain.last, columns_of(chain.last_derivative)))
        after = self.snapshot.values(state) | derived
        return self.batches.readout.evaluate(self.snapshot.values(before), controls, after)

    def _derived(self, saved: Array) -> dict[str, Array]:
        """The derived fields that the readout needs, computed from the positions in ``saved``."""
        mujoco, wanted = import_mujoco(), self.batches.readout.after
        if not wanted:
            return {}
        data = mujoco.MjData(self.snapshot.model)
        fields = {name: getattr(data, name) for name in wanted}
        found = {name: np.empty((len(saved), *field.shape)) for name, field in fields.items()}
        for k, positions in enumerate(saved[:, self.snapshot.qpos]):
            data.qpos[:] = positions
            mujoco.mj_kinematics(self.snapshot.model, data)
            for name, field in fields.items():
                found[name][k] = field
        return found


def can_chain(batches: MuJoCoBatchSimulator) -> bool:
    """Whether :class:`ChainedTransitions` can be used for an environment.

    ``mjd_transitionFD`` must support the integrator, steps may not depend on the solver's warm
    start, and the readout may use only derived fields that are functions of the positions. Of
    Gymnasium's models this holds for HalfCheetah and Pusher; most others are integrated by RK4.
    """
    kinds = import_mujoco().mjtIntegrator
    supported = (kinds.mjINT_EULER, kinds.mjINT_IMPLICIT, kinds.mjINT_IMPLICITFAST)
    model = batches.snapshot.model
    readout = batches.readout
    reads_positions = POSITION_FIELDS.issuperset(readout.after) and not readout.before
    integrates = model.opt.integrator in [int(kind) for kind in supported]
    return integrates and reads_positions and not depends_on_warmstart(model)
