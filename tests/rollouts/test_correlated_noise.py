"""Noise that is correlated in time: its law, and that windows and runs go on where it was."""

import math

import pytest
import torch

from pgtoolkit.distributions.noise import Noise
from pgtoolkit.rollouts.correlated_noise import CorrelatedNoise
from pgtoolkit.state import StateError

NORMAL = (Noise("normal", 2),)
CORRELATION = 0.9


def made(num_envs: int = 3, action_size: int = 2) -> CorrelatedNoise:
    generator = torch.Generator().manual_seed(0)
    return CorrelatedNoise(CORRELATION, num_envs, action_size, generator)


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_one_step_by_hand() -> None:
    correlate, noise = made(), drawn(2, 3, 2)
    first = 0.9 * correlate.before + math.sqrt(0.19) * noise[0]
    second = 0.9 * first + math.sqrt(0.19) * noise[1]
    torch.testing.assert_close(correlate(noise, NORMAL), torch.stack([first, second]))


def test_every_step_is_standard_normal_and_the_correlation_falls_geometrically() -> None:
    """Over independent environments, so standard errors are those of independent samples.

    A product of two standard normals with correlation ``r`` has variance ``1 + r^2``.
    """
    num_envs = 100_000
    rows = made(num_envs, 1)(drawn(8, num_envs, 1), (Noise("normal", 1),))[..., 0].double()
    for step in (0, 3, 7):
        for lag in range(8 - step):
            expected = CORRELATION**lag
            error = 5 * math.sqrt((1 + expected**2) / num_envs)
            assert abs(float((rows[step] * rows[step + lag]).mean()) - expected) < error
        assert abs(float(rows[step].mean())) < 5 / math.sqrt(num_envs)


def test_two_windows_are_one_of_twice_the_length() -> None:
    one, two, noise = made(), made(), drawn(6, 3, 2)
    whole = one(noise, NORMAL)
    halves = torch.cat([two(noise[:2], NORMAL), two(noise[2:], NORMAL)])
    assert torch.equal(whole, halves)


def test_a_loaded_state_goes_on_with_the_same_bits() -> None:
    one, two, noise = made(), made(), drawn(4, 3, 2)
    one(drawn(5, 3, 2, seed=9), NORMAL)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(noise, NORMAL), two(noise, NORMAL))


def test_only_normal_entries_are_correlated() -> None:
    parts = (Noise("gumbel", 4), Noise("normal", 2))
    noise = drawn(5, 3, 6)
    found = made()(noise, parts)
    assert torch.equal(found[..., :4], noise[..., :4])
    assert torch.equal(found[..., 4:], made()(noise[..., 4:], NORMAL))


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(StateError, match="before"):
        made().load_state_dict(made(num_envs=4).state_dict())
