"""Finding the environment that a user names, and making vector environments of it.

The name is a registered id (``Pendulum-v1``, ``module:Id-v0``) or a class in a file
(``path/to/file.py:Class``). In Python it can also be an environment object.
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

from pgtoolkit.envs.differentiable import DifferentiableEnv, require_attributes
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.registry.construct import construct, describe_exception
from pgtoolkit.envs.registry.files import load_class
from pgtoolkit.envs.registry.flatten import flatten_observations
from pgtoolkit.envs.registry.ordinary import time_limit, with_time_limit, without_checking_wrappers
from pgtoolkit.envs.registry.plugins import register_plugins
from pgtoolkit.envs.registry.registered import make_registered, missing_package, with_version
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv, AnyVectorEnv

FILE_AND_CLASS = re.compile(r"(?P<file>.+\.py)(:(?P<name>\w*))?")


@final
@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """An environment that a user named, from which any number of copies can be made."""

    name: str
    """A short name without slashes, as for folders."""
    factory: Callable[[str | None], AnyEnv]
    """Makes an ordinary environment with this render mode."""
    differentiable: DifferentiableEnv | None = None
    """The dynamics, if the environment is differentiable."""

    def make(self, render_mode: str | None = None) -> AnyEnv:
        """A new ordinary environment, independent of those made before.

        Raises:
            RequestError: it cannot render in this mode, or a package that it needs is missing.
        """
        return self.factory(render_mode)


EnvSource = EnvSpec
"""The public name of :class:`EnvSpec` in ``pgtoolkit.envs``."""


def find_env(
    env: str | DifferentiableEnv | AnyEnv, kwargs: Mapping[str, Any] | None = None
) -> EnvSpec:
    """Finds the environment that a user names.

    Args:
        env: an id, a ``path/to/file.py:Class``, or an object.
        kwargs: arguments of its constructor; not with an object.

    Raises:
        RequestError: there is no such environment, or it cannot be made with these arguments.
    """
    given = dict(kwargs or {})
    if isinstance(env, str):
        match = FILE_AND_CLASS.fullmatch(env)
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
    """A vector environment of ``num_envs`` copies, autoreset SAME_STEP.

    Args:
        source: a result of :func:`find_env`.
        num_envs: the number of copies.
        device: the device of a differentiable environment's tensors; other environments are on the
            CPU.
        differentiate: ``"auto"`` makes a :class:`DifferentiableVectorEnv
            <pgtoolkit.envs.vector.DifferentiableVectorEnv>` if the environment is differentiable,
            ``"none"`` never does.
    """
    if source.differentiable is not None and differentiate == "auto":
        return DifferentiableVectorEnv(source.differentiable, num_envs, device=device)
    return SyncVectorEnv([source.make] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def _from_id(env_id: str, kwargs: dict[str, Any]) -> EnvSpec:
    def factory(render_mode: str | None) -> AnyEnv:
        mode = {} if render_mode is None else {"render_mode": render_mode}
        return flatten_observations(make_registered(env_id, kwargs | mode))

    register_plugins()
    env_id = with_version(env_id)
    probe = factory(None)
    differentiable = _dynamics_inside(probe)
    probe.close()
    return EnvSpec(_without_namespace(env_id), factory, differentiable)


def _from_class(file: str, name: str, kwargs: dict[str, Any]) -> EnvSpec:
    kind = load_class(file, name)
    if issubclass(kind, DifferentiableEnv):
        return _from_differentiable(_construct(kind, kwargs), name)

    def factory(render_mode: str | None) -> AnyEnv:
        mode = {} if render_mode is None else {"render_mode": render_mode}
        made: AnyEnv = _construct(kind, kwargs | mode)
        return flatten_observations(with_time_limit(made))

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
    name = type(env.unwrapped).__name__ if env.spec is None else _without_namespace(env.spec.id)

    def factory(render_mode: str | None) -> AnyEnv:
        if render_mode is not None and env.render_mode != render_mode:
            raise RequestError(
                f"{name} was made with render_mode={env.render_mode!r} and cannot change it: "
                f"make it with render_mode={render_mode!r}, or give its id or file, not an object"
            )
        return flatten_observations(_copy(env, name))

    return EnvSpec(name, factory, _dynamics_inside(env))


def _copy(env: AnyEnv, name: str) -> AnyEnv:
    try:
        copied = copy.deepcopy(env)
    except Exception as error:
        raise RequestError(
            f"{name} cannot be copied ({type(error).__name__}: {error}): give its id or "
            "path/to/file.py:Class instead of an object"
        ) from error
    # Copies with equal random generators would all play the same episodes.
    copied.unwrapped.np_random, _ = seeding.np_random()
    return copied


def _dynamics_inside(env: AnyEnv) -> DifferentiableEnv | None:
    """The dynamics of a :class:`NumpyEnv`, with the time limit of the wrappers around it.

    None for another environment, or inside a wrapper that changes observations, actions or rewards.
    """
    inner = without_checking_wrappers(env)
    if not isinstance(inner, NumpyEnv):
        return None
    dynamics, limit = inner.env, time_limit(env)
    if limit is not None and limit < dynamics.max_episode_steps:
        dynamics = copy.copy(dynamics)
        dynamics.max_episode_steps = limit
    return dynamics


def _without_namespace(env_id: str) -> str:
    """The id without its module and its namespace."""
    return re.split("[:/]", env_id)[-1]
