"""The facts that are told of a run while it trains."""

import json
import math
from collections import deque

import pytest

from pgtoolkit.scripts.cli.display.pace import Pace
from pgtoolkit.scripts.cli.display.training_status import (
    NO_RETURN,
    TrainingStatus,
    facts,
    plain_line,
    time_text,
)
from pgtoolkit.training.progress import Progress


def pace(steps: int, seconds: float) -> Pace:
    """That of a run which took so long for so many steps, after its first update."""
    times = iter([0.0, 0.0, seconds / 2, seconds])
    found = Pace(0, lambda: next(times))
    for done in (0, steps // 2, steps):
        found.mark(done)
    return found


def measured() -> Progress:
    """A run with every fact: return, evaluation, measurement and a finding."""
    progress = Progress(num_steps=2000, num_updates=2, window_steps=1000, eval_return=-20.0)
    progress.returns.append(-12.34)
    for step in range(20):
        progress.diagnosis.observe({"train/saturated_actions": 0.75}, step)
    measurement = {"gradient/pathwise/followed": 1.0, "gradient/pathwise/variance": 1234.0}
    measurement["gradient/pathwise/signal"] = 0.0123 * 1234
    progress.diagnosis.observe(measurement, 20)
    progress.scalars |= measurement
    return progress


def test_the_facts_stand_in_the_order_of_their_weight() -> None:
    status = TrainingStatus.of(measured(), 8000, pace(2000, 4.0))
    assert facts(status) == [
        "0:00:12",
        "500 steps/s",
        "return -12.3",
        "SNR 0.012",
        "! 75% of actions saturated",
        "evaluation -20.0",
        "pathwise variance 1,230",
    ]


def test_a_plain_line_has_the_same_facts() -> None:
    status = TrainingStatus.of(measured(), 8000, pace(2000, 4.0))
    assert plain_line(status) == (
        "2000/8000 steps  25%  0:00:12 left  500 steps/s  return -12.3  SNR 0.012  "
        "! 75% of actions saturated  evaluation -20.0  pathwise variance 1,230"
    )


def test_what_is_not_known_is_left_out() -> None:
    """Before the first update, and after it while no episode has ended."""
    begun = TrainingStatus.of(Progress(), 8000, Pace())
    assert facts(begun) == ["-:--:--"] and begun.share == 0
    status = TrainingStatus.of(Progress(num_updates=1, num_steps=10), 8000, pace(10, 2.0))
    assert facts(status)[1:] == ["5 steps/s", NO_RETURN]
    known = Progress(num_updates=1, num_steps=10, returns=deque([3.0]))
    assert facts(TrainingStatus.of(known, 8000, pace(10, 2.0)))[2:] == ["return 3.0"]


def test_a_run_of_less_than_one_window_ends_at_the_windows_steps() -> None:
    """One window is trained at least, and the line does not say 2048/100."""
    progress = Progress(num_steps=2048, num_updates=1, window_steps=2048)
    status = TrainingStatus.of(progress, 100, pace(2048, 1.0))
    assert plain_line(status).startswith("2048/2048 steps  100%  0:00:00 left")


def test_a_run_that_ends_before_its_total_is_complete_and_names_the_total() -> None:
    progress = Progress(num_steps=4096, num_updates=2, window_steps=2048)
    status = TrainingStatus.of(progress, 5000, pace(4096, 1.0))
    assert plain_line(status).startswith("4096/5000 steps  100%  0:00:00 left")


def test_json_holds_every_fact_and_no_nan() -> None:
    progress = measured()
    progress.scalars["gradient/pathwise/variance"] = math.nan
    found = json.loads(
        json.dumps(TrainingStatus.of(progress, 8000, pace(2000, 4.0)).as_json(), allow_nan=False)
    )
    assert found["variances"] == {"pathwise": None} and found["snr"] == pytest.approx(0.0123)
    assert (found["step"], found["seconds_left"], found["steps_per_second"]) == (2000, 12, 500)
    assert (found["mean_return"], found["eval_return"]) == (-12.34, -20)
    assert found["alarm"] == "! 75% of actions saturated" and found["estimator"] == "pathwise"


def test_the_snr_is_that_of_the_last_five_measurements() -> None:
    """A running mean would show the signal of long ago, which was a thousand times as large."""
    progress = Progress(num_updates=6, num_steps=60)
    progress.scalars["gradient/pathwise/snr"] = 0.078
    for step, signal in enumerate((1000.0, 1.0, -1.0, 1.0, -1.0, -1.0)):
        row = {"gradient/pathwise/variance": 100.0, "gradient/pathwise/signal": signal}
        progress.diagnosis.observe(row, step)
    assert TrainingStatus.of(progress, 8000, Pace()).snr == pytest.approx(-1 / 500)


def test_times_are_hours_minutes_and_seconds() -> None:
    assert time_text(3723.4) == "1:02:03"
    assert time_text(59.7) == "0:01:00"
    assert time_text(None) == "-:--:--"
