"""Tests that shape checks name the argument and its shape."""

import pytest
import torch

from pgtoolkit.shapes import check_same_shape, check_shape


def test_a_tensor_of_the_right_shape_passes() -> None:
    """``None`` stands for any size, 0 included."""
    check_shape("x", torch.zeros(2, 3), 2, 3)
    check_shape("x", torch.zeros(0, 3), None, 3)
    check_shape("x", torch.zeros(()))


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 1), (2,), (), (3, 2)])
def test_another_shape_is_refused_by_name(shape: tuple[int, ...]) -> None:
    """The error has the name, the shape that was wanted and the one that was given."""
    with pytest.raises(ValueError, match=r"reward must have shape \[any, 3\], but") as caught:
        check_shape("reward", torch.zeros(shape), None, 3)
    assert str(list(shape)) in str(caught.value)


def test_tensors_of_one_shape_pass_and_others_are_refused_by_name() -> None:
    """[N] and [N, 1] are not one shape, though they broadcast."""
    check_same_shape(a=torch.zeros(4), b=torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"a \[4\], b \[4, 1\]"):
        check_same_shape(a=torch.zeros(4), b=torch.zeros(4, 1))
