"""``pgtoolkit variance``: what the verdict says, the table shows and the plot marks."""

import dataclasses
import io
import math
from typing import Any

import pytest
from rich.console import Console

from pgtoolkit.estimators.catalogue import StudyEstimator
from pgtoolkit.estimators.horizon_study import Measurement
from pgtoolkit.scripts.variance_study.plot import draw
from pgtoolkit.scripts.variance_study.report import footnotes, table
from pgtoolkit.scripts.variance_study.verdict import crossover, defect, objection, verdict


def row(estimator: StudyEstimator, horizon: int, variance: float, **changes: Any) -> Measurement:
    """A measurement without a defect, with the given changes."""
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
    """Measurements of both estimators at one horizon; the changes apply to pathwise."""
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
    """The horizons are 2 and 8; ``ratios`` are the variance ratios there."""
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
        ["Use pathwise up to about H = 4 ", "score function beyond", "4 times higher at H = 8"],
    ),
    "crossover, in any order": (
        pair(8, 100, 400) + pair(2, 100, 25),
        ["Use pathwise up to about H = 4 ", "4 times lower at H = 2, 4 times higher at H = 8"],
    ),
    "always above": (
        pair(2, 1, 2) + pair(8, 1, 3),
        ["Use the score function", "2 times higher at H = 2"],
    ),
    "above, then below": (
        pair(2, 1, 2) + pair(8, 4, 1),
        ["Use the score function", "At H = 8, however, pathwise is the better one"],
    ),
    "biased": (
        pair(2, 100, 1, **BIASED) + pair(8, 100, 1),
        ["Use the score function: the pathwise gradient is biased here (z = 12 at H = 2)"],
    ),
    "biased later on": (
        pair(2, 100, 1) + pair(8, 100, 1, **BIASED),
        ["Use pathwise up to H = 2 and the score function beyond", "z = 12 at H = 8"],
    ),
    "biased, and higher": (pair(2, 1, 100, **BIASED), ["biased here (z = 12 at H = 2)"]),
    "exactly zero": (pair(1, 1, 0, **ZERO), ["Use the score function", "exactly zero at H = 1"]),
    "heavy tail": (
        pair(2, 100, 1) + pair(8, 100, 1, **HEAVY),
        ["Use pathwise up to H = 2", "70% of the squared deviations of pathwise at H = 8"],
    ),
    "heavy tail, and higher": (
        pair(2, 100, 1) + pair(8, 1, 100, **HEAVY),
        ["up to about H", "exceeds"],
    ),
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
    "a bias would not have been detected": (
        pair(2, 100, 1, signal=0.4) + pair(4, 100, 1),
        ["Use pathwise up to H = 4", "At H = 2 no bias was detected, but even a bias as large"],
    ),
    "all zero": (
        [row("score_function", 1, 0, **ZERO), row("pathwise", 1, 0, **ZERO)],
        ["Neither estimator has a gradient"],
    ),
    "no reference": (
        [row("score_function", 1, math.nan), row("pathwise", 1, 1)],
        ["score function's gradient is not finite at H = 1", "--log-std-init"],
    ),
    "no variance": (pair(2, 10, 0), ["Use pathwise up to H = 2", "0 at H = 2"]),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_the_closing_sentence(name: str) -> None:
    """The sentence names the estimator, the horizon and the reason."""
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


def rows_with_all_defects() -> list[Measurement]:
    """Every defect, with numbers of the widest format."""
    wide = {"variance_low": 1.23e-14, "variance_high": 4.56e-12, "snr": -7.4e-4, "signal_low": -1}
    return [
        row("score_function", 128, 7.89e-13, **wide),
        row("pathwise", 128, 7.89e-13, **wide | BIASED),
        row("mixed", 128, 7.89e-13, **wide | HEAVY),
        *pair(256, 1, 0, **ZERO),
        *pair(512, 1, 1, **OVERFLOW),
    ]


def test_the_table_fits_eighty_columns() -> None:
    """No cell is wrapped or cut, and every defect is named."""
    console = Console(width=80, file=io.StringIO())
    console.print(table(rows_with_all_defects()))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text and len(text.strip().splitlines()) == 2 + len(rows_with_all_defects())
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
    top, bottom = draw(rows_with_all_defects(), "title").axes
    assert "biased" in legend_of(top) and "exactly 0 at H = 256" in legend_of(top)
    assert "no signal seen" in legend_of(bottom) and not top.texts
