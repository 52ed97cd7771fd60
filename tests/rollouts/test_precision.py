"""Observations whose variation float32 cannot represent are named."""

import pytest
import torch

from pgtoolkit.rollouts.precision import rounding_sentence


def column(*values: float) -> torch.Tensor:
    """Observations ``[M, 2]``: an entry that varies like any other, and these values."""
    entries = torch.tensor(values, dtype=torch.float64)
    return torch.stack([torch.arange(len(values)).double(), entries], 1)


@pytest.mark.parametrize(
    "values", [(1.7e9, 1.7e9 + 1), (-3e12, -3e12 + 100), (5 + 1e-9, 5.0), (2**25 + 1, 2**25 + 3)]
)
def test_an_entry_that_rounding_moves_by_a_part_of_its_range_is_named(
    values: tuple[float, float],
) -> None:
    assert "observation entry 1 varies by" in rounding_sentence(column(*values))


def test_the_sentence_says_how_much_around_what_and_what_to_do() -> None:
    assert rounding_sentence(column(1.7e9, 1.7e9 + 1)) == (
        "observation entry 1 varies by 1 around 1.7e+09, which float32 cannot represent: use "
        "--normalize-observations"
    )


@pytest.mark.parametrize(
    "values", [(1.7e9, 1.7e9), (1.7e9, 1.8e9), (0.1, 0.3), (1.0, 1 + 2e-16), (1e5, 1e5 + 1)]
)
def test_constants_and_what_float32_holds_are_not(values: tuple[float, float]) -> None:
    """Among them a constant that rounding in float64 moves."""
    assert rounding_sentence(column(*values)) == ""


def test_float32_observations_have_lost_nothing_here() -> None:
    assert rounding_sentence(column(1.7e9, 1.7e9 + 300).float()) == ""
