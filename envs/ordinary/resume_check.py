"""Finds out how a resumed run can go on with the environments of one kind: by trying it."""

import contextlib
import functools
import math
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, final

import numpy as np
import torch

from pgtoolkit.apart import call_apart
from pgtoolkit.envs.adapters.gymnasium.shared_state import SharedState
from pgtoolkit.envs.ordinary.episode_state import (
    ResumableEnv,
    Resume,
    ResumeChoice,
    require_private,
)
from pgtoolkit.envs.ordinary.python_state import PythonState
from pgtoolkit.envs.registry.allowed_actions import with_allowed_actions
from pgtoolkit.envs.registry.guard import InterfaceError
from pgtoolkit.envs.registry.ordinary import seeded_copy
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyEnv

CAPTURE_AFTER = (3, 0, 8, 1, 40)
"""Steps of an episode after which its state is saved; each count is of another episode."""

STEPS_BEFORE_RESET, STEPS_AFTER_RESET = 12, 8
"""Steps that are compared after a restoration, before and after a reset."""

MAX_SECONDS = 0.4
"""Seconds after which a try ends, once the first restorations have been compared."""

TRY_SECONDS, SLOW_STEPS = 5.0, 10
"""Where steps have a limit, a whole try counts as blocked after so many seconds and as many as so
many steps of the longest allowed duration take."""

MAX_EPISODE_STEPS = 1_200
"""Most steps up to an end of the episode that is compared too."""

DIFFERS = "gives another"
LIKELY = (
    "; likely it uses what is outside it, such as NumPy's global random numbers (take "
    "self.np_random) or the clock"
)
"""The likely cause where an environment goes on differently."""

RESET = object()
"""Stands for a reset in a list of actions."""


class Output(NamedTuple):
    """What a step or a reset returned, as bytes."""

    obs: bytes
    reward: bytes = b""
    end: tuple[bool, bool] = (False, False)


@final
class _Changed(Exception):
    """Names what differed."""


def choose_resume(make: Callable[[], AnyEnv]) -> ResumeChoice:
    """The best kind of resume of which a try is exact to the bit.

    Environments are made, played with random actions, saved in the middle of episodes, and the
    saved state is put into another one that is in another state. Both go on with the same actions,
    across a reset and an end of the episode. A run's own random numbers are not touched.

    Args:
        make: makes an environment.
    """
    reason = ""

    def make_allowed() -> AnyEnv:
        return with_allowed_actions(make())

    with _global_generators_kept():
        for kind in ("state", "replay"):
            choice = _tried(make_allowed, kind)
            if choice.kind == kind:
                return ResumeChoice(kind, reason, choice.step_seconds, choice.things, choice.shared)
            if not reason:
                reason = choice.reason
            elif choice.reason != reason:
                reason = f"{reason}; a replay: {choice.reason}"
    return ResumeChoice("new episodes", f"{reason}{LIKELY if DIFFERS in reason else ''}")


def choose_resume_apart(make: Callable[[], AnyEnv], seconds: float | None) -> ResumeChoice:
    """:func:`choose_resume` for environments that may end or block the process that tries them.

    A forked process tries them first. Where it does not survive that, nothing is tried here.

    Args:
        make: makes an environment.
        seconds: those that an environment may take for a step; None is without limit.
    """
    limit = math.inf if seconds is None else TRY_SECONDS + SLOW_STEPS * seconds

    def tried() -> str:
        return choose_resume(make).kind

    if call_apart(tried, limit).text is None:
        return ResumeChoice("new episodes", "it ends or blocks the process that tries it")
    return choose_resume(make)


def resumable(make: Callable[[], AnyEnv], choice: ResumeChoice) -> Callable[[], ResumableEnv]:
    """A function that makes environments of that kind of resume."""
    return functools.partial(ResumableEnv, make, choice)


def _tried(make: Callable[[], AnyEnv], kind: Resume) -> ResumeChoice:
    """A choice of this kind if it is exact, else one of new episodes with the reason."""
    envs: list[ResumableEnv] = []
    try:
        envs += (ResumableEnv(make, ResumeChoice(kind)) for _ in range(2))
        return _Try(*envs).run()
    except InterfaceError:  # the run itself will say what is wrong
        return ResumeChoice("new episodes", "its interface is wrong")
    except (_Changed, RequestError) as error:
        return ResumeChoice("new episodes", single_line(error))
    except Exception as error:  # the run itself will report it
        reason = f"it raises {type(error).__name__}: {single_line(error)}"
        return ResumeChoice("new episodes", reason)
    finally:
        for env in envs:
            with contextlib.suppress(Exception):
                env.close()


@final
class _Try:
    """Plays ``env``, and puts its states into ``other``."""

    def __init__(self, env: ResumableEnv, other: ResumableEnv) -> None:
        self.env, self.other = env, other
        self.space = seeded_copy(env.action_space, 0)
        self.shared: SharedState | None = None
        self.num_steps, self.has_ended = 0, False
        self.ends_at = time.monotonic() + MAX_SECONDS

    def run(self) -> ResumeChoice:
        """The choice.

        Raises:
            _Changed: a restored environment returned something else.
            RequestError: what all environments share has changed.
        """
        self.other.reset(seed=1)
        self._record(self.other, self._random_actions(5))
        begin = time.perf_counter()
        for number, steps in enumerate(CAPTURE_AFTER):
            if number > 2 and time.monotonic() > self.ends_at:
                break
            self.env.reset(seed=None if number else 2)
            self._record(self.env, self._random_actions(steps))
            self._compare(self._across_a_reset())
            if self.shared is None:
                # Variables that classes and modules make at their first use exist by now.
                self.shared = python_state(self.env).shared_state()
        seconds = (time.perf_counter() - begin) / max(1, self.num_steps)
        self.env.reset()
        self._compare(self._to_the_end())
        assert self.shared is not None, "made in the first turn"
        require_private(self.shared, type(self.env.unwrapped).__name__)
        known = (python_state(env).known for env in (self.env, self.other))
        things = {id(thing): thing for one in known for thing in one.things}
        return ResumeChoice(self.env.resume, "", seconds, tuple(things.values()), self.shared)

    def _compare(self, actions: Iterator[Any]) -> None:
        """Goes on in both environments, after the state of the first was put into the other."""
        saved = self.env.exact_state()
        taken, expected = self._record(self.env, actions)
        self.other.load_state_dict(saved)
        found = [_output(self.other, action) for action in taken]
        for step, (one, again) in enumerate(zip(expected, found, strict=True), start=1):
            if one != again:
                what = "observation" if one.obs != again.obs else "reward or end"
                steps = "a step" if step == 1 else f"{step} steps"
                raise _Changed(f"{steps} after it was put back it {DIFFERS} {what}")

    def _record(self, env: ResumableEnv, actions: Iterator[Any]) -> tuple[list[Any], list[Output]]:
        """Takes the actions, and resets at the end of each episode; what it did and got."""
        taken, found = [], []
        for action in actions:
            taken.append(action)
            found.append(_output(env, action))
            self.num_steps += 1
            self.has_ended = any(found[-1].end)
            if self.has_ended:
                taken.append(RESET)
                found.append(_output(env, RESET))
        return taken, found

    def _random_actions(self, count: int) -> Iterator[Any]:
        return (self.space.sample() for _ in range(count))

    def _across_a_reset(self) -> Iterator[Any]:
        yield from self._random_actions(STEPS_BEFORE_RESET)
        yield RESET
        yield from self._random_actions(STEPS_AFTER_RESET)

    def _to_the_end(self) -> Iterator[Any]:
        """Actions to the end of the episode, in the time that is left, and a few more."""
        self.has_ended = False
        for action in self._random_actions(MAX_EPISODE_STEPS):
            if self.has_ended or time.monotonic() > self.ends_at:
                break
            yield action
        yield from self._random_actions(STEPS_AFTER_RESET)


def python_state(env: ResumableEnv) -> PythonState:
    """The state of an environment of a kind other than new episodes."""
    assert env.python_state is not None, "it is made for such a kind"
    return env.python_state


def _output(env: ResumableEnv, action: Any) -> Output:
    if action is RESET:
        return Output(np.asarray(env.reset()[0]).tobytes())
    obs, reward, terminated, truncated, _ = env.step(action)
    return Output(np.asarray(obs).tobytes(), np.asarray(reward).tobytes(), (terminated, truncated))


@contextlib.contextmanager
def _global_generators_kept() -> Iterator[None]:
    """A context after which the generators of whole modules are as they were before."""
    numpy, python, torch_state = np.random.get_state(), random.getstate(), torch.get_rng_state()
    try:
        yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)
        torch.set_rng_state(torch_state)
