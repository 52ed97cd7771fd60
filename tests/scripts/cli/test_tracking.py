"""Runs that a tracker follows, from the command line and from Python, with a client of ours."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pgtoolkit
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.main import exit_code_of, run_arguments
from pgtoolkit.scripts.cli.registry import TRACKERS
from pgtoolkit.scripts.cli.tracking import is_installed, tracker_of
from pgtoolkit.training.loop import TrainConfig
from pgtoolkit.training.trackers.base import Untracked

CLIENT = '''
"""A client that writes what it is asked for into a file."""
import json, pathlib

FILE = pathlib.Path(__file__).with_name("calls.jsonl")

def note(*call):
    with FILE.open("a") as file:
        file.write(json.dumps(call) + "\\n")

class Run:
    id = "abc123"
    def define_metric(self, *names, **more): pass
    def log(self, scalars): note("log", scalars)
    def finish(self, exit_code): note("finish", exit_code)

def Settings(**named): return named

def init(**named):
    if FILE.with_name("broken").exists():
        raise ConnectionError("nobody is at home")
    note("init", named)
    return Run()
'''

FLAGS = (
    "--env pgtoolkit/PointMass-v0 --num-envs 4 --n-steps 8 --hidden 4 --compile never "
    "--eval-episodes 2 --eval-interval 64 --diagnostics-interval 2"
)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package ``wandb`` that comes before any other one."""
    (tmp_path / "wandb.py").write_text(CLIENT)
    monkeypatch.syspath_prepend(tmp_path)
    # Set before it is deleted: what the test imports is then taken out at its end.
    monkeypatch.setitem(sys.modules, "wandb", None)
    del sys.modules["wandb"]
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return tmp_path


def calls(client: Path, name: str) -> list[Any]:
    lines = (client / "calls.jsonl").read_text().splitlines()
    return [rest[0] for first, *rest in map(json.loads, lines) if first == name]


def call(*words: str) -> int:
    return exit_code_of(run_arguments, words)


def train(run: Path, steps: int, *more: str) -> int:
    words = ["train", "shac", *FLAGS.split(), "--total-steps", str(steps)]
    return call(*words, "--run-dir", str(run), *more)


def test_a_run_is_followed_and_goes_on_in_the_same_tracked_run(client: Path) -> None:
    """The same scalars with the same names as in TensorBoard, and all settings."""
    run = client / "run"
    assert train(run, 128, "--track", "wandb", "--track-project", "mine") == 0
    assert call("resume", str(run), "--total-steps", "192") == 0
    first, second = calls(client, "init")
    assert (first["id"], second["id"]) == (None, "abc123")
    assert (first["project"], first["name"]) == ("mine", "run")
    assert (first["config"]["total_steps"], second["config"]["total_steps"]) == (128, 192)
    assert first["config"]["agent"] == "shac" and first["config"]["num_envs"] == 4
    assert calls(client, "finish") == [0, 0]
    rows = calls(client, "log")
    assert [row["env_step"] for row in rows] == list(range(32, 193, 32))
    events = EventAccumulator(str(run), {"scalars": 0})
    events.Reload()
    written = {
        (tag, event.step)
        for tag in events.Tags()["scalars"]
        for event in events.Scalars(tag)
        if not tag.startswith(("_hparams", "rollout/ep_rew_mean", "gradient/variance_ratio"))
    }
    tracked = {(tag, row["env_step"]) for row in rows for tag in row if tag != "env_step"}
    assert {pair for pair in written if pair[1] > 0} <= tracked
    assert {tag for tag, _ in tracked} <= set(events.Tags()["scalars"])


def test_a_tracker_that_fails_costs_nothing(client: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The run is whole, and a warning says it once."""
    (client / "broken").touch()
    run = client / "run"
    assert train(run, 64, "--track", "wandb") == 0
    [said] = [r.message for r in caplog.records if "wandb" in r.message]
    assert "nobody is at home" in said and "not affected" in said
    assert (run / "summary.json").exists() and not (run / "tracking.json").exists()


def test_a_run_can_be_followed_from_a_resume_on_and_no_more(client: Path) -> None:
    run = client / "run"
    assert train(run, 64) == 0 and not (client / "calls.jsonl").exists()
    assert call("resume", str(run), "--total-steps", "128", "--track", "wandb") == 0
    assert [row["env_step"] for row in calls(client, "log")] == [96, 128]
    assert call("resume", str(run), "--total-steps", "160", "--track", "none") == 0
    assert len(calls(client, "log")) == 2
    assert "track: none" in (run / "config.yaml").read_text()


def test_from_python_too(client: Path) -> None:
    """A run that fails says so to its tracker."""

    def fail(progress: Any, metrics: Any) -> None:
        raise ArithmeticError

    settings: dict[str, Any] = {
        "num_envs": 4,
        "n_steps": 8,
        "hidden": (4,),
        "compile": "never",
        "track": "wandb",
    }
    with pytest.raises(ArithmeticError):
        pgtoolkit.train(
            "shac",
            "pgtoolkit/PointMass-v0",
            total_steps=64,
            run_dir=client / "run",
            callback=fail,
            eval_episodes=2,
            **settings,
        )
    assert calls(client, "finish") == [1]


def test_a_package_that_is_missing_is_named_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pgtoolkit.scripts.cli.tracking.is_installed", lambda name: False)
    assert train(tmp_path / "run", 64, "--track", "trackio") == 2
    error = capsys.readouterr().err
    assert "--track trackio needs the package trackio: python -m pip install" in error
    assert not (tmp_path / "run").exists()
    with pytest.raises(RequestError, match="track='mlflow' needs the package"):
        tracker_of(TrainConfig(track="mlflow"))


def test_a_folder_is_no_package(tmp_path: Path) -> None:
    """A run of wandb leaves a folder ``wandb`` behind, which Python would import as a package."""
    (tmp_path / "my_tracker").mkdir()
    code = "from pgtoolkit.scripts.cli.tracking import is_installed\n"
    code += "assert not is_installed('my_tracker') and is_installed('json')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert not is_installed("no_such_package")


@pytest.mark.parametrize("name", TRACKERS)
def test_every_tracker_of_the_table_exists(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgtoolkit.scripts.cli.tracking.is_installed", lambda name: True)
    assert not isinstance(tracker_of(TrainConfig(track=name)), Untracked)


def test_a_run_is_followed_by_none_unless_it_is_said() -> None:
    assert isinstance(tracker_of(TrainConfig()), Untracked)
