"""``scripts/reproduce.py``: its experiments, and the files and the table that it makes."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts import reproduce
from pgtoolkit.scripts.cli.experiment import default_settings, settings_from_file
from pgtoolkit.scripts.cli.main import run_command
from pgtoolkit.scripts.comparison.reproduction import (
    joined,
    reached,
    read_row,
    require_joinable,
    results_table,
    write_row,
)
from pgtoolkit.scripts.comparison.results import RunResult
from pgtoolkit.scripts.comparison.rows import Row, settings_without_seed
from pgtoolkit.scripts.tables.reproductions import EXPERIMENTS, Bar, Experiment, Published

RESULTS = Path(__file__).parents[2] / "docs" / "results"
SMALL = Experiment(
    "apg",
    "pgtoolkit/LQG-v0",
    60,
    (0, 1),
    bar=Bar(-100, "every seed", most_cpu_seconds=1000),
    published=Published("exact -1.6", "arithmetic"),
    settings={"num_envs": 2, "n_steps": 5, "hidden": [4], "eval_episodes": 2},
)


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        run_command(reproduce.run, arguments)
    return int(caught.value.code or 0)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_settings_of_every_experiment_are_those_of_its_agent(name: str) -> None:
    experiment = EXPERIMENTS[name]
    config = {"agent": experiment.agent, "env": experiment.env, **experiment.settings}
    settings = settings_from_file(config, [], command="reproduce")
    assert settings.agent_name == experiment.agent and settings.run.env == experiment.env
    given = settings.as_dict()
    assert {key: given[key] for key in experiment.settings} == dict(experiment.settings)


def test_every_experiment_has_steps_seeds_and_a_plain_name() -> None:
    for name, experiment in EXPERIMENTS.items():
        assert experiment.total_steps > 0 and name.replace("-", "").isalnum()
        assert len(set(experiment.seeds)) == len(experiment.seeds) >= 3


def test_an_experiment_is_run_written_joined_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """First a seed that it does not list, then its own; the file has all three."""
    monkeypatch.setitem(EXPERIMENTS, "small", SMALL)
    monkeypatch.setattr(reproduce, "FINAL_EPISODES", 4)
    monkeypatch.chdir(tmp_path)
    assert call("small", "--seeds", "77") == 0
    assert call("small") == 0
    found = json.loads((tmp_path / "docs/results/small.json").read_text())
    assert found["seeds"] == [0, 1, 77] and found["steps"] == [60, 60, 60]
    assert [len(run["returns"]) for run in found["runs"]] == [4, 4, 4]
    assert found["reached"] is True and found["published"]["text"] == "exact -1.6"
    assert found["observation_size"] == 1 and {"torch", "gymnasium"} <= found["versions"].keys()
    assert found["settings"]["n_steps"] == 5 and all(x > 0 for x in found["cpu_seconds"])
    capsys.readouterr()
    assert call("--table", "--plot", "curves.png") == 0
    table = capsys.readouterr().out
    assert "| small | pgtoolkit/LQG-v0 | 1 | 60 |" in table and "yes (3 of 3 seeds)" in table
    assert "exact -1.6 (arithmetic)" in table and "4 deterministic episodes" in table
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_results_with_other_settings_are_not_joined(tmp_path: Path) -> None:
    row, path = make_row({0: -1.0}), tmp_path / "a.json"
    write_row(path, "a", SMALL, row)
    require_joinable(path, row.settings, {})
    with pytest.raises(RequestError, match=r"other settings \(gamma\)"):
        require_joinable(path, {"gamma": 0.5}, {})
    path.write_text("[]")
    with pytest.raises(RequestError, match="holds no results"):
        require_joinable(path, row.settings, {})


def test_a_setting_that_is_newer_than_the_file_had_its_default(tmp_path: Path) -> None:
    row, path = make_row({0: -1.0}), tmp_path / "a.json"
    write_row(path, "a", SMALL, row)
    require_joinable(path, {**row.settings, "newer": 3}, {"newer": 3})
    with pytest.raises(RequestError, match=r"other settings \(newer\)"):
        require_joinable(path, {**row.settings, "newer": 4}, {"newer": 3})


@pytest.mark.parametrize("name", [path.stem for path in sorted(RESULTS.glob("*.json"))])
def test_other_seeds_can_be_added_to_the_results_of_the_documentation(name: str) -> None:
    experiment = EXPERIMENTS[name]
    [run, *_] = reproduce.planned(experiment, reproduce.ReproduceArguments())
    defaults = default_settings(experiment.agent)
    require_joinable(RESULTS / f"{name}.json", settings_without_seed(run), defaults)


def test_a_seed_that_was_run_again_replaces_the_old_one_and_none_is_dropped(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.json"
    write_row(path, "a", SMALL, make_row({0: -1.0, 1: -2.0}))
    both = joined(path, make_row({1: -3.0, 5: -4.0}))
    assert [(run.seed, run.final_return) for run in both.runs] == [(0, -1), (1, -3), (5, -4)]
    write_row(path, "a", SMALL, both)
    assert read_row(path) == dataclasses.replace(both, label="a")


@pytest.mark.parametrize(
    ("bar", "good"),
    [
        (Bar(-2, "mean"), True),
        (Bar(-2, "every seed"), False),
        (Bar(-3, "every seed"), True),
        (Bar(-3, "every seed", most_cpu_seconds=10), False),
        (Bar(-3, "every seed", most_cpu_seconds=11), True),
    ],
)
def test_what_is_reached(bar: Bar, good: bool) -> None:
    """Returns -1 and -3; ten CPU seconds, which are not under ten."""
    row = make_row({0: -1.0, 1: -3.0})
    assert reached(bar, row) is good
    unknown = dataclasses.replace(row.runs[0], cpu_seconds=None)
    assert not reached(Bar(-9, "mean", 99), dataclasses.replace(row, runs=[unknown]))
    table = results_table([(SMALL._replace(bar=bar), row)])
    assert ("| yes (" if good else "| no (") in table


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name an experiment"),
        (["pendulum-repo"], "did you mean `pendulum-reppo`"),
        (["suite-LQG-ppo", "--seeds", "1", "1"], "--seeds must be different"),
        (["suite-LQG-ppo", "--seeds", "-1"], "--seeds"),
        (["--table"], "holds no such results"),
    ],
)
def test_a_wrong_request_is_refused(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == 2
    assert words in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_the_list_names_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(EXPERIMENTS)


def make_row(returns: dict[int, float]) -> Row:
    """A row with a seed for each return, of ten CPU seconds each."""
    curve: dict[str, Any] = {"curve_steps": [10.0], "curve_cpu_seconds": [1.0]}
    runs = [
        RunResult(
            seed, [value], 0, 60, 10.0, curve_returns=[value], versions={"torch": "2"}, **curve
        )
        for seed, value in returns.items()
    ]
    return Row("apg", "apg", "E-v0", 3, 1, 60, {"gamma": 0.9}, runs)
