"""An ordinary environment whose episode under way can be saved and taken up by another process."""

import copy
import dataclasses
import logging
import re
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, final

import gymnasium
import numpy as np
import torch

from pgtoolkit.envs.adapters.gymnasium.shared_state import SharedState
from pgtoolkit.envs.ordinary.packed_arrays import pack_array, unpack_array
from pgtoolkit.envs.ordinary.python_state import PythonState
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyEnv

LOG = logging.getLogger("pgtoolkit")

Resume: TypeAlias = Literal["state", "replay", "new episodes"]
"""How a resumed run goes on: from the state, after a replay of the episode, or with another one."""

MAX_ACTIONS = 10_000
"""Most steps of an episode that are recorded, and taken again by a replay."""

MAX_SHOWN_NAMES = 4
"""Most attributes that a message names."""

MAX_REPLAY_SECONDS = 30.0
"""Most seconds that the replay of all environments may take, by the time of a step."""


@final
@dataclasses.dataclass(frozen=True)
class ResumeChoice:
    """What a check found of the environments of one kind."""

    kind: Resume
    reason: str = ""
    """Why it is not a better kind; empty for ``state``."""
    step_seconds: float = 0.0
    """Mean time of a step."""
    things: tuple[Any, ...] = ()
    """Classes and the like that saved states may name."""
    shared: SharedState | None = None
    """What all environments of the kind share; it must not change."""
    max_actions: int = MAX_ACTIONS
    """Longest episode, in steps, that is replayed."""

    def for_envs(self, num_envs: int) -> "ResumeChoice":
        """The choice for so many environments, whose replay must end in time."""
        steps = MAX_REPLAY_SECONDS / max(self.step_seconds, 1e-6) / num_envs
        return dataclasses.replace(self, max_actions=min(MAX_ACTIONS, int(steps)))


NEW_EPISODES = ResumeChoice("new episodes", "it was not checked")


@final
class ResumableEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Saves and restores the episode under way; the outermost wrapper of a training environment.

    Args:
        make: makes the environment, in every process in the same way.
        choice: what a check found of such environments.

    Attributes:
        resume: how a resumed run goes on with this environment.
        start: what determines the episode's start, as JSON can hold it: the ``seed`` of its reset,
            and the state of the environment's ``generator`` before the reset if the seed is None.
        actions: the episode's actions so far; at most ``MAX_ACTIONS``.
    """

    def __init__(self, make: Callable[[], AnyEnv], choice: ResumeChoice) -> None:
        env = make()
        super().__init__(env)
        # Copies, because whoever samples from the environment's own would change its state.
        self.observation_space = copy.deepcopy(env.observation_space)
        self.action_space = copy.deepcopy(env.action_space)
        self._make, self.choice = make, choice
        self.resume: Resume = choice.kind
        self.start: dict[str, Any] = {}
        self.actions: list[Any] = []
        self._num_actions = 0
        self._options: dict[str, Any] | None = None
        self._obs: Any = None
        self._warned = ""
        self.python_state = (
            None if choice.kind == "new episodes" else PythonState(env, choice.things)
        )
        self._as_made = None if self.python_state is None else self.python_state.fingerprint()
        """What its places held before the first reset."""
        self._before: dict[str, Any] | None = None
        """The part of the state before the episode's reset that a replay needs."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self.start = {"seed": seed, "generator": generator_state(self.env)}
        self._before = self._captured_before()
        self._options, self.actions, self._num_actions = options, [], 0
        self._obs, info = self.env.reset(seed=seed, options=options)
        return self._obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self._num_actions < MAX_ACTIONS:
            # A copy, because the row of an array that is used again would change.
            self.actions.append(action.copy() if isinstance(action, np.ndarray) else action)
        self._num_actions += 1
        self._obs, reward, terminated, truncated, info = self.env.step(action)
        return self._obs, reward, terminated, truncated, info

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, of the kind that ``choice`` says.

        If it cannot be had, because something has come into the state that cannot be saved, or
        because the episode is too long to be replayed, the kind is ``new episodes``, with the
        reason.
        """
        if self.resume == "new episodes":
            return {"kind": "new episodes", "reason": self.choice.reason}
        try:
            return self.exact_state()
        except RequestError as error:
            reason = str(error)
        if reason != self._warned:
            self._warned = reason
            LOG.warning("a resumed run starts a new episode in one environment: %s", reason)
        return {"kind": "new episodes", "reason": reason}

    def exact_state(self) -> dict[str, Any]:
        """The state of the kind ``state`` or ``replay``.

        Raises:
            RequestError: it cannot be had.
        """
        if self.choice.shared is not None:
            require_private(self.choice.shared, type(self.unwrapped).__name__)
        found = self._saved_state() if self.resume == "state" else self._saved_replay()
        return found if self._as_made is None else found | {"as_made": self._as_made}

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Goes on from what :meth:`state_dict` returned.

        A state of new episodes needs the entry ``seed``, of the reset.

        Returns:
            The observation to act on.

        Raises:
            RequestError: the state is of another environment or damaged, or the replay came to
                another observation.
        """
        try:
            return self._load(state)
        except RequestError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RequestError(f"a saved episode is damaged ({single_line(error)})") from error

    def _load(self, state: dict[str, Any]) -> Any:
        kind = state["kind"]
        if kind == "new episodes":
            return self.reset(seed=state["seed"])[0]
        if kind not in ("state", "replay") or self.python_state is None:
            raise RequestError(
                f"the saved state of {type(self.unwrapped).__name__} is of the kind {kind!r}, and "
                f"here its kind is {self.resume!r}: {self.choice.reason}"
            )
        self._require_made_alike(state)
        actions = [] if state["actions"] is None else list(unpack_array(state["actions"]))
        if kind == "state":
            self._restore(state, actions)
        else:
            self._replay(state, actions)
        self.start = state["start"]
        return self._obs

    def _require_made_alike(self, state: dict[str, Any]) -> None:
        """Raises if the environment is made with other constants than when the state was saved.

        Restoring would put the former ones back, because they are attributes as all others are.

        Raises:
            RequestError: names those that differ.
        """
        saved, own, python = state.get("as_made"), self._as_made, self.python_state
        if saved is None or own is None or python is None or saved.shape != own.shape:
            return
        if torch.equal(saved, own):
            return
        # What differs between two that are made one after the other, as the clock, is no constant.
        other = self._make()
        again = PythonState(other, self.choice.things).fingerprint()
        other.close()
        if again.shape != own.shape:
            return
        names = python.names_of(((again == own) & (saved != own)).nonzero().flatten())
        if names:
            more = ", ..." if len(names) > MAX_SHOWN_NAMES else ""
            shown = ", ".join(names[:MAX_SHOWN_NAMES]) + more
            raise RequestError(
                f"{type(self.unwrapped).__name__} is made otherwise than when the run was saved: "
                f"{shown}"
            )

    def _captured_before(self) -> dict[str, Any] | None:
        if self.resume != "replay" or self.python_state is None:
            return None
        try:
            return self.python_state.capture_held()
        except RequestError:
            return None

    def _saved_state(self) -> dict[str, Any]:
        assert self.python_state is not None, "the kind is 'state'"
        packed = None if self._obs is None else pack_array(self._obs)
        return {
            "kind": "state",
            "start": self.start,
            "python": self.python_state.capture(),
            "actions": self._packed_actions(),
            "num_actions": self._num_actions,
            "obs": packed,
        }

    def _saved_replay(self) -> dict[str, Any]:
        if self._before is None or self._options is not None:
            raise RequestError("the start of its episode could not be saved")
        if self._num_actions > self.choice.max_actions:
            raise RequestError(
                f"its episode of {self._num_actions:,} steps is too long to be taken again"
            )
        return {
            "kind": "replay",
            "start": self.start,
            "python": self._before,
            "actions": self._packed_actions(),
            "obs": pack_array(self._obs),
        }

    def _packed_actions(self) -> dict[str, Any] | None:
        return pack_array(np.stack(self.actions)) if self.actions else None

    def _restore(self, state: dict[str, Any], actions: list[Any]) -> None:
        assert self.python_state is not None, "checked by the caller"
        self.python_state.restore(state["python"])
        self.actions, self._num_actions, self._options = actions, state["num_actions"], None
        self._obs = None if state["obs"] is None else unpack_array(state["obs"])

    def _replay(self, state: dict[str, Any], actions: list[Any]) -> None:
        """Takes the episode again in a new environment."""
        if len(actions) > MAX_ACTIONS:
            raise RequestError(f"an episode of {len(actions):,} steps is too long to be replayed")
        self.env.close()
        self.env = self._make()
        self.python_state = PythonState(self.env, self.choice.things)
        self.python_state.restore(state["python"])
        try:
            self.reset(seed=state["start"]["seed"])
            for action in actions:
                self.step(action)
        except Exception as error:
            raise RequestError(
                f"the replay of an episode raises {type(error).__name__}: {single_line(error)}"
            ) from error
        self._before = state["python"]
        if np.asarray(self._obs).tobytes() != unpack_array(state["obs"]).tobytes():
            raise RequestError(
                f"the replay of an episode of {type(self.unwrapped).__name__} came to another "
                "observation"
            )


def require_private(shared: SharedState, name: str) -> None:
    """Raises if what all environments of a class share has changed.

    Raises:
        RequestError: names it.
    """
    try:
        shared.require_unchanged(name)
    except RequestError as error:
        # The rest is advice on batches of copies, which an adapter makes.
        raise RequestError(re.split(": |, and |\\. ", str(error))[0]) from error


def generator_state(env: AnyEnv) -> Any:
    """The state of ``env.unwrapped.np_random`` as JSON can hold it; None if it has none yet."""
    generator = getattr(env.unwrapped, "_np_random", None)
    return None if not isinstance(generator, np.random.Generator) else _plain(generator)


def _plain(value: Any) -> Any:
    if isinstance(value, np.random.Generator):
        return _plain(value.bit_generator.state)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
