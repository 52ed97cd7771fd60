"""A vector environment of ordinary environments, which says what fails and can go on without it."""

import json
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from pgtoolkit.envs.ordinary.episode_state import ResumeChoice
from pgtoolkit.envs.vectorized.causes import Failure
from pgtoolkit.envs.vectorized.launcher import Launcher
from pgtoolkit.envs.vectorized.local import LocalEnv
from pgtoolkit.envs.vectorized.play import (
    Answer,
    NewEpisode,
    Start,
    call,
    get_state,
    set_state,
)
from pgtoolkit.envs.vectorized.recording import MAX_STEPS, Recording
from pgtoolkit.envs.vectorized.share import Share, SharedEnv
from pgtoolkit.envs.vectorized.single import SingleEnv
from pgtoolkit.envs.vectorized.step_result import (
    Step,
    StepResult,
    is_rare,
    with_finite_numbers,
    with_finite_start,
)
from pgtoolkit.envs.vectorized.stepping import PLAIN, Stepping
from pgtoolkit.envs.vectorized.worker import WorkerEnv, serve
from pgtoolkit.errors import EnvFaultError, RequestError
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.seeding import stream_seed
from pgtoolkit.state import (
    Schema,
    StateError,
    anything,
    array,
    entries,
    integer,
    mapping,
    require,
    series,
    tensor,
    text,
)

LOG = logging.getLogger("pgtoolkit")

NO_STATE = {"kind": "new episodes", "reason": "it has no state_dict()"}

MAX_RESTARTS = 3
"""Restarts of an environment, without a good step between them (or, in an evaluation, without a
whole episode), after which a fault stops."""


@final
class OrdinaryVectorEnv(VectorEnv[Any, Any, Any]):
    """``N`` copies of an ordinary environment, autoreset SAME_STEP.

    Results are those of Gymnasium's ``SyncVectorEnv``, to the bit, in this process or in workers.
    An environment *fails* if it raises, takes too long, returns what its spaces do not allow, or if
    its worker dies; unless ``on_fault`` is ``stop``, also if it returns NaN or infinity. (With
    ``stop`` the rollout says so, once for each window.) Then

    - ``stop`` raises :class:`EnvFaultError <pgtoolkit.errors.EnvFaultError>`;
    - ``restart`` makes the environment again, with a seed of the run's, and it begins an episode.
      The step that failed is marked in ``info["not_taken"]`` ``[N]``;
    - ``drop`` takes the environment out. From then on its steps are marked in the same way, and it
      returns its last observation.

    A step that was not taken has the reward 0 and ends no episode.

    Args:
        make_env: makes an environment; each one must check its observations, as those of
            :meth:`EnvSpec.make_guarded <pgtoolkit.envs.registry.resolve.EnvSpec.make_guarded>` do.
        num_envs: ``N``.
        name: the environment's name, for messages.
        stepping: where environments run, and what a fault does.
        resume_choice: how a resumed run goes on with such environments, where that is known.

    Attributes:
        num_faults: faults so far.
        dropped: ``[N]`` environments that were taken out.

    Raises:
        RequestError: an environment cannot be made, or the copies have different spaces.
    """

    def __init__(
        self,
        make_env: Callable[[], AnyEnv],
        num_envs: int,
        *,
        name: str = "the environment",
        stepping: Stepping = PLAIN,
        resume_choice: ResumeChoice | None = None,
    ) -> None:
        self.num_envs, self.name, self.stepping = num_envs, name, stepping
        self.resume_choice = resume_choice
        self._make_env, self._owner = make_env, os.getpid()
        self._launcher: Launcher | None = None
        if stepping.vectorization == "async":
            self._launcher = Launcher(lambda connection: serve(connection, make_env))
        self._recording = Recording(num_envs)
        self._clock, self._base_seed, self.num_faults = 0, 0, 0
        self.dropped = np.zeros(num_envs, np.bool_)
        self._restarts, self._streak = [0] * num_envs, [0] * num_envs
        self._restarted_at, self._ended_at = [-1] * num_envs, [-1] * num_envs
        self._singles: list[SingleEnv] = []
        self._share = Share(num_envs, divided=stepping.divided)
        try:
            self._make_all()
        except BaseException:
            self.close()
            raise
        self._playing = self._own_playing()
        facts = self._singles[0].facts
        self.metadata = facts.metadata | {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.render_mode = facts.render_mode
        self.single_observation_space = facts.observation_space
        self.single_action_space = facts.action_space
        self.observation_space = batch_space(facts.observation_space, num_envs)
        self.action_space = batch_space(facts.action_space, num_envs)
        shape, self._dtype = facts.observation_space.shape, facts.observation_space.dtype
        assert shape is not None, "guarded environments have flat observations or images"
        self._shape = (num_envs, *shape)
        self._observations = np.zeros(self._shape, self._dtype)

    def _make_all(self) -> None:
        """Makes the environments; workers make theirs side by side.

        Raises:
            RequestError: one cannot be made, or its spaces differ from the first one's.
        """
        try:
            self._singles = self._share.made(self._make_single)
        except RuntimeError as error:
            raise RequestError(f"{self.name} cannot be made in a worker: {error}") from error
        facts = [single.facts for single in self._singles]
        for index, of_env in enumerate(facts):
            if of_env[:2] != facts[0][:2]:
                raise RequestError(
                    f"{self.name}: copy {index} has other spaces than copy 0: make spaces that "
                    "depend on nothing but the arguments"
                )

    def _make_single(self) -> SingleEnv:
        timeout = self.stepping.step_timeout
        if self._launcher is None:
            return LocalEnv(self._make_env, timeout)
        return WorkerEnv(self._launcher, timeout)

    def _own_playing(self) -> list[tuple[int, SingleEnv]]:
        """The environments that this process steps, with their numbers."""
        return [(i, self._singles[i]) for i in self._share.own if not self.dropped[i]]

    @property
    def envs(self) -> list[AnyEnv]:
        """The environments that are in this process."""
        here = map(self._here, self._share.own)
        return [single.env for single in here if isinstance(single, LocalEnv)]

    @property
    def shares(self) -> list[int]:
        """The number of environments of each process of the run, where they are divided."""
        return self._share.sizes

    @property
    def time_limits(self) -> list[int | None]:
        """Each environment's time limit in steps, None where there is none."""
        return [single.facts.time_limit for single in self._singles]

    @property
    def resume(self) -> list[str]:
        """How each environment can be resumed: ``state``, ``replay`` or ``new episodes``."""
        return [single.facts.resume for single in self._singles]

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Resets all environments; ``seed + i`` is the seed of environment ``i``.

        Args:
            seed: a seed, one for each environment, or None: their generators then continue.
            options: for each environment's ``reset``. ``reset_mask`` ``[N]`` says which to reset.

        Raises:
            EnvFaultError: an environment fails and ``on_fault`` is ``stop``, or it fails again and
                again.
            RequestError: its first reset does not return what its spaces say.
        """
        if isinstance(seed, int | np.integer):
            self._base_seed = int(seed)
            seeds: Sequence[int | None] = [int(seed) + i for i in range(self.num_envs)]
            self._restarts = [0] * self.num_envs  # the same seed then gives the same restarts
        else:
            seeds = [None] * self.num_envs if seed is None else seed
        options = dict(options or {})
        mask = options.pop("reset_mask", np.ones(self.num_envs, np.bool_))
        observations = self._observations.copy()
        for i in np.flatnonzero(mask & ~self.dropped).tolist():
            self._reset_single(i, seeds[i], options or None, observations)
        self._observations = observations
        return observations.copy(), {}

    def step(self, actions: Any) -> Step:
        """Steps all environments, and resets those whose episode ends.

        Args:
            actions: ``[N, ...]``.

        Returns:
            Observations after the resets, rewards, terminated, truncated, and ``info``:
            ``final_obs`` are the observations before the resets (and ``_final_obs`` is where),
            ``is_success`` what the environments' infos have of this name (in ``final_info`` where
            an episode ended), and ``not_taken`` the steps that did not happen because of a fault.

        Raises:
            EnvFaultError: an environment fails and ``on_fault`` is ``stop``, it fails again and
                again, or all are dropped.
            RequestError: its first step does not return what its spaces say.
        """
        actions, self._clock = np.asarray(actions), self._clock + 1
        self._recording.add(actions)
        for i, single in self._playing:
            single.send_step(actions[i])
        # All answers are read before one of them is looked at, so that none is left behind.
        answers = [(i, single.receive_step()) for i, single in self._playing]
        answers = self._share.joined_answers(answers)
        result = StepResult(self._observations, self._dtype)
        rare = result.put_all(answers)
        if self.stepping.on_fault != "stop" and not result.is_finite():
            found = [(i, with_finite_numbers(answer)) for i, answer in answers]
            rare = [(i, answer) for i, answer in found if is_rare(answer)]
        if len(answers) < self.num_envs:
            for i in np.flatnonzero(self.dropped).tolist():
                result.skip(i)
        for i, answer in rare:
            self._put_rare(i, answer, result)
        self._observations = result.observations
        return result.as_step()

    def _put_rare(self, i: int, answer: Answer | Failure, result: StepResult) -> None:
        """Puts a step that failed, or that ended an episode, into the result."""
        if self.stepping.on_fault != "stop":
            answer = with_finite_numbers(answer)
        if isinstance(answer, Failure):
            result.skip(i)
            self._recover(i, answer, self._recording.length(i), result.observations)
            return
        after, self._ended_at[i] = result.put_end(i, answer), self._clock
        self._begin(i, after, result.observations)

    def _begin(self, i: int, after: NewEpisode | Failure, observations: NDArray[Any]) -> None:
        """Begins an episode with the result of a reset, which may have failed."""
        if self.stepping.on_fault != "stop":
            after = with_finite_start(after)
        if isinstance(after, Failure):
            self._recover(i, after, None, observations)
            return
        self._recording.begin(i, after.start)
        observations[i] = after.observation

    def _recover(
        self, i: int, failure: Failure, step: int | None, observations: NDArray[Any]
    ) -> None:
        """Stops, drops or restarts after a failure.

        Raises:
            EnvFaultError: the environment is not to be dropped or restarted.
            RequestError: the environment never kept to Gymnasium's interface.
        """
        if failure.is_request and self._clock <= 1:
            raise RequestError(failure.cause)
        self.num_faults += 1
        error = self._error(i, failure, step)
        if self.stepping.on_fault == "stop":
            raise error
        self._singles[i].close(failure)
        if self.stepping.on_fault == "drop":
            self._drop(i, error)
        else:
            self._restart(i, error, observations)

    def _drop(self, i: int, error: EnvFaultError) -> None:
        LOG.warning("%s: it is dropped (--on-fault drop)", error)
        self.dropped[i] = True
        self._recording.forget(i)
        self._playing = self._own_playing()
        if self.dropped.all():
            raise _with_text(error, f"{error}: all environments are dropped")

    def _restart(self, i: int, error: EnvFaultError, observations: NDArray[Any]) -> None:
        """Makes the environment again and resets it, with a seed of its own.

        Raises:
            EnvFaultError: that was so often in vain.
        """
        latest = self._ended_at[i] if self.stepping.needs_episodes else self._clock - 1
        self._streak[i] = 1 if latest > self._restarted_at[i] else self._streak[i] + 1
        if self._streak[i] > MAX_RESTARTS:
            times = f"{MAX_RESTARTS} restarts in a row were in vain"
            raise _with_text(error, f"{error}: {times}")
        self._restarts[i] += 1
        self._restarted_at[i] = self._clock
        seed = stream_seed(self._base_seed, f"restart {self._restarts[i]} of environment {i}")
        LOG.warning("%s: it is restarted with seed %d (--on-fault restart)", error, seed)
        try:
            self._singles[i] = self._share.made_again(i, self._make_single)
        except (RequestError, RuntimeError) as cannot:
            self._recover(i, Failure(f"it cannot be made again: {cannot}"), None, observations)
            return
        self._playing = self._own_playing()
        self._reset_single(i, seed, None, observations)

    def _reset_single(
        self, i: int, seed: int | None, options: dict[str, Any] | None, observations: NDArray[Any]
    ) -> None:
        if seed is not None:  # else the reset follows from the episode before it
            self._recording.begin(i, {"seed": seed, "generator": None})
        self._begin(i, self._singles[i].reset(seed, options), observations)

    def _error(self, i: int, failure: Failure, step: int | None) -> EnvFaultError:
        seed, length = self._recording.start(i)["seed"], self._recording.length(i)
        where = f"at step {step} of its episode"
        if step is None:
            where = f"in the reset after {length} steps" if length else "in its reset"
        known = "" if seed is None else f" (seed {seed})"
        return EnvFaultError(
            f"environment {i} of {self.name} failed {where}{known}: {failure.cause}",
            env_index=i,
            step=step,
            seed=seed,
            replay=self._recording.replay(i),
        )

    def episode_before(self, i: int, steps: int) -> dict[str, Any] | None:
        """What repeats the episode of environment ``i`` up to ``steps`` steps before the latest.

        As JSON can hold it: ``start``, ``actions`` and ``env_index``. None if the episode has begun
        since, or if it is too long to be kept.
        """
        found = self._recording.replay(i)
        if found["actions"] is None or len(found["actions"]) <= steps:
            return None
        return found | {"actions": found["actions"][: len(found["actions"]) - steps]}

    def metrics(self) -> dict[str, torch.Tensor]:
        """``{"rollout/env_faults": ...}``, the number of faults so far, if a run survives them."""
        if self.stepping.on_fault == "stop":
            return {}
        return {"rollout/env_faults": torch.tensor(float(self.num_faults))}

    def get_states(self) -> list[dict[str, Any]]:
        """Each environment's state, to be saved: its own, its episode so far, and its faults.

        ``kind`` is that of its own state, ``new episodes`` if it has none, or ``dropped``.
        """
        here = [self._get_state(i) for i in self._share.own]
        return self._share.joined(here, "states of environments")

    def _get_state(self, i: int) -> dict[str, Any]:
        own = {"kind": "dropped"}
        if not self.dropped[i]:
            own = {"kind": "state"} | (self._here(i).ask(get_state) or NO_STATE)
        return own | {
            "vector": {
                # As text, because a generator's state has integers of more than 64 bits.
                "start": json.dumps(self._recording.start(i)),
                "actions": self._recorded_actions(i),
                "observation": torch.as_tensor(self._observations[i]),
                "restarts": self._restarts[i],
                "streak": self._streak[i],
                "since_restart": self._clock - self._restarted_at[i],
                "base_seed": self._base_seed,
                "faults": self.num_faults,
            }
        }

    def _here(self, i: int) -> SingleEnv:
        """An environment that this process has, without a word to the others."""
        single = self._singles[i]
        return single.owned if isinstance(single, SharedEnv) else single

    def _recorded_actions(self, i: int) -> torch.Tensor:
        """The actions of the episode so far, ``[T, ...]``; none where there are too many."""
        space = self.single_action_space
        found = np.array(self._recording.actions(i) or [], space.dtype)
        return torch.from_numpy(found.reshape(-1, *(space.shape or ())))

    def set_states(self, states: Sequence[dict[str, Any]]) -> NDArray[Any]:
        """Goes on from what :meth:`get_states` returned.

        A state of the kind ``new episodes`` needs the entry ``seed``, of the reset.

        Returns:
            The observations to act on.

        Raises:
            RequestError: these are not the states of ``N`` such environments.
        """
        require(states, series(self._state_schema(), self.num_envs, self.num_envs))
        observations = self._observations.copy()
        for i, state in enumerate(states):
            own, vector = {k: v for k, v in state.items() if k != "vector"}, state["vector"]
            self.dropped[i] = own["kind"] == "dropped"
            self._restarts[i], self._streak[i] = vector["restarts"], vector["streak"]
            self._restarted_at[i] = self._clock - vector["since_restart"]
            self._base_seed, self.num_faults = vector["base_seed"], vector["faults"]
            if self.dropped[i]:
                self._singles[i].close()
                self._recording.forget(i)
                observations[i] = vector["observation"].numpy()
            elif own["kind"] == "new episodes":
                self._reset_single(i, own["seed"], None, observations)
            else:
                observations[i] = self._singles[i].ask(set_state, own)
                start = parse_start(vector["start"])
                self._recording.begin(i, start, vector["actions"].tolist())
        self._playing = self._own_playing()
        self._observations = observations
        return observations.copy()

    def _state_schema(self) -> Schema:
        """What a state must have beside the environment's own, which that compares itself."""
        counts = ("restarts", "streak", "since_restart", "base_seed", "faults")
        vector = entries(
            {
                "start": text,
                "actions": array(
                    self._recorded_actions(0).dtype,
                    (MAX_STEPS, *(self.single_action_space.shape or ())),
                    longest=(0,),
                ),
                "observation": tensor(torch.as_tensor(self._observations[0])),
                **dict.fromkeys(counts, integer()),
            }
        )

        def check(state: Any, path: str) -> None:
            require(state, mapping(anything), path)
            known = {"kind": text, "vector": vector}
            if state.get("kind") == "new episodes":
                known["seed"] = integer()
            require({k: state[k] for k in known if k in state}, entries(known), path)

        return check

    def render(self) -> tuple[Any, ...] | None:
        """Each environment's picture."""
        return self.call("render")

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Calls a method of each environment, or reads an attribute."""
        if kwargs:
            raise RequestError("give the arguments of call by position")
        return tuple(single.ask(call, name, args) for single in self._singles)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Each environment's attribute."""
        return self.call(name)

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the environments and ends their workers."""
        # A process that was forked from this one has copies of all objects, and must not.
        if os.getpid() != self._owner:
            return
        for i, single in enumerate(getattr(self, "_singles", [])):
            if not self.dropped[i]:
                single.close()
        if self._launcher is not None:
            self._launcher.close()


def parse_start(written: str) -> Start:
    """The start of an episode that :meth:`OrdinaryVectorEnv.get_states` wrote as text.

    Raises:
        StateError: it is something else.
    """
    try:
        start = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise StateError("vector/start", "is not JSON") from error
    if not isinstance(start, dict) or set(start) != {"seed", "generator"}:
        raise StateError("vector/start", "is not the start of an episode")
    return start


def _with_text(error: EnvFaultError, text: str) -> EnvFaultError:
    return EnvFaultError(
        text,
        env_index=error.env_index,
        step=error.step,
        seed=error.seed,
        replay=error.replay,
    )
