"""Tests of named random streams of one seed."""

import pytest
import torch

from pgtoolkit.errors import RequestError
from pgtoolkit.seeding import stream, stream_seed


def draw(seed: int, name: str) -> list[float]:
    return torch.randn(5, generator=stream(seed, name)).tolist()


def test_a_stream_repeats_itself() -> None:
    """The same seed and name give the same numbers."""
    assert draw(3, "noise") == draw(3, "noise")


def test_names_and_seeds_part_the_streams() -> None:
    """Another name or another seed, other numbers."""
    assert draw(0, "weights") != draw(0, "noise") != draw(1, "noise")


def test_env_factory_of_neighbouring_seeds_do_not_overlap() -> None:
    """A thousand environments, seeded one after the other from each of 20 runs' seeds."""
    ranges = [range(s, s + 1000) for s in (stream_seed(i, "environments") for i in range(20))]
    assert len({number for numbers in ranges for number in numbers}) == 20_000
    assert all(0 <= numbers.start < 2**31 for numbers in ranges)


def test_a_negative_seed_is_refused() -> None:
    """The error names the flag ``--seed``."""
    with pytest.raises(RequestError, match="seed must be at least 0"):
        stream(-1, "noise")
