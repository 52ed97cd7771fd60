"""``pgtoolkit variance``: what it says, draws and writes, and what it refuses."""

import dataclasses
import inspect
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.estimators import horizon_study as laboratory
from pgtoolkit.estimators.horizon_study import Estimator, Measurement
from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.scripts.cli.files import short
from pgtoolkit.scripts.variance_study.plot import draw
from pgtoolkit.scripts.variance_study.report import footnotes, table
from pgtoolkit.scripts.variance_study.verdict import crossover, defect, objection, verdict

PENDULUM = ["--env", "pgtoolkit/Pendulum-v0"]
QUICK = ["--trajectories", "20", "--horizons", "2", "4", "--hidden", "8"]
TRAINING = ["--total-steps", "120", "--num-envs", "6", "--n-steps", "10", "--hidden", "8"]


def call(*arguments: str) -> int:
    """The exit code of ``pgtoolkit variance ARGUMENTS``, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda found: cli.dispatch("variance", found), arguments)
    return int(caught.value.code or 0)


def row(estimator: Estimator, horizon: int, variance: float, **changes: Any) -> Measurement:
    """A measurement without defect."""
    made = Measurement(
        estimator=estimator,
        horizon=horizon,
        trajectories=1000,
        mean_length=horizon,
        seconds=0.1,
        variance=variance,
        variance_low=0.8 * variance,
        variance_high=1.2 * variance,
        signal=1.0,
        signal_low=0.5,
        signal_high=1.5,
        snr=1 / variance if variance else math.inf,
        noise_scale=variance,
        effective_dimension=3.0,
        detectability=4.0,
        largest_share=0.01,
        bias=math.nan if estimator == "score_function" else 0.1,
        bias_low=math.nan if estimator == "score_function" else -0.1,
        bias_high=math.nan if estimator == "score_function" else 0.3,
        bias_z=math.nan if estimator == "score_function" else 1.0,
    )
    return dataclasses.replace(made, **changes)


def pair(horizon: int, score: float, pathwise: float, **changes: Any) -> list[Measurement]:
    """Both estimators at one horizon; the changes are pathwise's."""
    changed = dataclasses.replace(row("pathwise", horizon, pathwise), **changes)
    return [row("score_function", horizon, score), changed]


BIASED = {"bias_z": 12.0, "bias_low": 0.2}
HEAVY = {"largest_share": 0.7}
ZERO = {"signal": 0.0, "signal_low": 0.0, "signal_high": 0.0} | BIASED
OVERFLOW = {"variance": math.nan, "signal_low": math.nan}


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([0.25, 4.0], 4.0),  # log-log: half-way from 2 to 8
        ([0.5, 4.0], 2 * 4 ** (1 / 3)),  # a third of the way
        ([0.25, 1.0], 8.0),
        ([0.1, 0.9], None),
        ([2.0, 3.0], None),
        ([2.0, 0.5], None),
        ([0.0, 2.0], None),  # no logarithm
        ([0.5, math.inf], None),
    ],
)
def test_the_crossover_is_interpolated_on_both_logarithms(
    ratios: list[float], expected: float | None
) -> None:
    """Horizons 2 and 8."""
    assert crossover([2, 8], ratios) == (None if expected is None else pytest.approx(expected))


def test_the_first_crossover_counts() -> None:
    assert crossover([1, 2, 4, 8], [0.5, 2.0, 0.5, 2.0]) == pytest.approx(math.sqrt(2))


VERDICTS: dict[str, tuple[list[Measurement], list[str]]] = {
    "never": (
        pair(4, 4000, 1) + pair(16, 100, 50),
        ["Use pathwise up to H = 16", "4,000 times lower at H = 4, 2 times lower at H = 16"],
    ),
    "crossover": (
        pair(2, 100, 25) + pair(8, 100, 400),
        ["Use pathwise up to H = 4 ", "score function beyond", "4 times higher at H = 8"],
    ),
    "crossover, in any order": (
        pair(8, 100, 400) + pair(2, 100, 25),
        ["Use pathwise up to H = 4 ", "4 times lower at H = 2, 4 times higher at H = 8"],
    ),
    "always above": (
        pair(2, 1, 2) + pair(8, 1, 3),
        ["Use the score function", "2 times higher at H = 2"],
    ),
    "above, then below": (
        pair(2, 1, 2) + pair(8, 4, 1),
        ["Use the score function", "better one at H = 8"],
    ),
    "biased": (
        pair(2, 100, 1, **BIASED) + pair(8, 100, 1),
        ["Use the score function: pathwise is biased here (z = 12 at H = 2)"],
    ),
    "biased later on": (
        pair(2, 100, 1) + pair(8, 100, 1, **BIASED),
        ["Use pathwise up to H = 2 and the score function beyond", "z = 12 at H = 8"],
    ),
    "biased, and higher": (pair(2, 1, 100, **BIASED), ["biased here (z = 12 at H = 2)"]),
    "exactly zero": (pair(1, 1, 0, **ZERO), ["Use the score function", "exactly zero at H = 1"]),
    "heavy tail": (
        pair(2, 100, 1) + pair(8, 100, 1, **HEAVY),
        ["Use pathwise up to H = 2", "70% of pathwise's squared spread at H = 8"],
    ),
    "heavy tail, and higher": (pair(2, 100, 1) + pair(8, 1, 100, **HEAVY), ["or so", "passes"]),
    "overflow": (
        pair(2, 100, 1) + pair(8, 100, 1, **OVERFLOW),
        ["Use pathwise up to H = 2", "not finite at H = 8"],
    ),
    "one estimator": ([row("score_function", 2, 1)], ["were not both measured"]),
    "mixed helps": (
        [*pair(2, 10, 4), row("mixed", 2, 2.0), *pair(4, 10, 4), row("mixed", 4, 1.0)],
        ["Mixed has a lower variance", "by up to 4 times (at H = 4)"],
    ),
    "mixed does not": ([*pair(2, 10, 4), row("mixed", 2, 3.9)], ["Mixed gains little"]),
    "mixed is biased": (
        [*pair(2, 10, 4, **BIASED), row("mixed", 2, 1.0, **BIASED)],
        ["Use the score function", "Mixed is biased as well, at H = 2"],
    ),
    "a bias would not have been seen": (
        pair(2, 100, 1, signal=0.4) + pair(4, 100, 1),
        ["Use pathwise up to H = 4", "At H = 2 no bias was seen, but one as large"],
    ),
    "all zero": (
        [row("score_function", 1, 0, **ZERO), row("pathwise", 1, 0, **ZERO)],
        ["Neither estimator has a gradient"],
    ),
    "nothing to hold it against": (
        [row("score_function", 1, math.nan), row("pathwise", 1, 1)],
        ["score function's gradient is not finite at H = 1", "--log-std-init"],
    ),
    "no variance": (pair(2, 10, 0), ["Use pathwise up to H = 2", "0 at H = 2"]),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_the_closing_sentence(name: str) -> None:
    """Which, up to where, and why."""
    rows, words = VERDICTS[name]
    sentence = verdict(rows)
    for word in words:
        assert word in sentence, sentence


def test_a_high_z_alone_or_an_interval_alone_is_no_bias() -> None:
    """Skewed gradients exceed z = 3 now and then, and an interval of 95 % misses 0 now and then."""
    assert defect(row("pathwise", 2, 1, bias_z=4.9, bias_low=0.1)) is None
    assert defect(row("pathwise", 2, 1, bias_z=9.0, bias_low=-0.1)) is None
    assert defect(row("pathwise", 2, 1, **BIASED)) == "biased"
    assert objection(row("pathwise", 2, 1), row("score_function", 2, 1)) == "variance"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345, "12,300"),
        (0.00213, "0.00213"),
        (-0.000741, "-7.41e-4"),
        (1.518e9, "1.52e9"),
        (99999.0, "1.00e5"),
        (47.31, "47.3"),
        (0, "0"),
        (math.nan, "-"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def worst_rows() -> list[Measurement]:
    """Everything that can be wrong, with numbers of the widest kind."""
    wide = {"variance_low": 1.23e-14, "variance_high": 4.56e-12, "snr": -7.4e-4, "signal_low": -1}
    return [
        row("score_function", 128, 7.89e-13, **wide),
        row("pathwise", 128, 7.89e-13, **wide | BIASED),
        row("mixed", 128, 7.89e-13, **wide | HEAVY),
        *pair(256, 1, 0, **ZERO),
        *pair(512, 1, 1, **OVERFLOW),
    ]


def test_the_table_fits_eighty_columns() -> None:
    """Nothing is wrapped or cut, and every defect is named."""
    console = Console(width=80, file=io.StringIO())
    console.print(table(worst_rows()))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text and len(text.strip().splitlines()) == 2 + len(worst_rows())
    for word in ("score function", "biased", "heavy tail", "zero", "not finite", "7.89e-13"):
        assert word in text
    assert "unseen" in text and "-7.4e-4" not in text


def test_the_footnotes_say_where_episodes_are_short() -> None:
    assert "Episodes" not in footnotes(pair(4, 1, 1))
    short_one = row("score_function", 64, 1, mean_length=21.7)
    assert "at H = 64 trajectories are 21.7 steps long" in footnotes([*pair(4, 1, 1), short_one])


def legend_of(axes: Any) -> str:
    legend = axes.get_legend()
    return "" if legend is None else " ".join(t.get_text() for t in legend.get_texts())


def test_the_plot_marks_crossover_bias_and_signals_that_are_not_seen() -> None:
    top, bottom = draw(pair(2, 100, 25) + pair(8, 100, 400), "title").axes
    assert "biased" not in legend_of(top) and "pathwise" in legend_of(top)
    assert any("H ≈ 4" in text.get_text() for text in top.texts)
    assert legend_of(bottom) == ""
    top, bottom = draw(worst_rows(), "title").axes
    assert "biased" in legend_of(top) and "exactly 0 at H = 256" in legend_of(top)
    assert "no signal seen" in legend_of(bottom) and not top.texts


def strict(path: Path) -> list[dict[str, Any]]:
    """JSON without NaN or infinity."""

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    found: list[dict[str, Any]] = json.loads(path.read_text(), parse_constant=refuse)
    return found


def test_the_command_writes_json_and_a_picture_and_advises(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row an estimator and horizon; the same seed gives the same bits."""
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
        assert found["variance_low"] <= found["variance"] <= found["variance_high"]
        assert found["signal_low"] <= found["signal"] <= found["signal_high"]
        assert (found["bias_z"] is None) == (found["estimator"] == "score_function")
        assert (found["env"], found["gamma"]) == ("pgtoolkit/Pendulum-v0", 0.99)
    assert call(*PENDULUM, *QUICK, "--json", str(second)) == 0
    without_time = [{k: v for k, v in r.items() if k != "seconds"} for r in rows]
    assert [{k: v for k, v in r.items() if k != "seconds"} for r in strict(second)] == without_time


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short APG run on LQG, of a linear policy and discount 0.9."""
    path = tmp_path_factory.mktemp("runs") / "apg"
    arguments = ["apg", "--env", "pgtoolkit/LQG-v0", "--run-dir", str(path), *TRAINING]
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda a: cli.dispatch("train", a), [*arguments, "--gamma", "0.9"])
    assert not caught.value.code
    return path


def test_a_runs_policy_is_measured_with_its_discount(run: Path, tmp_path: Path) -> None:
    """LQG has an argument horizon, so that its episodes end with each horizon."""
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
    """Its jump gives pathwise nothing, and that is said; nobody asked for 128 steps of it."""
    file = tmp_path / "step.json"
    arguments = ["--env", "pgtoolkit/Step-v0", "--trajectories", "200", "--json", str(file)]
    assert call(*arguments) == 0
    out = capsys.readouterr().out
    assert "end after 1 step: H = 1 is measured in place of 4, 8, 16, 32, 64, 128" in out
    assert "Use the score function: the pathwise gradient is exactly zero" in out
    assert [r["horizon"] for r in strict(file)] == [1, 1, 1]


def test_an_environment_without_gradient_has_the_score_function(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Discrete actions, episodes that end early, and a number that JSON does not have."""
    file = tmp_path / "rows.json"
    arguments = ["--env", "CartPole-v1", *QUICK[:2], "--horizons", "32", "--json", str(file)]
    assert call(*arguments) == 0
    out = capsys.readouterr().out
    assert "Use the score function: CartPole-v1 has no gradient" in out
    assert "Episodes end before the horizon" in out
    (found,) = strict(file)
    assert found["estimator"] == "score_function" and found["bias"] is None


def after(error: BaseException) -> Callable[..., list[Measurement]]:
    """A ``measure_horizon`` that works at the first horizon and raises at the second."""
    measure = laboratory.measure_horizon

    def measure_horizon(*arguments: Any, **settings: Any) -> list[Measurement]:
        if arguments[2] > 2:
            raise error
        return measure(*arguments, **settings)

    return measure_horizon


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (NonFiniteError("reward", 3, 0), 1)]
)
def test_what_was_measured_before_an_interruption_is_reported(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(laboratory, "measure_horizon", after(error))
    file = tmp_path / "rows.json"
    assert call(*PENDULUM, *QUICK, "--json", str(file)) == code
    assert [r["horizon"] for r in strict(file)] == [2, 2, 2]
    found = capsys.readouterr()
    assert "Use pathwise up to H = 2" in found.out and "(reported up to H = 2)" in found.err


def test_the_script_shows_its_help_without_importing_torch() -> None:
    """As ``python scripts/variance.py``; the help says what is not divided by H."""
    root = Path(__file__).parents[2]
    code = "import sys; sys.argv = ['variance.py', '--help']; import runpy\ntry:\n"
    code += (
        "    runpy.run_path('scripts/variance.py', run_name='__main__')\nexcept SystemExit as e:\n"
    )
    code += "    assert not e.code and 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert "not divided by H" in done.stdout and "--horizons" in done.stdout


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
def test_a_wrong_request_is_told_before_anything_is_measured(
    name: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit 2, what and what to do, no traceback, nothing written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(laboratory, "measure_horizon", None)
    arguments, advice = BAD_REQUESTS[name]
    assert call(*arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and advice in message and "Traceback" not in message
    assert message.count("\n") <= 2 and list(tmp_path.iterdir()) == []


def test_a_missing_matplotlib_is_told_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With the extra that brings it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert call(*PENDULUM, "--plot", str(tmp_path / "plot.png")) == 2
    assert "policy-gradient-toolkit[plot]" in capsys.readouterr().err


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
    """There is no crossover to mark, and no choice to advise."""
    picture = tmp_path / "plot.png"
    assert call(*PENDULUM, *QUICK, "--estimators", "pathwise", "--plot", str(picture)) == 0
    assert picture.exists()


def test_a_horizon_beyond_a_short_episode_is_not_walked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Episodes of 200 steps: no window of 50,000 is made to find that out."""
    assert call(*PENDULUM, "--trajectories", "10", "--horizons", "50000") == 0
    assert "H = 200 is measured in place of 50000" in capsys.readouterr().out
