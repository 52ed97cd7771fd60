import dataclasses
from pathlib import Path

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.comparison.results import RunResult
from pgtoolkit.scripts.comparison.rows import Row
from pgtoolkit.scripts.studies.suite_race import (
    is_within,
    passage,
    race,
    run,
    table,
    with_common_seeds,
)


def row(agent: str, *curves: list[float], steps: int = 1000, seconds: float = 50.0) -> Row:
    """A row of one run for each curve, which was evaluated at equal distances."""

    def result(seed: int, curve: list[float]) -> RunResult:
        shares = [(i + 1) / len(curve) for i in range(len(curve))]
        return RunResult(
            seed=seed,
            returns=[curve[-1]],
            cut_off=0,
            steps=steps,
            cpu_seconds=seconds,
            curve_steps=[steps * share for share in shares],
            curve_cpu_seconds=[seconds * share for share in shares],
            curve_returns=curve,
            versions={},
        )

    runs = [result(seed, curve) for seed, curve in enumerate(curves)]
    return Row(agent, agent, "Env-v0", 1, 1, steps, {}, runs)


def test_a_return_is_reached_at_the_first_evaluation_whose_mean_is_there() -> None:
    """Means over the two seeds are 0, 4, 3 and 9."""
    pathwise = row("shac", [0.0, 2.0, 1.0, 8.0], [0.0, 6.0, 5.0, 10.0])
    assert passage("shac", pathwise, 4.0) == ("shac", 500.0, 25.0)
    assert passage("shac", pathwise, 4.1) == ("shac", 1000.0, 50.0)
    assert passage("shac", pathwise, 9.1) is None


def test_the_leader_is_whichever_of_the_others_ends_with_more() -> None:
    """Shac needs 100 of reppo's 2,000 steps and 5 of its 100 CPU seconds; sapo needs more."""
    rows = {
        "shac": row("shac", [8.0] * 10),
        "sapo": row("sapo", [0.0, 9.0]),
        "ppo": row("ppo", [5.0]),
        "reppo": row("reppo", [0.0, 8.0], steps=2000, seconds=100.0),
    }
    found = race("Env", rows)
    assert (found.leader, found.steps, found.cpu_seconds) == ("reppo", 2000, 100.0)
    assert found.passage == ("shac", 100.0, 5.0)
    assert is_within(found)
    lines = table([found])
    assert lines[2] == "| Env | 1 | 8 | 9 | - | 5 | 8 | 112.5% | shac, after 100 | 5% | 5% |"
    assert lines[-1] == "within 20% of the steps and of the CPU time: 1 of 1"


def test_what_is_never_reached_is_said() -> None:
    found = race("Env", {"ahac": row("ahac", [1.0]), "ppo": row("ppo", [2.0])})
    assert found.passage is None and not is_within(found)
    assert table([found])[2] == "| Env | 1 | - | - | 1 | 2 | - | - | none | - | - |"


def test_only_seeds_that_every_agent_has_are_compared() -> None:
    """Seed 1 is left out, whose starts ppo has not seen; that of no agent is said."""
    rows = {"shac": row("shac", [4.0], [-9.0]), "ppo": row("ppo", [3.0])}
    common = with_common_seeds("Env", rows)
    assert [run.seed for run in common["shac"].runs] == [0]
    found = race("Env", common)
    assert (found.seeds, found.ends) == ([0], {"shac": 4.0, "ppo": 3.0})
    other = dataclasses.replace(rows["shac"], runs=rows["shac"].runs[1:])
    with pytest.raises(RequestError, match=r"shac, ppo on Env have no seed in common"):
        with_common_seeds("Env", {"shac": other, "ppo": rows["ppo"]})


def test_a_share_of_the_rise_can_count_as_being_there() -> None:
    """Ppo rises from 0 to 10; shac has 9 of that in half of its steps, and ends with 8."""
    rows = {"shac": row("shac", [9.0, 8.0]), "ppo": row("ppo", [0.0, 10.0])}
    assert race("Env", rows).passage is None
    found = race("Env", rows, 0.9)
    assert found.passage == ("shac", 500.0, 25.0)
    assert found.share_of_rise == pytest.approx(0.8)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"reproduce.py 'suite-\*' makes them"):
        run(["--results", str(tmp_path)])
