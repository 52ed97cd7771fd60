"""All that the future of a MuJoCo simulation depends on, as one array, and how it is moved.

``mujoco`` is imported inside functions: it is an extra.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.simulation.simulator import Array
from pgtoolkit.envs.registry.registered import import_package

# What MuJoCo derives from its state during a step, and leaves behind as of the step's last stage:
# not a function of the state afterwards. An environment may read it before its next step.
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


def import_mujoco() -> Any:
    """The package ``mujoco``.

    Raises:
        RequestError: it is not installed; says how.
    """
    return import_package("mujoco", "the MuJoCo adapter")


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Within it, a warning about a model is not printed, nor written to ``MUJOCO_LOG.TXT``.

    Gymnasium's own HalfCheetah-v5 warns each time it is made, into the current folder. Errors stay
    errors.
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
    """Where in a saved state ``[S]`` which number is.

    First ``mjSTATE_INTEGRATION``: time, positions, velocities, activations, the solver's warm
    start, controls, applied forces and all else that MuJoCo's next step reads. Then ``fields``.

    Args:
        model: an ``MjModel``.
        fields: names of derived arrays of ``MjData`` to be saved as well.
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
        """By name in ``MjData``: the differentiable part of the state, and the fields."""
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.size = self.integration
        probe = import_mujoco().MjData(model)
        for name in (*self.parts, *fields):
            value = getattr(probe, name)
            self._shapes[name] = value.shape
            if name in fields:
                self.parts[name] = slice(self.size, self.size + value.size)
                self.size += value.size

    def capture(self, data: Any) -> Array:
        """The saved state ``[S]`` of an ``MjData``."""
        saved = np.empty(self.size)
        import_mujoco().mj_getState(self.model, data, saved[: self.integration], self._kind)
        for name in self.fields:
            saved[self.parts[name]] = getattr(data, name).ravel()
        return saved

    def restore(self, data: Any, saved: Array) -> None:
        """Puts ``[S]`` into an ``MjData``. Computes nothing, so nothing is lost or refreshed."""
        import_mujoco().mj_setState(self.model, data, saved[: self.integration], self._kind)
        for name in self.fields:
            getattr(data, name)[...] = saved[self.parts[name]].reshape(self._shapes[name])

    def values(self, saved: Array) -> dict[str, Array]:
        """The parts of saved states ``[K, S]`` by name, each ``[K, ...]``."""
        return {
            name: saved[:, where].reshape(len(saved), *self._shapes[name])
            for name, where in self.parts.items()
        }

    def rows(self, values: Mapping[str, Array]) -> Array:
        """The reverse of :meth:`values`: ``[K, S]``, with 0 for all that is in no part."""
        rows = np.zeros((len(values["qpos"]), self.size))
        for name, where in self.parts.items():
            rows[:, where] = values[name].reshape(len(rows), -1)
        return rows

    def _size(self, kind: int) -> int:
        return int(import_mujoco().mj_stateSize(self.model, kind))

    def _slice(self, kind: int) -> slice:
        # A kind is one bit, and the parts lie in the order of the bits.
        start = self._size(kind - 1)
        return slice(start, start + self._size(kind))


def integrate_positions(model: Any, qpos: Array, moves: Array) -> Array:
    """``qpos (+) move`` ``[K, nq]``: a quaternion is rotated by its three numbers of the move.

    Args:
        model: an ``MjModel``.
        qpos: ``[K, nq]``.
        moves: ``[K, nv]``.
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
    """``2 nv + na``: positions, velocities and activations."""
    model = snapshot.model
    return int(2 * model.nv + model.na)


def perturb(
    snapshot: Snapshot, saved: Array, tangent: Array, derived_inputs: NDArray[np.intp]
) -> Array:
    """``saved (+) tangent`` ``[K, S]``.

    Args:
        snapshot: where things are.
        saved: ``[K, S]``.
        tangent: ``[K, 2 nv + na + C]``.
        derived_inputs: ``[C]`` which numbers of the derived fields the last ones are added to.
    """
    nv, na = snapshot.model.nv, snapshot.model.na
    moved = saved.copy()
    positions = saved[:, snapshot.qpos]
    moved[:, snapshot.qpos] = integrate_positions(snapshot.model, positions, tangent[:, :nv])
    moved[:, snapshot.qvel] += tangent[:, nv : 2 * nv]
    moved[:, snapshot.act] += tangent[:, 2 * nv : 2 * nv + na]
    moved[:, derived_inputs] += tangent[:, 2 * nv + na :]
    return moved


def displacement(
    snapshot: Snapshot, saved: Array, origin: Array, derived_inputs: NDArray[np.intp]
) -> Array:
    """``saved (-) origin`` ``[K, 2 nv + na + C]``, the inverse of :func:`perturb`."""
    positions = differentiate_positions(
        snapshot.model, saved[:, snapshot.qpos], origin[:, snapshot.qpos]
    )
    difference = saved - origin
    parts = [
        positions,
        *(difference[:, where] for where in (snapshot.qvel, snapshot.act, derived_inputs)),
    ]
    return np.concatenate(parts, axis=1)
