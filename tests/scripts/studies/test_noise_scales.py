"""``scripts/studies/noise_scales.py``: medians of a run's parts, and requests without an answer."""

import math
from pathlib import Path

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.studies.noise_scales import cells, noise_scales, run
from pgtoolkit.scripts.train import run as train

ARGUMENTS = ["--env", "pgtoolkit/PointMass-v0", "--total-steps", "400", "--num-envs", "8"]
ARGUMENTS += ["--n-steps", "8", "--eval-interval", "200"]


def test_the_ends_are_medians_of_five_parts() -> None:
    """Medians of (1, 2, 9), (4, 4, 4), (3, 5, 7), (1, 6, 6), (2, 2, 90): 2, 4, 5, 6 and 2."""
    scales = [1.0, 2.0, 9.0, 4.0, 4.0, 4.0, 3.0, 5.0, 7.0, 1.0, 6.0, 6.0, 2.0, 2.0, 90.0]
    steps = list(range(20))
    (found,) = noise_scales(
        {
            "gradient/pathwise/variance": (steps, [1.0] * 20),
            "gradient/pathwise/noise_scale": (steps[5:], scales),
            "gradient/trajectories": (steps, [64.0] * 20),
        }
    )
    assert found == ("pathwise", True, 64.0, 2.0, 6.0, 15, 20)
    assert cells(found) == ["pathwise, followed", "64", "2 to 6", "15 of 20"]


def test_a_gradient_without_signal_has_no_noise_scale() -> None:
    """All its measurements are counted, and none is left out in silence."""
    tags = ("gradient/score_function/variance", "gradient/trajectories")
    (found,) = noise_scales({tag: ([1, 2], [8.0, 8.0]) for tag in tags})
    assert math.isnan(found.least) and math.isnan(found.greatest)
    assert cells(found)[2:] == ["-", "0 of 2"]


def test_a_run_has_a_row_for_each_gradient(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shac follows a mix of two gradients, and measures both."""
    train(["shac", *ARGUMENTS, "--diagnostics-interval", "1", "--run-dir", str(tmp_path / "a")])
    capsys.readouterr()
    run([str(tmp_path)])
    heads, _, *rows = capsys.readouterr().out.splitlines()
    assert heads == "| run | gradient | samples measured | noise scale | known in |"
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
