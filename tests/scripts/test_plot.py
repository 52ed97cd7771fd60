"""``pgtoolkit plot``: which runs are one line, and which panels are drawn."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.scripts.comparison.figure import (
    LEGEND_LINE_WIDTH,
    LETTER_WIDTH,
    _columns,
    draw,
    save,
)
from pgtoolkit.scripts.comparison.groups import Group, opened, read_groups, relabelled
from pgtoolkit.scripts.comparison.scalars import Scalars

Capture = pytest.CaptureFixture[str]

QUICK = ["--total-steps", "240", "--num-envs", "6", "--n-steps", "10", "--hidden", "8"]
QUICK += ["--eval-episodes", "2", "--diagnostics-interval", "1", "--eval-interval", "60"]


def call(*arguments: str) -> int:
    """The exit code of ``pgtoolkit ARGUMENTS``, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.run_command(cli.run_arguments, arguments)
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two seeds of shac, one of shac with another discount, and one of reinforce elsewhere."""
    folder, paths = tmp_path_factory.mktemp("runs"), []
    for index, arguments in enumerate(
        (
            ["shac", "--env", "pgtoolkit/LQG-v0", "--seed", "0"],
            ["shac", "--env", "pgtoolkit/LQG-v0", "--seed", "1"],
            ["shac", "--env", "pgtoolkit/LQG-v0", "--seed", "0", "--gamma", "0.5"],
            ["reinforce", "--env", "CartPole-v1", "--seed", "0"],
        )
    ):
        paths.append(str(folder / str(index)))
        assert call("train", *arguments, *QUICK, "--run-dir", paths[-1]) == 0
    return paths


def test_runs_that_differ_in_their_seeds_are_a_group(runs: list[str]) -> None:
    """Others are named by what they differ in."""
    found = read_groups(runs)
    assert [(group.label, group.env, len(group.runs)) for group in found] == [
        ("shac:gamma=0.98", "pgtoolkit/LQG-v0", 2),
        ("shac:gamma=0.5", "pgtoolkit/LQG-v0", 1),
        ("reinforce", "CartPole-v1", 1),
    ]
    assert [group.label for group in read_groups(runs[:2])] == ["shac"]


def test_how_often_a_run_was_looked_at_makes_no_other_line(runs: list[str], tmp_path: Path) -> None:
    """Seeds that were evaluated at other steps are compared on the steps between."""
    for run, interval in zip(runs[:2], (60, 30), strict=True):
        shutil.copytree(run, tmp_path / Path(run).name)
        file = tmp_path / Path(run).name / "config.yaml"
        config = yaml.safe_load(file.read_text()) | {"eval_interval": interval, "log_interval": 2}
        file.write_text(yaml.safe_dump(config))
    (group,) = read_groups([str(tmp_path)])
    assert (group.label, len(group.runs)) == ("shac", 2)


def test_the_lines_can_be_named(runs: list[str], tmp_path: Path, capsys: Capture) -> None:
    """One name for each line, in the order of the runs; as many as there are lines."""
    groups = relabelled(read_groups(runs), ["near", "far", "blind"])
    assert [group.label for group in groups] == ["near", "far", "blind"]
    file = tmp_path / "plot.svg"
    arguments = ["plot", *runs, "--output", str(file), "--panels", "return", "--labels"]
    assert call(*arguments, "near sight", "far sight", "blind") == 0
    assert "near sight" in file.read_text()
    assert call(*arguments, "near sight") == 2
    said = capsys.readouterr().err
    assert "--labels has 1 names for 3 lines" in said and "shac:gamma=0.5" in said


def test_the_picture_has_a_column_for_each_environment_and_the_panels_that_have_data(
    runs: list[str],
) -> None:
    figure = draw(read_groups(runs), ("return", "cpu", "variance", "cosine", "bias"))
    axes = figure.get_axes()
    assert len(axes) == 10
    assert [ax.get_title(loc="left") for ax in axes[:2]] == ["pgtoolkit/LQG-v0", "CartPole-v1"]
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[:3] == ["shac:gamma=0.98 (2 seeds)", "shac:gamma=0.5", "reinforce"]
    assert texts[3:] == ["score function", "pathwise", "mixed"]
    assert axes[1].get_xlabel() == "environment steps"
    assert axes[2].get_xlabel() == "CPU time of training (s)"
    # CartPole has no path, so its cosine and bias are left empty.
    assert [ax.axison for ax in axes[6:]] == [True, False, True, False]
    alone = draw(read_groups(runs[3:]), ("return", "cosine", "bias"))
    assert len(alone.get_axes()) == 1


def test_a_line_is_the_interquartile_mean_over_the_seeds() -> None:
    """Returns 1, 2, 6 have the mean 3; variances 1, 10, 100 the geometric mean 10."""
    groups = [Group("ppo", "E", [scalars(r, v) for r, v in ((1, 1), (2, 10), (6, 100))])]
    figure = draw(groups, ("return", "variance"))
    returns, variances = figure.get_axes()
    lines = {line.get_label(): line.get_ydata() for line in returns.get_lines()}
    np.testing.assert_allclose(lines["ppo: evaluations, deterministic"], 3.0)
    lines = {line.get_label(): line.get_ydata() for line in variances.get_lines()}
    np.testing.assert_allclose(lines["score function"], 10.0)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["ppo: evaluations, deterministic (3 seeds)", "score function (3 seeds)"]


def scalars(value: float, variance: float) -> Scalars:
    steps = [10, 20, 30]
    return {
        "eval/mean_reward": (steps, [value] * 3),
        "gradient/score_function/variance": (steps, [variance] * 3),
    }


def test_a_group_has_its_colour_and_marker_in_every_panel_and_an_estimator_its_dashes() -> None:
    """So no colour has two meanings, and lines can be told apart without colour."""
    groups = [Group(label, "E", [scalars(1, 2) | pathwise(3)]) for label in ("ppo", "shac")]
    returns, variances = draw(groups, ("return", "variance")).get_axes()
    of_groups = [(line.get_color(), line.get_marker()) for line in returns.get_lines()]
    assert len({colour for colour, _ in of_groups}) == len({mark for _, mark in of_groups}) == 2
    found = [(line.get_color(), line.get_marker()) for line in variances.get_lines()]
    assert found == [of_groups[0]] * 2 + [of_groups[1]] * 2
    dashes = [str(line._dash_pattern) for line in variances.get_lines()]
    assert dashes[:2] == dashes[2:] and dashes[0] != dashes[1]


def test_a_group_alone_has_the_colours_of_its_estimators_and_black_returns() -> None:
    figure = draw([Group("shac", "E", [scalars(1, 2) | pathwise(3)])], ("return", "variance"))
    colours = [[line.get_color() for line in axes.get_lines()] for axes in figure.get_axes()]
    assert colours == [["black"], [CATALOGUE[n].colour for n in ("score_function", "pathwise")]]


def test_the_estimators_that_are_named_are_drawn_alone() -> None:
    groups = [Group(label, "E", [scalars(1, 2) | pathwise(3)]) for label in ("ppo", "shac")]
    returns, variances = draw(groups, ("return", "variance"), ("pathwise",)).get_axes()
    found = [line.get_ydata() for line in variances.get_lines()]
    np.testing.assert_allclose(found, [[3.0] * 3] * 2)  # a geometric mean of one curve rounds
    assert len(returns.get_lines()) == 2
    with pytest.raises(RequestError, match="no run has measured variance"):
        draw(groups, ("variance",), ("critic",))


def test_variances_of_states_are_not_on_the_axis_of_those_of_trajectories() -> None:
    """The critic's gradient is measured on single states, and what is beside it too."""
    critic = {"gradient/critic/variance": ([10, 20, 30], [5.0] * 3)}
    critic |= {"gradient/critic/followed": ([10, 20, 30], [1.0] * 3)}
    groups = [
        Group("shac", "E", [scalars(1, 2) | pathwise(3)]),
        Group("reppo", "E", [scalars(1, 2) | critic]),
    ]
    trajectories, states = draw(groups, ("variance",)).get_axes()
    assert "variance per trajectory" in trajectories.get_ylabel()
    assert "variance per state" in states.get_ylabel()
    assert len(trajectories.get_lines()) == len(states.get_lines()) == 2


def test_a_panel_without_data_is_named(runs: list[str], tmp_path: Path, capsys: Capture) -> None:
    assert call("plot", runs[3], "--output", str(tmp_path / "x.png")) == 0
    assert "left out, because no run has measured it: cosine, bias" in capsys.readouterr().out
    assert call("plot", runs[0], "--output", str(tmp_path / "y.png")) == 0
    assert "left out" not in capsys.readouterr().out


def pathwise(variance: float) -> Scalars:
    return {"gradient/pathwise/variance": ([10, 20, 30], [variance] * 3)}


@pytest.mark.parametrize("ending", [".png", ".pdf", ".svg"])
def test_the_picture_is_half_a_column_wide_and_no_text_is_cut_off(
    ending: str, tmp_path: Path
) -> None:
    """No text leaves the picture, and none is smaller than 7 points."""
    labels = ("ppo:learning_rate=0.001", "shac")
    runs = [scalars(1, 2) | pathwise(3), scalars(-1e6, 1e-3)]
    figure = draw([Group(label, "E", runs) for label in labels], ("return", "variance"))
    save(figure, tmp_path / f"figure{ending}")
    assert (tmp_path / f"figure{ending}").stat().st_size > 1000
    assert figure.get_size_inches()[0] == pytest.approx(3.3)
    figure.draw_without_rendering()  # places everything again, for the size on the screen
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.get_axes():
        texts += [axes.xaxis.label, axes.yaxis.label, axes.title]
    for text in texts:
        extent = text.get_window_extent()
        assert text.get_fontsize() >= 7, text
        assert extent.x0 >= -1 and extent.x1 <= figure.bbox.x1 + 1, text


def test_what_cannot_be_drawn_is_refused(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "x.png")]
    assert call("plot", str(tmp_path), *output) == 2
    assert "holds no run" in capsys.readouterr().err
    assert call("plot", runs[0], str(tmp_path / "nowhere"), *output) == 2
    assert "nowhere" in capsys.readouterr().err
    assert call("plot", *output) == 2
    assert "name the runs" in capsys.readouterr().err
    assert call("plot", runs[3], *output, "--panels", "bias") == 2
    assert "no run has measured bias" in capsys.readouterr().err
    assert call("plot", runs[0], "--output", str(tmp_path / "no" / "x.png")) == 2
    assert list(tmp_path.iterdir()) == []
    assert call("plot", *runs, *output) == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_stands_for_the_runs_below_it_and_one_without_any_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At any depth, such as those of a search; the folder of the logs of a comparison has none."""
    names = ["study/trial-0000/a", "study/trial-0001/a", "study/b"]
    for seed, name in enumerate(names):
        run = tmp_path / name
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(f"agent: ppo\nenv: E\nseed: {seed}\n")
    (tmp_path / "study" / "logs").mkdir()
    study = str(tmp_path / "study")
    paths = [study, f"{study}/logs", f"{study}/b", f"{study}/b/"]
    found = [str(folder.path.relative_to(tmp_path)) for folder, _ in opened(paths)]
    assert found == ["study/b", "study/trial-0000/a", "study/trial-0001/a"]
    assert f"{study}/logs holds no run: it is left out" in caplog.text


def test_the_same_run_twice_is_refused(runs: list[str], tmp_path: Path) -> None:
    """Under another name; the same path given twice counts once."""
    link = tmp_path / "copy"
    link.symlink_to(runs[0])
    with pytest.raises(RequestError, match="the same seed, 0"):
        read_groups([runs[0], str(link)])
    assert len(read_groups([runs[0], runs[0]])[0].runs) == 1


def test_columns_are_counted_as_matplotlib_fills_them() -> None:
    """Five labels in four columns are 2, 1, 1 and 1: three long ones then stand side by side."""
    lengths = [10, 10, 30, 30, 30]
    beside = [10, 30, 30, 30]
    width = sum(LETTER_WIDTH * n + LEGEND_LINE_WIDTH for n in beside)
    assert _columns(lengths, width) == 4
    assert _columns(lengths, 0.99 * width) < 4
