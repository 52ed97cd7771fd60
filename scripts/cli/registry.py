"""The names of commands, agents and environments. Nothing here imports torch."""

import difflib
import importlib
from typing import Any

from pgtoolkit.errors import RequestError

COMMANDS = {
    "train": "train an agent on an environment",
    "resume": "go on with a run, or lengthen it",
    "evaluate": "run a trained policy and report its returns",
    "variance": "measure the gradient estimators, and say which to use up to which horizon",
    "check-env": "say what is right and wrong with an environment and its gradient",
    "benchmark": "time us and others on the same work, side by side",
    "list": "name the agents, environments, estimators and wrappers",
}

AGENTS = {
    "reinforce": ("pgtoolkit.agents.reinforce", "Reinforce"),
    "ppo": ("pgtoolkit.agents.ppo", "Ppo"),
    "apg": ("pgtoolkit.agents.apg", "Apg"),
    "shac": ("pgtoolkit.agents.shac", "Shac"),
}

BENCHMARKS = {
    "pathwise": (
        "pgtoolkit.scripts.benchmarks.pathwise",
        "gradients through 32 steps of the Pendulum, and a step of Adam",
    ),
    "ppo-gym": (
        "pgtoolkit.scripts.benchmarks.ppo",
        "PPO on Gymnasium's Pendulum-v1 and CartPole-v1",
    ),
    "ppo-native": (
        "pgtoolkit.scripts.benchmarks.ppo_native",
        "PPO on our batched Pendulum, 1024 environments",
    ),
    "env-step": (
        "pgtoolkit.scripts.benchmarks.env_step",
        "steps of 1024 Pendulums and CartPoles, actions given",
    ),
    "diagnostics": (
        "pgtoolkit.scripts.benchmarks.diagnostics",
        "what exact statistics of every trajectory's gradient cost",
    ),
    "solve": (
        "pgtoolkit.scripts.benchmarks.solve",
        "CPU seconds of training to a return of -200 on Pendulum-v1",
    ),
    "start": (
        "pgtoolkit.scripts.benchmarks.start",
        "the first answer of a command, and the import",
    ),
    "scale": (
        "pgtoolkit.scripts.benchmarks.scale",
        "cost and memory of a gradient, by environments and horizon",
    ),
}

WRAPPERS = {
    "ActionRepeat": "pgtoolkit.envs.wrappers.action_repeat",
    "GradientGate": "pgtoolkit.envs.wrappers.gradient_gate",
    "ObservationDetach": "pgtoolkit.envs.wrappers.observation_detach",
    "SmoothingBundle": "pgtoolkit.envs.wrappers.smoothing_bundle",
    "SurrogateCost": "pgtoolkit.envs.wrappers.surrogate_cost",
}

WRAPPER_NOTES = {
    "ActionRepeat": "each action for several steps; rewards are summed",
    "GradientGate": "clips and decays the state's gradient, drops what is not finite, and counts",
    "ObservationDetach": "no gradient from observations to the policy",
    "SmoothingBundle": "derivatives averaged over perturbed branches",
    "SurrogateCost": "the true reward, with the gradient of a differentiable cost",
}

AGENT_NOTES = {
    "reinforce": "score function; any environment; baseline and advantage by flag",
    "ppo": "clipped score function, several epochs a window; any environment",
    "apg": "pathwise through a window of a differentiable environment",
    "shac": "pathwise through a window, with a value function beyond it",
}

ESTIMATOR_NOTES = {
    "score_function": "REINFORCE, log-derivative: needs nothing of the environment",
    "pathwise": "reparameterisation: needs a differentiable environment",
    "mixed": "both on the same trajectories, by weights of least variance (shac, apg)",
}

EXPECTATION_NOTES = {
    "measure_valued": "pgtoolkit.expectation: a difference of two expectations; Gaussian",
    "rebar": "pgtoolkit.expectation: discrete; unbiased",
    "straight_through": "pgtoolkit.expectation: discrete; biased",
    "gumbel_softmax": "pgtoolkit.expectation: discrete; biased, its value too",
}


def load_agent(name: str) -> tuple[type[Any], type[Any]]:
    """An agent's class and its configuration's.

    Raises:
        RequestError: there is no such agent.
    """
    module_name, class_name = AGENTS[known(name, AGENTS, "agent")]
    module = importlib.import_module(module_name)
    return getattr(module, class_name), getattr(module, f"{class_name}Config")


def known(name: str, table: dict[str, Any], what: str) -> str:
    """The name, if the table has it.

    Raises:
        RequestError: it has not; says what it has, the likeliest first.
    """
    if name in table:
        return name
    close = difflib.get_close_matches(name, table, n=1)
    hint = f"did you mean `{close[0]}`? " if close else ""
    raise RequestError(f"there is no {what} named {name!r}: {hint}known: {', '.join(table)}")
