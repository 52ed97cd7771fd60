"""Finding the environment that a user names.

The name is a registered id (``Pendulum-v1``, ``module:Id-v0``) or a class in a file
(``path/to/file.py:Class``). In Python it can also be an environment object, or a function or class
that makes one.
"""

import copy
import dataclasses
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, final

import gymnasium
from gymnasium.error import DependencyNotInstalled
from gymnasium.utils import seeding
from gymnasium.vector import VectorEnv

from pgtoolkit.envs.differentiable import DifferentiableEnv, require_attributes
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.registry.construct import construct
from pgtoolkit.envs.registry.files import load_class
from pgtoolkit.envs.registry.flat_actions import flat_space, flatten_actions
from pgtoolkit.envs.registry.flatten import flatten_observations
from pgtoolkit.envs.registry.guard import guard
from pgtoolkit.envs.registry.gym_wrappers import add_gym_wrappers, statistics_note
from pgtoolkit.envs.registry.ordinary import (
    env_name,
    time_limit,
    with_time_limit,
    without_checking_wrappers,
)
from pgtoolkit.envs.registry.plugins import register_plugins
from pgtoolkit.envs.registry.registered import make_registered, missing_package, with_version
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyEnv, AnyVectorEnv
from pgtoolkit.networks.flat_rows import AnySpace, text_parts

LOG = logging.getLogger("pgtoolkit")

OBJECT = re.compile(r"<(?P<name>[^<>]*)>")
"""What a run's folder has for the environment where that was an object in Python."""

FILE_AND_CLASS = re.compile(r"(?P<file>.+\.py)(:(?P<name>\w*))?")


@final
@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """An environment that a user named, from which any number of copies can be made."""

    name: str
    """A short name without slashes, as for folders."""
    factory: Callable[[str | None], AnyEnv]
    """Makes an ordinary environment with this render mode, with the spaces that it has."""
    differentiable: DifferentiableEnv | None = None
    """The dynamics, if the environment is differentiable."""
    observation_space: AnySpace | None = None
    """Of the ordinary environment before it is flattened."""
    action_space: AnySpace | None = None
    """The same of its actions."""
    to_own_action: Callable[[Any], Any] | None = None
    """From an action of the flat space to one of its own; None where the two are the same."""

    def make(self, render_mode: str | None = None) -> AnyEnv:
        """A new ordinary environment, independent of those made before, with flat spaces.

        Raises:
            RequestError: it cannot render in this mode, or a package that it needs is missing.
        """
        return flatten_spaces(self.factory(render_mode))

    def make_guarded(self, render_mode: str | None = None) -> AnyEnv:
        """:meth:`make`, with a check of every step, and without infos.

        Raises:
            RequestError: as :meth:`make`. In the environment's own ``reset`` and ``step``: they do
                not return what Gymnasium's interface and the spaces say.
        """
        return flatten_spaces(guard(self.factory(render_mode), self.name))


EnvSource = EnvSpec
"""The public name of :class:`EnvSpec` in ``pgtoolkit.envs``."""


def object_name(source: EnvSpec) -> str:
    """What a run's folder has for an environment that was an object or a function in Python."""
    return f"<{re.sub(r'[^a-zA-Z0-9_.-]', '-', source.name)}>"


def find_env(
    env: str | DifferentiableEnv | AnyEnv | AnyVectorEnv | Callable[..., Any],
    kwargs: Mapping[str, Any] | None = None,
    gym_wrappers: Mapping[str, Any] | None = None,
) -> EnvSpec:
    """Finds the environment that a user names.

    Args:
        env: an id, a ``path/to/file.py:Class``, an object, or a function or class that makes one.
        kwargs: arguments of its constructor or function; not with an object.
        gym_wrappers: Gymnasium's wrappers around an ordinary environment, see
            :func:`~pgtoolkit.envs.registry.gym_wrappers.add_gym_wrappers`.

    Raises:
        RequestError: there is no such environment, it cannot be made with these arguments and
            wrappers, or no agent can use its spaces.
    """
    given, wrappers = dict(kwargs or {}), dict(gym_wrappers or {})
    if isinstance(env, str):
        if OBJECT.fullmatch(env):
            raise RequestError(_no_object(env))
        match = FILE_AND_CLASS.fullmatch(env)
        if match:
            return _from_class(match["file"], match["name"] or "", given, wrappers)
        return _from_id(env, given, wrappers)
    if callable(env):
        return _from_function(env, given, wrappers)
    if given and isinstance(env, DifferentiableEnv | gymnasium.Env):
        raise RequestError(
            f"{_label(env)} is an object already, so arguments ({', '.join(given)}) come "
            "too late: give them where it is made"
        )
    if isinstance(env, DifferentiableEnv):
        return _from_differentiable(env, type(env).__name__, wrappers)
    if isinstance(env, gymnasium.Env):
        return _from_object(env, wrappers)
    raise RequestError(_no_environment(env))


def flatten_spaces(env: AnyEnv) -> AnyEnv:
    """The environment with the spaces that policies take.

    Raises:
        RequestError: it has no spaces of Gymnasium's, or they cannot become such spaces.
    """
    for kind in ("observation_space", "action_space"):
        space = getattr(env, kind, None)
        if not isinstance(space, gymnasium.Space):
            found = (
                "no" if space is None else f"{single_line(space)} ({type(space).__module__}) as its"
            )
            raise RequestError(
                f"{env_name(env)} has {found} {kind}: make a space of gymnasium.spaces in __init__"
            )
    return flatten_actions(flatten_observations(env))


def _from_id(env_id: str, kwargs: dict[str, Any], wrappers: dict[str, Any]) -> EnvSpec:
    def factory(render_mode: str | None) -> AnyEnv:
        mode = {} if render_mode is None else {"render_mode": render_mode}
        return make_registered(env_id, kwargs | mode)

    register_plugins()
    env_id = with_version(env_id)
    probe = factory(None)
    spec = _spec_of(_without_namespace(env_id), factory, probe, wrappers)
    probe.close()
    return spec


def _from_class(file: str, name: str, kwargs: dict[str, Any], wrappers: dict[str, Any]) -> EnvSpec:
    kind = load_class(file, name)
    if issubclass(kind, DifferentiableEnv):
        return _from_differentiable(_construct(kind, kwargs), name, wrappers)

    def factory(render_mode: str | None) -> AnyEnv:
        mode = {} if render_mode is None else {"render_mode": render_mode}
        made: AnyEnv = _construct(kind, kwargs | mode)
        return with_time_limit(made)

    probe = factory(None)
    spec = _spec_of(name, factory, probe, wrappers)
    probe.close()
    return spec


def _spec_of(
    name: str,
    factory: Callable[[str | None], AnyEnv],
    probe: AnyEnv,
    wrappers: Mapping[str, Any],
) -> EnvSpec:
    """The environment inside its wrappers, after a try whether its spaces can be used.

    Args:
        name: its short name.
        factory: makes it without the wrappers.
        probe: a result of ``factory``.
        wrappers: Gymnasium's wrappers to their arguments.
    """
    dynamics = _dynamics_inside(probe)
    if dynamics is not None:
        _refuse_gym_wrappers(name, wrappers)
        return EnvSpec(name, factory, dynamics)

    def make_wrapped(render_mode: str | None) -> AnyEnv:
        return add_gym_wrappers(factory(render_mode), wrappers)

    wrapped = add_gym_wrappers(probe, wrappers)
    flatten_spaces(wrapped)
    for part in text_parts(wrapped.observation_space):
        LOG.warning("%s: the observation's part %r is text and is left out", name, part)
    if note := statistics_note(wrappers):
        LOG.warning("%s", note)
    flat = flat_space(wrapped, wrapped.action_space)
    return EnvSpec(
        name,
        make_wrapped,
        observation_space=wrapped.observation_space,
        action_space=wrapped.action_space,
        to_own_action=None if flat is None else flat.to_env,
    )


def _refuse_gym_wrappers(name: str, wrappers: Mapping[str, Any]) -> None:
    if wrappers:
        raise RequestError(
            f"{name} computes on batches of tensors, and inside Gymnasium's wrappers "
            f"({', '.join(wrappers)}) it would have no gradient: leave --gym-wrappers out, and use "
            "--wrappers (`pgtoolkit list wrappers`)"
        )


def _construct(kind: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
    name = getattr(kind, "__name__", str(kind))
    try:
        return construct(kind, kwargs, option="--env-kwargs")
    except (ImportError, DependencyNotInstalled) as error:
        raise missing_package(name, error) from error


def _from_differentiable(env: DifferentiableEnv, name: str, wrappers: dict[str, Any]) -> EnvSpec:
    require_attributes(env)
    _refuse_gym_wrappers(name, wrappers)

    def factory(render_mode: str | None) -> AnyEnv:
        make_plain = env.plain_maker()
        return NumpyEnv(env, render_mode=render_mode) if make_plain is None else make_plain()

    return EnvSpec(name, factory, env)


def _from_object(env: AnyEnv, wrappers: dict[str, Any]) -> EnvSpec:
    name = _without_namespace(env_name(env))

    def factory(render_mode: str | None) -> AnyEnv:
        _require_render_mode(env, name, render_mode)
        return _copy(env, name)

    return _spec_of(name, factory, env, wrappers)


def _from_function(
    make: Callable[..., Any], kwargs: dict[str, Any], wrappers: dict[str, Any]
) -> EnvSpec:
    """The environment that a function or a class makes.

    Raises:
        RequestError: it raises, takes other arguments, or makes something else.
    """
    first = _construct(make, kwargs)
    if isinstance(first, DifferentiableEnv):
        return _from_differentiable(first, type(first).__name__, wrappers)
    if not isinstance(first, gymnasium.Env):
        name = getattr(make, "__name__", type(make).__name__)
        raise RequestError(f"{name} makes no environment: {_no_environment(first)}")
    name = _without_namespace(env_name(first))

    def factory(render_mode: str | None) -> AnyEnv:
        made: AnyEnv = _construct(make, kwargs)
        _require_render_mode(made, name, render_mode)
        # A function that returns one object again and again makes no copies.
        return with_time_limit(_copy(made, name) if made is first else made)

    return _spec_of(name, factory, with_time_limit(first), wrappers)


def _label(env: DifferentiableEnv | AnyEnv) -> str:
    return env_name(env) if isinstance(env, gymnasium.Env) else type(env).__name__


def _no_object(name: str) -> str:
    return (
        f"the run was trained on {name}, an object in Python, which cannot be made again from the "
        "run's folder: name an environment with the same spaces with --env where the command has "
        "it, or in Python give the object, pgtoolkit.load(folder, env=...)"
    )


def _no_environment(value: object) -> str:
    """The end of a sentence about a value that is no single environment."""
    if isinstance(value, VectorEnv):
        return (
            f"{type(value).__name__} is a vector environment: give the single environment, of "
            "which as many copies are made as are needed"
        )
    return (
        f"{single_line(repr(value))[:100]} is not an environment: give an id, "
        "path/to/file.py:Class, a DifferentiableEnv, a gymnasium.Env, or a function that makes one"
    )


def _require_render_mode(env: AnyEnv, name: str, render_mode: str | None) -> None:
    if render_mode is not None and env.render_mode != render_mode:
        raise RequestError(
            f"{name} was made with render_mode={env.render_mode!r} and cannot change it: "
            f"make it with render_mode={render_mode!r}, or give its id or file, not an object"
        )


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
