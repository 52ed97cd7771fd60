"""``pgtoolkit variance``: what the verdict says, the table shows and the plot marks."""

import dataclasses
import io
import math
from typing import Any

import pytest
from rich.console import Console

from pgtoolkit.estimators.catalogue import StudyEstimator
from pgtoolkit.estimators.horizon_study import Measurement
from pgtoolkit.scripts.variance_study.decision import decide, defect
from pgtoolkit.scripts.variance_study.plot import draw
from pgtoolkit.scripts.variance_study.report import footnotes, table
from pgtoolkit.scripts.variance_study.verdict import critic_verdict, crossover, verdict


def row(estimator: StudyEstimator, horizon: int, variance: float, **changes: Any) -> Measurement:
    """A measurement without a defect, with the given changes."""
    alone = estimator == "score_function"
    made = Measurement(
        estimator=estimator,
        horizon=horizon,
        trajectories=1000,
        mean_length=horizon,
        ended_early=0.0,
        seconds=0.1,
        seconds_per_trajectory=1e-4,
        rounding=1e-20,
        variance=variance,
        variance_low=0.8 * variance,
        variance_high=1.2 * variance,
        signal=1.0,
        signal_low=0.5,
        signal_high=1.5,
        snr=1 / variance if variance else math.inf,
        noise_scale=variance,
        effective_dimension=4.0,
        detectability=4.0,
        largest_share=0.01,
        bias=math.nan if alone else 0.01,
        bias_low=math.nan if alone else -0.1,
        bias_high=math.nan if alone else 0.2,
        bias_z=math.nan if alone else 1.0,
        ratio=math.nan,
        ratio_low=math.nan,
        ratio_high=math.nan,
    )
    return dataclasses.replace(made, **changes)


def pair(horizon: int, score: float, pathwise: float, **changes: Any) -> list[Measurement]:
    """Measurements of both estimators at one horizon; the changes apply to pathwise.

    The ratio has an interval of 10 % to either side.
    """
    ratio = pathwise / score if pathwise and score else math.nan
    ends = {"ratio": ratio, "ratio_low": ratio / 1.1, "ratio_high": ratio * 1.1}
    by_path = dataclasses.replace(row("pathwise", horizon, pathwise, **ends), **changes)
    return [row("score_function", horizon, score), by_path]


BIASED = {"bias_z": 12.0, "bias_low": 0.2}
HEAVY = {"largest_share": 0.7}
ZERO = {"signal": 0.0, "signal_low": math.nan, "signal_high": math.nan}
OVERFLOW = {"variance": math.nan, "signal_low": math.nan}
UNSEEN = {"signal": 0.2, "signal_low": -0.1}


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
        [
            "Use pathwise up to H = 16, the longest measured",
            "4,000 times lower at H = 4, 2 times lower at H = 16",
        ],
    ),
    "crossover": (
        pair(2, 100, 25) + pair(8, 100, 400),
        [
            "Use pathwise up to H = 2: its variance is 4 times lower.",
            "Use the score function at H = 8: pathwise's variance is 4 times higher.",
        ],
    ),
    "in any order": (
        pair(8, 100, 400) + pair(2, 100, 25),
        ["Use pathwise up to H = 2", "Use the score function at H = 8"],
    ),
    "above, then below": (
        pair(2, 1, 2) + pair(8, 4, 1),
        ["Use the score function up to H = 2", "Use pathwise at H = 8"],
    ),
    "undecided between the two": (
        pair(2, 100, 1) + pair(4, 100, 95) + pair(8, 100, 400),
        [
            "No difference that 1,000 trajectories can tell at H = 4",
            "0.86 to 1 times the score function's (about 4 times as many would tell)",
        ],
    ),
    "a tie": (
        pair(4, 1, 1),
        ["No difference that 1,000 trajectories can tell at H = 4", "more than 1,000 times"],
    ),
    "hardly a difference": (
        pair(4, 1, 0.99, ratio_low=0.985, ratio_high=0.995),
        ["Use pathwise at H = 4: its variance is 1 % lower."],
    ),
    "too few trajectories for a ratio": (
        pair(4, 1, 0.1, ratio_high=math.nan),
        ["No difference", "0.1 times the score function's, but rests on too few trajectories"],
    ),
    "biased": (
        pair(2, 100, 1, **BIASED) + pair(8, 100, 1),
        ["Use the score function up to H = 8", "the pathwise gradient is biased (z = 12 at H = 2)"],
    ),
    "biased later on": (
        pair(2, 100, 1) + pair(8, 100, 1, **BIASED),
        ["Use pathwise up to H = 2", "Use the score function at H = 8", "z = 12 at H = 8"],
    ),
    "biased, and higher": (pair(2, 1, 100, **BIASED), ["is biased (z = 12 at H = 2)"]),
    "biased, and episodes end": (
        pair(2, 100, 1, ended_early=0.4, **BIASED),
        ["is biased", "40% of the trajectories terminate early, which is the likely reason"],
    ),
    "exactly zero, and wrong": (
        pair(1, 1, 0, **ZERO | BIASED),
        ["Use the score function at H = 1: the pathwise gradient is exactly zero", "z = 12"],
    ),
    "zero, and nothing to see": (
        [row("score_function", 1, 100, **UNSEEN), row("pathwise", 1, 0, **ZERO)],
        ["Neither estimator shows a gradient at H = 1", "2 times as many trajectories are needed"],
    ),
    "overflow": (
        pair(2, 100, 1) + pair(8, 100, 1, **OVERFLOW),
        ["Use pathwise up to H = 2", "Use the score function at H = 8", "not finite at H = 8"],
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
    "a bias is not excluded": (
        pair(2, 100, 1, bias_high=7.05) + pair(4, 100, 1),
        [
            "Use pathwise up to H = 4, the longest measured, with caution: ",
            "Caution: at H = 2 a bias of pathwise that matters, with a square of 25% of its signal",
            "up to 7, and the squared norm of the pathwise gradient is 1 ",
            "(about 29 times as many --trajectories would exclude it, if there is none)",
        ],
    ),
    "a bias is suspected": (
        pair(2, 100, 1, bias_high=7.05, bias_z=2.5, bias_low=0.1),
        [
            "Caution: at H = 2",
            "(z is 2.5: if that is a bias, about 2 times as many would show it)",
        ],
    ),
    "nothing is known of a bias": (
        pair(2, 100, 1, bias_low=math.nan, bias_high=math.nan),
        ["Caution: at H = 2", "nothing is known of it"],
    ),
    "neither is seen": (
        [row("score_function", 4, 1000, **UNSEEN), *pair(4, 1000, 100, **UNSEEN)[1:]],
        ["Use pathwise", "no gradient is detectable by either: at H = 4 about 2 times as many"],
    ),
    "all zero": (
        [row("score_function", 1, 0, **ZERO), row("pathwise", 1, 0, **ZERO)],
        ["Neither estimator has a gradient"],
    ),
    "all rounding": (
        [
            row("score_function", 1, 1e-11, **ZERO | {"rounding": 1e-8}),
            row("pathwise", 1, 0, **ZERO),
        ],
        ["Neither estimator has a gradient", "up to rounding"],
    ),
    "no reference": (
        [row("score_function", 1, math.nan), row("pathwise", 1, 1)],
        ["score function's gradient is not finite at H = 1", "--log-std-init"],
    ),
    "no variance": (pair(2, 10, 0), ["Use pathwise at H = 2: its variance is 0."]),
    "longer, but better": (
        pair(2, 100, 1, seconds_per_trajectory=3e-4),
        [
            "At H = 2 a trajectory takes 3 times as long by pathwise as by the score function",
            "variance times seconds per trajectory is 3.0e-4 by pathwise and 0.01 by the score",
        ],
    ),
    "better, but too long": (
        pair(2, 100, 25, seconds_per_trajectory=1e-3),
        [
            "Use pathwise",
            "That reverses the choice at H = 2: for the same computing time the score function has",
        ],
    ),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_the_closing_sentence(name: str) -> None:
    """The sentence names the estimator, the horizon and the reason."""
    rows, words = VERDICTS[name]
    sentence = verdict(rows)
    for word in words:
        assert word in sentence, sentence
    assert "(1 times" not in sentence and " 1 times " not in sentence.replace("to 1 times", "")


@pytest.mark.parametrize(
    "name", ["never", "a tie", "biased", "exactly zero, and wrong", "all zero"]
)
def test_there_is_no_caution_without_reason(name: str) -> None:
    """A bias that is excluded, or one that was found, needs no caution."""
    rows = [dataclasses.replace(r, bias_high=min(r.bias_high, 0.2)) for r in VERDICTS[name][0]]
    assert "Caution" not in verdict(rows)


def test_the_time_is_not_said_to_reverse_a_choice_that_it_may_not() -> None:
    """A ratio of 4 against a time of 5: equal within what two times may be off."""
    assert "reverses" not in verdict(pair(2, 100, 25, seconds_per_trajectory=5e-4))


def test_a_bias_at_a_short_horizon_holds_at_longer_ones() -> None:
    """More noise hides it there, but the longer trajectories contain the shorter ones."""
    rows = pair(2, 100, 1, **BIASED) + pair(8, 1000, 1) + pair(16, 10, 1)
    assert [d.choice for d in decide(rows)] == ["score function"] * 3


def test_a_high_z_alone_or_an_interval_alone_is_no_bias() -> None:
    """Skewed gradients exceed z = 3 now and then, and an interval of 95 % misses 0 now and then."""
    assert defect(row("pathwise", 2, 1, bias_z=4.9, bias_low=0.1)) is None
    assert defect(row("pathwise", 2, 1, bias_z=9.0, bias_low=-0.1)) is None
    assert defect(row("pathwise", 2, 1, bias_z=9.0, bias_low=math.nan)) is None
    assert defect(row("pathwise", 2, 1, **BIASED)) == "biased"


def test_rounding_is_zero_unless_it_has_a_signal() -> None:
    """A small gradient that is exact shows a signal, and rounding does not."""
    small = {"signal": 1e-12, "rounding": 1e-10, "signal_low": -1e-13}
    assert defect(row("pathwise", 2, 1e-11, **small)) == "zero"
    assert defect(row("pathwise", 2, 1e-11, **small | {"signal_low": 1e-13})) is None
    assert defect(row("pathwise", 2, 1e-11, **small | {"rounding": 1e-13})) is None


def rows_with_all_defects() -> list[Measurement]:
    """Every defect, with numbers of the widest format."""
    wide = {"variance_low": 1.23e-14, "variance_high": 4.56e-12, "snr": -7.4e-4, "signal_low": -1}
    return [
        row("score_function", 128, 7.89e-13, **wide),
        row("pathwise", 128, 7.89e-13, **wide | BIASED),
        row("mixed", 128, 7.89e-13, **wide | HEAVY | {"variance_low": math.nan}),
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
    assert "too few trajectories" in text and "unseen" in text and "-7.4e-4" not in text


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
    assert "biased" in legend_of(top) and "pathwise is 0 at H = 256" in legend_of(top)
    assert "no signal seen" in legend_of(bottom) and not top.texts


# The critic ---------------------------------------------------------------------------------------


def test_a_biased_critic_is_named_with_its_angle() -> None:
    """Against what it is biased, where, and how far it points away."""
    angle = {"reference": "pathwise", "cosine": 0.2, "cosine_low": 0.1, "cosine_high": 0.3}
    ratio = {"ratio": 0.1, "ratio_low": 0.08, "ratio_high": 0.12}
    rows = [row("critic", 4, 1.0, **angle), row("critic", 8, 2.0, **BIASED, **angle, **ratio)]
    assert critic_verdict(rows) == (
        "The critic's gradient is biased at H = 8 (z = 12 against pathwise; the cosine of the two "
        "means is 0.1 to 0.3 at H = 8). Its variance is 0.08 to 0.12 times the score function's at "
        "H = 8."
    )
    console = Console(width=80, file=io.StringIO())
    console.print(table(rows))
    assert isinstance(console.file, io.StringIO)
    last = console.file.getvalue().strip().splitlines()[-1]
    assert "critic" in last and last.rstrip().endswith("biased")


def test_a_critic_without_a_bias_is_said_to_have_none_that_is_seen() -> None:
    rows = [row("critic", 4, 1.0, bias_z=2.5, reference="score_function")]
    assert critic_verdict(rows) == "No bias of the critic's gradient is seen (highest z 2.5)."
    assert critic_verdict(pair(4, 2.0, 1.0)) == ""
    assert "not finite at H = 4" in critic_verdict([row("critic", 4, **OVERFLOW)])
