"""``pgtoolkit report``: from run folders to one file, and what is refused."""

import json
from pathlib import Path

import pytest

from pgtoolkit.scripts.cli import main as cli

QUICK = ["--total-steps", "120", "--num-envs", "6", "--n-steps", "10", "--hidden", "8"]
QUICK += ["--eval-episodes", "2", "--diagnostics-interval", "1", "--eval-interval", "60"]
QUICK += ["--compile", "never"]


def call(*arguments: str) -> int:
    """The exit code of ``pgtoolkit ARGUMENTS``, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.run_command(cli.run_arguments, arguments)
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two seeds of apg, and one with another discount."""
    folder = tmp_path_factory.mktemp("runs")
    paths = [str(folder / name) for name in ("a", "b", "c")]
    for path, more in zip(paths, (["--seed", "1"], [], ["--gamma", "0.5"]), strict=True):
        flags = ["--env", "pgtoolkit/LQG-v0", *QUICK, *more, "--run-dir", path]
        assert call("train", "apg", *flags) == 0
    return paths


def test_a_report_of_runs_is_one_file(runs: list[str], tmp_path: Path) -> None:
    file = tmp_path / "my report.html"
    assert call("report", *runs, "--output", str(file)) == 0
    text = file.read_text(encoding="utf-8")
    assert "apg on pgtoolkit/LQG-v0: 3 runs" in text
    assert "apg:gamma=0.99" in text and "apg:gamma=0.5" in text
    assert "Which gradient is better?" in text and text.count("<svg") >= 8
    assert "interquartile means over the seeds" in text
    assert "http://" not in text and "https://" not in text
    again = tmp_path / "again.html"
    assert call("report", *runs, "--output", str(again)) == 0
    assert again.read_text(encoding="utf-8") == text


def test_a_run_whose_summary_is_damaged_counts_as_not_ended(
    runs: list[str], tmp_path: Path
) -> None:
    summary = Path(runs[2]) / "summary.json"
    before = summary.read_text()
    try:
        for text in ("{", "[]", json.dumps({"diagnosis": "x", "steps": "y"})):
            summary.write_text(text)
            assert call("report", runs[2], "--output", str(tmp_path / "r.html")) == 0
    finally:
        summary.write_text(before)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name the runs: pgtoolkit report RUN..."),
        (["nothing"], "holds no run"),
        (["nothing", "--output", "a.pdf"], "--output must end in .html"),
        (["nothing", "--output", "no/such/a.html"], "cannot be written"),
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
    assert call("report", *arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
