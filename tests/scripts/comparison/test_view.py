"""What a comparison says of the time that it takes."""

import json
from pathlib import Path

import pytest

from pgtoolkit.scripts.comparison.plan import PlannedRun, plan_runs
from pgtoolkit.scripts.comparison.variants import parse_variants
from pgtoolkit.scripts.comparison.view import ComparisonView


@pytest.fixture
def runs(tmp_path: Path) -> list[PlannedRun]:
    """Four runs of 1,000 steps; the first one is complete."""
    common = {"total_steps": 1000}
    variants = parse_variants(["ppo"], [])
    found = plan_runs(
        variants, ["Pendulum-v1"], range(4), common=common, root=tmp_path, final_episodes=1
    )
    end(found[0])
    return found


def end(run: PlannedRun) -> None:
    run.path.mkdir(exist_ok=True)
    content = {"episodes": 1, "seed": run.final_seed, "returns": [1.0], "mean_return": 1.0}
    run.evaluation_file.write_text(json.dumps(content))


def said(runs: list[PlannedRun], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said until the second run has ended, after 60 s and 500 steps of the third one."""
    now = 100.0
    view = ComparisonView(runs, lambda: now)
    view.begin(2)
    view.complete(runs[0])
    view.advance(1000, 1, 2, 0)
    now += 60
    end(runs[1])
    view.complete(runs[1])
    view.advance(2500, 2, 1, 0)
    return capsys.readouterr().out


def test_the_time_left_follows_from_the_steps_so_far(
    runs: list[PlannedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    """1,500 of 3,000 steps have taken 60 s. Those of the run that was complete took no time."""
    text = said(runs, capsys)
    assert text.startswith("4 runs, 1 of them complete; at most 2 at a time\n")
    assert text.count("about 0:01:00 left if the others are as fast") == 1


def test_half_a_run_gives_no_estimate(
    runs: list[PlannedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    """How many of its steps took time in this call is not known."""
    runs[2].path.mkdir()
    assert " left" not in said(runs, capsys)
