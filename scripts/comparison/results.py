"""What a complete run of a comparison has reached, read from its folder."""

import dataclasses
import json
from typing import Any, final

from pgtoolkit.scripts.comparison.curves import Curve
from pgtoolkit.scripts.comparison.plan import PlannedRun
from pgtoolkit.scripts.comparison.scalars import (
    EVALUATION,
    curve_of,
    over_cpu_seconds,
    read_scalars,
)
from pgtoolkit.scripts.comparison.stages import final_evaluation
from pgtoolkit.training.run_folder import RunFolder


@final
@dataclasses.dataclass(frozen=True)
class RunResult:
    """One seed of an agent on an environment.

    The curve is that of the evaluations while training; its last point and ``returns`` are of the
    same policy, on other starts.
    """

    seed: int
    returns: list[float]
    """Undiscounted return of each episode of the final evaluation: the last policy, deterministic,
    from starts that training has not seen."""
    cut_off: int
    """How many of these episodes were cut off after ``eval_max_steps``."""
    steps: int
    cpu_seconds: float | None
    curve_steps: list[float]
    curve_cpu_seconds: list[float] | None
    curve_returns: list[float]
    versions: dict[str, str]

    @property
    def final_return(self) -> float:
        """The mean return of the final evaluation."""
        return sum(self.returns) / len(self.returns)

    @property
    def over_steps(self) -> Curve:
        return as_curve(self.curve_steps, self.curve_returns)

    @property
    def over_cpu_seconds(self) -> Curve | None:
        seconds = self.curve_cpu_seconds
        return None if seconds is None else as_curve(seconds, self.curve_returns)


def as_curve(x: list[float], y: list[float]) -> Curve:
    import numpy as np

    return Curve(np.array(x, np.float64), np.array(y, np.float64))


def read_result(run: PlannedRun) -> RunResult:
    """The result of a complete run."""
    folder, config = RunFolder.open(run.path)
    summary = json.loads(folder.summary_file.read_text(encoding="utf-8"))
    evaluation = final_evaluation(run)
    assert evaluation is not None, "the run is complete"
    scalars = read_scalars(run.path)
    curve, timed = curve_of(scalars, EVALUATION), over_cpu_seconds(scalars, EVALUATION)
    return RunResult(
        seed=run.seed,
        returns=evaluation["returns"],
        cut_off=evaluation["cut_off"],
        steps=summary["steps"],
        cpu_seconds=summary.get("cpu_seconds"),
        curve_steps=[] if curve is None else curve.x.tolist(),
        curve_cpu_seconds=None if timed is None else timed.x.tolist(),
        curve_returns=[] if curve is None else curve.y.tolist(),
        versions=dict(config.get("versions", {})),
    )


def result_from(row: dict[str, Any]) -> RunResult:
    """A result from the entry of a JSON file, :func:`dataclasses.asdict` of one."""
    return RunResult(**row)
