"""The ways to name an environment, and vector environments of what was named.

A registered id (``Pendulum-v1``, ``module:Id-v0``), a class in a file (``path/to/file.py:Class``),
or an object.
"""

import copy
import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, final

import gymnasium
import torch
from gymnasium.error import DependencyNotInstalled
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from pgtoolkit.envs.differentiable import DifferentiableEnv, require_attributes
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.registry.construct import construct, describe_exception
from pgtoolkit.envs.registry.files import limit_time, load_class
from pgtoolkit.envs.registry.flatten import flatten_observations
from pgtoolkit.envs.registry.plugins import register_plugins
from pgtoolkit.envs.registry.registered import make_registered, missing_package
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv, AnyVectorEnv

_FILE = re.compile(r"(?P<file>.+\.py)(:(?P<name>\w*))?")


@final
@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """An environment that was named, ready to be made as often as needed."""

    name: str
    """Short, fit for folder names."""
    factory: Callable[[str | None], AnyEnv]
    """Makes an ordinary environment with that render mode."""
    differentiable: DifferentiableEnv | None = None
    """The dynamics, if they have a gradient."""

    def make(self, render_mode: str | None = None) -> AnyEnv:
        """A new ordinary environment, independent of those made before.

        Raises:
            RequestError: it cannot render in this mode, or needs a package that is missing.
        """
        return self.factory(render_mode)


EnvSource = EnvSpec
"""The public name of :class:`EnvSpec` in ``pgtoolkit.envs``."""


def find_env(
    env: str | DifferentiableEnv | AnyEnv, kwargs: Mapping[str, Any] | None = None
) -> EnvSpec:
    """Finds the environment that is meant.

    Args:
        env: an id, a ``path/to/file.py:Class``, or an object.
        kwargs: for its constructor.

    Raises:
        RequestError: there is no such environment, or it cannot be made like this.
    """
    given = dict(kwargs or {})
    if isinstance(env, str):
        match = _FILE.fullmatch(env)
        if match:
            return _from_class(match["file"], match["name"] or "", given)
        return _from_id(env, given)
    if given:
        raise RequestError(
            f"{type(env).__name__} is an object already, so arguments ({', '.join(given)}) come "
            "too late: give them where it is made"
        )
    if isinstance(env, DifferentiableEnv):
        return _from_differentiable(env)
    if isinstance(env, gymnasium.Env):
        return _from_object(env)
    raise RequestError(
        f"{env!r} is not an environment: give an id, path/to/file.py:Class, a DifferentiableEnv "
        "or a gymnasium.Env"
    )


def make_vector_env(
    source: EnvSpec,
    num_envs: int,
    *,
    device: torch.device | str = "cpu",
    differentiate: Literal["auto", "none"] = "auto",
) -> AnyVectorEnv:
    """``num_envs`` of them, autoreset SAME_STEP.

    Args:
        source: from :func:`find_env`.
        num_envs: how many.
        device: of a differentiable environment's tensors; others live on the CPU.
        differentiate: ``"auto"`` keeps the gradient where there is one, ``"none"`` never.
    """
    if source.differentiable is not None and differentiate == "auto":
        return DifferentiableVectorEnv(source.differentiable, num_envs, device=device)
    return SyncVectorEnv([source.make] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def _from_id(env_id: str, kwargs: dict[str, Any]) -> EnvSpec:
    def factory(render_mode: str | None) -> AnyEnv:
        mode = {} if render_mode is None else {"render_mode": render_mode}
        return flatten_observations(make_registered(env_id, kwargs | mode))

    register_plugins()
    probe = factory(None)
    differentiable = _dynamics(probe)
    probe.close()
    return EnvSpec(_short(env_id), factory, differentiable)


def _from_class(file: str, name: str, kwargs: dict[str, Any]) -> EnvSpec:
    kind = load_class(file, name)
    if issubclass(kind, DifferentiableEnv):
        return _from_differentiable(_construct(kind, kwargs), name)

    def factory(render_mode: str | None) -> AnyEnv:
        mode = {} if render_mode is None else {"render_mode": render_mode}
        made: AnyEnv = _construct(kind, kwargs | mode)
        return flatten_observations(limit_time(made))

    probe = factory(None)
    probe.close()
    return EnvSpec(name, factory)


def _construct(kind: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
    name = getattr(kind, "__name__", str(kind))
    try:
        return construct(kind, kwargs)
    except RequestError:
        raise
    except (ImportError, DependencyNotInstalled) as error:
        raise missing_package(name, error) from error
    except Exception as error:
        where = describe_exception(error, inspect.getfile(kind))
        raise RequestError(f"{name} cannot be made: {where}") from error


def _from_differentiable(env: DifferentiableEnv, name: str | None = None) -> EnvSpec:
    require_attributes(env)
    return EnvSpec(name or type(env).__name__, lambda mode: NumpyEnv(env, render_mode=mode), env)


def _from_object(env: AnyEnv) -> EnvSpec:
    name = type(env.unwrapped).__name__ if env.spec is None else _short(env.spec.id)

    def factory(render_mode: str | None) -> AnyEnv:
        if render_mode is not None and env.render_mode != render_mode:
            raise RequestError(
                f"{name} was made with render_mode={env.render_mode!r} and cannot change it: "
                f"make it with render_mode={render_mode!r}, or give its id or file, not an object"
            )
        return flatten_observations(_copy(env, name))

    return EnvSpec(name, factory, _dynamics(env))


def _copy(env: AnyEnv, name: str) -> AnyEnv:
    try:
        copied = copy.deepcopy(env)
    except Exception as error:
        raise RequestError(
            f"{name} cannot be copied ({type(error).__name__}: {error}): give its id or "
            "path/to/file.py:Class instead of an object"
        ) from error
    # Copies that share the state of their generators would all live the same life.
    copied.unwrapped.np_random, _ = seeding.np_random()
    return copied


def _dynamics(env: AnyEnv) -> DifferentiableEnv | None:
    """The dynamics inside, unless a wrapper changes what they mean; a time limit is taken over."""
    limits: list[int] = []
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, TimeLimit):
            limits.append(env._max_episode_steps)
        elif not isinstance(env, (OrderEnforcing, PassiveEnvChecker)):
            return None
        env = env.env
    if not isinstance(env, NumpyEnv):
        return None
    dynamics = env.env
    if limits and min(limits) < dynamics.max_episode_steps:
        dynamics = copy.copy(dynamics)
        dynamics.max_episode_steps = min(limits)
    return dynamics


def _short(env_id: str) -> str:
    """Without the module and the namespace."""
    return re.split("[:/]", env_id)[-1]
