"""The runs of a comparison: agents x environments x seeds, their settings and their folders."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import flags_of
from pgtoolkit.scripts.comparison.variants import Variant
from pgtoolkit.seeding import stream_seed

if TYPE_CHECKING:
    from pgtoolkit.scripts.cli.experiment import RunSettings

DIGEST_LENGTH = 10

MAX_NAME_BYTES = 100
"""A file's name has 255 bytes at most: two of these, a seed, and a digest."""


@final
@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison.

    Its folder is named by what is run and by a digest of all settings. So the same run is found
    again by a later call, and runs with other settings never meet in a folder.
    """

    variant: Variant
    env: str
    """The environment as the user named it."""
    seed: int
    settings: "RunSettings"
    given: Mapping[str, Any]
    """The settings that differ from the defaults, for the command line of ``pgtoolkit train``."""
    root: Path
    final_episodes: int
    """Deterministic episodes of the last policy, for the numbers of the table."""

    @property
    def name(self) -> str:
        text = json.dumps(self.settings.as_dict(), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
        parts = plain_name(env_label(self.env)), plain_name(self.variant.label), str(self.seed)
        return "__".join((*parts, digest))

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.root / self.name

    @property
    def evaluation_file(self) -> Path:
        """JSON of ``pgtoolkit evaluate``: the final evaluation."""
        return self.path / "evaluation.json"

    @property
    def title(self) -> str:
        """The run in words."""
        return f"{self.variant.label} on {env_label(self.env)}, seed {self.seed}"

    @property
    def final_seed(self) -> int:
        """Seed of the final evaluation's starts.

        It is a stream of its own, so that they are neither those of training nor of its
        evaluations. All agents with the same seed get the same starts.
        """
        return stream_seed(self.seed, "final evaluation")

    def train_arguments(self) -> list[str]:
        flags = flags_of(self.given)
        own = ["--preset", "none", "--run-dir", str(self.path)]  # the plan has the preset's
        return ["train", self.settings.agent_name, *flags, *own]

    def resume_arguments(self) -> list[str]:
        return ["resume", str(self.path)]

    def evaluate_arguments(self, file: Path) -> list[str]:
        flags = ["--episodes", str(self.final_episodes), "--seed", str(self.final_seed)]
        return ["evaluate", str(self.path), "--checkpoint", "last", *flags, "--json", str(file)]


def plan_runs(
    variants: Sequence[Variant],
    envs: Sequence[str],
    seeds: Sequence[int],
    *,
    common: Mapping[str, Any],
    presets: Mapping[tuple[str, str], Mapping[str, Any]] = {},
    root: Path,
    final_episodes: int,
    command: str = "compare",
) -> list[PlannedRun]:
    """All runs; seeds come last, so that a comparison that is stopped has every agent.

    Args:
        variants: the agents.
        envs: the environments.
        seeds: the seeds.
        common: settings of every run, such as ``total_steps``; those of a variant win.
        presets: settings of an agent on an environment, over which all others win.
        root: the folder of the run folders.
        final_episodes: episodes of the final evaluation.
        command: the command that is at work, for error messages.

    Raises:
        RequestError: an agent has no such setting, or a value does not fit.
    """
    from pgtoolkit.scripts.cli.experiment import settings_from_file

    runs = []
    for seed in seeds:
        for env in envs:
            for variant in variants:
                preset = presets.get((variant.agent, env), {})
                named = {**common, **variant.settings, "env": env, "seed": seed}
                given = {**preset, **named}
                settings = settings_from_file(
                    {"agent": variant.agent, **given}, [], command=command
                )
                given["env"] = settings.run.env
                runs.append(PlannedRun(variant, env, seed, settings, given, root, final_episodes))
    return runs


def require_possible(runs: Sequence[PlannedRun]) -> dict[str, tuple[int, int]]:
    """Checks each agent with each environment, before anything is trained.

    Returns:
        The environments' numbers of observations and of actions.

    Raises:
        RequestError: there is no such environment, or it lacks a gradient that the agent needs.
    """
    from pgtoolkit.scripts.cli.experiment import choose_device, env_factory_of
    from pgtoolkit.scripts.cli.registry import load_agent

    sizes = {}
    first = {(run.variant.label, run.env): run for run in reversed(runs)}
    for run in first.values():
        config, needs_gradient = run.settings.run, load_agent(run.variant.agent)[0].needs_gradient
        try:
            factory = env_factory_of(config, needs_gradient, choose_device(config.device))
            env = factory.make_for_evaluation(1)
        except RequestError as error:
            raise RequestError(f"{run.variant.label} on {run.env}: {error.with_flags}") from error
        spaces = env.single_observation_space, env.single_action_space
        sizes[run.env] = flat_size(spaces[0]), flat_size(spaces[1])
        env.close()
    return sizes


def flat_size(space: Any) -> int:
    """The number of numbers of an element of a space; of a discrete one, of its one-hot code."""
    from gymnasium.spaces.utils import flatdim

    return int(flatdim(space))


def env_label(env: str) -> str:
    """The environment's name without the folder of its file: ``file.py:Class``."""
    file, colon, name = env.rpartition(":")
    return f"{Path(file).name}{colon}{name}" if file.endswith(".py") else env


def plain_name(text: str) -> str:
    """The text as a part of a file's name."""
    plain = "".join(c if c.isalnum() or c in "-_.=" else "-" for c in text)
    return plain.encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip(".") or "-"
