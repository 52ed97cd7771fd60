"""Small runs for the commands that try to break runs: one of every agent, and of the adapters."""

import dataclasses
from pathlib import Path
from typing import Any, final

from pgtoolkit.config import CriticSettings
from pgtoolkit.scripts.cli.arguments import flags_of
from pgtoolkit.scripts.cli.registry import AGENTS, load_agent

WINDOW = 16
"""Environment steps of an update."""

SIZES: dict[str, Any] = {
    "num_envs": 4,
    "n_steps": 4,
    "hidden": [4],
    "compile": "never",
    "diagnostics_interval": 1,
    "batch_size": 8,
    "n_epochs": 1,
    "learning_starts": 8,
    "buffer_size": 24,
}
"""Settings of the agents that have them."""

LOOP: dict[str, Any] = {
    "total_steps": 3 * WINDOW,
    "eval_interval": WINDOW,
    "eval_episodes": 2,
    "eval_max_steps": 6,
    "checkpoint_interval": WINDOW,
}

MODEL = (
    '{"ensemble_size": 2, "hidden": [4], "batch_size": 8, "initial_steps": 24, '
    '"initial_fit_steps": 2, "fit_steps": 1, "capacity": 200}'
)


@final
@dataclasses.dataclass(frozen=True)
class SmallRun:
    """A run of a second or less."""

    name: str
    agent: str
    settings: dict[str, Any]

    def arguments(self, folder: Path) -> list[str]:
        """The arguments of ``pgtoolkit train``."""
        known = {field.name for field in dataclasses.fields(load_agent(self.agent)[1])}
        sizes = {key: value for key, value in SIZES.items() if key in known}
        flags = flags_of(LOOP | sizes | self.settings)
        return [self.agent, *flags, "--run-dir", str(folder)]


def small_runs() -> list[SmallRun]:
    """One run of every agent, with a gradient where the agent needs one, and of two adapters."""
    runs = []
    for name in AGENTS:
        agent, config = load_agent(name)
        continuous = agent.needs_gradient or issubclass(config, CriticSettings)
        env = "pgtoolkit/PointMass-v0" if continuous else "CartPole-v1"
        runs.append(SmallRun(name, name, {"env": env, "normalize_rewards": True}))
    differences = {"env": "Pendulum-v1", "differentiate": "finite-difference"}
    model = {"env": "Pendulum-v1", "differentiate": "model", "adapter_kwargs": MODEL}
    return [
        *runs,
        SmallRun("apg finite-difference", "apg", differences),
        SmallRun("shac model", "shac", model),
    ]
