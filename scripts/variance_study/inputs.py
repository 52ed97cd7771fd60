"""Inputs of ``pgtoolkit variance``: a policy, environments for each horizon, and estimators."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import torch
from gymnasium.spaces import Box

from pgtoolkit.agent import CriticView
from pgtoolkit.config import PolicySettings
from pgtoolkit.envs.adapters.choose import Differentiate
from pgtoolkit.envs.adapters.requirements import ACTION_ADVICE
from pgtoolkit.envs.registry.construct import accepted_arguments
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import NonFiniteError, RequestError, single_line
from pgtoolkit.estimators import horizon_study
from pgtoolkit.estimators.catalogue import STUDY_ESTIMATORS, StudyEstimator
from pgtoolkit.estimators.horizon_study import Measurement
from pgtoolkit.estimators.soft_value import SoftCritic
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.scripts.cli.arguments import parse_json_object
from pgtoolkit.scripts.cli.environments import EnvFactory
from pgtoolkit.scripts.cli.experiment import (
    RunConfig,
    RunSettings,
    env_factory_of,
    load_critic,
    load_policy,
)
from pgtoolkit.scripts.cli.formatting import join_names
from pgtoolkit.scripts.cli.malloc import keep_freed_memory
from pgtoolkit.scripts.cli.memory import require_statistics_memory, require_study_memory
from pgtoolkit.scripts.cli.trust import OTHER_ENV, names_of, require_signed, settings_of_run
from pgtoolkit.scripts.variance_study.arguments import VarianceArguments
from pgtoolkit.seeding import stream, stream_seed
from pgtoolkit.training.run_folder import RunFolder

DEFAULT_GAMMA = 0.99

DEFAULT_HIDDEN, DEFAULT_LOG_STD_INIT = (64, 64), -1.0
"""The fresh policy's hidden layers, and its log standard deviation before squashing."""

MAX_UNBATCHED_ENVS = 50
"""Environments that are stepped side by side when they are not one batch of tensors."""


CRITIC_NOTE = (
    "With the critic, the objective of all estimators ends with the critic's value of the state "
    "after H steps, and has the entropy's weight that the critic was trained with. Leave the "
    "critic out (--estimators score_function pathwise mixed) for the rewards of H steps alone."
)
"""Printed where a critic is measured."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyInputs:
    """Inputs of a study, from the command's arguments, the run's settings and the defaults."""

    env_name: str
    env_kwargs: dict[str, Any]
    env_for: Callable[[int], AnyVectorEnv]
    """Vector environments for a horizon."""
    horizons: list[int]
    """Horizons in ascending order, in environment steps."""
    trajectories: int
    """Number of trajectories at each horizon."""
    policy: Policy
    policy_name: str
    """The checkpoint's path, or "a fresh policy"."""
    gamma: float
    seed: int
    estimators: tuple[StudyEstimator, ...]
    critic: SoftCritic | None
    """The critic that was saved beside the policy, in the unit of the environment's rewards."""
    no_gradient: str
    """Why pathwise cannot be measured; empty if it can."""
    notes: list[str]
    """Sentences to print before the measurement begins."""

    def measure(
        self, horizon: int, estimators: tuple[StudyEstimator, ...] | None = None
    ) -> list[Measurement]:
        """Measures the estimators at one horizon.

        Args:
            horizon: number of environment steps of a trajectory.
            estimators: names of the estimators to measure; default: :attr:`estimators`.
        """
        return horizon_study.measure_horizon(
            self.env_for(horizon),
            self.policy,
            horizon,
            trajectories=self.trajectories,
            estimators=self.estimators if estimators is None else estimators,
            gamma=self.gamma,
            seed=self.seed,
            critic=self.critic,
        )


def prepare_inputs(options: VarianceArguments) -> StudyInputs:
    """Makes the policy and the environments, and decides which estimators to measure.

    Raises:
        RequestError: no such run or environment, or it cannot do what is asked.
    """
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    settings, saved = _load_run(options)
    env_config = _environment_config(options, settings)
    name, kwargs = env_config.env, parse_json_object(env_config.env_kwargs, "--env-kwargs")
    needed = horizon_study.uses_environment(options.estimators)  # type: ignore[arg-type]
    env_for, sentence = environments(
        env_config, options.trajectories, max(options.horizons), needed=needed
    )
    env = env_for(max(options.horizons))
    no_gradient = reason_for_no_gradient(env, name, env_config.differentiate)
    critic: CriticView | None = None
    if settings is None or saved is None:
        policy, policy_name = fresh_policy(options, env), "a fresh policy"
    else:
        policy, policy_name = load_policy(saved, settings, env), str(saved[1])
        critic = load_critic(saved, settings, env)
    estimators = chosen_estimators(options.estimators, no_gradient, has_critic=critic is not None)
    num_parameters = sum(parameter.numel() for parameter in policy.parameters())
    require_statistics_memory(num_parameters, options.trajectories, mixes="mixed" in estimators)
    length = common_length(env, policy, max(options.horizons), options.seed)
    horizons, notes = fitting_horizons(options.horizons, length, name)
    gamma = settings.agent.gamma if settings is not None else DEFAULT_GAMMA
    return StudyInputs(
        env_name=name,
        env_kwargs=kwargs,
        env_for=env_for,
        horizons=horizons,
        trajectories=options.trajectories,
        policy=policy,
        policy_name=policy_name,
        gamma=gamma if options.gamma is None else options.gamma,
        seed=options.seed,
        estimators=estimators,
        critic=None if critic is None else SoftCritic.of(critic),
        no_gradient=no_gradient,
        notes=[sentence] * bool(sentence) + notes + [CRITIC_NOTE] * ("critic" in estimators),
    )


def _load_run(
    options: VarianceArguments,
) -> tuple[RunSettings | None, tuple[dict[str, Any], Path] | None]:
    """The run's settings, and its policy's state and file; both None without a run."""
    if options.run is None:
        return None, None
    folder, config = RunFolder.open(options.run)
    settings = settings_of_run(config, command="variance", trust=options.trust)
    if not options.trust:
        inherited = names_of(_environment_config(options, settings)) - names_of(options)
        require_signed(config, inherited, OTHER_ENV)
    return settings, folder.read_policy(options.checkpoint)


def _environment_config(options: VarianceArguments, settings: RunSettings | None) -> RunConfig:
    """Names and arguments of the environment: the run's, with what the options replace."""
    if settings is None or options.env is not None:
        assert options.env is not None, "VarianceArguments requires a run or an environment"
        inherited = settings.run.differentiate if settings is not None else "auto"
        config = RunConfig(env=options.env, differentiate=inherited)
    else:
        config = settings.run
    names = ("env_kwargs", "differentiate", "adapter_kwargs", "gym_wrappers", "wrappers")
    given = {name: getattr(options, name) for name in names}
    return dataclasses.replace(config, **{k: v for k, v in given.items() if v is not None})


def environments(
    config: RunConfig, num_envs: int, longest: int, *, needed: bool
) -> tuple[Callable[[int], AnyVectorEnv], str]:
    """A function from a horizon to vector environments, and a sentence on their gradient.

    The environments are made anew for each horizon if the constructor has an argument ``horizon``
    that ``config`` does not give; otherwise all horizons share them.

    Args:
        config: names and arguments of the environment.
        num_envs: number of environments if they are differentiable; at most ``MAX_UNBATCHED_ENVS``
            are made of other ones.
        longest: the longest horizon.
        needed: whether an environment without a gradient of its own is to get an adapter.

    Raises:
        RequestError: they cannot be made, or a window of them does not fit into memory.
    """

    def find(kwargs: dict[str, Any]) -> EnvFactory:
        given = dataclasses.replace(config, env_kwargs=json.dumps(kwargs))
        return env_factory_of(given, needed, torch.device("cpu"))

    def make(factory: EnvFactory) -> AnyVectorEnv:
        has_gradient = factory.gradient.env is not None
        return factory.make(num_envs if has_gradient else min(num_envs, MAX_UNBATCHED_ENVS))

    kwargs = parse_json_object(config.env_kwargs, "--env-kwargs")
    factory = find(kwargs)
    require_study_memory(factory, num_envs, longest)
    source, sentence = factory.source, factory.gradient.sentence
    env_class = type(source.differentiable or source.make().unwrapped)
    if "horizon" not in kwargs and "horizon" in (accepted_arguments(env_class) or ()):
        return lambda horizon: make(find(kwargs | {"horizon": horizon})), sentence
    env = make(factory)
    return lambda horizon: env, sentence


def common_length(env: AnyVectorEnv, policy: Policy, num_steps: int, seed: int) -> int | None:
    """The length of all episodes, if those of one batch all have the same length.

    Args:
        env: stepped from a reset.
        policy: its sampled actions are taken.
        num_steps: number of steps to try.
        seed: seed of start states and actions.

    Returns:
        The length in steps; None if lengths differ or an episode does not end within
        ``num_steps``.
    """
    if isinstance(env, DifferentiableVectorEnv):
        num_steps = min(num_steps, env.env.max_episode_steps)
    generator = stream(seed, "noise, common length")
    noise = policy.draw_noise(num_steps, env.num_envs, generator=generator)
    try:
        window = horizon_study.sample(
            env, policy, noise, seed=stream_seed(seed, "starts, common length")
        )
    except NonFiniteError:
        return None  # seen at the longest horizon only; the measurement reports where it begins
    lengths = window.valid.sum(0)
    ended = (window.done & window.valid).any(0)
    equal = bool(ended.all()) and bool((lengths == lengths[0]).all())
    return int(lengths[0]) if equal else None


def fitting_horizons(
    horizons: Sequence[int], length: int | None, name: str
) -> tuple[list[int], list[str]]:
    """The horizons in ascending order, those beyond an episode's length replaced by that length.

    Args:
        horizons: those that were asked for, in steps.
        length: length of every episode in steps, or None where lengths differ.
        name: the environment's name, for the note.

    Returns:
        The horizons, and a note if any was replaced.
    """
    requested = sorted(set(horizons))
    beyond = [h for h in requested if length is not None and h > length]
    if length is None or not beyond:
        return requested, []
    note = (
        f"Episodes of {name} end after {length} step{'s' * (length > 1)}: H = {length} is measured "
        f"in place of {join_names(beyond)}."
    )
    return sorted({min(h, length) for h in requested}), [note]


def reason_for_no_gradient(env: AnyVectorEnv, name: str, differentiate: Differentiate) -> str:
    """Why the environment has no pathwise gradient; empty if it has one."""
    if differentiate == "none":
        return f"--differentiate none leaves {name} without a gradient"
    if not isinstance(env.single_action_space, Box):
        return (
            f"{name} has no gradient: its actions are {single_line(env.single_action_space)}, and "
            f"{ACTION_ADVICE}"
        )
    if not isinstance(env, DifferentiableVectorEnv):
        return (
            f"{name} has no gradient of its own for pathwise to use (--differentiate "
            "finite-difference, mujoco or model adds one)"
        )
    if env.env.gradient.action == "none":
        return f"{name} declares that it has no gradient by the action (gradient.action = 'none')"
    return ""


def chosen_estimators(
    names: Sequence[str], no_gradient: str, *, has_critic: bool
) -> tuple[StudyEstimator, ...]:
    """The estimators that were asked for; without names, all that can be measured.

    Args:
        names: value of ``--estimators``.
        no_gradient: why there is no pathwise gradient; empty if there is one.
        has_critic: whether a critic was saved beside the policy.

    Raises:
        RequestError: an estimator was asked for that needs a gradient or a critic, and there is
            none.
    """
    if "critic" in names and not has_critic:
        raise RequestError(
            "there is no critic to measure: name the folder of a run whose agent has a Q function, "
            "trained by this version, or leave critic out of --estimators"
        )
    by_critic = has_critic and ("critic" in names or not names)
    missing = {"pathwise"} if by_critic else {"pathwise", "mixed"}
    if no_gradient and missing & set(names):
        raise RequestError(
            f"{no_gradient}: use a differentiable environment (`pgtoolkit list envs`, or a "
            "DifferentiableEnv of your own as file.py:Class), an adapter (--differentiate "
            "finite-difference), or --estimators score_function"
        )
    excluded = missing if no_gradient else set()
    if not by_critic:
        excluded = excluded | {"critic"}
    asked = names or STUDY_ESTIMATORS
    return tuple(name for name in STUDY_ESTIMATORS if name in asked and name not in excluded)


def fresh_policy(options: VarianceArguments, env: AnyVectorEnv) -> Policy:
    """The untrained policy that an agent with these settings and this seed starts with."""
    hidden, log_std_init = options.hidden, options.log_std_init
    settings = PolicySettings(
        hidden=DEFAULT_HIDDEN if hidden is None else hidden,
        log_std_init=DEFAULT_LOG_STD_INIT if log_std_init is None else log_std_init,
        normalize_observations=False,
    )
    spaces = env.single_observation_space, env.single_action_space
    return make_policy(settings, *spaces, stream(options.seed, "policy weights"))
