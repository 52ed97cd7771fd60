"""A run's settings, and the agent, environments and evaluator that they describe."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, final

import torch

from pgtoolkit.agent import Agent
from pgtoolkit.envs.adapters.choose import ADAPTERS, Differentiate
from pgtoolkit.errors import RequestError, one_line
from pgtoolkit.learners.policy_learner import Actor
from pgtoolkit.rollouts.evaluation import Evaluation, evaluate
from pgtoolkit.scripts.cli.arguments import flags_of, parse, parse_json_object
from pgtoolkit.scripts.cli.environments import EnvFactory, make_environments, parse_wrappers
from pgtoolkit.scripts.cli.malloc import keep_freed_memory
from pgtoolkit.scripts.cli.registry import load_agent
from pgtoolkit.seeding import stream_seed
from pgtoolkit.training.loop import TrainConfig

EVAL_EPISODES, BATCHED_EVAL_EPISODES = 20, 100
"""Episodes of an evaluation, where environments are Python objects and where they are a batch."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What is trained where."""

    env: str
    """An id (Pendulum-v1, pgtoolkit/Pendulum-v0, module:Id-v0) or path/to/file.py:Class."""
    env_kwargs: str = "{}"
    """JSON object of arguments for the environment."""
    differentiate: Differentiate = "auto"
    """The environment's gradient. auto: its own if it has one, else, where the agent needs one, the
    best adapter; none: none; finite-difference: differences of its steps; mujoco: the same in
    batches and by MuJoCo's derivatives; model: learned from its steps."""
    adapter_kwargs: str = "{}"
    """JSON object of arguments for the adapter that --differentiate names."""
    wrappers: str = "{}"
    """JSON object of wrappers for a differentiable environment and their arguments, the innermost
    first, such as '{"GradientGate": {"clip_norm": 10}}'. `pgtoolkit list wrappers` names them."""
    seed: int = 0
    """Of everything random."""
    threads: int = 1
    """CPU threads of torch; networks of this size gain nothing from more."""
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """Where policy and differentiable environments live; auto is cuda where there is one."""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise RequestError(f"--threads must be at least 1, not {self.threads}")


@final
@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that a run is made of."""

    agent_name: str
    run: RunConfig
    loop: TrainConfig
    agent: Any
    """The agent's own configuration."""

    def as_dict(self) -> dict[str, Any]:
        """Flat, plain values: what ``config.yaml`` holds and ``--config`` reads."""
        merged: dict[str, Any] = {"agent": self.agent_name}
        for part in (self.run, self.loop, self.agent):
            merged |= dataclasses.asdict(part)
        for name in ("env_kwargs", "adapter_kwargs", "wrappers"):
            merged[name] = parse_json_object(getattr(self.run, name), flag_of(name))
        return {k: list(v) if isinstance(v, tuple) else v for k, v in merged.items()}


def parse_settings(agent_name: str, arguments: list[str], *, command: str) -> Settings:
    """Settings from flags.

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
    run = dataclasses.replace(parsed.run, env=absolute(parsed.run.env))
    return Settings(agent_name, run, parsed.loop, parsed.agent)


def absolute(env: str) -> str:
    """``path/to/file.py:Class`` with the whole path, so that a run can be used from anywhere."""
    file, colon, name = env.rpartition(":")
    return f"{Path(file).expanduser().resolve()}{colon}{name}" if file.endswith(".py") else env


def settings_from_file(
    config: Mapping[str, Any], overrides: list[str], *, command: str
) -> Settings:
    """Settings from a configuration as :meth:`Settings.as_dict` gives it; flags win over it.

    Raises:
        RequestError: as :func:`parse_settings`; or the configuration names no agent.
    """
    agent_name = config.get("agent")
    if not isinstance(agent_name, str):
        raise RequestError("the configuration names no agent: add a line `agent: shac`")
    kept = {k: v for k, v in config.items() if k not in ("agent", "versions")}
    parts = (RunConfig, TrainConfig, load_agent(agent_name)[1])
    names = {field.name for part in parts for field in dataclasses.fields(part)}
    unknown = [repr(key) for key in kept if key not in names]
    if unknown:
        raise RequestError(f"the configuration has no setting {', '.join(unknown)}: take it out")
    named = {flag.split("=")[0].removeprefix("--").replace("-", "_") for flag in overrides}
    rest = {k: v for k, v in kept.items() if k not in named and f"no_{k}" not in named}
    return parse_settings(agent_name, flags_of(rest) + overrides, command=command)


class ActingAgent(Agent, Protocol):
    """An agent whose policy can be evaluated: what the commands need beyond the loop."""

    actor: Actor


@final
class Experiment:
    """The agent and its evaluation, made from settings.

    Raises:
        RequestError: the environment cannot be made, or the agent cannot use it.
    """

    def __init__(self, settings: Settings) -> None:
        run = settings.run
        torch.set_num_threads(run.threads)
        keep_freed_memory()
        self.device = choose_device(run.device)
        agent_class = load_agent(settings.agent_name)[0]
        self.environments = environments_of(run, agent_class.needs_gradient, self.device)
        self.source = self.environments.source
        self.agent: ActingAgent = agent_class(
            settings.agent,
            self.environments.make(settings.agent.num_envs),
            seed=run.seed,
            total_steps=settings.loop.total_steps,
        )
        batched = self.environments.batched
        default_episodes = BATCHED_EVAL_EPISODES if batched else EVAL_EPISODES
        self.eval_episodes = settings.loop.eval_episodes or default_episodes
        self.settings = dataclasses.replace(
            settings,
            run=dataclasses.replace(run, differentiate=settled(run, self.environments)),
            loop=dataclasses.replace(settings.loop, eval_episodes=self.eval_episodes),
        )
        self._eval_env = self.environments.make_for_evaluation(self.eval_episodes)

    def evaluate(self) -> Evaluation:
        """The current policy, deterministic, in environments of its own."""
        return evaluate(
            self._eval_env,
            self.agent.actor.policy,
            episodes=self.eval_episodes,
            seed=stream_seed(self.settings.run.seed, "evaluation"),
            device=self.device,
        )


def environments_of(run: RunConfig, needed: bool, device: torch.device) -> EnvFactory:
    """What a run is trained on.

    Raises:
        RequestError: as :func:`~pgtoolkit.scripts.cli.environments.make_environments`.
    """
    adapter_kwargs = parse_json_object(run.adapter_kwargs, "--adapter-kwargs")
    if run.differentiate == "model":
        adapter_kwargs = {"seed": run.seed} | adapter_kwargs
    return make_environments(
        run.env,
        parse_json_object(run.env_kwargs, "--env-kwargs"),
        differentiate=run.differentiate,
        adapter_kwargs=adapter_kwargs,
        wrappers=parse_wrappers(run.wrappers),
        needed=needed,
        device=device,
    )


def settled(run: RunConfig, environments: EnvFactory) -> Differentiate:
    """``--differentiate``, with the adapter that ``auto`` chose, so that a resume keeps to it."""
    chosen = environments.gradient.method
    return chosen if chosen in ADAPTERS else run.differentiate


def flag_of(name: str) -> str:
    """``env_kwargs`` to ``--env-kwargs``."""
    return f"--{name.replace('_', '-')}"


def choose_device(name: str) -> torch.device:
    """The torch device that is meant.

    Raises:
        RequestError: CUDA is asked for and torch sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise RequestError("torch sees no CUDA device here: use --device cpu (or auto)")
    return torch.device(name)


def load_policy(path: Path, settings: Any, env: Any) -> Any:
    """The policy of a checkpoint, for this environment.

    Raises:
        RequestError: the environment's spaces are not those that the policy was trained for.
    """
    import torch

    from pgtoolkit.policies.factory import make_policy
    from pgtoolkit.training.checkpoint import load_checkpoint

    saved = load_checkpoint(path)["agent"]["actor"]["policy"]
    spaces = env.single_observation_space, env.single_action_space
    policy = make_policy(settings.agent, *spaces, torch.Generator())
    fresh = policy.state_dict()
    same = {k: v.shape for k, v in saved.items()} == {k: v.shape for k, v in fresh.items()}
    bounds = [key for key in ("low", "high") if key in fresh]
    if not same or any(not torch.equal(saved[key], fresh[key]) for key in bounds):
        raise RequestError(
            f"the policy in {path} was trained for other spaces than this environment's "
            f"({one_line(spaces[0])} to {one_line(spaces[1])}), or its config.yaml was edited: "
            "evaluate it on an environment with its own spaces"
        )
    policy.load_state_dict(saved)
    return policy
