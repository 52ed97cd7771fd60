"""The progress line of a training on terminals of all widths."""

import dataclasses
import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from pgtoolkit.scripts.cli.display.progress_line import ProgressLine
from pgtoolkit.scripts.cli.display.training_status import TrainingStatus

STATUS = TrainingStatus(
    step=123_456,
    total_steps=500_000,
    updates=60,
    finished=False,
    seconds_left=754.0,
    steps_per_second=12_345.6,
    mean_return=-1234.56,
    snr=0.0123,
    alarm="! 75% of actions saturated (and 2 more)",
    eval_return=-1200.0,
    best_return=-1100.0,
    estimator="mixed",
    variances={"mixed": 1.5, "score_function": 123_456.0},
)


def rendered(width: int, status: TrainingStatus | None = STATUS, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(width=width, file=file, force_terminal=True, color_system=None)
    line = ProgressLine()
    line.status = status
    console.print(line, end="")
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [1, 5, 20, 60, 79, 80, 81, 120, 200])
@pytest.mark.parametrize("status", [None, STATUS])
def test_the_line_is_one_line_and_fits(width: int, status: TrainingStatus | None) -> None:
    text = rendered(width, status)
    assert "\n" not in text and cell_len(text) <= width


def test_all_that_matters_fits_into_eighty_columns() -> None:
    """Bar, percentage, time left, speed, return, SNR, then the alarm's words that have room."""
    facts = "  24%  0:12:34  12,300 steps/s  return -1234.6  SNR 0.012  ! 75% of..."
    assert rendered(80) == f"━━────────{facts}" and cell_len(facts) <= 70


def test_a_narrower_terminal_has_the_first_facts_whole_and_an_alarms_first_words() -> None:
    """A number that is cut is another number: -1199.9 would become -1."""
    whole = [fact for fact in rendered(300)[300 // 8 :].split("  ") if fact]
    assert whole[-2:] == ["mixed variance 1.5", "score function variance 1.23e5"]
    for width in range(10, 200):
        *shown, last = [fact for fact in rendered(width)[width // 8 :].split("  ") if fact] or [""]
        assert shown == whole[: len(shown)]
        fact, begin = whole[len(shown)], last.removesuffix("...")
        assert last in ("", fact) or (fact[0] == "!" and f"{fact} ".startswith(f"{begin} "))


def test_a_number_that_does_not_fit_is_left_out() -> None:
    status = dataclasses.replace(STATUS, alarm=None, eval_return=-1199.9)
    assert rendered(80, status).endswith("SNR 0.012")
    assert rendered(100, status).endswith("SNR 0.012  evaluation -1199.9")


def test_the_bar_is_ascii_where_the_encoding_is() -> None:
    text = rendered(80, encoding="ascii")
    assert text.startswith("==--------  24%") and text.isascii()


def test_a_full_bar_has_nothing_left() -> None:
    finished = dataclasses.replace(STATUS, finished=True)
    assert rendered(80, finished).startswith("━━━━━━━━━━ 100%")
    half = dataclasses.replace(STATUS, step=275_000)
    assert rendered(80, half).startswith("━━━━━╸────  55%")
