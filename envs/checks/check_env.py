"""``check_env``: what is right and wrong with an environment, for the terminal and for tests.

In a test of your own::

    from pgtoolkit.envs.check_env import check_env

    assert [f for f in check_env(MyEnv()) if f.status == "fault"] == []
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from pgtoolkit.envs.adapters.choose import Differentiate, choose_gradient
from pgtoolkit.envs.checks import numbers, ordinary
from pgtoolkit.envs.checks.differentiable import Progress, check_differentiable
from pgtoolkit.envs.checks.finding import Finding, guarded, has_fault, passed
from pgtoolkit.envs.checks.ordinary import check_with_gymnasium, check_with_sb3
from pgtoolkit.envs.checks.purity import preserved
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.registry.resolve import EnvSpec, find_env
from pgtoolkit.gymnasium_types import AnyEnv


def check_env(
    env: str | DifferentiableEnv | AnyEnv | EnvSpec,
    *,
    kwargs: Mapping[str, Any] | None = None,
    differentiate: Differentiate = "auto",
    adapter_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    samples: int = 64,
    seconds: float = 3.0,
    progress: Progress = lambda what: None,
) -> list[Finding]:
    """Checks an environment, differentiable or not.

    An error that the environment raises is a finding, with its file and line. The global random
    generators are as before afterwards.

    Args:
        env: an id, ``path/to/file.py:Class``, an object, or what :func:`resolve
            <pgtoolkit.envs.registry.resolve.find_env>` made of one.
        kwargs: for its constructor.
        differentiate: ``"auto"`` checks the gradient where there is one; ``"none"`` checks the
            ordinary environment that a differentiable one is as well; an adapter's name checks the
            gradient that it gives.
        adapter_kwargs: for the adapter.
        seed: of everything random.
        samples: places of random play at which derivatives are compared; slow environments get
            fewer.
        seconds: about how long each of the longer checks may take.
        progress: told what is being looked at.

    Raises:
        RequestError: there is no such environment, it cannot be made, or the adapter does not fit.
    """
    source = env if isinstance(env, EnvSpec) else find_env(env, kwargs)
    with _undisturbed():
        found = _gymnasium_checks(source, progress)
        dynamics = choose_gradient(source, differentiate, adapter_kwargs, needed=False).env
        if dynamics is not None:
            found += check_differentiable(
                dynamics,
                seed=seed,
                samples=samples,
                seconds=seconds,
                progress=progress,
            )
        else:
            found += check_ordinary(source, seed=seed, seconds=seconds, progress=progress)
    return _once_each(found)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Global generators are put back; what environments warn of, here and there, is not news."""
    with preserved(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _once_each(found: list[Finding]) -> list[Finding]:
    """One error met by many checks is one finding, and so is one mixture of dtypes."""
    texts: set[tuple[str, str]] = set()
    kept = []
    for finding in found:
        key = finding.status, "dtype" if finding.check == "dtype" else finding.finding
        if finding.status == "pass" or key not in texts:
            kept.append(finding)
        texts.add(key)
    return kept


def _gymnasium_checks(source: EnvSpec, progress: Progress) -> list[Finding]:
    progress("other libraries' checkers")
    blamed = source.differentiable or source.make().unwrapped
    checks: list[tuple[str, Callable[[AnyEnv, object], Iterator[Finding]]]] = [
        ("Gymnasium's checker", check_with_gymnasium),
        ("SB3's checker", check_with_sb3),
    ]
    found = []
    for name, check in checks:
        found += guarded(
            blamed,
            "interface",
            name,
            lambda check=check: check(source.make().unwrapped, blamed),  # type: ignore[misc]
        )
    return found


def check_ordinary(
    source: EnvSpec, *, seed: int, seconds: float, progress: Progress
) -> list[Finding]:
    """What is right and wrong with a ``gymnasium.Env``, through its own interface."""
    env = source.make()
    inner = env.unwrapped
    progress("types and seeding")
    found = guarded(inner, "interface", "types", lambda: ordinary.check_types(env, seed))
    if not has_fault(found):
        found.append(passed("interface", "types", "observations and rewards are what spaces say"))
    found += guarded(inner, "behaviour", "seeding", lambda: ordinary.check_seeding(env, seed))
    progress("random play")
    played: list[ordinary.Played] = []

    def play() -> list[Finding]:
        played.append(ordinary.play_episodes(env, seed, seconds))
        return []

    found += guarded(inner, "behaviour", "random play", play)
    for seen in played:
        found += guarded(inner, "behaviour", "numbers", lambda seen=seen: _numbers(env, seen))  # type: ignore[misc]
        found += ordinary.check_ends(env, seen)
        speed = f"about {seen.steps_per_second:,.0f} steps/s"
        found.append(passed("behaviour", "throughput", speed))
    found += ordinary.check_pathwise_use(env)
    env.close()
    return found


def _numbers(env: AnyEnv, seen: ordinary.Played) -> Iterator[Finding]:
    yield from numbers.check_finite(seen.starts, seen.observations, seen.rewards)
    if isinstance(env.observation_space, spaces.Box):
        everything = np.concatenate([seen.starts, seen.observations])
        yield from numbers.check_inside(env.observation_space, everything)
    yield from numbers.check_scale(seen.observations, seen.rewards)
