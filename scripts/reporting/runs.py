"""Runs of a report: scalars, settings, diagnosis and versions, in groups of one experiment."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.scripts.cli.experiment import RunConfig, default_settings, defaults_of
from pgtoolkit.scripts.cli.own_agents import names_own_agent
from pgtoolkit.scripts.comparison.groups import (
    Config,
    env_of,
    label_of,
    members_of,
    settings_of,
)
from pgtoolkit.scripts.comparison.scalars import Scalars, read_scalars
from pgtoolkit.training.diagnosis import NOTHING
from pgtoolkit.training.loop import TrainConfig
from pgtoolkit.training.run_folder import GIVEN, RunFolder
from pgtoolkit.training.storage.files import read_regular

MAX_SUMMARY_BYTES = 16 * 1024**2

NOT_DIFFERENT = ("eval_episodes", "eval_max_steps")
"""Settings whose default depends on the environment, so that no value of theirs is unusual."""


@final
@dataclasses.dataclass(frozen=True)
class Run:
    """One run folder."""

    path: Path
    config: Config
    scalars: Scalars
    summary: Mapping[str, Any] | None
    """The content of ``summary.json``; None for a run that has not ended."""

    @property
    def findings(self) -> list[str]:
        """The sentence of each finding of the diagnosis."""
        found = (self.summary or {}).get("diagnosis")
        rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
        return [str(row.get("sentence", "")) for row in rows]

    @property
    def gradient(self) -> str:
        """What the diagnosis says of the gradient that was followed; empty if that is not known."""
        found = (self.summary or {}).get("gradient")
        return found if isinstance(found, str) else ""

    @property
    def without_findings(self) -> str:
        """What the diagnosis says where it has no finding."""
        found = (self.summary or {}).get("without_findings")
        return found if isinstance(found, str) else NOTHING


@final
@dataclasses.dataclass(frozen=True)
class Experiment:
    """Runs with equal agent, environment and settings, and different seeds."""

    label: str
    env: str
    config: Config
    """The settings of the first run."""
    runs: Sequence[Run]

    @property
    def followed(self) -> str:
        """The estimator that the optimiser follows."""
        name = self.config.get("estimator")
        return name if isinstance(name, str) and name in CATALOGUE else "score_function"

    @property
    def settings(self) -> dict[str, Any]:
        return {str(name): value for name, value in settings_of(self.config).items()}

    @property
    def given(self) -> dict[str, Any]:
        """The settings as they were given: ``auto`` where the run has what that stands for."""
        found = self.config.get(GIVEN)
        return self.settings | (found if isinstance(found, dict) else {})

    @property
    def defaults(self) -> dict[str, Any]:
        """The defaults of the settings; none for an agent that this version does not have.

        Those of the run and the loop alone for an agent of the user's own: a report runs no code
        that a folder names.
        """
        agent = str(self.config.get("agent"))
        try:
            if names_own_agent(agent):
                return defaults_of(RunConfig, TrainConfig)
            return default_settings(agent)
        except RequestError:
            return {}


def read_experiments(paths: Sequence[str]) -> list[Experiment]:
    """The runs in these folders, in the order of their first runs.

    Raises:
        RequestError: there is no run in a folder, or two runs are the same.
    """
    members = members_of(paths)
    configs = [found[0][1] for found in members]
    return [
        Experiment(label_of(config, configs), env_of(config), config, [read_run(*m) for m in found])
        for config, found in zip(configs, members, strict=True)
    ]


def read_run(path: Path, config: Config) -> Run:
    return Run(path, config, read_scalars(path), read_summary(path))


def read_summary(path: Path) -> Mapping[str, Any] | None:
    """The content of a run's ``summary.json``; None if there is none, or if it is damaged."""
    try:
        file = RunFolder(path).summary_file
        found = json.loads(read_regular(file, inside=path, limit=MAX_SUMMARY_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def whole(value: object) -> int:
    """The value as a whole number; 0 for what is none."""
    return value if isinstance(value, int) else 0


def different_settings(experiments: Sequence[Experiment]) -> list[str]:
    """Settings of which an experiment has another value than its agent's default, or no default.

    Those without a default, such as the environment, come first, then those in which experiments
    differ.
    """
    names = dict.fromkeys(name for each in experiments for name in each.settings)
    without = [
        n for n in names if any(n in e.settings and n not in e.defaults for e in experiments)
    ]
    unusual = [
        n for n in names if n not in NOT_DIFFERENT and any(is_set(n, e) for e in experiments)
    ]
    values = {n: {json.dumps(e.settings.get(n), default=str) for e in experiments} for n in unusual}
    unusual.sort(key=lambda name: len(values[name]) == 1)
    return list(dict.fromkeys([*without, *unusual]))


def is_set(name: str, experiment: Experiment) -> bool:
    """Whether a setting of an experiment was given another value than the default."""
    defaults, given = experiment.defaults, experiment.given
    return name in defaults and name in given and given[name] != defaults[name]
