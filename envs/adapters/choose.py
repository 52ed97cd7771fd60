"""Which gradient an environment gets: its own, or that of an adapter."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, final

from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.registry.construct import construct
from pgtoolkit.envs.registry.resolve import EnvSpec
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv

Differentiate: TypeAlias = Literal["auto", "none", "finite-difference", "mujoco", "model"]
"""What a person asks for on the command line."""


@final
@dataclasses.dataclass(frozen=True)
class GradientSource:
    """What was chosen."""

    method: Differentiate
    """``auto`` is the environment's own, where it has one."""
    env: DifferentiableEnv | None
    """The dynamics; None for an environment that is left without a gradient."""
    sentence: str = ""
    """What to tell the user; empty where the environment has its own gradient, or none is used."""


def choose_gradient(
    source: EnvSpec,
    method: Differentiate = "auto",
    kwargs: Mapping[str, Any] | None = None,
    *,
    needed: bool,
) -> GradientSource:
    """The gradient that is asked for.

    ``auto`` prefers exact to approximate, and takes an approximate one only where it is needed: the
    environment's own; then MuJoCo's, for its environments; then finite differences, where the state
    can be saved and restored; then a learned model.

    Args:
        source: from :func:`pgtoolkit.envs.registry.resolve.find_env`.
        method: what is asked for.
        kwargs: for the adapter; only with a method that is one.
        needed: whether the agent can do without.

    Raises:
        RequestError: the adapter cannot be used with this environment, or not with these arguments.
    """
    given = dict(kwargs or {})
    if method in ADAPTERS:
        env = ADAPTERS[method](source.make, given)
        return GradientSource(method, env, f"{source.name} is differentiated by {NAMES[method]}")
    if given:
        raise RequestError(
            f"arguments for an adapter ({', '.join(given)}) need one: give --differentiate "
            f"{' or '.join(ADAPTERS)}"
        )
    if method == "none":
        return GradientSource("none", None)
    if source.differentiable is not None:
        return GradientSource("auto", source.differentiable)
    return _best_adapter(source) if needed else GradientSource("none", None)


def _best_adapter(source: EnvSpec) -> GradientSource:
    """The first adapter that takes the environment; says why the others do not."""
    refusals: list[str] = []
    for method, adapt in ADAPTERS.items():
        if method == "mujoco" and not _is_mujoco(source):
            continue
        try:
            env = adapt(source.make, {})
        except RequestError as error:
            refusals.append(f"not {method}: {error}")
            continue
        because = f" ({'; '.join(refusals)})" if refusals else ""
        return GradientSource(
            method,
            env,
            f"{source.name} has no gradient of its own and is differentiated by {NAMES[method]}: "
            f"--differentiate {method}{because}",
        )
    raise RequestError(
        f"{source.name} has no gradient, and no adapter can give it one ({'; '.join(refusals)}): "
        "train with `reinforce`, which needs none"
    )


def _is_mujoco(source: EnvSpec) -> bool:
    """By its classes' names, so that MuJoCo is not imported where it is not needed."""
    probe = source.make()
    kinds = [kind.__name__ for kind in type(probe.unwrapped).__mro__]
    probe.close()
    return "MujocoEnv" in kinds


Make = Callable[[], AnyEnv]


def _mujoco(make: Make, kwargs: dict[str, Any]) -> DifferentiableEnv:
    from pgtoolkit.envs.adapters.mujoco.adapter import MuJoCo

    return construct(MuJoCo, {"make": make, **kwargs})


def _finite_difference(make: Make, kwargs: dict[str, Any]) -> DifferentiableEnv:
    from pgtoolkit.envs.adapters.gymnasium.adapter import finite_difference

    return construct(finite_difference, {"make": make, **kwargs})


def _model(make: Make, kwargs: dict[str, Any]) -> DifferentiableEnv:
    from pgtoolkit.envs.adapters.learned.env import LearnedModel
    from pgtoolkit.envs.adapters.learned.model import ModelConfig

    names = {field.name for field in dataclasses.fields(ModelConfig)}
    config = construct(ModelConfig, {k: v for k, v in kwargs.items() if k in names})
    rest = {k: v for k, v in kwargs.items() if k not in names}
    return construct(LearnedModel, {"make": make, "config": config, **rest})


# In the order in which auto tries them.
ADAPTERS: dict[Differentiate, Callable[[Make, dict[str, Any]], DifferentiableEnv]] = {
    "mujoco": _mujoco,
    "finite-difference": _finite_difference,
    "model": _model,
}

NAMES: dict[Differentiate, str] = {
    "mujoco": "MuJoCo's own transitions (differences of batches of them)",
    "finite-difference": "finite differences of its steps",
    "model": "a learned model along its real trajectories",
}
