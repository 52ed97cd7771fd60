"""The observation normaliser and its running moments."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pgtoolkit.networks.normalizer import Moments, ObservationNormalizer


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def test_running_moments_are_those_of_all_valid_observations() -> None:
    """Three windows of different lengths and means, some steps invalid, against NumPy."""
    normalizer, rows = ObservationNormalizer(3), []
    for number, length in enumerate((5, 1, 40)):
        obs = (100 * number + normal(length, 6, 3, seed=number)) * torch.tensor([1.0, 10.0, 0.1])
        valid = torch.rand(length, 6, generator=seeded(9 + number)) < 0.7
        normalizer.update(obs, valid)
        rows.append(obs[valid].double().numpy())
    seen = np.concatenate(rows)
    assert float(normalizer.count) == len(seen)
    np.testing.assert_allclose(normalizer.mean.numpy(), seen.mean(0), rtol=1e-12)
    np.testing.assert_allclose(normalizer.variance.numpy(), seen.var(0), rtol=1e-12)


def test_normalised_observations_have_mean_zero_and_variance_one() -> None:
    """The normaliser returns ``(obs - mean) / sd``, clipped to [-10, 10]."""
    normalizer = ObservationNormalizer(2)
    obs = torch.tensor([3.0, -50.0]) + torch.tensor([2.0, 10.0]) * normal(50, 40, 2)
    normalizer.update(obs, torch.ones(50, 40, dtype=torch.bool))
    seen = normalizer(obs).double()
    assert seen.mean((0, 1)).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert seen.var((0, 1), unbiased=False).tolist() == pytest.approx([1, 1], rel=1e-5)
    far = normalizer(torch.tensor([[1e9, -1e9]]))
    assert far.tolist() == [[10.0, -10.0]]


def test_a_fresh_normaliser_is_the_identity() -> None:
    """Up to the clip and the 1e-8 under the root."""
    obs = normal(10, 3)
    torch.testing.assert_close(ObservationNormalizer(3)(obs), obs)


def test_a_window_without_valid_steps_leaves_the_normaliser_as_it_was() -> None:
    """Without valid steps there is no division 0 / 0."""
    normalizer = ObservationNormalizer(3)
    normalizer.update(torch.full((2, 2, 3), float("nan")), torch.zeros(2, 2, dtype=torch.bool))
    assert normalizer.mean.tolist() == [0, 0, 0] and normalizer.variance.tolist() == [1, 1, 1]


def test_the_normalisers_moments_carry_no_gradient() -> None:
    """The input carries one: pathwise gradients pass the normaliser with slope ``1 / sd``."""
    normalizer = ObservationNormalizer(1)
    obs = torch.tensor([[[1.0], [5.0]]], requires_grad=True)
    normalizer.update(obs, torch.ones(1, 2, dtype=torch.bool))
    assert not any(buffer.requires_grad for buffer in normalizer.buffers())
    assert list(normalizer.parameters()) == []
    (gradient,) = torch.autograd.grad(normalizer(obs).sum(), obs)
    # mean 3, variance 4, so the slope is 1/2.
    assert gradient.flatten().tolist() == pytest.approx([0.5, 0.5])


def test_merged_moments_are_those_of_both_samples() -> None:
    """Squared deviations by entry, and their outer products."""
    first, second = normal(7, 2).double(), 3 + normal(40, 2, seed=1).double()

    def moments(rows: Tensor, outer: bool) -> Moments:
        centred = rows - rows.mean(0)
        scatter = centred.T @ centred if outer else centred.square().sum(0)
        return Moments(len(rows), rows.mean(0), scatter)

    for outer in (False, True):
        merged = moments(first, outer).merge(moments(second, outer))
        expected = moments(torch.cat([first, second]), outer)
        assert merged.size == expected.size
        torch.testing.assert_close(merged.mean, expected.mean)
        torch.testing.assert_close(merged.scatter, expected.scatter)
