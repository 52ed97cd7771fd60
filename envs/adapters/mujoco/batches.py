"""Many MuJoCo simulations a control step further, at once: what differences are taken of."""

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
"""From saved states ``[K, S]`` and controls ``[K, A]``: fields of ``MjData`` after the step."""

STATE_FIELDS = ("qpos", "qvel", "act")


@final
class MuJoCoBatchSimulator(Simulator):
    """The same steps as :class:`MuJoCoSimulator`'s, but only as much of them as is differenced.

    Of the states that :meth:`step` returns, positions, velocities, activations and the derived
    fields are there, and the rest is 0: they can be compared, not stepped from. ``terminated`` is
    always false. Observations and rewards are the readout's: those of the environment up to
    rounding.

    Args:
        simulator: whose steps they are.
        readout: of its environment.
        threads: None takes PyTorch's number.
    """

    def __init__(
        self, simulator: MuJoCoSimulator, readout: Readout, threads: int | None = None
    ) -> None:
        self.simulator, self.readout, self.snapshot = simulator, readout, simulator.snapshot
        self.observation_space = simulator.observation_space
        self.action_space = simulator.action_space
        self.max_episode_steps = simulator.max_episode_steps
        self.saved_size, self.tangent_size = simulator.saved_size, simulator.tangent_size
        self.precision = simulator.precision
        fields = tuple(dict.fromkeys((*readout.before, *readout.after)))
        self.advance = batch_step(simulator.snapshot, simulator.env.frame_skip, fields, threads)

    def reset(self, seed: int) -> tuple[Array, Array]:
        return self.simulator.reset(seed)

    def step(self, saved: Array, action: NDArray[np.floating]) -> Outcome:
        control = action.astype(np.float64)
        after = self.advance(saved, control)
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
    """The faster way to step that gives these fields.

    ``mujoco.rollout`` returns positions, velocities and activations, and nothing that is derived
    from them. For that, a loop over ``mj_step``, which takes up to a tenth more time.

    Args:
        snapshot: of the states that will come.
        frame_skip: substeps of a control step.
        fields: names of derived arrays that are wanted as well.
        threads: None takes PyTorch's.
    """
    kinds = import_mujoco().mjtState
    physics = import_mujoco().mj_stateSize(snapshot.model, int(kinds.mjSTATE_FULLPHYSICS))
    # Without plug-ins, what rollout starts from is the beginning of a saved state.
    plain = physics == snapshot.warmstart.start
    if plain and not fields:
        return rollout_step(snapshot, frame_skip, threads)
    return loop_step(snapshot, frame_skip, fields, threads)


def rollout_step(snapshot: Snapshot, frame_skip: int, threads: int | None) -> BatchStep:
    """By ``mujoco.rollout``, the control repeated over the substeps."""
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
    """By ``mj_step`` of one state after the other, in as many threads as there are."""
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
    """MuJoCo releases Python's lock within ``mj_step``, so that threads do help."""
    mujoco, model = import_mujoco(), snapshot.model
    set_state, mj_step = mujoco.mj_setState, mujoco.mj_step
    kind = int(mujoco.mjtState.mjSTATE_INTEGRATION)
    # As MujocoEnv.do_simulation does; nothing else fills cfrc_ext.
    forces = mujoco.mj_rnePostConstraint if "cfrc_ext" in after else None
    copies = [(getattr(data, name), array) for name, array in after.items()]
    for k, (state, wanted) in enumerate(
        zip(saved[:, : snapshot.integration], control, strict=True)
    ):
        set_state(model, data, state, kind)
        data.ctrl[:] = wanted
        mj_step(model, data, nstep=frame_skip)
        if forces is not None:
            forces(model, data)
        for field, array in copies:
            array[k] = field


class _DataPool:
    """As many ``MjData`` as are asked for; a difference leaves no trace in the environment's."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.made: list[Any] = []

    def take(self, count: int) -> list[Any]:
        mujoco = import_mujoco()
        while len(self.made) < count:
            self.made.append(mujoco.MjData(self.model))
        return self.made[:count]


def _threads(given: int | None) -> int:
    return torch.get_num_threads() if given is None else given
