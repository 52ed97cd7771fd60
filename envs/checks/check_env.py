"""``check_env``: finds mistakes in an environment and its gradient, for the terminal and for tests.

In a test of your own::

    from pgtoolkit.envs.checks.check_env import check_env

    assert [f for f in check_env(MyEnv()) if f.status == "fault"] == []
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pgtoolkit.envs.adapters.choose import Differentiate, choose_gradient
from pgtoolkit.envs.checks import library_checkers
from pgtoolkit.envs.checks.agents import DEFAULT_POLICIES, AgentNeeds, check_agents
from pgtoolkit.envs.checks.differentiable import Progress, check_differentiable
from pgtoolkit.envs.checks.finding import Finding
from pgtoolkit.envs.checks.ordinary import check_ordinary
from pgtoolkit.envs.checks.purity import preserved_generators
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.registry.allowed_actions import with_allowed_actions
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
    agents: Mapping[str, AgentNeeds] = DEFAULT_POLICIES,
    progress: Progress = lambda stage: None,
) -> list[Finding]:
    """Checks an environment, differentiable or not.

    An error that the environment raises is a finding, with its file and line. What could not be
    checked is a finding with the status ``"not checked"``, not a pass. The global random generators
    are in the same state afterwards as before.

    Args:
        env: an id, ``path/to/file.py:Class``, an object, or a result of :func:`find_env
            <pgtoolkit.envs.registry.resolve.find_env>`.
        kwargs: arguments for the environment's constructor.
        differentiate: ``"auto"`` checks the gradient where there is one; ``"none"`` checks a
            differentiable environment as an ordinary one; an adapter's name checks the gradient
            that the adapter gives.
        adapter_kwargs: arguments for the adapter's constructor; ``auto`` then tries the adapters.
        seed: seeds everything random.
        samples: points of random play at which derivatives are compared; fewer if steps are slow.
        seconds: about how long each of the longer checks may take.
        agents: the agents to try on the spaces, by name; without them, their default policies.
        progress: called with the name of each stage.

    Raises:
        RequestError: there is no such environment, it cannot be made, or the adapter does not fit.
    """
    source = env if isinstance(env, EnvSpec) else find_env(env, kwargs)
    with _no_side_effects():
        found = _check_with_libraries(source, progress)
        # Without arguments for an adapter, an environment is checked as it is.
        needed = bool(adapter_kwargs)
        dynamics = choose_gradient(source, differentiate, adapter_kwargs, needed=needed).env
        found.append(_check_agents(source, dynamics, agents))
        if dynamics is not None:
            found += check_differentiable(
                dynamics,
                seed=seed,
                samples=samples,
                seconds=seconds,
                progress=progress,
            )
        else:
            found += check_ordinary(source.make, seed=seed, seconds=seconds, progress=progress)
    return _without_repeats(found)


@contextlib.contextmanager
def _no_side_effects() -> Iterator[None]:
    """Restores the global random generators on exit, and silences warnings."""
    with preserved_generators(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _without_repeats(found: list[Finding]) -> list[Finding]:
    """Leaves out problems that an earlier check reported.

    These are problems of the same status in the same words, and further ones of dtypes.
    """
    seen: set[tuple[str, str]] = set()
    kept = []
    for finding in found:
        key = finding.status, "dtype" if finding.check == "dtype" else finding.finding
        if finding.status == "pass" or key not in seen:
            kept.append(finding)
        seen.add(key)
    return kept


def _check_agents(
    source: EnvSpec, dynamics: DifferentiableEnv | None, agents: Mapping[str, AgentNeeds]
) -> Finding:
    env = source.make()
    finding = check_agents(env, dynamics, agents)
    env.close()
    return finding


def _check_with_libraries(source: EnvSpec, progress: Progress) -> list[Finding]:
    progress("other libraries' checkers")
    blamed = source.differentiable or source.make().unwrapped

    def make() -> AnyEnv:
        return with_allowed_actions(source.make().unwrapped)

    found = library_checkers.GYMNASIUM.run(
        blamed, lambda: library_checkers.check_with_gymnasium(make(), blamed)
    )
    found += library_checkers.SB3.run(
        blamed, lambda: library_checkers.check_with_sb3(make(), blamed)
    )
    return found
