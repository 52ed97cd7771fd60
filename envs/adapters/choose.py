"""Choosing how an environment is differentiated: by its own gradient or by an adapter."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, final

from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.registry.construct import construct
from pgtoolkit.envs.registry.guard import require_interface
from pgtoolkit.envs.registry.registered import exact_twin
from pgtoolkit.envs.registry.resolve import EnvSpec
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv

Differentiate: TypeAlias = Literal["auto", "none", "finite-difference", "mujoco", "model"]
"""The values of the flag ``--differentiate``."""

MakeEnv: TypeAlias = Callable[[], AnyEnv]
Adapt: TypeAlias = Callable[[MakeEnv, dict[str, Any]], DifferentiableEnv]
"""Maps a function that makes the environment, and arguments for the adapter, to the adapter."""


@final
@dataclasses.dataclass(frozen=True)
class GradientSource:
    """The differentiable environment that was chosen, and by which method it has a gradient."""

    method: Differentiate
    """``auto`` stands for the environment's own gradient."""
    env: DifferentiableEnv | None
    """The dynamics; None if the environment is used without a gradient."""
    sentence: str = ""
    """A message for the user about the adapter; empty without one."""


def choose_gradient(
    source: EnvSpec,
    method: Differentiate = "auto",
    kwargs: Mapping[str, Any] | None = None,
    *,
    needed: bool,
) -> GradientSource:
    """Makes the environment differentiable by the requested method.

    ``auto`` takes the environment's own gradient if it has one. Otherwise, and only if a gradient
    is needed, it tries the approximate methods in this order: MuJoCo's (for its environments),
    finite differences (if the state can be saved and restored), a learned model.

    Args:
        source: a result of :func:`pgtoolkit.envs.registry.resolve.find_env`.
        method: the requested method.
        kwargs: arguments for the adapter that ``method`` names or ``auto`` tries.
        needed: whether the agent needs a gradient of the environment.

    Raises:
        RequestError: the adapter cannot be used with this environment or with these arguments.
    """
    given = dict(kwargs or {})
    if method in ADAPTERS:
        _require_interface(source)
        env = _adapted(source, method, given)
        message = f"{source.name} is differentiated by {METHOD_DESCRIPTIONS[method]}"
        return GradientSource(method, env, message)
    if method == "auto" and needed and source.differentiable is None:
        return _first_usable_adapter(source, given)
    if given:
        raise RequestError(
            f"arguments for an adapter ({', '.join(given)}) need one: give --differentiate "
            f"{' or '.join(ADAPTERS)}"
        )
    if method == "auto" and source.differentiable is not None:
        return GradientSource("auto", source.differentiable)
    return GradientSource("none", None)


def _first_usable_adapter(source: EnvSpec, kwargs: dict[str, Any]) -> GradientSource:
    """The first adapter that accepts the environment and the arguments.

    The message says why the others did not.
    """
    _require_interface(source)
    refusals: dict[str, list[str]] = {}
    for method in ADAPTERS:
        if method == "mujoco" and not _is_mujoco(source):
            continue
        try:
            env = _adapted(source, method, kwargs)
        except RequestError as error:
            refusals.setdefault(error.with_flags, []).append(method)
            continue
        reasons = f" ({_refused(refusals)})" if refusals else ""
        twin = exact_twin(source.name)
        exact = "" if twin is None else f". {twin} is the task with an exact gradient"
        return GradientSource(
            method,
            env,
            f"{source.name} has no gradient of its own and is differentiated by "
            f"{METHOD_DESCRIPTIONS[method]}: --differentiate {method}{reasons}{exact}",
        )
    raise RequestError(
        f"{source.name} has no gradient, and no adapter can give it one ({_refused(refusals)}): "
        "train with `reinforce`, which needs none"
    )


def _refused(refusals: Mapping[str, list[str]]) -> str:
    """Which adapters refuse, by their reason."""
    return "; ".join(f"not {' or '.join(methods)}: {why}" for why, methods in refusals.items())


def _adapted(source: EnvSpec, method: Differentiate, kwargs: dict[str, Any]) -> DifferentiableEnv:
    """The environment differentiated by one adapter.

    Raises:
        RequestError: the adapter cannot be used with it.
    """
    # MuJoCo's adapter refuses wrappers, because it steps the environment inside them.
    make = source.make if method == "mujoco" else source.make_guarded
    return ADAPTERS[method](make, kwargs)


def _require_interface(source: EnvSpec) -> None:
    """Raises unless an environment can be reset and stepped, once for all adapters that are tried.

    Raises:
        RequestError: it returns something else than Gymnasium's interface and its spaces say.
    """
    probe = source.factory(None)
    require_interface(probe, source.name)
    probe.close()


def _is_mujoco(source: EnvSpec) -> bool:
    """Compares class names, so that MuJoCo is not imported for other environments."""
    probe = source.make()
    class_names = [kind.__name__ for kind in type(probe.unwrapped).__mro__]
    probe.close()
    return "MujocoEnv" in class_names


def _mujoco(make: MakeEnv, kwargs: dict[str, Any]) -> DifferentiableEnv:
    from pgtoolkit.envs.adapters.mujoco.adapter import MuJoCo

    return construct(MuJoCo, kwargs, {"make": make})


def _finite_difference(make: MakeEnv, kwargs: dict[str, Any]) -> DifferentiableEnv:
    from pgtoolkit.envs.adapters.gymnasium.adapter import finite_difference

    return construct(finite_difference, kwargs, {"make": make})


def _model(make: MakeEnv, kwargs: dict[str, Any]) -> DifferentiableEnv:
    from pgtoolkit.envs.adapters.learned.env import LearnedModel
    from pgtoolkit.envs.adapters.learned.model import ModelConfig

    names = {field.name for field in dataclasses.fields(ModelConfig)}
    config = construct(ModelConfig, {k: v for k, v in kwargs.items() if k in names})
    rest = {k: v for k, v in kwargs.items() if k not in names}
    return construct(LearnedModel, rest, {"make": make, "config": config})


ADAPTERS: dict[Differentiate, Adapt] = {
    "mujoco": _mujoco,
    "finite-difference": _finite_difference,
    "model": _model,
}
"""The adapters, in the order in which ``auto`` tries them."""

METHOD_DESCRIPTIONS: dict[Differentiate, str] = {
    "mujoco": "MuJoCo's own transitions (differences of batches of them)",
    "finite-difference": "finite differences of its steps",
    "model": "a learned model along its real trajectories",
}
