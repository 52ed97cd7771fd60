"""Any of Gymnasium's MuJoCo environments as a pure function of its saved state."""

from collections.abc import Callable
from typing import Any, final

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled
from gymnasium.spaces import Box
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.mujoco import snapshot as mujoco_snapshot
from pgtoolkit.envs.adapters.mujoco.readouts import Readout, readout_of
from pgtoolkit.envs.adapters.mujoco.snapshot import (
    DERIVED_FIELDS,
    Snapshot,
    import_mujoco,
    integration_tangent,
    quiet_loading,
)
from pgtoolkit.envs.adapters.simulation.simulator import Array, Outcome, Precision, Simulator
from pgtoolkit.envs.registry.ordinary import (
    require_flat_box,
    time_limit,
    without_checking_wrappers,
)
from pgtoolkit.envs.registry.registered import missing_package
from pgtoolkit.errors import RequestError


@final
class MuJoCoSimulator(Simulator):
    """Restores a saved state, lets the environment take its own step, and saves again.

    ``mjSTATE_INTEGRATION`` is restored, and the derived fields that the environment could read
    before its step, which ``mj_step`` leaves one substep old. No ``mj_forward`` is called: it would
    refresh them, and the step would no longer be that of the plain environment. The solver's
    options are not touched.

    The tangent space is that of MuJoCo, ``2 nv + na`` numbers for positions, velocities and
    activations, and then the derived numbers that the step does read (found by trying each): Ant's
    reward depends on where the torso *was* as of the last substep, and so on earlier actions.

    Args:
        make: gives the environment, ``gymnasium.make`` or a class. Only a time limit and
            Gymnasium's checks may be wrapped around it.

    Raises:
        RequestError: ``mujoco`` is not installed, it is not a ``MujocoEnv``, it is wrapped in
            something that would be lost, it has no time limit, or its step depends on more than
            the simulator's state.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[Any, Any]]) -> None:
        self.env, self.max_episode_steps = _unwrap(_make(make))
        self.readout: Readout | None = readout_of(self.env)
        fields = DERIVED_FIELDS if self.readout is None else self.readout.before
        self.snapshot = Snapshot(self.env.model, fields)
        self.saved_size = self.snapshot.size
        self.observation_space, self.action_space = _boxes(self.env)
        self.carried: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        saved, observation, reward = self._probe()
        self.carried = self._find_carried(saved)
        self.tangent_size = integration_tangent(self.snapshot) + len(self.carried)
        self.precision = Precision(
            state=np.dtype(np.float64),
            observation=_floating(observation),
            reward=_floating(reward),
        )

    @property
    def has_contacts(self) -> bool:
        """Whether any two bodies of the model can touch."""
        model = self.env.model
        types, affinities = model.geom_contype, model.geom_conaffinity
        collide = (types[:, None] & affinities[None, :]) != 0
        different = model.geom_bodyid[:, None] != model.geom_bodyid[None, :]
        return bool(model.npair) or bool((collide & different).any())

    def reset(self, seed: int) -> tuple[Array, Array]:
        observation, _ = self.env.reset(seed=seed)
        return self.snapshot.capture(self.env.data), np.asarray(observation, dtype=np.float64)

    def step(self, saved: Array, action: NDArray[np.floating]) -> Outcome:
        rows = len(saved)
        after = np.empty_like(saved)
        observation = np.empty((rows, *self.observation_space.shape))
        reward, terminated = np.empty(rows), np.empty(rows, dtype=np.bool_)
        for k in range(rows):
            self.snapshot.restore(self.env.data, saved[k])
            observation[k], reward[k], terminated[k], _, _ = self.env.step(action[k])
            after[k] = self.snapshot.capture(self.env.data)
        return Outcome(after, observation, reward, terminated)

    def perturb(self, saved: Array, tangent: Array) -> Array:
        return mujoco_snapshot.perturb(self.snapshot, saved, tangent, self.carried)

    def displacement(self, saved: Array, origin: Array) -> Array:
        return mujoco_snapshot.displacement(self.snapshot, saved, origin, self.carried)

    def render(self, saved: Array) -> NDArray[np.uint8]:
        """The environment's own picture of a saved state ``[S]``.

        Raises:
            RequestError: it was not made with ``render_mode="rgb_array"``.
        """
        if self.env.render_mode != "rgb_array":
            raise RequestError(
                f"{type(self.env).__name__} was made with render_mode={self.env.render_mode!r}: "
                'make it with render_mode="rgb_array" to draw it'
            )
        self.snapshot.restore(self.env.data, saved)
        import_mujoco().mj_forward(self.env.model, self.env.data)
        picture: NDArray[np.uint8] = self.env.render()
        return picture

    def _probe(self) -> tuple[Array, NDArray[Any], NDArray[Any]]:
        """A state some steps from a start, and what the environment returned there."""
        saved, _ = self.reset(seed=0)
        actions = self._actions(4)
        for action in actions[:3]:
            saved = self.step(saved[None], action[None]).saved[0]
        self.snapshot.restore(self.env.data, saved)
        observation, reward, *_ = self.env.step(actions[3])
        first = _as_row(np.asarray(observation), reward)
        self.step(self.reset(seed=1)[0][None], actions[:1])  # leaves mjData elsewhere
        again = self.step(saved[None], actions[3:])
        if not np.array_equal(first, _as_row(again.observation[0], again.reward[0])):
            raise RequestError(
                f"{type(self.env).__name__} steps differently from the same state of its "
                "simulator: it keeps a counter, a filter or random numbers of its own, which "
                "cannot be restored. Move them into MuJoCo's state (mjData.userdata), or train "
                "with `reinforce`, which needs no gradient of it"
            )
        return saved, np.asarray(observation), np.asarray(reward)

    def _find_carried(self, saved: Array) -> NDArray[np.intp]:
        """Which derived numbers the step reads: those whose change shows in what it returns."""
        action = self._actions(1)
        before = self.step(saved[None], action)
        expected = _as_row(before.observation[0], before.reward[0])

        def shows(where: slice | int) -> bool:
            moved = saved[None].copy()
            moved[0, where] += 0.1
            after = self.step(moved, action)
            found = _as_row(after.observation[0], after.reward[0])
            return not np.array_equal(found, expected)

        carried: list[int] = []
        for name in self.snapshot.fields:
            where = self.snapshot.parts[name]
            if shows(where):
                carried += [entry for entry in range(where.start, where.stop) if shows(entry)]
        return np.array(carried, dtype=np.intp)

    def _actions(self, count: int) -> Array:
        space, rng = self.action_space, np.random.default_rng(0)
        return np.clip(rng.uniform(-1, 1, (count, *space.shape)), space.low, space.high)


def _make(make: Callable[[], gymnasium.Env[Any, Any]]) -> gymnasium.Env[Any, Any]:
    with quiet_loading():
        try:
            return make()
        except (ImportError, DependencyNotInstalled) as error:
            raise missing_package("the MuJoCo adapter", error) from error


def _unwrap(env: gymnasium.Env[Any, Any]) -> tuple[Any, int]:
    """The environment itself, and its time limit."""
    from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

    limit, env = time_limit(env), without_checking_wrappers(env)
    if isinstance(env, gymnasium.Wrapper):
        raise RequestError(
            f"{type(env).__name__} around {type(env.unwrapped).__name__} would be lost: the "
            "adapter differentiates the environment itself. Give it without this wrapper, and "
            "transform observations, actions or rewards in torch"
        )
    if not isinstance(env, MujocoEnv):
        raise RequestError(
            f"{type(env).__name__} is not a gymnasium.envs.mujoco.MujocoEnv: the MuJoCo adapter "
            "restores mjData, which it does not have. FiniteDifference takes any environment whose "
            "state can be saved"
        )
    if limit is None:
        raise RequestError(
            f"{type(env).__name__} has no time limit: register it with max_episode_steps, or wrap "
            "it in gymnasium.wrappers.TimeLimit"
        )
    return env, limit


def _boxes(env: Any) -> tuple[Box, Box]:
    name, advice = type(env).__name__, "the MuJoCo adapter takes no other space"
    observation = require_flat_box(name, "observation_space", env.observation_space, advice)
    return observation, require_flat_box(name, "action_space", env.action_space, advice)


def _floating(value: NDArray[Any]) -> np.dtype:
    """In what it is computed; an integer is exact."""
    return value.dtype if np.issubdtype(value.dtype, np.floating) else np.dtype(np.float64)


def _as_row(observation: NDArray[Any], reward: Any) -> Array:
    return np.append(np.asarray(observation, dtype=np.float64), np.float64(reward))
