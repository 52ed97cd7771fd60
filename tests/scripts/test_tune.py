"""``pgtoolkit tune`` with processes of its own: results, failures, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.scripts.cli.experiment import settings_from_file
from pgtoolkit.scripts.tune import whole_windows

SMALL = ["--total-steps", "64", "--num-envs", "4", "--n-steps", "2", "--hidden", "4"]
SMALL += ["--eval-episodes", "2", "--final-episodes", "3", "--compile", "never", "--jobs", "1"]
SMALL += ["--diagnostics-interval", "1"]


def call(*arguments: str) -> int:
    """The exit code of ``pgtoolkit ARGUMENTS``, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.run_command(cli.run_arguments, arguments)
    return int(caught.value.code or 0)


def test_a_study_trains_records_failures_writes_the_best_and_is_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """LQG has no bounds, which a beta policy needs: those trials fail, and the others go on."""
    root, found = tmp_path / "the study", tmp_path / "found.json"
    arguments = ["tune", "apg", "--env", "pgtoolkit/LQG-v0", *SMALL, "--seeds", "2"]
    arguments += ["--tune", "distribution=gaussian,beta", "learning_rate", "--seed", "3"]
    arguments += ["--run-dir", str(root), "--json", str(found)]
    assert call(*arguments, "--trials", "1") == 0
    output = capsys.readouterr().out
    assert "trial 0: mean return " in output and "| 0 (defaults) | " in output
    assert "| trial | mean return | SNR | " in output and " | - | " not in output
    before = {path: path.stat().st_mtime_ns for path in root.glob("trial-0000/*/*")}
    assert call(*arguments, "--trials", "3") == 0
    output = capsys.readouterr().out
    assert "1 of 3 trials were begun before" in output and "beta" in output
    assert {path: path.stat().st_mtime_ns for path in root.glob("trial-0000/*/*")} == before

    study = json.loads(found.read_text())
    trials = study["trials"]
    assert [trial["number"] for trial in trials] == [0, 1, 2] and study["seeds"] == [3, 4]
    failed = [trial for trial in trials if trial["state"] == "failed"]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    assert {trial["settings"]["distribution"] for trial in failed} == {"beta"}
    assert all(trial["reason"].startswith("seed 3: train: exit code 2") for trial in failed)
    assert len(failed) + len(complete) == 3 and complete[0]["number"] == 0
    for trial in complete:
        assert trial["mean_return"] == pytest.approx(sum(trial["returns"]) / 2)
        assert len(trial["snr"]) == 2 and None not in trial["snr"]
        points = [point for point, _ in trial["evaluations"]]
        assert points[0] == 5 and points[-1] == 128 and len(points) == 22, "64 steps / 6"
    best = max(complete, key=lambda trial: float(trial["mean_return"]))
    assert study["best"] == best["number"]

    settings = yaml.safe_load((root / "best.yaml").read_text())
    assert settings == study["best_settings"]
    assert settings["learning_rate"] == best["settings"]["learning_rate"]
    assert "seed" not in settings and settings["total_steps"] == 64
    run = settings_from_file(settings, [], command="train apg")
    assert (run.agent.num_envs, run.agent.hidden, run.agent.compile) == (4, (4,), "never")


def test_a_study_whose_trials_all_failed_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tune", "apg", "--env", "pgtoolkit/LQG-v0", *SMALL, "--seeds", "1"]
    arguments += ["--tune", "std=state_independent,state_dependent", "--distribution", "beta"]
    assert call(*arguments, "--trials", "1", "--run-dir", str(tmp_path)) == 1
    output, errors = capsys.readouterr()
    assert "trial 0: failed (seed 0: train: exit code 2" in output
    assert errors.startswith("error: no trial is complete (trials: 0 complete, 1 failed)")
    assert errors.count("\n") == 1 and not (tmp_path / "best.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name the agent first"),
        (["shc", "--env", "Pendulum-v1"], "did you mean `shac`"),
        (["apg"], "name the environment: pgtoolkit tune apg --env ENV"),
        (["apg", "--env", "pgtoolkit/Nowhere-v0"], "Nowhere"),
        (["apg", "--env", "CartPole-v1"], "apg on CartPole-v1: "),
        (["apg", "--env", "pgtoolkit/LQG-v0", "--trails", "3"], "did you mean --trials?"),
        (["apg", "--env", "pgtoolkit/LQG-v0", "--clip-range", "3"], "no option --clip-range"),
        (["apg", "--env", "pgtoolkit/LQG-v0", "--trials", "0"], "--trials must be from 1"),
        (["apg", "--env", "pgtoolkit/LQG-v0", "--seeds", "0"], "--seeds must be from 1"),
        (["apg", "--env", "pgtoolkit/LQG-v0", "--jobs", "0"], "--jobs must be from 1"),
        (["apg", "--env", "pgtoolkit/LQG-v0", "--gamma", "2"], "--gamma must be between"),
        (["apg", "--env", "pgtoolkit/LQG-v0", "--tune", "gamma=1..0"], "is empty"),
        (["apg", "--env", "pgtoolkit/LQG-v0", "--tune", "gama"], "did you mean gamma?"),
        (["apg", "--env", "pgtoolkit/LQG-v0", "--tune", "first_bias=1..2", "--first-bias", "1"],
         "has a value and a range"),
        (["apg", "--env", "pgtoolkit/LQG-v0", "--json", "no/such.json"], "--json"),
        (["apg", "--env", "pgtoolkit/LQG-v0", "--config", "no.yaml"], "no such file"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_before_anything_runs(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("tune", *arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_shows_what_an_agent_is_tuned_by(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("tune", "ppo", "--help") == 0
    output = capsys.readouterr().out
    assert "clip_range=0.05..0.4:log" in output and "--trials" in output
    assert call("tune", "--help") == 0
    assert "--trials" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("agent", "total_steps", "fixed", "searched", "said"),
    [
        ("ppo", 5_000, {}, (), ", of which 4,096 are trained, in whole windows of 2,048"),
        ("ppo", 5_000, {"num_envs": 5, "n_steps": 200}, (), ""),
        ("ppo", 500_000, {}, (), ""),  # 288 steps in 500,000 are left out
        ("ppo", 5_000, {}, ("n_steps",), ""),
        ("ahac", 5_000, {}, (), ""),
    ],
)
def test_the_opening_says_how_many_steps_of_a_trial_are_trained(
    agent: str, total_steps: int, fixed: dict[str, int], searched: tuple[str, ...], said: str
) -> None:
    study: Any = SimpleNamespace(space=[SimpleNamespace(name=name) for name in searched])
    plan: Any = SimpleNamespace(agent=agent, total_steps=total_steps, fixed=fixed)
    assert whole_windows(study, plan) == said
