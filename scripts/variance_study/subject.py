"""What ``pgtoolkit variance`` measures: a policy, and environments for each horizon."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch

from pgtoolkit.agent import AgentConfig
from pgtoolkit.envs.adapters.choose import Differentiate
from pgtoolkit.envs.registry.construct import accepted_arguments
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.estimators.horizon_study import Estimator, sample
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.scripts.cli.arguments import parse_json_object
from pgtoolkit.scripts.cli.environments import EnvFactory
from pgtoolkit.scripts.cli.experiment import (
    RunConfig,
    Settings,
    environments_of,
    load_policy,
    settings_from_file,
)
from pgtoolkit.scripts.cli.files import listed
from pgtoolkit.scripts.cli.malloc import keep_freed_memory
from pgtoolkit.seeding import stream, stream_seed
from pgtoolkit.training.run_folder import RunFolder

if TYPE_CHECKING:
    from pgtoolkit.scripts.variance_study.arguments import VarianceArguments


ESTIMATORS: tuple[Estimator, ...] = ("score_function", "pathwise", "mixed")

GAMMA, HIDDEN, LOG_STD_INIT = 0.99, (64, 64), -1.0

OBJECTS = 50
"""Environments of a batch, where each of them is a Python object."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """Everything that is measured, resolved."""

    env_name: str
    env_kwargs: dict[str, Any]
    env_for: Callable[[int], AnyVectorEnv]
    """Vector environments for a horizon."""
    horizons: list[int]
    policy: Policy
    policy_name: str
    gamma: float
    estimators: tuple[Estimator, ...]
    no_gradient: str
    """Why pathwise cannot be measured; empty if it can."""
    notes: list[str]
    """What to know beforehand."""


def make_subject(options: "VarianceArguments") -> Subject:
    """Finds policy and environment, and what can be measured with them.

    Raises:
        RequestError: no such run or environment, or it cannot do what is asked.
    """
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    settings, checkpoint = _run_of(options)
    place = _place_of(options, settings)
    name, kwargs = place.env, parse_json_object(place.env_kwargs, "--env-kwargs")
    needed = bool(set(options.estimators) - {"score_function"})
    env_for, sentence = environments(place, options.trajectories, needed=needed)
    env = env_for(max(options.horizons))
    no_gradient = reason_for_no_gradient(env, name, place.differentiate)
    estimators = chosen_estimators(options.estimators, no_gradient)
    if settings is None or checkpoint is None:
        policy, policy_name = fresh_policy(options, env), "a fresh policy"
    else:
        policy, policy_name = load_policy(checkpoint, settings, env), str(checkpoint)
    length = common_length(env, policy, max(options.horizons), options.seed)
    horizons, notes = fitting_horizons(options.horizons, length, name)
    gamma = settings.agent.gamma if settings is not None else GAMMA
    return Subject(
        env_name=name,
        env_kwargs=kwargs,
        env_for=env_for,
        horizons=horizons,
        policy=policy,
        policy_name=policy_name,
        gamma=gamma if options.gamma is None else options.gamma,
        estimators=estimators,
        no_gradient=no_gradient,
        notes=[sentence] * bool(sentence) + notes,
    )


def _run_of(options: "VarianceArguments") -> tuple[Settings | None, Path | None]:
    if options.run is None:
        return None, None
    folder, config = RunFolder.open(Path(options.run))
    settings = settings_from_file(config, [], command="variance")
    return settings, folder.checkpoint(options.checkpoint)


def _place_of(options: "VarianceArguments", settings: Settings | None) -> RunConfig:
    """The environment and its gradient: the run's, another in its place, or one without a run."""
    if settings is None or options.env is not None:
        assert options.env is not None, "the arguments' own check asks for a run or an environment"
        inherited = settings.run.differentiate if settings is not None else "auto"
        place = RunConfig(env=options.env, differentiate=inherited)
    else:
        place = settings.run
    names = ("env_kwargs", "differentiate", "adapter_kwargs", "wrappers")
    given = {name: getattr(options, name) for name in names}
    return dataclasses.replace(place, **{k: v for k, v in given.items() if v is not None})


def environments(
    place: RunConfig, count: int, *, needed: bool
) -> tuple[Callable[[int], AnyVectorEnv], str]:
    """Vector environments for any horizon, and what to say of their gradient.

    They are made anew for each where the constructor has an argument ``horizon`` that is not given.

    Args:
        place: names and arguments.
        count: how many, if they have a gradient; of plain Python objects, few do.
        needed: whether an adapter is to give a gradient to one that has none.

    Raises:
        RequestError: they cannot be made.
    """

    def find(kwargs: dict[str, Any]) -> EnvFactory:
        text = json.dumps(kwargs)
        here = dataclasses.replace(place, env_kwargs=text)
        return environments_of(here, needed, torch.device("cpu"))

    def make(found: EnvFactory) -> AnyVectorEnv:
        return found.make(count if found.gradient.env is not None else min(count, OBJECTS))

    kwargs = parse_json_object(place.env_kwargs, "--env-kwargs")
    found = find(kwargs)
    source, sentence = found.source, found.gradient.sentence
    kind = type(source.differentiable or source.make().unwrapped)
    if "horizon" not in kwargs and "horizon" in (accepted_arguments(kind) or ()):
        return lambda horizon: make(find(kwargs | {"horizon": horizon})), sentence
    env = make(found)
    return lambda horizon: env, sentence


def common_length(env: AnyVectorEnv, policy: Policy, num_steps: int, seed: int) -> int | None:
    """The length of every episode, if all of one batch end within so many steps, all alike.

    Args:
        env: stepped from a reset.
        policy: acts by its samples.
        num_steps: how far to look.
        seed: of starts and actions.
    """
    if isinstance(env, DifferentiableVectorEnv):
        num_steps = min(num_steps, env.env.max_episode_steps)
    generator = stream(seed, "noise, common length")
    noise = policy.draw_noise(num_steps, env.num_envs, generator=generator)
    try:
        window = sample(env, policy, noise, seed=stream_seed(seed, "starts, common length"))
    except NonFiniteError:
        return None  # of the longest horizon; the measurement will say where
    lengths = window.valid.sum(0)
    ended = (window.done & window.valid).any(0)
    alike = bool(ended.all()) and bool((lengths == lengths[0]).all())
    return int(lengths[0]) if alike else None


def fitting_horizons(
    horizons: Sequence[int], length: int | None, name: str
) -> tuple[list[int], list[str]]:
    """The horizons, ascending and cut to an episode's length, and a note if any was cut."""
    wanted = sorted(set(horizons))
    beyond = [h for h in wanted if length is not None and h > length]
    if length is None or not beyond:
        return wanted, []
    note = (
        f"Episodes of {name} end after {length} step{'s' * (length > 1)}: H = {length} is measured "
        f"in place of {listed(beyond)}."
    )
    return sorted({min(h, length) for h in wanted}), [note]


def reason_for_no_gradient(env: AnyVectorEnv, name: str, differentiate: Differentiate) -> str:
    """Why pathwise has nothing to follow here; empty if it has."""
    if differentiate == "none":
        return f"--differentiate none leaves {name} without a gradient"
    if not isinstance(env, DifferentiableVectorEnv):
        return (
            f"{name} has no gradient of its own for pathwise to follow (--differentiate "
            "finite-difference, mujoco or model gives it one)"
        )
    if env.env.gradient.action == "none":
        return f"{name} says that it has no gradient by the action (gradient.action = 'none')"
    return ""


def chosen_estimators(names: Sequence[str], no_gradient: str) -> tuple[Estimator, ...]:
    """Those that were asked for, or all that can be measured.

    Raises:
        RequestError: one was asked for that needs a gradient, and there is none.
    """
    if no_gradient and set(names) - {"score_function"}:
        raise RequestError(
            f"{no_gradient}: use a differentiable environment (`pgtoolkit list envs`, or a "
            "DifferentiableEnv of your own as file.py:Class), an adapter (--differentiate "
            "finite-difference), or --estimators score_function"
        )
    if no_gradient:
        return ("score_function",)
    return tuple(name for name in ESTIMATORS if name in names or not names)


def fresh_policy(options: "VarianceArguments", env: AnyVectorEnv) -> Policy:
    """The policy that an agent of this seed and these settings starts with."""
    settings = AgentConfig(
        hidden=HIDDEN if options.hidden is None else options.hidden,
        log_std_init=LOG_STD_INIT if options.log_std_init is None else options.log_std_init,
        normalize_observations=False,
    )
    spaces = env.single_observation_space, env.single_action_space
    return make_policy(settings, *spaces, stream(options.seed, "policy weights"))
