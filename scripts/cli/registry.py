"""Tables of the commands, agents, benchmarks, wrappers and estimators. Imports no torch."""

import difflib
import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar, final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.own_agents import load_own_agent, names_own_agent

T = TypeVar("T")


@final
class LazyClass(NamedTuple):
    """A class that is imported only when it is used."""

    module: str
    name: str
    note: str
    """Description shown by ``pgtoolkit list``."""


@final
class Benchmark(NamedTuple):
    """A benchmark that is imported only when it runs."""

    module: str
    """Has a function that returns cases, or ``rows(repeats) -> list[Row]``, or both."""
    note: str
    """Description shown by ``pgtoolkit benchmark --list``."""
    cases: str = "cases"
    """Name of the module's function ``() -> list[Case]``."""


COMMANDS = {
    "train": "train an agent on an environment",
    "resume": "continue a stopped run, or extend a finished one",
    "evaluate": "run a trained policy and report its returns",
    "variance": "measure the gradient estimators, and advise which to use up to which horizon",
    "compare": "train agents on environments with several seeds, and compare their returns",
    "tune": "search an agent's settings for the greatest mean return over seeds",
    "plot": "draw the returns of runs, and the variance and bias of their gradients",
    "report": "write one HTML page about runs: returns, gradients, diagnosis, settings",
    "export": "write a policy as .onnx or .pt2, for programs without this package",
    "explain": "take a fault of a run again, and name where it began",
    "check-env": "check an environment and its gradient, and report what is wrong",
    "benchmark": "time this package and others on the same work, side by side",
    "list": "list the agents, environments, estimators and wrappers",
    "completion": "print what completes commands and options in bash or zsh",
}

AGENTS = {
    "reinforce": LazyClass(
        "pgtoolkit.agents.reinforce",
        "Reinforce",
        "score function; any environment; baseline and advantage by flag",
    ),
    "ppo": LazyClass(
        "pgtoolkit.agents.ppo",
        "Ppo",
        "clipped score function, several epochs a window; any environment",
    ),
    "a2c": LazyClass(
        "pgtoolkit.agents.a2c",
        "A2c",
        "score function with a learned value, one joint step a window; any environment",
    ),
    "npg": LazyClass(
        "pgtoolkit.agents.npg",
        "Npg",
        "score function along the natural gradient, steps of fixed KL; any environment",
    ),
    "trpo": LazyClass(
        "pgtoolkit.agents.trpo",
        "Trpo",
        "natural steps, shortened until they improve within a bound on the KL; any environment",
    ),
    "reppo": LazyClass(
        "pgtoolkit.agents.reppo",
        "Reppo",
        "pathwise through a learned Q, on-policy with a bound on the KL; continuous actions",
    ),
    "sac": LazyClass(
        "pgtoolkit.agents.sac",
        "Sac",
        "slope of two soft Q functions on replayed steps; any environment with a box of actions",
    ),
    "td3": LazyClass(
        "pgtoolkit.agents.td3",
        "Td3",
        "slope of the first of two Q functions, delayed; any environment with a bounded box",
    ),
    "apg": LazyClass(
        "pgtoolkit.agents.apg",
        "Apg",
        "pathwise through a window of a differentiable environment",
    ),
    "shac": LazyClass(
        "pgtoolkit.agents.shac",
        "Shac",
        "pathwise through a window, with a value function beyond it",
    ),
    "sapo": LazyClass(
        "pgtoolkit.agents.sapo",
        "Sapo",
        "shac with the policy's entropy along the path, a learned weight of it, and two values",
    ),
    "ahac": LazyClass(
        "pgtoolkit.agents.ahac",
        "Ahac",
        "shac whose horizon grows until the adjoint does, with two values",
    ),
    "rpo": LazyClass(
        "pgtoolkit.agents.rpo",
        "Rpo",
        "shac with several steps on the action gradients of each window, near the old policy",
    ),
    "svg": LazyClass(
        "pgtoolkit.agents.svg",
        "Svg",
        "pathwise through a learned Q or a learned model, from replay; any continuous actions",
    ),
}

TRACKERS = {
    "wandb": LazyClass(
        "pgtoolkit.training.trackers.wandb", "WandbTracker", "Weights & Biases, also offline"
    ),
    "trackio": LazyClass(
        "pgtoolkit.training.trackers.trackio", "TrackioTracker", "a local database, or a Space"
    ),
    "mlflow": LazyClass(
        "pgtoolkit.training.trackers.mlflow", "MlflowTracker", "a local file, or a server"
    ),
}

OTHER_ALGORITHMS = frozenset(
    (
        "acer",
        "acktr",
        "ars",
        "c51",
        "cem",
        "crossq",
        "ddpg",
        "dqn",
        "dreamer",
        "droq",
        "impala",
        "mpo",
        "muzero",
        "ppg",
        "qrdqn",
        "rainbow",
        "redq",
        "spo",
        "tqc",
        "vmpo",
        "vpg",
    )
)
"""Algorithms of the field. Such a name is not a misspelling of an agent, however close it is."""

BENCHMARKS = {
    "pathwise": Benchmark(
        "pgtoolkit.scripts.benchmarks.pathwise",
        "pathwise gradient through 32 steps of Pendulum, and a step of Adam",
    ),
    "ppo-gym": Benchmark(
        "pgtoolkit.scripts.benchmarks.ppo",
        "PPO on Gymnasium's Pendulum-v1 and CartPole-v1",
        "gymnasium_cases",
    ),
    "ppo-native": Benchmark(
        "pgtoolkit.scripts.benchmarks.ppo",
        "PPO on this package's batched Pendulum, 1024 environments",
        "native_cases",
    ),
    "reppo": Benchmark(
        "pgtoolkit.scripts.benchmarks.reppo",
        "REPPO on Gymnasium's Pendulum-v1, against this package's PPO of equal width and epochs",
    ),
    "sac": Benchmark(
        "pgtoolkit.scripts.benchmarks.off_policy",
        "SAC on Gymnasium's Pendulum-v1 and HalfCheetah-v5, a gradient step for each step",
        "sac_cases",
    ),
    "td3": Benchmark(
        "pgtoolkit.scripts.benchmarks.off_policy",
        "TD3 on Gymnasium's Pendulum-v1 and HalfCheetah-v5, a gradient step for each step",
        "td3_cases",
    ),
    "env-step": Benchmark(
        "pgtoolkit.scripts.benchmarks.env_step",
        "steps of 1024 Pendulums and CartPoles with given actions",
    ),
    "diagnostics": Benchmark(
        "pgtoolkit.scripts.benchmarks.diagnostics",
        "cost of the exact statistics of every trajectory's gradient",
    ),
    "solve": Benchmark(
        "pgtoolkit.scripts.benchmarks.solve",
        "CPU seconds of training until Pendulum-v1 reaches a return of -200",
    ),
    "writing": Benchmark(
        "pgtoolkit.scripts.benchmarks.writing",
        "share of a training's CPU time that its TensorBoard file takes",
    ),
    "start": Benchmark(
        "pgtoolkit.scripts.benchmarks.start",
        "time until a command answers, and time of the import",
    ),
    "scale": Benchmark(
        "pgtoolkit.scripts.benchmarks.scale",
        "cost and memory of a gradient against number of environments and horizon",
    ),
    "parallel": Benchmark(
        "pgtoolkit.scripts.benchmarks.parallel",
        "speed of one run of two processes, each on a core, against that of one process",
    ),
}

WRAPPERS = {
    "ActionRepeat": LazyClass(
        "pgtoolkit.envs.wrappers.action_repeat",
        "ActionRepeat",
        "repeats each action for several steps and sums their rewards",
    ),
    "GradientGate": LazyClass(
        "pgtoolkit.envs.wrappers.gradient_gate",
        "GradientGate",
        "clips and decays the state's gradient, drops non-finite ones and counts them",
    ),
    "ObservationDetach": LazyClass(
        "pgtoolkit.envs.wrappers.observation_detach",
        "ObservationDetach",
        "passes no gradient from observations to the policy",
    ),
    "SmoothingBundle": LazyClass(
        "pgtoolkit.envs.wrappers.smoothing_bundle",
        "SmoothingBundle",
        "averages derivatives over perturbed copies of each step",
    ),
    "SurrogateCost": LazyClass(
        "pgtoolkit.envs.wrappers.surrogate_cost",
        "SurrogateCost",
        "keeps the true reward and takes the gradient of a differentiable cost",
    ),
}

EXPECTATION_NOTES = {
    "measure_valued": "pgtoolkit.expectation: a difference of two expectations; Gaussian",
    "rebar": "pgtoolkit.expectation: discrete; unbiased",
    "straight_through": "pgtoolkit.expectation: discrete; biased",
    "gumbel_softmax": "pgtoolkit.expectation: discrete; biased, its value too",
}


def require_agent(name: str) -> None:
    """Raises on a name that cannot be an agent's. Own classes are looked up when they are loaded.

    Raises:
        RequestError: there is no such agent.
    """
    if not names_own_agent(name):
        find_agent(name)


def find_agent(name: str) -> LazyClass:
    """The table's entry of an agent.

    Raises:
        RequestError: there is no such agent; a misspelt name gets a suggestion.
    """
    if name not in AGENTS and name.lower() in OTHER_ALGORITHMS:
        raise RequestError(f"this package has no agent {name}: known: {', '.join(AGENTS)}")
    return lookup(name, AGENTS, "agent")


def load_agent(name: str) -> tuple[type[Any], type[Any]]:
    """An agent's class and its configuration's class.

    Args:
        name: of the table, or ``path/to/file.py:Class``, or ``module:Class``.

    Raises:
        RequestError: there is no such agent, or the class is none.
    """
    if names_own_agent(name):
        return load_own_agent(name)
    agent = find_agent(name)
    module = importlib.import_module(agent.module)
    return getattr(module, agent.name), getattr(module, f"{agent.name}Config")


def registered_env_ids() -> list[str]:
    """Gymnasium ids of this package's own environments."""
    import gymnasium

    import pgtoolkit.envs  # noqa: F401  # registers its environments

    return [name for name, spec in gymnasium.registry.items() if spec.namespace == "pgtoolkit"]


def lookup(name: str, table: Mapping[str, T], what: str) -> T:
    """The table's entry of this name.

    Args:
        name: the name that the user gave.
        table: ``{name: entry}``.
        what: the kind of entry, in the singular, for the error message.

    Raises:
        RequestError: there is no such entry; the message suggests the closest name and lists all.
    """
    if name in table:
        return table[name]
    written = {each.lower(): each for each in table}
    close = difflib.get_close_matches(name.lower(), written, n=1)
    hint = f"did you mean `{written[close[0]]}`? " if close else ""
    raise RequestError(f"there is no {what} named {name!r}: {hint}known: {', '.join(table)}")
