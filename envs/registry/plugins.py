"""Environments of installed packages, by the entry-point group ``pgtoolkit.envs``.

A package announces its environments in its ``pyproject.toml``::

    [project.entry-points."pgtoolkit.envs"]
    "Rocket-v0" = "rocket_package.rocket:Rocket"

The name is the id, the value a :class:`DifferentiableEnv
<pgtoolkit.envs.differentiable.DifferentiableEnv>`, a ``gymnasium.Env``, or a function that makes
one. Nothing of the package is imported until its environment is made.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import gymnasium

from pgtoolkit.errors import RequestError

GROUP = "pgtoolkit.envs"

MAKER = "pgtoolkit.envs.registry.plugins:make_plugin"


def register_plugins() -> dict[str, str]:
    """Registers with Gymnasium what installed packages announce; ids that exist are left alone.

    Returns:
        id to the package that announces it, also where the id was taken already.

    Raises:
        RequestError: an id is not one that Gymnasium can register.
    """
    found: dict[str, str] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        found.setdefault(point.name, _package(point))
        if point.name not in gymnasium.registry:
            _register(point)
    return found


def make_plugin(target: str, *, render_mode: str | None = None, **kwargs: Any) -> Any:
    """The entry point of plug-ins' registrations.

    Args:
        target: the entry point's value, ``"package.module:Class"``.
        render_mode: given on to a class that takes it, if it is not None.
        kwargs: for the class or function.

    Raises:
        RequestError: the package's module fails on import, or what it names is no environment.
    """
    # Here, because whoever lists the plug-ins needs no torch.
    from pgtoolkit.envs.differentiable import DifferentiableEnv
    from pgtoolkit.envs.numpy_env import NumpyEnv
    from pgtoolkit.envs.registry.construct import construct
    from pgtoolkit.envs.registry.files import limit_time

    point = EntryPoint("plugin", target, GROUP)
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
    return limit_time(env)


def _register(point: EntryPoint) -> None:
    try:
        gymnasium.register(point.name, MAKER, kwargs={"target": point.value})
    except gymnasium.error.Error as error:
        raise RequestError(
            f"the package {_package(point)} announces the environment {point.name!r}, which is not "
            f"an id ({error}): it should be like Rocket-v0"
        ) from error


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unnamed package"
