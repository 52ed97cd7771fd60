"""``scripts/studies/plot_gain.py``: a picture of real runs, and requests that cannot be met."""

from pathlib import Path

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.comparison.figure import COLUMN_WIDTH
from pgtoolkit.scripts.studies.plot_gain import GAIN, draw, run, variance_ratio
from pgtoolkit.scripts.train import run as train

ARGUMENTS = ["--env", "pgtoolkit/PointMass-v0", "--total-steps", "400", "--num-envs", "8"]
ARGUMENTS += ["--n-steps", "8", "--diagnostics-interval", "1", "--eval-interval", "200"]


def test_the_picture_of_two_runs(tmp_path: Path) -> None:
    """It is written, and as many labels as runs are required."""
    pytest.importorskip("matplotlib")
    runs = [str(tmp_path / name) for name in ("a", "b")]
    for path in runs:
        train(["shac", *ARGUMENTS, "--run-dir", path])
    run([*runs, "--labels", "one", "two", "--output", str(tmp_path / "gain.png")])
    assert (tmp_path / "gain.png").stat().st_size > 10_000
    with pytest.raises(RequestError, match="each of the 2 runs"):
        run([*runs, "--labels", "one", "--output", str(tmp_path / "gain.png")])


def test_a_run_without_measurements_is_refused(tmp_path: Path) -> None:
    """The message names the setting."""
    pytest.importorskip("matplotlib")
    path = str(tmp_path / "a")
    train(["shac", *ARGUMENTS, "--diagnostics-interval", "0", "--run-dir", path])
    with pytest.raises(RequestError, match="--diagnostics-interval"):
        run([path, "--output", str(tmp_path / "gain.png")])


def test_the_picture_is_legible_in_half_a_column_of_print() -> None:
    """It is 3.3 inches wide, and no text in it is below 7 points."""
    pytest.importorskip("matplotlib")
    from matplotlib.text import Text

    figure = draw({name: {GAIN: ([0, 300_000], [0.1, 100.0])} for name in ("one", "two")})
    assert figure.get_size_inches()[0] == COLUMN_WIDTH == 3.3
    figure.draw_without_rendering()
    sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text()]
    assert len(sizes) > 10 and min(sizes) >= 7


def test_the_ratio_is_of_the_same_steps() -> None:
    """A step at which one of the two was not measured, or has no variance, has no ratio."""
    scalars = {
        "gradient/pathwise/variance": ([1, 2, 3], [4.0, 6.0, 8.0]),
        "gradient/score_function/variance": ([2, 3], [3.0, 0.0]),
    }
    assert variance_ratio(scalars) == ([2], [2.0])
    assert variance_ratio({}) is None
