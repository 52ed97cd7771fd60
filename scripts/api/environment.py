"""The environment of a run that was given as an object or a function in Python."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, final

import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from pgtoolkit.envs.adapters.choose import GradientSource
from pgtoolkit.envs.registry.construct import construct
from pgtoolkit.envs.registry.resolve import EnvSpec, find_env, object_name
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.networks.flat_rows import needs_flattening
from pgtoolkit.scripts.cli.environments import Environments
from pgtoolkit.scripts.cli.experiment import FindEnvironments, RunConfig, env_factory_of

ONE_BY_ONE = ("gym_wrappers", "wrappers", "adapter_kwargs", "env_kwargs")
"""Settings of single environments, which a vector environment has inside."""


@final
@dataclasses.dataclass(frozen=True)
class GivenEnv:
    """An environment that was given as an object or a function."""

    name: str
    """What the run's folder has for it; it cannot be made again from that."""
    find: FindEnvironments
    num_envs: int | None
    """The number of environments, where the object has it."""


def given_env(env: EnvArgument, kwargs: Mapping[str, Any]) -> GivenEnv | None:
    """The environment as the machinery of the commands takes it; None for a name.

    Args:
        env: as it was given.
        kwargs: arguments for a function that makes it.

    Raises:
        RequestError: it is no environment, or a function that makes none.
    """
    if isinstance(env, str):
        return None
    if isinstance(env, VectorEnv):
        return _given_vector(env, lambda: _copy_of(env))
    make: Any = env
    if callable(env) and isinstance(
        made := construct(env, kwargs, option="--env-kwargs"), VectorEnv
    ):
        return _given_vector(made, lambda: construct(make, kwargs))
    name = object_name(find_env(env, kwargs))
    return GivenEnv(name, functools.partial(env_factory_of, env=env), None)


def _given_vector(env: AnyVectorEnv, make_another: Callable[[], AnyVectorEnv]) -> GivenEnv:
    if isinstance(env, DifferentiableVectorEnv):
        _require_single_precision(env)
        name = object_name(find_env(env.env))
        return GivenEnv(name, functools.partial(_find_on_device, env), env.num_envs)
    space = env.single_observation_space
    if needs_flattening(space):
        raise RequestError(
            f"the observations of the vector environment {_vector_name(env)} are "
            f"{single_line(space)}: give the single environment, whose observations are flattened "
            "here, or make the vector environment of gymnasium.wrappers.FlattenObservation"
        )
    spec = EnvSpec(_vector_name(env), functools.partial(_no_single, _vector_name(env)))
    environments = GivenVectorEnvs(spec, env, make_another)
    return GivenEnv(object_name(spec), environments.found, env.num_envs)


@final
@dataclasses.dataclass(frozen=True)
class GivenVectorEnvs:
    """A vector environment of the user's, which is stepped as it is, and others like it."""

    source: EnvSpec
    env: AnyVectorEnv
    make_another: Callable[[], AnyVectorEnv]
    """Makes one for an evaluation."""
    batched: bool = False

    @property
    def gradient(self) -> GradientSource:
        """There is none."""
        return GradientSource("none", None)

    @property
    def single(self) -> EnvSpec:
        """None can be made."""
        return self.source

    def make(self, num_envs: int) -> AnyVectorEnv:
        """The vector environment itself; ``num_envs`` is its own number."""
        return self.env

    def make_for_evaluation(self, episodes: int) -> AnyVectorEnv:
        """Another vector environment of the same kind."""
        return self.make_another()

    def found(self, run: RunConfig, needed: bool, device: torch.device) -> Environments:
        """These environments, if nothing is asked of them that a vector environment cannot do.

        Raises:
            RequestError: it is; names the setting.
        """
        fields = {field.name: field.default for field in dataclasses.fields(RunConfig)}
        stepping = ("vectorization", "step_timeout", "on_fault")
        changed = [n for n in (*ONE_BY_ONE, *stepping) if getattr(run, n) != fields[n]]
        changed += ["differentiate"] if run.differentiate not in ("auto", "none") else []
        if changed:
            raise RequestError(
                f"{self.source.name} is a vector environment, which is stepped as it is: leave "
                f"{', '.join(changed)} out, or give the single environment in its place"
            )
        return self


def _find_on_device(
    env: DifferentiableVectorEnv, run: RunConfig, needed: bool, device: torch.device
) -> Environments:
    if env.device.type != device.type:
        raise RequestError(
            f"the vector environment is on the device {env.device}, and the run's is {device}: "
            f"give device='{env.device.type}', or the single environment"
        )
    return env_factory_of(run, needed, device, env=env.env)


def _require_single_precision(env: DifferentiableVectorEnv) -> None:
    if env.dtype != torch.float32:
        raise RequestError(
            f"the vector environment computes in {env.dtype}, and agents in torch.float32: make "
            "it with that dtype, or give the single environment"
        )


def _vector_name(env: AnyVectorEnv) -> str:
    spec = env.unwrapped.spec
    return type(env.unwrapped).__name__ if spec is None else spec.id.split("/")[-1]


def _no_single(name: str, _: Any) -> NoReturn:
    raise RequestError(f"{name} is a vector environment, and no single one can be made of it")


def _copy_of(env: AnyVectorEnv) -> AnyVectorEnv:
    """Another vector environment, for evaluations, which must not move the one that trains.

    Raises:
        RequestError: it cannot be copied.
    """
    try:
        if isinstance(env, AsyncVectorEnv):  # worker processes cannot be copied
            return SyncVectorEnv(env.env_fns)
        return copy.deepcopy(env)
    except Exception as error:
        raise RequestError(
            f"{_vector_name(env)} cannot be copied for evaluations ({type(error).__name__}: "
            f"{error}): give a function that makes it, lambda: {type(env).__name__}(...)"
        ) from error
