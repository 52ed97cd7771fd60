"""Runs that are one experiment: equal agent, environment and settings, and different seeds."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.formatting import join_names
from pgtoolkit.scripts.cli.own_agents import short_name
from pgtoolkit.scripts.cli.trust import SIGNATURE
from pgtoolkit.scripts.comparison.plan import env_label
from pgtoolkit.scripts.comparison.scalars import (
    CPU_SECONDS,
    EVALUATION,
    Scalars,
    read_scalars,
)
from pgtoolkit.training.run_folder import GIVEN, RunFolder
from pgtoolkit.training.storage.files import excerpt

if TYPE_CHECKING:
    from pgtoolkit.scripts.comparison.results import RunResult
    from pgtoolkit.scripts.comparison.rows import Row

NOT_SETTINGS = ("seed", "versions", GIVEN, SIGNATURE)
"""Keys of ``config.yaml`` in which runs of one experiment may differ."""

NOT_LEARNING = (
    "eval_interval",
    "eval_episodes",
    "capture_video",
    "checkpoint_interval",
    "keep_checkpoints",
    "checkpoint_minutes",
    "log_interval",
    "track",
    "track_project",
)
"""Settings that say how often a run is looked at and saved, and change nothing that it learns."""

LOG = logging.getLogger("pgtoolkit")

MAX_SHOWN_DIFFERENCES = 3

Config = Mapping[str, Any]


@final
@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one experiment with their scalars."""

    label: str
    env: str
    runs: Sequence[Scalars]


def read_groups(paths: Sequence[str]) -> list[Group]:
    """The groups of these runs, in the order of their first runs.

    A group's label is its agent; settings in which two groups of an agent and an environment differ
    are added to it.

    Raises:
        RequestError: there is no run in a folder, two runs of a group have the same seed, or no run
            has a scalar.
    """
    members = members_of(paths)
    configs = [found[0][1] for found in members]
    return [
        Group(label_of(config, configs), env_of(config), [read_scalars(path) for path, _ in found])
        for config, found in zip(configs, members, strict=True)
    ]


def members_of(paths: Sequence[str]) -> list[list[tuple[Path, Config]]]:
    """Folder and configuration of the runs of each group, in the order of their first runs.

    Raises:
        RequestError: there is no run in a folder, or two runs of a group have the same seed.
    """
    members: dict[str, list[tuple[Path, Config]]] = {}
    for folder, config in opened(paths):
        key = json.dumps(learning_settings(config), sort_keys=True, default=str)
        members.setdefault(key, []).append((folder.path, config))
    for found in members.values():
        require_different_seeds(found)
    return list(members.values())


def opened(paths: Sequence[str]) -> list[tuple[RunFolder, Config]]:
    """The runs that are meant, with their configurations.

    A folder that is no run stands for all runs below it, at any depth, such as the folder of a
    comparison or of a search. One without any, such as that of the logs there, is left out with a
    warning if another one has some.

    Raises:
        RequestError: there is no such folder, a run cannot be read, or there is no run at all.
    """
    found = {path: runs_below(path) for path in dict.fromkeys(paths)}
    runs = {run: None for below in found.values() for run in below}
    empty = [path for path, below in found.items() if not below]
    if empty and not runs:
        RunFolder.open(empty[0])  # says what is missing
    for path in empty:
        LOG.warning("%s holds no run: it is left out", excerpt(path))
    return [RunFolder.open(run) for run in runs]


def runs_below(path: str) -> list[Path]:
    """The folder itself if it is a run's or is not there, else those of the runs below it."""
    folder = RunFolder(Path(path))
    if not path or folder.config_file.exists() or not folder.path.is_dir():
        return [RunFolder.open(path)[0].path]
    files = sorted(folder.path.rglob(folder.config_file.name))
    return [file.parent for file in files if file.is_file()]


def group_of(row: "Row") -> Group:
    """The group of a row of a comparison, with the curves that it has kept."""
    return Group(row.label, row.env, [scalars_of(run) for run in row.runs])


def scalars_of(run: "RunResult") -> Scalars:
    """The evaluations of a run, as its events hold them."""
    steps = [int(step) for step in run.curve_steps]
    found = {EVALUATION: (steps, run.curve_returns)}
    if run.curve_cpu_seconds is not None:
        found[CPU_SECONDS] = (steps, run.curve_cpu_seconds)
    return found


def settings_of(config: Config) -> dict[str, Any]:
    """The settings of a run."""
    return {name: value for name, value in config.items() if name not in NOT_SETTINGS}


def learning_settings(config: Config) -> dict[str, Any]:
    """Those of :func:`settings_of` on which it depends what is learned."""
    return {k: value for k, value in settings_of(config).items() if k not in NOT_LEARNING}


def relabelled(groups: Sequence[Group], labels: Sequence[str]) -> list[Group]:
    """The groups with these names in the place of their own.

    Args:
        groups: with names of their own, of which groups of several environments may share one.
        labels: a new name for each different one, in the order in which they first occur.

    Raises:
        RequestError: there are more or fewer names than that.
    """
    own = list(dict.fromkeys(group.label for group in groups))
    if len(labels) != len(own):
        raise RequestError(
            f"--labels has {len(labels)} names for {len(own)} lines: one each, in this order, for "
            f"{join_names(own)}"
        )
    names = dict(zip(own, labels, strict=True))
    return [dataclasses.replace(group, label=names[group.label]) for group in groups]


def require_different_seeds(runs: Sequence[tuple[Path, Config]]) -> None:
    """Raises if two runs of a group have the same seed: they are the same run twice.

    Raises:
        RequestError: names both.
    """
    seen: dict[Any, Path] = {}
    for path, config in runs:
        seed = config.get("seed")
        if seed in seen:
            raise RequestError(
                f"{seen[seed]} and {path} have the same settings and the same seed, {seed}: a "
                "statistic over seeds would count it twice; leave one of them out"
            )
        seen[seed] = path


def env_of(config: Config) -> str:
    """The environment of a training run; the data of variational inference."""
    return env_label(str(config["env"])) if "env" in config else "variational inference"


def label_of(config: Config, others: Sequence[Config]) -> str:
    """The agent's name, with the settings in which it differs from other groups of that agent.

    Args:
        config: of a run of the group.
        others: one configuration of each group; of the group itself too.
    """
    name = name_of(config)
    rivals = [c for c in others if name_of(c) == name and env_of(c) == env_of(config)]
    different = [
        f"{key}={value}"
        for key, value in learning_settings(config).items()
        if any(rival.get(key) != value for rival in rivals)
    ]
    shown = different[:MAX_SHOWN_DIFFERENCES]
    shown += ["..."] if len(different) > len(shown) else []
    return ":".join((name, ",".join(shown))) if shown else name


def name_of(config: Config) -> str:
    """The agent of a training run; estimator and family of variational inference."""
    if "agent" in config:
        return short_name(str(config["agent"]))
    return f"{config.get('estimator')}, {config.get('family')} covariance".replace("_", " ")
