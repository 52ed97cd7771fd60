"""The state of a MuJoCo simulation as one array, and its tangent space.

``mujoco`` is imported inside functions, because it is an optional package.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.simulation.simulator import Array
from pgtoolkit.envs.registry.registered import import_package

DERIVED_FIELDS = (
    "xpos",
    "xquat",
    "xmat",
    "xipos",
    "ximat",
    "geom_xpos",
    "geom_xmat",
    "site_xpos",
    "site_xmat",
    "subtree_com",
    "subtree_linvel",
    "cinert",
    "cvel",
    "cacc",
    "cfrc_int",
    "cfrc_ext",
    "ten_length",
    "ten_velocity",
    "actuator_length",
    "actuator_velocity",
    "actuator_force",
    "qfrc_actuator",
    "qfrc_constraint",
    "qfrc_passive",
    "qfrc_bias",
    "qacc",
    "sensordata",
)
"""Fields of ``MjData`` that MuJoCo computes from the state during a step. Afterwards they belong to
an earlier stage of the step, so they are not functions of the new state. An environment may read
them before its next step."""


def import_mujoco() -> Any:
    """Imports the optional package ``mujoco``.

    Raises:
        RequestError: it is not installed.
    """
    return import_package("mujoco", "the MuJoCo adapter")


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """A context in which MuJoCo's warnings are neither printed nor written to ``MUJOCO_LOG.TXT``.

    Making Gymnasium's HalfCheetah-v5 would write a warning into the current folder each time.
    Errors are still raised.
    """
    mujoco = import_mujoco()
    handler = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(handler)


@final
class Snapshot:
    """The layout of a saved state ``[S]``, and its conversion from and to ``MjData``.

    It begins with ``mjSTATE_INTEGRATION``: time, positions, velocities, activations, the solver's
    warm start, controls, applied forces and all else that MuJoCo's next step reads. The derived
    ``fields`` follow.

    Args:
        model: an ``MjModel``.
        fields: names of the derived fields of ``MjData`` to save too.
    """

    def __init__(self, model: Any, fields: tuple[str, ...]) -> None:
        self.model, self.fields = model, fields
        kinds = import_mujoco().mjtState
        self._kind = int(kinds.mjSTATE_INTEGRATION)
        self.integration = self._size(self._kind)
        self.qpos = self._slice(int(kinds.mjSTATE_QPOS))
        self.qvel = self._slice(int(kinds.mjSTATE_QVEL))
        self.act = self._slice(int(kinds.mjSTATE_ACT))
        self.warmstart = self._slice(int(kinds.mjSTATE_WARMSTART))
        self.parts = {"qpos": self.qpos, "qvel": self.qvel, "act": self.act}
        """Slices of ``qpos``, ``qvel``, ``act``, the derived fields and, if steps depend on it, the
        warm start ``qacc_warmstart`` in a saved state."""
        if depends_on_warmstart(model):
            self.parts["qacc_warmstart"] = self.warmstart
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.size = self.integration
        probe = import_mujoco().MjData(model)
        for name in (*self.parts, *fields):
            value = getattr(probe, name)
            self._shapes[name] = value.shape
            if name in fields:
                self.parts[name] = slice(self.size, self.size + value.size)
                self.size += value.size
        self._filled = [self.parts[name] for name in fields if getattr(probe, name).size]
        self._viewed: tuple[Any, list[Array]] = (None, [])

    def __getstate__(self) -> dict[str, Any]:
        """Views of arrays would become arrays of their own in a copy."""
        return vars(self) | {"_viewed": (None, [])}

    def capture(self, data: Any) -> Array:
        """The saved state ``[S]`` of an ``MjData``."""
        saved = np.empty(self.size)
        import_mujoco().mj_getState(self.model, data, saved[: self.integration], self._kind)
        if self._filled:
            np.concatenate(self._views(data), out=saved[self.integration :])
        return saved

    def restore(self, data: Any, saved: Array) -> None:
        """Writes a saved state ``[S]`` into an ``MjData``, without recomputing derived fields."""
        import_mujoco().mj_setState(self.model, data, saved[: self.integration], self._kind)
        for part, view in zip(self._filled, self._views(data), strict=True):
            view[:] = saved[part]

    def values(self, saved: Array) -> dict[str, Array]:
        """The parts of saved states ``[K, S]`` by name, each ``[K, ...]``."""
        return {
            name: saved[:, where].reshape(len(saved), *self._shapes[name])
            for name, where in self.parts.items()
        }

    def rows(self, values: Mapping[str, Array]) -> Array:
        """The inverse of :meth:`values`: ``[K, S]``, with 0 for what belongs to no part."""
        rows = np.zeros((len(values["qpos"]), self.size))
        for name, where in self.parts.items():
            rows[:, where] = values[name].reshape(len(rows), -1)
        return rows

    def _views(self, data: Any) -> list[Array]:
        """The derived fields that are not empty, as flat views.

        They are kept, because making them takes long. An ``MjData`` has its arrays as long as it
        lives.
        """
        viewed = self._viewed  # read once, because other threads may use other data
        if viewed[0] is not data:
            views = [getattr(data, name).reshape(-1) for name in self.fields]
            viewed = self._viewed = data, [view for view in views if view.size]
        return viewed[1]

    def _size(self, kind: int) -> int:
        return int(import_mujoco().mj_stateSize(self.model, kind))

    def _slice(self, kind: int) -> slice:
        # Each kind is one bit, and parts are stored in the order of the bits.
        start = self._size(kind - 1)
        return slice(start, start + self._size(kind))


def depends_on_warmstart(model: Any) -> bool:
    """Whether a step depends noticeably on the accelerations from which its solver starts.

    MuJoCo's solvers stop when an iteration improves their cost by less than ``opt.tolerance``,
    ``1e-8`` by default. Newton's method has then converged to rounding. PGS and CG converge
    linearly: the contact forces are known to about ``1e-4``, and which of these forces is found
    depends on the start.
    """
    mujoco = import_mujoco()
    newton = model.opt.solver == int(mujoco.mjtSolver.mjSOL_NEWTON)
    cold = model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_WARMSTART)
    return not newton and not cold


def integrate_positions(model: Any, qpos: Array, moves: Array) -> Array:
    """``qpos (+) moves`` ``[K, nq]``: quaternions are rotated by three numbers of the move each.

    Args:
        model: an ``MjModel``.
        qpos: ``[K, nq]``: positions.
        moves: ``[K, nv]``: tangent vectors.
    """
    if model.nq == model.nv:
        return qpos + moves
    mujoco = import_mujoco()
    moved = qpos.copy()
    for row, move in zip(moved, moves, strict=True):
        mujoco.mj_integratePos(model, row, move, 1.0)
    return moved


def differentiate_positions(model: Any, qpos: Array, origin: Array) -> Array:
    """``qpos (-) origin`` ``[K, nv]``, the inverse of :func:`integrate_positions`."""
    if model.nq == model.nv:
        return qpos - origin
    mujoco = import_mujoco()
    moves = np.empty((len(qpos), model.nv))
    for move, start, end in zip(moves, origin, qpos, strict=True):
        mujoco.mj_differentiatePos(model, move, 1.0, start, end)
    return moves


def physics_tangent_size(snapshot: Snapshot) -> int:
    """``2 nv + na``: the number of tangent dimensions of positions, velocities and activations."""
    model = snapshot.model
    return int(2 * model.nv + model.na)


class OtherInputs(NamedTuple):
    """Saved numbers beside positions, velocities and activations on which a step depends."""

    indices: NDArray[np.intp]
    """``[C]``: their indices in a saved state."""
    units: Array
    """``[C]``: the change of each by a tangent vector of size 1."""


def perturb(snapshot: Snapshot, saved: Array, tangent: Array, others: OtherInputs) -> Array:
    """``saved (+) tangent`` ``[K, S]``.

    Args:
        snapshot: the layout of the saved states.
        saved: ``[K, S]``.
        tangent: ``[K, 2 nv + na + C]``.
        others: the saved numbers that the last ``C`` move.
    """
    nv, na = snapshot.model.nv, snapshot.model.na
    moved = saved.copy()
    positions = saved[:, snapshot.qpos]
    moved[:, snapshot.qpos] = integrate_positions(snapshot.model, positions, tangent[:, :nv])
    moved[:, snapshot.qvel] += tangent[:, nv : 2 * nv]
    moved[:, snapshot.act] += tangent[:, 2 * nv : 2 * nv + na]
    moved[:, others.indices] += others.units * tangent[:, 2 * nv + na :]
    return moved


def displacement(snapshot: Snapshot, saved: Array, origin: Array, others: OtherInputs) -> Array:
    """``saved (-) origin`` ``[K, 2 nv + na + C]``, the inverse of :func:`perturb`."""
    positions = differentiate_positions(
        snapshot.model, saved[:, snapshot.qpos], origin[:, snapshot.qpos]
    )
    difference = saved - origin
    parts = [
        positions,
        *(difference[:, where] for where in (snapshot.qvel, snapshot.act)),
        difference[:, others.indices] / others.units,
    ]
    return np.concatenate(parts, axis=1)
