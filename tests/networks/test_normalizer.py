"""The observation normaliser and its running moments."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pgtoolkit.networks.normalizer import Moments, ObservationNormalizer, exact_dtype


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


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        (np.float16, np.float64),
        (np.float32, np.int32),
        (np.int16, np.int64),
        (np.uint16, np.uint32),
        (np.bool_, np.uint64),
    ],
)
def test_float64_is_for_what_float32_does_not_hold(narrow: type, wide: type) -> None:
    assert exact_dtype(narrow) == np.float32
    assert exact_dtype(np.dtype(wide)) == np.float64


def test_large_observations_that_differ_by_one_are_normalised_exactly() -> None:
    """1.7e9 - 1 and 1.7e9 + 1 in equal numbers: mean 1.7e9, variance 1, so -1 and 1.

    The result is in the parameters' dtype: float32, and float64 after ``double()``.
    """
    normalizer = ObservationNormalizer(1)
    obs = torch.tensor([1.7e9 - 1, 1.7e9 + 1], dtype=torch.float64).view(1, 2, 1)
    normalizer.update(obs, torch.ones(1, 2, dtype=torch.bool))
    found = normalizer(obs)
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx([-1, 1], abs=1e-6)
    assert normalizer.double()(obs).dtype == torch.float64


def test_moments_do_not_depend_on_an_offset() -> None:
    """100 windows around 1.7e9 have the variance of the same windows around 0.

    float64 rounds a number near 1.7e9 by at most 1.2e-7, so a mean of 100 windows by at most 1e-5.
    """
    near, far = ObservationNormalizer(2), ObservationNormalizer(2)
    valid = torch.ones(4, 8, dtype=torch.bool)
    for number in range(100):
        steps = torch.randint(-3, 4, (4, 8, 2), generator=seeded(number)).double()
        near.update(steps, valid)
        far.update(1.7e9 + steps, valid)
    assert (far.mean - 1.7e9).tolist() == pytest.approx(near.mean.tolist(), abs=1e-5)
    assert far.variance.tolist() == pytest.approx(near.variance.tolist(), rel=1e-5)


def test_the_gradient_passes_the_cast() -> None:
    normalizer = ObservationNormalizer(1)
    obs = torch.tensor([[[1.0], [5.0]]], dtype=torch.float64, requires_grad=True)
    normalizer.update(obs, torch.ones(1, 2, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(normalizer(obs).sum(), obs)
    assert gradient.flatten().tolist() == pytest.approx([0.5, 0.5])
