"""Rows of a comparison: one agent on one environment, over its seeds."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from pgtoolkit.scripts.cli.files import number_or_null
from pgtoolkit.scripts.comparison.curves import Curve, band
from pgtoolkit.scripts.comparison.plan import PlannedRun, env_label
from pgtoolkit.scripts.comparison.results import RunResult, read_result
from pgtoolkit.scripts.comparison.statistics import (
    Interval,
    bootstrap_generator,
    bootstrap_interval,
    interquartile_mean,
)


@final
@dataclasses.dataclass(frozen=True)
class Row:
    """The complete runs of one agent on one environment."""

    label: str
    agent: str
    env: str
    observation_size: int
    action_size: int
    total_steps: int
    """Environment steps that were asked for; a run has as many whole windows as fit."""
    settings: Mapping[str, Any]
    """All settings of the run with the first seed, but for the seed."""
    runs: Sequence[RunResult]
    """One for each seed, in order; at least one."""

    @property
    def final_returns(self) -> list[float]:
        """Of each seed, the mean return of its final evaluation."""
        return [run.final_return for run in self.runs]

    @property
    def iqm(self) -> float:
        return float(interquartile_mean(np.array(self.final_returns)))

    @property
    def interval(self) -> Interval:
        """95 % bootstrap interval of the interquartile mean over seeds."""
        return bootstrap_interval(np.array(self.final_returns), bootstrap_generator())

    def as_dict(self) -> dict[str, Any]:
        """The row in the JSON file."""
        returns = self.final_returns
        return {
            "agent": self.label,
            "algorithm": self.agent,
            "env": self.env,
            "observation_size": self.observation_size,
            "action_size": self.action_size,
            "total_steps": self.total_steps,
            "seeds": [run.seed for run in self.runs],
            "returns": returns,
            "mean": float(np.mean(returns)),
            "iqm": self.iqm,
            "iqm_low": number_or_null(self.interval.low),
            "iqm_high": number_or_null(self.interval.high),
            "least": min(returns),
            "greatest": max(returns),
            "episodes": len(self.runs[0].returns),
            "steps": [run.steps for run in self.runs],
            "cpu_seconds": [run.cpu_seconds for run in self.runs],
            "versions": self.runs[0].versions,
            "curves": self._curves(),
            "settings": dict(self.settings),
            "runs": [dataclasses.asdict(run) for run in self.runs],
        }

    def _curves(self) -> dict[str, Any]:
        """Statistics of the evaluations while training, over steps and over CPU seconds."""
        steps = [run.over_steps for run in self.runs]
        seconds = [run.over_cpu_seconds for run in self.runs]
        return {"steps": _band_of(steps), "cpu_seconds": _band_of(seconds)}


def _band_of(curves: Sequence[Curve | None]) -> dict[str, list[float | None]] | None:
    """The statistics of curves; None unless each seed has one."""
    found = [curve for curve in curves if curve is not None and len(curve.x) > 0]
    return band(found).as_dict() if len(found) == len(curves) else None


def rows_of(complete: Sequence[PlannedRun], sizes: Mapping[str, tuple[int, int]]) -> list[Row]:
    """The rows of the complete runs, ordered by environment and agent as these were named.

    Args:
        complete: the runs.
        sizes: environment to its numbers of observations and actions.
    """
    groups: dict[tuple[str, str], list[PlannedRun]] = {}
    for run in complete:
        groups.setdefault((run.env, run.variant.label), []).append(run)
    rows = []
    for (env, label), runs in groups.items():
        runs.sort(key=lambda run: run.seed)
        rows.append(
            Row(
                label=label,
                agent=runs[0].variant.agent,
                env=env_label(env),
                observation_size=sizes[env][0],
                action_size=sizes[env][1],
                total_steps=runs[0].settings.loop.total_steps,
                settings=settings_without_seed(runs[0]),
                runs=[read_result(run) for run in runs],
            )
        )
    return rows


def settings_without_seed(run: PlannedRun) -> dict[str, Any]:
    """All settings of a run that its other seeds share."""
    return {key: value for key, value in run.settings.as_dict().items() if key != "seed"}
