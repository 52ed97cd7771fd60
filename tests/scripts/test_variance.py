"""The command ``pgtoolkit variance``: its output, its files, and the requests it refuses."""

import dataclasses
import inspect
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.estimators import horizon_study
from pgtoolkit.estimators.horizon_study import Measurement
from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.training.stop import Interruption

PENDULUM = ["--env", "pgtoolkit/Pendulum-v0"]
QUICK = ["--trajectories", "20", "--horizons", "2", "4", "--hidden", "8"]
TRAINING = ["--total-steps", "120", "--num-envs", "6", "--n-steps", "10", "--hidden", "8"]


def call(*arguments: str) -> int:
    """The exit code of ``pgtoolkit variance ARGUMENTS``, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda found: cli.dispatch("variance", found), arguments)
    return int(caught.value.code or 0)


def strict(path: Path) -> list[dict[str, Any]]:
    """The file's JSON; fails on NaN and infinity."""

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    found: list[dict[str, Any]] = json.loads(path.read_text(), parse_constant=refuse)
    return found


def test_the_command_writes_json_and_a_picture_and_advises(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row for each estimator and horizon; the same seed gives the same bits."""
    first, second, picture = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "plot.png"
    assert call(*PENDULUM, *QUICK, "--json", str(first), "--plot", str(picture)) == 0
    out = capsys.readouterr().out
    assert "H = 2: variance score function" in out and "Use pathwise up to H = 4" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = strict(first)
    names = ("score_function", "pathwise", "mixed")
    assert [(r["estimator"], r["horizon"]) for r in rows] == [(n, h) for h in (2, 4) for n in names]
    fields = {field.name for field in dataclasses.fields(Measurement)}
    for found in rows:
        assert found.keys() == fields | {"env", "env_kwargs", "policy", "gamma", "seed"}
        for name in ("variance", "signal"):
            low, high = found[f"{name}_low"], found[f"{name}_high"]
            assert (low is None) == (high is None)
            assert low is None or low <= found[name] <= high
        assert (found["ratio"] is None) == (found["estimator"] == "score_function")
        assert found["seconds_per_trajectory"] > 0 and found["ended_early"] == 0
        assert (found["bias_z"] is None) == (found["estimator"] == "score_function")
        assert (found["env"], found["gamma"]) == ("pgtoolkit/Pendulum-v0", 0.99)
    assert call(*PENDULUM, *QUICK, "--json", str(second)) == 0
    assert without_time(strict(second)) == without_time(rows)


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without wall times, which differ between runs."""
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short APG run on LQG with discount 0.9."""
    path = tmp_path_factory.mktemp("runs") / "apg"
    arguments = ["apg", "--env", "pgtoolkit/LQG-v0", "--run-dir", str(path), *TRAINING]
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda a: cli.dispatch("train", a), [*arguments, "--gamma", "0.9"])
    assert not caught.value.code
    return path


def test_a_runs_policy_is_measured_with_its_discount(run: Path, tmp_path: Path) -> None:
    """LQG's constructor has an argument horizon, so its episodes are as long as each horizon."""
    for flags, wanted in (([], "best"), (["--checkpoint", "last"], "last")):
        file = tmp_path / f"{wanted}.json"
        assert call(str(run), *QUICK[:-2], "--json", str(file), *flags) == 0
        rows = strict(file)
        assert {r["gamma"] for r in rows} == {0.9} and rows[0]["policy"].endswith(
            f"{wanted}.safetensors"
        )
        assert [r["mean_length"] for r in rows[::3]] == [2, 4]
    arguments = [str(run), *QUICK[:-2], "--gamma", "0.5", "--env", "pgtoolkit/LQG-v0"]
    arguments += ["--env-kwargs", '{"A": 1.1, "horizon": 3}', "--estimators", "score_function"]
    assert call(*arguments, "--json", str(file)) == 0
    assert [(r["horizon"], r["gamma"]) for r in strict(file)] == [(2, 0.5), (3, 0.5)]


def test_a_one_step_environment_is_measured_at_one_step(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Longer horizons are replaced, with a note; the jump has no pathwise gradient."""
    file = tmp_path / "step.json"
    arguments = ["--env", "pgtoolkit/Step-v0", "--trajectories", "200", "--json", str(file)]
    assert call(*arguments) == 0
    out = capsys.readouterr().out
    assert "end after 1 step: H = 1 is measured in place of 4, 8, 16, 32, 64, 128" in out
    assert "Use the score function at H = 1: the pathwise gradient is exactly zero" in out
    assert [r["horizon"] for r in strict(file)] == [1, 1, 1]


def test_an_environment_without_gradient_has_the_score_function(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """CartPole has discrete actions and short episodes; NaN becomes null in the JSON file."""
    file = tmp_path / "rows.json"
    arguments = ["--env", "CartPole-v1", *QUICK[:2], "--horizons", "32", "--json", str(file)]
    assert call(*arguments) == 0
    out = capsys.readouterr().out
    assert "Use the score function: CartPole-v1 has no gradient: its actions are Disc" in out
    assert "--differentiate" not in out
    assert "Episodes end before the horizon" in out
    (found,) = strict(file)
    assert found["estimator"] == "score_function" and found["bias"] is None


def after(error: BaseException) -> Callable[..., list[Measurement]]:
    """A ``measure_horizon`` that works at the first horizon and raises at the second."""
    measure = horizon_study.measure_horizon

    def measure_horizon(*arguments: Any, **settings: Any) -> list[Measurement]:
        if arguments[2] > 2:
            raise error
        return measure(*arguments, **settings)

    return measure_horizon


@pytest.mark.parametrize(
    ("error", "code"), [(Interruption(signal.SIGINT), 130), (NonFiniteError("reward", 3, 0), 1)]
)
def test_what_was_measured_before_an_interruption_is_reported(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(horizon_study, "measure_horizon", after(error))
    file = tmp_path / "rows.json"
    assert call(*PENDULUM, *QUICK, "--json", str(file)) == code
    assert [r["horizon"] for r in strict(file)] == [2, 2, 2]
    found = capsys.readouterr()
    assert "Use pathwise at H = 2" in found.out and "(reported up to H = 2)" in found.err


def test_the_script_shows_its_help_without_importing_torch() -> None:
    """The script's ``--help`` does not import torch; it says what is not divided by H."""
    root = Path(__file__).parents[2]
    code = "import sys; sys.argv = ['variance.py', '--help']; import runpy\ntry:\n"
    code += (
        "    runpy.run_path('scripts/variance.py', run_name='__main__')\nexcept SystemExit as e:\n"
    )
    code += "    assert not e.code and 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    shown = " ".join(done.stdout.split())
    assert "not divided by H" in shown and "--horizons" in shown


BAD_REQUESTS: dict[str, tuple[list[str], str]] = {
    "nothing named": ([], "--env ENV"),
    "no run": (["nowhere"], "config.yaml"),
    "unknown environment": (["--env", "Pendlum-v1"], "Pendulum-v1"),
    "unknown estimator": ([*PENDULUM, "--estimators", "pathwize"], "pathwise"),
    "horizon of zero": ([*PENDULUM, "--horizons", "0", "4"], "--horizons"),
    "no horizon": ([*PENDULUM, "--horizons"], "--horizons"),
    "horizon that is no number": ([*PENDULUM, "--horizons", "four"], "--horizons"),
    "too few trajectories": ([*PENDULUM, "--trajectories", "2"], "--trajectories"),
    "discount": ([*PENDULUM, "--gamma", "1.5"], "--gamma"),
    "seed": ([*PENDULUM, "--seed", "-1"], "--seed"),
    "policy flags with a run": (["nowhere", "--hidden", "8"], "--hidden"),
    "no gradient": (
        ["--env", "Pendulum-v1", "--differentiate", "none", "--estimators", "pathwise"],
        "pgtoolkit list envs",
    ),
    "gradient not wanted": (
        [*PENDULUM, "--differentiate", "none", "--estimators", "mixed"],
        "--estimators score_function",
    ),
    "folder that is not there": ([*PENDULUM, "--json", "no/where.json"], "--json no/where.json"),
    "folder as a file": ([*PENDULUM, "--json", "."], "cannot be written"),
    "no picture": ([*PENDULUM, "--plot", "plot.txt"], ".png, .svg, .pdf"),
    "picture nowhere": ([*PENDULUM, "--plot", "no/where.png"], "--plot no/where.png"),
    "argument": ([*PENDULUM, "--env-kwargs", '{"h": 1}'], "'h'"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_wrong_request_is_refused_before_anything_is_measured(
    name: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 2, a message with advice, no traceback, no files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(horizon_study, "measure_horizon", None)
    arguments, advice = BAD_REQUESTS[name]
    assert call(*arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and advice in message and "Traceback" not in message
    assert message.count("\n") <= 2 and list(tmp_path.iterdir()) == []


def test_a_missing_matplotlib_is_told_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The message names the extra that installs it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert call(*PENDULUM, "--plot", str(tmp_path / "plot.png")) == 2
    assert 'pip install "matplotlib' in capsys.readouterr().err


def test_a_file_that_exists_survives_a_refusal(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text("precious")
    assert call("--env", "Nowhere-v0", "--json", str(file)) == 2
    assert file.read_text() == "precious"


def test_an_environment_that_says_it_has_no_gradient_is_believed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``gradient.action = 'none'``, in a file of the user's."""
    source = Path(inspect.getfile(Pendulum)).read_text()
    text = source.replace("    max_episode_steps = 200\n", NO_GRADIENT)
    assert NO_GRADIENT in text
    (tmp_path / "mine.py").write_text(text)
    assert call("--env", f"{tmp_path / 'mine.py'}:Pendulum", *QUICK) == 0
    assert "gradient.action = 'none'" in capsys.readouterr().out


NO_GRADIENT = """
    max_episode_steps = 200
    gradient = __import__("pgtoolkit.envs").envs.GradientInfo(action="none")
"""


def test_pathwise_alone_is_drawn_too(tmp_path: Path) -> None:
    """Although there is no crossover to mark and no comparison to advise on."""
    picture = tmp_path / "plot.png"
    assert call(*PENDULUM, *QUICK, "--estimators", "pathwise", "--plot", str(picture)) == 0
    assert picture.exists()


def test_a_horizon_beyond_a_short_episode_is_not_rolled_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Episodes have 200 steps; that is found without a window of 50,000 steps."""
    assert call(*PENDULUM, "--trajectories", "10", "--horizons", "50000") == 0
    assert "H = 200 is measured in place of 50000" in capsys.readouterr().out
