"""``scripts/studies/noise_scales.py``: each part of a run, and requests without an answer."""

import math
from pathlib import Path

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.studies.noise_scales import cells, noise_scales, run
from pgtoolkit.scripts.train import run as train

ARGUMENTS = ["--env", "pgtoolkit/PointMass-v0", "--total-steps", "400", "--num-envs", "8"]
ARGUMENTS += ["--n-steps", "8", "--eval-interval", "200"]


def test_each_fifth_has_a_noise_scale() -> None:
    """Of 10 measurements, two a fifth: sums of V 2, 6, 3, 4, 5 over sums of U 1, 1, 3, 2, -1."""
    variances = [1.0, 1.0, 5.0, 1.0, 2.0, 1.0, 2.0, 2.0, 4.0, 1.0]
    signals = [3.0, -2.0, 0.0, 1.0, 1.0, 2.0, 1.0, 1.0, -2.0, 1.0]
    steps = list(range(10))
    (found,) = noise_scales(
        {
            "gradient/pathwise/variance": (steps, variances),
            "gradient/pathwise/signal": (steps, signals),
            "gradient/trajectories": (steps, [64.0] * 10),
        }
    )
    assert found[:3] == ("pathwise", True, 64.0)
    assert found.scales[:4] == (2, 6, 1, 2) and math.isnan(found.scales[4])
    assert cells(found) == ["pathwise, followed", "64", "2, 6, 1, 2, -"]


def test_a_gradient_without_signal_has_no_noise_scale() -> None:
    """All parts are counted, and none is left out in silence; two measurements are two parts."""
    tags = ("variance", "signal")
    given = {f"gradient/score_function/{tag}": ([1, 2], [8.0, 8.0]) for tag in tags}
    given |= {"gradient/score_function/signal": ([1, 2], [-1.0, 0.0])}
    (found,) = noise_scales(given | {"gradient/trajectories": ([1, 2], [8.0, 8.0])})
    assert cells(found)[2:] == ["-, -"]


def test_probes_have_rows_with_their_own_number_of_samples() -> None:
    """The probes of an agent with a critic are the same estimators on trajectories of their own."""
    given = {
        f"gradient/{group}{tag}": ([1], [value])
        for group, number in (("", 2048.0), ("probe/", 64.0))
        for tag, value in {
            "critic/variance": 6.0,
            "critic/signal": 2.0,
            "trajectories": number,
        }.items()
    }
    rows = [
        cells(found) for found in noise_scales(given | {"gradient/critic/followed": ([1], [1.0])})
    ]
    assert rows == [["critic, followed", "2,048", "3"], ["critic, probe", "64", "3"]]


def test_a_run_has_a_row_for_each_gradient(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shac follows a mix of two gradients, and measures both."""
    train(["shac", *ARGUMENTS, "--diagnostics-interval", "1", "--run-dir", str(tmp_path / "a")])
    capsys.readouterr()
    run([str(tmp_path)])
    heads, _, *rows = capsys.readouterr().out.splitlines()
    assert heads == "| run | gradient | samples measured | noise scale, beginning to end |"
    first = "| `shac`, pgtoolkit/PointMass-v0 | "
    assert [row.removeprefix(first).split(" | ")[:2] for row in rows] == [
        ["mixed, followed", "8"],
        ["pathwise", "8"],
        ["score_function", "8"],
    ]


def test_runs_without_measurements_and_no_run_are_refused(tmp_path: Path) -> None:
    """The message names the setting, or what is missing."""
    train(["shac", *ARGUMENTS, "--diagnostics-interval", "0", "--run-dir", str(tmp_path / "a")])
    with pytest.raises(RequestError, match="--diagnostics-interval"):
        run([str(tmp_path / "a")])
    with pytest.raises(RequestError, match="one run or more"):
        run([])
