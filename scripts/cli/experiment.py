"""A run's settings, and the agent, environments and evaluator that they describe."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, final

import torch

from pgtoolkit import parallel
from pgtoolkit.agent import Agent, CriticView, evaluated_policy
from pgtoolkit.config import Settings, above, at_least, at_most
from pgtoolkit.envs.adapters.choose import ADAPTERS, Differentiate
from pgtoolkit.envs.ordinary.vector_states import start_sentence
from pgtoolkit.envs.registry.ordinary import time_limit_of
from pgtoolkit.envs.registry.resolve import OBJECT
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.envs.vectorized.stepping import OnFault, Stepping, Vectorization
from pgtoolkit.envs.vectorized.vector_env import OrdinaryVectorEnv
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.estimators.cross_fitting import followed_estimator
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.limits import MAX_THREADS
from pgtoolkit.rollouts.evaluation import MAX_EPISODE_STEPS, Evaluation, evaluate, never
from pgtoolkit.scripts.cli.arguments import (
    flag_name,
    flags_of,
    parse,
    parse_json_object,
    program_name,
)
from pgtoolkit.scripts.cli.environments import (
    EnvFactory,
    Environments,
    make_env_factory,
    parse_gym_wrappers,
    parse_wrappers,
)
from pgtoolkit.scripts.cli.malloc import keep_freed_memory
from pgtoolkit.scripts.cli.memory import require_training_memory
from pgtoolkit.scripts.cli.registry import load_agent
from pgtoolkit.scripts.cli.suggestions import did_you_mean
from pgtoolkit.scripts.cli.trust import SIGNATURE
from pgtoolkit.seeding import stream_seed
from pgtoolkit.training.loop import TrainConfig
from pgtoolkit.training.run_folder import GIVEN
from pgtoolkit.training.storage.files import excerpt

LOG = logging.getLogger("pgtoolkit")

UNBATCHED_EVAL_EPISODES, BATCHED_EVAL_EPISODES = 20, 100
"""Default number of episodes of an evaluation: where each environment is a Python object, and where
all of them are one batch of tensors."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """The environment of a run, its seed and its device."""

    env: str
    """The environment: an id (Pendulum-v1, pgtoolkit/Pendulum-v0, module:Id-v0) or
    path/to/file.py:Class. The module or file is Python code, and is run."""
    env_kwargs: str = "{}"
    """JSON object of arguments for the environment's constructor."""
    differentiate: Differentiate = "auto"
    """Source of the environment's gradient. auto: its own if it has one, else the best
    adapter if the agent needs a gradient; none: no gradient; finite-difference: differences of its
    steps; mujoco: MuJoCo's derivatives, in batches; model: a model learned from its steps."""
    adapter_kwargs: str = "{}"
    """JSON object of arguments for the adapter that --differentiate names or auto tries."""
    gym_wrappers: str = "{}"
    """JSON object of Gymnasium's wrappers for an ordinary environment and their arguments, the
    innermost first, such as '{"TimeLimit": {"max_episode_steps": 200}}'. A name in
    gymnasium.wrappers, module:Class or path/to/file.py:Class, which are run as Python code."""
    wrappers: str = "{}"
    """JSON object of wrappers for a differentiable environment and their arguments, the innermost
    first, such as '{"GradientGate": {"clip_norm": 10}}'. `pgtoolkit list wrappers` names them."""
    seed: Annotated[int, at_least(0)] = 0
    """Seed of all random numbers: weights, noise, starts, minibatches and evaluations."""
    threads: Annotated[int, at_least(1), at_most(MAX_THREADS)] = 1
    """Number of CPU threads that torch uses; networks of this size gain nothing from more."""
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """Device of the policy and of differentiable environments; auto is cuda where there is one."""
    vectorization: Vectorization = "sync"
    """Where ordinary environments run. sync: one after the other in this process; async: each in a
    worker process of its own, with the same results to the bit. Environments with a gradient are
    one batch of tensors."""
    step_timeout: Annotated[float | None, above(0)] = None
    """Seconds that an ordinary environment may take for a step or a reset; by default without
    limit. With sync Python code is interrupted, which code in C cannot be; with async the worker is
    killed."""
    on_fault: OnFault = "stop"
    """What happens when an ordinary environment fails: raises, takes too long, returns NaN or what
    its spaces do not allow, or ends its worker. stop: the run ends; drop: it goes on without that
    environment; restart: it goes on with a new one."""


@final
@dataclasses.dataclass(frozen=True)
class RunSettings:
    """All settings of a run: environment, loop and agent."""

    agent_name: str
    run: RunConfig
    loop: TrainConfig
    agent: Any
    """The agent's own configuration."""

    def as_dict(self) -> dict[str, Any]:
        """All settings in one flat dictionary of plain values, as ``config.yaml`` holds them."""
        merged: dict[str, Any] = {"agent": self.agent_name}
        for part in (self.run, self.loop, self.agent):
            merged |= dataclasses.asdict(part)
        for name in ("env_kwargs", "adapter_kwargs", "gym_wrappers", "wrappers"):
            merged[name] = parse_json_object(getattr(self.run, name), flag_name(name))
        return {k: list(v) if isinstance(v, tuple) else v for k, v in merged.items()}


def default_settings(agent_name: str) -> dict[str, Any]:
    """The defaults of all settings that have one, as :meth:`RunSettings.as_dict` has them."""
    return defaults_of(RunConfig, TrainConfig, load_agent(agent_name)[1])


def defaults_of(*kinds: type[Any]) -> dict[str, Any]:
    """The defaults of some of the parts of :class:`RunSettings`, with those of the run."""
    found: dict[str, Any] = {}
    for kind in kinds:
        fields = [f for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING]
        found |= {field.name: field.default for field in fields}
    for name in ("env_kwargs", "adapter_kwargs", "gym_wrappers", "wrappers"):
        found[name] = {}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}


def parse_settings(agent_name: str, arguments: list[str], *, command: str) -> RunSettings:
    """Parses the settings of a run from command-line flags.

    Raises:
        RequestError: an unknown agent or flag, or a value that does not fit.
    """
    import tyro

    config = load_agent(agent_name)[1]
    fields = [("run", RunConfig), ("loop", TrainConfig), ("agent", config)]
    group = dataclasses.make_dataclass("Settings", fields, frozen=True)
    group.__doc__ = f"{config.__doc__}"
    flat: type[Any] = tyro.conf.OmitArgPrefixes[group]  # type: ignore[valid-type,misc]
    parsed = parse(flat, arguments, command=command)
    run, agent = with_absolute_paths(parsed.run), with_absolute_torso(parsed.agent)
    return RunSettings(absolute_path(agent_name), run, parsed.loop, agent)


def with_absolute_paths(run: RunConfig) -> RunConfig:
    """The settings, with absolute paths of environment and wrappers that are classes in files.

    Raises:
        RequestError: ``--gym-wrappers`` is not a JSON object.
    """
    wrappers = parse_gym_wrappers(run.gym_wrappers)
    absolute = {absolute_path(name): arguments for name, arguments in wrappers.items()}
    return dataclasses.replace(run, env=absolute_path(run.env), gym_wrappers=json.dumps(absolute))


def with_absolute_torso(agent: Any) -> Any:
    """An agent's settings, with the absolute path of a torso that is a function in a file.

    Raises:
        RequestError: the path is none.
    """
    absolute = absolute_path(agent.torso)
    return agent if absolute == agent.torso else dataclasses.replace(agent, torso=absolute)


def absolute_path(name: str) -> str:
    """``path/to/file.py:Name`` with an absolute path, so that the run works from any folder.

    Raises:
        RequestError: the path is none.
    """
    file, colon, attribute = name.rpartition(":")
    if not file.endswith(".py"):
        return name
    try:
        return f"{Path(file).expanduser().resolve()}{colon}{attribute}"
    except (OSError, ValueError, RuntimeError) as error:  # a null character, a loop, no such user
        raise RequestError(
            f"{excerpt(ascii(file))} is not a path to a file ({excerpt(error)}): write "
            "path/to/file.py:Name"
        ) from error


def settings_from_file(
    config: Mapping[str, Any], overrides: list[str], *, command: str
) -> RunSettings:
    """Settings from a configuration like :meth:`RunSettings.as_dict`; flags override it.

    Raises:
        RequestError: the configuration names no agent, or :func:`parse_settings` refuses a
            setting.
    """
    agent_name = config.get("agent")
    if not isinstance(agent_name, str):
        raise RequestError("the configuration names no agent: add a line `agent: shac`")
    kept = {k: v for k, v in config.items() if k not in ("agent", "versions", GIVEN, SIGNATURE)}
    names = setting_names(agent_name)
    unknown = [key for key in kept if key not in names]
    if unknown:
        hint = did_you_mean(str(unknown[0]), names) if len(unknown) == 1 else ""
        shown = ", ".join(map(repr, unknown))
        raise RequestError(f"{agent_name} has no setting {shown}: {hint}take it out")
    named = named_settings(overrides)
    rest = {k: v for k, v in kept.items() if k not in named}
    try:
        return parse_settings(agent_name, flags_of(rest) + overrides, command=command)
    except RequestError as error:
        if overrides:
            raise  # the value may be that of a flag
        text = str(error).removesuffix(f" (see {program_name(command)} --help)")
        raise RequestError(f"a setting of the configuration does not fit: {text}") from error


def setting_names(agent_name: str) -> list[str]:
    """The names of all settings of a run of an agent."""
    parts = (RunConfig, TrainConfig, load_agent(agent_name)[1])
    return [field.name for part in parts for field in dataclasses.fields(part)]


def named_settings(flags: Sequence[str]) -> set[str]:
    """The names of the settings to which flags give a value, ``--no-NAME`` included."""
    words = {flag.split("=")[0] for flag in flags if flag.startswith("--")}
    names = {word.removeprefix("--").replace("-", "_") for word in words}
    return names | {name.removeprefix("no_") for name in names}


@final
class Experiment:
    """The agent, its environments and its evaluation, made from the settings of a run.

    Args:
        settings: the run's.
        stand_in: maps the agent's environments to what it is to step instead.
        find_environments: from the settings, whether a gradient is needed, and the device. By
            default these are the environments that the settings name.

    Attributes:
        eval_env: the environments in which the agent is evaluated.

    Raises:
        RequestError: the environment cannot be made, or the agent cannot use it.
    """

    def __init__(
        self,
        settings: RunSettings,
        stand_in: Callable[[AnyVectorEnv], AnyVectorEnv] = lambda env: env,
        find_environments: "FindEnvironments | None" = None,
    ) -> None:
        run = settings.run
        torch.set_num_threads(run.threads)
        keep_freed_memory()
        self.device = choose_device(run.device)
        agent_class = load_agent(settings.agent_name)[0]
        find = find_environments or env_factory_of
        self.environments = find(run, agent_class.needs_gradient, self.device)
        self.source = self.environments.source
        batched = self.environments.batched
        default_episodes = BATCHED_EVAL_EPISODES if batched else UNBATCHED_EVAL_EPISODES
        self.eval_episodes = settings.loop.eval_episodes or default_episodes
        warn_of_sizes(settings.agent, settings.loop.total_steps)
        require_training_memory(self.environments, settings.agent, self.eval_episodes)
        env = stand_in(self.environments.make(settings.agent.num_envs))
        self.resume_sentence = start_sentence(env, resuming(run.env))
        self.agent: Agent = agent_class(
            settings.agent,
            env,
            seed=run.seed,
            total_steps=settings.loop.total_steps,
        )
        self.eval_env = self.environments.make_for_evaluation(self.eval_episodes)
        self.eval_max_steps = settings.loop.eval_max_steps or default_max_steps(self.eval_env, env)
        self.settings = dataclasses.replace(
            settings,
            run=dataclasses.replace(run, differentiate=resolved_adapter(run, self.environments)),
            loop=dataclasses.replace(
                settings.loop,
                eval_interval=settings.loop.steps_between_evaluations,
                eval_episodes=self.eval_episodes,
                eval_max_steps=self.eval_max_steps,
            ),
            agent=resolved_estimator(settings.agent),
        )
        self._given, self._said_cut_off = settings.as_dict(), False

    @property
    def config(self) -> dict[str, Any]:
        """What a run's folder has of the settings: their values, and how those were given."""
        values = self.settings.as_dict()
        return values | {GIVEN: {k: v for k, v in self._given.items() if v != values[k]}}

    @property
    def processes_sentences(self) -> list[str]:
        """How the processes of the run divide the environments; nothing where there is one."""
        count, num_envs = parallel.size(), self.settings.agent.num_envs
        if count == 1:
            return []
        env = getattr(getattr(self.agent, "collector", None), "env", None)
        if isinstance(env, OrdinaryVectorEnv):
            shares = ", ".join(map(str, env.shares))
            return [f"{count} processes divide the {num_envs} environments: {shares}"]
        return [f"each of the {count} processes computes all {num_envs} environments"]

    @property
    def resumed_sentence(self) -> str:
        """How the environments went on after ``agent.load_state_dict``."""
        collector: Any = getattr(self.agent, "collector", None)
        return f"environments: {getattr(collector, 'resumed', '') or 'as the agent resumes them'}"

    def evaluate(self, stop_requested: Callable[[], bool] = never) -> Evaluation:
        """Returns of the current policy without action noise, in separate environments.

        The first time that episodes are cut off, a warning says so.

        Args:
            stop_requested: asked from time to time whether to give up.

        Raises:
            EvaluationStopped: ``stop_requested`` said so.
        """
        evaluation = evaluate(
            self.eval_env,
            evaluated_policy(self.agent),
            episodes=self.eval_episodes,
            seed=stream_seed(self.settings.run.seed, "evaluation"),
            device=self.device,
            max_episode_steps=self.eval_max_steps,
            stop_requested=stop_requested,
        )
        if evaluation.cut_off and not self._said_cut_off:
            self._said_cut_off = True
            LOG.warning(
                cut_off_sentence(evaluation, self.eval_env, self.source.name, self.eval_max_steps)
            )
        return evaluation


def warn_of_sizes(agent: Settings, total_steps: int) -> None:
    """Warns of a run that ends before its agent learns, and of minibatches that cannot be full."""
    starts: int = getattr(agent, "learning_starts", 0)
    buffer: int = getattr(agent, "buffer_size", 0)
    batch: int = getattr(agent, "batch_size", 0)
    if starts >= total_steps:
        LOG.warning(
            "the agent learns from step %s on (--learning-starts), and the run ends at step %s: "
            "nothing is learned",
            f"{starts:,}",
            f"{total_steps:,}",
        )
    window: int = getattr(agent, "num_envs", 0) * getattr(agent, "n_steps", 0)
    if not buffer and batch > window > 0:
        LOG.warning(
            "a minibatch is to have %s steps (--batch-size), and a window has %s (--num-envs times "
            "--n-steps): each is the whole window",
            f"{batch:,}",
            f"{window:,}",
        )
    if 0 < buffer < batch:
        LOG.warning(
            "a minibatch has %s transitions (--batch-size), and the buffer holds %s "
            "(--buffer-size): each is drawn several times",
            f"{batch:,}",
            f"{buffer:,}",
        )


def resuming(env: str, folder: Path | None = None) -> str:
    """What resumes a run; where its environment was an object in Python, only Python can.

    Args:
        env: the environment's name in the configuration.
        folder: the run's, to be named; None for any run.
    """
    if OBJECT.fullmatch(env):
        place = "folder" if folder is None else repr(str(folder))
        return f"pgtoolkit.load({place}, env=...)" + (".resume()" if folder is not None else "")
    return "`pgtoolkit resume`" if folder is None else f"`pgtoolkit resume {folder}`"


def default_max_steps(*envs: AnyVectorEnv) -> int:
    """The length at which an evaluation episode is cut off where the user gives none.

    It is the first time limit that one of the environments has: that of the evaluation's own, else
    that which an adapter gives to those for training, else ``MAX_EPISODE_STEPS``.
    """
    limits = (time_limit_of(env) for env in envs)
    return next((limit for limit in limits if limit is not None), MAX_EPISODE_STEPS)


def cut_off_sentence(evaluation: Evaluation, env: AnyVectorEnv, name: str, max_steps: int) -> str:
    """Says how many episodes were cut off, after how many steps, and why.

    Args:
        evaluation: at least one of its episodes was cut off.
        env: the environments in which it was made.
        name: their name.
        max_steps: the length at which episodes were cut off.
    """
    cut = (
        f"evaluation episodes are cut off after {max_steps:,} steps (--eval-max-steps): "
        f"{evaluation.cut_off} of {len(evaluation.returns)} were, and count with the return so far"
    )
    reason = f"{name} has no time limit: " if time_limit_of(env) is None else f"{name}: "
    return reason + cut


FindEnvironments = Callable[[RunConfig, bool, torch.device], Environments]
"""Makes the environments of a run from its settings, whether a gradient is needed, and a device."""


def env_factory_of(
    run: RunConfig, needed: bool, device: torch.device, env: EnvArgument | None = None
) -> EnvFactory:
    """Makes the environments of a run.

    Args:
        run: the run's settings.
        needed: whether the agent needs a gradient of the environment.
        device: the device of the environments' tensors.
        env: an environment, or a function that makes one, in the place of the one that the settings
            name.

    Raises:
        RequestError: a JSON argument is not valid, there is no such environment, adapter or
            wrapper, or they cannot be combined.
    """
    adapter_kwargs = parse_json_object(run.adapter_kwargs, "--adapter-kwargs")
    if run.differentiate == "model":
        adapter_kwargs = {"seed": run.seed} | adapter_kwargs
    return make_env_factory(
        run.env if env is None else env,
        parse_json_object(run.env_kwargs, "--env-kwargs"),
        differentiate=run.differentiate,
        adapter_kwargs=adapter_kwargs,
        gym_wrappers=parse_gym_wrappers(run.gym_wrappers),
        wrappers=parse_wrappers(run.wrappers),
        needed=needed,
        device=device,
        stepping=Stepping(run.vectorization, run.step_timeout, run.on_fault, divided=True),
    )


def resolved_adapter(run: RunConfig, environments: Environments) -> Differentiate:
    """``--differentiate`` with the adapter that ``auto`` chose, so that a resumed run keeps it."""
    chosen = environments.gradient.method
    return chosen if chosen in ADAPTERS else run.differentiate


def resolved_estimator(config: Any) -> Any:
    """An agent's configuration with the estimator that ``auto`` stands for."""
    if getattr(config, "estimator", None) != "auto":
        return config
    return dataclasses.replace(config, estimator=followed_estimator(config))


def choose_device(name: str) -> torch.device:
    """The torch device of this name: ``cpu``, ``cuda``, or ``auto`` for cuda where there is one.

    Several processes on a machine take its cards in turn.

    Raises:
        RequestError: CUDA is asked for and torch sees none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise RequestError("torch sees no CUDA device here: use --device cpu (or auto)")
    if name == "cuda" and parallel.size() > 1:
        return torch.device("cuda", parallel.local_rank() % torch.cuda.device_count())
    return torch.device(name)


def load_policy(read: tuple[dict[str, Any], Path], settings: Any, env: Any) -> Any:
    """Loads a saved policy for an environment with the spaces that it was trained for.

    Args:
        read: the policy's state and its file, of ``RunFolder.read_policy``.
        settings: the run's settings.
        env: the environment.

    Raises:
        RequestError: the file is damaged, or the environment's spaces are not those that the policy
            was trained for.
    """
    import torch

    from pgtoolkit.policies.factory import seeded_policy
    from pgtoolkit.state import StateError, require, schema_of

    saved, path = read
    require_policy_file(saved, path)
    spaces = env.single_observation_space, env.single_action_space
    # The run's seed, because a module of the user's may hold random numbers that are not saved.
    policy = seeded_policy(
        settings.agent, spaces, seed=settings.run.seed, device=torch.device("cpu")
    )
    try:
        require(saved["policy"], schema_of(policy), "policy")
    except StateError as error:
        read_size, seen_size = input_size(saved["policy"]), input_size(policy.state_dict())
        if read_size is not None and seen_size is not None and read_size != seen_size:
            raise RequestError(
                f"the policy in {path} does not fit: it was trained for other spaces, rows of "
                f"{read_size} numbers, and an observation here has {seen_size} "
                f"({single_line(spaces[0])}): evaluate it on an environment with its own spaces"
            ) from error
        raise RequestError(
            f"the policy in {path} does not fit ({error}): it was trained for other spaces than "
            f"this environment's ({single_line(spaces[0])} to {single_line(spaces[1])}), its "
            "config.yaml was edited, an earlier version saved it, or the file is damaged. Evaluate "
            "it on an environment with its own spaces"
        ) from error
    policy.load_state_dict(saved["policy"])
    return policy


def input_size(policy: Any) -> int | None:
    """How many numbers a policy's first layer reads, by its state; None where that does not tell.

    Hidden layers stand before the output in a state.
    """
    if not isinstance(policy, Mapping):
        return None
    sizes = (x.shape[1] for x in policy.values() if isinstance(x, torch.Tensor) and x.dim() == 2)
    return next(sizes, None)


def load_critic(read: tuple[dict[str, Any], Path], settings: Any, env: Any) -> CriticView | None:
    """The critic that was saved beside a policy; None where there is none.

    Args:
        read: the policy's state and its file, of ``RunFolder.read_policy``.
        settings: the run's settings.
        env: the environment, with the spaces that the run was trained for.

    Raises:
        RequestError: the file is damaged, or the critic does not fit the settings.
    """
    from pgtoolkit.config import CriticSettings
    from pgtoolkit.learners.q_function import make_q_ensemble

    saved, path = read
    require_policy_file(saved, path)
    if "critic" not in saved or not isinstance(settings.agent, CriticSettings):
        return None
    spaces = env.single_observation_space, env.single_action_space
    with fitting(f"the critic in {path} does not fit the settings in config.yaml"):
        return CriticView.load(make_q_ensemble(settings.agent, spaces, seed=0), saved["critic"])


def require_policy_file(saved: dict[str, Any], path: Path) -> None:
    """Checks what a policy's file holds: ``policy``, and where known critic, steps and return.

    Raises:
        RequestError: the file holds something else.
    """
    from pgtoolkit.state import anything, entries, integer, number, optional, require

    notes = {"num_steps": integer(), "eval_return": optional(number()), "critic": anything}
    with fitting(f"the policy file {path} is damaged"):
        require(saved, entries({"policy": anything, **notes}, absent=tuple(notes)))


@contextlib.contextmanager
def fitting(what: str) -> Iterator[None]:
    """A context in which a saved state that does not fit is reported as ``what``.

    The state of an environment or agent of somebody else is compared by their own code, which may
    raise other errors.

    Raises:
        RequestError: the state does not fit.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        raise RequestError(f"{what} ({single_line(e)[:500]})") from e
