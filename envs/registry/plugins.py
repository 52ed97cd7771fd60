"""Environments of installed packages, found by the entry-point group ``pgtoolkit.envs``.

A package announces its environments in its ``pyproject.toml``::

    [project.entry-points."pgtoolkit.envs"]
    "Rocket-v0" = "rocket_package.rocket:Rocket"

The name is the id. The value is a :class:`DifferentiableEnv
<pgtoolkit.envs.differentiable.DifferentiableEnv>` class, a ``gymnasium.Env`` class, or a function
that returns one of these environments. The package is imported when its environment is made.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import gymnasium

from pgtoolkit.errors import RequestError

ENTRY_POINT_GROUP = "pgtoolkit.envs"
GYMNASIUM_ENTRY_POINT = "pgtoolkit.envs.registry.plugins:make_plugin"


def register_plugins() -> dict[str, str]:
    """Registers the environments of installed packages with Gymnasium, except ids that exist.

    Returns:
        id to the name of the package that announces it, also where the id existed before.

    Raises:
        RequestError: an id is not valid in Gymnasium.
    """
    found: dict[str, str] = {}
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda p: p.name):
        found.setdefault(point.name, _package(point))
        if point.name not in gymnasium.registry:
            _register(point)
    return found


def make_plugin(target: str, *, render_mode: str | None = None, **kwargs: Any) -> Any:
    """Makes a plug-in's environment. It is the entry point under which Gymnasium registers them.

    Args:
        target: the value in the package's ``pyproject.toml``, ``"package.module:Class"``.
        render_mode: passed to the class or function if it is not None.
        kwargs: arguments for the class or function.

    Raises:
        RequestError: importing the package fails, or the value is not an environment.
    """
    # Imported here, because listing the plug-ins should not import torch.
    from pgtoolkit.envs.differentiable import DifferentiableEnv
    from pgtoolkit.envs.numpy_env import NumpyEnv
    from pgtoolkit.envs.registry.construct import construct
    from pgtoolkit.envs.registry.ordinary import with_time_limit

    point = EntryPoint("plugin", target, ENTRY_POINT_GROUP)
    try:
        kind = point.load()
    except Exception as error:
        raise RequestError(
            f"the plug-in {target} cannot be imported ({type(error).__name__}: {error}): mend or "
            "uninstall its package"
        ) from error
    if not callable(kind):
        raise RequestError(f"the plug-in {target} is neither a class nor a function")
    mode = {} if render_mode is None else {"render_mode": render_mode}
    if isinstance(kind, type) and issubclass(kind, DifferentiableEnv):
        return NumpyEnv(construct(kind, kwargs), render_mode=render_mode)
    env = construct(kind, kwargs | mode)
    if isinstance(env, DifferentiableEnv):
        return NumpyEnv(env, render_mode=render_mode)
    if not isinstance(env, gymnasium.Env):
        raise RequestError(
            f"the plug-in {target} made {type(env).__name__}, which is neither a DifferentiableEnv "
            "nor a gymnasium.Env"
        )
    return with_time_limit(env)


def _register(point: EntryPoint) -> None:
    try:
        gymnasium.register(point.name, GYMNASIUM_ENTRY_POINT, kwargs={"target": point.value})
    except gymnasium.error.Error as error:
        raise RequestError(
            f"the package {_package(point)} announces the environment {point.name!r}, which is not "
            f"an id ({error}): it should be like Rocket-v0"
        ) from error


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unnamed package"
