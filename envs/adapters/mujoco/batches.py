"""Control steps of many MuJoCo simulations at once, for finite differences."""

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.mujoco.readouts import Readout, Values
from pgtoolkit.envs.adapters.mujoco.simulator import MuJoCoSimulator
from pgtoolkit.envs.adapters.mujoco.snapshot import Snapshot, import_mujoco
from pgtoolkit.envs.adapters.simulation.simulator import Array, Outcome, Simulator

BatchStep: TypeAlias = Callable[[Array, Array], Values]
"""Maps saved states ``[K, S]`` and controls ``[K, A]`` to fields of ``MjData`` after the step."""

STATE_FIELDS = ("qpos", "qvel", "act")
"""Names in ``MjData`` of positions, velocities and activations."""


@final
class MuJoCoBatchSimulator(Simulator):
    """The steps of a :class:`MuJoCoSimulator` in batches, reduced to what differences need.

    The states that :meth:`step` returns hold the parts of the snapshot: positions, velocities,
    activations, the derived fields and a warm start that matters; all else in them is 0, so they
    can be compared but not stepped from. ``terminated`` is always false. Observations and rewards
    are computed by the readout and equal those of the environment up to rounding.

    Args:
        simulator: the simulator of the same environment.
        readout: the environment's formulas of observation and reward.
        threads: number of threads; None takes PyTorch's number.
    """

    def __init__(
        self, simulator: MuJoCoSimulator, readout: Readout, threads: int | None = None
    ) -> None:
        self.simulator, self.readout, self.snapshot = simulator, readout, simulator.snapshot
        self.observation_space = simulator.observation_space
        self.action_space = simulator.action_space
        self.max_episode_steps = simulator.max_episode_steps
        self.saved_size, self.tangent_size = simulator.saved_size, simulator.tangent_size
        self.precision, self.may_round = simulator.precision, simulator.may_round
        kept = [name for name in self.snapshot.parts if name not in STATE_FIELDS]
        fields = tuple(dict.fromkeys((*kept, *readout.after)))
        self._step = batch_step(simulator.snapshot, simulator.env.frame_skip, fields, threads)

    def reset(self, seed: int) -> tuple[Array, Array]:
        return self.simulator.reset(seed)

    def step(self, saved: Array, action: NDArray[np.floating]) -> Outcome:
        control = action.astype(np.float64)
        after = self._step(saved, control)
        before = self.snapshot.values(saved)
        observation, reward = self.readout.evaluate(before, control, after)
        never = np.zeros(len(saved), dtype=np.bool_)
        return Outcome(self.snapshot.rows(after), observation, reward, never)

    def perturb(self, saved: Array, tangent: Array) -> Array:
        return self.simulator.perturb(saved, tangent)

    def displacement(self, saved: Array, origin: Array) -> Array:
        return self.simulator.displacement(saved, origin)


def batch_step(
    snapshot: Snapshot, frame_skip: int, fields: tuple[str, ...], threads: int | None = None
) -> BatchStep:
    """Chooses the faster of :func:`rollout_step` and :func:`loop_step` that returns these fields.

    ``mujoco.rollout`` returns positions, velocities and activations only. A loop over ``mj_step``
    returns derived fields too, and takes up to a tenth more time.

    Args:
        snapshot: the layout of the saved states.
        frame_skip: number of substeps of a control step.
        fields: names of the derived fields to return.
        threads: number of threads; None takes PyTorch's number.
    """
    kinds = import_mujoco().mjtState
    physics = import_mujoco().mj_stateSize(snapshot.model, int(kinds.mjSTATE_FULLPHYSICS))
    # Without plug-ins a saved state begins with the state that rollout takes.
    can_rollout = physics == snapshot.warmstart.start
    if can_rollout and not fields:
        return rollout_step(snapshot, frame_skip, threads)
    return loop_step(snapshot, frame_skip, fields, threads)


def rollout_step(snapshot: Snapshot, frame_skip: int, threads: int | None) -> BatchStep:
    """Steps by ``mujoco.rollout``, with the control repeated for each substep."""
    model, rollout = snapshot.model, importlib.import_module("mujoco.rollout")
    pool = _DataPool(model)

    def step(saved: Array, control: Array) -> Values:
        states, _ = rollout.rollout(
            model,
            pool.take(_threads(threads)),
            saved[:, : snapshot.warmstart.start],
            np.repeat(control[:, None], frame_skip, axis=1),
            initial_warmstart=saved[:, snapshot.warmstart],
        )
        last = states[:, -1]
        return {name: last[:, snapshot.parts[name]] for name in STATE_FIELDS}

    return step


def loop_step(
    snapshot: Snapshot, frame_skip: int, fields: tuple[str, ...], threads: int | None
) -> BatchStep:
    """Steps by calls of ``mj_step``, with the states divided among the threads."""
    model = snapshot.model
    pool = _DataPool(model)
    names = tuple(dict.fromkeys((*STATE_FIELDS, *fields)))

    def step(saved: Array, control: Array) -> Values:
        shapes = {name: getattr(pool.take(1)[0], name).shape for name in names}
        after = {name: np.empty((len(saved), *shape)) for name, shape in shapes.items()}
        workers = pool.take(max(1, min(_threads(threads), len(saved) // 8)))
        parts = np.array_split(np.arange(len(saved)), len(workers))
        jobs = [
            (data, saved[part], control[part], {name: after[name][part[0] :] for name in names})
            for data, part in zip(workers, parts, strict=True)
        ]
        if len(jobs) == 1:
            _step_each(snapshot, frame_skip, *jobs[0])
        else:
            with ThreadPoolExecutor(len(jobs)) as executor:
                list(executor.map(lambda job: _step_each(snapshot, frame_skip, *job), jobs))
        return after

    return step


def _step_each(
    snapshot: Snapshot, frame_skip: int, data: Any, saved: Array, control: Array, after: Values
) -> None:
    """Steps the states ``[K, S]`` one after the other and writes the fields to ``after``.

    MuJoCo releases Python's global lock within ``mj_step``, so threads run in parallel.
    """
    mujoco, model = import_mujoco(), snapshot.model
    set_state, mj_step = mujoco.mj_setState, mujoco.mj_step
    kind = int(mujoco.mjtState.mjSTATE_INTEGRATION)
    # As MujocoEnv.do_simulation does: mj_step alone does not compute cfrc_ext.
    forces = mujoco.mj_rnePostConstraint if "cfrc_ext" in after else None
    copies = [(getattr(data, name), array) for name, array in after.items()]
    for k, (state, ctrl) in enumerate(zip(saved[:, : snapshot.integration], control, strict=True)):
        set_state(model, data, state, kind)
        data.ctrl[:] = ctrl
        mj_step(model, data, nstep=frame_skip)
        if forces is not None:
            forces(model, data)
        for field, array in copies:
            array[k] = field


class _DataPool:
    """``MjData`` objects that are reused, so that the environment's own is left alone."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.made: list[Any] = []

    def take(self, count: int) -> list[Any]:
        """The first ``count`` objects; missing ones are made."""
        mujoco = import_mujoco()
        while len(self.made) < count:
            self.made.append(mujoco.MjData(self.model))
        return self.made[:count]


def _threads(given: int | None) -> int:
    """The number of threads, by default PyTorch's."""
    return torch.get_num_threads() if given is None else given
