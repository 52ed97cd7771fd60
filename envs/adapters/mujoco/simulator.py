"""A MuJoCo environment as a pure function of its saved state."""

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, final

import gymnasium
import numpy as np
import torch
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.replay_check import (
    RecordedStep,
    StepResult,
    play_at_bounds,
    play_episodes,
    verify_episodes,
)
from pgtoolkit.envs.adapters.gymnasium.state_slots import KEEP_ADVICE, StateSlots, stack_rows
from pgtoolkit.envs.adapters.gymnasium.tangent import tangent_entries
from pgtoolkit.envs.adapters.mujoco import snapshot as mujoco_snapshot
from pgtoolkit.envs.adapters.mujoco.model_fields import field_guard, model_fields
from pgtoolkit.envs.adapters.mujoco.readouts import Readout, readout_of
from pgtoolkit.envs.adapters.mujoco.snapshot import (
    DERIVED_FIELDS,
    OtherInputs,
    Snapshot,
    depends_on_warmstart,
    import_mujoco,
    physics_tangent_size,
    quiet_loading,
)
from pgtoolkit.envs.adapters.requirements import (
    find_time_limit,
    require_flat_box,
    truncates_itself,
)
from pgtoolkit.envs.adapters.simulation.simulator import Array, Outcome, Precision, Simulator
from pgtoolkit.envs.registry.ordinary import CHECKING_WRAPPERS
from pgtoolkit.envs.registry.registered import missing_package
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.state import array, require


@final
class MuJoCoSimulator(Simulator):
    """A simulator that restores a saved state, calls the environment's own step and saves again.

    A saved state holds ``mjSTATE_INTEGRATION`` and the derived fields that the environment might
    read before its step. ``mj_step`` leaves these as of the last substep; ``mj_forward`` is not
    called, because it would update them and change the step. The solver's options are not changed.

    For classes other than Gymnasium's own, the state that the environment holds in Python follows,
    and the parameters of the model that it changes, as
    :class:`~pgtoolkit.envs.adapters.gymnasium.state_slots.StateSlots` saves them. Whole episodes
    are played and repeated on construction. Gymnasium's own classes hold no such state.

    The tangent space has MuJoCo's ``2 nv + na`` numbers for positions, velocities and activations,
    and then the derived numbers on which the step depends, which are found by changing each. For
    example, Ant's reward depends on the torso's position before the last substep. With a solver
    that does not converge to rounding (PGS in the two humanoids, CG) the step also depends on the
    ``nv`` accelerations from which the solver starts, see :func:`depends_on_warmstart`. Times the
    time step they are velocities, and so they are measured in the tangent space.

    Args:
        make: makes the environment; called once. Only ``TimeLimit`` and the wrappers by which
            Gymnasium checks calls may be around it.

    Raises:
        RequestError: ``mujoco`` is not installed, the environment is not a ``MujocoEnv``, it has
            other wrappers or no time limit, or its step depends on more than the simulator's state.
    """

    def __init__(self, make: Callable[[], AnyEnv]) -> None:
        made = _make(make)
        self.env = _unwrap(made)
        self.max_episode_steps = find_time_limit(made, advice="register it with max_episode_steps")
        advice = "the MuJoCo adapter takes no other"
        self.observation_space = require_flat_box(self.env, "observation_space", advice)
        self.action_space = require_flat_box(self.env, "action_space", advice)
        self.readout: Readout | None = None if _is_patched(self.env) else readout_of(self.env)
        fields = DERIVED_FIELDS if self.readout is None else self.readout.before
        self.snapshot = Snapshot(self.env.model, fields)
        self._first = self.snapshot.capture(self.env.data)
        self.slots: StateSlots | None = None
        """The state beside MuJoCo's; None for Gymnasium's own classes."""
        self.saved_size = self.snapshot.size
        self.derived_inputs: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        """Indices of the further saved numbers on which the step depends: derived fields, and state
        that the environment holds in Python."""
        self._take_sizes()
        if self.readout is None:
            self.slots = self._find_slots()
        saved, observation, reward = self._check_replay()
        self.derived_inputs = self._find_derived_inputs(saved)
        if self.slots is not None:
            self._verify(self.slots)
        self._take_sizes()
        # A contact that closes moves numbers that stood still, too, and Gymnasium's classes do not
        # round. Whether another class does is not known.
        self.may_round = self.readout is None
        self.precision = Precision(
            state=np.dtype(np.float64),
            observation=_float_dtype(observation),
            reward=_float_dtype(reward),
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
        self.snapshot.restore(self.env.data, self._first)
        if self.slots is not None:
            self.slots.restore_first()
        return self._reset(seed)

    def reset_again(self, saved: Array, seed: int) -> tuple[Array, Array]:
        self._restore(saved)
        return self._reset(seed)

    def _reset(self, seed: int) -> tuple[Array, Array]:
        observation, _ = self.env.reset(seed=seed)
        row = self._capture()
        self._take_sizes()
        return row, np.array(observation, dtype=np.float64)

    def step(self, saved: Array, action: NDArray[np.floating]) -> Outcome:
        """See :meth:`Simulator.step`.

        Raises:
            RequestError: the environment truncates by itself.
        """
        count, after = len(saved), []
        observation = np.empty((count, *self.observation_space.shape))
        reward, terminated = np.empty(count), np.empty(count, dtype=np.bool_)
        for k in range(count):
            self._restore(saved[k])
            observation[k], reward[k], terminated[k], truncated, _ = self.env.step(action[k])
            if truncated:
                raise RequestError(truncates_itself(type(self.env).__name__))
            after.append(self._capture())
        found = self._completed(stack_rows(after, max(map(len, after), default=self.saved_size)))
        self._take_sizes()
        return Outcome(found, observation, reward, terminated)

    def perturb(self, saved: Array, tangent: Array) -> Array:
        size = tangent.shape[1] - physics_tangent_size(self.snapshot)
        others = OtherInputs(self._others.indices[:size], self._others.units[:size])
        return mujoco_snapshot.perturb(self.snapshot, self._completed(saved), tangent, others)

    def displacement(self, saved: Array, origin: Array) -> Array:
        return mujoco_snapshot.displacement(self.snapshot, saved, origin, self._others)

    def begin_window(self) -> None:
        if self.slots is not None:
            self.slots.require_constants()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.slots is None else self.slots.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.slots is not None:
            self.slots.load_state_dict(state)
            first = self.derived_inputs < self.snapshot.size + self.slots.layout.first_size
            self.derived_inputs = self.derived_inputs[first]
            self._take_sizes()

    def require_states(self, saved: Array, path: str) -> None:
        physics = saved[:, : self.snapshot.size]
        require(
            torch.from_numpy(physics), array(torch.float64, (len(saved), self.snapshot.size)), path
        )
        if self.slots is not None:
            self.slots.require_readable(saved[:, self.snapshot.size :], path)

    def _capture(self) -> Array:
        physics = self.snapshot.capture(self.env.data)
        if self.slots is None:
            return physics
        return np.concatenate([physics, self.slots.capture()])

    def _restore(self, saved: Array) -> None:
        if self.slots is not None:
            self.slots.restore(saved[self.snapshot.size :].tolist())
        self.snapshot.restore(self.env.data, saved)

    def _completed(self, saved: Array) -> Array:
        """States ``[K, S]`` with all constants that have become state since they were saved."""
        if self.slots is None:
            return saved
        size = self.snapshot.size
        return np.hstack([saved[:, :size], self.slots.complete(saved[:, size:])])

    def _take_sizes(self) -> None:
        """Notes the present sizes; differentiates numbers that became state after the check."""
        if self.slots is not None:
            late = np.array(self.slots.layout.late_floats, dtype=np.intp) + self.snapshot.size
            new = late[~np.isin(late, self.derived_inputs)]
            self.derived_inputs = np.concatenate([self.derived_inputs, new])
            self.saved_size = self.snapshot.size + self.slots.size
            self.slots.layout.late_floats.clear()
        self._others = _other_inputs(self.snapshot, self.derived_inputs)
        self.tangent_size = physics_tangent_size(self.snapshot) + len(self._others.indices)

    def _find_slots(self) -> StateSlots:
        """Plays a few steps and finds the state that the environment holds beside MuJoCo's."""
        slots = StateSlots(self.env, model_fields(self.env.model), field_guard)
        play_episodes(self.env, self.action_space, lambda _: slots.observe())
        play_at_bounds(self.env, self.action_space, slots)
        slots.settle()
        return slots

    def _verify(self, slots: StateSlots) -> None:
        """Repeats whole episodes; finds what of the state in Python is to be differentiated."""
        recorded: list[RecordedStep] = []
        rows = [self._capture()]

        def observe(result: StepResult | None) -> None:
            rows.append(self._capture())
            if result is not None:
                recorded.append(RecordedStep(rows[-2], result, rows[-1]))

        play_episodes(self.env, self.action_space, observe)
        recorded += verify_episodes(self, self.env, slots)
        entries = tangent_entries(self, slots, recorded, self.snapshot.size)
        self.derived_inputs = np.concatenate([self.derived_inputs, entries])

    def render(self, saved: Array) -> NDArray[np.uint8]:
        """The environment's own image of a saved state ``[S]``.

        Raises:
            RequestError: the environment was not made with ``render_mode="rgb_array"``.
        """
        if self.env.render_mode != "rgb_array":
            raise RequestError(
                f"{type(self.env).__name__} was made with render_mode={self.env.render_mode!r}: "
                'make it with render_mode="rgb_array" to draw it'
            )
        self._restore(saved)
        import_mujoco().mj_forward(self.env.model, self.env.data)
        picture: NDArray[np.uint8] = self.env.render()
        return picture

    def _check_replay(self) -> tuple[Array, NDArray[Any], NDArray[Any]]:
        """Raises unless a step can be repeated from its saved state.

        Returns:
            A saved state ``[S]`` and the observation and reward of a step from it.
        """
        saved, _ = self.reset(seed=0)
        actions = self._actions(4)
        for action in actions[:3]:
            saved = self.step(saved[None], action[None]).saved[0]
        self._restore(saved)
        observation, reward, *_ = self.env.step(actions[3])
        first = _as_row(np.asarray(observation), reward)
        self.step(self.reset(seed=1)[0][None], actions[:1])  # another state in between
        again = self.step(saved[None], actions[3:])
        if not np.array_equal(first, _as_row(again.observation[0], again.reward[0])):
            raise RequestError(
                f"{type(self.env).__name__} steps differently from the same state of its "
                "simulator: it keeps a state where it cannot be saved, or draws random numbers "
                f"from elsewhere than self.np_random. {KEEP_ADVICE}"
            )
        return saved, np.asarray(observation), np.asarray(reward)

    def _find_derived_inputs(self, saved: Array) -> NDArray[np.intp]:
        """Indices of the derived numbers whose change alters the observation or the reward."""
        action = self._actions(1)
        before = self.step(saved[None], action)
        expected = _as_row(before.observation[0], before.reward[0])

        def matters(where: slice | int) -> bool:
            moved = saved[None].copy()
            moved[0, where] += 0.1
            after = self.step(moved, action)
            found = _as_row(after.observation[0], after.reward[0])
            return not np.array_equal(found, expected)

        derived_inputs: list[int] = []
        for name in self.snapshot.fields:
            where = self.snapshot.parts[name]
            if matters(where):
                derived_inputs += [
                    entry for entry in range(where.start, where.stop) if matters(entry)
                ]
        return np.array(derived_inputs, dtype=np.intp)

    def _actions(self, count: int) -> Array:
        space, rng = self.action_space, np.random.default_rng(0)
        return np.clip(rng.uniform(-1, 1, (count, *space.shape)), space.low, space.high)


def _other_inputs(snapshot: Snapshot, derived_inputs: NDArray[np.intp]) -> OtherInputs:
    """The solver's warm start if steps depend on it, and then the derived inputs.

    The derived inputs come last because some may join them later: tangents of before stay valid.
    """
    if not depends_on_warmstart(snapshot.model):
        return OtherInputs(derived_inputs, np.ones(len(derived_inputs)))
    warmstart = np.arange(snapshot.warmstart.start, snapshot.warmstart.stop)
    accelerations = np.full(len(warmstart), 1 / snapshot.model.opt.timestep)
    return OtherInputs(
        np.concatenate([warmstart, derived_inputs]),
        np.concatenate([accelerations, np.ones(len(derived_inputs))]),
    )


def _make(make: Callable[[], AnyEnv]) -> AnyEnv:
    """The environment; MuJoCo's warnings about its model are suppressed."""
    with quiet_loading():
        try:
            return make()
        except (ImportError, DependencyNotInstalled) as error:
            raise missing_package("the MuJoCo adapter", error) from error


def _unwrap(env: AnyEnv) -> Any:
    """The ``MujocoEnv`` itself.

    Raises:
        RequestError: it has a wrapper that changes more than its time limit, or it is no
            ``MujocoEnv``.
    """
    from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

    while isinstance(env, gymnasium.Wrapper):
        if not isinstance(env, CHECKING_WRAPPERS):
            raise RequestError(
                f"{type(env).__name__} around {type(env.unwrapped).__name__} would be lost: the "
                "adapter differentiates the environment itself. Give it without this wrapper, and "
                "transform observations, actions or rewards in torch"
            )
        env = env.env
    if not isinstance(env, MujocoEnv):
        raise RequestError(
            f"{type(env).__name__} is not a gymnasium.envs.mujoco.MujocoEnv: the MuJoCo adapter "
            "restores mjData, which it does not have. FiniteDifference takes any environment whose "
            "state can be saved"
        )
    return env


def _is_patched(env: Any) -> bool:
    """Whether a function was assigned to this object, so that its class does not tell its steps."""
    return any(isinstance(value, (FunctionType, MethodType)) for value in vars(env).values())


def _float_dtype(value: NDArray[Any]) -> np.dtype:
    """The dtype of the value; float64 for integers, which are exact."""
    return value.dtype if np.issubdtype(value.dtype, np.floating) else np.dtype(np.float64)


def _as_row(observation: NDArray[Any], reward: Any) -> Array:
    return np.append(np.asarray(observation, dtype=np.float64), np.float64(reward))
